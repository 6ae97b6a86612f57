"""Gaussian estimates x ~ N(mean, C) of the logarithms of parameters: conditions on them, and several put together.

    condition    c^T x = value:  x - g (c^T x - value),  C - g c^T C,  g = C c / (c^T C c)
    together     C = (sum C_n^-1)^-1,  x = C sum C_n^-1 x_n;  sum (x_n - x)^T C_n^-1 (x_n - x) ~ chi^2 if they agree

(C. R. Rao, Linear Statistical Inference and Its Applications, 8a.2 and 4a.2.)
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def condition(mean: np.ndarray, cov: np.ndarray, c: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(mean, covariance, score) given c^T x = value; the score is how many standard errors off it was."""
    off, variance = float(c @ mean - value), float(c @ cov @ c)
    if not variance > 0.0:
        return mean, cov, 0.0 if abs(off) < 1e-12 else np.inf
    gain = cov @ c / variance
    return mean - gain * off, cov - np.outer(gain, c @ cov), off / np.sqrt(variance)


def together(means: list[np.ndarray], covs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """(mean, covariance, probability that estimates which agree differ so much)."""
    weights = [np.linalg.pinv(cov, hermitian=True) for cov in covs]
    cov = np.linalg.pinv(sum(weights), hermitian=True)
    mean = cov @ sum(weight @ x for weight, x in zip(weights, means, strict=True))
    spread = sum(float((x - mean) @ weight @ (x - mean)) for weight, x in zip(weights, means, strict=True))
    freedom = (len(means) - 1) * len(mean)
    return mean, cov, float(stats.chi2.sf(spread, freedom)) if freedom else 1.0
