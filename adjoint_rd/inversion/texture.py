"""Statistics of a two-dimensional pattern that do not change when it is moved: what is left when phases are unknown.

For a periodic field v on unit cells, with ``z = (v - mean) / std``, Lap v the five-point Laplacian and |grad v| from
central differences:

    histogram   mean, log std, skewness, kurtosis, log quantiles of v
    spectrum    log power in smooth rings of wavenumber, the mean wavenumber and its moments, the peak
    gradient    log mean and quantiles of |grad v|
    curvature   extreme quantiles of Lap v; mean and spread of Lap v, and mean of Lap Lap v, in bands of v
    shape       boundary length and Euler number per cell of {v > level}, after H. Minkowski's functionals

Powers are taken as logarithms, so that all are of order one and roughly Gaussian.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.999)
RINGS = np.linspace(0.15, 1.95, 13)  # centres, radians per cell
RING_WIDTH = 0.075
BANDS = ((0.0, 0.25), (0.25, 0.4), (0.4, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 0.97), (0.97, 1.0))
LEVELS = (0.25, 0.5, 0.75)
TINY = 1e-9
GROUPS = ("histogram", "spectrum", "gradient", "curvature", "shape")


def features(v: np.ndarray, groups: tuple[str, ...] = GROUPS) -> dict[str, float]:
    """The statistics of a field.

    Parameters
    ----------
    v : ndarray (H, W)
        Periodic; not constant.
    groups : tuple of str
        Which, of `GROUPS`.

    Returns
    -------
    dict
        {name: value}, the same names in the same order for every field.
    """
    v = np.asarray(v, dtype=np.float64)
    functions = {
        "histogram": _histogram, "spectrum": _spectrum, "gradient": _gradient, "curvature": _curvature, "shape": _shape
    }  # fmt: skip
    found: dict[str, float] = {}
    for group in groups:
        found.update(functions[group](v))
    return found


def _histogram(v: np.ndarray) -> dict[str, float]:
    mean, std = v.mean(), v.std() + TINY
    z = (v - mean) / std
    found = {"mean": np.log(abs(mean) + TINY), "std": np.log(std), "skewness": np.mean(z**3), "kurtosis": np.mean(z**4)}
    values = np.quantile(v, QUANTILES)
    found.update({f"v {q:g}": np.log(max(x, 0.0) + 1e-4) for q, x in zip(QUANTILES, values, strict=True)})
    return found


@lru_cache(maxsize=8)
def _rings(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(wavenumber of each mode, weights (ring, *shape))."""
    k0, k1 = (2.0 * np.pi * np.fft.fftfreq(n) for n in shape)
    k = np.hypot(k0[:, None], k1[None, :])
    weights = np.exp(-0.5 * ((k - RINGS[:, None, None]) / RING_WIDTH) ** 2)
    weights[:, 0, 0] = 0.0
    return k, weights / weights.sum(axis=(1, 2), keepdims=True)


def _spectrum(v: np.ndarray) -> dict[str, float]:
    k, weights = _rings(v.shape)
    power = np.abs(np.fft.fft2(v - v.mean())) ** 2 / v.size
    found = {
        f"power {c:.2f}": np.log(p + TINY)
        for c, p in zip(RINGS, np.tensordot(weights, power, axes=([1, 2], [0, 1])), strict=True)
    }
    total = power.sum() + TINY
    first = (power * k).sum() / total
    found["k mean"] = np.log(first + TINY)
    found["k width"] = 0.5 * np.log((power * (k - first) ** 2).sum() / total + TINY)
    found["k 2"] = 0.5 * np.log((power * k**2).sum() / total + TINY)
    found["k 4"] = 0.25 * np.log((power * k**4).sum() / total + TINY)
    low = power * (k < 1.1)
    centre = (low * k).sum() / (low.sum() + TINY)
    near = np.exp(-0.5 * ((k - centre) / 0.15) ** 2) * power
    found["k peak"] = np.log((near * k).sum() / (near.sum() + TINY) + TINY)
    return found


def _gradient(v: np.ndarray) -> dict[str, float]:
    parts = [0.5 * (np.roll(v, -1, axis) - np.roll(v, 1, axis)) for axis in (0, 1)]
    size = np.hypot(*parts)
    found = {"gradient": np.log(size.mean() + TINY)}
    for q in (0.5, 0.75, 0.9, 0.99):
        found[f"gradient {q:g}"] = np.log(np.quantile(size, q) + 1e-5)
    return found


def _laplacian(v: np.ndarray) -> np.ndarray:
    return np.roll(v, 1, 0) + np.roll(v, -1, 0) + np.roll(v, 1, 1) + np.roll(v, -1, 1) - 4.0 * v


def _curvature(v: np.ndarray) -> dict[str, float]:
    lap = _laplacian(v)
    bend = _laplacian(lap)
    std = v.std() + TINY
    low, high = np.quantile(lap, (0.005, 0.995))
    found = {"Lap low": np.log(max(-low, 0.0) + 1e-6), "Lap high": np.log(max(high, 0.0) + 1e-6)}
    order = np.argsort(v, axis=None, kind="stable")
    flat, bent = lap.ravel()[order], bend.ravel()[order]
    for a, b in BANDS:
        band = slice(int(a * v.size), max(int(b * v.size), int(a * v.size) + 1))
        found[f"Lap at {a:g}"] = flat[band].mean() / std
        found[f"Lap spread at {a:g}"] = np.log(flat[band].std() / std + 1e-6)
        found[f"Lap Lap at {a:g}"] = bent[band].mean() / std
    return found


def _shape(v: np.ndarray) -> dict[str, float]:
    top = np.quantile(v, QUANTILES[-1])
    found = {}
    for level in LEVELS:
        inside = v > level * top
        right, down = np.roll(inside, 1, 1), np.roll(inside, 1, 0)
        edges = np.count_nonzero(inside ^ right) + np.count_nonzero(inside ^ down)
        found[f"length {level:g}"] = np.log(edges / v.size + 1e-3)
        corner = inside & right & down & np.roll(down, 1, 1)
        euler = (
            np.count_nonzero(inside) - np.count_nonzero(inside & right) - np.count_nonzero(inside & down)
            + np.count_nonzero(corner)
        )  # fmt: skip
        found[f"Euler {level:g}"] = 200.0 * euler / v.size
    return found
