"""Parameters, with uncertainty, from a pattern.

    fit = rd.invert(v, model="gray_scott")        # one snapshot of v
    fit.success, fit.message, fit.params, fit.stderr

The pattern is taken as (nearly) steady, ``D Lap y + R(y; p) = 0``. Stages, each in its own file of
`adjoint_rd.inversion`:

    clean up    noise level, holes, low-pass filter                                  inversion.cleanup
    start       equation residual by variable projection, then the Green form        inversion.start
    refine      fields and parameters together, equation as a weak constraint; how
                steady the pattern is, and along which modes it still drifts, is
                decided by the evidence                                              inversion.weak
    verify      misfit, residual, run on from the fitted state                       inversion.verdict

Data so clean that the strong form of the residual is already small (below 1e-3 of the reaction) stop after the start;
the standard errors are then those of a residual that is correlated in space, from its spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage, optimize

from . import models
from .arrays import as_array, as_dict, as_names, as_numbers
from .errors import InputError, check_choice, check_count, check_number, did_you_mean
from .grid import Grid
from .inversion import cleanup, constraints, drift, verdict, weak
from .inversion.start import Residual, StartFit, Structure, structure
from .models import Model
from .sparse import System

CLEAN = 1e-3  # a strong residual below this needs no refinement
MARGIN = 8  # cells beside a hole or a cut edge that the residual start leaves out
QUIET = 1e-4  # noise over the largest value below which a large residual cannot come from noise
LADDER = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)  # tau, in units of the largest value over time
FIRST_RUNGS = ((1e-3, 4), (1e-4, 8))  # tau and iterations from each start, before the ladder
LOUD = 0.015  # noise over the largest value from which the residual start is not trusted alone
USUAL = {"gray_scott": {"Du": 0.16, "Dv": 0.08, "F": 0.04, "k": 0.06}}  # a second start then, for spacing 1
FAR = 0.2  # change of a logarithm in the first rungs from which their result is not trusted alone
CONTRADICTED = 5.0  # standard errors at which a known ratio or a bound is refused
DISAGREE = 1e-6  # the probability below which snapshots do not have the same parameters
MOST_CELLS = 20_000  # more are refined in tiles
TILE = 64  # cells along each axis, about
MOST_VALUE = 2.0  # of u and v; more in refused data is pointed out
LEAST_LAYERS = 8  # of a volume along its first axis: fewer are snapshots or species, not a grid
CELLS_PER_MODE = 64  # one mode of the drift for so many cells,
MODES = (48, 128)  # within these limits
DRIFT_TAU = (1e-6, 3e-6)  # the second where the modes do not reach down to the first, see LOOSE_END
LOOSE_END = 3.0  # the drift along the last mode over tau
DROP = 30.0  # the ladder ends when the evidence has fallen by so much
BLUR = 0.1  # least noise before rounding that is assumed, in steps: what the model itself may be off
BAND = 1.0  # wavenumber times spacing up to which the first residual fit of noisy data looks
CLEAN_FACTOR = 1.5  # by which the standard errors of the residual fit are widened, see validation/inversion_suite.py


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
    The standard errors are those of the posterior with the fields integrated out (the inverse of the Schur complement
    of the Gauss-Newton matrix). They hold for the noise and the drift that the evidence decided on, and know nothing of
    a model that is wrong in ways which the checks do not see.
    """
    if times is not None:
        from .inversion import movie_input

        if offset or subsample != 1 or bounds or snapshots:
            raise InputError(
                "offset=, subsample=, bounds= and snapshots= are for snapshots; leave them out with times=."
            )
        found = movie_input.run(
            data, times, model=model, spacing=spacing, start=start, noise=noise, mask=mask, scale=scale,
            species=species, boundary=boundary, known=known, dt=dt, scheme=scheme, refine=refine, progress=progress,
        )  # fmt: skip
        return Inversion(**found)
    options = (model, spacing, start, noise, mask, scale, species, boundary, known, offset, subsample, bounds, progress)
    if snapshots:
        return _together(data, options)
    return _Job(data, *options).run()


def _far(params: Mapping[str, float], others: Mapping[str, float], names: tuple[str, ...]) -> bool:
    """Whether parameters differ by more than 1 %."""
    return any(abs(params[name] - others[name]) > 0.01 * abs(others[name]) for name in names)


def _together(data: Any, options: tuple[Any, ...]) -> Inversion:
    """Each snapshot by itself, then their estimates put together."""
    if np.ndim(data) < 3 or len(data) < 2 or options[5] is None:
        raise InputError(
            f"snapshots=True needs two snapshots or more along the first axis of data, and a scale; data has shape "
            f"{np.shape(data)}, scale={options[5]!r}."
        )
    jobs, found = [], []
    for n, one in enumerate(data):
        job = _Job(one, *options, alone=False)
        found.append(job.run())
        jobs.append(job)
        if not found[-1].success:
            return replace(found[-1], message=f"snapshot {n}: {found[-1].message}")
    mean, cov, agreement = constraints.together([job.logs for job in jobs], [job.log_cov for job in jobs])
    if agreement < DISAGREE:
        return jobs[-1].refuse(
            f"the snapshots do not have the same parameters: chance makes them differ so much once in "
            f"{1 / max(agreement, 1e-99):.2g} times"
        )
    jobs[-1].alone = True
    out = jobs[-1].report(mean, cov, max(f.rate for f in found), float(np.mean([f.noise for f in found])))
    if not out.success:
        return out
    return replace(
        out,
        state=np.stack([f.state for f in found]),
        message=f"{len(found)} snapshots. {out.message}",
        stages=[{"snapshot": n, **stage} for n, f in enumerate(found) for stage in f.stages],
        offset=float("nan") if jobs[-1].offset_unknown else 0.0,
    )


@dataclass(frozen=True, eq=False)
class _Tiled:
    """The fit of an image in tiles."""

    params: dict[str, float]
    state: np.ndarray
    log_cov: np.ndarray
    rate: float
    noise: float
    shift: float


class _Job:
    """One inversion: the checked arguments, and the log of stages."""

    def __init__(
        self, data: Any, model: Any, spacing: Any, start: Any, noise: Any, mask: Any, scale: Any, species: Any,
        boundary: Any, known: Any, offset: Any, subsample: Any, bounds: Any, progress: Any, alone: bool = True,
    ):  # fmt: skip
        self.model: Model = models.get(model)
        self.species = self._check_species(species)
        values, seen = self._check_data(data, mask, isinstance(species, str) or species is None)
        check_choice("boundary", boundary, ("periodic", "neumann", "cropped"))
        subsample = check_count("subsample", subsample, 1)
        if scale is not None and check_number("scale", scale) == 0.0:
            raise InputError(f"scale={scale!r} must be other than zero, or None if it is unknown.")
        if noise is not None:
            check_number("noise", noise, least=0.0)
        self.scale_unknown = scale is None
        if self.scale_unknown and (self.model.name != "gray_scott" or self.species != (1,)):
            raise InputError("scale=None (unknown gain) is for v of gray_scott alone; give scale= a number.")
        if self.scale_unknown and offset:
            raise InputError(
                "offset=True with scale=None: gain and offset cannot both be unknown; give scale= a number."
            )
        peak = float(np.max(np.abs(values[seen]), initial=0.0))
        self.scale = (0.4 / peak if peak else 1.0) if scale is None else float(scale)
        self.offset_unknown = bool(offset)
        if self.offset_unknown and len(self.species) > 1:
            raise InputError("offset=True is for one observed species.")
        self.known, self.ratios = self._check_known(known)
        self.bounds = self._check_bounds(bounds)
        self.alone = alone
        self.start = self._check_start(start)
        self.noise = None if noise is None else float(noise) * abs(self.scale)
        self.progress = progress or (lambda line: None)
        self.stages: list[dict[str, Any]] = []
        shape = tuple(n * subsample for n in values.shape[1:])
        if subsample > 1 and boundary != "periodic":
            shape = tuple((n - 1) * subsample + 1 for n in values.shape[1:])
        self.subsample = subsample
        self.boundary = boundary
        self.grid = Grid(shape, spacing=spacing, boundary="periodic" if boundary == "periodic" else "neumann")
        if self.grid.size < 400:
            raise InputError(f"data of shape {values.shape[1:]} are too few cells; at least 400 are needed.")
        self.values = values * self.scale
        self.seen = seen
        if subsample > 1:
            every = (slice(None),) + (slice(None, None, subsample),) * self.grid.ndim
            self.values = np.zeros((len(values), *shape))
            self.seen = np.zeros((len(values), *shape), dtype=bool)
            self.values[every], self.seen[every] = values * self.scale, seen
        # Holes of the data (but not the points between subsampled ones) are holes of the equations.
        hole = ~seen.all(axis=0)
        for axis in range(hole.ndim):
            hole = np.repeat(hole, subsample, axis=axis)
        self.hole = hole[tuple(slice(0, n) for n in shape)]
        self.edge = np.zeros(shape, dtype=bool)
        if boundary == "cropped":
            for axis in range(len(shape)):
                for end in (0, -1):
                    self.edge[(slice(None),) * axis + (end,)] = True
        self.free = tuple(name for name in self.model.names if name not in self.known)
        self.system = System(self.model, self.grid)

    # Arguments

    def _check_species(self, species: Any) -> tuple[int, ...]:
        names = self.model.species
        given = as_names("species", names[-1] if species is None else species)
        for name in given:
            if not isinstance(name, str) or name not in names:
                raise InputError(
                    f"species has {name!r}; {self.model.name} has {', '.join(names)}.{did_you_mean(str(name), names)}"
                )
        if len(set(given)) < len(given) or not given:
            raise InputError(f"species={species!r} must name each observed species once.")
        return tuple(names.index(name) for name in given)

    def _check_data(self, data: Any, mask: Any, single: bool) -> tuple[np.ndarray, np.ndarray]:
        array = as_array("data", data)
        if array.dtype.kind not in "iufb" or array.dtype.kind == "b":
            raise InputError(f"data has dtype {array.dtype}; it must be real numbers.")
        hidden = np.ma.getmaskarray(data) if np.ma.isMaskedArray(data) else np.zeros(array.shape, dtype=bool)
        array = np.array(array, dtype=np.float64)
        if single:
            array, hidden = array[None], hidden[None]
        if array.shape[0] != len(self.species) or not 2 <= array.ndim <= 4:
            raise InputError(
                f"data has shape {np.shape(data)}; it must be a grid of 1 to 3 axes"
                + ("." if single else f" after a first axis of the {len(self.species)} species.")
            )
        if array.ndim == 4 and array.shape[1] < LEAST_LAYERS:
            raise InputError(
                f"data of shape {np.shape(data)} would be a volume of {array.shape[1]} layers. For snapshots give "
                f"snapshots=True, for frames times=, for all species species={self.model.species!r}."
            )
        if np.any(np.isinf(array)):
            raise InputError("data has infinite values; mark missing ones as NaN or in mask.")
        seen = ~np.isnan(array) & ~hidden
        if mask is not None:
            mask = as_array("mask", mask)
            if mask.dtype != bool or mask.shape != array.shape[1:]:
                raise InputError(
                    f"mask has dtype {mask.dtype} and shape {mask.shape}; it must be bool of shape {array.shape[1:]}, "
                    "True where the data count."
                )
            seen &= mask
        if seen.mean() < 0.3:
            raise InputError(f"only {100 * seen.mean():.0f} % of the data count; at least 30 % are needed.")
        return np.where(seen, array, 0.0), seen

    def _check_known(self, known: Any) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
        """Known parameters, and known ratios by the names of both."""
        names = self.model.names
        found, ratios = {}, {}
        for name, value in as_dict("known", known).items():
            number = check_number(f"known[{name!r}]", value)
            parts = tuple(str(name).split("/"))
            if number <= 0 and (len(parts) > 1 or name in self.model.diffusivities):
                raise InputError(f"known[{name!r}]={value!r} must be positive, as a diffusivity or ratio.")
            if name in names:
                found[name] = number
            elif len(parts) == 2 and parts[0] != parts[1] and set(parts) <= set(names):
                ratios[parts] = number
            else:
                raise InputError(
                    f"known has {name!r}; {self.model.name} has {', '.join(names)}, and their ratios, like "
                    f"'{names[0]}/{names[1]}'.{did_you_mean(str(name), names)}"
                )
        if self.scale_unknown:
            self.gain_fact = {**found, **{"/".join(pair): value for pair, value in ratios.items()}}
            if len(self.gain_fact) > 1 or not set(self.gain_fact) <= {"Du", "Dv", "F", "Du/Dv"}:
                raise InputError("with scale=None give one known fact at most: Du, Dv, F or Du/Dv.")
            return {}, {}
        for pair in ratios:
            both = [name for name in pair if name in found]
            if both:
                raise InputError(f"known has {'/'.join(pair)!r} and {both[0]!r}; give the values of both instead.")
        return found, ratios

    def _check_bounds(self, bounds: Any) -> dict[str, tuple[float, float]]:
        found = {}
        for name, pair in as_dict("bounds", bounds).items():
            if name not in self.model.names or name in self.known:
                what = "which is in known" if name in self.known else f"which {self.model.name} does not know"
                raise InputError(f"bounds has {name!r}, {what}.{did_you_mean(str(name), self.model.names)}")
            ends = as_numbers(f"bounds[{name!r}]", pair)
            if len(ends) != 2 or not ends[0] < ends[1] or ends[1] <= 0:
                raise InputError(f"bounds[{name!r}]={pair!r} must be (low, high) with low < high and high > 0.")
            found[name] = ends
        if found and self.scale_unknown:
            raise InputError("bounds need a scale; with scale=None give one known fact instead.")
        return found

    def _check_start(self, start: Any) -> dict[str, float]:
        start = as_dict("start", start)
        for name in start:
            if name not in self.model.names:
                raise InputError(
                    f"start has {name!r}, which {self.model.name} does not know.{did_you_mean(name, self.model.names)}"
                )
        return {name: check_number(f"start[{name!r}]", value, above=0.0) for name, value in start.items()}

    # Stages

    def log(self, name: str, **entries: Any) -> None:
        """Note a stage."""
        self.stages.append({"stage": name, **entries})
        shown = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entries.items() if k != "params"
        )
        params = ", ".join(f"{k} {v:.5g}" for k, v in entries.get("params", {}).items())
        self.progress(f"{name}: {shown}{'; ' + params if params else ''}")

    def run(self) -> Inversion:
        """All stages."""
        first = self.values[0]
        image = cleanup.fill(first, self.seen[0], self.grid) if not self.seen[0].all() else first
        image = np.ascontiguousarray(image)
        whole = self.subsample == 1
        spectrum = cleanup.spectrum(
            image if whole else self._small(), self.grid if whole else self._small_grid(), self.noise
        )
        if not whole:
            image = self._interpolate(image)
        self.log("clean up", noise=spectrum.noise, step=spectrum.step, cutoff=spectrum.cutoff, signal=spectrum.signal)
        refusal = verdict.no_pattern(first[self.seen[0]], spectrum, len(self.free))
        if refusal:
            return self.refuse(refusal)
        if len(self.species) == len(self.model.species):
            fit = self._all_seen(spectrum)
        else:
            fit = self._one_seen(image, spectrum)
        if isinstance(fit, str):
            return self.refuse(fit)
        return self._finish(fit, spectrum)

    def _small(self) -> np.ndarray:
        every = (slice(None, None, self.subsample),) * self.grid.ndim
        return cleanup.fill(self.values[0][every], self.seen[0][every], self._small_grid())

    def _small_grid(self) -> Grid:
        every = (slice(None, None, self.subsample),) * self.grid.ndim
        return Grid(self.values[0][every].shape, boundary=self.grid.boundary)

    def _interpolate(self, image: np.ndarray) -> np.ndarray:
        """Cubic splines through the subsampled points."""
        small = self._small()
        axes = [np.arange(n) / self.subsample for n in self.grid.shape]
        mode = "grid-wrap" if self.boundary == "periodic" else "mirror"
        return ndimage.map_coordinates(small, np.meshgrid(*axes, indexing="ij"), order=5, mode=mode)

    def _starts(self, part: Structure) -> list[dict[str, float]]:
        h2 = float(np.prod(self.grid.spacing)) ** (2.0 / self.grid.ndim)
        usual = {name: (0.1269 * h2 if name in self.model.diffusivities else 0.05) for name in part.inner}
        first = {**usual, **{name: value for name, value in self.start.items() if name in part.inner}}
        factors = (0.25, 4.0) if self.model.name in USUAL else (0.3, 4.0, 40.0, 200.0)
        others = [
            {name: value * factor for (name, value), factor in zip(usual.items(), each, strict=True)}
            for each in product(factors, repeat=len(usual))
        ]
        return [first, *others]

    def _margin(self, width: int) -> np.ndarray | None:
        """Weights of the residual start: 0 near holes and cut edges."""
        bad = self.hole | self.edge
        if not bad.any():
            return None
        while width > 0:
            periodic = self.boundary == "periodic"
            padded = np.pad(bad, width, mode="wrap") if periodic else bad
            grown = ndimage.binary_dilation(padded, iterations=width)
            grown = grown[(slice(width, -width),) * bad.ndim] if periodic else grown
            if grown.mean() < 0.7:
                return (~grown).astype(np.float64)
            width //= 2
        return (~bad).astype(np.float64)

    def _one_seen(self, image: np.ndarray, spectrum: cleanup.Spectrum) -> Any:
        """One observed species: residual start, then refinement. A string is a refusal."""
        part = structure(self.model, self.species[0], self.known)
        weight = self._margin(MARGIN)
        shift = self._find_offset(image, part, weight, spectrum) if self.offset_unknown else 0.0
        image = image - shift
        raw = self._best_start(Residual(self.model, self.grid, image, part, self.known, weight), part)
        self.log("residual", params=raw.params, residual=raw.residual, iterations=raw.iterations)
        sane = not verdict.implausible(raw.params, self.model, self.grid)
        complete = weight is None and self.subsample == 1 and not self.offset_unknown
        if raw.residual < CLEAN and sane and complete and (self.noise is None or spectrum.step == 0.0):
            return raw
        quiet = spectrum.noise < QUIET * float(np.max(np.abs(image)))
        if complete and quiet and raw.residual > 2.0 * verdict.MOST_RATE:
            return verdict.unsteady(raw.residual, 1.0)
        begin = raw
        smooth = cleanup.low_pass(image, self.grid, spectrum.cutoff) if self.subsample == 1 else image
        if raw.residual > CLEAN and np.isfinite(spectrum.cutoff):
            h = min(self.grid.spacing)
            band = Residual(
                self.model, self.grid, smooth, part, self.known, weight, cutoff=min(spectrum.cutoff, BAND / h)
            )
            begin = self._best_start(band, part)
            self.log("residual, low-pass", params=begin.params, residual=begin.residual, iterations=begin.iterations)
            if part.green:
                h2 = float(np.prod(self.grid.spacing)) ** (2.0 / self.grid.ndim)
                tame = {
                    name: float(np.clip(value, 1e-3 * h2, 2.0 * h2)) if name in self.model.diffusivities
                    else float(np.clip(value, 1e-3, 2.0))
                    for name, value in begin.params.items()
                }  # fmt: skip
                begin = Residual(self.model, self.grid, smooth, part, self.known, weight).fit_green(tame)
                self.log("Green form", params=begin.params, residual=begin.residual, iterations=begin.iterations)
        reason = verdict.implausible(begin.params, self.model, self.grid)
        if reason and self.subsample > 1 and self.model.name in USUAL:  # too sharp to interpolate
            begin, reason = self._usual_start(begin.state), None
        if reason:
            return f"the equation residual leads to {reason}; the image is no steady pattern of {self.model.name}."
        return self._refine_all(begin, shift, spectrum)

    def _refine_all(self, begin: StartFit, shift: float, spectrum: cleanup.Spectrum) -> Any:
        """The refinement, in tiles if the image is large."""
        large = self.grid.size > MOST_CELLS and self.subsample == 1
        return (self._in_tiles if large else self._refine)(begin, shift, spectrum)

    def _in_tiles(self, begin: StartFit, shift: float, spectrum: cleanup.Spectrum) -> Any:
        """Refine tiles of a large image as crops, each by itself, and put their estimates together.

        The factors of a whole image of n^2 cells take n^3 operations. A tile loses the equation on its outermost cells.
        """
        state = begin.state.reshape(len(self.model.species), *self.grid.shape)
        fitted, jobs, found, reason = state.copy(), [], [], ""
        pieces = [
            [slice(part[0], part[-1] + 1) for part in np.array_split(np.arange(n), max(n // TILE, 1))]
            for n in self.grid.shape
        ]
        for place in product(*pieces):
            box = (slice(None), *place)
            data = np.where(self.seen[box], self.values[box] / self.scale, np.nan)
            if np.isnan(data).mean() > 0.5:
                continue
            job = _Job(
                data, self.model, self.grid.spacing, None, self.noise and self.noise / abs(self.scale), None,
                self.scale, [self.model.species[c] for c in self.species], "cropped", self.known, self.offset_unknown,
                1, None, None, alone=False,
            )  # fmt: skip
            fit = job._refine(replace(begin, state=state[box].reshape(len(state), -1)), shift, spectrum, loose=False)
            one = job.refuse(fit) if isinstance(fit, str) else job._finish(fit, spectrum)
            if one.success:
                jobs.append(job)
                found.append(one)
                fitted[box] = one.state
            reason = reason or one.message
        count = int(np.prod([len(each) for each in pieces]))
        self.log("tiles", tiles=count, fitted=len(found))
        if len(found) < 0.5 * count:
            return f"{count - len(found)} of {count} tiles do not fit: {reason}"
        mean, cov, agreement = constraints.together([job.logs for job in jobs], [job.log_cov for job in jobs])
        if agreement < DISAGREE:
            return "its parts do not have the same parameters"
        values = np.where(jobs[0].on_log, np.exp(mean), mean)
        params = {**self.known, **dict(zip(self.free, values.tolist(), strict=True))}
        if len(self.species) == 1:  # on the rim of a tile the hidden species is hardly known
            part = structure(self.model, self.species[0], self.known)
            whole = Residual(self.model, self.grid, fitted[part.observed], part, self.known)
            fitted[part.hidden] = whole.hidden(params)[0].reshape(self.grid.shape)
        rate = float(np.sqrt(np.mean([one.rate**2 for one in found])))
        noise = float(np.mean([one.noise for one in found])) * abs(self.scale)
        return _Tiled(params, fitted.reshape(len(state), -1), cov, rate, noise, shift)

    def _best_start(self, problem: Residual, part: Structure) -> StartFit:
        """The residual fit from the first start; from the others too if its result is implausible."""
        best = None
        for n, start in enumerate(self._starts(part)):
            fit = problem.fit(start)
            wrong = verdict.implausible(fit.params, self.model, self.grid) is not None
            if best is None or (wrong, fit.residual) < best[0]:
                best = ((wrong, fit.residual), fit)
            if n == 0 and not wrong and fit.residual < 0.1:
                break
            if n > 0 and not best[0][0] and best[1].residual < 0.05:
                break
        return best[1]

    def _find_offset(
        self, image: np.ndarray, part: Structure, weight: np.ndarray | None, spectrum: cleanup.Spectrum
    ) -> float:
        """The offset of least residual: a scan, then Brent's method."""
        smooth = cleanup.low_pass(image, self.grid, spectrum.cutoff)
        reach = float(np.ptp(image))
        begin = self._starts(part)[0]
        cutoff = (
            spectrum.cutoff if not np.isfinite(spectrum.cutoff) else min(spectrum.cutoff, BAND / min(self.grid.spacing))
        )

        def misfit(shift: float) -> float:
            problem = Residual(self.model, self.grid, smooth - shift, part, self.known, weight, cutoff=cutoff)
            fit = problem.fit(begin, max_iterations=20, tol=1e-6)
            wrong = verdict.implausible(fit.params, self.model, self.grid) is not None
            return float(np.log(fit.residual)) + (10.0 if wrong else 0.0)

        trial = float(image.min()) + reach * np.linspace(-0.3, 0.15, 16)
        values = [misfit(shift) for shift in trial]
        i = int(np.argmin(values))
        low, high = trial[max(i - 1, 0)], trial[min(i + 1, len(trial) - 1)]
        found = optimize.minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-5 * reach})
        self.log("offset", offset=float(found.x), residual=float(np.exp(found.fun)))
        return float(found.x)

    def _all_seen(self, spectrum: cleanup.Spectrum) -> Any:
        """All species observed: linear regression of the equations, then refinement."""
        images = np.stack([cleanup.fill(v, s, self.grid) for v, s in zip(self.values, self.seen, strict=True)])
        state = np.zeros_like(images)
        state[list(self.species)] = images
        cutoff = spectrum.cutoff
        smooth = np.stack([cleanup.low_pass(s, self.grid, cutoff) for s in state])
        unknown = [name for name in self.free if name not in self.start]
        params = {**dict.fromkeys(self.model.names, 1.0), **self.start, **self.known}
        y = smooth.ravel()
        if unknown:
            C = self.system.parameter_jacobian(y, params, tuple(unknown))
            base = self.system.residual(y, params) - C @ np.array([params[name] for name in unknown])
            moved = dict(params, **{name: 1.7 for name in unknown})
            if np.max(np.abs(self.system.residual(y, moved) - base - 1.7 * C.sum(axis=1))) > 1e-9 * np.max(np.abs(C)):
                raise InputError(
                    f"{self.model.name} is not linear in {', '.join(unknown)} together; give start= or known= for some."
                )
            weight = self._margin(2)
            rows = np.ones(y.size) if weight is None else np.tile(weight.ravel(), len(state))
            found, _, rank, sizes = np.linalg.lstsq(C * rows[:, None], -base * rows, rcond=None)
            if rank < len(unknown) or sizes[-1] < 1e-9 * sizes[0] or not np.any(np.abs(base) > 1e-12):
                return (
                    f"a steady pattern of {self.model.name} leaves {', '.join(unknown)} undetermined up to a common "
                    "factor; "
                    "give one of them in known=."
                )
            params.update(zip(unknown, found.tolist(), strict=True))
        self.log("regression", params=params)
        reason = verdict.implausible(params, self.model, self.grid)
        if reason:
            return f"the equations lead to {reason}; the image is no steady pattern of {self.model.name}."
        return self._refine_all(StartFit(params, smooth.reshape(len(state), -1), np.nan, 1), 0.0, spectrum)

    def _refine(self, begin: StartFit, shift: float, spectrum: cleanup.Spectrum, loose: bool = True) -> Any:
        """Weak-constraint fits down the ladder of tau, the drift model, the one of highest evidence.

        Without `loose` from the start directly, for one that is good.
        """
        S, cells = len(self.model.species), self.grid.size
        values, seen = np.zeros((S, cells)), np.zeros((S, cells))
        values[list(self.species)] = self.values.reshape(len(self.species), cells)
        seen[list(self.species)] = self.seen.reshape(len(self.species), cells)
        rows = np.tile((~(self.hole | self.edge)).ravel(), S).astype(np.float64)
        data = weak.Data(values, seen, rows, offset=self.offset_unknown)
        problem = weak.Problem(self.system, data, self.free)
        top = float(np.max(np.abs(values)))
        sigma = max(spectrum.noise, 1e-5 * top)
        params = {name: (value if value > 0 else 1e-4) for name, value in begin.params.items()}
        magnitude = verdict.magnitude(self.model, begin.state, params)
        unit = max(magnitude / 0.01, 1e-6)  # the ladder's values are for reactions of about 0.01
        try:
            if loose:
                fit = self._first_rungs(problem, begin, params, shift, sigma, unit)
            else:
                first = weak.start_fit(params, begin.state, offset=shift)
                fit = problem.fit(first, sigma, LADDER[1] * unit, evidence=False)
        except np.linalg.LinAlgError as error:
            return f"the refinement failed ({error})."
        if fit.chi2 > 3.0:
            return verdict.misfit(fit, self.model)
        reason = verdict.implausible(fit.params, self.model, self.grid)
        if reason:  # among others F, k, Dv -> 0, where every equation holds trivially
            return f"the refinement leads to {reason}; the image is no steady pattern of {self.model.name}."
        if spectrum.step:
            problem = weak.Problem(self.system, replace(data, step=spectrum.step), self.free)
            before = np.sqrt(max(spectrum.noise**2 - spectrum.step**2 / 12.0, 0.0))
            sigma = max(float(before), BLUR * spectrum.step)
        best = self._down_the_ladder(problem, fit, sigma, unit, LADDER)
        if max(abs(np.log(fit.params[name] / params[name])) for name in self.free if fit.params[name] > 0) > FAR:
            # The loose first rungs may have slid to F, k -> 0: also go from the start directly to a tight one.
            other = self._down_the_ladder(
                problem, weak.start_fit(params, begin.state, offset=shift), sigma, unit, LADDER[1:]
            )
            best = max(best, other, key=lambda fit: fit.evidence)
        if self.noise is None and not spectrum.step:
            again = self._measured(best, best.sigma, problem.data.count)
            if abs(again / best.sigma - 1.0) > 0.02:
                best = problem.fit(best, again, best.tau, max_iterations=6, label=best.label)
                self._log_fit(best)
        steady = best.tau <= 1.01 * LADDER[-1] * unit
        if not steady and verdict.misfit(best, self.model) is None:
            best = self._with_drift(problem, best, unit)
        return best, problem, magnitude

    def _down_the_ladder(
        self, problem: weak.Problem, fit: weak.Fit, sigma: float, unit: float, rungs: tuple[float, ...]
    ) -> weak.Fit:
        """The fit of highest evidence as tau gets smaller."""
        best = replace(fit, evidence=-np.inf)
        for n, tau in enumerate(rungs):
            try:
                fit = problem.fit(fit, sigma, tau * unit, max_iterations=12 if tau < 2e-6 else 10 if tau < 5e-6 else 8)
            except np.linalg.LinAlgError:
                break
            self._log_fit(fit)
            if fit.evidence > best.evidence:
                best = fit
            elif fit.evidence < best.evidence - DROP:
                break
            if n >= 1 and self.noise is None and not problem.data.step and fit is best:
                sigma = self._measured(fit, sigma, problem.data.count)
        return best

    def _first_rungs(
        self, problem: weak.Problem, begin: StartFit, params: dict[str, float], shift: float, sigma: float, unit: float
    ) -> weak.Fit:
        """The fit of least cost from the residual start and, with much noise, from the usual parameters."""
        starts = [weak.start_fit(params, begin.state, offset=shift)]
        if (
            self.model.name in USUAL
            and len(self.species) == 1
            and sigma > LOUD * float(np.max(np.abs(begin.state[self.species[0]])))
        ):
            usual = self._usual_start(begin.state)
            starts.append(weak.start_fit(usual.params, usual.state, offset=shift))
        reached = []
        for fit in starts:
            for tau, most in FIRST_RUNGS:
                fit = problem.fit(fit, sigma, tau * unit, max_iterations=most, evidence=False)
            self._log_fit(fit)
            reached.append(fit)
        return min(reached, key=lambda fit: fit.cost)

    def _usual_start(self, state: np.ndarray) -> StartFit:
        """The usual parameters, with the hidden species that belongs to them."""
        h2 = min(self.grid.spacing) ** 2
        usual = {
            name: value * (h2 if name in self.model.diffusivities else 1.0)
            for name, value in {**USUAL[self.model.name], **self.start}.items()
        }
        usual.update(self.known)
        part = structure(self.model, self.species[0], self.known)
        state = state.copy()
        state[part.hidden], _ = Residual(self.model, self.grid, state[part.observed], part, self.known).hidden(usual)
        return StartFit(usual, state, np.nan, 0)

    def _measured(self, fit: weak.Fit, sigma: float, count: int) -> float:
        """sigma for which the cost is as expected; cost ~ chi^2 of as many degrees of freedom as there are data."""
        floor = 1e-6 * float(np.max(np.abs(self.values)))
        return max(sigma * float(np.sqrt(np.clip(fit.cost / max(count, 1), 0.25, 4.0))), floor)

    def _with_drift(self, problem: weak.Problem, best: weak.Fit, unit: float) -> weak.Fit:
        """The drift model if its evidence is higher."""
        count = int(np.clip(self.grid.size // CELLS_PER_MODE, *MODES))
        drifting, fit, there = best, best, best.params
        try:
            for tau in DRIFT_TAU:
                if fit is best or _far(fit.params, there, self.free):
                    there = fit.params
                    modes = drift.soft_modes(self.system, fit.state.ravel(), there, count)
                fit = problem.fit(
                    fit, best.sigma, tau * unit, modes=modes, spread=3e-4 * unit, max_iterations=8,
                    label=f"drift along {count} modes, tau = {tau * unit:.0e}",
                )  # fmt: skip
                self._log_fit(fit)
                drifting = max(drifting, fit, key=lambda fit: fit.evidence)
                if fit.spread[-1] < LOOSE_END * fit.tau and not _far(fit.params, there, self.free):
                    break
        except (np.linalg.LinAlgError, RuntimeError) as error:
            self.log("drift", failed=str(error))
        return drifting

    def _log_fit(self, fit: weak.Fit) -> None:
        self.log(
            f"refine, {fit.label}", params=fit.params, chi2=fit.chi2, evidence=fit.evidence, rate=fit.rate,
            iterations=fit.iterations, sigma=fit.sigma,
        )  # fmt: skip

    # Results

    def refuse(self, reason: str) -> Inversion:
        """No success, for this reason."""
        largest = float(np.max(np.abs(self.values), initial=0.0))
        if self.model.name == "gray_scott" and largest > MOST_VALUE:
            reason = (
                f"{reason.rstrip('.')}. The data go up to {largest:.3g}: levels of an image, or percent? Give scale=."
            )
        nothing = dict.fromkeys(self.free, float("nan"))
        return Inversion(
            {**nothing, **self.known},
            nothing,
            np.full((len(self.free),) * 2, np.nan),
            self.free,
            np.full((len(self.model.species), *self.grid.shape), np.nan),
            False,
            reason[0].upper() + reason[1:],
            self.stages,
        )

    def _finish(self, fit: Any, spectrum: cleanup.Spectrum) -> Inversion:
        if isinstance(fit, StartFit):
            part = structure(self.model, self.species[0], self.known)
            problem = Residual(self.model, self.grid, self.values[0], part, self.known)
            log_cov = problem.covariance(fit.params)
            if log_cov is None:
                log_cov = np.full((len(self.free),) * 2, np.nan)
            log_cov = log_cov * CLEAN_FACTOR**2
            rate = float(np.sqrt(np.mean(self.system.residual(fit.state.ravel(), fit.params) ** 2)))
            params, state, noise, shift = fit.params, fit.state, 0.0, 0.0
            refusal = verdict.unsteady(rate, verdict.magnitude(self.model, state, params))
        elif isinstance(fit, _Tiled):
            params, state, log_cov = fit.params, fit.state, fit.log_cov
            rate, noise, shift, refusal = fit.rate, fit.noise, fit.shift, None
        else:
            fit, _, size = fit
            params, state, noise, shift = fit.params, fit.state, fit.noise, fit.offset
            k = len(self.free)
            log_cov, rate = fit.covariance[:k, :k], fit.rate
            refusal = (
                verdict.misfit(fit, self.model)
                or verdict.too_rough(
                    fit, spectrum, self.noise is not None, int(np.count_nonzero(self.seen)), self.model
                )
                or verdict.unsteady(rate, size)
                or verdict.not_converged(fit)
            )
        reason = verdict.implausible(params, self.model, self.grid)
        if refusal is None and reason:
            refusal = f"the fit leads to {reason}; the image is no steady pattern of {self.model.name}"
        if refusal is None and not (self.hole | self.edge).any():  # there the state is not known everywhere
            refusal, change = verdict.runs_on(self.model, self.grid, state, params, rate)
            self.log("run on", change=change)
        if refusal:
            return self.refuse(refusal)
        self.state, self.clean, self.shift = state, isinstance(fit, StartFit), shift
        values = np.array([params[name] for name in self.free])
        self.on_log = values > 0
        self.logs, self.log_cov = np.where(self.on_log, np.log(np.abs(values)), values), log_cov
        return self.report(self.logs, log_cov, rate, noise / abs(self.scale))

    def report(self, mean: np.ndarray, cov: np.ndarray, rate: float, noise: float) -> Inversion:
        """The result from the estimate (of logarithms where positive), with known ratios and bounds imposed."""
        refusal, mean, cov, held = self._impose(mean, cov)
        values = np.where(self.on_log, np.exp(np.where(self.on_log, mean, 0.0)), mean)
        slopes = np.where(self.on_log, values, 1.0)
        relative = np.sqrt(np.maximum(np.diag(cov), 0.0)) * slopes / np.maximum(np.abs(values), 1e-12)
        if refusal is None and self.alone and not np.all(relative < 0.5):
            worst = self.free[int(np.argmax(np.where(np.isnan(relative), np.inf, relative)))]
            refusal = f"the data do not determine {worst} (its standard error is {100 * np.max(relative):.0f} %)"
        if refusal:
            return self.refuse(refusal)
        message = verdict.praise(self.free, relative, rate, noise, self.clean) + held
        found = {**self.known, **dict(zip(self.free, values.tolist(), strict=True))}
        found = {name: float(found[name]) for name in self.model.names}
        state = self.state.reshape(len(self.model.species), *self.grid.shape)
        covariance = cov * np.outer(slopes, slopes)
        combinations: dict[str, tuple[float, float]] = {}
        gain = 1.0 / self.scale
        if self.scale_unknown:
            found, covariance, combinations, gain, message = self._with_gain(found, cov, message)
            state = state.copy()
            state[1] *= 1.0 / (gain * self.scale)
        stderr = dict(zip(self.free, np.sqrt(np.maximum(np.diag(covariance), 0.0)).tolist(), strict=True))
        return Inversion(
            found, stderr, covariance, self.free, state, True, message, self.stages, combinations,
            noise, rate, self.shift / self.scale, gain,
        )  # fmt: skip

    def _impose(self, mean: np.ndarray, cov: np.ndarray) -> tuple[str | None, np.ndarray, np.ndarray, str]:
        """(refusal, mean, covariance, what to say) with known ratios and bounds imposed on the estimate."""
        held = ""
        unit = dict(zip(self.free, np.eye(len(self.free)), strict=True))
        for (above, below), value in self.ratios.items():
            mean, cov, score = constraints.condition(mean, cov, unit[above] - unit[below], float(np.log(value)))
            if not abs(score) < CONTRADICTED:
                return f"{above}/{below} = {value:g} is {abs(score):.0f} standard errors from the data", mean, cov, held
        for name, pair in self.bounds.items():
            n = self.free.index(name)
            low, high = (np.log(x) if x > 0 and self.on_log[n] else x for x in pair)
            if pair[0] <= 0 and self.on_log[n]:
                low = -np.inf
            if low <= mean[n] <= high:
                continue
            bound = low if mean[n] < low else high
            mean, cov, score = constraints.condition(mean, cov, unit[name], float(bound))
            if not abs(score) < CONTRADICTED:
                return f"{name} is {abs(score):.0f} standard errors outside of bounds {pair}", mean, cov, held
            held += f" {name} is held at its bound."
        return None, mean, cov, held

    def _with_gain(self, params: dict[str, float], log_cov: np.ndarray, message: str) -> Any:
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
        fact = self.gain_fact
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
        return found, B @ cov @ B.T, combinations, float(1.0 / (self.scale * np.exp(0.5 * move))), message
