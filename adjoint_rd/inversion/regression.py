"""Kernel ridge regression of several targets, its strength chosen by, and its errors measured on, left-out points.

With standardised features z, ``K = exp(-|z - z'|^2 / (s m)) + c z.z' / d`` (m the median squared distance, d the number
of features), the prediction is ``k(z)^T alpha``, ``(K + r I) alpha = y``. The error that point i would have if it were
left out is ``alpha_i / [(K + r I)^-1]_ii``; s and r are those of the smallest, for each target. The variance of a
prediction is, up to a factor, ``k(z, z) + r - k(z)^T (K + r I)^-1 k(z)``, of a point that is left out
``1 / [(K + r I)^-1]_ii``; the factor is measured on the left-out errors, which are so made comparable among points near
to others and far from them. (C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine Learning, 2006,
Eqs. (2.25), (2.26), (5.12))
"""

from __future__ import annotations

from typing import Any

import numpy as np

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LINEAR = 0.1
CLIP = 5.0  # of a standardised feature


class KernelRidge:
    """A fit of targets (N, P) to features (N, d).

    Parameters
    ----------
    features, targets : ndarray
    weights : ndarray (N,), optional
        How much the left-out errors count when s and r are chosen.
    scales : tuple of float
        The s to choose from.

    Attributes
    ----------
    left_out : ndarray (N, P)
        The error of each point when it is left out: target - prediction.
    left_out_spread : ndarray (N, P)
        The square root of the variance of that prediction, up to a factor.
    """

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, weights: Any = None, scales: tuple[float, ...] = SCALES
    ):
        self.mean, self.spread = features.mean(axis=0), features.std(axis=0) + 1e-9
        self.whole = (features - self.mean) / self.spread
        self.z = self.standardise(features)
        self.target_mean, self.target_spread = targets.mean(axis=0), targets.std(axis=0) + 1e-300
        y = (targets - self.target_mean) / self.target_spread
        weights = np.ones(len(y)) if weights is None else weights
        square = squared_distances(self.z, self.z)
        self.unit = float(np.median(square)) + 1e-300
        inner = LINEAR * (self.z @ self.z.T) / self.z.shape[1]
        best = [(np.inf,)] * y.shape[1]
        for scale in scales:
            values, vectors = np.linalg.eigh(np.exp(-square / (scale * self.unit)) + inner)
            values = np.maximum(values, 0.0)
            rotated, squares = vectors.T @ y, vectors**2
            for ridge in RIDGES:
                inverse = 1.0 / (values + ridge)
                alpha = vectors @ (rotated * inverse[:, None])
                precision = squares @ inverse
                error = alpha / precision[:, None]
                size = weights @ error**2
                for c in range(y.shape[1]):
                    if size[c] < best[c][0]:
                        best[c] = (size[c], scale, ridge, alpha[:, c], error[:, c], precision, values, vectors)
        _, self.scales, self.ridges, alpha, error, precision, self._values, self._vectors = zip(*best, strict=True)
        self.alpha = np.stack(alpha, axis=1)
        self.left_out = np.stack(error, axis=1) * self.target_spread
        self.left_out_spread = self.target_spread / np.sqrt(np.stack(precision, axis=1))

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """Features in units of their spread, clipped."""
        return np.clip((np.atleast_2d(features) - self.mean) / self.spread, -CLIP, CLIP)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions (M, P) for features (M, d)."""
        z = self.standardise(features)
        square, inner = squared_distances(z, self.z), LINEAR * (z @ self.z.T) / self.z.shape[1]
        columns = [
            (np.exp(-square / (scale * self.unit)) + inner) @ alpha
            for scale, alpha in zip(self.scales, self.alpha.T, strict=True)
        ]
        return self.target_mean + self.target_spread * np.stack(columns, axis=1)

    def spread_of(self, features: np.ndarray) -> np.ndarray:
        """The square root of the variance of predictions (M, P) for features (M, d), up to the factor."""
        z = self.standardise(features)
        square, inner = squared_distances(z, self.z), LINEAR * (z @ self.z.T) / self.z.shape[1]
        own = 1.0 + LINEAR * np.sum(z**2, axis=1) / self.z.shape[1]
        columns = []
        for scale, ridge, values, vectors in zip(self.scales, self.ridges, self._values, self._vectors, strict=True):
            seen = (np.exp(-square / (scale * self.unit)) + inner) @ vectors
            columns.append(own + ridge - np.sum(seen**2 / (values + ridge), axis=1))
        return self.target_spread * np.sqrt(np.maximum(np.stack(columns, axis=1), 1e-12))

    def strangeness(self, features: np.ndarray, neighbours: int = 5) -> float:
        """The distance of features (d,) to their nearest points, over what 99 % of the points keep to."""
        own = np.sort(squared_distances(self.whole, self.whole), axis=1)[:, 1 : neighbours + 1].mean(axis=1)
        z = (np.atleast_2d(features) - self.mean) / self.spread  # not clipped: what is strange may be far away
        there = np.sort(squared_distances(z, self.whole)[0])[:neighbours].mean()
        return float(np.sqrt(there / max(np.quantile(own, 0.99), 1e-300)))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between all rows of a and all of b."""
    return np.maximum(np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2.0 * a @ b.T, 0.0)
