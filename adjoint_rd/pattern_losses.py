"""Losses of statistics of a pattern: what they compare does not depend on where the spots sit.

Each has features phi(z) of an image z (one species of a state), and

    L(y) = 0.5 * sum over species and features of ((phi(y_s) - phi*) / sigma)^2

with phi* the features of the target pattern, or their mean over several. With w = (phi - phi*) / sigma^2 the seed is
``phi_z^T w`` and its tangent ``phi_z^T (phi_z t / sigma^2) + (phi_z^T)_t w``: each class gives, one above the other,

    _features(z)             phi
    _push(z, t)              phi_z t
    _pull(z, w)              phi_z^T w
    _pull_tangent(z, t, w)   the derivative of ``phi_z^T w`` along t, w held fixed

    LogSpectrum      log(P + floor), P the power spectrum, full or averaged over rings
    Autocorrelation  mean of z(x) z(x + lag)
    Moments          mean, variance, and higher central moments
    Histogram        shares of values in smooth bins, or the smoothed distribution function
    GramTexture      means and products of the local amplitudes in a bank of Gabor filters
    Weighted         a weighted sum of any losses

All but `LogSpectrum` with a window function or with patches (stride > 1) are invariant under periodic shifts, up to
rounding. Features are smooth in z everywhere, uniform states included. The floor and all scales are taken from the
targets, so that they are constants. The losses also have `misfit` and `misfit_tangent`, for least squares.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import fft, special

from .arrays import as_numbers, as_real_array, as_species
from .errors import InputError, check_choice, check_count, check_number
from .losses import check_loss

__all__ = ["Autocorrelation", "GramTexture", "Histogram", "LogSpectrum", "Moments", "Weighted"]


class _Statistic:
    """What the losses of this module share: species, targets, sigma; see the module's first lines."""

    def __init__(self, target: Any, species: Any, sigma: Any):
        self.species, targets = _check_targets(target, species)
        self._prepare([z for pattern in targets for z in pattern])
        found = np.array([[self._features(z) for z in pattern] for pattern in targets])
        self.target = found.mean(axis=0)
        self.sigma = _check_sigma(sigma, found)
        self._inverse = np.broadcast_to(1.0 / self.sigma, self.target.shape)

    def _prepare(self, images: list[np.ndarray]) -> None:
        """Take scales from the targets' images."""

    def _images(self, y: np.ndarray) -> list[np.ndarray]:
        seen = list(range(len(y))) if self.species is None else self.species
        if len(seen) != len(self.target) or max(seen) >= len(y):
            raise InputError(f"the target has {len(self.target)} species ({self.species}), the state {len(y)}.")
        return [np.asarray(y[s], dtype=np.float64) for s in seen]

    def _spread(self, y: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
        full = np.zeros(y.shape)
        for n, part in enumerate(parts):
            full[n if self.species is None else self.species[n]] = part
        return full

    def features(self, y: np.ndarray) -> np.ndarray:
        """phi of each observed species, (species, features)."""
        found = [self._features(z) for z in self._images(y)]
        if found[0].shape != self.target.shape[1:]:
            raise InputError(
                f"the state's images {y.shape[1:]} give {found[0].size} features, the target's {self.target.shape[1]}; "
                "use a target of the grid's shape."
            )
        return np.array(found)

    def misfit(self, y: np.ndarray) -> np.ndarray:
        """(phi - phi*) / sigma as a vector."""
        return ((self.features(y) - self.target) * self._inverse).ravel()

    def misfit_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """phi_z t / sigma as a vector."""
        pairs = zip(self._images(y), self._images(t), strict=True)
        return (np.array([self._push(z, s) for z, s in pairs]) * self._inverse).ravel()

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        m = self.misfit(y)
        return 0.5 * float(m @ m)

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy = phi_z^T (phi - phi*) / sigma^2, zero for other species."""
        w = (self.features(y) - self.target) * self._inverse**2
        return self._spread(y, [self._pull(z, each) for z, each in zip(self._images(y), w, strict=True)])

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the seed along t."""
        parts = []
        w = (self.features(y) - self.target) * self._inverse**2
        for n, (z, s) in enumerate(zip(self._images(y), self._images(t), strict=True)):
            w_t = self._push(z, s) * self._inverse[n] ** 2
            parts.append(self._pull(z, w_t) + self._pull_tangent(z, s, w[n]))
        return self._spread(y, parts)


class _Power(_Statistic):
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
        self.radial = bool(radial)
        self.taper = None if window is None else check_choice("window", window, _TAPERS)
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


class Moments(_Statistic):
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


class Histogram(_Statistic):
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


class GramTexture(_Statistic):
    """Half the squared differences of ``mean A_k`` and ``mean A_k A_l``, A_k the local amplitude in Gabor filter k.

    ``A_k = sqrt(|r_k|^2 + e^2) - e`` with ``r_k = z * g_k``, e a tenth of the target's rms amplitude; features are over
    the target's rms amplitudes. In Fourier space the filters are Gaussians around ``c (cos a, sin a)``, less their
    value at 0, with c = 1 / wavelength, as wide as a third of c: made by this formula, nothing is trained or
    downloaded. The modulus makes the products see how structures meet, which no spectrum does (Gatys et al. 2015 for
    the Gram matrix, Portilla and Simoncelli 2000 for amplitudes of oriented filters).

    Parameters
    ----------
    target, species, sigma
        As in `LogSpectrum`.
    wavelengths : sequence of float
        In cells, at least 2.
    orientations : int
    """

    def __init__(
        self,
        target: Any,
        *,
        species: Any = None,
        wavelengths: Sequence[float] = (4.0, 8.0, 16.0, 32.0),
        orientations: int = 4,
        sigma: Any = 1.0,
    ):
        self.wavelengths = as_numbers("wavelengths", wavelengths)
        if not self.wavelengths or not all(2.0 <= each < math.inf for each in self.wavelengths):
            raise InputError(f"wavelengths={wavelengths!r} must be numbers of cells >= 2.")
        self.orientations = check_count("orientations", orientations, 1)
        self._banks: dict[tuple[int, ...], np.ndarray] = {}
        super().__init__(target, species, sigma)

    def _prepare(self, images: list[np.ndarray]) -> None:
        rms = np.sqrt(np.mean([np.mean(np.abs(self._filter(z)) ** 2, axis=(1, 2)) for z in images], axis=0))
        if not rms.max() > 0.0:
            raise InputError("the target is uniform: it has no texture. Use Moments.")
        self.rms = np.maximum(rms, 1e-3 * rms.max())
        self.softening = (0.1 * self.rms)[:, None, None]
        self._upper = np.triu_indices(len(rms))
        self._pair_scale = np.outer(self.rms, self.rms)[self._upper]

    def _bank(self, shape: tuple[int, ...]) -> np.ndarray:
        """The filters in Fourier space, real, (filters, *shape)."""
        if len(shape) != 2:
            raise InputError(f"GramTexture takes 2-D patterns; this one has shape {shape}.")
        if shape not in self._banks:
            fy, fx = np.meshgrid(fft.fftfreq(shape[0]), fft.fftfreq(shape[1]), indexing="ij")
            bank = []
            for wavelength in self.wavelengths:
                c, width = 1.0 / wavelength, 1.0 / (3.0 * wavelength)
                for n in range(self.orientations):
                    angle = math.pi * n / self.orientations
                    squared = (fy - c * math.sin(angle)) ** 2 + (fx - c * math.cos(angle)) ** 2
                    around_zero = np.exp(-0.5 * (fy**2 + fx**2) / width**2)
                    bank.append(np.exp(-0.5 * squared / width**2) - math.exp(-0.5 * (c / width) ** 2) * around_zero)
            self._banks[shape] = np.array(bank)
        return self._banks[shape]

    def _filter(self, z: np.ndarray) -> np.ndarray:
        """r (filters, *shape), complex: linear in z."""
        return fft.ifft2(self._bank(z.shape) * fft.fft2(z))

    def _filter_pull(self, a: np.ndarray) -> np.ndarray:
        """The transpose of `_filter` for the inner product Re(conj(r) a)."""
        return fft.ifft2(np.sum(self._bank(a.shape[1:]) * fft.fft2(a), axis=0)).real

    def _amplitude(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s = np.sqrt(r.real**2 + r.imag**2 + self.softening**2)
        return s - self.softening, s

    def _collect(self, means: np.ndarray, gram: np.ndarray) -> np.ndarray:
        return np.concatenate([means / self.rms, gram[self._upper] / self._pair_scale])

    def _collect_pull(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.rms)
        gram = np.zeros((n, n))
        gram[self._upper] = w[n:] / self._pair_scale
        return w[:n] / self.rms, gram

    def _features(self, z: np.ndarray) -> np.ndarray:
        A, _ = self._amplitude(self._filter(z))
        flat = A.reshape(len(A), -1)
        return self._collect(flat.mean(axis=1), flat @ flat.T / z.size)

    def _push(self, z: np.ndarray, t: np.ndarray) -> np.ndarray:
        r, r_t = self._filter(z), self._filter(t)
        A, s = self._amplitude(r)
        A_t = (r.real * r_t.real + r.imag * r_t.imag) / s
        flat, flat_t = A.reshape(len(A), -1), A_t.reshape(len(A), -1)
        half = flat_t @ flat.T / z.size
        return self._collect(flat_t.mean(axis=1), half + half.T)

    def _pull(self, z: np.ndarray, w: np.ndarray) -> np.ndarray:
        r = self._filter(z)
        A, s = self._amplitude(r)
        return self._filter_pull(self._amplitude_pull(A, w) * r / s)

    def _pull_tangent(self, z: np.ndarray, t: np.ndarray, w: np.ndarray) -> np.ndarray:
        r, r_t = self._filter(z), self._filter(t)
        A, s = self._amplitude(r)
        A_t = (r.real * r_t.real + r.imag * r_t.imag) / s
        a = self._amplitude_pull(A, w)
        a_t = self._amplitude_pull(A_t, w, means=False)
        return self._filter_pull(a_t * r / s + a * (r_t - r * A_t / s) / s)

    def _amplitude_pull(self, A: np.ndarray, w: np.ndarray, means: bool = True) -> np.ndarray:
        """The cotangent of A; linear in A but for the means."""
        on_means, gram = self._collect_pull(w)
        flat = (gram + gram.T) @ A.reshape(len(A), -1)
        if means:
            flat = flat + on_means[:, None]
        return flat.reshape(A.shape) / A[0].size


class Weighted:
    """``sum of weight * loss``.

    Parameters
    ----------
    losses : sequence of losses
    weights : sequence of float
        One for each, >= 0.
    """

    def __init__(self, losses: Sequence[Any], weights: Sequence[float]):
        if not isinstance(losses, Sequence):
            raise InputError(f"losses={losses!r} must be a sequence of losses.")
        self.losses = tuple(losses)
        self.weights = as_numbers("weights", weights)
        if not self.losses or len(self.losses) != len(self.weights):
            raise InputError(
                f"Weighted got {len(self.losses)} losses and {len(self.weights)} weights; give one for each."
            )
        for loss, weight in zip(self.losses, self.weights, strict=True):
            check_loss(loss, "losses")
            if not 0.0 <= weight < math.inf:
                raise InputError(f"weights={weights!r} must be finite and >= 0.")

    def _parts(self) -> Any:
        return [(loss, weight) for loss, weight in zip(self.losses, self.weights, strict=True) if weight > 0.0]

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        return float(sum(weight * loss.value(y) for loss, weight in self._parts()))

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy."""
        return sum((weight * loss.seed(y) for loss, weight in self._parts()), np.zeros(y.shape))

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the seed along t."""
        return sum((weight * loss.seed_tangent(y, t) for loss, weight in self._parts()), np.zeros(y.shape))

    def misfit(self, y: np.ndarray) -> np.ndarray:
        """The parts' misfits, each times the root of its weight."""
        return np.concatenate([math.sqrt(weight) * loss.misfit(y) for loss, weight in self._least_squares()])

    def misfit_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the misfit along t."""
        return np.concatenate([math.sqrt(weight) * loss.misfit_tangent(y, t) for loss, weight in self._least_squares()])

    def _least_squares(self) -> Any:
        for loss, _ in self._parts():
            if not callable(getattr(loss, "misfit", None)):
                raise InputError(f"{type(loss).__name__} has no misfit(y); least squares needs losses such as L2.")
        return self._parts()


# Helpers

_TAPERS = ("hann", "hamming", "blackman")


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


def _check_targets(target: Any, species: Any) -> tuple[list[int] | None, list[np.ndarray]]:
    """The species as a list, and each target as (species, *shape) in float64."""
    several = target if isinstance(target, (list, tuple)) else [target]
    if not several:
        raise InputError("target is an empty list; give at least one pattern.")
    single, listed = (False, None) if species is None else as_species(species)
    if listed is not None and len(set(listed)) < max(len(listed), 1):
        raise InputError(f"species={species!r} must name each observed species once.")
    checked = []
    for pattern in several:
        array = as_real_array("target", pattern)
        array = np.array(array[None] if single else array, dtype=np.float64)
        if array.ndim < 2 or (listed is not None and len(array) != len(listed)):
            raise InputError(
                f"a target of shape {np.shape(pattern)} does not fit species={species!r}; a pattern is (S, *shape), or "
                "shape if species is one index, and several patterns are a list or tuple."
            )
        if not np.isfinite(array).all():
            raise InputError("target has values that are not finite; these losses need a whole pattern.")
        if checked and len(array) != len(checked[0]):
            raise InputError(f"the targets have {len(checked[0])} and {len(array)} species.")
        checked.append(array)
    return listed, checked


def _check_sigma(sigma: Any, found: np.ndarray) -> Any:
    """`sigma` as an array; "targets" from the features found, (targets, species, features)."""
    if isinstance(sigma, str):
        check_choice("sigma", sigma, ("targets",))
        if len(found) < 2:
            raise InputError("sigma='targets' needs at least two targets.")
        spread = found.std(axis=0, ddof=1)
        return np.maximum(spread, 1e-2 * spread.max() or 1.0)
    array = np.array(as_real_array("sigma", sigma), dtype=np.float64)
    if not np.all(np.isfinite(array)) or not np.all(array > 0):
        raise InputError(f"sigma={sigma!r} must be positive and finite.")
    try:
        np.broadcast_to(array, found.shape[1:])
    except ValueError:
        raise InputError(f"sigma has shape {array.shape}; the features have {found.shape[1:]}.") from None
    return array
