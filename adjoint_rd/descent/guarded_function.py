"""The user's function at a trial point: its value and gradient, or why the point must not be accepted."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import as_real_array
from ..errors import AdjointRDError, InputError, as_real, shown
from ..guards import Limit, check_guards, default_guards, first_alarm


class Abnormal(Exception):
    """A trial that must not be accepted; the message is the reason."""


class GuardedFunction:
    """The user's function, with abnormal results turned into `Abnormal`."""

    def __init__(self, fun: Any, abnormal: Callable[..., str | None] | None, guards: Any = None, guard_every: int = 10):
        owner = fun
        if callable(getattr(fun, "value_and_grad", None)):
            self.call = fun.value_and_grad
        elif callable(fun):
            self.call = fun
            bound = getattr(fun, "__self__", None)
            owner = bound if callable(getattr(bound, "value_and_grad", None)) else fun
        else:
            raise InputError(f"fun={shown(fun)} must be an Objective or a function x -> (value, gradient).")
        self.owner = owner
        if abnormal is not None and not callable(abnormal):
            raise InputError(f"abnormal={abnormal!r} must be a function of x, the value and the gradient.")
        self.abnormal = abnormal
        self.windowed = getattr(owner, "window", None) is not None
        self.bounds = getattr(owner, "bounds", None)
        describe = getattr(owner, "describe", None)
        self.problem = describe() if callable(describe) else None  # what a checkpoint must be of
        self.count = 0
        self.guards = _check_guards(guards, owner)
        self.guard_every = guard_every
        self._refused: tuple[bytes, str] | None = None

    @staticmethod
    def _pair(found: Any) -> tuple[float, np.ndarray]:
        """(value, gradient) as the loop uses them."""
        if not isinstance(found, Sequence) or len(found) != 2:
            raise InputError(f"fun returned {shown(found)}; it must return (value, gradient).")
        try:
            value = as_real(found[0])
        except (TypeError, OverflowError):
            raise InputError(f"fun returned the value {found[0]!r}; it must be one real number.") from None
        return value, np.array(as_real_array("the gradient that fun returned", found[1]), dtype=np.float64)

    def begin(self, iteration: int) -> None:
        """Draw the batch of an iteration, if `fun` has any."""
        begin = getattr(self.owner, "begin", None)
        if callable(begin):
            begin(iteration)

    def _noted(self) -> list[Any]:
        log = getattr(self.owner, "log", None)
        return log if isinstance(log, list) else []

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(value, gradient), all finite; or raise `Abnormal`."""
        self.count += 1
        before = len(self._noted())
        if before and self._refused is not None and self._refused[0] == x.tobytes():
            raise Abnormal(self._refused[1])  # an Objective that remembers its last result notes it once
        try:
            with np.errstate(all="ignore"):
                if self.guards:
                    alarm = first_alarm(self.owner.runs(x.copy()), self.guards, every=self.guard_every)
                    if alarm is not None:
                        raise Abnormal(f"guard: {alarm}")
                found = self.call(x.copy())
        except (AdjointRDError, ArithmeticError) as error:
            raise Abnormal(f"{type(error).__name__}: {error}") from error
        noted = self._noted()
        if len(noted) > before:
            reason = f"the objective noted it: {getattr(noted[-1], 'reason', noted[-1])}"
            self._refused = (x.tobytes(), reason)
            raise Abnormal(reason)
        value, gradient = self._pair(found)
        if gradient.shape != x.shape:
            raise InputError(f"fun returned a gradient of shape {gradient.shape}; x has {x.shape}.")
        if not math.isfinite(value):
            raise Abnormal(f"the value is {value}")
        if not np.isfinite(gradient).all():
            raise Abnormal(f"{int(np.sum(~np.isfinite(gradient)))} items of the gradient are not finite")
        if self.abnormal is not None:
            reason = self.abnormal(x.copy(), value, gradient.copy())
            if reason:
                raise Abnormal(str(reason))
        return value, gradient


def _check_guards(guards: Any, owner: Any) -> list[Any]:
    if guards is None or guards is False:
        return []
    if not callable(getattr(owner, "runs", None)):
        raise InputError("guards need an Objective, or a fun with runs(x) that gives the (sim, y0, params, steps).")
    return [Limit(), *default_guards()] if guards is True else check_guards(guards)
