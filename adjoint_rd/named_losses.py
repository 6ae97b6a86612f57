"""Losses by name, for command lines and experiments; each is made from a list of target patterns (S, *shape)."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from . import losses, pattern_losses
from .errors import InputError, check_choice

__all__ = ["NAMED", "OF_PLACES", "make"]


def _l2(patterns: Sequence[np.ndarray]) -> Any:
    target = np.asarray(patterns[0])
    return losses.L2(target, sigma=float(np.sqrt(target.size)))


NAMED: Mapping[str, Callable[[Sequence[np.ndarray]], Any]] = MappingProxyType(
    {
        "l2": _l2,
        "log-spectrum": lambda patterns: pattern_losses.LogSpectrum(patterns, radial=True),
        "log-spectrum-full": pattern_losses.LogSpectrum,
        "log-spectrum-patches": lambda patterns: pattern_losses.LogSpectrum(patterns, patch=16, window="hann"),
        "autocorrelation": pattern_losses.Autocorrelation,
        "moments": pattern_losses.Moments,
        "histogram": lambda patterns: pattern_losses.Histogram(patterns, cumulative=True),
        "gram": pattern_losses.GramTexture,
    }
)
OF_PLACES = ("l2",)  # compare places, not statistics: with one pattern, the first


def make(name: str, patterns: Sequence[np.ndarray]) -> Any:
    """The loss of that name against the patterns.

    Parameters
    ----------
    name : str
        "l2": half the mean square of the difference to the first pattern. "log-spectrum": averaged over rings;
        "log-spectrum-full": not; "log-spectrum-patches": of patches 16x16 under a Hann window. "autocorrelation",
        "moments", "histogram" (smoothed distribution function), "gram": as in `adjoint_rd.pattern_losses`, with its
        defaults.
    patterns : sequence of ndarray (S, *shape)

    Returns
    -------
    loss
    """
    check_choice("name", name, NAMED)
    patterns = list(patterns)
    if not patterns:
        raise InputError("patterns is empty; give at least one (S, *shape).")
    return NAMED[name](patterns)
