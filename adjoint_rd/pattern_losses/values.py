"""Losses of the values that a pattern takes, wherever it takes them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from ..arrays import as_numbers
from ..errors import InputError, check_count, check_number
from .statistic import Statistic


class Moments(Statistic):
    """Half the squared differences of mean / s, variance / s^2 and higher central moments / s^k, s the target's std.

    Parameters
    ----------
    target, species, sigma
        As in `LogSpectrum`; the grid may have any number of axes, and the target another size than the grid.
    orders : sequence of int
        Which moments, 1 for the mean.
    """

    def __init__(self, target: Any, *, species: Any = None, orders: Sequence[int] = (1, 2, 3, 4), sigma: Any = 1.0):
        if not isinstance(orders, Sequence):
            raise InputError(f"orders={orders!r} must be a sequence of whole numbers >= 1.")
        self.orders = tuple(check_count("orders", k, 1) for k in orders)
        if not self.orders:
            raise InputError("orders is empty; use for example orders=(1, 2).")
        super().__init__(target, species, sigma)

    def _prepare(self, images: list[np.ndarray]) -> None:
        self.std = math.sqrt(float(np.mean([np.var(z) for z in images]))) or 1.0

    def _features(self, z: np.ndarray) -> np.ndarray:
        d = z - z.mean()
        return np.array([z.mean() / self.std if k == 1 else np.mean(d**k) / self.std**k for k in self.orders])

    def _push(self, z: np.ndarray, t: np.ndarray) -> np.ndarray:
        d, e = z - z.mean(), t - t.mean()
        return np.array(
            [t.mean() / self.std if k == 1 else k * np.mean(d ** (k - 1) * e) / self.std**k for k in self.orders]
        )

    def _pull(self, z: np.ndarray, w: np.ndarray) -> np.ndarray:
        d = z - z.mean()
        a = np.zeros(z.shape)
        for k, each in zip(self.orders, w, strict=True):
            power = d ** (k - 1)
            a += each * k / (self.std**k * z.size) * (power - power.mean() if k > 1 else 1.0)
        return a

    def _pull_tangent(self, z: np.ndarray, t: np.ndarray, w: np.ndarray) -> np.ndarray:
        d, e = z - z.mean(), t - t.mean()
        a = np.zeros(z.shape)
        for k, each in zip(self.orders, w, strict=True):
            if k > 1:
                power_t = (k - 1) * d ** (k - 2) * e
                a += each * k / (self.std**k * z.size) * (power_t - power_t.mean())
        return a


class Histogram(Statistic):
    """Half the squared differences of smooth histograms, ``h_j = mean of g((z - b_j) / width)``.

    Parameters
    ----------
    target, species, sigma
        As in `Moments`.
    bins : int
        Number of centres b_j, evenly spread.
    range : (low, high), optional
        Of the centres; by default that of the targets, and a fifth of it on either side.
    width : float, optional
        Of the kernel; by default the distance of the centres.
    cumulative : bool
        False: g is Gaussian, h_j the share of cells near b_j. True: g is the normal distribution function of -(z - b) /
        width, h_j the share of cells below b_j; its gradient reaches values that no bin of the target holds.
    """

    def __init__(
        self,
        target: Any,
        *,
        species: Any = None,
        bins: int = 32,
        range: Any = None,
        width: float | None = None,
        cumulative: bool = False,
        sigma: Any = 1.0,
    ):
        self.bins = check_count("bins", bins, 2)
        self.range = None if range is None else as_numbers("range", range)
        if self.range is not None and not (len(self.range) == 2 and self.range[0] < self.range[1]):
            raise InputError(f"range={range!r} must be (low, high) with low < high.")
        self.width = None if width is None else check_number("width", width, above=0.0)
        self.cumulative = bool(cumulative)
        super().__init__(target, species, sigma)

    def _prepare(self, images: list[np.ndarray]) -> None:
        if self.range is None:
            low, high = min(z.min() for z in images), max(z.max() for z in images)
            margin = 0.2 * (high - low) or 0.1
            self.range = (float(low - margin), float(high + margin))
        self.centres = np.linspace(*self.range, self.bins)
        distance = self.centres[1] - self.centres[0]
        self.width = distance if self.width is None else self.width
        self._height = distance / (self.width * math.sqrt(2.0 * math.pi))

    def _kernel(self, z: np.ndarray, derivative: int) -> np.ndarray:
        """The derivative-th derivative of g at each cell (cells, 1) for each centre (1, bins)."""
        s = (z.reshape(-1, 1) - self.centres) / self.width
        if self.cumulative:
            if derivative == 0:
                return special.ndtr(-s)
            bell = np.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi)
            return -bell if derivative == 1 else s * bell
        bell = self._height * np.exp(-0.5 * s * s)
        return (bell, -s * bell, (s * s - 1.0) * bell)[derivative]

    def _features(self, z: np.ndarray) -> np.ndarray:
        return self._kernel(z, 0).mean(axis=0)

    def _push(self, z: np.ndarray, t: np.ndarray) -> np.ndarray:
        return t.ravel() @ self._kernel(z, 1) / (self.width * z.size)

    def _pull(self, z: np.ndarray, w: np.ndarray) -> np.ndarray:
        return (self._kernel(z, 1) @ w).reshape(z.shape) / (self.width * z.size)

    def _pull_tangent(self, z: np.ndarray, t: np.ndarray, w: np.ndarray) -> np.ndarray:
        return (self._kernel(z, 2) @ w).reshape(z.shape) * t / (self.width**2 * z.size)
