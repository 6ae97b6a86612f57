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

Of a gradient: `gradient_flow`, see `adjoint_rd.gradient_flow`, and its alarm `exploding_adjoint`. For optimisers:
`constraint`, the a-priori limit on dt (see `adjoint_rd.stability`) as a constraint on x.

Between steps a guard sees the last three states; only `Multiplier` costs more than a few passes over the state.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import DivergenceError, InputError, check_choice, check_count, check_number
from .gradient_flow import GradientFlow, gradient_flow, norm_at_end
from .indicators import checkerboard, flip, lowest_multiplier, outside, spectral_radius
from .simulation import Simulation
from .stability import constraint

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
    "exploding_adjoint",
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
        check_number("margin", self.margin, above=0.0)

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

    def __post_init__(self):
        check_number("margin", self.margin, least=0.0)
        check_number("above", self.above, least=0.0)
        if self.box is not None:
            self.box = _check_box(self.box)

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

    def __post_init__(self):
        check_number("least", self.least, least=0.0)
        check_number("share", self.share, least=0.0)
        check_count("looks", self.looks, 1)

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

    def __post_init__(self):
        check_number("least", self.least, least=0.0)
        check_number("growth", self.growth, least=1.0)

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

    def __post_init__(self):
        check_number("margin", self.margin, least=0.0)
        for argument in ("first", "later", "every"):
            check_count(argument, getattr(self, argument), 1)

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

    def __post_init__(self):
        check_number("least", self.least, above=0.0)

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


def check_guards(guards: Any) -> list[Any]:
    """Return guards as a list, or raise an `InputError` that says what is none."""
    if not isinstance(guards, (list, tuple)):
        raise InputError(f"guards={guards!r} must be a list of guards, such as [guards.Limit(), guards.Range()].")
    for guard in guards:
        if isinstance(guard, type):
            raise InputError(f"guards has {guard!r}, which is a class; make one of it, such as guards.Range().")
        if not all(callable(getattr(guard, name, None)) for name in ("look", "reset")):
            raise InputError(f"guards has {guard!r}, which has no look() and reset(); see adjoint_rd.guards.")
    return list(guards)


def _check_box(box: Any) -> tuple[tuple[float, float], ...]:
    try:
        pairs = tuple((check_number("box", low), check_number("box", high)) for low, high in box)
    except (TypeError, ValueError):
        pairs = ()
    if not pairs or not all(low < high for low, high in pairs):
        raise InputError(f"box={box!r} must be ((low, high), ...) with low < high, one pair for each species.")
    return pairs


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
    guards = check_guards(guards)
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
    guards = default_guards() if guards is None else check_guards(guards)
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


# Of a gradient


def exploding_adjoint(
    sim: Simulation,
    y0: Any,
    params: Mapping[str, Any],
    loss: Any,
    *,
    steps: int,
    window: int | None = None,
    explode: float = 1e3,
    points: int = 50,
) -> Alarm | None:
    """The alarm of `gradient_flow`: the step, going back, at which the adjoint norm exceeds `explode` times its start.

    It costs about a gradient and a run. In `minimize` it refuses trials as ``abnormal=lambda x, value, gradient:
    (alarm := exploding_adjoint(sim, y0, obj.unpack(x), loss, steps=steps)) and str(alarm)``.

    Parameters
    ----------
    sim, y0, params, loss, steps, window, explode, points
        As in `gradient_flow`.

    Returns
    -------
    Alarm or None
    """
    flow = gradient_flow(sim, y0, params, loss, steps=steps, window=window, explode=explode, points=points)
    if flow.explodes_at is None:
        return None
    number = float(flow.norm[list(flow.back).index(flow.explodes_at)] / norm_at_end(flow.norm))
    return Alarm(
        "adjoint",
        steps - flow.explodes_at,
        number,
        explode,
        f"the adjoint grows {flow.growth:.4g}-fold per step back; use a window of at most {flow.window} steps",
    )
