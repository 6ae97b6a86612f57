"""Losses of the power spectrum, and of its transform, the autocorrelation."""

import math
from typing import Any

import numpy as np
from scipy import fft

from ..errors import InputError, check_choice, check_count, check_number
from .statistic import Statistic

TAPERS = ("hann", "hamming", "blackman")


class _Power(Statistic):
    """Features of the power spectrum ``P = mean over patches of |X|^2 / n``, ``X = FFT(taper * (z - mean))``.

    A subclass gives ``_of_power(P) -> phi``, and with the same P and a tangent P_t or cotangent w the three below it.
    """

    remove_mean: bool
    patch: int | None
    stride: int
    taper: Any

    def _check_grid(self, z: np.ndarray) -> None:
        if z.ndim != 2:
            raise InputError(f"{type(self).__name__} takes 2-D patterns; this one has shape {z.shape}.")
        if self.patch is not None and self.patch > min(z.shape):
            raise InputError(f"patch={self.patch} is larger than the pattern {z.shape}.")

    def _corners(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Row and column indices of all patches, (patches, patch, 1) and (patches, 1, patch); they wrap around."""
        rows, columns = (np.arange(0, n, self.stride) for n in shape)
        offsets = np.arange(self.patch)
        i, j = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
        return (
            (i[:, None, None] + offsets[None, :, None]) % shape[0],
            (j[:, None, None] + offsets[None, None, :]) % shape[1],
        )

    def _transform(self, z: np.ndarray) -> np.ndarray:
        """X (patches, rows, columns): linear in z."""
        self._check_grid(z)
        x = z[None] if self.patch is None else z[self._corners(z.shape)]
        if self.remove_mean:
            x = x - x.mean(axis=(1, 2), keepdims=True)
        return fft.fft2(x * self._taper_of(x.shape[1:]))

    def _transform_pull(self, a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The transpose of `_transform` for the inner product Re(conj(X) a)."""
        x = (fft.ifft2(a).real * a[0].size) * self._taper_of(a.shape[1:])
        if self.remove_mean:
            x = x - x.mean(axis=(1, 2), keepdims=True)
        if self.patch is None:
            return x[0]
        z = np.zeros(shape)
        np.add.at(z, self._corners(shape), x)
        return z

    def _taper_of(self, shape: tuple[int, ...]) -> Any:
        if self.taper is None:
            return 1.0
        w = np.outer(_taper(self.taper, shape[0]), _taper(self.taper, shape[1]))
        return w / math.sqrt(np.mean(w * w))

    def _power(self, X: np.ndarray) -> np.ndarray:
        return np.mean(X.real**2 + X.imag**2, axis=0) / X[0].size

    def _power_tangent(self, X: np.ndarray, X_t: np.ndarray) -> np.ndarray:
        return 2.0 * np.mean(X.real * X_t.real + X.imag * X_t.imag, axis=0) / X[0].size

    def _power_pull(self, X: np.ndarray, w: np.ndarray) -> np.ndarray:
        return (2.0 / (len(X) * X[0].size)) * X * w

    def _features(self, z: np.ndarray) -> np.ndarray:
        return self._of_power(self._power(self._transform(z)))

    def _push(self, z: np.ndarray, t: np.ndarray) -> np.ndarray:
        X = self._transform(z)
        return self._of_power_push(self._power(X), self._power_tangent(X, self._transform(t)))

    def _pull(self, z: np.ndarray, w: np.ndarray) -> np.ndarray:
        X = self._transform(z)
        return self._transform_pull(self._power_pull(X, self._of_power_pull(self._power(X), w)), z.shape)

    def _pull_tangent(self, z: np.ndarray, t: np.ndarray, w: np.ndarray) -> np.ndarray:
        X, X_t = self._transform(z), self._transform(t)
        P, P_t = self._power(X), self._power_tangent(X, X_t)
        a = self._power_pull(X_t, self._of_power_pull(P, w)) + self._power_pull(
            X, self._of_power_pull_tangent(P, P_t, w)
        )
        return self._transform_pull(a, z.shape)

    def _of_power(self, P: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _of_power_push(self, P: np.ndarray, P_t: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _of_power_pull(self, P: np.ndarray, w: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _of_power_pull_tangent(self, P: np.ndarray, P_t: np.ndarray, w: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class LogSpectrum(_Power):
    """Half the squared differences of ``log(P + floor)``, P the power spectrum.

    Parameters
    ----------
    target : array_like or list of these
        One pattern, ``(S, *shape)``, or ``shape`` if `species` is one index; or a list or tuple of patterns.
    species : int or sequence of int, optional
        The observed species; by default all.
    mean : {"remove", "keep"}
        "keep" leaves the power of the mean in. It does not enter the floor.
    radial : bool
        Average P over rings of equal |wave number| before the logarithm: blind to orientation as well.
    window : {None, "hann", "hamming", "blackman"}
        Window function, for patterns that are not periodic. The loss is then not exactly invariant under shifts.
    patch : int, optional
        Average P over square patches of this side (Welch's method), such as 16: finer scales only, less noise.
    stride : int, optional
        Cells between patches, by default half a patch; they wrap around. 1 gives exact invariance.
    floor : float
        Relative to the mean of the target's P. It keeps empty modes, which are rounding errors, out of the loss.
    sigma : float, array_like or "targets"
        Divides the differences; "targets" is the standard deviation of each feature over the targets (at least two).
    """

    def __init__(
        self,
        target: Any,
        *,
        species: Any = None,
        mean: str = "remove",
        radial: bool = False,
        window: str | None = None,
        patch: int | None = None,
        stride: int | None = None,
        floor: float = 1e-3,
        sigma: Any = 1.0,
    ):
        self.remove_mean = check_choice("mean", mean, ("remove", "keep")) == "remove"
        if not isinstance(radial, (bool, np.bool_)):
            raise InputError(f"radial={radial!r} must be True or False.")
        self.radial = bool(radial)
        self.taper = None if window is None else check_choice("window", window, TAPERS)
        self.patch = None if patch is None else check_count("patch", patch, 2)
        if stride is not None and patch is None:
            raise InputError("stride is the distance of patches; give patch too.")
        self.stride = max(1, (patch or 2) // 2) if stride is None else check_count("stride", stride, 1)
        self.relative_floor = check_number("floor", floor, above=0.0)
        super().__init__(target, species, sigma)

    def _prepare(self, images: list[np.ndarray]) -> None:
        powers = [self._power(self._transform(z)).ravel()[1:] for z in images]
        self.floor = self.relative_floor * float(np.mean(powers))
        if not self.floor > 0.0:
            raise InputError(
                "the target is uniform: its spectrum is zero. Use a target that has a pattern, or Moments."
            )

    def _of_power(self, P: np.ndarray) -> np.ndarray:
        return np.log(self._average(P) + self.floor)

    def _of_power_push(self, P: np.ndarray, P_t: np.ndarray) -> np.ndarray:
        return self._average(P_t) / (self._average(P) + self.floor)

    def _of_power_pull(self, P: np.ndarray, w: np.ndarray) -> np.ndarray:
        return self._average_pull(w / (self._average(P) + self.floor), P.shape)

    def _of_power_pull_tangent(self, P: np.ndarray, P_t: np.ndarray, w: np.ndarray) -> np.ndarray:
        return self._average_pull(-w * self._average(P_t) / (self._average(P) + self.floor) ** 2, P.shape)

    def _average(self, P: np.ndarray) -> np.ndarray:
        if not self.radial:
            return P.ravel()
        ring, count = _rings(P.shape)
        return np.bincount(ring.ravel(), P.ravel()) / count

    def _average_pull(self, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if not self.radial:
            return w.reshape(shape)
        ring, count = _rings(shape)
        return (w / count)[ring]


class Autocorrelation(_Power):
    """Half the squared differences of ``mean of x(i) x(i + lag)`` over the target's variance, ``x = z - mean``.

    Parameters
    ----------
    target, species, sigma
        As in `LogSpectrum`.
    max_lag : int, optional
        Lags up to this many cells along each axis, by default 16 or less than half of a small grid; half of them, since
        lag and -lag are the same.
    mean : {"remove", "keep"}
    """

    taper, patch, stride = None, None, 1

    def __init__(
        self, target: Any, *, species: Any = None, max_lag: int | None = None, mean: str = "remove", sigma: Any = 1.0
    ):
        self.max_lag = None if max_lag is None else check_count("max_lag", max_lag, 1)
        self.remove_mean = check_choice("mean", mean, ("remove", "keep")) == "remove"
        super().__init__(target, species, sigma)

    def _prepare(self, images: list[np.ndarray]) -> None:
        for z in images:
            self._check_grid(z)
        if self.max_lag is None:
            self.max_lag = max(1, min(16, (min(images[0].shape) - 1) // 2))
        for z in images:
            if 2 * self.max_lag >= min(z.shape):
                raise InputError(f"max_lag={self.max_lag} must be less than half of the pattern's shape {z.shape}.")
        self.variance = float(np.mean([np.var(z) for z in images]))
        if not self.variance > 0.0:
            raise InputError("the target is uniform: it has no autocorrelation. Use Moments.")

    def _lags(self) -> tuple[np.ndarray, np.ndarray]:
        m = self.max_lag
        i, j = np.mgrid[0 : m + 1, -m : m + 1]
        half = (i > 0) | (j >= 0)
        return i[half], j[half]

    def _of_power(self, P: np.ndarray) -> np.ndarray:
        return fft.ifft2(P).real[self._lags()] / self.variance

    def _of_power_push(self, P: np.ndarray, P_t: np.ndarray) -> np.ndarray:
        return self._of_power(P_t)

    def _of_power_pull(self, P: np.ndarray, w: np.ndarray) -> np.ndarray:
        g = np.zeros(P.shape)
        g[self._lags()] = w
        return fft.fft2(g).real / (P.size * self.variance)

    def _of_power_pull_tangent(self, P: np.ndarray, P_t: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.zeros(P.shape)


# Helpers


def _taper(name: str, n: int) -> np.ndarray:
    """A periodic window function of n points."""
    angle = 2.0 * math.pi * np.arange(n) / n
    if name == "hann":
        return 0.5 - 0.5 * np.cos(angle)
    if name == "hamming":
        return 0.54 - 0.46 * np.cos(angle)
    return 0.42 - 0.5 * np.cos(angle) + 0.08 * np.cos(2.0 * angle)


def _rings(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The ring of each mode, one wave number wide, and the number of modes in each ring (never 0)."""
    fy, fx = np.meshgrid(fft.fftfreq(shape[0]), fft.fftfreq(shape[1]), indexing="ij")
    number = np.rint(max(shape) * np.hypot(fy, fx)).astype(int)
    _, ring = np.unique(number, return_inverse=True)
    ring = ring.reshape(shape)
    return ring, np.bincount(ring.ravel())
