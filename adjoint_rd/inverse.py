"""Parameters, with uncertainty, from a pattern.

    fit = rd.invert(v, model="gray_scott")        # one snapshot of v
    fit.success, fit.message, fit.params, fit.stderr

The pattern is taken as (nearly) steady, ``D Lap y + R(y; p) = 0``. Stages, each in its own file of
`adjoint_rd.inversion`:

    arguments   checked, with the grids of data and equations                        inversion.snapshot
    clean up    noise level, holes, low-pass filter                                  inversion.cleanup
    guess       equation residual by variable projection, then the Green form        inversion.first_guess, start
    refine      fields and parameters together, equation as a weak constraint; how
                steady the pattern is, and along which modes it still drifts, is
                decided by the evidence; large images in tiles                       inversion.refine, tiles, weak
    verify      misfit, residual, run on from the fitted state                       inversion.verdict
    report      known ratios, bounds, unknown gain                                   inversion.estimate

Data so clean that the strong form of the residual is already small (below 1e-3 of the reaction) are not refined; the
standard errors are then those of a residual that is correlated in space, from its spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from .errors import InputError
from .inversion import cleanup, estimate, first_guess, tiles, verdict
from .inversion.refine import refine as refine_guess
from .inversion.snapshot import Snapshot


@dataclass(frozen=True)
class Inversion:
    """Parameters from a pattern.

    Attributes
    ----------
    params : dict
        {name: float}, the known ones too.
    stderr : dict
        {name: float} of the fitted ones, in the parameters' units; NaN where the data do not determine it.
    covariance : ndarray
        Of the fitted parameters, in the order of `names`.
    names : tuple of str
        The fitted parameters.
    state : ndarray (S, *shape)
        The fitted pattern, on the equations' grid, in the units of the model.
    success : bool
        False if the data are no such pattern or do not determine the parameters; `params` then are not to be used.
    message : str
        Why, in words; with success also what limits the result.
    stages : list of dict
        What each stage found.
    combinations : dict
        {"Du/F": (value, standard error), ...}: what an unknown gain leaves determined; empty otherwise.
    noise : float
        The standard deviation of the noise, in the units of the data.
    rate : float
        How unsteady the pattern is: the root mean square of y_t.
    offset, gain : float
        The data are ``gain * state + offset``.
    """

    params: dict[str, float]
    stderr: dict[str, float]
    covariance: np.ndarray
    names: tuple[str, ...]
    state: np.ndarray
    success: bool
    message: str
    stages: list[dict[str, Any]] = field(repr=False)
    combinations: dict[str, tuple[float, float]] = field(default_factory=dict)
    noise: float = 0.0
    rate: float = 0.0
    offset: float = 0.0
    gain: float = 1.0

    def __str__(self) -> str:
        lines = [f"{'success' if self.success else 'NO SUCCESS'}: {self.message}"]
        for name, value in self.params.items():
            error = f" +- {self.stderr[name]:.2g}" if name in self.stderr else " (known)"
            lines.append(f"  {name:8s} {value:.6g}{error}")
        for name, (value, error) in self.combinations.items():
            lines.append(f"  {name:14s} {value:.6g} +- {error:.2g}")
        return "\n".join(lines)


def invert(
    data: Any,
    *,
    model: Any = "gray_scott",
    spacing: Any = 1.0,
    start: Mapping[str, float] | None = None,
    noise: float | None = None,
    mask: Any = None,
    scale: float | None = 1.0,
    species: Any = None,
    boundary: str = "periodic",
    known: Mapping[str, float] | None = None,
    offset: bool = False,
    subsample: int = 1,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    at_rest: bool = False,
    snapshots: bool = False,
    times: Any = None,
    dt: float | None = None,
    scheme: str | None = None,
    refine: Any = 1,
    progress: Callable[[str], None] | None = None,
) -> Inversion:
    """Find the parameters of a model from a pattern that is steady, or nearly so; with `times`, from a movie.

    Parameters
    ----------
    data : array_like
        The observed species on the grid; with several `species` they are the first axis. NaN marks missing values.
    model : str or Model
    spacing : float or sequence of float
        The distance between the equations' grid points. An unknown pixel size leaves only D / spacing^2 determined:
        use 1.0 and read D so.
    start : dict, optional
        {name: float} of any parameters; by default several starts are tried. The result hardly depends on it.
    noise : float, optional
        The standard deviation of the noise in units of `data`; by default it is measured at the highest wavenumbers.
        Rounding to q counts as q / sqrt(12).
    mask : array_like of bool, optional
        True where the data count. Where they do not, the equation is not assumed to hold either.
    scale : float or None
        The species is ``scale * data``. It must be right: of v alone, a pattern of Gray-Scott times a constant is one
        of other parameters, so that a wrong scale gives wrong parameters and looks like a success. None:
        unknown; then only combinations are determined (`Inversion.combinations`), unless `known` has one more fact.
        Gray-Scott only.
    species : str or sequence of str, optional
        What is observed, by default the last species of the model.
    boundary : {"periodic", "neumann", "cropped"}
        "cropped": the image is cut out of a larger pattern; the equation is not used on the outermost cells.
    known : dict, optional
        {name: value} of parameters that are known, and {"Du/Dv": value} of a ratio of two that are not. A ratio that
        the data contradict by more than 5 standard errors is refused.
    offset : bool
        Whether the data have an unknown constant added.
    subsample : int
        The data are every so-many-th point of the equations' grid along each axis.
    bounds : dict, optional
        {name: (low, high)}. An estimate beyond is put on the bound, the others as they are given that; one that is 5
        standard errors beyond is refused.
    at_rest : bool
        You know that the pattern has come to rest. Otherwise an image of one species that is mostly empty ground is
        refused: a few structures may be growing into it, which other parameters can imitate.
    snapshots : bool
        The first axis of `data` counts snapshots of the same parameters, each fitted by itself (with offset and noise
        of its own) and then put together by their covariances; if they contradict each other they are refused. `state`
        has that axis too.
    times : array_like (M,), optional
        The data are M frames of a moving pattern, (M, *grid) or, with several `species`, (M, O, *grid), taken at these
        times: see `adjoint_rd.inversion.movie`. `scale` must be a number then; `offset` and `subsample` are for
        snapshots.
    dt, scheme : float, str
        With `times`: the time step, which divides their intervals, and the scheme ("euler" unless given). By default
        both are found from the frames: Euler's steps of some length, or the continuous equations.
    refine : int or sequence of int
        With `times`, for frames of the continuous equations (measured, or computed far more accurately than on their
        own grid): the fit is made on a grid so many times finer, by the least value; runs by the others correct it for
        the error of the grid, such as (1, 2, 3).
    progress : callable, optional
        Called with a line for each stage.

    Returns
    -------
    Inversion
        Never raises because the data are no pattern of the model: look at `success` and `message`.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    The standard errors are those of the posterior with the fields integrated out: the inverse of the Schur complement
    of Newton's matrix, for rounded data widened where cells of like values have like errors. They hold for the noise
    and the drift that the evidence decided on, and know nothing of a model that is wrong in ways which the checks do
    not see.

    Noisy images of more than 20 000 cells are refined in tiles of about 64 x 64 cells, as crops (not with
    `subsample`). Interrupted (Ctrl-C) the fit is that of the tiles so far, from two on, or of the snapshots so far, and
    `message` says so.
    """
    if times is not None:
        from .inversion import movie_input

        if offset or subsample != 1 or bounds or at_rest or snapshots:
            raise InputError(
                "offset=, subsample=, bounds=, at_rest= and snapshots= are for snapshots; leave them out with times=."
            )
        found = movie_input.run(
            data, times, model=model, spacing=spacing, start=start, noise=noise, mask=mask, scale=scale,
            species=species, boundary=boundary, known=known, dt=dt, scheme=scheme, refine=refine, progress=progress,
        )  # fmt: skip
        return Inversion(**found)
    options = (
        model, spacing, start, noise, mask, scale, species, boundary, known, offset, subsample, bounds,
        at_rest, progress,
    )  # fmt: skip
    if snapshots:
        return Inversion(**_together(data, options))
    given = Snapshot(data, *options)
    found = _solve(given)
    return Inversion(**(estimate.refused(given, found) if isinstance(found, str) else estimate.report(given, found)))


def _solve(given: Snapshot) -> estimate.Estimate | str:
    """All stages up to the report, or the reason for a refusal."""
    first, seen = given.values[0], given.seen[0]
    if given.subsample == 1:
        image, grid = (first if seen.all() else cleanup.fill(first, seen, given.grid)), given.grid
    else:
        image, grid = given.sampled(), given.sampled_grid()
    spectrum = cleanup.spectrum(np.ascontiguousarray(image), grid, given.noise)
    if given.subsample > 1:
        image = given.interpolated()
    given.log("clean up", noise=spectrum.noise, step=spectrum.step, cutoff=spectrum.cutoff, signal=spectrum.signal)
    refusal = verdict.no_pattern(first[seen], spectrum, len(given.free))
    if refusal:
        return refusal
    if len(given.species) == len(given.model.species):
        guess = first_guess.from_all_species(given, spectrum)
    else:
        guess = first_guess.from_one_species(given, np.ascontiguousarray(image), spectrum)
    if isinstance(guess, str):
        return guess
    if guess.exact:
        return estimate.of_residual(given, guess.start)
    if given.grid.size > tiles.MOST_CELLS and given.subsample == 1:
        return tiles.fit(given, guess.start, guess.shift, spectrum)
    fit = refine_guess(given, guess.start, guess.shift, spectrum)
    return fit if isinstance(fit, str) else estimate.of_fit(given, fit, guess.start, spectrum)


def _together(data: Any, options: tuple[Any, ...]) -> dict[str, Any]:
    """Each snapshot by itself, then their estimates put together."""
    if np.ndim(data) < 3 or len(data) < 2 or options[5] is None:
        raise InputError(
            f"snapshots=True needs two snapshots or more along the first axis of data, and a scale; data has shape "
            f"{np.shape(data)}, scale={options[5]!r}."
        )
    for (n, one), (m, other) in combinations(enumerate(data), 2):
        one, other = np.asarray(one), np.asarray(other)
        if np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f"):
            raise InputError(f"data holds the same snapshot twice ({n} and {m}): it says nothing new; give it once.")
    estimates, reports, note = [], [], ""
    for n, one in enumerate(data):
        given = Snapshot(one, *options)
        try:
            found = _solve(given)
        except KeyboardInterrupt:
            if not estimates:
                raise
            note = f" Interrupted: from {n} of {len(data)} snapshots."
            break
        if isinstance(found, str):
            out = estimate.refused(given, found)
        else:
            estimates.append(found)
            out = estimate.report(given, found, alone=False)
        if not out["success"]:
            return {**out, "message": f"snapshot {n}: {out['message']}"}
        reports.append(out)
        if estimates[-1].note:  # interrupted
            break
    joint, agreement = estimate.together(given, estimates)
    if agreement < estimate.DISAGREE:
        return estimate.refused(
            given,
            f"the snapshots do not have the same parameters: chance makes them differ so much once in "
            f"{1 / max(agreement, 1e-99):.2g} times",
        )
    rate, noise = max(one.rate for one in estimates), float(np.mean([one.noise for one in estimates]))
    out = estimate.report(given, replace(joint, rate=rate, noise=noise, note=joint.note + note))
    if not out["success"]:
        return out
    return {
        **out,
        "state": np.stack([one["state"] for one in reports]),
        "message": f"{len(reports)} snapshots. {out['message']}",
        "stages": [{"snapshot": n, **stage} for n, one in enumerate(reports) for stage in one["stages"]],
        "offset": float("nan") if given.offset_unknown else 0.0,
    }
