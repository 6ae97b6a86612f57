"""Checkpoint schedules: the order in which a gradient stores, recomputes and reverses steps.

A schedule is a generator of actions and knows nothing of the physics. There is one working state (its step is what the
last `Advance` or `Restore` left), one segment buffer of consecutive states, and numbered slots that each keep one
state.

    Store(slot)             copy the working state to a slot
    Restore(slot)           copy a slot to the working state
    Advance(first, last)    the working state goes from step `first` to `last`, nothing is kept
    Record(first, last)     the states first..last land in the segment buffer, from the working state at `first`
    Reverse(last, first)    the adjoint goes back from step `last` to `first`, which the segment buffer holds

Steps are grouped into segments, which are recorded and reversed as a whole; the slots hold segment starts. With a
slot for every segment each step is taken twice at most. With fewer, segments are placed binomially (Revolve), which
takes the fewest steps possible for the number of slots.

Source: A. Griewank, A. Walther, ACM Trans. Math. Softw. 26 (2000) 19 (Algorithm 799), Eqs. (1)-(5).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, comb, sqrt
from pathlib import Path
from typing import Any

from .errors import CheckpointError, InputError, check_count


@dataclass(frozen=True)
class Store:
    """Copy the working state to a slot."""

    slot: int


@dataclass(frozen=True)
class Restore:
    """Copy a slot to the working state."""

    slot: int


@dataclass(frozen=True)
class Advance:
    """Take the working state from step `first` to `last`."""

    first: int
    last: int


@dataclass(frozen=True)
class Record:
    """Fill the segment buffer with the states first..last."""

    first: int
    last: int


@dataclass(frozen=True)
class Reverse:
    """Take the adjoint from step `last` back to `first`."""

    last: int
    first: int


Action = Store | Restore | Advance | Record | Reverse


@dataclass(frozen=True)
class Schedule:
    """A schedule for `steps` steps in segments of `segment` steps, with `slots` slots.

    Attributes
    ----------
    steps : int
    segment : int
        Steps to a segment; the last one may be shorter.
    slots : int
        States that may be kept at once, besides the segment buffer.
    """

    steps: int
    segment: int
    slots: int

    @property
    def segments(self) -> int:
        """The number of segments."""
        return ceil(self.steps / self.segment) if self.steps else 0

    @property
    def buffer_states(self) -> int:
        """States that the segment buffer holds."""
        return min(self.segment, self.steps) + 1

    @property
    def states(self) -> int:
        """States in memory at once, buffer and slots."""
        return self.buffer_states + self.slots

    @property
    def forward_steps(self) -> int:
        """Forward steps in all, recorded ones included (counting the last segment as full)."""
        return self.steps + self.segment * fewest_advances(self.segments, self.slots)

    def actions(self) -> Iterator[Action]:
        """The actions, in order."""
        if self.segments == 1:
            yield Record(0, self.steps)
            yield Reverse(self.steps, 0)
        elif self.segments > 1:
            yield Store(0)
            yield from self._reverse(0, self.segments, 0)

    def _reverse(self, first: int, last: int, slot: int) -> Iterator[Action]:
        """Reverse segments first..last - 1; the working state is at segment `first`, which `slot` keeps."""
        while last - first > 1:
            split = first + _split(last - first, self.slots - slot)
            yield Advance(first * self.segment, split * self.segment)
            if slot + 1 < self.slots and last - split > 1:
                yield Store(slot + 1)
                yield from self._reverse(split, last, slot + 1)
            else:  # a single segment, or no slot left: split is the last segment
                yield from self._one(split)
            yield Restore(slot)
            last = split
        yield from self._one(first)

    def _one(self, segment: int) -> Iterator[Action]:
        first, last = segment * self.segment, min((segment + 1) * self.segment, self.steps)
        yield Record(first, last)
        yield Reverse(last, first)


def fewest_advances(segments: int, slots: int) -> int:
    """How many segments must be advanced over, at least, to reverse `segments` with `slots` slots.

    ``r l - beta(s + 1, r - 1)`` with ``beta(s, r) = C(s + r, s)``, l segments, s slots and the smallest r with
    ``beta(s, r) >= l``.
    """
    if segments <= 1:
        return 0
    r = 0
    while comb(slots + r, slots) < segments:
        r += 1
    return r * segments - comb(slots + r, slots + 1)


def _split(segments: int, slots: int) -> int:
    """Where to put the next checkpoint when `slots` are left, counting the one that keeps the start."""
    if slots <= 1:
        return segments - 1
    r = 0
    while comb(slots + r, slots) < segments:
        r += 1
    # The optimum is an interval; one of its ends is among these.
    ends = {comb(slots + r - 1, slots), segments - comb(slots - 1 + r, slots - 1)}
    if r > 1:
        ends |= {comb(slots + r - 2, slots), segments - comb(slots + r - 2, slots - 1)}
    candidates = [m for m in ends if 1 <= m < segments]
    return min(candidates, key=lambda m: (m + fewest_advances(segments - m, slots - 1) + fewest_advances(m, slots), m))


# Up to this, keeping every state in the host's memory is faster than computing most of them twice. More than an eighth
# of the free memory would be a surprise; below the smaller number nobody looks.
STORE_ALL_BYTES = 1e9
STORE_ALL_SHARE = 1 / 8
UNNOTICED_BYTES = 128e6
AUTO_STATES = 0.9  # times sqrt(steps): a tenth less memory than where each step is taken twice, for 4 % more steps
MEMORY_SHARE = 0.8  # of what is available, for states


def choose(
    checkpoints: Any,
    steps: int,
    state_bytes: int,
    available: float | None = None,
    store_all: float = STORE_ALL_BYTES,
) -> Schedule:
    """Return the schedule that `checkpoints` asks for.

    Parameters
    ----------
    checkpoints : "auto", "all", "disk" or int
        "all" keeps every state. A number n keeps n states in slots and at most n + 1 in the segment buffer. "auto"
        keeps all if that takes at most `store_all` and an eighth of the free memory, else about sqrt(steps) states in
        slots and buffer each, or fewer, placed binomially, if memory is short. "disk" is like "auto", with the slots in
        a temporary file.
    steps : int
        Steps of the run.
    state_bytes : int
        Memory of one state.
    available : float, optional
        Bytes that may be used; by default what `available_bytes` finds, looked at only for runs that need 128 MB or
        more.
    store_all : float
        Bytes, by default 1 GB.

    Raises
    ------
    InputError
        If `checkpoints` is none of these.
    CheckpointError
        If the schedule needs more memory than there is, naming one that would fit; or more checkpoints than steps.
    """
    if isinstance(checkpoints, str):
        if checkpoints not in ("auto", "all", "disk"):
            raise InputError(f"checkpoints={checkpoints!r} must be 'auto', 'all', 'disk' or a whole number >= 1.")
        if checkpoints != "disk" and (steps + 1) * state_bytes <= UNNOTICED_BYTES:
            return Schedule(steps, max(steps, 1), 0)
    elif check_count("checkpoints", checkpoints, 1) > max(steps, 1):
        raise CheckpointError(
            f"checkpoints={checkpoints} is more than the run's {steps} steps; 'all' keeps every state."
        )
    available = available_bytes() if available is None else available
    budget = MEMORY_SHARE * available
    root = max(ceil(AUTO_STATES * sqrt(steps)), 1)
    keep_all = (steps + 1) * state_bytes <= min(store_all, STORE_ALL_SHARE * available)
    if checkpoints == "all" or (checkpoints == "auto" and keep_all):
        schedule = Schedule(steps, max(steps, 1), 0)
    elif checkpoints in ("auto", "disk"):
        schedule = _with_slots(steps, root)
        if checkpoints == "auto" and schedule.states * state_bytes > budget:
            schedule = _with_slots(steps, max(int(budget / state_bytes / 2) - 1, 1))
    else:
        schedule = _with_slots(steps, checkpoints)
    needed = (schedule.buffer_states if checkpoints == "disk" else schedule.states) * state_bytes
    if needed > budget:
        fits = max(int(budget / state_bytes / 2) - 1, 0)
        remedy = f"checkpoints={fits} would fit" if fits else "checkpoints='disk' or a smaller grid may fit"
        raise CheckpointError(
            f"checkpoints={checkpoints!r} for {steps} steps needs {needed / 1e9:.2f} GB for "
            f"{schedule.states} states, but {budget / 1e9:.2f} GB may be used; {remedy}."
        )
    return schedule


def _with_slots(steps: int, slots: int) -> Schedule:
    segment = max(min(ceil(steps / (slots + 1)), slots), 1)
    schedule = Schedule(steps, segment, slots)
    return Schedule(steps, segment, min(slots, max(schedule.segments - 1, 0)))


def check_room(needed: float, what: str, remedy: str = "", available: float | None = None) -> None:
    """Raise a `CheckpointError` if `needed` bytes are more than may be used; small needs are not looked at."""
    if needed <= UNNOTICED_BYTES:
        return
    budget = MEMORY_SHARE * (available_bytes() if available is None else available)
    if needed > budget:
        raise CheckpointError(
            f"{what} needs {needed / 1e9:.2f} GB, but {budget / 1e9:.2f} GB may be used.{' ' * bool(remedy)}{remedy}"
        )


def available_bytes() -> float:
    """Memory that this process may still take: the least of what the machine, the container and the limits leave."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024.0 * float(line.split()[1]))
    except OSError:
        pass
    for folder, limit, used in _cgroups():
        try:
            found.append(float((folder / limit).read_text()) - float((folder / used).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    try:
        import resource

        for kind, column in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                pages = int(Path("/proc/self/statm").read_text().split()[column])
                found.append(limit - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError):
        pass
    return max(min(found), 0.0) if found else float("inf")


def _cgroups() -> Iterator[tuple[Path, str, str]]:
    """(folder, file of the limit, file of the use) of the control groups that this process is in, and those above."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            yield folder, *names
            if folder == base:
                break
