"""What is accepted as numbers, arrays and dtype of a simulation, and as what an objective varies."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .arrays import as_array
from .errors import InputError, as_real, did_you_mean, shown
from .kernels.cpu import all_finite

DTYPES = ("float64", "float32")
_COMPILED = {np.dtype(name) for name in DTYPES}


def _finite(array: np.ndarray) -> bool:
    if array.flags.c_contiguous and array.flags.writeable and array.dtype in _COMPILED:  # what is compiled already
        return all_finite(array.reshape(-1))
    return bool(np.isfinite(array).all())


def unmasked(argument: str, value: Any) -> np.ndarray:
    """As `as_array`; masked values are refused."""
    if np.ma.is_masked(value):
        raise InputError(f"{argument} is masked; fill the holes first, for example with the rest state.")
    return as_array(argument, value)


def check_finite(argument: str, array: np.ndarray, largest: float) -> None:
    """Raise an `InputError` unless all values are finite, and no larger than the simulation's dtype holds."""
    narrow = largest < np.finfo(np.float64).max
    if not _finite(array) or (narrow and array.size and not np.max(np.abs(array)) <= largest):
        wrong = ~(np.abs(array) <= largest)
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        beyond = f" in float32, whose largest number is {largest:.3g}" if narrow else ""
        raise InputError(
            f"{argument} has {int(wrong.sum())} values that are not finite{beyond}, the first at index {first}: "
            f"{array[first]}."
        )


def positive(argument: str, value: Any, meaning: str) -> float:
    """Return a positive, finite number, or raise an `InputError` that says what it means."""
    try:
        number = as_real(value)
    except (TypeError, OverflowError):
        raise InputError(f"{argument}={shown(value)} ({meaning}) must be a positive number.") from None
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"{argument}={shown(value)} ({meaning}) must be positive and finite.")
    return number


def state_dtype(dtype: Any) -> np.dtype:
    """Return float64 or float32, or raise an `InputError`."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        found = None
    if found is None or found.name not in DTYPES or not found.isnative:
        raise InputError(f"dtype={dtype!r} must be 'float64' or 'float32'.")
    return found


def free_and_fixed(
    model: Any, free: Any, fixed: Any, more: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """`free` and `fixed` (or None) if each parameter of the model is in one of them.

    `more` may be free too: {name: why it is not for fixed}.
    """
    more = more or {}
    known = (*model.names, *more)
    choice = ", ".join(model.names) + "".join(f" or {name!r}" for name in more)
    free = (free,) if isinstance(free, str) else free
    if not isinstance(free, Iterable):
        raise InputError(f"free={free!r} must be names of what to vary: {choice}.")
    if not isinstance(fixed, Mapping | None):
        raise InputError(f"fixed={fixed!r} must be a dict {{name: number, or array for a field}}.")
    free, fixed = tuple(free), dict(fixed or {})
    if not free:
        raise InputError(f"free is empty; name what to vary: {choice}.")
    for argument, name in [*(("free", name) for name in free), *(("fixed", name) for name in fixed)]:
        if not isinstance(name, str) or name not in known:
            raise InputError(
                f"{argument} has {name!r}, which {model.name} does not know; its parameters are "
                f"{', '.join(model.names)}.{did_you_mean(name, known)}"
            )
        if argument == "fixed" and name in more:
            raise InputError(f"fixed has {name!r}; {more[name]}.")
    if len(set(free)) < len(free):
        raise InputError(f"free={free!r} names something twice.")
    missing = [name for name in model.names if name not in free and name not in fixed]
    if missing:
        raise InputError(f"{', '.join(missing)} must be in free or in fixed.")
    return free, fixed
