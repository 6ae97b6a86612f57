"""Clean up an image: level of white noise, steps of quantisation, low-pass filter, holes filled in.

White noise has the same power at all wavenumbers, a pattern almost none at the highest ones, so the median power in the
corner of the spectrum measures the noise (for the two squared components of a complex coefficient the median of the
power is ``ln 2`` times the variance, for one real component 0.4549). Rounding to steps q is taken as noise of variance
q^2/12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..grid import Grid
from ..sparse import Spectral

CORNER = 0.12  # the fraction of all modes that counts as the corner of the spectrum
MEDIAN_COMPLEX = float(np.log(2.0))
MEDIAN_REAL = 0.4549364


@dataclass(frozen=True)
class Spectrum:
    """Noise and signal of an image.

    Attributes
    ----------
    noise : float
        The standard deviation of the white noise.
    step : float
        The step of quantisation, 0.0 if the values are not rounded.
    cutoff : float
        The wavenumber (1/length) beyond which noise dominates; inf without noise.
    signal : float
        The standard deviation of what is not noise, over the grid.
    peak : float
        The largest ratio of the power in a ring of wavenumbers to the noise power.
    numbers : int
        How many Fourier amplitudes stand out of the noise: what the image can tell, up to shifts.
    """

    noise: float
    step: float
    cutoff: float
    signal: float
    peak: float
    numbers: int = 0


def spectrum(v: np.ndarray, grid: Grid, noise: float | None = None) -> Spectrum:
    """Measure noise and signal of a complete image on a grid (see the module)."""
    transform = Spectral(grid)
    periodic = transform._real_first
    scale = np.sqrt(grid.size)
    hat = transform.forth(v - v.mean())
    if periodic:
        power = np.abs(hat / scale) ** 2
    else:
        # scipy's unnormalised cosine transforms are sqrt(2 n) times the orthonormal ones, beside the edge modes
        power = np.abs(hat / (scale * 2.0 ** (0.5 * sum(kind != "periodic" for kind in grid.boundary)))) ** 2
    k2 = np.broadcast_to(-transform.lam, power.shape)
    corner = k2 >= np.quantile(k2, 1.0 - CORNER)
    step = quantisation(v)
    measured = float(np.sqrt(np.median(power[corner]) / (MEDIAN_COMPLEX if periodic else MEDIAN_REAL)))
    if noise is None:
        noise = max(measured, step / np.sqrt(12.0))
    k = np.sqrt(k2)
    edges = np.linspace(0.0, k.max(), 34)
    ring = np.clip(np.digitize(k.ravel(), edges) - 1, 0, 32)
    inside = power.ravel() > 0
    total = np.bincount(ring[inside], power.ravel()[inside], minlength=33)
    count = np.maximum(np.bincount(ring[inside], minlength=33), 1)
    mean = total / count
    floor = max(noise, measured if noise else 0.0) ** 2
    loud = np.flatnonzero(mean > 2.0 * floor)
    quiet = noise <= 1e-9 * max(float(np.abs(v).max()), 1e-300) or loud.size == 0 or loud[-1] >= 31
    cutoff = np.inf if quiet else float(edges[loud[-1] + 1])
    variance = float(np.var(v))
    signal = float(np.sqrt(max(variance - measured**2, 0.0)))
    peak = float(mean.max() / max(measured**2, 1e-300))
    # 30 times the noise power is passed by noise alone once in e^30.
    above = power > 30.0 * max(floor, 1e-20 * float(power.max()))
    numbers = 1 + int(np.count_nonzero(above))
    return Spectrum(float(noise), step, cutoff, signal, peak, numbers)


def quantisation(v: np.ndarray) -> float:
    """The step that all values are multiples of, 0.0 if there is none or there are more than 4096 levels."""
    levels = np.unique(v)
    if not 2 <= levels.size <= 4096 or levels.size > v.size // 2:
        return 0.0
    gaps = np.diff(levels)
    step = float(gaps.min())
    if step <= 1e-9 * float(np.abs(levels).max()):
        return 0.0
    multiples = gaps / step
    if np.max(np.abs(multiples - np.round(multiples))) > 0.02:
        return 0.0
    return float((levels[-1] - levels[0]) / np.sum(np.round(multiples)))


def low_pass(v: np.ndarray, grid: Grid, cutoff: float) -> np.ndarray:
    """`v` without wavenumbers beyond `cutoff`."""
    if not np.isfinite(cutoff):
        return v
    transform = Spectral(grid)
    return transform.apply(v, (-transform.lam <= cutoff**2).astype(np.float64))


def fill(v: np.ndarray, known: np.ndarray, grid: Grid) -> np.ndarray:
    """`v` with the cells that are not `known` filled in smoothly: nearest values, then many passes of diffusion
    there."""
    if known.all():
        return v
    tiled = any(kind == "periodic" for kind in grid.boundary)
    pad = [(n, n) if kind == "periodic" else (0, 0) for n, kind in zip(grid.shape, grid.boundary, strict=True)]
    hidden = ~known
    if tiled:
        hidden = np.pad(hidden, pad, mode="wrap")
    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    if tiled:
        middle = tuple(slice(p[0], p[0] + n) for p, n in zip(pad, grid.shape, strict=True))
        nearest = [(index[middle] - p[0]) % n for index, p, n in zip(nearest, pad, grid.shape, strict=True)]
    filled = v[tuple(nearest)]
    modes = ["wrap" if kind == "periodic" else "nearest" for kind in grid.boundary]
    for _ in range(300):
        mean = (
            sum(ndimage.correlate1d(filled, [0.5, 0.0, 0.5], axis=axis, mode=mode) for axis, mode in enumerate(modes))
            / grid.ndim
        )
        filled = np.where(known, v, mean)
    return filled
