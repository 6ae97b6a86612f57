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

Rules: `adjoint_rd.descent.update_rules`.

The state of an iteration is never changed in place, so that an interrupt at any moment leaves the last whole iteration,
and a file of it continues to the same numbers.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, approx_fprime

from .arrays import as_array
from .descent.checkpoint_file import CheckpointFile
from .descent.guarded_function import GuardedFunction
from .descent.loop import Descent
from .descent.state import Options, Trial
from .descent.update_rules import METHODS
from .errors import InputError, as_real, check_choice, check_count

__all__ = ["METHODS", "Trial", "adaptive", "minimize"]

FORWARD_STEP = 1.4901161193847656e-08  # the root of the rounding unit, as in SciPy
MOST_DECAY = 1.0 - 1e-12  # Adam divides by 1 - decay


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
        nfev. scale: the last s. trials: a list of `Trial`. history: {"value", "scale", "gradient"} by iteration,
        NaN where a batch allowed no step.

    Raises
    ------
    InputError
        Also if `fun` is abnormal at x0.
    CheckpointError
        If the file is of another problem or not readable.
    """
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise InputError(f"betas={betas!r} must be the two decays of Adam's means.")
    options = Options(
        method=check_choice("method", method, METHODS),
        learning_rate=None if learning_rate is None else _number("learning_rate", learning_rate, 0.0, math.inf),
        momentum=_number("momentum", momentum, -1e-300, 1.0),
        betas=(_number("betas[0]", betas[0], -1e-300, MOST_DECAY), _number("betas[1]", betas[1], -1e-300, MOST_DECAY)),
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
    if judge is not None and not callable(judge):
        raise InputError(f"judge={judge!r} must be a function x -> loss.")
    function = GuardedFunction(fun, abnormal, guards, check_count("guard_every", guard_every, 1))
    if rise is None and options.stochastic and not callable(getattr(function.owner, "begin", None)):
        options = replace(options, rise=1.0)
    elif rise is None and function.windowed:
        options = replace(options, rise=0.02)
    low, high = _check_bounds(function.bounds if bounds is None else bounds, x0.size)
    _check_inside(x0, low, high)
    loop = Descent(function, options, low, high, judge, check_count("judge_every", judge_every, 1))
    if callback is not None and not callable(callback):
        raise InputError(f"callback={callback!r} must be a function of the current point.")
    try:
        file = None if checkpoint is None else CheckpointFile(Path(checkpoint), options, function.problem)
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
    """`minimize` as a method for SciPy: ``scipy.optimize.minimize(fun, x0, method=adjoint_rd.adaptive)``.

    The gradient is that of an `Objective`; of `jac`, a function or True; or, without `jac`, from forward differences
    (`scipy.optimize.approx_fprime`). Options are those of `minimize`, with `rule` in place of `method`. Constraints are
    not supported; `hess` and `hessp` are not used.
    """
    if constraints is not None and np.size(constraints):
        raise InputError("method=adaptive takes bounds, no constraints; use SLSQP or trust-constr for those.")
    if not callable(fun):
        raise InputError(f"fun={fun!r} must be an Objective or a function.")
    options.pop("disp", None)
    if options.get("tol", 0.0) is None:
        options.pop("tol")
    chosen = dict(method=rule, bounds=bounds, callback=callback, **options)
    if jac is None and callable(getattr(fun, "value_and_grad", None)):
        return minimize(fun, x0, **chosen)
    if not callable(jac) and jac not in (None, "2-point"):
        raise InputError(f"jac={jac!r} must be True, a function or None (forward differences) for method=adaptive.")
    inner = getattr(getattr(fun, "fun", fun), "__self__", None)  # SciPy wraps fun when jac=True

    def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
        return fun(x, *args), jac(x, *args) if callable(jac) else approx_fprime(x, fun, FORWARD_STEP, *args)

    for name in ("log", "window", "begin", "runs"):
        if hasattr(inner, name):
            setattr(value_and_grad, name, getattr(inner, name))
    return minimize(value_and_grad, x0, **chosen)


# Arguments


def _most(method: str, learning_rate: float | None) -> float:
    return 1e6 if method in ("gd", "momentum") and learning_rate is None else 1.0


def _check_x0(x0: Any) -> np.ndarray:
    given = as_array("x0", x0)
    if given.dtype.kind not in "iuf" or given.ndim != 1 or not given.size or not np.isfinite(given).all():
        raise InputError(f"x0 of shape {given.shape} and dtype {given.dtype} must be a vector of finite numbers.")
    return np.array(given, dtype=np.float64)


def _check_bounds(bounds: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    if bounds is None:
        return np.full(n, -np.inf), np.full(n, np.inf)
    if hasattr(bounds, "lb"):
        try:
            low, high = (np.broadcast_to(end, (n,)).astype(float) for end in (bounds.lb, bounds.ub))
        except (TypeError, ValueError):
            raise InputError(f"bounds={bounds!r} must have ends of {n} items, as x has.") from None
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
