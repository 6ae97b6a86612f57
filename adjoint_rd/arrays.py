"""What users give as arrays, read once at the border."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import InputError, as_real, check_count


def as_array(argument: str, value: Any) -> np.ndarray:
    """Return `value` as an array, without a copy where it is one; an `InputError` that names the argument otherwise."""
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError(f"{argument} is no array: its rows differ in length.") from None
    except (TypeError, RuntimeError) as error:  # arrays of CuPy, tensors of torch on a card or with a gradient
        raise InputError(f"{argument} is a {type(value).__name__} that NumPy cannot read: {error}") from None


def as_real_array(argument: str, value: Any) -> np.ndarray:
    """As `as_array`, of real numbers (not truth values)."""
    array = as_array(argument, value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{argument} has dtype {array.dtype}; it must be real numbers.")
    return array


def as_numbers(argument: str, value: Any) -> tuple[float, ...]:
    """Return a sequence of real numbers as floats."""
    try:
        return tuple(as_real(each) for each in value)
    except (TypeError, OverflowError):
        raise InputError(f"{argument}={value!r} must be a sequence of real numbers.") from None


def as_species(value: Any) -> tuple[bool, list[int]]:
    """Return whether `value` is one index of a species, and the list of those it names."""
    single = not isinstance(value, Iterable) or isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0
    return single, [check_count("species", each) for each in ([value] if single else value)]
