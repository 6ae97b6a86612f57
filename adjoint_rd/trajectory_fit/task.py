"""The checked input of a trajectory fit: its start, its time step, the fit on one grid, the result."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from .. import losses, models
from ..errors import InputError, StabilityWarning, did_you_mean
from ..grid import Grid
from ..objective import Objective
from ..simulation import Simulation
from .optimisers import OPTIMISERS
from .refinement import Subsampled, finer, interpolate, weights
from .result import Progress, RefinementFit, TrajectoryFit

MARGIN = 1.5  # the time step is safe for parameters so many times the start's: the optimiser may visit them
SMOOTHING = 1.5  # cells, of the residual whose least squares give the start
GAUSS_NEWTON_STEPS = 10
MOST_STEPS = 10**7
MOST_LEFT = 0.5  # a fit that leaves more of the frames unexplained has failed


@dataclass(frozen=True)
class Task:
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
        """Explicit Euler on the grid R times finer, with so many steps in an interval."""
        grid = finer(self.grid, R)
        return Simulation(self.model, grid, dt=self.interval / substeps, stability=stability, threads=self.threads)

    def objective(self, R: int, substeps: int) -> Objective:
        """The misfit of the later frames in every R-th cell."""
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
    a, b = weights((coarse.refine, fine.refine))
    return {name: float(a * coarse.params[name] + b * p) for name, p in fine.params.items()}


def _percent(part: float, whole: float) -> str:
    return f"{100.0 * abs(part / whole):.2g} %" if whole else f"{part:.2g}"
