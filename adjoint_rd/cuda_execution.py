"""Runs kernels on a card: what `execution.Executor` does on the CPU, for one state or for a batch of them at once.

Flat states are ``(B, S, rows, columns)`` in device memory and stay there: what comes back to the host is the states and
gradients that the user asked for, and the states that a loss on the host looks at. `adjoint_rd.losses.L2` is evaluated
on the card. The scheme's functions (`adjoint_rd.schemes`) run on the host and launch one kernel a sweep; launches are
in order, so threads need not meet. Windows of steps are replayed as CUDA graphs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from . import cuda_device
from .cuda_states import DeviceSlots, DeviceState, HostDiskSlots, Stack, Targets
from .errors import InputError
from .execution import Executor, Pair, Sums
from .grid import Grid
from .kernels import cells
from .kernels.specialise import build
from .models import Model
from .schemes.compiled import building

SWEEPS = {
    "push_sweep": cells.PUSH,
    "tangent_sweep": cells.TANGENT,
    "pull_sweep": cells.PULL,
    "second_sweep": cells.SECOND,
}
MOST_STEPS_A_GRAPH = 512
VALUES_A_CHUNK = 1e10  # array values that a large card updates in 0.1 s; Ctrl-C waits for the end of a chunk
MOST_VALUES = 2**32  # of a flat state of all members
MOST_MEMBERS = 65535  # blocks along y, of any card
FLAT_BLOCKS = 4096


class DevicePlan(NamedTuple):
    """One parameter set a member, see `cpu.Plan`, on the card; `coefficients`: the first's scalars, on the host."""

    coefficients: np.ndarray
    k: Any
    dk: Any
    fields: Any
    field_direction: Any


class CudaExecutor(Executor):
    """Kernels, buffers and graphs for one model, grid, scheme, dtype, dt and number of members.

    Parameters
    ----------
    model, grid, scheme, dtype, dt
        As of `Executor`.
    members : int
        Of a batch, which all loops then take through the same steps.

    Raises
    ------
    BackendError
        If no card is usable.
    """

    store_all_bytes = inf  # of a trajectory: a share of the free memory is the only limit

    def __init__(self, model: Model, grid: Grid, scheme: ModuleType, dtype: np.dtype, dt: float, members: int = 1):
        self.cuda = cuda_device.module()
        from .kernels import cuda as kernels

        super().__init__(model, grid, scheme, dtype, dt, 1)
        self.kernels = kernels
        self.members = members
        values = members * max(self._S, self._P) * grid.size
        if values >= MOST_VALUES:
            raise InputError(
                f"{members} states of {grid} have {values} values; 32-bit indices allow {MOST_VALUES}. Use a "
                "smaller grid or batch."
            )
        if members > MOST_MEMBERS:
            raise InputError(f"a batch of {members} members is more than the {MOST_MEMBERS} of one launch; split it.")
        self.state_bytes = self._values * dtype.itemsize  # not padded
        self.flat_shape = (members, *self.flat_shape)
        self._values *= members
        self.tiling = kernels.tiling(self.rows, self.columns)
        self.stream = self.cuda.stream()
        self.graphs = cuda_device.Graphs(self.stream)
        self._device: dict[str, Any] = {}
        self._states: dict[str, DeviceState] = {}
        self._stacks: dict[str, Stack] = {}
        self._steps: dict[tuple[str, tuple[int, ...]], Callable[..., None]] = {}
        self._helpers: dict[Any, Callable[..., None]] = {}
        self._targets = Targets()
        self._blocks = (self.tiling.blocks, members)
        self._threads = (self.tiling.width, self.tiling.height)
        size = members * self._S * grid.size
        self._flat_launch = (max(1, min(-(-size // kernels.THREADS), FLAT_BLOCKS)), kernels.THREADS)
        by_member = max(1, min(-(-size // members // kernels.FOLD_THREADS), self.tiling.blocks))
        self._by_member_launch = ((by_member, members), kernels.FOLD_THREADS)
        self._nothing = self._array("nothing", (0,), dtype)
        self._unread = SimpleNamespace(
            scalars=self._array("no sums", (0, 0, 0), np.float64), fields=self._nothing, sync=None, threads=1
        )

    # Buffers

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """A reused device array."""
        have = self._device.get(name)
        if have is None or tuple(have.shape) != shape:
            if have is not None:  # graphs use it; free it before the new one is made
                self.graphs.clear()
                del self._device[name], have
            self._device[name] = have = cuda_device.zeros(shape, dtype, f"the buffer {name!r}")
        return have

    def _upload(self, name: str, host: np.ndarray) -> Any:
        device = self._array(name, host.shape, host.dtype)
        if host.size:
            device.copy_to_device(np.ascontiguousarray(host), stream=self.stream)
        return device

    def buffer(self, name: str, count: int | None = None) -> Any:
        """A reused `DeviceState`, or a `Stack` of at least `count`; what it held before is undefined."""
        if count is None:
            if name not in self._states:
                self._states[name] = DeviceState(self._array(name, self.flat_shape, self.dtype))
            return self._states[name]
        have = self._stacks.get(name)
        if have is None or len(have) < count:
            self._stacks.pop(name, None)
            del have
            self._stacks[name] = Stack(self._array(f"{name} stack", (count, *self.flat_shape), self.dtype))
        return self._stacks[name]

    def pair(self, name: str, initial: Any) -> Pair:
        """A `Pair` of reused buffers, holding a copy of `initial` (a host or a device array), or zero."""
        pair = Pair(self.buffer(name), self.buffer(name + "_other"))
        if initial is None:
            self._fill(pair.current.flat, 0.0)
        else:
            self.copy(pair.current, initial)
        return pair

    def _helper(self, name: str, blocks: Any, threads: Any) -> Callable[..., None]:
        """One of `kernels.cuda.HELPERS`, ready to be launched."""
        key = (name, blocks, threads)
        if key not in self._helpers:
            self._helpers[key] = self.kernels.launcher(self.kernels.helper(name), blocks, threads, self.stream)
        return self._helpers[key]

    def _fill(self, flat: Any, value: float) -> None:
        blocks = max(1, min(-(-flat.size // self.kernels.THREADS), FLAT_BLOCKS))
        launch = self._helper("fill", blocks, self.kernels.THREADS)
        launch(flat, flat.dtype.type(value))

    # Between host and card

    def copy(self, to: DeviceState, of: Any) -> None:
        """Copy a state, from wherever it is."""
        if isinstance(of, DeviceState):
            of = of.array
        if not isinstance(of, np.ndarray):
            to.array.copy_to_device(of.reshape(self.flat_shape), stream=self.stream)
            return
        np.copyto(self._pinned, of.reshape(self.flat_shape), casting="same_kind")
        to.array.copy_to_device(self._pinned, stream=self.stream)
        self.stream.synchronize()  # before the pinned buffer is used again

    def look(self, state: DeviceState) -> np.ndarray:
        """A host copy of a state in the user's shape; a batch has its members first."""
        state.array.copy_to_host(self._pinned, stream=self.stream)
        self.stream.synchronize()
        return self._pinned.reshape(self._user_shape()).copy()

    @cached_property
    def _pinned(self) -> np.ndarray:
        """A state in page-locked memory, through which states go: several times faster than from pageable memory."""
        return self.cuda.pinned_array(self.flat_shape, self.dtype)

    def result(self, state: DeviceState, like: Any) -> Any:
        """A copy of a state in the user's shape, on the card if `like` is there, else on the host."""
        if isinstance(like, np.ndarray):
            return self.look(state)
        copy = self.cuda.device_array(self.flat_shape, self.dtype)
        copy.copy_to_device(state.array, stream=self.stream)
        self.stream.synchronize()
        return copy.reshape(self._user_shape())

    def _user_shape(self) -> tuple[int, ...]:
        return self.state_shape if self.members == 1 else (self.members, *self.state_shape)

    def add(self, adjoint: DeviceState, seed: np.ndarray) -> None:
        """adjoint += seed, an array of the host in the user's shape."""
        part = self.buffer("seed")
        self.copy(part, seed)
        launch = self._helper("accumulate", *self._flat_launch)
        launch(adjoint.flat, self.dtype.type(1), part.flat)

    def finite(self, state: DeviceState) -> bool:
        """Whether no value is NaN or infinite."""
        return not self.not_finite(state).any()

    def not_finite(self, state: DeviceState) -> np.ndarray:
        """For each member, whether a value is NaN or infinite."""
        marks = self._array("marks", (self.members,), np.int32)
        self._fill(marks, 0)
        self._helper("mark_not_finite", *self._by_member_launch)(state.by_member, marks)
        return self._download(marks) != 0

    def largest_change(self, x: DeviceState, y: DeviceState) -> float:
        """max |x - y|."""
        blocks = self._by_member_launch[0][0]
        part = self._array("changes", (self.members, blocks, 1), np.float64)
        self._helper("largest_change", *self._by_member_launch)(x.by_member, y.by_member, part)
        return float(self._download(part).max())

    def _download(self, array: Any) -> np.ndarray:
        host = array.copy_to_host(stream=self.stream)
        self.stream.synchronize()
        return host

    def memory_slots(self, name: str, count: int) -> DeviceSlots:
        """Room for checkpoints on the card."""
        return DeviceSlots(self, self.buffer(name, count) if count else None)

    def disk_slots(self) -> HostDiskSlots:
        """Room for checkpoints in a file."""
        return HostDiskSlots(self)

    def available_bytes(self) -> float:
        """Device memory that a schedule may use: what is free, and what this executor's buffers hold already."""
        held = sum(stack.array.size * self.dtype.itemsize for stack in self._stacks.values())
        return cuda_device.free_bytes() + held

    # Plans and sums

    def plan(
        self,
        params: Any,
        fielded: tuple[int, ...],
        direction: Mapping[str, Any] | None = None,
        wall: tuple[float, ...] | None = None,
    ) -> DevicePlan:
        """The numbers of one parameter set, or of a list of one a member, and of a direction for tangents."""
        each = [params] if isinstance(params, Mapping) else list(params)
        k = np.stack([self.coefficients(one, fielded, wall) for one in each])
        dk = np.stack([self.direction(direction, fielded)] * len(each))
        fields = self._upload_fields("fields", each, fielded)
        along = fields  # some array of the right shape: only tangents read it, and they come with a direction
        if direction is not None:
            along = self._upload_fields("direction fields", [direction] * len(each), fielded)
        return DevicePlan(k[0], self._upload("k", k), self._upload("dk", dk), fields, along)

    def _upload_fields(self, name: str, each: Sequence[Mapping[str, Any]], fielded: tuple[int, ...]) -> Any:
        if not fielded:
            return self._nothing
        return self._upload(name, np.concatenate([self._fields(one, fielded).ravel() for one in each]))

    def sums(self, fielded: tuple[int, ...], name: str = "sums") -> "DeviceSums":
        """Zeroed sums for a gradient; they are reused, so read them before asking again."""
        scalars = self._array(name, (self.members, self.tiling.blocks, self._S + self._P), np.float64)
        self._fill(scalars.reshape(scalars.size), 0.0)
        fields = self._nothing
        if fielded:
            fields = self._array(f"{name} of fields", (self.members * self._P * self.grid.size,), self.dtype)
            self._fill(fields, 0.0)
        return DeviceSums(self, scalars, fields, fielded)

    def fold(self, sums: Any) -> np.ndarray:
        """The sums over blocks of a (B, blocks, n) array, on the host as (B, n)."""
        totals = self._array(f"totals of {sums.shape[2]}", (self.members, int(sums.shape[2])), np.float64)
        blocks = (int(sums.shape[2]), self.members)
        self._helper("fold", blocks, self.kernels.FOLD_THREADS)(sums, totals)
        return self._download(totals)

    # Loops

    def advance(self, state: Pair, plan: Any, fielded: tuple[int, ...], steps: int, progress: Any = None) -> None:
        """Take `steps` steps; `state.current` ends up holding the result."""
        push, work = self._step("push", fielded), self._work()

        def enqueue(count: int) -> None:
            x, y = state.current, state.other
            for _ in range(count):
                push(x, y, work, plan, self._unread)
                x, y = y, x

        def chunk(done: int, count: int) -> None:
            self.graphs.launch(("advance", fielded, id(state.current), count), lambda: enqueue(count), count)
            state.took(count)

        self._in_chunks("advance", chunk, steps, 1, progress)

    def saved(self, count: int, y0: Any) -> Any:
        """An array for `count` states in the user's shape, the first of them y0, where y0 is."""
        if isinstance(y0, np.ndarray):
            return super().saved(count, y0)
        saved = self.empty((count, *y0.shape), True)
        with cuda_device.outside_captures:
            saved[0].copy_to_device(y0)
        return saved

    def empty(self, shape: tuple[int, ...], on_card: bool) -> Any:
        """An array for results."""
        return cuda_device.zeros(shape, self.dtype, "the result") if on_card else np.empty(shape, self.dtype)

    def fill_run(
        self, saved: Any, marks: Sequence[int], plan: Any, fielded: tuple[int, ...], progress: Any
    ) -> Iterator[tuple[int, bool]]:
        """Fill saved[1..] with the states at marks[1..] from saved[0]; yield (n, whether saved[n] is finite)."""
        state = self.pair("state", saved[0])
        for n in range(1, len(marks)):
            self.advance(state, plan, fielded, marks[n] - marks[n - 1], progress)
            if isinstance(saved, np.ndarray):
                saved[n] = self.look(state.current)
            else:
                saved[n].copy_to_device(state.current.array.reshape(self._user_shape()), stream=self.stream)
            yield n, self.finite(state.current)

    def record(self, states: Stack, plan: Any, fielded: tuple[int, ...], steps: int, progress: Any = None) -> None:
        """Fill states[1..steps] from states[0]."""
        push, work = self._step("push", fielded), self._work()

        def enqueue(first: int, last: int) -> None:
            for n in range(first, last):
                push(states[n], states[n + 1], work, plan, self._unread)

        def chunk(done: int, count: int) -> None:
            self.graphs.launch(("record", fielded, id(states), done, count), lambda: enqueue(done, done + count), count)

        self._in_chunks("record", chunk, steps, 1, progress)

    def reverse(
        self, states: Stack, adjoint: Pair, plan: Any, sums: Sums, first: int, last: int, progress: Any = None
    ) -> None:
        """Take the adjoint back from states[last] to states[first], adding to `sums`."""
        pull, work = self._step("pull", sums.fielded), self._work()
        share = _share(sums)

        def enqueue(later: int, count: int) -> None:
            a, b = adjoint.current, adjoint.other
            for n in range(later - 1, later - 1 - count, -1):
                pull(states[n], a, b, work, plan, share)
                a, b = b, a

        def chunk(done: int, count: int) -> None:
            to = last - done
            key = ("reverse", sums.fielded, id(states), id(adjoint.current), id(sums.scalars), to, count)
            self.graphs.launch(key, lambda: enqueue(to, count), count)
            adjoint.took(count)

        self._in_chunks("reverse", chunk, last - first, 2, progress)

    def advance_tangent(
        self, state: Pair, tangent: Pair, plan: Any, fielded: tuple[int, ...], steps: int, progress: Any = None
    ) -> None:
        """Take `steps` steps of the state and of a tangent along the plan's direction."""
        push, along, work = self._step("push", fielded), self._step("tangent", fielded), self._work()

        def enqueue(count: int) -> None:
            y, z, t, s = state.current, state.other, tangent.current, tangent.other
            for _ in range(count):
                along(y, t, s, work, plan, self._unread)
                push(y, z, work, plan, self._unread)
                y, z, t, s = z, y, s, t

        def chunk(done: int, count: int) -> None:
            key = ("advance_tangent", fielded, id(state.current), id(tangent.current), count)
            self.graphs.launch(key, lambda: enqueue(count), count)
            state.took(count)
            tangent.took(count)

        self._in_chunks("advance_tangent", chunk, steps, 2, progress)

    def record_tangent(
        self, states: Stack, tangents: Stack, plan: Any, fielded: tuple[int, ...], steps: int, progress: Any = None
    ) -> None:
        """Fill states[1..steps] and tangents[1..steps]."""
        push, along, work = self._step("push", fielded), self._step("tangent", fielded), self._work()

        def enqueue(first: int, last: int) -> None:
            for n in range(first, last):
                along(states[n], tangents[n], tangents[n + 1], work, plan, self._unread)
                push(states[n], states[n + 1], work, plan, self._unread)

        def chunk(done: int, count: int) -> None:
            self.graphs.launch(
                ("record_tangent", fielded, id(states), id(tangents), done, count),
                lambda: enqueue(done, done + count),
                count,
            )

        self._in_chunks("record_tangent", chunk, steps, 2, progress)

    def reverse_second(
        self,
        states: Stack,
        tangents: Stack,
        adjoint: Pair,
        adjoint_tangent: Pair,
        plan: Any,
        sums: Sums,
        sums_tangent: Sums,
        first: int,
        last: int,
        progress: Any = None,
    ) -> None:
        """Take the adjoint and its tangent back from states[last] to states[first]."""
        second, work = self._step("second", sums.fielded), self._work()
        share, second_share = _share(sums), _share(sums_tangent)

        def enqueue(later: int, count: int) -> None:
            a, b, at, bt = adjoint.current, adjoint.other, adjoint_tangent.current, adjoint_tangent.other
            for n in range(later - 1, later - 1 - count, -1):
                second(states[n], tangents[n], a, at, b, bt, work, plan, share, second_share)
                a, b, at, bt = b, a, bt, at

        def chunk(done: int, count: int) -> None:
            to = last - done
            key = (
                "reverse_second",
                sums.fielded,
                id(states),
                id(adjoint.current),
                id(adjoint_tangent.current),
                to,
                count,
            )
            self.graphs.launch(key, lambda: enqueue(to, count), count)
            adjoint.took(count)
            adjoint_tangent.took(count)

        self._in_chunks("reverse_second", chunk, last - first, 4, progress)

    def _in_chunks(self, loop: str, chunk: Callable[[int, int], None], steps: int, cost: int, progress: Any) -> None:
        most = max(1, min(MOST_STEPS_A_GRAPH, int(VALUES_A_CHUNK / (cost * self._values))))
        for done in range(0, steps, most):
            count = min(most, steps - done)
            chunk(done, count)
            if done + count < steps or progress is not None:
                self.stream.synchronize()
            if progress is not None:
                progress(count)

    def _work(self) -> Stack | None:
        return self.buffer("work", self.scheme.WORK_ARRAYS) if self.scheme.WORK_ARRAYS else None

    def _step(self, name: str, fielded: tuple[int, ...]) -> Callable[..., None]:
        """A function of the scheme, with launches for the sweeps that it calls."""
        if (name, fielded) not in self._steps:
            with building:
                self._steps[name, fielded] = self._bind(getattr(self.scheme, name), fielded)
        return self._steps[name, fielded]

    def _bind(self, function: FunctionType, fielded: tuple[int, ...]) -> Callable[..., None]:
        bound: dict[str, Any] = {}
        for used in function.__code__.co_names:
            if used in SWEEPS:
                bound[used] = self._sweep(SWEEPS[used], fielded)
            elif used == "meet":
                bound[used] = _do_not_meet
            elif used in ("scale", "accumulate", "blend"):
                bound[used] = self._flat(used)
            elif isinstance(getattr(self.scheme, used, None), FunctionType):
                bound[used] = self._bind(getattr(self.scheme, used), fielded)
        return build(function, **bound)

    def _sweep(self, operation: cells.Operation, fielded: tuple[int, ...]) -> Callable[..., None]:
        kernel = self.kernels.sweep_kernel(
            operation, self.model, self.geometry, fielded, self.scheme.IDENTITY, self.dtype
        )
        launch = self.kernels.launcher(kernel, self._blocks, self._threads, self.stream)
        unused = 4 - operation.inputs
        tiling = self.tiling
        sizes = [np.uint32(n) for n in (*self.plane_shape, self.plane, tiling.rows_each, tiling.across)]

        def sweep(arrays: tuple[DeviceState, ...], out: DeviceState, plan: DevicePlan, share: Any) -> None:
            inputs = [each.flat for each in arrays]
            inputs += inputs[:1] * unused
            numbers = (plan.k, plan.dk, plan.fields, plan.field_direction)
            launch(*inputs, out.flat, *numbers, share.scalars, share.fields, *sizes)

        return sweep

    def _flat(self, name: str) -> Callable[..., None]:
        launch = self._helper(name, *self._flat_launch)

        def apply(out: DeviceState, *arguments: Any) -> None:
            launch(out.flat, *(each.flat if isinstance(each, DeviceState) else each for each in arguments[:-1]))

        return apply

    # Losses

    def add_square_seed(
        self, adjoint: DeviceState, y: DeviceState, target: np.ndarray, weight: Any, species: np.ndarray
    ) -> float:
        """As `Executor.add_square_seed`."""
        return float(self.add_square_seeds(adjoint, y, [(target, weight, species)])[0])

    def add_square_seeds(
        self, adjoint: DeviceState, y: DeviceState, losses: Sequence[tuple[np.ndarray, Any, np.ndarray]]
    ) -> np.ndarray:
        """Add the derivative of one loss a member, or of one for all, to `adjoint`; return the members' values (B,).

        Parameters
        ----------
        adjoint, y : DeviceState
        losses : sequence of (target, weight, species)
            As `losses.L2.as_squares` gives them.
        """
        sums = self._array("squares", (self.members, self.tiling.blocks, 1), np.float64)
        alike = len({(each[0].shape, np.shape(each[1]), each[2].tobytes()) for each in losses}) == 1
        groups = [(0, list(losses))] if alike else [(n, [each]) for n, each in enumerate(losses)]
        for first, group in groups:
            together = self.members if len(losses) == 1 else len(group)
            launch = self._helper("square_seed", (self.tiling.blocks, together), self._threads)
            sizes = (first, self.tiling.rows_each, self.tiling.across)
            launch(adjoint.array, y.array, *self._targets.of(group), sums, *sizes)
        return self.fold(sums)[:, 0]

    # What users give

    def adopt(self, argument: str, array: Any) -> Any | None:
        """A device array that the user gave as one state or a batch, checked, or None if it is not on the card."""
        device = self.adopt_unseen(argument, array)
        if device is not None:
            given = self.buffer("given")
            self.copy(given, device)
            if not self.finite(given):
                raise InputError(f"{argument} has values that are not finite.")
        return device

    def adopt_unseen(self, argument: str, array: Any) -> Any | None:
        """As `adopt`, without a look at the values."""
        device = cuda_device.as_device_array(array)
        if device is not None:
            cuda_device.check_layout(argument, device, self._user_shape(), self.dtype)
            with cuda_device.outside_captures:
                self.cuda.synchronize()  # what its library may still be doing, on a stream that we do not know
        return device


def _do_not_meet(sync: Any, threads: int) -> None:
    """Launches on one stream are in order."""


def _share(sums: Sums) -> Any:
    return SimpleNamespace(scalars=sums.scalars, fields=sums.fields, sync=None, threads=1)


class DeviceSums(Sums):
    """What the transposes of the steps add up, on the card: (B, blocks, S + P), and (B, P, rows, columns) flattened."""

    def gradient(self) -> dict[str, Any]:
        """{name: float or array of the grid's shape}, of the only member."""
        return self.gradients()[0]

    def gradients(self) -> list[dict[str, Any]]:
        """One such dict a member."""
        totals = self.executor.fold(self.scalars)
        if not self.fielded:
            return [self.named(total, None) for total in totals]
        fields = self.executor._download(self.fields).reshape(len(totals), -1, *self.executor.plane_shape)
        return [self.named(total, field) for total, field in zip(totals, fields, strict=True)]
