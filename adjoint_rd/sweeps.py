"""Forward and reverse sweeps: a checkpoint schedule carried out on an executor, with losses along the way.

`follow` walks through a schedule. `GradientSweep` gives it the state and its adjoint, `HessianSweep` the tangents of
both as well. Steps are counted from the start of the window.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from . import checkpoint
from .errors import InputError
from .execution import DiskSlots, Executor, MemorySlots, Pair, Sums
from .losses import L2

Observed = Mapping[int, Any]  # {step: loss}
Progress = Callable[[int], None]
Slots = MemorySlots | DiskSlots


def follow(schedule: checkpoint.Schedule, observed: Observed, sweep: Any) -> None:
    """Carry out `schedule`; the reverse steps stop at each observed step to add the seed of its loss."""
    if schedule.steps == 0:
        sweep.record(0, 0)
        sweep.seed(0)
    for action in schedule.actions():
        match action:
            case checkpoint.Store(slot):
                sweep.store(slot)
            case checkpoint.Restore(slot):
                sweep.restore(slot)
            case checkpoint.Advance(first, last):
                sweep.advance(first, last)
            case checkpoint.Record(first, last):
                sweep.record(first, last)
            case checkpoint.Reverse(last, first):
                if last == schedule.steps:
                    sweep.seed(last)
                marks = [last, *sorted((step for step in observed if first < step < last), reverse=True), first]
                for later, earlier in pairwise(marks):
                    sweep.reverse(later, earlier)
                    sweep.seed(earlier)


class GradientSweep:
    """The adjoint of a run.

    Parameters
    ----------
    executor : Executor
    plan, fielded
        As `Executor.plan` takes and gives them.
    schedule : checkpoint.Schedule
    slots : MemorySlots or DiskSlots
        Where checkpoints go.
    first : ndarray
        The state at step 0.
    observed : dict
        {step: loss}.
    evaluate : callable
        ``(loss, step, state) -> (value, seed)``, with the state in the user's shape.
    check : callable
        ``(state, since, first, last)``: raises if `state` at step `last` is not finite, where `since` at `first` was.
    progress : callable or None

    Attributes
    ----------
    values : list of float
        Of the losses, from the last observed step to the first.
    adjoint : execution.Pair
    sums : Sums
    """

    def __init__(
        self,
        executor: Executor,
        plan: Any,
        fielded: tuple[int, ...],
        schedule: checkpoint.Schedule,
        slots: Slots,
        first: np.ndarray,
        observed: Observed,
        evaluate: Callable[[Any, int, np.ndarray], tuple[float, np.ndarray]],
        check: Callable[[np.ndarray, np.ndarray, int, int], None],
        progress: Progress | None,
    ):
        self.executor = executor
        self.plan = plan
        self.fielded = fielded
        self.slots = slots
        self.observed = observed
        self.evaluate = evaluate
        self.check = check
        self.progress = progress
        self.shape = executor.state_shape
        self._first = first  # until a step is taken, instead of a copy of it
        self._state: Pair | None = None
        self.states = executor.buffer("states", schedule.buffer_states)
        self.adjoint = executor.pair("adjoint", None)
        self.sums: Sums = executor.sums(fielded)
        self.values: list[float] = []
        self.recorded_from = 0

    @property
    def state(self) -> Pair:
        """The working state, with room for a step."""
        if self._state is None:
            self._state = self.executor.pair("state", self._first)
        return self._state

    def store(self, slot: int) -> None:
        """Keep the working state."""
        self.slots.store(slot, self.state.current)

    def restore(self, slot: int) -> None:
        """Take a kept state as the working state."""
        self.slots.restore(slot, self.state.current)

    def advance(self, first: int, last: int) -> None:
        """Take steps without keeping them."""
        since = self.executor.buffer("since")
        self.executor.copy(since, self.state.current)
        self.executor.advance(self.state, self.plan, self.fielded, last - first, self.progress)
        self.check(self.state.current, since, first, last)

    def record(self, first: int, last: int) -> None:
        """Fill the segment buffer."""
        self.executor.copy(self.states[0], self._first if self._state is None else self._state.current)
        self.recorded_from = first
        self.executor.record(self.states, self.plan, self.fielded, last - first, self.progress)
        self.check(self.states[last - first], self.states[0], first, last)

    def reverse(self, last: int, first: int) -> None:
        """Take the adjoint back."""
        at = self.recorded_from
        self.executor.reverse(self.states, self.adjoint, self.plan, self.sums, first - at, last - at, self.progress)

    def seed(self, step: int) -> None:
        """Add the derivative of the loss observed at `step`, if there is one."""
        if step not in self.observed:
            return
        loss, y = self.observed[step], self.states[step - self.recorded_from]
        if type(loss) is L2:  # not a subclass, which may have another value
            value = self.executor.add_square_seed(self.adjoint.current, y, *loss.as_squares(self.shape))
        else:
            value, seed = self.evaluate(loss, step, self.executor.look(y))
            self.executor.add(self.adjoint.current, seed)
        self.values.append(value)


class HessianSweep(GradientSweep):
    """The adjoint of a run and its derivative along a direction; a tangent goes beside each state.

    Takes `tangent_slots` and the direction `tangent` in the initial state as well; `values` are derivatives of the
    losses.
    """

    def __init__(self, *arguments: Any, tangent_slots: Slots, tangent: np.ndarray):
        super().__init__(*arguments)
        self.tangent_slots = tangent_slots
        self.tangent = self.executor.pair("tangent", tangent)
        self.tangents = self.executor.buffer("tangents", len(self.states))
        self.adjoint_tangent = self.executor.pair("adjoint_tangent", None)
        self.sums_tangent: Sums = self.executor.sums(self.fielded, "sums_tangent")

    def store(self, slot: int) -> None:
        """Keep the working state and tangent."""
        super().store(slot)
        self.tangent_slots.store(slot, self.tangent.current)

    def restore(self, slot: int) -> None:
        """Take kept ones as the working ones."""
        super().restore(slot)
        self.tangent_slots.restore(slot, self.tangent.current)

    def advance(self, first: int, last: int) -> None:
        """Take steps without keeping them."""
        since = self.executor.buffer("since")
        self.executor.copy(since, self.state.current)
        self.executor.advance_tangent(self.state, self.tangent, self.plan, self.fielded, last - first, self.progress)
        self.check(self.state.current, since, first, last)

    def record(self, first: int, last: int) -> None:
        """Fill both segment buffers."""
        self.executor.copy(self.states[0], self.state.current)
        self.executor.copy(self.tangents[0], self.tangent.current)
        self.recorded_from = first
        self.executor.record_tangent(self.states, self.tangents, self.plan, self.fielded, last - first, self.progress)
        self.check(self.states[last - first], self.states[0], first, last)

    def reverse(self, last: int, first: int) -> None:
        """Take the adjoint and its tangent back."""
        at = self.recorded_from
        self.executor.reverse_second(
            self.states,
            self.tangents,
            self.adjoint,
            self.adjoint_tangent,
            self.plan,
            self.sums,
            self.sums_tangent,
            first - at,
            last - at,
            self.progress,
        )

    def seed(self, step: int) -> None:
        """Add the derivatives of the seed of the loss observed at `step`, if there is one."""
        if step in self.observed:
            y = self.executor.look(self.states[step - self.recorded_from])
            t = self.executor.look(self.tangents[step - self.recorded_from])
            loss = self.observed[step]
            _, seed = self.evaluate(loss, step, y)
            self.values.append(float(np.sum(seed * t, dtype=np.float64)))
            self.executor.add(self.adjoint.current, seed)
            seed_tangent = np.asarray(loss.seed_tangent(y, t))
            if seed_tangent.shape != self.shape:
                raise InputError(f"seed_tangent returned shape {seed_tangent.shape}; it must be {self.shape}.")
            self.executor.add(self.adjoint_tangent.current, seed_tangent)
