"""The state and parameters to refine from: offset, residual fits from several starts, or linear regression.

A string in place of a `Guess` is the reason for a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage, optimize

from ..errors import InputError
from . import cleanup, verdict
from .snapshot import Snapshot
from .start import Residual, StartFit, Structure, structure

CLEAN = 1e-3  # a strong residual below this needs no refinement
MARGIN = 8  # cells beside a hole or a cut edge that the residual start leaves out
QUIET = 1e-4  # noise over the largest value below which a large residual cannot come from noise
USUAL = {"gray_scott": {"Du": 0.16, "Dv": 0.08, "F": 0.04, "k": 0.06}}  # a second start then, for spacing 1
LOUD = 0.015  # noise over the largest value from which the residual start is not trusted alone
LOUD_ITERATIONS = 20  # of the residual start then
BAND = 1.0  # wavenumber times spacing up to which the first residual fit of noisy data looks


@dataclass(frozen=True, eq=False)
class Guess:
    """Where the refinement starts.

    Attributes
    ----------
    start : StartFit
    shift : float
        The offset of the data.
    exact : bool
        Whether the data are so clean that there is nothing to refine.
    """

    start: StartFit
    shift: float = 0.0
    exact: bool = False


def from_one_species(given: Snapshot, image: np.ndarray, spectrum: cleanup.Spectrum) -> Guess | str:
    """Residual fits of the complete image of one observed species."""
    part = structure(given.model, given.species[0], given.known)
    weight = _margin(given, MARGIN)
    shift = _find_offset(given, image, part, weight, spectrum) if given.offset_unknown else 0.0
    image = image - shift
    loud = is_loud(given, image, spectrum)
    complete = weight is None and given.subsample == 1 and not given.offset_unknown
    exact = complete and (given.noise is None or spectrum.step == 0.0)
    quiet = spectrum.noise < QUIET * float(np.max(np.abs(image)))
    strong = Residual(given.model, given.grid, image, part, given.known, weight)
    begin = None
    if quiet or not np.isfinite(spectrum.cutoff):
        begin = _best_start(given, strong, part, loud)
        given.log("residual", params=begin.params, residual=begin.residual, iterations=begin.iterations)
        if exact and _explains(given, begin):
            return Guess(begin, shift, exact=True)
        if complete and quiet and begin.residual > 2.0 * verdict.MOST_RATE:
            return str(verdict.unsteady(begin.residual, 1.0))
    if begin is None or (begin.residual > CLEAN and np.isfinite(spectrum.cutoff)):
        smooth = cleanup.low_pass(image, given.grid, spectrum.cutoff) if given.subsample == 1 else image
        cutoff = min(spectrum.cutoff, BAND / min(given.grid.spacing))
        band = Residual(given.model, given.grid, smooth, part, given.known, weight, cutoff=cutoff)
        begin = _best_start(given, band, part, loud)
        given.log("residual, low-pass", params=begin.params, residual=begin.residual, iterations=begin.iterations)
        if not quiet:  # a pattern of short waves can look noisy: the whole image from there, in few steps if it is not
            raw = strong.fit(begin.params, max_iterations=LOUD_ITERATIONS)
            given.log("residual", params=raw.params, residual=raw.residual, iterations=raw.iterations)
            if _explains(given, raw):
                return Guess(raw, shift, exact=exact)
        if part.green:
            h2 = float(np.prod(given.grid.spacing)) ** (2.0 / given.grid.ndim)
            tame = {
                name: float(np.clip(value, 1e-3 * h2, 2.0 * h2)) if name in given.model.diffusivities
                else float(np.clip(value, 1e-3, 2.0))
                for name, value in begin.params.items()
            }  # fmt: skip
            begin = Residual(given.model, given.grid, smooth, part, given.known, weight).fit_green(tame)
            given.log("Green form", params=begin.params, residual=begin.residual, iterations=begin.iterations)
    reason = verdict.implausible(begin.params, given.model, given.grid)
    if reason and given.subsample > 1 and given.model.name in USUAL:  # too sharp to interpolate
        begin, reason = usual_start(given, begin.state), None
    if reason:
        return f"the equation residual leads to {reason}; the image is no steady pattern of {given.model.name}."
    return Guess(begin, shift)


def _explains(given: Snapshot, fit: StartFit) -> bool:
    """Whether a residual fit leaves next to nothing."""
    return fit.residual < CLEAN and not verdict.implausible(fit.params, given.model, given.grid)


def from_all_species(given: Snapshot, spectrum: cleanup.Spectrum) -> Guess | str:
    """Linear regression of the equations of all species."""
    images = np.stack([cleanup.fill(v, s, given.grid) for v, s in zip(given.values, given.seen, strict=True)])
    state = np.zeros_like(images)
    state[list(given.species)] = images
    cutoff = spectrum.cutoff
    smooth = np.stack([cleanup.low_pass(s, given.grid, cutoff) for s in state])
    unknown = [name for name in given.free if name not in given.start]
    params = {**dict.fromkeys(given.model.names, 1.0), **given.start, **given.known}
    y = smooth.ravel()
    if unknown:
        C = given.system.parameter_jacobian(y, params, tuple(unknown))
        base = given.system.residual(y, params) - C @ np.array([params[name] for name in unknown])
        moved = dict(params, **{name: 1.7 for name in unknown})
        if np.max(np.abs(given.system.residual(y, moved) - base - 1.7 * C.sum(axis=1))) > 1e-9 * np.max(np.abs(C)):
            raise InputError(
                f"{given.model.name} is not linear in {', '.join(unknown)} together; give start= or known= for some."
            )
        weight = _margin(given, 2)
        rows = np.ones(y.size) if weight is None else np.tile(weight.ravel(), len(state))
        found, _, rank, sizes = np.linalg.lstsq(C * rows[:, None], -base * rows, rcond=None)
        if rank < len(unknown) or sizes[-1] < 1e-9 * sizes[0] or not np.any(np.abs(base) > 1e-12):
            return (
                f"a steady pattern of {given.model.name} leaves {', '.join(unknown)} undetermined up to a common "
                "factor; "
                "give one of them in known=."
            )
        params.update(zip(unknown, found.tolist(), strict=True))
    given.log("regression", params=params)
    reason = verdict.implausible(params, given.model, given.grid)
    if reason:
        return f"the equations lead to {reason}; the image is no steady pattern of {given.model.name}."
    return Guess(StartFit(params, smooth.reshape(len(state), -1), np.nan, 1))


def usual_start(given: Snapshot, state: np.ndarray) -> StartFit:
    """The usual parameters, with the hidden species that belongs to them."""
    h2 = min(given.grid.spacing) ** 2
    usual = {
        name: value * (h2 if name in given.model.diffusivities else 1.0)
        for name, value in {**USUAL[given.model.name], **given.start}.items()
    }
    usual.update(given.known)
    part = structure(given.model, given.species[0], given.known)
    state = state.copy()
    state[part.hidden], _ = Residual(given.model, given.grid, state[part.observed], part, given.known).hidden(usual)
    return StartFit(usual, state, np.nan, 0)


def is_loud(given: Snapshot, image: np.ndarray, spectrum: cleanup.Spectrum) -> bool:
    """Whether there is so much noise that a fit from the usual parameters is tried too."""
    usual = given.model.name in USUAL and len(given.species) == 1
    return usual and spectrum.noise > LOUD * float(np.max(np.abs(image)))


def _best_start(given: Snapshot, problem: Residual, part: Structure, loud: bool) -> StartFit:
    """The residual fit from the first start; from the others too if its result is implausible and noise not why."""
    if loud:
        return problem.fit(_starts(given, part)[0], max_iterations=LOUD_ITERATIONS)
    best = None
    for n, start in enumerate(_starts(given, part)):
        fit = problem.fit(start)
        wrong = verdict.implausible(fit.params, given.model, given.grid) is not None
        if best is None or (wrong, fit.residual) < best[0]:
            best = ((wrong, fit.residual), fit)
        if n == 0 and not wrong and fit.residual < 0.1:
            break
        if n > 0 and not best[0][0] and best[1].residual < 0.05:
            break
    return best[1]


def _starts(given: Snapshot, part: Structure) -> list[dict[str, float]]:
    h2 = float(np.prod(given.grid.spacing)) ** (2.0 / given.grid.ndim)
    usual = {name: (0.1269 * h2 if name in given.model.diffusivities else 0.05) for name in part.inner}
    first = {**usual, **{name: value for name, value in given.start.items() if name in part.inner}}
    factors = (0.25, 4.0) if given.model.name in USUAL else (0.3, 4.0, 40.0, 200.0)
    others = [
        {name: value * factor for (name, value), factor in zip(usual.items(), each, strict=True)}
        for each in product(factors, repeat=len(usual))
    ]
    return [first, *others]


def _margin(given: Snapshot, width: int) -> np.ndarray | None:
    """Weights of the residual start: 0 near holes and cut edges."""
    bad = given.hole | given.edge
    if not bad.any():
        return None
    while width > 0:
        periodic = given.boundary == "periodic"
        padded = np.pad(bad, width, mode="wrap") if periodic else bad
        grown = ndimage.binary_dilation(padded, iterations=width)
        grown = grown[(slice(width, -width),) * bad.ndim] if periodic else grown
        if grown.mean() < 0.7:
            return (~grown).astype(np.float64)
        width //= 2
    return (~bad).astype(np.float64)


def _find_offset(
    given: Snapshot, image: np.ndarray, part: Structure, weight: np.ndarray | None, spectrum: cleanup.Spectrum
) -> float:
    """The offset of least residual: a scan, then Brent's method."""
    smooth = cleanup.low_pass(image, given.grid, spectrum.cutoff)
    reach = float(np.ptp(image))
    begin = _starts(given, part)[0]
    cutoff = (
        spectrum.cutoff if not np.isfinite(spectrum.cutoff) else min(spectrum.cutoff, BAND / min(given.grid.spacing))
    )

    def misfit(shift: float) -> float:
        problem = Residual(given.model, given.grid, smooth - shift, part, given.known, weight, cutoff=cutoff)
        fit = problem.fit(begin, max_iterations=20, tol=1e-6)
        wrong = verdict.implausible(fit.params, given.model, given.grid) is not None
        return float(np.log(fit.residual)) + (10.0 if wrong else 0.0)

    trial = float(image.min()) + reach * np.linspace(-0.3, 0.15, 16)
    values = [misfit(shift) for shift in trial]
    i = int(np.argmin(values))
    low, high = trial[max(i - 1, 0)], trial[min(i + 1, len(trial) - 1)]
    found = optimize.minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-5 * reach})
    given.log("offset", offset=float(found.x), residual=float(np.exp(found.fun)))
    return float(found.x)
