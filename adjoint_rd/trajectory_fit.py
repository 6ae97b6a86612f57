"""Parameters from frames: a run that starts at the first frame is fitted to the later ones.

    J(x) = 0.5 sum_i |(y(t_i; p(x)) - frame_i) / sigma|^2,    y(t_0) = frame_0

minimised by SciPy's L-BFGS-B with the adjoint's gradient (or by its least_squares with the tangents' Jacobian). The
star Laplacian on the grid of the frames biases the diffusivities by ``O(h^2)``; so the fit is repeated on grids R
times finer, which start at the first frame interpolated by Fourier series (periodic grids) and are compared in every
R-th cell. The steps per frame grow as R^2, hence the error of explicit Euler in time is ``O(h^2)`` too, and two values
of R give an extrapolation and an error (Richardson):

    p = p_f + (p_f - p_c) / ((R_f / R_c)^2 - 1)

The first frame is taken as exact: noise in it is not modelled. All species must have been observed. Refinement is for
frames of the continuous equations: measured, or computed with a far smaller error than that of the frames' own grid.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from . import losses, models
from .errors import (
    DivergenceError,
    InputError,
    StabilityError,
    StabilityWarning,
    check_choice,
    check_count,
    did_you_mean,
)
from .grid import BOUNDARIES, Grid
from .io import Observation
from .objective import Objective
from .simulation import Simulation

MARGIN = 1.5  # the time step is safe for parameters so many times the start's: the optimiser may visit them
FRAMES = 6  # used by default
REFINE = (1, 2, 3)
ROUNDS = 4  # the substeps are chosen anew if the start blows up or an estimate leaves the margin
SMOOTHING = 1.5  # cells, of the residual whose least squares give the start
GAUSS_NEWTON_STEPS = 10
REACH = 20.0  # a parameter that is fitted as exp(x) may change by a factor exp(20)
MOST_STEPS = 10**7
MOST_LEFT = 0.5  # a fit that leaves more of the frames unexplained has failed
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
        self._coarse(full)[...] = coarse  # a view
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
    """A periodic state (S, *shape) on a grid `refine` times finer: its trigonometric interpolant."""
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
    """A fit on its way: the count of evaluations on the grid `refine`, and the misfit and parameters of the last."""

    refine: int
    evaluations: int
    misfit: float
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
        Steps per interval between frames (the shortest, if they differ).
    dt, safe : float
        The step, and the limit of `adjoint_rd.stability` up to which no blow-up is possible, at the estimate.
    params, stderr : dict
        Estimates and standard errors (see `TrajectoryFit`).
    rms : float
        Of fitted minus observed, in the state's unit.
    agreement : float
        How far the gradients by the adjoint and by the tangents, J^T m, differ at the estimate, relative to |J| |m|.
    evaluations : int
    seconds : float
    history : ndarray
        The misfit sqrt(2 J / N) at each evaluation: fitted minus observed, in units of `noise` or of each species'
        spread.
    success : bool
    message : str
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
        The free parameters: extrapolated from the two finest grids; from a single grid, its fit.
    stderr : dict
        Standard errors on the finest grid, from the Jacobian and the size of the misfit (or from `noise`): what
        independent noise in each cell would cause. They say nothing of the discretisation, nor of errors in the first
        frame.
    discretisation : dict or None
        The error of the finest grid's fit, |extrapolation - fit|, which is more than that of `params` where the grids
        are fine enough for second order. None from a single grid.
    refinements : tuple of RefinementFit
        From coarse to fine.
    start : dict
        Where the coarsest fit began.
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
        """Estimate minus truth in percent of the truth, where it is known (and not 0)."""
        params = self.params if params is None else params
        return {name: 100.0 * (params[name] / self.truth[name] - 1.0) for name in params if self.truth.get(name)}

    def table(self) -> str:
        """The truth, then the estimates of each grid and of the extrapolation; one column per parameter."""
        rows = [["", *self.params]]
        if self.truth:
            rows.append(["truth", *(f"{self.truth[name]:.6g}" if name in self.truth else "" for name in self.params)])
        for each in self.refinements:
            rows.append([f"R={each.refine}, {'x'.join(map(str, each.shape))}", *self._cells(each.params)])
        last = f"R={self.refinements[-1].refine}"
        if self.discretisation is not None:
            rows.append(
                [f"extrapolated, {last[:2]}{self.refinements[-2].refine},{last[2:]}", *self._cells(self.params)]
            )
            errors = [f"{self.discretisation[name]:.1e}" for name in self.params]
            rows.append([f"discretisation, {last}", *errors])
        rows.append(["noise alone", *(f"{self.stderr[name]:.1e}" for name in self.params)])
        widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _cells(self, params: Mapping[str, float]) -> list[str]:
        errors = self.errors(params)
        return [
            f"{value:.6g}" + (f" ({errors[name]:+.2f} %)" if name in errors else "") for name, value in params.items()
        ]

    def __str__(self) -> str:
        sentences = self.message.replace(". ", ".\n")
        brackets = "In brackets: estimate minus truth. " if self.errors() else ""
        last = "The last row is an error" if self.discretisation is None else "The last two rows are errors"
        return f"{self.table()}\n{brackets}{last} in the parameters' units.\n\n{sentences}"


def fit_trajectory(
    observation: Observation,
    model: Any = "gray_scott",
    *,
    free: Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    refine: int | Sequence[int] | None = None,
    frames: int = FRAMES,
    substeps: int | None = None,
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
        With `times` and `spacing`; see `io.read_observation`. Frames may be unevenly spaced in time if their intervals
        are multiples of the shortest.
    model : str or Model
    free : sequence of str, optional
        The parameters to fit, by default all that are not in `fixed`.
    fixed : dict, optional
        {name: float}: known parameters.
    start : dict, optional
        {name: float}: where to begin, for some or all of the free parameters. The others begin at the least-squares
        solution of ``y(t_2) - y(t_0) = integral of (D Lap y + R)`` (Simpson's rule on the frames, smoothed over 1.5
        cells): good if the frames are close in time and not too noisy.
    refine : int or sequence of int, optional
        The values of R; by default 1, 2 and 3 on periodic grids and 1 on others, which cannot be refined here.
    frames : int
        Use the first so many frames. Long stretches cost time, and where patterns are chaotic they make a rough
        landscape.
    substeps : int, optional
        Steps per interval (the shortest) between frames for R = 1; R^2 times as many on finer grids. By default as
        many as keep the stability limits at 1.5 times the start's parameters. Frames of a run of this library on the
        same grid want its own number, and refine=1: then there is no discretisation error at all.
    boundary : str or sequence of str, optional
        By default the file's; periodic if it says nothing, which `message` then mentions.
    noise : float or sequence of float, optional
        The standard deviation of the frames, one or one per species. By default it is taken to be proportional to each
        species' own standard deviation, and its size is estimated from the misfit.
    transform : str, None or dict
        See `Objective`; the default keeps all parameters positive.
    method : {"adjoint", "least_squares"}
        L-BFGS-B with the adjoint's gradient, in variables scaled by the Gauss-Newton Hessian at the start; or
        least_squares (trust region) with the tangents' Jacobian. Both find the same minimum.
    progress : callable, optional
        Called with a `Progress` after each evaluation.
    on_refinement : callable, optional
        Called with the `TrajectoryFit` so far after each value of R.
    threads : int, optional
        See `Simulation`.

    Returns
    -------
    TrajectoryFit

    Raises
    ------
    InputError
        If the frames do not fit the model, or lack times or spacing.
    """
    check_choice("method", method, METHODS)
    if substeps is not None:
        check_count("substeps", substeps, 1)
    if isinstance(free, str):
        free = (free,)
    frames_used = _check_frames(observation, models.get(model), check_count("frames", frames, 2))
    boundary, notes = _check_boundary(observation, boundary)
    grid = Grid(frames_used.shape[2:], spacing=_check_spacing(observation), boundary=boundary)
    interval, marks = _check_times(observation, len(frames_used))
    known = dict(fixed or {})
    task = _Task(
        model=models.get(model),
        frames=frames_used,
        marks=marks,
        interval=interval,
        grid=grid,
        free=tuple(name for name in models.get(model).names if name not in known) if free is None else tuple(free),
        fixed=known,
        sigma=_check_noise(noise, frames_used),
        noise_known=noise is not None,
        transform=transform,
        method=method,
        threads=threads,
        truth=known_parameters(observation, models.get(model)),
        names=observation.names or models.get(model).species,
    )
    last = float(observation.times[len(frames_used) - 1])
    used = (
        f"the first {len(frames_used)} of {len(observation.fields)}"
        if len(frames_used) < len(observation.fields)
        else "all"
    )
    notes = [f"Used {used} frames, times {float(observation.times[0]):g} to {last:g}.", *notes]
    refinements = _check_refine(refine, grid)
    begin, remarks = task.start(dict(start or {}))
    values, notes, factor = begin, notes + remarks, 1
    for attempt in range(1, ROUNDS + 1):
        base = factor * task.base_substeps(values, refinements) if substeps is None else substeps
        done: list[RefinementFit] = []
        try:
            for R in refinements:
                found, fitted = task.fit(R, base * R * R, done[-1].params if done else values, progress)
                done.append(found)
                result = task.result(done, begin, fitted, notes)
                if found.dt > found.safe and substeps is None:
                    break
                if on_refinement is not None:
                    on_refinement(result)
            else:
                return result
        except (DivergenceError, StabilityError):  # at the start: trials are caught by the objective
            if attempt == ROUNDS or substeps is not None:
                raise
            notes.append(f"The start blew up with {base} steps per interval, R=1; twice as many were used.")
            factor *= 2
            continue
        notes.append(
            f"The estimate for R={R} left the margin of the time step (dt={found.dt:.4g}, safe up to "
            f"{found.safe:.4g}); the fit was repeated with more substeps."
        )
        values = found.params
    message = f"{result.message} The time step stayed too long for the estimates; give a start."
    return replace(result, success=False, message=message)


def known_parameters(observation: Observation, model: Any) -> dict[str, float]:
    """What the file says of the model's parameters.

    Names are compared without case; the diffusivity of the c-th species may also be called ``D_`` or ``D`` and the
    file's name of that species (``D_A`` in The Well).
    """
    given = {name.lower(): value for name, value in observation.parameters.items()}
    found = {}
    for name in model.names:
        aliases = [name.lower()]
        if name in model.diffusivities and len(observation.names) == len(model.species):
            species = observation.names[model.diffusivities.index(name)].lower()
            aliases += [f"d_{species}", f"d{species}"]
        for alias in aliases:
            if alias in given:
                found[name] = given[alias]
                break
    return found


@dataclass(frozen=True)
class _Task:
    """The checked input of a fit."""

    model: models.Model
    frames: np.ndarray
    marks: list[int]  # the time of each frame but the first, in units of `interval`
    interval: float
    grid: Grid
    free: tuple[str, ...]
    fixed: dict[str, float]
    sigma: np.ndarray
    noise_known: bool
    transform: Any
    method: str
    threads: int | None
    truth: dict[str, float]
    names: tuple[str, ...]

    def simulation(self, R: int, substeps: int, stability: str | None = None) -> Simulation:
        grid = Grid(
            tuple(n * R for n in self.grid.shape),
            spacing=tuple(h / R for h in self.grid.spacing),
            boundary=self.grid.boundary,
        )
        return Simulation(self.model, grid, dt=self.interval / substeps, stability=stability, threads=self.threads)

    def objective(self, R: int, substeps: int) -> Objective:
        observed = {
            mark * substeps: Subsampled(losses.L2(frame, sigma=self.sigma), R)
            for mark, frame in zip(self.marks, self.frames[1:], strict=True)
        }
        return Objective(
            self.simulation(R, substeps),
            interpolate(self.frames[0], R),
            losses.Trajectory(observed),
            steps=self.marks[-1] * substeps,
            free=self.free,
            fixed=self.fixed,
            transform=self.transform,
        )

    # Where to begin, and with which time step

    def start(self, given: dict[str, float]) -> tuple[dict[str, float], list[str]]:
        """The values to begin with, and remarks on them."""
        one = self.objective(1, 1)  # checks all names and values given
        for name in given:
            if name not in self.free:
                raise InputError(
                    f"start has {name!r}, which is not free; free is "
                    f"{', '.join(self.free)}.{did_you_mean(name, self.free)}"
                )
        values = {**dict.fromkeys(self.free, 1.0), **given}
        one.pack(**values)
        missing = [name for name in self.free if name not in given]
        if not missing:
            return values, []
        notes = [f"{', '.join(missing)} began at the least-squares solution of the residual."]
        transforms = one.transforms
        positive = [name in self.model.diffusivities or not transforms[name].accepts(-1.0) for name in missing]
        values = self._least_residual(values, missing, positive)
        for name in missing:
            least = 0.1 * self._unit(name)
            if values[name] < least and positive[missing.index(name)]:
                notes.append(f"That of {name}, {values[name]:.3g}, is too small; it began at {least:.3g}.")
                values[name] = least
        return values, notes

    def _unit(self, name: str) -> float:
        """The scale of a parameter on this grid: h^2 or 1 over the interval."""
        return (min(self.grid.spacing) ** 2 if name in self.model.diffusivities else 1.0) / self.interval

    def _least_residual(self, values: dict[str, float], names: list[str], positive: Sequence[bool]) -> dict[str, float]:
        """Gauss-Newton on the smoothed residual; one step where the parameters enter linearly."""
        from scipy.optimize import lsq_linear

        sim = self.simulation(1, 1, stability="off")
        unit = np.array([self._unit(name) for name in names])
        least = np.where(positive, 0.0, -np.inf)
        z = np.full(len(names), 0.1)
        for _ in range(GAUSS_NEWTON_STEPS):
            params = {**self.fixed, **values, **dict(zip(names, z * unit, strict=True))}
            rates = np.array([sim.rate(y, params) for y in self.frames])
            residual = self._integrate(rates) - self._integrate(self.frames, change=True)
            columns = [self._integrate(self._slopes(sim, params, name, u)) for name, u in zip(names, unit, strict=True)]
            matrix = np.stack([self._smooth(each).ravel() for each in columns], axis=1)
            step = lsq_linear(matrix, -self._smooth(residual).ravel(), bounds=(least - z - 1e-12, np.inf)).x
            z = np.maximum(z + step, least)
            if np.all(np.abs(step) <= 1e-6 * np.abs(z)):
                break
        return {**values, **{name: float(value) for name, value in zip(names, z * unit, strict=True)}}

    def _slopes(self, sim: Simulation, params: Mapping[str, Any], name: str, unit: float) -> np.ndarray:
        """The derivative of the rates of all frames with a parameter in its unit."""
        direction = {name: unit}
        return np.array([sim.tangent(y, params, steps=1, direction=direction).tangent / sim.dt for y in self.frames])

    def _integrate(self, of_frames: np.ndarray, change: bool = False) -> np.ndarray:
        """Integrals over time by Simpson's rule on pairs of equal intervals, else the trapezium's; or the changes."""
        gaps = np.diff([0, *self.marks])
        found = []
        for i, gap in enumerate(gaps):
            f = of_frames[i:]
            if i + 1 < len(gaps) and gaps[i + 1] == gap:
                found.append(f[2] - f[0] if change else (f[0] + 4.0 * f[1] + f[2]) * (gap * self.interval / 3.0))
            elif i == 0 or gaps[i - 1] != gap:
                found.append(f[1] - f[0] if change else (f[0] + f[1]) * (gap * self.interval / 2.0))
        return np.array(found) / self.sigma

    def _smooth(self, residual: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        # The same linear filter on every term leaves the equation true, and takes noise out of the Laplacians.
        modes = ["wrap" if kind == "periodic" else "nearest" for kind in self.grid.boundary]
        axes = tuple(range(2, residual.ndim))
        return gaussian_filter(residual, SMOOTHING, mode=modes, axes=axes)

    def base_substeps(self, values: Mapping[str, float], refinements: Sequence[int]) -> int:
        """n such that n R^2 substeps are safe for every R, at `MARGIN` times the values."""
        params = {**self.fixed, **{name: MARGIN * value for name, value in values.items()}}
        base = 1
        for R in refinements:
            needed = self.interval / self._safe(self.simulation(R, 1), params) / R**2
            base = max(base, int(np.ceil(needed)))
        steps = base * refinements[-1] ** 2 * self.marks[-1]
        if steps > MOST_STEPS:
            raise InputError(
                f"the fit needs {steps} steps from the first to the last frame on the finest grid, more than "
                f"{MOST_STEPS}; use fewer "
                "frames, closer frames or a smaller refine."
            )
        return base

    @staticmethod
    def _safe(sim: Simulation, params: Mapping[str, float]) -> float:
        found = sim.limits(params)
        declared = found.safe == found.safe  # NaN: the model declares no box of states
        return min(found.safe, found.certain) if declared else 0.5 * found.certain

    # The fit

    def fit(
        self, R: int, substeps: int, values: Mapping[str, float], progress: Callable[[Progress], None] | None
    ) -> tuple[RefinementFit, np.ndarray]:
        """Fit on one grid; the fit, and its frames."""
        began = perf_counter()
        obj = self.objective(R, substeps)
        count = self.frames[1:].size
        history: list[float] = []

        def note(x: np.ndarray, value: float) -> None:
            history.append(float(np.sqrt(2.0 * value / count)))
            if progress is not None:
                progress(Progress(R, len(history), history[-1], {name: obj.unpack(x)[name] for name in obj.free}))

        with warnings.catch_warnings():
            # Trials may pass the safe limit; the estimate is checked against it.
            warnings.simplefilter("ignore", StabilityWarning)
            x, success, message = OPTIMISERS[self.method](obj, obj.pack(**values), note)
            m, jacobian = obj.misfit(x), obj.misfit_jacobian(x)
            gradient = obj.grad(x)
        size = float(np.linalg.norm(jacobian) * np.linalg.norm(m))
        params = obj.unpack(x)
        fitted = self._frames_of(obj, R, params)
        found = RefinementFit(
            refine=R,
            shape=obj.sim.grid.shape,
            substeps=substeps,
            dt=obj.sim.dt,
            safe=self._safe(obj.sim, params),
            params={name: params[name] for name in obj.free},
            stderr=self._standard_errors(obj, x, m, jacobian),
            rms=float(np.sqrt(np.mean((fitted - self.frames)[1:] ** 2))),
            agreement=float(np.linalg.norm(gradient - jacobian.T @ m)) / size if size else 0.0,
            evaluations=len(history),
            seconds=perf_counter() - began,
            history=np.array(history),
            success=success,
            message=message,
        )
        return found, fitted

    def _frames_of(self, obj: Objective, R: int, params: Mapping[str, float]) -> np.ndarray:
        state, before = obj.y0, 0
        coarse = (slice(None), *(slice(None, None, R),) * self.grid.ndim)
        frames = [state[coarse]]
        for step in obj.loss.losses:
            state = obj.sim.run(state, params, steps=step - before).final
            before = step
            frames.append(state[coarse])
        return np.array(frames)

    def _standard_errors(self, obj: Objective, x: np.ndarray, m: np.ndarray, jacobian: np.ndarray) -> dict[str, float]:
        scale = 1.0 if self.noise_known else float(m @ m) / max(m.size - x.size, 1)
        if np.linalg.matrix_rank(jacobian) < x.size:
            deviation = np.full(x.size, np.nan)
        else:
            deviation = np.sqrt(scale * np.diag(np.linalg.inv(jacobian.T @ jacobian)))
        slopes = [float(obj.transforms[name].slope(x[i : i + 1])[0]) for i, name in enumerate(obj.free)]
        return {name: abs(slope) * float(d) for name, slope, d in zip(obj.free, slopes, deviation, strict=True)}

    # The result

    def _unexplained(self, fitted: np.ndarray) -> float:
        """The squared misfit relative to that of the better of two guesses: nothing changes; all is uniform."""
        later = self.frames[1:]
        cells = tuple(range(2, later.ndim))
        guesses = (self.frames[:1], later.mean(axis=cells, keepdims=True))
        best = min(float(np.sum(((later - guess) / self.sigma) ** 2)) for guess in guesses)
        return float(np.sum(((fitted[1:] - later) / self.sigma) ** 2)) / best if best else 0.0

    def result(
        self, done: Sequence[RefinementFit], begin: dict[str, float], fitted: np.ndarray, notes: Sequence[str]
    ) -> TrajectoryFit:
        """Put the fits so far together."""
        fine, interval = done[-1], f"{self.interval:g}"
        params, discretisation = dict(fine.params), None
        notes = list(notes)
        steps = ", ".join(f"{each.substeps} (R={each.refine})" for each in done)
        notes.append(
            f"Explicit Euler took {steps} steps per {interval} between frames: dt is at most "
            f"{max(each.dt / each.safe for each in done):.2f} of the safe stability limit at the estimates."
        )
        if len(done) > 1:
            params = _extrapolate(done[-2], fine)
            discretisation = {name: abs(params[name] - p) for name, p in fine.params.items()}
            shares = ", ".join(f"{name} {_percent(error, params[name])}" for name, error in discretisation.items())
            notes.append(
                f"Estimated discretisation error of R={fine.refine}, from R={done[-2].refine} and {fine.refine} at "
                f"second order: {shares}; "
                "the extrapolation is free of its leading term."
            )
            if len(done) > 2:
                other = _extrapolate(done[-3], done[-2])
                shares = ", ".join(f"{name} {_percent(params[name] - p, params[name])}" for name, p in other.items())
                notes.append(
                    f"The extrapolation from R={done[-3].refine} and {done[-2].refine} differs from it by {shares}."
                )
        else:
            notes.append("The discretisation error is unknown; two values of refine would give an estimate.")
        left = self._unexplained(fitted)
        success = all(each.success for each in done)
        if left > MOST_LEFT:
            success = False
            notes.append(
                f"The fit leaves {100 * left:.0f} % of the frames unexplained: give a start nearer to the "
                "answer or fewer frames, "
                "or look for noise in the first frame."
            )
        stopped = [each for each in done if not each.success]
        notes += [f"The optimiser stopped at R={each.refine} with {each.message.strip(' :.')!r}." for each in stopped]
        return TrajectoryFit(
            params=params,
            stderr=dict(fine.stderr),
            discretisation=discretisation,
            refinements=tuple(done),
            start=begin,
            truth={name: value for name, value in self.truth.items() if name in params},
            observed=self.frames,
            fitted=fitted,
            names=tuple(self.names),
            spacing=self.grid.spacing,
            success=success,
            message=" ".join(notes),
        )


def _extrapolate(coarse: RefinementFit, fine: RefinementFit) -> dict[str, float]:
    q = (fine.refine / coarse.refine) ** 2
    return {name: p + (p - coarse.params[name]) / (q - 1.0) for name, p in fine.params.items()}


def _percent(part: float, whole: float) -> str:
    return f"{100.0 * abs(part / whole):.2g} %" if whole else f"{part:.2g}"


# Optimisers: (obj, x0, note) -> x, success, message; note(x, value) is called for each evaluation


def _by_adjoint(
    obj: Objective, x0: np.ndarray, note: Callable[[np.ndarray, float], None]
) -> tuple[np.ndarray, bool, str]:
    """L-BFGS-B in z, x = x0 + T z, such that the Gauss-Newton step at x0 has length 1 and the Hessian there is 1."""
    from scipy.optimize import minimize

    m, jacobian = obj.misfit(x0), obj.misfit_jacobian(x0)
    eigenvalues, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    root = vectors / np.sqrt(np.maximum(eigenvalues, 1e-10 * eigenvalues[-1] or 1.0))
    length = float(np.linalg.norm(root.T @ (jacobian.T @ m)))
    if length == 0.0:
        return x0, True, "the start is a minimum"
    T = length * root
    # No trial may overflow: the bounds of z keep every |x - x0| within reach.
    bounded = [not obj.transforms[name].accepts(-1.0) for name in obj.free]
    reach = np.where(bounded, REACH, 1e3 * np.maximum(1.0, np.abs(x0)))
    most = np.min(reach[:, None] / np.maximum(np.abs(T), np.finfo(float).tiny), axis=0) / x0.size
    options = dict(ftol=1e-11, gtol=1e-7, maxiter=200)

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        x = x0 + T @ z
        value, gradient = obj.value_and_grad(x)
        note(x, value)
        return value / length**2, T.T @ gradient / length**2

    box = np.stack([-most, most], axis=1)
    found = minimize(function, np.zeros(x0.size), jac=True, method="L-BFGS-B", bounds=box, options=options)
    return x0 + T @ found.x, bool(found.success), str(found.message)


def _by_least_squares(
    obj: Objective, x0: np.ndarray, note: Callable[[np.ndarray, float], None]
) -> tuple[np.ndarray, bool, str]:
    from scipy.optimize import least_squares

    def function(x: np.ndarray) -> np.ndarray:
        m = obj.misfit(x)
        note(x, 0.5 * float(m @ m))
        return m

    found = least_squares(function, x0, jac=obj.misfit_jacobian, x_scale="jac", max_nfev=200)
    return found.x, bool(found.success), str(found.message)


OPTIMISERS = {"adjoint": _by_adjoint, "least_squares": _by_least_squares}


# Checks


def _check_frames(observation: Any, model: models.Model, frames: int) -> np.ndarray:
    if not isinstance(observation, Observation):
        raise InputError(
            f"observation is a {type(observation).__name__}; it must be an Observation, from "
            "adjoint_rd.io.read_observation."
        )
    fields, species = np.asarray(observation.fields), model.species
    if fields.ndim < 3 or fields.shape[1] != len(species):
        raise InputError(
            f"the observation has fields of shape {fields.shape} (time, species, cells); {model.name} needs frames "
            "of its "
            f"{len(species)} species {', '.join(species)}, because the run starts at the first frame."
        )
    if len(fields) < 2:
        raise InputError("the observation has one frame; a trajectory fit needs at least 2.")
    used = np.array(fields[:frames], dtype=np.float64)
    if not np.isfinite(used).all():
        raise InputError("the frames have values that are not finite; a trajectory fit needs complete frames.")
    return used


def _check_spacing(observation: Observation) -> tuple[float, ...]:
    if observation.spacing is None:
        raise InputError(
            "the observation has no spacing; give it: dataclasses.replace(observation, spacing=(h, h)), or --spacing."
        )
    return observation.spacing


def _check_boundary(observation: Observation, boundary: Any) -> tuple[Any, list[str]]:
    if boundary is not None:
        return boundary, []
    if observation.boundary is None:
        return "periodic", ["The file says nothing of the boundary; it was taken as periodic."]
    unknown = [kind for kind in observation.boundary if kind not in BOUNDARIES]
    if unknown:
        raise InputError(
            f"the file calls its boundary {unknown[0]!r}; say what it is with boundary=, one of "
            f"{', '.join(BOUNDARIES)}."
        )
    return observation.boundary, []


def _check_times(observation: Observation, count: int) -> tuple[float, list[int]]:
    """The shortest interval between frames, and the times of all frames but the first in this unit."""
    times = observation.times
    if times is None:
        raise InputError(
            "the observation has no times; give them: dataclasses.replace(observation, times=...), or --interval."
        )
    if np.shape(times) != (len(observation.fields),):
        raise InputError(f"the observation has times of shape {np.shape(times)} for {len(observation.fields)} frames.")
    times = np.asarray(times, dtype=np.float64)[:count]
    gaps = np.diff(times)
    if not np.all(gaps > 0):
        raise InputError("the times of the frames must increase.")
    counts = gaps / gaps.min()
    if not np.allclose(counts, np.rint(counts), rtol=0, atol=1e-3):
        raise InputError(
            f"the intervals between frames, {gaps.min():g} to {gaps.max():g}, must be multiples of the shortest."
        )
    marks = np.cumsum(np.rint(counts).astype(int))
    return float((times[-1] - times[0]) / marks[-1]), [int(mark) for mark in marks]


def _check_refine(refine: Any, grid: Grid) -> tuple[int, ...]:
    periodic = set(grid.boundary) == {"periodic"}
    if refine is None:
        return REFINE if periodic else (1,)
    values = tuple(sorted({check_count("refine", R, 1) for R in ([refine] if np.ndim(refine) == 0 else refine)}))
    if not values:
        raise InputError("refine is empty; give one value or several, such as (1, 2, 3).")
    if values[-1] > 1 and not periodic:
        raise InputError(
            f"refine={values[-1]} interpolates by Fourier series, which needs a periodic grid; this is {grid}. Use "
            "refine=1."
        )
    return values


def _check_noise(noise: Any, frames: np.ndarray) -> np.ndarray:
    scale = np.std(frames, axis=(0, *range(2, frames.ndim)))
    scale[scale == 0.0] = 1.0
    if noise is not None:
        try:
            scale = np.broadcast_to(np.asarray(noise, dtype=np.float64), scale.shape)
        except (TypeError, ValueError):
            raise InputError(
                f"noise={noise!r} must be one number, or one for each of the {len(scale)} species."
            ) from None
    return scale.reshape(-1, *(1,) * (frames.ndim - 2))
