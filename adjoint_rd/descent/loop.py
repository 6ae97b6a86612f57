"""The loop of `adjoint_rd.minimize`: proposal, trials under the adaptive scaling, the next state."""

import contextlib
import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from ..errors import AdjointRDError, CheckpointError, InputError, as_real, attach_result
from .checkpoint_file import CheckpointFile
from .guarded_function import Abnormal, GuardedFunction
from .state import Best, Options, State, Trial
from .update_rules import RULES

FIRST_MOVE = 0.1  # what the first step changes x by, at most, when no learning rate is given
ADAM_RATE = 0.02
OTHER_PROBLEM = 1e-3  # change of the value at a checkpoint's point, over the largest value so far, that is no rounding

STATUS = {
    0: "Converged: the projected gradient is at most tol.",
    1: "Stopped after maxiter iterations.",
    2: "Converged: the decrease that the gradient promises is below rounding errors.",
    3: "Stuck: no trial along the update was acceptable, shrunk or enlarged. Look at the last of .trials; if the "
    "gradient is that of a window, raise `rise`.",
    4: "Stopped by the callback (StopIteration).",
    5: "Interrupted (KeyboardInterrupt); x is the best point so far.",
    6: "Stuck: the objective was abnormal at the current point in max_skips batches in a row.",
}
SUCCESS = (0, 2)


class Descent:
    """One run of `adjoint_rd.minimize`."""

    def __init__(
        self,
        function: GuardedFunction,
        options: Options,
        low: np.ndarray,
        high: np.ndarray,
        judge: Any,
        judge_every: int,
    ):
        self.function = function
        self.options = options
        self.low, self.high = low, high
        self.judge, self.judge_every = judge, judge_every
        self.trials: list[Trial] = []
        self.history: dict[str, list[float]] = {"value": [], "scale": [], "gradient": []}

    def project(self, x: np.ndarray) -> np.ndarray:
        """The nearest point in the bounds."""
        return np.clip(x, self.low, self.high)

    def slope(self, state: State) -> float:
        """max |x - P(x - g)|: the gradient without what the bounds hold back."""
        return float(np.max(np.abs(state.x - self.project(state.x - state.gradient))))

    # A whole run

    def run(
        self, x0: np.ndarray, maxiter: int, callback: Any, file: CheckpointFile | None, every: int, resume: bool
    ) -> OptimizeResult:
        """Descend to the end, an interrupt or an error."""
        state: State | None = None
        try:
            state = self._resumed(file, x0) if file is not None and file.prepare(resume) else self._first(x0)
            status = 1
            while state.iteration < maxiter:
                if not self.options.stochastic and self.slope(state) <= self.options.tol:
                    status = 0
                    break
                found = self._iterate(state)
                if isinstance(found, int):
                    status = found
                    break
                state = found
                if file is not None and state.iteration % every == 0:
                    file.save(state, self.trials, self.history)
                if callback is not None and self._stops(callback, state):
                    status = 4
                    break
            if status == 1 and not self.options.stochastic and self.slope(state) <= self.options.tol:
                status = 0
            if self.judge is not None:
                # Not kept in the file: an uninterrupted run would not have asked here.
                final = self._judged(state, self.judge)
                result = self._result(replace(state, best=final), status)
            else:
                result = self._result(state, status)
        except KeyboardInterrupt:
            if state is None:
                raise
            result = self._result(state, 5)
        except BaseException as error:
            if state is not None:
                attach_result(error, self._result(state, 3))
                if file is not None:
                    with contextlib.suppress(OSError):  # the first error is the one to tell
                        file.save(state, self.trials, self.history)
            raise
        while file is not None:
            try:
                file.save(state, self.trials, self.history)
                break
            except BaseException as error:  # a full disk, or a second Ctrl-C
                if not isinstance(error, KeyboardInterrupt) or result.status == 5:
                    attach_result(error, result)
                    raise
                result = self._result(state, 5)
        return result

    def _resumed(self, file: CheckpointFile, x0: np.ndarray) -> State:
        state, self.trials, self.history = file.load(x0.shape)
        if self.options.stochastic:
            return state
        # Objectives remember their last good point; and this shows whether it is the same problem.
        try:
            value, _ = self.function(state.x)
        except Abnormal as error:
            raise CheckpointError(f"{file.path} holds a point where fun is abnormal now: {error}.") from None
        if abs(value - state.value) > OTHER_PROBLEM * max(map(abs, (state.value, *self.history["value"]))):
            raise CheckpointError(
                f"{file.path} is of another problem: fun is {value:.6g} at its point, not {state.value:.6g} (another "
                "loss, initial state or fixed parameter). Delete it, or use the same."
            )
        if value != state.value:
            warnings.warn(
                f"fun is {value!r} where the checkpoint {file.path} says {state.value!r}: it computes with other "
                "rounding here, or is a slightly different one; the run will not be the same to the last bit.",
                stacklevel=4,
            )
        return state

    def _first(self, x0: np.ndarray) -> State:
        x = self.project(x0)
        self.function.begin(0)
        try:
            value, gradient = self.function(x)
        except Abnormal as error:
            if isinstance(error.__cause__, AdjointRDError):
                raise error.__cause__ from None
            raise InputError(f"fun is abnormal at x0: {error}. Start from a point where it is finite.") from None
        judged = value if self.judge is None else self._ask(self.judge, x)
        largest = float(np.max(np.abs(gradient)))
        rate = self.options.learning_rate
        if rate is None:
            rate = ADAM_RATE if self.options.method == "adam" else FIRST_MOVE / max(largest, 1e-300)
        scale = min(1.0, self.options.max_scale)
        best = Best(x, judged, gradient, 0)
        return State(x, value, gradient, best, scale=scale, rate=rate, nfev=self.function.count, recent=(value,))

    def _iterate(self, state: State) -> State | int:
        """The next state, or the status to stop with."""
        options = self.options
        del self.trials[state.trials :]  # what an interrupted iteration left
        for series in self.history.values():
            del series[state.iteration :]
        self.function.count = state.nfev
        if options.stochastic:
            self.function.begin(state.iteration)
            try:
                value, gradient = self.function(state.x)
            except Abnormal as error:
                self._log(state, 0.0, math.nan, False, f"at the current point: {error}")
                if state.skips >= options.max_skips:
                    return 6
                return self._count(replace(state, iteration=state.iteration + 1, skips=state.skips + 1))
            state = replace(state, value=value, gradient=gradient, recent=(value,))
        proposal, memory = RULES[options.method](options, state)
        # Descent methods need a descent direction; a stale memory may not give one.
        if not np.isfinite(proposal).all() or (not options.stochastic and self._promise(state, proposal) <= 0.0):
            state = replace(state, memory={})
            proposal, memory = RULES[options.method](options, state)
        found = self._search(state, proposal)
        if found is None:
            if state.memory:  # once more, from steepest descent
                return self._iterate(self._count(replace(state, memory={}, scale=min(1.0, options.max_scale))))
            if options.stochastic and state.skips < options.max_skips:  # another batch may allow a step
                return self._count(replace(state, iteration=state.iteration + 1, skips=state.skips + 1, memory={}))
            promise = self._promise(state, proposal)
            lost_in_rounding = 0.0 <= promise <= 1e2 * np.finfo(float).eps * abs(state.value)
            return 2 if lost_in_rounding and not options.stochastic else 3
        x, value, gradient, taken, scale, shrunk = found
        if shrunk and "m" in memory:  # what carried us over the edge should not carry on
            memory = {**memory, "m": memory["m"] * min(1.0, taken / state.scale)}
        successes = 0 if shrunk else state.successes + 1
        if successes >= options.patience and scale < options.max_scale:
            scale, successes = min(scale * options.grow, options.max_scale), 0
        best = state.best
        if self.judge is None and value <= best.value:  # of equal ones the last: rounding errors hide progress
            best = Best(x, value, gradient, state.iteration + 1)
        next_state = replace(
            state,
            x=x,
            value=value,
            gradient=gradient,
            best=best,
            iteration=state.iteration + 1,
            scale=scale,
            successes=successes,
            skips=0,
            memory=memory,
            recent=(*state.recent, value)[-options.recent :],
        )
        if self.judge is not None and next_state.iteration % self.judge_every == 0:
            next_state = replace(next_state, best=self._judged(next_state, self.judge))
        for name, number in (("value", value), ("scale", taken), ("gradient", float(np.max(np.abs(gradient))))):
            self.history[name].extend([math.nan] * (state.iteration - len(self.history[name])) + [number])
        return self._count(next_state)

    def _count(self, state: State) -> State:
        return replace(state, nfev=self.function.count, trials=len(self.trials))

    def _promise(self, state: State, proposal: np.ndarray) -> float:
        moved = self.project(state.x + proposal) - state.x
        return -float(moved @ state.gradient)

    def _search(self, state: State, proposal: np.ndarray) -> Any:
        """(x, value, gradient, scale, next scale, whether it took shrinking) of an acceptable trial, or None."""
        options = self.options
        longest = float(np.max(np.abs(proposal)))
        start = min(state.scale, options.max_move / longest if longest > 0.0 else state.scale)
        # A batch that allows no step of some size allows none that is worth its trials.
        smallest = (1e-6 if options.stochastic else 1e-15) * max(1.0, float(np.max(np.abs(state.x))))
        scale, kept = start, state.scale  # what is tried, and what the next iteration begins with
        for n in range(options.max_shrinks + 1):
            trial, too_high = self._try(state, proposal, scale)
            if trial is not None:
                return (*trial, scale, kept, n > 0)
            scale *= options.backtrack if too_high else options.shrink
            # Rules that find their own length begin with it again, unless it led to where the numbers break.
            if not (too_high and options.method in ("bb", "lbfgs")):
                kept = scale
            if scale < options.min_scale or scale * longest < smallest:
                break
        for n in range(1, options.max_jumps + 1):
            scale = start * options.jump**n
            if longest * scale > options.max_move:
                break
            trial, _ = self._try(state, proposal, scale)
            if trial is not None:
                return (*trial, scale, min(scale, options.max_scale), True)
        return None

    def _try(self, state: State, proposal: np.ndarray, scale: float) -> tuple[Any, bool]:
        """((x, value, gradient), False), or (None, whether it was normal but too high)."""
        x = self.project(state.x + scale * proposal)
        try:
            value, gradient = self.function(x)
        except Abnormal as error:
            self._log(state, scale, math.nan, False, str(error))
            return None, False
        ceiling = max(state.recent)
        ceiling += self.options.rise * abs(ceiling) if self.options.rise else 0.0
        if self.options.rise == 0.0:
            ceiling += 1e-4 * min(float((x - state.x) @ state.gradient), 0.0)
        if value > ceiling:
            self._log(state, scale, value, False, f"the value is above {ceiling:.6g}")
            return None, True
        self._log(state, scale, value, True, "")
        return (x, value, gradient), False

    def _log(self, state: State, scale: float, value: float, accepted: bool, reason: str) -> None:
        self.trials.append(Trial(state.iteration, scale, value, accepted, reason))

    def _ask(self, judge: Callable[[np.ndarray], float], x: np.ndarray) -> float:
        found = judge(x.copy())
        try:
            number = as_real(found)
        except (TypeError, OverflowError):
            raise InputError(f"judge returned {found!r}; it must return one real number.") from None
        return math.inf if math.isnan(number) else number

    def _judged(self, state: State, judge: Callable[[np.ndarray], float]) -> Best:
        value = self._ask(judge, state.x)
        if value < state.best.value:
            return Best(state.x, value, state.gradient, state.iteration)
        return state.best

    def _stops(self, callback: Any, state: State) -> bool:
        try:
            if _wants_result(callback):
                current = OptimizeResult(
                    x=state.x.copy(), fun=state.value, jac=state.gradient.copy(), nit=state.iteration, scale=state.scale
                )
                callback(intermediate_result=current)
            else:
                callback(state.x.copy())
        except StopIteration:
            return True
        return False

    def _result(self, state: State, status: int) -> OptimizeResult:
        best = state.best
        history = {name: _whole(series, state.iteration) for name, series in self.history.items()}
        return OptimizeResult(
            x=best.x.copy(),
            fun=best.value,
            jac=best.gradient.copy(),
            best_iteration=best.iteration,
            x_last=state.x.copy(),
            fun_last=state.value,
            success=status in SUCCESS,
            status=status,
            message=STATUS[status],
            nit=state.iteration,
            nfev=state.nfev,
            scale=state.scale,
            trials=self.trials[: state.trials],
            history=history,
        )


# Helpers


def _whole(series: list[float], n: int) -> np.ndarray:
    """The first n numbers of a series, NaN for iterations at its end that were skipped."""
    return np.array((series + [math.nan] * (n - len(series)))[:n])


def _wants_result(callback: Any) -> bool:
    try:
        return list(inspect.signature(callback).parameters) == ["intermediate_result"]
    except (TypeError, ValueError):
        return False
