"""Refinement of a first guess: weak-constraint fits (`weak`) of ever smaller tau, then with drift, by evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import cleanup, drift, verdict, weak
from .first_guess import is_loud, usual_start
from .snapshot import Snapshot
from .start import StartFit

LADDER = (1e-4, 1e-5, 1e-6)  # tau, for reactions of 0.01
BETWEEN = (3e-5, 3e-6)  # tried beside the one of most evidence, where that is not the last
NEXT = 5.0  # between these the ratio is less
FIRST_ITERATIONS, LAST_ITERATIONS = 12, 24  # from each start with the first tau, the second if they lead apart:
AGREED = 0.05  # difference of a parameter up to which two starts have led to the same,
RULED_OUT = 100.0  # and of the cost from which one of them is out
FAR = 0.2  # change of a parameter in the first rung from which its result is not trusted alone
CELLS_PER_MODE = 64  # one mode of the drift for so many cells,
MODES = (48, 128)  # within these limits
DRIFT_TAU = (1e-6, 3e-6)  # the second where the modes do not reach down to the first, see LOOSE_END
DRIFT_ITERATIONS = 16
LOOSE_END = 3.0  # the drift along the last mode over tau
UNDECIDED = 5.0  # of log evidence: more is decisive (R. E. Kass, A. E. Raftery, J. Am. Stat. Assoc. 90 (1995) 773)
DROP = 30.0  # the ladder ends when the evidence has fallen by so much
HOPELESS = (0.1, 0.5)  # per datum, the cost over the first rung's from which a tau is too small; if starts lead apart
SAME_NOISE = 0.02  # change of sigma up to which a fit is not repeated
SAME_EVIDENCE, SAME_PLACE = 0.5, 0.01  # differences of evidence and of parameters up to which two fits are one
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
    if not rows.any():
        return "nowhere are all observed species seen: there is no cell to use the equations in."
    likely, precision = _beyond(begin.state, rows.reshape(S, cells), seen)
    data = weak.Data(values, seen, rows, offset=given.offset_unknown, likely=likely, precision=precision)
    problem = weak.Problem(given.system, data, given.free)
    top = float(np.max(np.abs(values)))
    sigma = max(spectrum.noise, 1e-5 * top)
    params = {name: value if value > 0 or name in given.known else 1e-4 for name, value in begin.params.items()}
    unit = max(_reaction(given, begin.state, params) / 0.01, 1e-6)  # the ladder's values are for reactions of 0.01
    loud = is_loud(given, begin.state[given.species[0]], spectrum)
    first = weak.start_fit(params, begin.state, offset=shift)
    trial = _Trial(given, problem, unit)
    if loose:
        reached = _first_rung(trial, first, sigma, loud)
    else:
        reached = [fit for fit in [trial.fit(first, BETWEEN[0], sigma, evidence=False)] if fit]
    if not reached:
        return "the refinement failed: its matrices are singular."
    if reached[0].chi2 > 3.0:
        return str(verdict.misfit(reached[0], given.model))
    reason = verdict.implausible(reached[0].params, given.model, given.grid)
    if reason:  # among others F, k, Dv -> 0, where every equation holds trivially
        return f"the refinement leads to {reason}; the image is no steady pattern of {given.model.name}."
    reason = verdict.mostly_ground(given, reached[0].state, reached[0].params)
    if reason:
        return reason
    if spectrum.step:
        before = float(np.sqrt(max(spectrum.noise**2 - spectrum.step**2 / 12.0, 0.0)))
        trial.problem = weak.Problem(given.system, replace(data, step=spectrum.step, before=before), given.free)
        sigma = max(before, BLUR * spectrum.step)
    if len(reached) > 1:
        trial.excess = HOPELESS[1] * data.count
    for start in reached:
        ladder = trial.descend(start, LADDER, sigma)
        if len(reached) > 1 and len(ladder) > 1:
            # Between the rungs fields that may leave the steady states, but not far, can be best far from where either
            # rung is; a fit that comes by there may stay.
            trial.keep(trial.fit(ladder[0], LADDER[-1], ladder[0].sigma, hopeless=trial.hopeless(ladder[0])))
    if not loud and _distance(reached[0].params, params, given.free) > FAR:
        # The loose first rung may have slid to F, k -> 0: also go from the start directly to a tight one.
        other = trial.descend(first, (BETWEEN[0], *LADDER[1:]), sigma)
        if other and _best(other) is trial.best:
            trial.keep(trial.fit(trial.best, LADDER[0], trial.best.sigma))
    if not trial.kept:
        return "the refinement failed: its matrices are singular."
    best = trial.best
    tighter = [fit.evidence for fit in trial.kept if fit.tau < best.tau]
    hopeless = min(tighter, default=np.inf) < best.evidence - 0.5 * trial.excess
    for tau in BETWEEN[:1] if hopeless else BETWEEN:
        if LADDER[-1] * unit < best.tau and 1.1 < max(tau * unit / best.tau, best.tau / (tau * unit)) < NEXT:
            trial.keep(trial.fit(best, tau, best.sigma))
    best = trial.best
    if trial.measured:
        again = trial.noise(best)
        if abs(again / best.sigma - 1.0) > SAME_NOISE:
            refitted = trial.fit(best, best.tau / unit, again)
            if refitted:
                trial.kept[trial.kept.index(best)] = best = refitted
    steady = best.tau <= 1.01 * LADDER[-1] * unit
    if not steady and verdict.misfit(best, given.model) is None:
        best = _best([best, *_with_drift(trial, best)])
    return _with_doubt(trial, best)


def _beyond(state: np.ndarray, rows: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A prior (mean, 1 / variance) where neither the data nor the equations tell: what the fields are elsewhere.

    Without it a hidden species takes any value on the rim of a crop, +-100 where u is less than 1.
    """
    inside = [field[row > 0.0] for field, row in zip(state, rows, strict=True)]
    mean = np.array([[np.mean(field)] for field in inside])
    spread = np.array([[np.std(field)] for field in inside])
    nothing = (rows == 0.0) & (seen == 0.0) & (spread > 0.0)
    return mean * np.ones(rows.shape), np.where(nothing, 1.0 / np.maximum(spread, 1e-300) ** 2, 0.0)


class _Trial:
    """Fits of one image, kept for the choice among them.

    Attributes
    ----------
    given : Snapshot
    problem : Problem
    unit : float
        Of tau.
    kept : list of Fit
    excess : float
        Cost over that of the first rung from which a tau is too small.
    """

    def __init__(self, given: Snapshot, problem: weak.Problem, unit: float):
        self.given, self.problem, self.unit = given, problem, unit
        self.kept: list[weak.Fit] = []
        self.excess = HOPELESS[0] * problem.data.count

    @property
    def best(self) -> weak.Fit:
        """The fit of most evidence."""
        return _best(self.kept)

    @property
    def measured(self) -> bool:
        """Whether sigma is measured from the misfit."""
        return self.given.noise is None and not self.problem.data.step

    def fit(self, start: weak.Fit, tau: float, sigma: float, **options: Any) -> weak.Fit | None:
        """A fit, logged; None if its matrices are singular."""
        try:
            fit = self.problem.fit(start, sigma, tau * self.unit, **options)
        except np.linalg.LinAlgError as error:
            self.given.log(f"refine, tau = {tau * self.unit:.0e}", failed=str(error))
            return None
        self.given.log(
            f"refine, {fit.label}", params=fit.params, chi2=fit.chi2, evidence=fit.evidence, rate=fit.rate,
            iterations=fit.iterations, sigma=fit.sigma,
        )  # fmt: skip
        return fit

    def hopeless(self, first: weak.Fit) -> float:
        """The cost from which tau is too small, given the first rung."""
        return first.cost + self.excess

    def keep(self, fit: weak.Fit | None) -> bool:
        """Keep a fit, unless it is one that is there; whether it was kept."""
        new = fit is not None and not any(
            other.tau == fit.tau and (other.modes is None) == (fit.modes is None)
            and abs(other.evidence - fit.evidence) < SAME_EVIDENCE
            and _distance(other.params, fit.params, self.given.free) < SAME_PLACE
            for other in self.kept
        )  # fmt: skip
        if fit is not None and new:
            self.kept.append(fit)
        return new

    def descend(self, fit: weak.Fit, rungs: tuple[float, ...], sigma: float) -> list[weak.Fit]:
        """Fits as tau gets smaller, until the evidence falls or one is known, all kept; after the first with the noise
        seen there.
        """
        fits: list[weak.Fit] = []
        for tau in rungs:
            found = self.fit(fit, tau, sigma, hopeless=self.hopeless(fits[0]) if fits else np.inf)
            if found and not fits and self.measured and abs(self.noise(found) / sigma - 1.0) > SAME_NOISE:
                sigma = self.noise(found)
                found = self.fit(found, tau, sigma)
            if found is None:
                break
            fit = found
            fits.append(fit)
            if not self.keep(fit) or fit.evidence < _best(fits).evidence - DROP:
                break
        return fits

    def noise(self, fit: weak.Fit) -> float:
        """sigma for which the cost is as expected: chi^2 of its degrees of freedom."""
        floor = 1e-6 * float(np.max(np.abs(self.given.values)))
        ratio = np.clip(fit.cost / max(self.problem.data.freedom, 1), 0.25, 4.0)
        return max(fit.sigma * float(np.sqrt(ratio)), floor)


def _first_rung(trial: _Trial, first: weak.Fit, sigma: float, loud: bool) -> list[weak.Fit]:
    """The fit from the residual start, or with much noise those from it and from the usual parameters.

    That of least cost comes first, the other only if it is another one and its cost does not rule it out.
    """
    given = trial.given
    starts = [first]
    if loud:
        usual = usual_start(given, first.state)
        starts.append(weak.start_fit(usual.params, usual.state, offset=first.offset))
    for most in (FIRST_ITERATIONS, LAST_ITERATIONS):
        found = [trial.fit(fit, LADDER[0], sigma, max_iterations=most, evidence=False) for fit in starts]
        wrong = {id(fit): bool(verdict.implausible(fit.params, given.model, given.grid)) for fit in found if fit}
        reached = sorted((fit for fit in found if fit), key=lambda fit: (wrong[id(fit)], fit.cost))
        starts = reached[:1] + [
            fit for fit in reached[1:]
            if fit.cost < reached[0].cost + RULED_OUT and not wrong[id(fit)]
            and _distance(fit.params, reached[0].params, given.free) > AGREED
        ]  # fmt: skip
        if len(starts) < 2:
            break
    return starts


def _best(fits: list[weak.Fit]) -> weak.Fit:
    return max(fits, key=lambda fit: fit.evidence)


def _with_doubt(trial: _Trial, best: weak.Fit) -> weak.Fit:
    """`best` with the covariance of the mixture of all fits that the evidence does not rule out, about its estimate.

    (Bayesian model averaging, J. A. Hoeting et al., Stat. Sci. 14 (1999) 382; those within `UNDECIDED` of the largest
    log evidence count alike, since nothing is known beforehand of how steady a pattern is.) Where sigma was measured,
    each evidence is taken at the sigma of its own fit.
    """
    fits, names = trial.kept, trial.given.free
    evidence = np.array([fit.evidence for fit in fits])
    if trial.measured:
        count = max(trial.problem.data.freedom, 1)
        ratio = np.clip([fit.cost / count for fit in fits], 0.25, 4.0)
        evidence = evidence + 0.5 * count * (ratio - 1.0 - np.log(ratio))
    weights = np.exp(np.minimum(evidence - evidence.max() + UNDECIDED, 0.0))
    k = len(names)
    total = np.zeros_like(best.covariance)
    for fit, weight in zip(fits, weights / weights.sum(), strict=True):
        if weight <= 1e-6:
            continue
        moved = [
            np.log(fit.params[n] / best.params[n]) if min(fit.params[n], best.params[n]) > 0.0
            else fit.params[n] - best.params[n]
            for n in names
        ]  # fmt: skip
        total += weight * fit.covariance
        total[:k, :k] += weight * np.outer(moved, moved)
    sizes, directions = np.linalg.eigh(total[:k, :k] - best.covariance[:k, :k])
    return replace(best, covariance=total, doubt=(directions * np.maximum(sizes, 0.0)) @ directions.T)


def _reaction(given: Snapshot, state: np.ndarray, params: dict[str, float]) -> float:
    """The size of the reaction's variation; that of a few spots on a wide ground is not less than that of many."""
    reaction = given.model.reaction(tuple(state), tuple(params[name] for name in given.model.parameters))
    varying = [r - np.mean(r) for r in np.broadcast_arrays(*reaction)]
    dense = [np.sqrt(np.mean(r**4) / max(float(np.mean(r**2)), 1e-300)) for r in varying]
    return max(verdict.magnitude(given.model, state, params), 0.5 * float(max(dense)))


def _with_drift(trial: _Trial, best: weak.Fit) -> list[weak.Fit]:
    """Fits with drift, kept."""
    given = trial.given
    count = int(np.clip(given.grid.size // CELLS_PER_MODE, *MODES))
    fits, fit, there = [], best, best.params
    for tau in DRIFT_TAU:
        if fit is best or _distance(fit.params, there, given.free) > 0.01:
            there = fit.params
            try:
                modes = drift.soft_modes(given.system, fit.state.ravel(), there, count)
            except (np.linalg.LinAlgError, RuntimeError) as error:
                given.log("drift", failed=str(error))
                break
        found = trial.fit(
            fit, tau, best.sigma, modes=modes, spread=3e-4 * trial.unit, max_iterations=DRIFT_ITERATIONS,
            label=f"drift along {count} modes, tau = {tau * trial.unit:.0e}",
        )  # fmt: skip
        if found is None:
            break
        fit = found
        fits.append(fit)
        trial.keep(fit)
        if fit.spread[-1] < LOOSE_END * fit.tau and _distance(fit.params, there, given.free) < 0.01:
            break
        if fit.evidence < best.evidence + UNDECIDED:
            break
    return fits


def _distance(params: Mapping[str, float], others: Mapping[str, float], names: tuple[str, ...]) -> float:
    """The largest difference of a parameter, over its value."""
    return max(abs(params[name] - others[name]) / max(abs(others[name]), 1e-300) for name in names)
