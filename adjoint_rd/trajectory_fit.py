"""Parameters from frames: a run that starts at the first frame is fitted to the later ones.

    J(x) = 0.5 sum_i |(y(t_i; p(x)) - frame_i) / sigma|^2,    y(t_0) = frame_0

minimised by SciPy's L-BFGS-B with the adjoint's gradient (or by its least_squares with the tangents' Jacobian). The star Laplacian
on the grid of the frames biases the diffusivities by ``O(h^2)``; so the fit is repeated on grids R times finer, which start at the
first frame interpolated by Fourier series (periodic grids) and are compared in every R-th cell. The steps per frame grow as
R^2, hence the error of explicit Euler in time is ``O(h^2)`` too, and two values of R give an extrapolation and an error
(Richardson):

    p = p_f + (p_f - p_c) / ((R_f / R_c)^2 - 1)

The first frame is taken as exact: noise in it is not modelled. All species must have been observed.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from . import losses, models
from .errors import InputError, StabilityWarning, check_choice, check_count
from .grid import BOUNDARIES, Grid
from .io import Observation
from .objective import Objective
from .simulation import Simulation

MARGIN = 1.5  # the time step is safe for parameters so many times the start's: the optimiser may visit them
FRAMES = 6  # used by default
REFINE = (1, 2, 3)
ROUNDS = 3  # times that the substeps are chosen anew if an estimate leaves the margin
SMOOTHING = 1.5  # cells, of the residual whose least squares give the start
METHODS = ("adjoint", "least_squares")


class Subsampled:
    """A loss of every R-th cell of a state, beginning with the first along each axis.

    Parameters
    ----------
    loss : loss
        Of the coarse state, such as `losses.L2`.
    every : int
        R.
    """

    def __init__(self, loss: Any, every: int):
        losses.check_loss(loss)
        self.loss = loss
        self.every = check_count("every", every, 1)

    def _coarse(self, y: np.ndarray) -> np.ndarray:
        return y[(slice(None), *(slice(None, None, self.every),) * (y.ndim - 1))]

    def _spread(self, y: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        full = np.zeros(y.shape)
        self._coarse(full)[...] = coarse
        return full

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        return self.loss.value(self._coarse(y))

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy, zero between the compared cells."""
        return self._spread(y, self.loss.seed(self._coarse(y)))

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the seed along t."""
        return self._spread(y, self.loss.seed_tangent(self._coarse(y), self._coarse(t)))

    def misfit(self, y: np.ndarray) -> np.ndarray:
        """The loss's misfit of the compared cells."""
        return self.loss.misfit(self._coarse(y))

    def misfit_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the misfit along t."""
        return self.loss.misfit_tangent(self._coarse(y), self._coarse(t))


def interpolate(state: np.ndarray, refine: int) -> np.ndarray:
    """A periodic state (S, *shape) on a grid `refine` times finer: the trigonometric interpolant, exact in the given cells."""
    check_count("refine", refine, 1)
    if refine == 1:
        return np.array(state)
    for axis in range(1, state.ndim):
        n = state.shape[axis]
        modes = np.fft.rfft(state, axis=axis)
        if n % 2 == 0:  # the highest mode stands for both signs of its wavenumber
            modes[(slice(None),) * axis + (n // 2,)] *= 0.5
        state = np.fft.irfft(modes, n * refine, axis=axis) * refine
    return state


@dataclass(frozen=True)
class Progress:
    """Where a fit is: so many evaluations on the grid `refine` times finer, at these parameters."""

    refine: int
    evaluations: int
    rms: float
    params: dict[str, float]


@dataclass(frozen=True)
class RefinementFit:
    """The fit on one grid.

    Attributes
    ----------
    refine : int
        R.
    shape : tuple of int
    substeps : int
        Steps per frame interval (the shortest, if they differ).
    dt, safe : float
        The step, and the limit of `adjoint_rd.stability` up to which no blow-up is possible, at the estimate.
    params, stderr : dict
        Estimates and standard errors (of noise alone, see `fit_trajectory`).
    rms : float
        Of fitted minus observed, in the state's unit.
    agreement : float
        The gradient by the adjoint and that by the tangents, J^T m, differ by this much relative to |J| |m|.
    evaluations, seconds : int, float
    history : ndarray
        The rms at each evaluation.
    success, message : bool, str
        The optimiser's.
    """

    refine: int
    shape: tuple[int, ...]
    substeps: int
    dt: float
    safe: float
    params: dict[str, float]
    stderr: dict[str, float]
    rms: float
    agreement: float
    evaluations: int
    seconds: float
    history: np.ndarray = field(repr=False)
    success: bool
    message: str


@dataclass(frozen=True)
class TrajectoryFit:
    """Parameters fitted to frames.

    Attributes
    ----------
    params : dict
        The estimates of the free parameters: the extrapolation from the two finest grids; from one grid, its fit.
    stderr : dict
        Standard errors of noise alone, on the finest grid.
    discretisation : dict or None
        The error of the finest grid's fit, |extrapolation - fit|: an upper estimate for `params`. None from one grid.
    refinements : tuple of RefinementFit
        From coarse to fine.
    start : dict
        Where the coarsest began.
    truth : dict
        What the file says of these parameters; empty if it says nothing.
    observed, fitted : ndarray (T, S, *shape)
        The frames that were used, and the finest grid's run in the same cells.
    names : tuple of str
        The species.
    spacing : tuple of float
        Of the frames.
    success : bool
    message : str
        What was used and found, in sentences.
    """

    params: dict[str, float]
    stderr: dict[str, float]
    discretisation: dict[str, float] | None
    refinements: tuple[RefinementFit, ...]
    start: dict[str, float]
    truth: dict[str, float]
    observed: np.ndarray = field(repr=False)
    fitted: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    spacing: tuple[float, ...]
    success: bool
    message: str

    def errors(self, params: Mapping[str, float] | None = None) -> dict[str, float]:
        """(estimate - truth) / truth in percent, for the parameters whose truth is known."""
        params = self.params if params is None else params
        return {
            name: 100.0 * (params[name] / self.truth[name] - 1.0)
            for name in params
            if self.truth.get(name)
        }

    def __str__(self) -> str:
        return f"{self.table()}\n{self.message}"

    def table(self) -> str:
        """Truth, and for each grid and the extrapolation: estimate, standard error and error."""
        columns: list[tuple[str, Mapping[str, float], Mapping[str, float]]] = [
            (f"R={each.refine}, {'x'.join(map(str, each.shape))}", each.params, each.stderr) for each in self.refinements
        ]
        if self.discretisation is not None:
            R = [each.refine for each in self.refinements[-2:]]
            columns.append((f"R={R[0]},{R[1]} extrapolated", self.params, self.stderr))
        rows = [["parameter", "truth", *(title for title, _, _ in columns)]]
        for name in self.params:
            row = [name, f"{self.truth[name]:.6g}" if name in self.truth else "unknown"]
            for _, params, stderr in columns:
                error = self.errors(params).get(name)
                row.append(f"{params[name]:.5g} +- {stderr[name]:.1g}" + ("" if error is None else f" ({error:+.2f} %)"))
            rows.append(row)
        widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def fit_trajectory(
    observation: Observation,
    model: Any = "gray_scott",
    *,
    free: Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    refine: int | Sequence[int] | None = None,
    frames: int = FRAMES,
    boundary: Any = None,
    noise: Any = None,
    transform: Any = "log",
    method: str = "adjoint",
    progress: Callable[[Progress], None] | None = None,
    on_refinement: Callable[[TrajectoryFit], None] | None = None,
    threads: int | None = None,
) -> TrajectoryFit:
    """Fit a model's parameters to frames of all its species.

    Parameters
    ----------
    observation : Observation
        With `times` and `spacing`; see `io.read_observation`. Frames may be unevenly spaced if their intervals are
        multiples of the shortest.
    model : str or Model
    free : sequence of str, optional
        The parameters to fit, by default all that are not in `fixed`.
    fixed : dict, optional
        {name: float}: known parameters.
    start : dict, optional
        {name: float}: where to begin, for some or all free parameters. Otherwise the least squares of the residual
        ``y(t_2) - y(t_0) - integral of (D Lap y + R)`` (Simpson's rule on the frames, smoothed over 1.5 cells) give it: good if
        the frames are close in time and not too noisy. Models in which the parameters do not enter linearly may need it.
    refine : int or sequence of int, optional
        The values of R; by default 1, 2 and 3 on periodic grids and 1 on others, which cannot be refined here.
    frames : int
        Use the first so many frames. Long stretches cost time, and make the landscape rough where patterns are chaotic.
    boundary : str or sequence of str, optional
        By default the file's; periodic if that says nothing, which `message` mentions.
    noise : float or sequence of float, optional
        The standard deviation of the frames, one or one per species. By default it is taken to be proportional to each species'
        own standard deviation, and its size is estimated from the misfit.
    transform : str, None or dict
        See `Objective`; the default keeps all parameters positive.
    method : {"adjoint", "least_squares"}
        L-BFGS-B with the adjoint's gradients, in variables scaled by the Gauss-Newton Hessian at the start; or least_squares
        (trust region) with the tangents' Jacobian. They find the same minimum.
    progress, on_refinement : callable, optional
        Called after each evaluation, and after each value of R with the result so far.
    threads : int, optional
        See `Simulation`.

    Returns
    -------
    TrajectoryFit

    Raises
    ------
    InputError
        If the frames do not fit the model or lack times or spacing.
    """
    setup = _Setup(observation, model, free, fixed, refine, frames, boundary, noise, transform, method, threads)
    begin, notes = setup.start(start)
    values = begin
    for _ in range(ROUNDS):
        base = setup.base_substeps(values)
        done: list[RefinementFit] = []
        for R in setup.refine:
            fitted, found = setup.fit(R, base * R * R, done[-1].params if done else values, progress)
            done.append(found)
            result = setup.result(done, begin, fitted, notes)
            if found.dt > found.safe:
                break
            if on_refinement is not None:
                on_refinement(result)
        else:
            return result
        notes = [
            *notes,
            f"The estimate at refine={R} left the margin of the time step (dt={found.dt:.4g}, safe limit {found.safe:.4g}); the fit "
            "was repeated with more substeps.",
        ]
        values = found.params
    return replace(result, success=False, message=f"{result.message} The time step is still too long; give a start.")


class _Setup:
    """The checked input of a fit."""

    def __init__(
        self,
        observation: Observation,
        model: Any,
        free: Any,
        fixed: Any,
        refine: Any,
        frames: int,
        boundary: Any,
        noise: Any,
        transform: Any,
        method: str,
        threads: int | None,
    ):
        if not isinstance(observation, Observation):
            raise InputError(f"observation={type(observation).__name__} must be an Observation, from adjoint_rd.io.read_observation.")
        self.model = models.get(model)
        self.total = len(observation.fields)
        self.frames = np.asarray(observation.fields[: check_count("frames", frames, 2)], dtype=np.float64)
        species = self.model.species
        if self.frames.ndim < 3 or self.frames.shape[1] != len(species):
            raise InputError(
                f"the observation has fields of shape {observation.fields.shape} (time, species, cells); {self.model.name} needs frames of "
                f"its {len(species)} species {', '.join(species)}: the run starts at the first frame."
            )
        if len(self.frames) < 2:
            raise InputError(f"the observation has {self.total} frame; a trajectory fit needs at least 2.")
        if not np.isfinite(self.frames).all():
            raise InputError("the frames have values that are not finite; a trajectory fit needs complete frames.")
        if observation.spacing is None:
            raise InputError("the observation has no spacing; give it with dataclasses.replace(observation, spacing=(h, h)) or --spacing.")
        self.observation = observation
        self.boundary, self.notes = self._check_boundary(observation, boundary)
        self.grid = Grid(self.frames.shape[2:], spacing=observation.spacing, boundary=self.boundary)
        self.interval, self.marks = self._check_times(observation.times)
        self.refine = self._check_refine(refine)
        names = self.model.names
        self.fixed = dict(fixed or {})
        self.free = tuple(name for name in names if name not in self.fixed) if free is None else free
        self.transform, self.threads = transform, threads
        self.method = check_choice("method", method, METHODS)
        self.noise = noise
        self.sigma = self._check_noise(noise)
        Objective(self._simulation(1, 1), self.frames[0], self._loss(1, 1), steps=1, **self._variables())  # checks the names

    def _check_boundary(self, observation: Observation, boundary: Any) -> tuple[Any, list[str]]:
        if boundary is not None:
            return boundary, []
        if observation.boundary is None:
            return "periodic", ["The file says nothing of the boundary; it was taken as periodic."]
        unknown = [kind for kind in observation.boundary if kind not in BOUNDARIES]
        if unknown:
            raise InputError(f"the file calls its boundary {unknown[0]!r}; say which it is with boundary=, one of {', '.join(BOUNDARIES)}.")
        return observation.boundary, []

    def _check_times(self, times: Any) -> tuple[float, list[int]]:
        """The shortest interval between frames, and the time of each frame but the first in this unit."""
        if times is None:
            raise InputError(
                "the observation has no times; give them with dataclasses.replace(observation, times=...) or --interval."
            )
        if np.shape(times) != (self.total,):
            raise InputError(f"the observation has times of shape {np.shape(times)} for {self.total} frames.")
        times = np.asarray(times, dtype=np.float64)[: len(self.frames)]
        gaps = np.diff(times)
        if not np.all(gaps > 0):
            raise InputError("the times of the frames must increase.")
        counts = gaps / gaps.min()
        if not np.allclose(counts, np.rint(counts), rtol=0, atol=1e-3):
            raise InputError(f"the intervals between frames, {gaps.min():g} to {gaps.max():g}, must be multiples of the shortest.")
        marks = np.cumsum(np.rint(counts).astype(int))
        return float((times[-1] - times[0]) / marks[-1]), [int(mark) for mark in marks]

    def _check_refine(self, refine: Any) -> tuple[int, ...]:
        periodic = set(self.grid.boundary) == {"periodic"}
        if refine is None:
            return REFINE if periodic else (1,)
        values = tuple(sorted({check_count("refine", R, 1) for R in np.ravel(np.asarray(refine, dtype=object))}))
        if not values:
            raise InputError("refine is empty; give one value or several, such as (1, 2, 3).")
        if values[-1] > 1 and not periodic:
            raise InputError(f"refine={values[-1]} interpolates by Fourier series, which needs a periodic grid; this is {self.grid}. Use refine=1.")
        return values

    def _check_noise(self, noise: Any) -> np.ndarray:
        scale = np.std(self.frames, axis=(0, *range(2, self.frames.ndim)))
        scale[scale == 0.0] = 1.0
        if noise is not None:
            try:
                scale = np.broadcast_to(np.asarray(noise, dtype=np.float64), scale.shape)
            except (TypeError, ValueError):
                raise InputError(f"noise={noise!r} must be one number, or one for each of the {len(scale)} species.") from None
        return scale.reshape(-1, *(1,) * self.grid.ndim)

    def _variables(self) -> dict[str, Any]:
        return dict(free=self.free, fixed=self.fixed, transform=self.transform)

    def _simulation(self, R: int, substeps: int, stability: str | None = "off") -> Simulation:
        grid = Grid(
            tuple(n * R for n in self.grid.shape),
            spacing=tuple(h / R for h in self.grid.spacing),
            boundary=self.grid.boundary,
        )
        return Simulation(self.model, grid, dt=self.interval / substeps, stability=stability, threads=self.threads)

    def _loss(self, R: int, substeps: int) -> losses.Trajectory:
        observed = zip(self.marks, self.frames[1:], strict=True)
        if substeps * self.marks[-1] == 1 or len(self.marks) > 1:
            pass
        return losses.Trajectory({mark * substeps: Subsampled(losses.L2(y, sigma=self.sigma), R) for mark, y in observed})
