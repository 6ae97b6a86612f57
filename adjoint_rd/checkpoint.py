"""Checkpoint schedules: the order in which a gradient stores, recomputes and reverses steps.

A schedule is a generator of actions and knows nothing of the physics. There is one working state (its step is what the
last `Advance` or `Restore` left), one segment buffer of consecutive states, and numbered slots that each keep one state.

    Store(slot)             copy the working state to a slot
    Restore(slot)           copy a slot to the working state
    Advance(first, last)    the working state goes from step `first` to `last`, nothing is kept
    Record(first, last)     likewise, but every state first..last lands in the segment buffer
    Reverse(last, first)    the adjoint goes back from step `last` to `first`, which the segment buffer holds
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any

from .errors import CheckpointError, InputError, check_count


@dataclass(frozen=True)
class Store:
    slot: int


@dataclass(frozen=True)
class Restore:
    slot: int


@dataclass(frozen=True)
class Advance:
    first: int
    last: int


@dataclass(frozen=True)
class Record:
    first: int
    last: int


@dataclass(frozen=True)
class Reverse:
    last: int
    first: int


Action = Store | Restore | Advance | Record | Reverse


@dataclass(frozen=True)
class Schedule:
    """A two-level schedule: every `segment`-th state is stored, and segments are recorded again one by one.

    Each step is taken once going forward and once more inside its segment, except the last segment's.

    Attributes
    ----------
    steps : int
        Steps of the run.
    segment : int
        Steps to a segment.
    """

    steps: int
    segment: int

    @property
    def slots(self) -> int:
        """States kept in slots: the start of each segment but the last, which need not be restored."""
        return max(ceil(self.steps / self.segment) - 1, 0)

    @property
    def buffer_states(self) -> int:
        """States that the segment buffer holds."""
        return min(self.segment, self.steps) + 1

    def actions(self) -> Iterator[Action]:
        """The actions, in order."""
        starts = list(range(0, self.steps, self.segment))
        for slot, first in enumerate(starts[:-1]):
            yield Store(slot)
            yield Advance(first, first + self.segment)
        for slot in range(len(starts) - 1, -1, -1):
            first, last = starts[slot], min(starts[slot] + self.segment, self.steps)
            if slot < len(starts) - 1:
                yield Restore(slot)
            yield Record(first, last)
            yield Reverse(last, first)


STORE_ALL_BYTES = 128e6  # up to this, keeping every state is faster than computing them twice


def choose(checkpoints: Any, steps: int, state_bytes: int) -> Schedule:
    """Return the schedule that `checkpoints` asks for.

    Parameters
    ----------
    checkpoints : "auto", "all" or int
        "all" keeps every state; a number n keeps n states besides the segment that is being reversed; "auto" keeps all
        if that takes at most 128 MB, else about sqrt(steps) states twice over.
    steps : int
        Steps of the run.
    state_bytes : int
        Memory of one state.

    Raises
    ------
    InputError
        If `checkpoints` is none of these.
    CheckpointError
        If there are more checkpoints than steps.
    """
    if steps == 0:
        return Schedule(0, 1)
    if isinstance(checkpoints, str):
        if checkpoints == "all" or (checkpoints == "auto" and (steps + 1) * state_bytes <= STORE_ALL_BYTES):
            return Schedule(steps, steps)
        if checkpoints == "auto":
            return Schedule(steps, isqrt(steps - 1) + 1)
        raise InputError(f"checkpoints={checkpoints!r} must be 'auto', 'all' or a whole number >= 1.")
    count = check_count("checkpoints", checkpoints, 1)
    if count > steps:
        raise CheckpointError(f"checkpoints={count} is more than the run's {steps} steps; use 'all' to keep every state.")
    return Schedule(steps, ceil(steps / (count + 1)))
