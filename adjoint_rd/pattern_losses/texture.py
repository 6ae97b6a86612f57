"""A loss of local amplitudes in a bank of Gabor filters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import fft

from ..arrays import as_numbers
from ..errors import InputError, check_count
from .statistic import Statistic


class GramTexture(Statistic):
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
