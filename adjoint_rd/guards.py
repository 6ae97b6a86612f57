"""Run-time alarms: numbers with reasons that say that a run or a gradient is going wrong, before the numbers break.

Of a run (`watch` looks at them while it runs; each is usable alone):

    Multiplier    lowest eigenvalue of the step's Jacobian ``J = dy(n+1)/dy(n)``, by power iteration on 1 - J with
                  tangents. Below -1 a perturbation flips its sign in every step and grows: the time step is too long
                  for this state, however quiet it looks. It needs no growth to have happened yet, and alarms first.
    Range         leaving the box of states of the model, such as u < 0: late, but it misses nothing.
    Flip          ``|y(n+1) - 2 y(n) + y(n-1)| / 4``, the amplitude of what alternates from step to step, growing.
    Checkerboard  amplitude of the highest spatial mode, growing.
    PatternLost   a uniform state: nothing in it tells of the diffusivities, and of most parameters little.

And before any step: `Limit`, the a-priori limits on dt.

Each has a limit to be set: tight ones give early notice, and alarm for runs that recover; validation/guards_lead.py
measures both.

Of a gradient: `gradient_flow`, the norm of the adjoint against steps back, where it explodes, and the window that this
suggests. For optimisers: `constraint`, the a-priori limit on dt (see `adjoint_rd.stability`) as a constraint on x.

Between steps a guard sees the last three states; only `Multiplier` costs more than a few passes over the state.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from . import losses
from .errors import DivergenceError, InputError, check_choice, check_count
from .simulation import Simulation

__all__ = [
    "Alarm",
    "Checkerboard",
    "Flip",
    "GradientFlow",
    "Limit",
    "Multiplier",
    "PatternLost",
    "Range",
    "Watched",
    "checkerboard",
    "constraint",
    "default_guards",
    "first_alarm",
    "flip",
    "gradient_flow",
    "lowest_multiplier",
    "outside",
    "spectral_radius",
    "watch",
]


@dataclass(frozen=True)
class Alarm:
    """What a guard found: its name, the step, the number, the limit that it broke, and what that means."""

    guard: str
    step: int
    number: float
    limit: float
    reason: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.guard}: {self.number:.4g} against {self.limit:.4g}: {self.reason}"


# Numbers of a state


def outside(y: np.ndarray, box: Sequence[tuple[float, float]]) -> float:
    """How far the state (S, *shape) leaves the box ((low, high) per species); negative inside, inf if not finite."""
    excess = -math.inf
    for each, (low, high) in zip(y, box, strict=True):
        smallest, largest = float(each.min()), float(each.max())
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            return math.inf
        excess = max(excess, low - smallest, largest - high)
    return excess


def checkerboard(y: np.ndarray) -> float:
    """The largest value after the filter (-1/4, 1/2, -1/4) along each axis: it keeps the highest mode as it is.

    On smooth patterns it falls with the fourth power of the wave number (in 2-D).
    """
    z = np.asarray(y, dtype=np.float64)
    for axis in range(1, z.ndim):
        z = 0.5 * z - 0.25 * (np.roll(z, 1, axis) + np.roll(z, -1, axis))
    return float(np.max(np.abs(z)))


def flip(before: np.ndarray, y: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Amplitude of what changes sign in every step, and its share: 1 if nothing else changes, 0 for smooth motion."""
    with np.errstate(all="ignore"):
        amplitude = float(np.max(np.abs(after - 2.0 * y + before))) / 4.0
        change = float(np.max(np.abs(after - y))) / 2.0
    return amplitude, amplitude / max(change, np.finfo(float).tiny)


def spectral_radius(
    sim: Simulation, y: Any, params: Mapping[str, Any], *, iterations: int = 50, start: Any = None
) -> tuple[float, np.ndarray]:
    """Estimate the spectral radius of the step's Jacobian at y by power iteration; it approaches from below.

    Parameters
    ----------
    sim : Simulation
    y : array_like (S, *shape)
    params : dict
    iterations : int
        One tangent step each.
    start : ndarray (S, *shape), optional
        A first guess of the mode, such as the mode that an earlier call returned.

    Returns
    -------
    (float, ndarray)
        The estimate, and the mode of unit norm. Above 1 some perturbation grows: by the physics if the eigenvalue is
        positive (patterns do grow), by too long a time step if it is negative; `lowest_multiplier` tells which.
    """
    t = _start(sim, start)
    radius = 0.0
    for _ in range(check_count("iterations", iterations, 1)):
        t = sim.tangent(y, params, steps=1, initial=t).tangent
        radius = float(np.sqrt(np.sum(np.square(t, dtype=np.float64))))
        if not (math.isfinite(radius) and radius > 0.0):
            break
        t = t / radius
    return radius, t


def lowest_multiplier(
    sim: Simulation, y: Any, params: Mapping[str, Any], *, iterations: int = 50, start: Any = None
) -> tuple[float, np.ndarray]:
    """Estimate the lowest eigenvalue of the step's Jacobian at y from above, by power iteration on 1 - J.

    Parameters
    ----------
    sim, y, params, iterations, start
        As in `spectral_radius`.

    Returns
    -------
    (float, ndarray)
        The estimate (the Rayleigh quotient), and the mode of unit norm. Below -1: unstable, by too long a time step.
    """
    t = _start(sim, start)
    lowest = math.nan
    for _ in range(check_count("iterations", iterations, 1)):
        moved = sim.tangent(y, params, steps=1, initial=t).tangent
        lowest = float(np.sum(np.multiply(t, moved, dtype=np.float64)))
        t = t - moved
        norm = float(np.sqrt(np.sum(np.square(t, dtype=np.float64))))
        if not (math.isfinite(norm) and norm > 0.0):
            break
        t = t / norm
    return lowest, t


def _start(sim: Simulation, start: Any) -> np.ndarray:
    t = (
        np.random.default_rng(0).standard_normal(sim.state_shape)
        if start is None
        else np.array(start, dtype=np.float64)
    )
    if t.shape != sim.state_shape:
        raise InputError(f"start has shape {t.shape}; it must be {sim.state_shape}.")
    return t / np.sqrt(np.sum(t * t))


# Guards of a run: look(sim, params, step, recent) -> Alarm or None, recent the last states, oldest first


@dataclass
class Limit:
    """Alarms, at step 0, when dt is above `margin` times an a-priori limit, see `adjoint_rd.stability`.

    Parameters
    ----------
    limit : {"certain", "safe"}
        Above "certain" every run blows up. "safe" refuses many runs that would not: median 0.78 of the true limit.
    margin : float
    """

    limit: str = "certain"
    margin: float = 1.0
    name: str = "limit"
    needs_no_run = True

    def __post_init__(self):
        check_choice("limit", self.limit, ("certain", "safe"))

    def reset(self) -> None:
        """Forget earlier runs."""

    def look(self, sim: Simulation, params: Mapping[str, Any], step: int, recent: Sequence[np.ndarray]) -> Alarm | None:
        """See the module."""
        if step > 0:
            return None
        found = sim.limits(params)
        most = self.margin * getattr(found, self.limit)
        if not sim.dt > most:
            return None
        why = getattr(found, f"{self.limit}_reason")
        return Alarm(self.name, step, sim.dt, most, f"dt is above the '{self.limit}' limit: {why}")


@dataclass
class Range:
    """Alarms when the state leaves its box, below by more than `margin` or above by more than `above`.

    The box is ((0, 1), (0, 1)) for Gray-Scott, else that which the model declares; or give ((low, high), ...), one for
    each species. By as much as the first state is outside, such as by noise, later ones may be too.
    """

    margin: float = 0.05
    above: float = 0.1
    box: Any = None
    name: str = "range"
    _allowed: float = field(default=0.0, repr=False)

    def reset(self) -> None:
        """Forget earlier runs."""
        self._allowed = 0.0

    def _box(self, sim: Simulation, params: Mapping[str, Any]) -> Any:
        if self.box is not None:
            return self.box
        if sim.model.name == "gray_scott":
            return ((0.0, 1.0), (0.0, 1.0))  # the model's own ceiling of v is measured on live patterns, not a bound
        if sim.model.box is None:
            raise InputError(f"{sim.model.name} declares no box of states; give Range(box=((low, high), ...)).")
        return sim.model.box({name: float(np.mean(value)) for name, value in params.items()})

    def look(self, sim: Simulation, params: Mapping[str, Any], step: int, recent: Sequence[np.ndarray]) -> Alarm | None:
        """See the module."""
        box = self._box(sim, params)
        # Shifting the upper ends makes one margin of two.
        number = outside(recent[-1], [(low, high + self.above - self.margin) for low, high in box])
        if step == 0:
            self._allowed = max(0.0, number)
        limit = self.margin + self._allowed
        if number <= limit:
            return None
        return Alarm(self.name, step, number, limit, f"the state leaves its box {tuple(box)}; use a smaller dt")


@dataclass
class Flip:
    """Alarms when the alternating part is above `least`, above `share` of all change, and has grown `looks` times."""

    least: float = 1e-4
    share: float = 0.65
    looks: int = 3
    name: str = "flip"
    _last: float = field(default=math.inf, repr=False)
    _grown: int = field(default=0, repr=False)

    def reset(self) -> None:
        """Forget earlier runs."""
        self._last, self._grown = math.inf, 0

    def look(self, sim: Simulation, params: Mapping[str, Any], step: int, recent: Sequence[np.ndarray]) -> Alarm | None:
        """See the module."""
        if len(recent) < 3:
            return None
        amplitude, share = flip(*recent[-3:])
        grows = share > self.share and amplitude > self._last and amplitude > self.least
        self._grown = self._grown + 1 if grows or not math.isfinite(amplitude) else 0
        self._last = amplitude
        if self._grown < self.looks:
            return None
        return Alarm(
            self.name, step, amplitude, self.least, "alternates from step to step, and more each time; use a smaller dt"
        )


@dataclass
class Checkerboard:
    """Alarms when the amplitude of the highest spatial mode is above `least` and `growth` times its smallest so far."""

    least: float = 0.05
    growth: float = 3.0
    name: str = "checkerboard"
    _smallest: float = field(default=math.inf, repr=False)

    def reset(self) -> None:
        """Forget earlier runs."""
        self._smallest = math.inf

    def look(self, sim: Simulation, params: Mapping[str, Any], step: int, recent: Sequence[np.ndarray]) -> Alarm | None:
        """See the module."""
        number = checkerboard(recent[-1])
        self._smallest = min(self._smallest, number)
        limit = max(self.least, self.growth * self._smallest)
        if number <= limit:
            return None
        return Alarm(self.name, step, number, limit, "the highest spatial mode grows; use a smaller dt or a finer grid")


@dataclass
class Multiplier:
    """Alarms when `lowest_multiplier` is below ``-1 - margin``.

    Parameters
    ----------
    margin : float
        0 gives the earliest notice. Patterns pass through states with multipliers down to -1.24 and recover, at dt up
        to 0.9 of where they blow up; the default is beyond that.
    first, later : int
        Iterations at the first look and at later ones, which start from the last mode.
    every : int
        Looks at every `every`-th opportunity only.
    """

    margin: float = 0.25
    first: int = 40
    later: int = 4
    every: int = 4
    name: str = "multiplier"
    _mode: Any = field(default=None, repr=False)
    _count: int = field(default=0, repr=False)

    def reset(self) -> None:
        """Forget earlier runs."""
        self._mode, self._count = None, 0

    def look(self, sim: Simulation, params: Mapping[str, Any], step: int, recent: Sequence[np.ndarray]) -> Alarm | None:
        """See the module."""
        self._count += 1
        if (self._count - 1) % self.every:
            return None
        iterations = self.first if self._mode is None else self.later
        try:
            number, mode = lowest_multiplier(sim, recent[-1], params, iterations=iterations, start=self._mode)
        except DivergenceError:
            number, mode = -math.inf, None
        self._mode = mode if mode is not None and np.isfinite(mode).all() else None
        if not number < -1.0 - self.margin:
            return None
        return Alarm(
            self.name,
            step,
            number,
            -1.0 - self.margin,
            f"a perturbation of this state grows by this factor in every step and changes sign; dt={sim.dt:g} is too "
            f"long, use at most {sim.dt * 2.0 / (1.0 - number):.4g}",
        )


@dataclass
class PatternLost:
    """Alarms when the largest standard deviation over the grid, of any species, is below `least` (not at step 0)."""

    least: float = 1e-3
    name: str = "pattern lost"

    def reset(self) -> None:
        """Forget earlier runs."""

    def look(self, sim: Simulation, params: Mapping[str, Any], step: int, recent: Sequence[np.ndarray]) -> Alarm | None:
        """See the module."""
        number = max(float(np.std(each, dtype=np.float64)) for each in recent[-1])
        if step == 0 or not number < self.least:
            return None
        return Alarm(
            self.name, step, number, self.least, "the state is uniform; gradients carry next to no information here"
        )


def default_guards() -> list[Any]:
    """Fresh guards: Multiplier, Range, PatternLost; the others alarm for nothing too often to be on by default."""
    return [Multiplier(), Range(), PatternLost()]


def first_alarm(
    runs: Iterable[tuple[Simulation, Any, Mapping[str, Any], int]], guards: Sequence[Any], *, every: int = 10
) -> Alarm | None:
    """The first alarm of guards over several runs, one after the other; a run that diverges counts as one.

    Parameters
    ----------
    runs : iterable of (sim, y0, params, steps)
        Limits on dt are for `guards` to judge: a simulation that refuses them is run without.
    guards : sequence of guards
        With `Limit` alone nothing is run.
    every : int
        Steps between looks.

    Returns
    -------
    Alarm or None
    """
    before = [guard for guard in guards if getattr(guard, "needs_no_run", False)]
    during = [guard for guard in guards if guard not in before]
    for sim, y0, params, steps in runs:
        for guard in before:
            alarm = guard.look(sim, params, 0, [y0])
            if alarm is not None:
                return alarm
        if not during:
            continue
        found = watch(_without_limits(sim), y0, params, steps=steps, guards=during, every=every)
        if found.alarms:
            return found.alarms[0]
        if found.diverged is not None:
            largest = float(np.max(np.abs(found.final)))
            return Alarm("divergence", found.diverged, largest, math.inf, "the state is no longer finite")
    return None


def _without_limits(sim: Simulation) -> Simulation:
    """The same simulation, buffers included, without its own check of dt."""
    quiet = copy.copy(sim)
    quiet.stability = "off"
    return quiet


@dataclass(frozen=True)
class Watched:
    """A run under guard.

    Attributes
    ----------
    final : ndarray (S, *shape)
        The last finite state that was reached.
    steps_taken : int
    alarms : list of Alarm
        The first of each guard, in the order of their steps.
    diverged : int or None
        The step after which the state was not finite.
    """

    final: np.ndarray
    steps_taken: int
    alarms: list[Alarm]
    diverged: int | None

    @property
    def healthy(self) -> bool:
        """Whether nothing alarmed and the state stayed finite."""
        return not self.alarms and self.diverged is None


def watch(
    sim: Simulation,
    y0: Any,
    params: Mapping[str, Any],
    *,
    steps: int,
    guards: Sequence[Any] | None = None,
    every: int = 5,
    stop: bool = True,
    progress: Any = None,
) -> Watched:
    """Run under guards.

    Parameters
    ----------
    sim, y0, params, steps, progress
        As in `Simulation.run`. Limits on dt are checked as there: use ``stability="off"`` to watch runs beyond them.
    guards : sequence of guards, optional
        By default `default_guards()`.
    every : int
        Steps between looks; step 0 is looked at too.
    stop : bool
        Stop at the first alarm. Otherwise go on, and collect the first alarm of each guard.

    Returns
    -------
    Watched
    """
    y = sim.check_state(y0)
    steps, every = check_count("steps", steps), check_count("every", every, 1)
    guards = default_guards() if guards is None else list(guards)
    for guard in guards:
        guard.reset()
    recent, taken, alarms, silent = [y], 0, [], list(guards)
    while True:
        for guard in list(silent):
            with np.errstate(all="ignore"):  # states close to overflow are what this is for
                alarm = guard.look(sim, params, taken, recent)
            if alarm is not None:
                alarms.append(alarm)
                silent.remove(guard)
        if (alarms and stop) or taken >= steps:
            return Watched(recent[-1], taken, alarms, None)
        stretch = min(every, steps - taken)
        parts = (stretch - 2, 1, 1) if stretch > 2 else (1,) * stretch
        for part in parts:
            try:
                recent = [*recent[-2:], sim.run(recent[-1], params, steps=part).final]
            except DivergenceError as error:
                bad = taken + (error.step or 1)
                return Watched(recent[-1] if error.state is None else error.state, bad - 1, alarms, bad)
            taken += part
        if progress is not None:
            progress(stretch)


# Gradients


@dataclass(frozen=True)
class GradientFlow:
    """How the adjoint goes back through a run.

    Attributes
    ----------
    back : ndarray of int (n,)
        Steps back from the end, ascending from 0.
    norm : ndarray (n,)
        |dL/dy| at that step, the Euclidean norm.
    params : dict
        {name: ndarray (n,)}: the gradient (summed over a field) that a window of `back` steps gives.
    explodes_at : int or None
        Steps back from which on the norm is above `explode` times its largest value within the first tenth.
    vanishes_at : int or None
        Steps back from which on the norm is below `vanish` times its largest value.
    growth : float
        Factor per step back, from the end to the farthest step (geometric mean).
    window : int
        The shortest window, before any explosion, whose gradient is within a tenth of that of all longer ones.
    reason : str
        Why this window.
    """

    back: np.ndarray
    norm: np.ndarray
    params: dict[str, np.ndarray]
    explodes_at: int | None
    vanishes_at: int | None
    growth: float
    window: int
    reason: str

    def __str__(self) -> str:
        lines = [f"{'steps back':>10}  {'|dL/dy|':>10}  " + "  ".join(f"{'dL/d' + name:>11}" for name in self.params)]
        shown = np.unique(np.linspace(0, len(self.back) - 1, 12).astype(int))
        for n in shown:
            gradient = "  ".join(f"{self.params[name][n]:11.3e}" for name in self.params)
            lines.append(f"{self.back[n]:10d}  {self.norm[n]:10.3e}  {gradient}")
        state = []
        if self.explodes_at is not None:
            state.append(f"explodes {self.explodes_at} steps back")
        if self.vanishes_at is not None:
            state.append(f"vanishes {self.vanishes_at} steps back")
        lines.append(f"factor per step back {self.growth:.6f}; {', '.join(state) or 'neither explodes nor vanishes'}")
        lines.append(f"window {self.window}: {self.reason}")
        return "\n".join(lines)


def gradient_flow(
    sim: Simulation,
    y0: Any,
    params: Mapping[str, Any],
    loss: Any,
    *,
    steps: int,
    window: int | None = None,
    points: int = 50,
    explode: float = 1e3,
    vanish: float = 1e-3,
    closeness: float = 0.1,
) -> GradientFlow:
    """Follow the adjoint back through a run, and see how far back a gradient is worth something.

    Parameters
    ----------
    sim, y0, params, loss, steps, window
        As in `Simulation.gradient`.
    points : int
        At how many steps, about, the norm is taken.
    explode, vanish : float
        Factors that count as explosion and as vanishing.
    closeness : float
        How near, relative to the norm, the suggested window's gradient is to those of longer windows. Gradients are
        compared for ``log p``, so that parameters of different size count alike.

    Returns
    -------
    GradientFlow
    """
    y0 = sim.check_state(y0)
    params = sim.check_params(params)
    steps = check_count("steps", steps, 1)
    observed = losses.by_step(loss, steps)
    length = steps - sim._window_start(steps, window)
    stride = max(1, length // check_count("points", points, 2))
    marks = sorted({steps - min(n, length) for n in range(0, length + stride, stride)})  # ascending
    states = [sim.run(y0, params, steps=marks[0]).final]
    for earlier, later in pairwise(marks):
        states.append(sim.run(states[-1], params, steps=later - earlier).final)
    a = np.zeros(sim.state_shape)
    if steps in observed:
        a = a + observed[steps].seed(states[-1])
    back, norm, total = [0], [_norm(a)], {name: [0.0] for name in sim.model.names}
    # From mark to mark, a = J^T a + the seeds in between; each stretch is a gradient of the linear loss a . y.
    for n in range(len(marks) - 2, -1, -1):
        begin, end = marks[n], marks[n + 1]
        inside = {step - begin: each for step, each in observed.items() if begin <= step < end}
        stretch = losses.Trajectory({**inside, end - begin: losses.Linear(a)})
        found = sim.gradient(states[n], params, stretch, steps=end - begin)
        a = np.asarray(found.initial, dtype=np.float64)
        back.append(steps - begin)
        norm.append(_norm(a))
        for name, part in found.params.items():
            total[name].append(total[name][-1] + float(np.sum(part)))
    return _judge(
        np.array(back), np.array(norm), {k: np.array(v) for k, v in total.items()}, params, explode, vanish, closeness
    )


def _judge(
    back: np.ndarray,
    norm: np.ndarray,
    total: dict[str, np.ndarray],
    params: Mapping[str, Any],
    explode: float,
    vanish: float,
    closeness: float,
) -> GradientFlow:
    near = max(2, 1 + len(norm) // 10)
    finite = np.where(np.isfinite(norm), norm, np.inf)
    exploded = np.flatnonzero(finite > explode * np.max(finite[:near]))
    small = finite < vanish * np.max(finite)
    vanished = len(small) - int(np.argmin(small[::-1])) if small.any() and not small.all() else len(small)
    explodes_at = int(back[exploded[0]]) if exploded.size else None
    vanishes_at = int(back[vanished]) if vanished < len(back) else None
    growth = float((norm[-1] / norm[0]) ** (1.0 / back[-1])) if norm[0] > 0.0 and norm[-1] > 0.0 else math.nan
    usable = (exploded[0] if exploded.size else len(back) - 1) if back.size > 1 else 1
    usable = max(1, int(usable))
    scaled = np.stack(
        [series[: usable + 1] * abs(float(np.mean(params[name]))) for name, series in total.items()], axis=1
    )
    distance = np.linalg.norm(scaled - scaled[-1], axis=1)
    far = np.flatnonzero(distance > closeness * np.linalg.norm(scaled[-1]))
    chosen = min(usable, max(1, int(far[-1]) + 1 if far.size else 1))
    if chosen == usable and exploded.size:
        reason = "longer windows are in the range where the adjoint explodes"
    elif chosen == usable:
        reason = "the gradient still changes with the window's length; a longer run might want a longer window"
    else:
        reason = f"longer windows change the gradient by less than {closeness:.0%}"
    return GradientFlow(back, norm, total, explodes_at, vanishes_at, growth, int(back[chosen]), reason)


def _norm(a: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(a, dtype=np.float64))))


# For optimisers


def constraint(obj: Any, *, limit: str = "safe", margin: float = 1.0) -> Any:
    """The a-priori limit on dt as a constraint on x, for `scipy.optimize.minimize` (SLSQP, COBYLA, trust-constr).

    It is ``log(limit(p(x)) / (margin dt)) >= 0``: no penalty is added to the objective.

    Parameters
    ----------
    obj : Objective
    limit : {"safe", "certain"}
        See `adjoint_rd.stability`.
    margin : float
        The least allowed limit over dt.

    Returns
    -------
    scipy.optimize.NonlinearConstraint
    """
    from scipy.optimize import NonlinearConstraint

    check_choice("limit", limit, ("safe", "certain"))

    def function(x: np.ndarray) -> float:
        values = obj.unpack(x)
        values.pop("initial", None)
        return math.log(getattr(obj.sim.limits(values), limit) / (margin * obj.sim.dt))

    return NonlinearConstraint(function, 0.0, np.inf, jac="2-point")
