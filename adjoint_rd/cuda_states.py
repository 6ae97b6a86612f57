"""What lies in a card's memory: states, checkpoints of them, and the targets of losses."""

from typing import Any

import numpy as np

from . import cuda_device
from .execution import DiskSlots

TARGET_BYTES = 2**30  # of targets that are kept


class DeviceState:
    """A flat state on the card, (B, S, rows, columns), with the views of it that kernels want."""

    def __init__(self, array: Any):
        self.array = array
        self.dtype = array.dtype
        self.flat = array.reshape(array.size)
        self.by_member = array.reshape(array.shape[0], array.size // array.shape[0])


class Stack:
    """Flat states one after the other in one device array."""

    def __init__(self, array: Any):
        self.array = array
        self.states: list[DeviceState | None] = [None] * len(array)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, n: int) -> DeviceState:
        state = self.states[n]
        if state is None:
            state = self.states[n] = DeviceState(self.array[n])
        return state


class DeviceSlots:
    """Checkpoints on the card."""

    def __init__(self, executor: Any, states: Stack | None):
        self.executor = executor
        self.states = states

    def store(self, slot: int, state: DeviceState) -> None:
        """Keep a state."""
        assert self.states is not None
        self.executor.copy(self.states[slot], state)

    def restore(self, slot: int, state: DeviceState) -> None:
        """Copy a kept state into `state`."""
        assert self.states is not None
        self.executor.copy(state, self.states[slot])


class HostDiskSlots(DiskSlots):
    """Checkpoints of states on the card, in a file."""

    def __init__(self, executor: Any):
        super().__init__()
        self.executor = executor

    def store(self, slot: int, state: Any) -> None:
        """Keep a state."""
        super().store(slot, self.executor.look(state))

    def restore(self, slot: int, state: Any) -> None:
        """Copy a kept state into `state`."""
        host = np.empty(self.executor.flat_shape, self.executor.dtype)
        super().restore(slot, host)
        self.executor.copy(state, host)


class Targets:
    """What `losses.L2` compares with, on the card: kept for the next evaluation, the oldest given up if they are many.

    They are known by their place in the host's memory, which serves nothing else as long as they are kept here.
    """

    def __init__(self) -> None:
        self.known: dict[Any, tuple[Any, tuple[Any, ...], int]] = {}

    def of(self, losses: list[tuple[np.ndarray, Any, np.ndarray]]) -> tuple[Any, ...]:
        """(target, weight, weights, species) for the kernel `square_seed`, from what `losses.L2.as_squares` gives."""
        key = tuple((_place(target), _place(weight), species.tobytes()) for target, weight, species in losses)
        if key not in self.known:
            target, species = np.stack([each[0] for each in losses]), losses[0][2].astype(np.int64)
            uniform = np.ndim(losses[0][1]) == 0
            weight = np.array([each[1] for each in losses], np.float64) if uniform else np.zeros(len(losses))
            weights = np.zeros((0, 0, 0, 0)) if uniform else np.stack([each[1] for each in losses]).astype(np.float64)
            nbytes = target.nbytes + weights.nbytes
            while self.known and nbytes + sum(size for _, _, size in self.known.values()) > TARGET_BYTES:
                self.known.pop(next(iter(self.known)))
            arrays = tuple(_to_card(each) for each in (target, weight, weights, species))
            self.known[key] = (list(losses), arrays, nbytes)
        return self.known[key][1]


def _place(array: Any) -> Any:
    return (array.ctypes.data, array.shape) if np.ndim(array) else array


def _to_card(host: np.ndarray) -> Any:
    array = cuda_device.zeros(host.shape, host.dtype, "a loss's target")
    if host.size:
        with cuda_device.outside_captures:
            array.copy_to_device(np.ascontiguousarray(host))
    return array
