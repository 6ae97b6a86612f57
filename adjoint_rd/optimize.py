"""Descent that keeps away from where the numbers break: update rules under one adaptive scaling, in SciPy's manner.

In each iteration a rule proposes an update d from the gradients so far, and a trial is made at ``x + s d`` (kept in the
bounds):

    shrink  while the trial is abnormal (too high), s is multiplied by `shrink` (`backtrack`), up to `max_shrinks` times
    jump    if that does not help, s is tried at `jump`, `jump`^2, ... times where it began, at most `max_jumps` times
    grow    after `patience` accepted trials in a row without shrinking, s is multiplied by `grow`, up to `max_scale`

A trial is abnormal if its value or gradient is not finite, if the objective raises a `StabilityError`,
`DivergenceError` or another error of this library or of floating-point arithmetic, if an `Objective` notes it in its
`log`, if one of `guards` alarms on its run, or if `abnormal` says so. Abnormal trials are never accepted. Each trial is
logged with its reason.

Rules (g the gradient, a the learning rate)

    gd        d = -a g
    momentum  m <- b m + g,  d = -a m                                                     Polyak 1964
    adam      d = -a m / (sqrt(q) + eps) with decayed means m of g and q of g^2           Kingma and Ba 2015
    bb        d = -g (s.s / s.y) or -g (s.y / y.y), in turn                               Barzilai and Borwein 1988
    lbfgs     d = -H g, H from the last pairs (s, y) by the two-loop recursion            Nocedal and Wright 7.4

The state of an iteration is never changed in place, so that an interrupt at any moment leaves the last whole iteration,
and a file of it continues to the same numbers.
"""

import contextlib
import inspect
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from . import files
from .arrays import as_array, as_real_array
from .errors import AdjointRDError, CheckpointError, InputError, as_real, check_choice, check_count
from .guards import Limit, default_guards, first_alarm

__all__ = ["METHODS", "Trial", "adaptive", "minimize"]

METHODS = ("gd", "momentum", "adam", "bb", "lbfgs")
FIRST_MOVE = 0.1  # what the first step changes x by, at most, when no learning rate is given
ADAM_RATE = 0.02
FILE_FORMAT, FILE_VERSION = "adjoint_rd.minimize", 2

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


@dataclass(frozen=True)
class Trial:
    """One trial: its iteration, scale and value, whether it was accepted, and why not."""

    iteration: int
    scale: float
    value: float
    accepted: bool
    reason: str


@dataclass(frozen=True)
class _Options:
    method: str
    learning_rate: float | None
    momentum: float
    betas: tuple[float, float]
    epsilon: float
    memory: int
    shrink: float
    backtrack: float
    grow: float
    jump: float
    max_shrinks: int
    max_jumps: int
    max_skips: int
    patience: int
    min_scale: float
    max_scale: float
    max_move: float
    rise: float
    recent: int
    tol: float
    stochastic: bool


@dataclass(frozen=True)
class _Best:
    x: np.ndarray
    value: float
    gradient: np.ndarray
    iteration: int


@dataclass(frozen=True)
class _State:
    """All that the next iteration depends on."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    best: _Best
    iteration: int = 0
    scale: float = 1.0
    successes: int = 0
    skips: int = 0
    rate: float = 1.0
    nfev: int = 0
    trials: int = 0
    memory: dict[str, np.ndarray] = field(default_factory=dict)
    recent: tuple[float, ...] = ()


class _Abnormal(Exception):
    """A trial that must not be accepted; the message is the reason."""


# Rules: direction(options, state) -> (d, memory); the arrays in memory are never changed in place


def _gd(options: _Options, state: _State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return -state.rate * state.gradient, {}


def _momentum(options: _Options, state: _State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    m = options.momentum * state.memory.get("m", 0.0) + state.gradient
    return -state.rate * m, {"m": m}


def _adam(options: _Options, state: _State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    first, second = options.betas
    g = state.gradient
    n = state.memory.get("n", np.zeros(())) + 1.0
    m = first * state.memory.get("m", 0.0) + (1.0 - first) * g
    q = second * state.memory.get("q", 0.0) + (1.0 - second) * g * g
    d = -state.rate * (m / (1.0 - first**n)) / (np.sqrt(q / (1.0 - second**n)) + options.epsilon)
    return d, {"n": n, "m": m, "q": q}


def _bb(options: _Options, state: _State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    length = state.rate
    if "x" in state.memory:
        s, y = state.x - state.memory["x"], state.gradient - state.memory["g"]
        sy = float(s @ y)
        length = float(state.memory["length"])
        if sy > 0.0:
            length = float(s @ s) / sy if state.iteration % 2 else sy / float(y @ y)
    return -length * state.gradient, {"x": state.x, "g": state.gradient, "length": np.asarray(length)}


def _lbfgs(options: _Options, state: _State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    n = state.x.size
    S = state.memory.get("s", np.zeros((0, n)))
    Y = state.memory.get("y", np.zeros((0, n)))
    if "x" in state.memory:
        s, y = state.x - state.memory["x"], state.gradient - state.memory["g"]
        # A pair without curvature would spoil H; at a step that moved nothing both are zero.
        if float(s @ y) > 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y)):
            S, Y = np.vstack([S, s])[-options.memory :], np.vstack([Y, y])[-options.memory :]
    memory = {"s": S, "y": Y, "x": state.x, "g": state.gradient}
    if not len(S):
        return -state.rate * state.gradient, memory
    d = -state.gradient
    products = np.sum(S * Y, axis=1)
    along = np.empty(len(S))
    for i in range(len(S) - 1, -1, -1):
        along[i] = S[i] @ d / products[i]
        d = d - along[i] * Y[i]
    d = d * (products[-1] / float(Y[-1] @ Y[-1]))
    for i in range(len(S)):
        d = d + (along[i] - Y[i] @ d / products[i]) * S[i]
    return d, memory


_RULES: dict[str, Callable[..., Any]] = {"gd": _gd, "momentum": _momentum, "adam": _adam, "bb": _bb, "lbfgs": _lbfgs}


def minimize(
    fun: Any,
    x0: Any,
    *,
    method: str = "lbfgs",
    maxiter: int = 200,
    tol: float = 1e-8,
    bounds: Any = None,
    callback: Callable[..., Any] | None = None,
    learning_rate: float | None = None,
    stochastic: bool = False,
    judge: Callable[[np.ndarray], float] | None = None,
    judge_every: int = 10,
    abnormal: Callable[[np.ndarray, float, np.ndarray], str | None] | None = None,
    guards: Any = None,
    guard_every: int = 10,
    checkpoint: Any = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    shrink: float = 0.1,
    backtrack: float = 0.3,
    grow: float = 2.0,
    jump: float = 1.2,
    max_shrinks: int = 12,
    max_jumps: int = 3,
    max_skips: int = 10,
    patience: int = 3,
    min_scale: float = 1e-12,
    max_scale: float | None = None,
    max_move: float = math.inf,
    rise: float | None = None,
    recent: int | None = None,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    memory: int = 10,
) -> OptimizeResult:
    """Minimise a function by guarded descent; see the module for how a step is found.

    Parameters
    ----------
    fun : Objective or callable
        An `Objective` (its `value_and_grad`, and its `bounds` unless others are given), or ``fun(x) -> (value,
        gradient)``. If it has a method ``begin(iteration)``, that is called before each iteration: a stochastic
        objective draws its batch there, from the number, so that the trial sees the same batch as the gradient and a
        resumed run the same batches.
    x0 : array_like (n,)
        The start. `fun` must be normal there.
    method : {"gd", "momentum", "adam", "bb", "lbfgs"}
    maxiter : int
    tol : float
        Stop when the projected gradient ``max |x - P(x - g)|`` is at most this. Not used if `stochastic`.
    bounds : sequence of (low, high), or scipy.optimize.Bounds, optional
        None is open.
    callback : callable, optional
        ``callback(intermediate_result)`` with .x, .fun, .jac, .nit, .scale of the current point, after each iteration;
        or ``callback(x)``, as in SciPy by the parameter's name. `StopIteration` ends the run. Other exceptions reach
        the caller with the best result as their attribute `result`.
    learning_rate : float, optional
        a in the rules. By default such that the first step moves x by at most 0.1 (Adam: 0.02); bb and lbfgs use it for
        their first step only.
    stochastic : bool
        `fun` differs from iteration to iteration: it is evaluated anew at each, and values are compared only with that
        of the same iteration.
    judge : callable, optional
        ``judge(x) -> float`` decides which point is best, such as the loss over a fixed evaluation set. It is asked at
        the start, every `judge_every` iterations and at the end; without it the value of `fun` decides.
    abnormal : callable, optional
        ``abnormal(x, value, gradient)`` returns a reason to refuse a point, or None.
    guards : True or sequence of guards, optional
        Refuse trials on whose runs a guard of `adjoint_rd.guards` alarms. They look before the value is computed, at a
        run without gradient (about a third of the cost), and stop it. True: `guards.Limit`, which needs no run, and
        the default guards of runs. `fun` must be an `Objective`, or have ``runs(x)`` that gives (sim, y0, params,
        steps).
    guard_every : int
        Steps between their looks.
    checkpoint : path, optional
        A file of the last whole iteration (see `adjoint_rd.files`), replaced every `checkpoint_every` iterations and at
        the end. The one before it stays, with ``.previous`` added to its name.
    resume : bool
        Continue from `checkpoint` if that file is there, or from the one before it if it is damaged. The numbers are
        those of an uninterrupted run, to the last bit.
    shrink, backtrack, grow, jump, max_shrinks, max_jumps, patience, min_scale, max_scale
        See the module. `shrink` is for abnormal trials, `backtrack` for those that are too high. `max_scale` is 1 by
        default, and 1e6 for gd and momentum when no learning rate is given.
    max_skips : int
        With `stochastic`: give up after so many batches in a row that are abnormal at the current point, or allow no
        step.
    max_move : float
        The most that an item of x changes in one step.
    rise : float, optional
        A trial is too high above ``(1 + rise)`` times the largest of the last `recent` values. By default 0; 0.02 for
        gradients of a window, which do not belong to the value; 1 for stochastic objectives without `begin`, whose
        trial sees another batch.
    recent : int, optional
        By default 1 for gd and lbfgs (each step goes down), else 5.
    momentum, betas, epsilon, memory
        Of the rules: b; the decays of Adam and its eps; the pairs of L-BFGS.

    Returns
    -------
    scipy.optimize.OptimizeResult
        x, fun, jac, best_iteration: the best point. x_last, fun_last: the last one. success, status, message, nit,
        nfev. scale: the last s. trials: a list of `Trial`. history: {"value", "scale", "gradient"} by iteration.

    Raises
    ------
    InputError
        Also if `fun` is abnormal at x0.
    CheckpointError
        If the file is of another problem or not readable.
    """
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise InputError(f"betas={betas!r} must be the two decays of Adam's means.")
    options = _Options(
        method=check_choice("method", method, METHODS),
        learning_rate=None if learning_rate is None else _number("learning_rate", learning_rate, 0.0, math.inf),
        momentum=_number("momentum", momentum, -1e-300, 1.0),
        betas=(_number("betas[0]", betas[0], -1e-300, 1.0), _number("betas[1]", betas[1], -1e-300, 1.0)),
        epsilon=_number("epsilon", epsilon, 0.0, math.inf),
        memory=check_count("memory", memory, 1),
        shrink=_number("shrink", shrink, 0.0, 1.0),
        backtrack=_number("backtrack", backtrack, 0.0, 1.0),
        grow=_number("grow", grow, 1.0 - 1e-12, math.inf),
        jump=_number("jump", jump, 1.0, math.inf),
        max_shrinks=check_count("max_shrinks", max_shrinks),
        max_jumps=check_count("max_jumps", max_jumps),
        max_skips=check_count("max_skips", max_skips),
        patience=check_count("patience", patience),
        min_scale=_number("min_scale", min_scale, 0.0, math.inf),
        max_scale=_number("max_scale", _most(method, learning_rate) if max_scale is None else max_scale, 0.0, math.inf),
        max_move=_number("max_move", max_move, 0.0, math.inf, closed=True),
        rise=0.0 if rise is None else _number("rise", rise, -1e-300, math.inf, closed=True),
        recent=(1 if method in ("gd", "lbfgs") else 5) if recent is None else check_count("recent", recent, 1),
        tol=_number("tol", tol, -1e-300, math.inf),
        stochastic=bool(stochastic),
    )
    x0 = _check_x0(x0)
    function = _Function(fun, abnormal, guards, check_count("guard_every", guard_every, 1))
    if rise is None and options.stochastic and not callable(getattr(function.owner, "begin", None)):
        options = replace(options, rise=1.0)
    elif rise is None and function.windowed:
        options = replace(options, rise=0.02)
    low, high = _check_bounds(function.bounds if bounds is None else bounds, x0.size)
    _check_inside(x0, low, high)
    loop = _Loop(function, options, low, high, judge, check_count("judge_every", judge_every, 1))
    if callback is not None and not callable(callback):
        raise InputError(f"callback={callback!r} must be a function of the current point.")
    try:
        file = None if checkpoint is None else Path(checkpoint)
    except TypeError:
        raise InputError(f"checkpoint={checkpoint!r} must be a string or a path.") from None
    check_count("checkpoint_every", checkpoint_every, 1)
    return loop.run(x0, check_count("maxiter", maxiter), callback, file, checkpoint_every, resume)


def adaptive(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Any = None,
    rule: str = "lbfgs",
    **options: Any,
) -> OptimizeResult:
    """`minimize` as a method for SciPy: ``scipy.optimize.minimize(fun, x0, jac=True, method=adjoint_rd.adaptive)``.

    Options are those of `minimize`, with `rule` in place of `method`. Constraints are not supported; `hess` and `hessp`
    are not used.
    """
    if constraints is not None and np.size(constraints):
        raise InputError("method=adaptive takes bounds, no constraints; use SLSQP or trust-constr for those.")
    if not callable(jac):
        raise InputError(
            "method=adaptive needs the gradient: give jac=True (fun returns value and gradient) or jac=callable."
        )
    inner = getattr(getattr(fun, "fun", fun), "__self__", None)  # SciPy wraps fun when jac=True

    def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
        return fun(x, *args), jac(x, *args)

    for name in ("log", "window", "begin", "runs"):
        if hasattr(inner, name):
            setattr(value_and_grad, name, getattr(inner, name))
    options.pop("disp", None)
    if options.get("tol", 0.0) is None:
        options.pop("tol")
    return minimize(value_and_grad, x0, method=rule, bounds=bounds, callback=callback, **options)


class _Function:
    """The user's function, with abnormal results turned into `_Abnormal`."""

    def __init__(
        self, fun: Any, abnormal: Callable[..., str | None] | None, guards: Any = None, guard_every: int = 10
    ):
        owner = fun
        if callable(getattr(fun, "value_and_grad", None)):
            self.call = fun.value_and_grad
        elif callable(fun):
            self.call = fun
            bound = getattr(fun, "__self__", None)
            owner = bound if callable(getattr(bound, "value_and_grad", None)) else fun
        else:
            raise InputError(f"fun={fun!r} must be an Objective or a function x -> (value, gradient).")
        self.owner = owner
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
            raise InputError(f"fun returned {found!r}; it must return (value, gradient).")
        try:
            value = as_real(found[0])
        except (TypeError, OverflowError):
            raise InputError(f"fun returned the value {found[0]!r}; it must be one real number.") from None
        return value, np.array(as_real_array("the gradient that fun returned", found[1]), dtype=np.float64)

    def begin(self, iteration: int) -> None:
        begin = getattr(self.owner, "begin", None)
        if callable(begin):
            begin(iteration)

    def _noted(self) -> list[Any]:
        log = getattr(self.owner, "log", None)
        return log if isinstance(log, list) else []

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.count += 1
        before = len(self._noted())
        if before and self._refused is not None and self._refused[0] == x.tobytes():
            raise _Abnormal(self._refused[1])  # an Objective that remembers its last result notes it once
        try:
            with np.errstate(all="ignore"):
                if self.guards:
                    alarm = first_alarm(self.owner.runs(x.copy()), self.guards, every=self.guard_every)
                    if alarm is not None:
                        raise _Abnormal(f"guard: {alarm}")
                found = self.call(x.copy())
        except (AdjointRDError, ArithmeticError) as error:
            raise _Abnormal(f"{type(error).__name__}: {error}") from error
        noted = self._noted()
        if len(noted) > before:
            reason = f"the objective noted it: {getattr(noted[-1], 'reason', noted[-1])}"
            self._refused = (x.tobytes(), reason)
            raise _Abnormal(reason)
        value, gradient = self._pair(found)
        if gradient.shape != x.shape:
            raise InputError(f"fun returned a gradient of shape {gradient.shape}; x has {x.shape}.")
        if not math.isfinite(value):
            raise _Abnormal(f"the value is {value}")
        if not np.isfinite(gradient).all():
            raise _Abnormal(f"{int(np.sum(~np.isfinite(gradient)))} items of the gradient are not finite")
        if self.abnormal is not None:
            reason = self.abnormal(x.copy(), value, gradient.copy())
            if reason:
                raise _Abnormal(str(reason))
        return value, gradient


class _Loop:
    def __init__(
        self, function: _Function, options: _Options, low: np.ndarray, high: np.ndarray, judge: Any, judge_every: int
    ):
        self.function = function
        self.options = options
        self.low, self.high = low, high
        self.judge, self.judge_every = judge, judge_every
        self.trials: list[Trial] = []
        self.history: dict[str, list[float]] = {"value": [], "scale": [], "gradient": []}
        self.owns_file = False  # whether the checkpoint file is of this run
        self.saved: _State | None = None  # what it holds

    def project(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, self.low, self.high)

    def slope(self, state: _State) -> float:
        """max |x - P(x - g)|: the gradient without what the bounds hold back."""
        return float(np.max(np.abs(state.x - self.project(state.x - state.gradient))))

    # A whole run

    def run(
        self, x0: np.ndarray, maxiter: int, callback: Any, file: Path | None, every: int, resume: bool
    ) -> OptimizeResult:
        state: _State | None = None
        try:
            there = file is not None and self._prepare(file, resume)
            state = self._load(file, x0) if there else self._first(x0)  # type: ignore[arg-type]
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
                    self._save(file, state)
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
                _attach(error, self._result(state, 3))
                if file is not None:
                    with contextlib.suppress(OSError):  # the first error is the one to tell
                        self._save(file, state)
            raise
        if file is not None:
            try:
                self._save(file, state)
            except BaseException as error:  # a full disk, or a second Ctrl-C
                _attach(error, result)
                raise
        return result

    def _first(self, x0: np.ndarray) -> _State:
        x = self.project(x0)
        self.function.begin(0)
        try:
            value, gradient = self.function(x)
        except _Abnormal as error:
            if isinstance(error.__cause__, AdjointRDError):
                raise error.__cause__ from None
            raise InputError(f"fun is abnormal at x0: {error}. Start from a point where it is finite.") from None
        judged = value if self.judge is None else float(self.judge(x.copy()))
        largest = float(np.max(np.abs(gradient)))
        rate = self.options.learning_rate
        if rate is None:
            rate = ADAM_RATE if self.options.method == "adam" else FIRST_MOVE / max(largest, 1e-300)
        scale = min(1.0, self.options.max_scale)
        best = _Best(x, judged, gradient, 0)
        return _State(x, value, gradient, best, scale=scale, rate=rate, nfev=self.function.count, recent=(value,))

    def _iterate(self, state: _State) -> "_State | int":
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
            except _Abnormal as error:
                self._log(state, 0.0, math.nan, False, f"at the current point: {error}")
                if state.skips >= options.max_skips:
                    return 6
                return self._count(replace(state, iteration=state.iteration + 1, skips=state.skips + 1))
            state = replace(state, value=value, gradient=gradient, recent=(value,))
        proposal, memory = _RULES[options.method](options, state)
        # Descent methods need a descent direction; a stale memory may not give one.
        if not np.isfinite(proposal).all() or (not options.stochastic and self._promise(state, proposal) <= 0.0):
            state = replace(state, memory={})
            proposal, memory = _RULES[options.method](options, state)
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
            best = _Best(x, value, gradient, state.iteration + 1)
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

    def _count(self, state: _State) -> _State:
        return replace(state, nfev=self.function.count, trials=len(self.trials))

    def _promise(self, state: _State, proposal: np.ndarray) -> float:
        moved = self.project(state.x + proposal) - state.x
        return -float(moved @ state.gradient)

    def _search(self, state: _State, proposal: np.ndarray) -> Any:
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

    def _try(self, state: _State, proposal: np.ndarray, scale: float) -> tuple[Any, bool]:
        """((x, value, gradient), False), or (None, whether it was normal but too high)."""
        x = self.project(state.x + scale * proposal)
        try:
            value, gradient = self.function(x)
        except _Abnormal as error:
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

    def _log(self, state: _State, scale: float, value: float, accepted: bool, reason: str) -> None:
        self.trials.append(Trial(state.iteration, scale, value, accepted, reason))

    def _judged(self, state: _State, judge: Callable[[np.ndarray], float]) -> _Best:
        value = float(judge(state.x.copy()))
        if value < state.best.value:  # false for NaN
            return _Best(state.x, value, state.gradient, state.iteration)
        return state.best

    def _stops(self, callback: Any, state: _State) -> bool:
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

    def _result(self, state: _State, status: int) -> OptimizeResult:
        best = state.best
        history = {name: np.array(series[: state.iteration]) for name, series in self.history.items()}
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

    # Files

    def _prepare(self, file: Path, resume: bool) -> bool:
        """Check, before anything is computed, that checkpoints can be written; return whether there is one to load."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise InputError(
                f"checkpoint={str(file)!r}: cannot write there ({error.strerror or error}). Give another folder."
            ) from None
        if file.is_dir():
            raise InputError(f"checkpoint={str(file)!r} is a folder; give the name of a file.")
        if not resume:
            return False
        files.remove_leftovers(file)
        return file.exists() or files.previous(file).exists()

    def _save(self, file: Path, state: _State) -> None:
        if state is self.saved:
            return
        arrays = {
            "x": state.x,
            "gradient": state.gradient,
            "best_x": state.best.x,
            "best_gradient": state.best.gradient,
        }
        arrays |= {f"memory_{name}": array for name, array in state.memory.items()}
        arrays |= {f"history_{name}": np.array(series[: state.iteration]) for name, series in self.history.items()}
        scalars = {
            name: getattr(state, name)
            for name in ("value", "iteration", "scale", "successes", "skips", "rate", "nfev", "trials", "recent")
        }
        content = {
            "options": asdict(self.options),
            "problem": self.function.problem,
            "state": scalars,
            "best": {"value": state.best.value, "iteration": state.best.iteration},
            "trials": [list(vars(trial).values()) for trial in self.trials[: state.trials]],
        }
        if not self.owns_file:  # files of an earlier run are no generations of this one
            files.previous(file).unlink(missing_ok=True)
        files.write_archive(file, FILE_FORMAT, FILE_VERSION, content, arrays, keep_previous=self.owns_file)
        self.owns_file, self.saved = True, state

    def _load(self, file: Path, x0: np.ndarray) -> _State:
        said, arrays = self._read(file)
        try:
            saved, problem = said["options"], said["problem"]
            state = _State(
                x=arrays["x"],
                gradient=arrays["gradient"],
                best=_Best(arrays["best_x"], said["best"]["value"], arrays["best_gradient"], said["best"]["iteration"]),
                memory={name[7:]: array for name, array in arrays.items() if name.startswith("memory_")},
                **{**said["state"], "recent": tuple(said["state"]["recent"])},
            )
            self.trials = [Trial(*entry) for entry in said["trials"]]
            self.history = {name: arrays[f"history_{name}"].tolist() for name in self.history}
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{file} is an incomplete checkpoint: {error!r}. Delete it to start anew.") from error
        self._check_same(file, saved, problem, state.x.shape, x0.shape)
        self.owns_file = True
        if not self.options.stochastic:
            # Objectives remember their last good point; and this shows whether it is the same problem.
            try:
                value, _ = self.function(state.x)
            except _Abnormal as error:
                raise CheckpointError(f"{file} holds a point where fun is abnormal now: {error}.") from None
            if value != state.value:
                warnings.warn(
                    f"fun is {value!r} where the checkpoint {file} says {state.value!r}: it is another problem, or "
                    "computes with other rounding here; the continued run will not be the same to the last bit.",
                    stacklevel=4,
                )
        return state

    def _read(self, file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The file's header and arrays, or those of the generation before it."""
        try:
            return files.read_archive(file, FILE_FORMAT, FILE_VERSION)
        except (files.DamagedError, OSError) as error:
            older = files.previous(file)
            try:
                found = files.read_archive(older, FILE_FORMAT, FILE_VERSION)
            except (InputError, OSError):
                raise CheckpointError(
                    f"{file} is not a checkpoint of minimize: {error} Delete it to start anew."
                ) from error
            warnings.warn(f"{error} Continuing from the checkpoint before it, {older}.", stacklevel=5)
            os.replace(older, file)  # else the next save would keep the damaged one
            return found
        except InputError as error:
            raise CheckpointError(str(error)) from error

    def _check_same(self, file: Path, saved: Any, problem: Any, shape: Any, x0_shape: Any) -> None:
        """Raise a `CheckpointError` unless the file is of a run with these settings, of this problem."""
        mine = json.loads(json.dumps(asdict(self.options)))
        different = [name for name in mine if mine[name] != saved.get(name)]
        here = json.loads(json.dumps(self.function.problem))
        if problem is not None and here is not None:
            keys = {**problem, **here}
            different += [
                f"{name} {problem.get(name)!r} there, {here.get(name)!r} here"
                for name in keys
                if problem.get(name) != here.get(name)
            ]
        if shape != x0_shape:
            different.append(f"x of shape {shape}, not {x0_shape}")
        if different:
            raise CheckpointError(
                f"{file} is of a run with other settings ({', '.join(different)}). Delete it, or use the same."
            )


# Helpers


def _attach(error: BaseException, result: OptimizeResult) -> None:
    """Hand back the best point with an error, as its attribute `result`."""
    with contextlib.suppress(AttributeError):
        error.result = result  # type: ignore[attr-defined]


def _most(method: str, learning_rate: float | None) -> float:
    return 1e6 if method in ("gd", "momentum") and learning_rate is None else 1.0


def _wants_result(callback: Any) -> bool:
    try:
        return list(inspect.signature(callback).parameters) == ["intermediate_result"]
    except (TypeError, ValueError):
        return False


def _check_guards(guards: Any, owner: Any) -> list[Any]:
    if guards is None or guards is False:
        return []
    if not callable(getattr(owner, "runs", None)):
        raise InputError("guards need an Objective, or a fun with runs(x) that gives the (sim, y0, params, steps).")
    found = [Limit(), *default_guards()] if guards is True else list(guards)
    for guard in found:
        if not all(callable(getattr(guard, name, None)) for name in ("look", "reset")):
            raise InputError(f"guards has {guard!r}, which has no look() and reset(); see adjoint_rd.guards.")
    return found


def _check_x0(x0: Any) -> np.ndarray:
    given = as_array("x0", x0)
    if given.dtype.kind not in "iuf" or given.ndim != 1 or not given.size or not np.isfinite(given).all():
        raise InputError(f"x0 of shape {given.shape} and dtype {given.dtype} must be a vector of finite numbers.")
    return np.array(given, dtype=np.float64)


def _check_bounds(bounds: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    if bounds is None:
        return np.full(n, -np.inf), np.full(n, np.inf)
    if hasattr(bounds, "lb"):
        low, high = np.broadcast_to(bounds.lb, (n,)).astype(float), np.broadcast_to(bounds.ub, (n,)).astype(float)
    else:
        try:
            pairs = np.array(list(bounds), dtype=float)  # None becomes NaN
        except (TypeError, ValueError):
            raise InputError(f"bounds={bounds!r} must be a pair (low, high) for each item of x.") from None
        if pairs.shape != (n, 2):
            raise InputError(f"bounds has shape {pairs.shape}; x has {n} items, each needs a pair (low, high).")
        low, high = (
            np.where(np.isnan(pairs[:, 0]), -np.inf, pairs[:, 0]),
            np.where(np.isnan(pairs[:, 1]), np.inf, pairs[:, 1]),
        )
    wrong = np.flatnonzero(~(low <= high))
    if wrong.size:
        i = int(wrong[0])
        raise InputError(f"bounds has a low end above its high end at index {i}: ({low[i]:g}, {high[i]:g}).")
    return low, high


def _check_inside(x0: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    outside = np.flatnonzero((x0 < low) | (x0 > high))
    if outside.size:
        i = int(outside[0])
        warnings.warn(
            f"x0 is outside its bounds at {outside.size} of {x0.size} items, the first at index {i}: {x0[i]:g} is not "
            f"in [{low[i]:g}, {high[i]:g}]. It is moved to the nearest point inside.",
            stacklevel=3,
        )


def _number(name: str, value: Any, above: float, most: float, closed: bool = False) -> float:
    try:
        number = as_real(value)
    except (TypeError, OverflowError):
        raise InputError(f"{name}={value!r} must be a number.") from None
    if not above < number <= most or (number == most and math.isinf(most) and not closed):
        raise InputError(
            f"{name}={value!r} must be above {max(above, 0.0) if above < 0 else above:g} and at most {most:g}."
        )
    return number
