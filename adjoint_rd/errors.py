"""The library's exceptions, and the helper that words "did you mean".

Every error raised on purpose descends from `AdjointRDError`; bad input is also a `ValueError`, so that callers who
know nothing of this library can still catch it.
"""

import math
import numbers
import operator
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

MOST_COUNT = 2**53  # beyond it floats skip whole numbers
MOST_SHOWN = 160  # characters of a value in a message


class AdjointRDError(Exception):
    """Base class of everything that this library raises on purpose."""


class InputError(AdjointRDError, ValueError):
    """An argument has the wrong name, type, shape or value."""


class StabilityError(AdjointRDError, ValueError):
    """The time step is beyond a stability limit of the explicit scheme."""


class DivergenceError(AdjointRDError, FloatingPointError):
    """The state stopped being finite.

    Attributes
    ----------
    step : int or None
        The first step after which the state was not finite, counted from the start of the run.
    state : numpy.ndarray or None
        The last finite state, ``(S, *shape)``.
    """

    def __init__(self, message: str, step: int | None = None, state: Any = None):
        super().__init__(message)
        self.step = step
        self.state = state


class CheckpointError(AdjointRDError):
    """A checkpoint schedule does not fit the run or the memory."""


class BackendError(AdjointRDError):
    """A backend (CUDA, an optional package) is asked for but not usable here."""


class StabilityWarning(UserWarning):
    """The time step is in the range where blow-up is possible."""


def attach_result(error: BaseException, result: Any) -> None:
    """Hand back what was reached with an error, as its attribute `result`."""
    with suppress(AttributeError):
        error.result = result  # type: ignore[attr-defined]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known word, or an empty string."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def shown(value: Any) -> str:
    """`value` as messages show it: its `repr`, or of what is large the beginning, of an array its dtype and shape."""
    if getattr(value, "ndim", 0) and hasattr(value, "dtype"):
        return f"<array of {value.dtype}, shape {tuple(value.shape)}>"
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 4] + " ..."


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`; raise an `InputError` that names the argument otherwise."""
    choices = tuple(choices)
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(choice) for choice in choices)
    raise InputError(f"{argument}={shown(value)} is not known; use one of {listed}.{did_you_mean(str(value), choices)}")


def as_real(value: Any) -> float:
    """Return a number as a float; a TypeError or OverflowError if it is none (truth values, text, complex numbers)."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and type(value).__name__ != "MaskedConstant":
        value = value.item()  # of NumPy's scalars and arrays without axes
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return float(value)


def check_number(argument: str, value: Any, *, above: float | None = None, least: float | None = None) -> float:
    """Return `value` as a float if it is a finite real number, > `above` and >= `least`."""
    try:
        number = as_real(value)
    except (TypeError, OverflowError):
        number = math.nan
    if math.isfinite(number) and (above is None or number > above) and (least is None or number >= least):
        return number
    wanted = f" > {above:g}" if above is not None else f" >= {least:g}" if least is not None else ""
    raise InputError(f"{argument}={shown(value)} must be a finite number{wanted}.")


def check_count(argument: str, value: Any, least: int = 0) -> int:
    """Return `value` as an int if it is a whole number >= `least` (bool and fractions are refused)."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{argument}={shown(value)} must be a whole number >= {least}.") from None
    if number < least:
        raise InputError(f"{argument}={number} must be >= {least}.")
    if number > MOST_COUNT:
        raise InputError(f"{argument}, a number of {len(str(number))} digits, is more than any run can take.")
    return number
