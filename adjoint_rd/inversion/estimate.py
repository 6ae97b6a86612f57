"""From a fit to the result: checks of the fit, known ratios, bounds and an unknown gain imposed on its estimate.

The attributes of an `adjoint_rd.inverse.Inversion` are handed back as a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from . import cleanup, constraints, verdict, weak
from .snapshot import Snapshot
from .start import Residual, StartFit, structure

CONTRADICTED = 5.0  # standard errors at which a known ratio or a bound is refused
MOST_VALUE = 2.0  # of u and v; more in refused data is pointed out
DISAGREE = 1e-6  # the probability below which data do not have the same parameters
SETTLE = 10.0  # the time that seams of tiles are given
ROUNDS, SETTLED = 6, 0.1  # of a joint estimate, and its change in standard errors that ends them
CLEAN_FACTOR = 1.5  # by which the standard errors of the residual fit are widened, see validation/inversion_suite.py


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a fit that passed its checks tells of the free parameters.

    Attributes
    ----------
    mean, covariance : ndarray
        Of log p where `on_log`, else of p.
    on_log : ndarray of bool
    state : ndarray (S, cells)
    rate : float
        The root mean square of y_t.
    noise, shift : float
        Of the data, in the model's units.
    clean : bool
        Whether no noise was seen.
    note : str
        What to say of how it came about.
    about : callable or None
        What the data tell at other parameters, for an estimate from several, see `weak.Problem.about`.
    """

    mean: np.ndarray
    covariance: np.ndarray
    on_log: np.ndarray
    state: np.ndarray
    rate: float
    noise: float
    shift: float
    clean: bool = False
    note: str = ""
    about: Callable[[Mapping[str, float]], tuple[np.ndarray, np.ndarray]] | None = None

    def values(self) -> np.ndarray:
        """The parameters."""
        return np.where(self.on_log, np.exp(np.where(self.on_log, self.mean, 0.0)), self.mean)

    def params(self, given: Snapshot) -> dict[str, float]:
        """By their names, with the known ones."""
        return {**given.known, **dict(zip(given.free, self.values().tolist(), strict=True))}


def of_residual(given: Snapshot, fit: StartFit) -> Estimate | str:
    """From the residual fit of clean data, or why not."""
    part = structure(given.model, given.species[0], given.known)
    problem = Residual(given.model, given.grid, given.values[0], part, given.known)
    covariance = problem.covariance(fit.params)
    if covariance is None:
        covariance = np.full((len(given.free),) * 2, np.nan)
    rate = float(np.sqrt(np.mean(given.system.residual(fit.state.ravel(), fit.params) ** 2)))
    refusal = verdict.unsteady(rate, verdict.magnitude(given.model, fit.state, fit.params))
    found = _estimate(given, fit.params, fit.state, covariance * CLEAN_FACTOR**2, rate, clean=True)
    return refusal or _checked(given, found, fit.params)


def of_fit(given: Snapshot, fit: weak.Fit, begin: StartFit, spectrum: cleanup.Spectrum) -> Estimate | str:
    """From a refinement, or why not."""
    k = len(given.free)
    if fit.modes is not None:  # kept for a joint estimate: half the memory
        fit = replace(fit, modes=replace(fit.modes, basis=fit.modes.basis.astype(np.float32)))
    reaction = verdict.magnitude(
        given.model, begin.state, {name: (value if value > 0 else 1e-4) for name, value in begin.params.items()}
    )
    refusal = (
        verdict.misfit(fit, given.model)
        or verdict.too_rough(fit, spectrum, given.noise is not None, int(np.count_nonzero(given.seen)), given.model)
        or verdict.unsteady(fit.rate, reaction)
        or verdict.not_converged(fit)
    )
    found = _estimate(given, fit.params, fit.state, fit.covariance[:k, :k], fit.rate, noise=fit.noise, shift=fit.offset)
    found = replace(found, about=partial(_about, fit))
    return refusal or _checked(given, found, fit.params)


def _about(fit: weak.Fit, params: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = fit.problem.about(fit, params)
    return mean, covariance + fit.doubt


def together(given: Snapshot, found: list[Estimate]) -> tuple[Estimate, float]:
    """(joint estimate, probability that estimates which agree differ so much), of data with the same parameters.

    Each is linearised at the joint estimate, the joint estimate made again, and so on. Linearised each at its own,
    those along a valley that bends would point to where none of them leads. What is negative in one is on a linear
    scale in all. Interrupted it is that of the last round.
    """
    found = [one for one in found if np.all(np.isfinite(one.covariance))] or found[-1:]
    if len(found) == 1:
        return found[0], 1.0
    on_log = np.all([one.on_log for one in found], axis=0)
    joint, agreement = _joined(found[-1], [_on(on_log, one) for one in found])
    try:
        for _ in range(ROUNDS):
            params = joint.params(given)
            there = [_on(on_log, _there(given, one, params)) for one in found]
            before = joint.mean
            joint, agreement = _joined(joint, there)
            given.log("together", params=params, agreement=agreement)
            if np.all(np.abs(joint.mean - before) <= SETTLED * np.sqrt(np.diag(joint.covariance))):
                break
    except KeyboardInterrupt:
        joint = replace(joint, note=f"{joint.note} Interrupted in the joint estimate.")
    return joint, agreement


def _joined(like: Estimate, found: list[Estimate]) -> tuple[Estimate, float]:
    """(estimate, agreement) of those on one scale."""
    mean, covariance, agreement = constraints.together([one.mean for one in found], [one.covariance for one in found])
    return replace(like, mean=mean, covariance=covariance, on_log=found[0].on_log), agreement


def _there(given: Snapshot, one: Estimate, params: Mapping[str, float]) -> Estimate:
    """An estimate linearised at other parameters, itself where it cannot be."""
    if one.about is None:
        return one
    try:
        mean, covariance = one.about(params)
    except np.linalg.LinAlgError:
        return one
    return replace(one, mean=mean, covariance=covariance, on_log=np.array([params[name] > 0 for name in given.free]))


def _on(on_log: np.ndarray, one: Estimate) -> Estimate:
    """An estimate with only these parameters on a logarithmic scale, of those that it has there."""
    slopes = np.where(one.on_log & ~on_log, one.values(), 1.0)
    mean = np.where(one.on_log & ~on_log, one.values(), one.mean)
    return replace(one, mean=mean, covariance=one.covariance * np.outer(slopes, slopes), on_log=on_log)


def of_tiles(given: Snapshot, found: Estimate) -> Estimate | str:
    """From the joint estimate of the tiles of an image, or why not; where they meet the state may be rough."""
    return _checked(given, found, found.params(given), settle=SETTLE)


def _estimate(
    given: Snapshot, params: dict[str, float], state: np.ndarray, covariance: np.ndarray, rate: float,
    noise: float = 0.0, shift: float = 0.0, clean: bool = False,
) -> Estimate:  # fmt: skip
    values = np.array([params[name] for name in given.free])
    on_log = values > 0
    mean = np.where(on_log, np.log(np.abs(values)), values)
    return Estimate(mean, covariance, on_log, state, rate, noise, shift, clean)


def _checked(given: Snapshot, found: Estimate, params: dict[str, float], settle: float = 0.0) -> Estimate | str:
    """`found` if its parameters are plausible and its state lasts, else why not."""
    reason = verdict.implausible(params, given.model, given.grid)
    if reason:
        return f"the fit leads to {reason}; the image is no steady pattern of {given.model.name}"
    reason = verdict.mostly_ground(given, found.state.reshape(len(given.model.species), -1), params)
    if reason:
        return reason
    if not found.note and not (given.hole | given.edge).any():  # else the state is not known everywhere
        refusal, change = verdict.runs_on(given.model, given.grid, found.state, params, found.rate, settle)
        given.log("run on", change=change)
        if refusal:
            return refusal
    return found


# Results


def refused(given: Snapshot, reason: str) -> dict[str, Any]:
    """No success, for this reason."""
    largest = float(np.max(np.abs(given.values), initial=0.0))
    if given.model.name == "gray_scott" and largest > MOST_VALUE:
        reason = f"{reason.rstrip('.')}. The data go up to {largest:.3g}: levels of an image, or percent? Give scale=."
    nothing = dict.fromkeys(given.free, float("nan"))
    return {
        "params": {**nothing, **given.known},
        "stderr": nothing,
        "covariance": np.full((len(given.free),) * 2, np.nan),
        "names": given.free,
        "state": np.full((len(given.model.species), *given.grid.shape), np.nan),
        "success": False,
        "message": reason[0].upper() + reason[1:],
        "stages": given.stages,
    }


def report(given: Snapshot, found: Estimate, alone: bool = True) -> dict[str, Any]:
    """The result, with known ratios and bounds imposed; `alone` if nothing else will be put together with it."""
    refusal, mean, cov, held = _impose(given, found)
    on_log = found.on_log
    values = np.where(on_log, np.exp(np.where(on_log, mean, 0.0)), mean)
    slopes = np.where(on_log, values, 1.0)
    relative = np.sqrt(np.maximum(np.diag(cov), 0.0)) * slopes / np.maximum(np.abs(values), 1e-12)
    if refusal is None and alone and not np.all(relative < 0.5):
        worst = given.free[int(np.argmax(np.where(np.isnan(relative), np.inf, relative)))]
        refusal = f"the data do not determine {worst} (its standard error is {100 * np.max(relative):.0f} %)"
    if refusal:
        return refused(given, refusal)
    noise = found.noise / abs(given.scale)
    message = verdict.praise(given.free, relative, found.rate, noise, found.clean) + held + found.note
    params = {**given.known, **dict(zip(given.free, values.tolist(), strict=True))}
    params = {name: float(params[name]) for name in given.model.names}
    state = found.state.reshape(len(given.model.species), *given.grid.shape)
    covariance = cov * np.outer(slopes, slopes)
    combinations: dict[str, tuple[float, float]] = {}
    gain = 1.0 / given.scale
    if given.scale_unknown:
        params, covariance, combinations, gain, message = _with_gain(given, params, cov, message)
        state = state.copy()
        state[1] *= 1.0 / (gain * given.scale)
    return {
        "params": params,
        "stderr": dict(zip(given.free, np.sqrt(np.maximum(np.diag(covariance), 0.0)).tolist(), strict=True)),
        "covariance": covariance,
        "names": given.free,
        "state": state,
        "success": True,
        "message": message,
        "stages": given.stages,
        "combinations": combinations,
        "noise": noise,
        "rate": found.rate,
        "offset": found.shift / given.scale,
        "gain": gain,
    }


def _impose(given: Snapshot, found: Estimate) -> tuple[str | None, np.ndarray, np.ndarray, str]:
    """(refusal, mean, covariance, what to say) with known ratios and bounds imposed on the estimate."""
    mean, cov, held = found.mean, found.covariance, ""
    unit = dict(zip(given.free, np.eye(len(given.free)), strict=True))
    for (above, below), value in given.ratios.items():
        mean, cov, score = constraints.condition(mean, cov, unit[above] - unit[below], float(np.log(value)))
        if not abs(score) < CONTRADICTED:
            return f"{above}/{below} = {value:g} is {abs(score):.0f} standard errors from the data", mean, cov, held
    for name, pair in given.bounds.items():
        n = given.free.index(name)
        low, high = (np.log(x) if x > 0 and found.on_log[n] else x for x in pair)
        if pair[0] <= 0 and found.on_log[n]:
            low = -np.inf
        if low <= mean[n] <= high:
            continue
        bound = low if mean[n] < low else high
        mean, cov, score = constraints.condition(mean, cov, unit[name], float(bound))
        if not abs(score) < CONTRADICTED:
            return f"{name} is {abs(score):.0f} standard errors outside of bounds {pair}", mean, cov, held
        held += f" {name} is held at its bound."
    return None, mean, cov, held


def _with_gain(given: Snapshot, params: dict[str, float], log_cov: np.ndarray, message: str) -> Any:
    """Combinations that an unknown gain leaves, and all four parameters if one more fact is known.

    With v = a w: ``(Du, Dv, F, F + k) -> (l Du, sqrt(l) Dv, l F, sqrt(l) (F + k))``, l = a^2, solves the same
    equations for w scaled.
    """
    Du, Dv, F, s = params["Du"], params["Dv"], params["F"], params["F"] + params["k"]
    # Covariance of the logarithms of (Du, Dv, F, s): d log s = (F dlogF + k dlogk) / s.
    T = np.eye(4)
    T[3] = [0.0, 0.0, F / s, params["k"] / s]
    cov = T @ log_cov @ T.T
    family = np.array([1.0, 0.5, 1.0, 0.5])
    rows = {
        "Du/F": (Du / F, [1, 0, -1, 0]),
        "Dv/sqrt(F)": (Dv / np.sqrt(F), [0, 1, -0.5, 0]),
        "(F+k)/sqrt(F)": (s / np.sqrt(F), [0, 0, -0.5, 1]),
    }
    combinations = {
        name: (float(value), float(value * np.sqrt(np.array(c) @ cov @ np.array(c))))
        for name, (value, c) in rows.items()
    }
    largest = (s / F) ** 2
    fact = given.gain_fact
    x = np.log([Du, Dv, F, s])
    if fact:
        ((name, target),) = fact.items()
        c = np.array([1.0, -1.0, 0, 0]) if name == "Du/Dv" else np.eye(4)[["Du", "Dv", "F"].index(name)]
        move = (np.log(target) - c @ x) / (c @ family)
        M = np.eye(4) - np.outer(family, c) / (c @ family)
        cov = M @ cov @ M.T
        message += f" The gain follows from {name} = {target:g}."
    else:
        move = 2.0 * np.log(2.0 * Dv / Du)
        cov = np.full((4, 4), np.nan)
        message += (
            " The gain is unknown: only the combinations are determined. (l Du, sqrt(l) Dv, l F, sqrt(l) (F + "
            "k)) fits "
            f"equally well for every l up to {largest / np.exp(move):.4g} (beyond, k < 0), counted from the "
            "parameters "
            "shown, which are the ones with Du/Dv = 2. Give known={'Du/Dv': ...} or another parameter to resolve "
            "it."
        )
    x = x + move * family
    Du, Dv, F, s = np.exp(x)
    found = {"Du": float(Du), "Dv": float(Dv), "F": float(F), "k": float(s - F)}
    B = np.diag([Du, Dv, F, s])
    B[3] = [0.0, 0.0, -F, s]
    # v = (fitted v) * sqrt(l), and the fitted v was scale * data.
    return found, B @ cov @ B.T, combinations, float(1.0 / (given.scale * np.exp(0.5 * move))), message
