"""Runs compiled time loops on the CPU: buffers, threads, and chunks short enough to be interrupted.

Works on flat states ``(S, rows, columns)``, see `adjoint_rd.kernels.cpu`; knows neither losses nor schedules.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numba import config
from numba.core.errors import NumbaError

from .checkpoint import STORE_ALL_BYTES
from .crew import Lock, available_threads, run_together
from .errors import CheckpointError, InputError
from .grid import Grid
from .kernels.barrier import CANCELLED
from .kernels.cpu import BLOCK, Geometry, Plan, Share, add_square_seed, all_finite
from .kernels.loops import Waves
from .models import Model
from .schemes.compiled import time_loop

CHUNK_SECONDS = 0.15  # Ctrl-C and progress wait for the end of a chunk
FIRST_CHUNK_VALUES = 4e6  # array values to update before the speed is known: some 10 ms
VALUES_PER_THREAD = 8192  # below this, two threads that meet after each step gain nothing
CALL_VALUES_PER_THREAD = 1_000_000  # below this, waking a thread costs more than it gains
CACHE_LINE_BYTES = 64
ALIASED_BYTES = 1024  # rows a multiple of this long are padded
CACHED_STATE_BYTES = 6e6  # from here on, waves were measured to gain (32 MB level 3 cache); up to there, nothing
WAVE_DEPTH = 8  # steps to a wave
WAVE_BYTES = 2**18  # by which a wave goes ahead: small in a level 2 cache, much more than a call costs


def _padded(shape: tuple[int, int, int], dtype: np.dtype) -> tuple[int, int, int]:
    """The shape of a buffer for (S, rows, columns).

    Rows whose length in bytes is a multiple of a large power of two fall on the same few sets of the caches (4096 bytes
    repeat in a usual level 1 cache); a cache line more to each, and a row more to each species, spread them.
    """
    species, rows, columns = shape
    if rows == 1 or columns * dtype.itemsize % ALIASED_BYTES:
        return shape
    return species, rows + 1, columns + CACHE_LINE_BYTES // dtype.itemsize


def _aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line: vectors that straddle two lines take two loads."""
    room = np.zeros(int(np.prod(shape)) * dtype.itemsize + CACHE_LINE_BYTES, np.uint8)
    start = -room.ctypes.data % CACHE_LINE_BYTES
    return room[start : start + room.size - CACHE_LINE_BYTES].view(dtype).reshape(shape)


class Pair:
    """A state (or adjoint) and the buffer that the next step writes to; `current` says where it is now."""

    def __init__(self, current: Any, other: Any):
        self.current = current
        self.other = other

    def took(self, steps: int) -> None:
        """Note that a loop has gone to and fro `steps` times."""
        if steps % 2:
            self.current, self.other = self.other, self.current


class DiskSlots:
    """Checkpoints in a temporary file without a name, which goes when this does."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115

    def __del__(self) -> None:
        self.file.close()

    def store(self, slot: int, state: np.ndarray) -> None:
        """Keep a state."""
        try:
            self.file.seek(slot * state.nbytes)
            self.file.write(memoryview(state).cast("B"))
            self.file.flush()
        except OSError as error:
            raise CheckpointError(
                f"no room for checkpoint {slot} in {tempfile.gettempdir()} ({error.strerror}); free some space, set "
                "TMPDIR, or use checkpoints='auto'."
            ) from error

    def restore(self, slot: int, state: np.ndarray) -> None:
        """Copy a kept state into `state`."""
        self.file.seek(slot * state.nbytes)
        self.file.readinto(memoryview(state).cast("B"))  # type: ignore[attr-defined]


class MemorySlots:
    """Checkpoints in an array of states."""

    def __init__(self, states: np.ndarray):
        self.states = states

    def store(self, slot: int, state: np.ndarray) -> None:
        """Keep a state."""
        np.copyto(self.states[slot], state)

    def restore(self, slot: int, state: np.ndarray) -> None:
        """Copy a kept state into `state`."""
        np.copyto(state, self.states[slot])


class Executor:
    """Compiled loops, buffers and threads for one model, grid, scheme, dtype and dt.

    Not to be used by two threads at once: hold `lock`.
    """

    store_all_bytes = STORE_ALL_BYTES  # up to which checkpoints="auto" keeps every state

    def __init__(self, model: Model, grid: Grid, scheme: ModuleType, dtype: np.dtype, dt: float, threads: int | None):
        self.model = model
        self.grid = grid
        self.scheme = scheme
        self.dtype = dtype
        self.dt = dt
        self.threads = threads
        self.lock = Lock()
        S, P = len(model.species), len(model.parameters)
        self.columns = grid.shape[-1]
        self.rows = grid.size // self.columns
        self.plane = grid.shape[1] if grid.ndim == 3 else self.rows
        self.state_shape = (S, *grid.shape)
        self.plane_shape = (self.rows, self.columns)
        self.flat_shape: tuple[int, ...] = (S, *self.plane_shape)
        self.padded_shape = _padded(self.flat_shape, dtype)
        self.state_bytes = int(np.prod(self.padded_shape)) * dtype.itemsize
        self.tiles = self.rows * -(-self.columns // BLOCK)
        axes = range(3 - grid.ndim, 3)  # numbered as in Geometry
        self.geometry = Geometry(
            grid.ndim,
            tuple(axis for axis, kind in zip(axes, grid.boundary, strict=True) if kind == "periodic"),
            tuple(axis for axis, kind in zip(axes, grid.boundary, strict=True) if kind == "dirichlet"),
            len(set(grid.spacing)) > 1,
            self.columns > BLOCK,
        )
        self.h = dt if scheme.IDENTITY else 1.0
        self.h_diffusion = self.h / grid.spacing[-1] ** 2
        self._axis_ratios = [1.0] * (3 - grid.ndim) + [(grid.spacing[-1] / h) ** 2 for h in grid.spacing]
        self._S, self._P = S, P
        self._buffers: dict[str, np.ndarray] = {}
        self._no_fields = np.zeros((0, 0, 0), dtype)
        self._values = S * grid.size
        self._seconds_per_step: dict[str, float] = {}  # of each loop, as measured last
        self._sync = np.zeros(16, np.int64)
        self._step_by_step = Waves(1, 1, self.tiles, 1, False)
        self._loops: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._no_scalars = np.zeros((0, 0))

    # Buffers

    def buffer(self, name: str, count: int | None = None) -> np.ndarray:
        """A reused array of one padded state, or of `count` of them: zero in the padding, undefined otherwise."""
        shape = self.padded_shape if count is None else (count, *self.padded_shape)
        have = self._buffers.get(name)
        if (
            have is not None
            and have.ndim == len(shape)
            and have.shape[-3:] == self.padded_shape
            and len(have) >= shape[0]
        ):
            return have if count is None else have[:count]
        self._buffers.pop(name, None)  # free it before the larger one is made
        self._buffers[name] = _aligned_zeros(shape, self.dtype)
        return self._buffers[name]

    def pair(self, name: str, initial: Any) -> Pair:
        """A `Pair` of reused buffers, holding a copy of `initial`, or zero."""
        pair = Pair(self.buffer(name), self.buffer(name + "_other"))
        if initial is None:
            pair.current.fill(0.0)
        else:
            self.copy(pair.current, initial)
        return pair

    # What a backend with memory of its own does in another way

    def copy(self, to: Any, of: Any) -> None:
        """Copy a state; `of` may have the user's shape."""
        if of.shape == self.padded_shape:
            np.copyto(to, of)
        else:
            np.copyto(self._unpadded(to), of.reshape(self.flat_shape))

    def look(self, state: Any) -> np.ndarray:
        """A state in the user's shape, to be read only: (S, *shape); a copy if it is padded."""
        return self._unpadded(state).reshape(self.state_shape)

    def result(self, state: Any, like: Any) -> Any:
        """A copy of a state in the user's shape; `like` is what the user gave."""
        return np.array(self._unpadded(state)).reshape(self.state_shape)

    def add(self, adjoint: Any, seed: np.ndarray) -> None:
        """adjoint += seed, an array of the user's shape."""
        self._unpadded(adjoint)[...] += seed.reshape(self.flat_shape)

    def _unpadded(self, state: np.ndarray) -> np.ndarray:
        return state[:, : self.rows, : self.columns]

    def finite(self, state: Any) -> bool:
        """Whether no value is NaN or infinite."""
        return bool(all_finite(state.reshape(-1)))

    def largest_change(self, x: Any, y: Any) -> float:
        """max |x - y|."""
        return float(np.max(np.abs(x - y)))

    def saved(self, count: int, y0: Any) -> Any:
        """An array for `count` states in the user's shape, the first of them y0."""
        saved = np.empty((count, *y0.shape), self.dtype)
        saved[0] = y0
        return saved

    def fill_run(
        self, saved: np.ndarray, marks: Sequence[int], plan: Any, fielded: tuple[int, ...], progress: Any
    ) -> Iterator[tuple[int, bool]]:
        """Fill saved[1..] with the states at marks[1..] from saved[0]; yield (n, whether saved[n] is finite)."""
        for n in range(1, len(marks)):
            self.advance_into(saved[n], saved[n - 1], plan, fielded, marks[n] - marks[n - 1], progress)
            yield n, self.finite(saved[n])

    def memory_slots(self, name: str, count: int) -> MemorySlots:
        """Room for checkpoints in memory."""
        return MemorySlots(self.buffer(name, count))

    def disk_slots(self) -> DiskSlots:
        """Room for checkpoints in a file."""
        return DiskSlots()

    def available_bytes(self) -> float | None:
        """Memory that a checkpoint schedule may use, None for what the machine has free."""
        return None

    def adopt(self, argument: str, array: Any) -> Any | None:
        """A state that the user gave in the backend's own memory, None if it is in the host's."""
        return None

    # Plans

    def fielded(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """Which kinetic parameters vary in space."""
        return tuple(
            i
            for i, name in enumerate(self.model.parameters)
            if type(params[name]) is not float and np.ndim(params[name])
        )

    def plan(
        self,
        params: Mapping[str, Any],
        fielded: tuple[int, ...],
        direction: Mapping[str, Any] | None = None,
        wall: tuple[float, ...] | None = None,
    ) -> Plan:
        """The numbers of one parameter set, and of a direction in parameter space for tangents."""
        return Plan(
            self.coefficients(params, fielded, wall),
            self.direction(direction, fielded),
            self._fields(params, fielded),
            self._fields(direction, fielded),
            self.plane,
        )

    def coefficients(
        self, params: Mapping[str, Any], fielded: tuple[int, ...], wall: tuple[float, ...] | None
    ) -> np.ndarray:
        """The scalars of a parameter set, in the order that `Plan` tells."""
        model, h = self.model, self.h_diffusion
        numbers = [self.h, *self._axis_ratios, self.dt]
        numbers += [h * params[name] for name in model.diffusivities]
        numbers += [0.0 if i in fielded else params[name] for i, name in enumerate(model.parameters)]
        return np.array([*numbers, *(wall or (0.0,) * self._S)], self.dtype)

    def direction(self, direction: Mapping[str, Any] | None, fielded: tuple[int, ...]) -> np.ndarray:
        """The tangent of the d and p of `Plan`, (S + P,)."""
        model, h = self.model, self.h_diffusion
        dk = np.zeros(self._S + self._P, self.dtype)
        if direction is not None:
            for c, name in enumerate(model.diffusivities):
                dk[c] = h * direction.get(name, 0.0)
            for i, name in enumerate(model.parameters):
                if i not in fielded:
                    dk[self._S + i] = direction.get(name, 0.0)
        return dk

    def _fields(self, params: Mapping[str, Any] | None, fielded: tuple[int, ...]) -> np.ndarray:
        if not fielded or params is None:
            # A direction is read only by tangents, which always come with one.
            return self._no_fields if not fielded else np.zeros((self._P, *self.plane_shape), self.dtype)
        fields = np.zeros((self._P, *self.plane_shape), self.dtype)
        for i in fielded:
            fields[i] = np.reshape(
                np.broadcast_to(params.get(self.model.parameters[i], 0.0), self.grid.shape), fields.shape[1:]
            )
        return fields

    def sums(self, fielded: tuple[int, ...], name: str = "sums") -> "Sums":
        """Fresh zeroed sums for a gradient."""
        fields = np.zeros((self._P, *self.plane_shape), self.dtype) if fielded else self._no_fields
        return Sums(self, np.zeros((self.tiles, self._S + self._P)), fields, fielded)

    # Loops

    def advance(self, state: Pair, plan: Plan, fielded: tuple[int, ...], steps: int, progress: Any = None) -> None:
        """Take `steps` steps; `state.current` ends up holding the result."""
        loop = self._loop("advance", fielded)

        def chunk(done: int, count: int) -> None:
            self._together(loop, (state.current, state.other, state.current), plan, count)
            state.took(count)

        self._in_chunks("advance", chunk, steps, 1, progress)

    def advance_into(
        self,
        target: np.ndarray,
        source: np.ndarray,
        plan: Plan,
        fielded: tuple[int, ...],
        steps: int,
        progress: Any = None,
    ) -> None:
        """Take `steps` steps from `source`, which stays as it is, to `target`; both (S, *shape)."""
        if steps == 0:
            np.copyto(target, source)
            return
        loop = self._loop("advance", fielded)
        start = source.reshape(self.flat_shape)
        state = Pair(target.reshape(self.flat_shape), self.buffer("state"))
        if steps % 2:  # the last step must write to `target`
            state.took(1)

        def chunk(done: int, count: int) -> None:
            x = state.current if done else start
            self._together(loop, (x, state.other, state.current), plan, count)
            state.took(count)

        self._in_chunks("advance", chunk, steps, 1, progress)

    def record(
        self, states: np.ndarray, plan: Plan, fielded: tuple[int, ...], steps: int, progress: Any = None
    ) -> None:
        """Fill states[1..steps] from states[0]."""
        loop = self._loop("record", fielded)

        def chunk(done: int, count: int) -> None:
            self._together(loop, (states[done : done + count + 1],), plan, count)

        self._in_chunks("record", chunk, steps, 1, progress)

    def reverse(
        self, states: np.ndarray, adjoint: Pair, plan: Plan, sums: "Sums", first: int, last: int, progress: Any = None
    ) -> None:
        """Take the adjoint back from states[last] to states[first], adding to `sums`."""
        loop = self._loop("reverse", sums.fielded)

        def chunk(done: int, count: int) -> None:
            to = last - done
            arrays = (states[to - count : to], adjoint.current, adjoint.other)
            self._together(loop, arrays, plan, count, sums)
            adjoint.took(count)

        self._in_chunks("reverse", chunk, last - first, 2, progress)

    def advance_tangent(
        self, state: Pair, tangent: Pair, plan: Plan, fielded: tuple[int, ...], steps: int, progress: Any = None
    ) -> None:
        """Take `steps` steps of the state and of a tangent along the plan's direction."""
        loop = self._loop("advance_tangent", fielded)

        def chunk(done: int, count: int) -> None:
            arrays = (state.current, state.other, tangent.current, tangent.other)
            self._together(loop, arrays, plan, count)
            state.took(count)
            tangent.took(count)

        self._in_chunks("advance_tangent", chunk, steps, 2, progress)

    def record_tangent(
        self,
        states: np.ndarray,
        tangents: np.ndarray,
        plan: Plan,
        fielded: tuple[int, ...],
        steps: int,
        progress: Any = None,
    ) -> None:
        """Fill states[1..steps] and tangents[1..steps]."""
        loop = self._loop("record_tangent", fielded)

        def chunk(done: int, count: int) -> None:
            arrays = (states[done : done + count + 1], tangents[done : done + count + 1])
            self._together(loop, arrays, plan, count)

        self._in_chunks("record_tangent", chunk, steps, 2, progress)

    def reverse_second(
        self,
        states: np.ndarray,
        tangents: np.ndarray,
        adjoint: Pair,
        adjoint_tangent: Pair,
        plan: Plan,
        sums: "Sums",
        sums_tangent: "Sums",
        first: int,
        last: int,
        progress: Any = None,
    ) -> None:
        """Take the adjoint and its tangent back from states[last] to states[first]."""
        loop = self._loop("reverse_second", sums.fielded)

        def chunk(done: int, count: int) -> None:
            to = last - done
            arrays = (
                states[to - count : to],
                tangents[to - count : to],
                adjoint.current,
                adjoint.other,
                adjoint_tangent.current,
                adjoint_tangent.other,
                sums_tangent.scalars,
                sums_tangent.fields,
            )
            self._together(loop, arrays, plan, count, sums)
            adjoint.took(count)
            adjoint_tangent.took(count)

        self._in_chunks("reverse_second", chunk, last - first, 4, progress)

    def add_square_seed(
        self, adjoint: np.ndarray, y: np.ndarray, target: np.ndarray, weight: Any, species: np.ndarray
    ) -> float:
        """Return ``sum((w (y - target))^2) / 2`` over the observed species, and add its derivative to `adjoint`.

        Parameters
        ----------
        adjoint, y : ndarray (S, rows, columns)
        target : ndarray (O, rows, columns), float64
        weight : float, or ndarray of the target's shape
        species : ndarray of int (O,)
        """
        scalar = np.ndim(weight) == 0
        weights = np.zeros((0, 0, 0)) if scalar else weight
        values = np.empty(self.tiles)
        arguments = (y, target, float(weight) if scalar else 0.0, weights, species, adjoint, values, BLOCK)
        threads = self._threads_for(1) if self._values >= 2 * CALL_VALUES_PER_THREAD else 1
        self._share_out([(*arguments, first, last) for first, last in self._tiles_of_each(threads)], add_square_seed)
        return float(values.sum())

    def _loop(self, name: str, fielded: tuple[int, ...]) -> Any:
        if (name, fielded) not in self._loops:
            self._loops[name, fielded] = time_loop(name, self.scheme, self.model, self.geometry, fielded)
        return self._loops[name, fielded]

    def _in_chunks(self, loop: str, chunk: Callable[[int, int], None], steps: int, cost: int, progress: Any) -> None:
        done = 0
        guess = FIRST_CHUNK_VALUES / (cost * self._values)
        if loop in self._seconds_per_step:
            guess = CHUNK_SECONDS / self._seconds_per_step[loop]
        size = max(1, int(guess))
        while done < steps:
            count = min(size, steps - done)
            started = time.perf_counter()
            chunk(done, count)
            elapsed = max(time.perf_counter() - started, 1e-6)
            done += count
            if progress is not None:
                progress(count)
            self._seconds_per_step[loop] = elapsed / count
            # At most fourfold: this chunk may have been slow for another reason, compilation for one.
            size = max(1, min(4 * size, int(size * CHUNK_SECONDS / elapsed)))

    def _together(self, loop: Any, arrays: tuple[Any, ...], plan: Plan, steps: int, sums: "Sums | None" = None) -> None:
        """Take steps of a time loop, the slabs of the grid shared out among threads."""
        scalars, fields = (sums.scalars, sums.fields) if sums else (self._no_scalars, self._no_fields)
        threads = self._threads_for(steps)
        if self._sync[CANCELLED]:  # of an interrupted run
            self._sync = np.zeros(16, np.int64)
        waves = self._waves(threads)
        work = self.buffer("work", self.scheme.WORK_ARRAYS)
        self._share_out(
            [
                (
                    arrays,
                    steps,
                    work,
                    plan,
                    Share(scalars, fields, *tiles, self._sync, threads, self.rows, self.columns),
                    waves,
                )
                for tiles in self._tiles_of_each(threads)
            ],
            loop,
        )

    def _waves(self, threads: int) -> Waves:
        """How a loop goes through the grid: in waves if a state does not stay in cache from one step to the next."""
        if self.state_bytes < CACHED_STATE_BYTES or self.scheme.WORK_ARRAYS:  # or if a step is more than one sweep
            return self._step_by_step
        slabs = {1: self.tiles, 2: self.rows, 3: self.rows // self.plane}[self.grid.ndim]
        depth = min(WAVE_DEPTH, slabs // threads // 2)
        if depth < 2:
            return self._step_by_step
        width = math.ceil(WAVE_BYTES / self.state_bytes * slabs)
        return Waves(depth, width, slabs, self.tiles // slabs, self.grid.boundary[0] == "periodic")

    def _tiles_of_each(self, threads: int) -> list[tuple[int, int]]:
        if threads == 1:
            return [(0, self.tiles)]
        return [(self.tiles * n // threads, self.tiles * (n + 1) // threads) for n in range(threads)]

    def _share_out(self, arguments: list[tuple[Any, ...]], loop: Any) -> None:
        threads = len(arguments)
        try:
            if threads == 1:
                loop(*arguments[0])
            else:
                run_together(loop, arguments, self._sync)
        except NumbaError as error:
            reasons = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Failed in")]
            raise InputError(
                f"the functions of {self.model.name} cannot be compiled. They may use numbers, tuples, the functions "
                f"of `math` and functions made with numba.njit. Numba says: {reasons[0] if reasons else error}"
            ) from error

    def _threads_for(self, steps: int) -> int:
        if config.DISABLE_JIT:
            return 1  # threads meet by atomic instructions, which interpreted code does not have
        if self.threads is not None:
            return min(self.threads, self.tiles)
        if self._values < 2 * VALUES_PER_THREAD:
            return 1
        by_step = self._values // VALUES_PER_THREAD
        by_call = int(steps * self._values / CALL_VALUES_PER_THREAD)
        return max(1, min(available_threads(), by_step, by_call, self.tiles))


class Sums:
    """What the transposes of the steps add up: parameter gradients, by tile and by cell."""

    def __init__(self, executor: Executor, scalars: np.ndarray, fields: np.ndarray, fielded: tuple[int, ...]):
        self.executor = executor
        self.scalars = scalars
        self.fields = fields
        self.fielded = fielded

    def gradient(self) -> dict[str, Any]:
        """{name: float or array of the grid's shape}."""
        return self.named(self.scalars.sum(axis=0), self.fields)

    def named(self, totals: np.ndarray, fields: Any) -> dict[str, Any]:
        """Totals (S + P,) and fields (P, rows, columns) as {name: float or array of the grid's shape}."""
        model, executor = self.executor.model, self.executor
        result: dict[str, Any] = {}
        for c, name in enumerate(model.diffusivities):
            result[name] = float(totals[c]) * executor.h_diffusion
        for i, name in enumerate(model.parameters):
            if i in self.fielded:
                result[name] = fields[i].reshape(executor.grid.shape).astype(np.float64)
            else:
                result[name] = float(totals[len(model.species) + i]) * executor.h
        return result
