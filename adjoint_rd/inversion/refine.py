"""Refinement of a first guess: weak-constraint fits (`weak`) of ever smaller tau, then with drift, by evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from . import cleanup, drift, verdict, weak
from .first_guess import USUAL, usual_start
from .snapshot import Snapshot
from .start import StartFit

LADDER = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)  # tau, in units of the largest value over time
FIRST_RUNGS = ((1e-3, 4), (1e-4, 8))  # tau and iterations from each start, before the ladder
LOUD = 0.015  # noise over the largest value from which the residual start is not trusted alone
FAR = 0.2  # change of a logarithm in the first rungs from which their result is not trusted alone
CELLS_PER_MODE = 64  # one mode of the drift for so many cells,
MODES = (48, 128)  # within these limits
DRIFT_TAU = (1e-6, 3e-6)  # the second where the modes do not reach down to the first, see LOOSE_END
LOOSE_END = 3.0  # the drift along the last mode over tau
UNDECIDED = 5.0  # of log evidence: more is decisive (R. E. Kass, A. E. Raftery, J. Am. Stat. Assoc. 90 (1995) 773)
DROP = 30.0  # the ladder ends when the evidence has fallen by so much
SLIGHT = 1e-2  # weight in the mixture below which a fit is taken as it is
SETTLING, LEAST_GAIN = 4, 1e-5  # iterations, and change of the cost, at which a fit has settled
BLUR = 0.1  # least noise before rounding that is assumed, in steps: what the model itself may be off


def refine(
    given: Snapshot, begin: StartFit, shift: float, spectrum: cleanup.Spectrum, loose: bool = True
) -> weak.Fit | str:
    """Weak-constraint fits down the ladder of tau, the drift model, the one of highest evidence; or why there is none.

    Without `loose` from the start directly, for one that is good.
    """
    S, cells = len(given.model.species), given.grid.size
    values, seen = np.zeros((S, cells)), np.zeros((S, cells))
    values[list(given.species)] = given.values.reshape(len(given.species), cells)
    seen[list(given.species)] = given.seen.reshape(len(given.species), cells)
    rows = np.tile((~(given.hole | given.edge)).ravel(), S).astype(np.float64)
    data = weak.Data(values, seen, rows, offset=given.offset_unknown)
    problem = weak.Problem(given.system, data, given.free)
    top = float(np.max(np.abs(values)))
    sigma = max(spectrum.noise, 1e-5 * top)
    params = {name: (value if value > 0 else 1e-4) for name, value in begin.params.items()}
    unit = max(_reaction(given, begin.state, params) / 0.01, 1e-6)  # the ladder's values are for reactions of 0.01
    try:
        if loose:
            fit = _first_rungs(given, problem, begin, params, shift, sigma, unit)
        else:
            first = weak.start_fit(params, begin.state, offset=shift)
            fit = problem.fit(first, sigma, LADDER[1] * unit, evidence=False)
    except np.linalg.LinAlgError as error:
        return f"the refinement failed ({error})."
    if fit.chi2 > 3.0:
        return str(verdict.misfit(fit, given.model))
    reason = verdict.implausible(fit.params, given.model, given.grid)
    if reason:  # among others F, k, Dv -> 0, where every equation holds trivially
        return f"the refinement leads to {reason}; the image is no steady pattern of {given.model.name}."
    if spectrum.step:
        problem = weak.Problem(given.system, replace(data, step=spectrum.step), given.free)
        before = np.sqrt(max(spectrum.noise**2 - spectrum.step**2 / 12.0, 0.0))
        sigma = max(float(before), BLUR * spectrum.step)
    fits = _down_the_ladder(given, problem, fit, sigma, unit, LADDER)
    if max(abs(np.log(fit.params[name] / params[name])) for name in given.free if fit.params[name] > 0) > FAR:
        # The loose first rungs may have slid to F, k -> 0: also go from the start directly to a tight one.
        other = _down_the_ladder(
            given, problem, weak.start_fit(params, begin.state, offset=shift), sigma, unit, LADDER[1:]
        )
        fits += other
        if _best(other) is _best(fits):
            fits.append(problem.fit(_best(other), sigma, LADDER[0] * unit, max_iterations=8))
            _log_fit(given, fits[-1])
    best = _best(fits)
    if given.noise is None and not spectrum.step:
        again = _measured(given, best, best.sigma, problem.data.count)
        if abs(again / best.sigma - 1.0) > 0.02:
            best = problem.fit(best, again, best.tau, max_iterations=6, label=best.label)
            _log_fit(given, best)
    steady = best.tau <= 1.01 * LADDER[-1] * unit
    if not steady and verdict.misfit(best, given.model) is None:
        drifting = _with_drift(given, problem, best, unit)
        fits += drifting
        best = _best([best, *drifting])
    return _with_doubt(given, problem, best, fits, given.noise is None and not spectrum.step)


def _first_rungs(
    given: Snapshot,
    problem: weak.Problem,
    begin: StartFit,
    params: dict[str, float],
    shift: float,
    sigma: float,
    unit: float,
) -> weak.Fit:
    """The fit of least cost from the residual start and, with much noise, from the usual parameters."""
    starts = [weak.start_fit(params, begin.state, offset=shift)]
    if (
        given.model.name in USUAL
        and len(given.species) == 1
        and sigma > LOUD * float(np.max(np.abs(begin.state[given.species[0]])))
    ):
        usual = usual_start(given, begin.state)
        starts.append(weak.start_fit(usual.params, usual.state, offset=shift))
    reached = []
    for fit in starts:
        for tau, most in FIRST_RUNGS:
            fit = problem.fit(fit, sigma, tau * unit, max_iterations=most, evidence=False)
        _log_fit(given, fit)
        reached.append(fit)
    return min(reached, key=lambda fit: fit.cost)


def _down_the_ladder(
    given: Snapshot, problem: weak.Problem, fit: weak.Fit, sigma: float, unit: float, rungs: tuple[float, ...]
) -> list[weak.Fit]:
    """The fits as tau gets smaller, until the evidence falls."""
    best = replace(fit, evidence=-np.inf)
    fits = [best]
    for n, tau in enumerate(rungs):
        try:
            fit = problem.fit(fit, sigma, tau * unit, max_iterations=12 if tau < 2e-6 else 10 if tau < 5e-6 else 8)
        except np.linalg.LinAlgError:
            break
        _log_fit(given, fit)
        fits.append(fit)
        if fit.evidence > best.evidence:
            best = fit
        elif fit.evidence < best.evidence - DROP:
            break
        if n >= 1 and given.noise is None and not problem.data.step and fit is best:
            sigma = _measured(given, fit, sigma, problem.data.count)
    return fits


def _best(fits: list[weak.Fit]) -> weak.Fit:
    return max(fits, key=lambda fit: fit.evidence)


def _with_doubt(
    given: Snapshot, problem: weak.Problem, best: weak.Fit, fits: list[weak.Fit], measured: bool
) -> weak.Fit:
    """`best` with the covariance of the mixture of all fits that the evidence does not rule out, about its estimate.

    (Bayesian model averaging, J. A. Hoeting et al., Stat. Sci. 14 (1999) 382; those within `UNDECIDED` of the largest
    log evidence count alike, since nothing is known beforehand of how steady a pattern is.) With a `measured` sigma
    each evidence is taken at the sigma of its own fit.
    """
    fits = [fit for fit in fits if np.isfinite(fit.evidence)]  # a ladder whose first rung failed has only its start
    if not fits:
        return best
    evidence = np.array([fit.evidence for fit in fits])
    if measured:
        count = problem.data.count
        ratio = np.clip([fit.cost / count for fit in fits], 0.25, 4.0)
        evidence = evidence + 0.5 * count * (ratio - 1.0 - np.log(ratio))
    weights = np.exp(np.minimum(evidence - evidence.max() + UNDECIDED, 0.0))
    weights /= weights.sum()
    settled = {id(fit): _settled(problem, fit) for fit, weight in zip(fits, weights, strict=True) if weight > SLIGHT}
    best = settled.get(id(best)) or _settled(problem, best)
    _log_fit(given, best)
    k = len(given.free)
    total = np.zeros_like(best.covariance)
    for fit, weight in zip(fits, weights, strict=True):
        if weight <= 1e-6:
            continue
        fit = settled.get(id(fit), fit)
        moved = [
            np.log(fit.params[n] / best.params[n]) if min(fit.params[n], best.params[n]) > 0.0
            else fit.params[n] - best.params[n]
            for n in given.free
        ]  # fmt: skip
        total += weight * fit.covariance
        total[:k, :k] += weight * np.outer(moved, moved)
    return replace(best, covariance=total)


def _settled(problem: weak.Problem, fit: weak.Fit) -> weak.Fit:
    """`fit` taken on to where its cost stands still.

    A cost that could fall by 0.01 still says little of the parameters, but there the curvature of the equation, times
    its residual over tau^2, can be as large as all that the data tell, and the covariance is not that of the minimum.
    """
    there = problem.fit(
        fit, fit.sigma, fit.tau, modes=fit.modes, spread=fit.spread, max_iterations=SETTLING, tol=0.0,
        least_gain=LEAST_GAIN, evidence=False, label=fit.label,
    )  # fmt: skip
    return replace(there, evidence=fit.evidence, converged=fit.converged or there.converged)


def _reaction(given: Snapshot, state: np.ndarray, params: dict[str, float]) -> float:
    """The size of the reaction's variation; that of a few spots on a wide ground is not less than that of many."""
    reaction = given.model.reaction(tuple(state), tuple(params[name] for name in given.model.parameters))
    varying = [r - np.mean(r) for r in np.broadcast_arrays(*reaction)]
    dense = [np.sqrt(np.mean(r**4) / max(float(np.mean(r**2)), 1e-300)) for r in varying]
    return max(verdict.magnitude(given.model, state, params), 0.5 * float(max(dense)))


def _measured(given: Snapshot, fit: weak.Fit, sigma: float, count: int) -> float:
    """sigma for which the cost is as expected; cost ~ chi^2 of as many degrees of freedom as there are data."""
    floor = 1e-6 * float(np.max(np.abs(given.values)))
    return max(sigma * float(np.sqrt(np.clip(fit.cost / max(count, 1), 0.25, 4.0))), floor)


def _with_drift(given: Snapshot, problem: weak.Problem, best: weak.Fit, unit: float) -> list[weak.Fit]:
    """Fits with drift."""
    count = int(np.clip(given.grid.size // CELLS_PER_MODE, *MODES))
    fits, fit, there = [], best, best.params
    try:
        for tau in DRIFT_TAU:
            if fit is best or _far(fit.params, there, given.free):
                there = fit.params
                modes = drift.soft_modes(given.system, fit.state.ravel(), there, count)
            fit = problem.fit(
                fit, best.sigma, tau * unit, modes=modes, spread=3e-4 * unit, max_iterations=8,
                label=f"drift along {count} modes, tau = {tau * unit:.0e}",
            )  # fmt: skip
            _log_fit(given, fit)
            fits.append(fit)
            if fit.spread[-1] < LOOSE_END * fit.tau and not _far(fit.params, there, given.free):
                break
    except (np.linalg.LinAlgError, RuntimeError) as error:
        given.log("drift", failed=str(error))
    return fits


def _log_fit(given: Snapshot, fit: weak.Fit) -> None:
    given.log(
        f"refine, {fit.label}", params=fit.params, chi2=fit.chi2, evidence=fit.evidence, rate=fit.rate,
        iterations=fit.iterations, sigma=fit.sigma,
    )  # fmt: skip


def _far(params: Mapping[str, float], others: Mapping[str, float], names: tuple[str, ...]) -> bool:
    """Whether parameters differ by more than 1 %."""
    return any(abs(params[name] - others[name]) > 0.01 * abs(others[name]) for name in names)
