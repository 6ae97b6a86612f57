"""What users give as arrays, read once at the border."""

from typing import Any

import numpy as np

from .errors import InputError


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
