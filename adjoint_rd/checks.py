"""What a simulation accepts as numbers, arrays and dtype."""

from typing import Any

import numpy as np

from .arrays import as_array
from .errors import InputError, as_real, shown
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
