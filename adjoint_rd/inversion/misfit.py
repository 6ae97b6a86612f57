"""How well values explain data: Gaussian noise, or values rounded to steps q.

    Gaussian    -2 log p = w^2 (x - data)^2 / sigma^2
    rounded     -2 log p = -2 w log [Phi((data + q/2 - x) / sigma) - Phi((data - q/2 - x) / sigma)]

The second is exact for x + noise rounded to the nearest step, sigma being that of the noise before rounding: data
known to an interval. It matters where sigma < q: in flat parts of a pattern the rounding errors of neighbours are the
same, and on a background that decays to zero they all have one sign, so as noise of variance q^2/12 they would bias the
fit. (Ordinal probit regression: P. McCullagh, J. R. Stat. Soc. B 42 (1980) 109; -log p is convex in x.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtr

SAMPLES = 256  # of a step
REACH = 3  # levels beside a value that its noise is followed to


def minus_twice_log(x: np.ndarray, data: Any, sigma: float) -> tuple[float, np.ndarray, np.ndarray]:
    """(sum of -2 log p, half its slope, half its curvature), the latter flat like x, zero where nothing is observed."""
    weight = data.weight.ravel()
    slope, curvature = np.zeros(x.size), np.zeros(x.size)
    seen = weight > 0
    d = (data.values.ravel() - x)[seen] / sigma
    w = weight[seen]
    if data.step == 0.0:
        slope[seen] = -(w**2) * d / sigma
        curvature[seen] = w**2 / sigma**2
        return float(np.sum((w * d) ** 2)), slope, curvature
    half = 0.5 * data.step / sigma
    mirrored = d < 0.0  # for these the lower tail is the accurate one
    high, low = half - np.abs(d), -half - np.abs(d)
    log_p = log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high)))
    at_high, at_low = (np.exp(-0.5 * t**2 - log_p) / np.sqrt(2.0 * np.pi) for t in (high, low))
    # In terms of -|d| the interval is [low, high]; x grows as d falls.
    down = at_high - at_low
    slope[seen] = np.where(mirrored, 1.0, -1.0) * w * down / sigma
    curvature[seen] = w * (high * at_high - low * at_low + down**2) / sigma**2
    return float(-2.0 * np.sum(w * log_p)), slope, np.maximum(curvature, 0.0)


def slope_harmonics(sigma: float, noise: float, count: int) -> np.ndarray:
    """2 |u_m|^2 for m = 1 .. count: u(x) the expected slope of -log p, steps of 1, the noise before rounding `noise`.

    Zero where sigma is that noise; where it is more (it has a floor), cells of like x have a slope in common.
    """
    x = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    u, noise = np.zeros(SAMPLES), max(noise, 1e-9)
    for level in range(-REACH, REACH + 1):
        d = x - level
        chance = ndtr((0.5 - d) / noise) - ndtr((-0.5 - d) / noise)
        high, low = (0.5 - np.abs(d)) / sigma, (-0.5 - np.abs(d)) / sigma
        log_p = log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high)))
        at_high, at_low = (np.exp(-0.5 * t**2 - log_p) / np.sqrt(2.0 * np.pi) for t in (high, low))
        u += np.where(chance > 0.0, chance * np.sign(d) * (at_high - at_low) / sigma, 0.0)
    return 2.0 * np.abs(np.fft.rfft(u)[1 : count + 1] / SAMPLES) ** 2


def variance(data: Any, sigma: float) -> float:
    """Of data - x."""
    return sigma**2 + data.step**2 / 12.0


def log_norm(data: Any, sigma: float) -> float:
    """What -log p has beside `minus_twice_log` / 2, up to a constant."""
    return 0.0 if data.step else data.count * float(np.log(sigma))
