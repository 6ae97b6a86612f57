"""Batches on a card: all members take each step in one launch.

The members share steps, schedule and buffers; each has its own parameters, loss and sums, which are added up in the
same order as in a run of that member alone: the numbers are the same to the last bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from . import checkpoint, divergence, losses, sweeps
from .cuda_execution import CudaExecutor
from .errors import InputError

Progress = Callable[[int], None]


class Batch:
    """The members of a batch, checked and ready to run together.

    Parameters
    ----------
    sim : Simulation
        With backend="cuda".
    members : list of (y0, params)
        At least two.
    """

    def __init__(self, sim: Any, members: Sequence[tuple[Any, Any]]):
        self.sim = sim
        states, self.params = [], []
        for number, (y0, params) in enumerate(members):
            with _noting(number):
                on_card = None if isinstance(y0, np.ndarray) else sim.executor.adopt_unseen("y0", y0)
                states.append(sim.check_state(y0) if on_card is None else on_card)
                self.params.append(sim.check_params(params))
                sim.check_stability(self.params[-1])
        self.states = states
        self.fielded = sim.executor.fielded(self.params[0])
        self.on_card = not isinstance(states[0], np.ndarray)

    @property
    def together(self) -> bool:
        """Whether one launch can serve all members: the same parameters are fields in each."""
        same = all(self.sim.executor.fielded(params) == self.fielded for params in self.params)
        return same and all(isinstance(y, np.ndarray) != self.on_card for y in self.states)

    def _start(self, executor: CudaExecutor) -> Any:
        if not self.on_card:
            return executor.pair("state", np.stack(self.states))
        state = executor.pair("state", None)
        for number, y0 in enumerate(self.states):
            state.current.array[number].copy_to_device(y0.reshape(executor.flat_shape[1:]), stream=executor.stream)
        wrong = executor.not_finite(state.current)
        if wrong.any():
            with _noting(int(np.argmax(wrong))):
                raise InputError("y0 has values that are not finite.")
        return state

    def _result(self, executor: CudaExecutor, state: Any) -> Any:
        return executor.result(state, self.states[0])

    def _plan(self, executor: CudaExecutor) -> Any:
        return executor.plan(self.params, self.fielded, None, self.sim.wall)

    def _check(self, executor: CudaExecutor, state: Any, since: Any, first: int, last: int) -> None:
        """Raise the `DivergenceError` of the first member that is not finite at step `last`; at `first` all were."""
        wrong = executor.not_finite(state)
        if wrong.any():
            number = int(np.argmax(wrong))
            with _noting(number), self.sim.executor.lock:
                divergence.diverged(self.sim, executor.look(since)[number], self.params[number], first, last)

    def run(self, marks: Sequence[int], progress: Progress | None) -> tuple[Any, Any]:
        """The states at `marks`, (B, n, S, *shape), and the last of them, (B, S, *shape)."""
        count = len(self.states)
        executor = self.sim.batch_executor(count)
        report = _for_all(progress, count)
        with executor.lock:
            plan, state, since = self._plan(executor), self._start(executor), executor.buffer("since")
            shape = (count, len(marks), *self.sim.state_shape)
            saved = executor.empty(shape, self.on_card)
            _save(executor, saved, 0, state.current)
            for n, (before, mark) in enumerate(pairwise(marks), start=1):
                executor.copy(since, state.current)
                executor.advance(state, plan, self.fielded, mark - before, report)
                self._check(executor, state.current, since, before, mark)
                _save(executor, saved, n, state.current)
            return saved, self._result(executor, state.current)

    def gradient(
        self, each_loss: Sequence[Any], steps: int, start: int, checkpoints: Any, progress: Progress | None
    ) -> tuple[np.ndarray, list[dict[str, Any]], Any]:
        """The members' values (B,), parameter gradients and initial gradients (B, S, *shape).

        `each_loss` is one loss a member, `start` the first step of the window.
        """
        count = len(self.states)
        executor = self.sim.batch_executor(count)
        report = _for_all(progress, count)
        observed = _by_step(each_loss, steps)
        with executor.lock:
            nbytes = count * self.sim._state_bytes
            schedule = checkpoint.choose(
                checkpoints, steps - start, nbytes, executor.available_bytes(), executor.store_all_bytes
            )
            plan = self._plan(executor)
            value, first = self._before_window(executor, plan, observed, start, report)
            on_disk = isinstance(checkpoints, str) and checkpoints == "disk"
            sweep = _BatchSweep(
                executor,
                plan,
                self.fielded,
                schedule,
                executor.disk_slots() if on_disk else executor.memory_slots("slots", schedule.slots),
                first,
                {step - start: each for step, each in observed.items() if step >= start},
                lambda each, step, state: self._evaluate(executor, each, step + start, state),
                lambda state, since, one, other: self._check(executor, state, since, one + start, other + start),
                report,
            )
            sweeps.follow(schedule, sweep.observed, sweep)
            values, gradients = sum(sweep.values[::-1], start=value), sweep.sums.gradients()
            wrong = executor.not_finite(sweep.adjoint.current)
            for number in range(count):
                with _noting(number):
                    finite = not wrong[number]
                    divergence.check_derivatives(self.sim.dtype, values[number], gradients[number], finite)
            return values, gradients, self._result(executor, sweep.adjoint.current)

    def _before_window(
        self, executor: CudaExecutor, plan: Any, observed: Mapping[int, Any], start: int, progress: Progress | None
    ) -> tuple[np.ndarray, Any]:
        value, before = np.zeros(len(self.states)), 0
        state, since = self._start(executor), executor.buffer("since")
        for mark in [*sorted(step for step in observed if step < start), start]:
            executor.copy(since, state.current)
            executor.advance(state, plan, self.fielded, mark - before, progress)
            self._check(executor, state.current, since, before, mark)
            if mark < start:
                value += self._evaluate(executor, observed[mark], mark, state.current)[0]
            before = mark
        first = executor.buffer("first of the window")
        executor.copy(first, state.current)
        return value, first

    def _evaluate(
        self, executor: CudaExecutor, each: Sequence[Any], step: int, state: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """The members' losses on the host: values (B,) and seeds (B, S, *shape)."""
        evaluate, _ = self.sim._hooks({}, 0)
        y = executor.look(state)
        values, seeds = np.zeros(len(each)), np.zeros(y.shape)
        for number, loss in enumerate(each):
            if loss is not None:
                with _noting(number):
                    values[number], seeds[number] = evaluate(loss, step, y[number])
        return values, seeds


class _BatchSweep(sweeps.GradientSweep):
    """The adjoints of all members; `observed` has a list of losses a step, None for a member without one."""

    executor: CudaExecutor

    def seed(self, step: int) -> None:
        """Add the derivatives of the losses observed at `step`, if there are any."""
        if step not in self.observed:
            return
        each, y = self.observed[step], self.states[step - self.recorded_from]
        if all(type(loss) is losses.L2 for loss in each):
            different = each[:1] if all(loss is each[0] for loss in each) else each
            squares = [loss.as_squares(self.shape) for loss in different]
            values = self.executor.add_square_seeds(self.adjoint.current, y, squares)
        else:
            values, seeds = self.evaluate(each, step, y)
            self.executor.add(self.adjoint.current, seeds)
        self.values.append(values)


@contextmanager
def _noting(number: int) -> Iterator[None]:
    """Add the member's number to errors, as `batch.run_members` does."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in member {number} of the batch")
        raise


def _for_all(progress: Progress | None, count: int) -> Progress | None:
    return None if progress is None else lambda steps: progress(steps * count)


def _by_step(each_loss: Sequence[Any], steps: int) -> dict[int, list[Any]]:
    """{step: one loss a member, or None}."""
    found = [losses.by_step(loss, steps) for loss in each_loss]
    return {step: [each.get(step) for each in found] for step in sorted(set().union(*found))}


def _save(executor: CudaExecutor, saved: Any, n: int, state: Any) -> None:
    if isinstance(saved, np.ndarray):
        saved[:, n] = executor.look(state)
        return
    for number in range(len(saved)):
        to = saved[number][n]
        to.copy_to_device(state.array[number].reshape(to.shape), stream=executor.stream)
