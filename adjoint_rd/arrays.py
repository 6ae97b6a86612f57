"""What users give as arrays, read once at the border."""

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import InputError, as_real, check_count, shown


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
        raise InputError(f"{argument}={shown(value)} must be a sequence of real numbers.") from None


def as_species(value: Any) -> tuple[bool, list[int]]:
    """Return whether `value` is one index of a species, and the list of those it names."""
    single = not isinstance(value, Iterable) or isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0
    listed = [value] if single else list(value)
    if any(isinstance(each, str) for each in listed):
        raise InputError(f"species={value!r} must be indices, not names: 0 is the model's first species, 1 the second.")
    return single, [check_count("species", each) for each in listed]


def as_names(argument: str, value: Any) -> tuple[Any, ...]:
    """Return one name or several as a tuple; what they name is for the caller to check."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise InputError(f"{argument}={value!r} must be a name or several.")
    return tuple(value)


def as_dict(argument: str, value: Any) -> dict[Any, Any]:
    """Return a mapping as a dict, and None as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{argument}={value!r} must be a dict {{name: value}}.")
    return dict(value)


def as_generator(rng: Any) -> np.random.Generator:
    """Return the random generator given, or the one of a seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    whole = isinstance(rng, numbers.Integral) and not isinstance(rng, bool)
    if rng is None or (whole and rng >= 0):
        return np.random.default_rng(rng)
    raise InputError(
        f"rng={rng!r} is not a source of random numbers. Give a whole number >= 0, None or a numpy.random.Generator."
    )
