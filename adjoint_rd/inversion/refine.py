"""Refinement of a first guess: weak-constraint fits (`weak`) of ever smaller tau, then with drift, by evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from . import cleanup, drift, verdict, weak
from .first_guess import is_loud, usual_start
from .snapshot import Snapshot
from .start import StartFit

LADDER = (1e-4, 1e-5, 1e-6)  # tau, in units of the largest value over time
BETWEEN = (3e-5, 3e-6)  # tried beside the one of most evidence, where that is not the last
NEXT = 5.0  # between these the ratio is less
FIRST_ITERATIONS, LAST_ITERATIONS = 12, 24  # from each start with the first tau, the second if they lead apart:
AGREED = 0.05  # difference of a parameter up to which two starts have led to the same,
RULED_OUT = 100.0  # and of the cost from which one of them is out
FAR = 0.2  # change of a parameter in the first rung from which its result is not trusted alone
CELLS_PER_MODE = 64  # one mode of the drift for so many cells,
MODES = (48, 128)  # within these limits
DRIFT_TAU = (1e-6, 3e-6)  # the second where the modes do not reach down to the first, see LOOSE_END
LOOSE_END = 3.0  # the drift along the last mode over tau
UNDECIDED = 5.0  # of log evidence: more is decisive (R. E. Kass, A. E. Raftery, J. Am. Stat. Assoc. 90 (1995) 773)
DROP = 30.0  # the ladder ends when the evidence has fallen by so much
HOPELESS = 1.5  # cost over the number of data from which a tau is too small
SAME_NOISE = 0.02  # change of sigma up to which a fit is not repeated
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
    loud = is_loud(given, begin.state, spectrum)
    first = weak.start_fit(params, begin.state, offset=shift)
    try:
        if loose:
            reached = _first_rung(given, problem, first, sigma, unit, loud)
        else:
            reached = [problem.fit(first, sigma, BETWEEN[0] * unit, evidence=False)]
    except np.linalg.LinAlgError as error:
        return f"the refinement failed ({error})."
    if reached[0].chi2 > 3.0:
        return str(verdict.misfit(reached[0], given.model))
    reason = verdict.implausible(reached[0].params, given.model, given.grid)
    if reason:  # among others F, k, Dv -> 0, where every equation holds trivially
        return f"the refinement leads to {reason}; the image is no steady pattern of {given.model.name}."
    if spectrum.step:
        problem = weak.Problem(given.system, replace(data, step=spectrum.step), given.free)
        before = np.sqrt(max(spectrum.noise**2 - spectrum.step**2 / 12.0, 0.0))
        sigma = max(float(before), BLUR * spectrum.step)
    ladders = [LADDER] if len(reached) == 1 else [LADDER, LADDER[:1] + LADDER[-1:]]
    fits = [
        fit for start in reached for rungs in ladders
        for fit in _down_the_ladder(given, problem, start, sigma, unit, rungs)
    ]  # fmt: skip
    if not loud and _distance(reached[0].params, params, given.free) > FAR:
        # The loose first rung may have slid to F, k -> 0: also go from the start directly to a tight one.
        other = _down_the_ladder(given, problem, first, sigma, unit, (BETWEEN[0], *LADDER[1:]))
        fits += other
        if other and _best(other) is _best(fits):
            fits.append(problem.fit(_best(other), sigma, LADDER[0] * unit))
            _log_fit(given, fits[-1])
    if not fits:
        return "the refinement failed (its matrices are singular)."
    best = _best(fits)
    for tau in BETWEEN:
        if LADDER[-1] * unit < best.tau and NEXT > tau * unit / best.tau > 1.0 / NEXT:
            fits.append(problem.fit(best, best.sigma, tau * unit))
            _log_fit(given, fits[-1])
    best = _best(fits)
    if given.noise is None and not spectrum.step:
        again = _measured(given, best, best.sigma, problem.data.count)
        if abs(again / best.sigma - 1.0) > SAME_NOISE:
            best = problem.fit(best, again, best.tau, label=best.label)
            _log_fit(given, best)
    steady = best.tau <= 1.01 * LADDER[-1] * unit
    if not steady and verdict.misfit(best, given.model) is None:
        drifting = _with_drift(given, problem, best, unit)
        fits += drifting
        best = _best([best, *drifting])
    return _with_doubt(given, best, fits, 0 if given.noise is not None or spectrum.step else problem.data.count)


def _first_rung(
    given: Snapshot, problem: weak.Problem, first: weak.Fit, sigma: float, unit: float, loud: bool
) -> list[weak.Fit]:
    """The fit from the residual start, or with much noise those from it and from the usual parameters.

    That of least cost comes first, the other only if it is another one and its cost does not rule it out.
    """
    starts = [first]
    if loud:
        usual = usual_start(given, first.state)
        starts.append(weak.start_fit(usual.params, usual.state, offset=first.offset))
    most = FIRST_ITERATIONS
    while True:
        reached = [problem.fit(fit, sigma, LADDER[0] * unit, max_iterations=most, evidence=False) for fit in starts]
        for fit in reached:
            _log_fit(given, fit)
        best, *others = sorted(reached, key=lambda fit: fit.cost)
        distinct = [
            fit for fit in others
            if fit.cost < best.cost + RULED_OUT and _distance(fit.params, best.params, given.free) > AGREED
            and not verdict.implausible(fit.params, given.model, given.grid)
        ]  # fmt: skip
        starts = [best, *distinct]
        if not distinct or most > FIRST_ITERATIONS:
            return starts
        most = LAST_ITERATIONS


def _down_the_ladder(
    given: Snapshot, problem: weak.Problem, fit: weak.Fit, sigma: float, unit: float, rungs: tuple[float, ...]
) -> list[weak.Fit]:
    """The fits as tau gets smaller, until the evidence falls."""
    fits: list[weak.Fit] = []
    for tau in rungs:
        try:
            fit = problem.fit(fit, sigma, tau * unit, hopeless=HOPELESS * problem.data.count if fits else np.inf)
            if not fits and given.noise is None and not problem.data.step:
                again = _measured(given, fit, sigma, problem.data.count)
                if abs(again / sigma - 1.0) > SAME_NOISE:
                    sigma = again
                    fit = problem.fit(fit, sigma, tau * unit)
        except np.linalg.LinAlgError as error:
            given.log(f"refine, tau = {tau * unit:.0e}", failed=str(error))
            break
        _log_fit(given, fit)
        fits.append(fit)
        if fit.evidence < _best(fits).evidence - DROP:
            break
    return fits


def _best(fits: list[weak.Fit]) -> weak.Fit:
    return max(fits, key=lambda fit: fit.evidence)


def _with_doubt(given: Snapshot, best: weak.Fit, fits: list[weak.Fit], count: int) -> weak.Fit:
    """`best` with the covariance of the mixture of all fits that the evidence does not rule out, about its estimate.

    (Bayesian model averaging, J. A. Hoeting et al., Stat. Sci. 14 (1999) 382; those within `UNDECIDED` of the largest
    log evidence count alike, since nothing is known beforehand of how steady a pattern is.) With `count` data whose
    sigma was measured, each evidence is taken at the sigma of its own fit.
    """
    evidence = np.array([fit.evidence for fit in fits])
    if count:
        ratio = np.clip([fit.cost / count for fit in fits], 0.25, 4.0)
        evidence = evidence + 0.5 * count * (ratio - 1.0 - np.log(ratio))
    weights = np.exp(np.minimum(evidence - evidence.max() + UNDECIDED, 0.0))
    k = len(given.free)
    total = np.zeros_like(best.covariance)
    for fit, weight in zip(fits, weights / weights.sum(), strict=True):
        if weight <= 1e-6:
            continue
        moved = [
            np.log(fit.params[n] / best.params[n]) if min(fit.params[n], best.params[n]) > 0.0
            else fit.params[n] - best.params[n]
            for n in given.free
        ]  # fmt: skip
        total += weight * fit.covariance
        total[:k, :k] += weight * np.outer(moved, moved)
    return replace(best, covariance=total)


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
            if fit is best or _distance(fit.params, there, given.free) > 0.01:
                there = fit.params
                modes = drift.soft_modes(given.system, fit.state.ravel(), there, count)
            fit = problem.fit(
                fit, best.sigma, tau * unit, modes=modes, spread=3e-4 * unit, max_iterations=8,
                label=f"drift along {count} modes, tau = {tau * unit:.0e}",
            )  # fmt: skip
            _log_fit(given, fit)
            fits.append(fit)
            if fit.spread[-1] < LOOSE_END * fit.tau and _distance(fit.params, there, given.free) < 0.01:
                break
    except (np.linalg.LinAlgError, RuntimeError) as error:
        given.log("drift", failed=str(error))
    return fits


def _log_fit(given: Snapshot, fit: weak.Fit) -> None:
    given.log(
        f"refine, {fit.label}", params=fit.params, chi2=fit.chi2, evidence=fit.evidence, rate=fit.rate,
        iterations=fit.iterations, sigma=fit.sigma,
    )  # fmt: skip


def _distance(params: Mapping[str, float], others: Mapping[str, float], names: tuple[str, ...]) -> float:
    """The largest difference of a parameter, over its value."""
    return max(abs(params[name] - others[name]) / max(abs(others[name]), 1e-300) for name in names)
