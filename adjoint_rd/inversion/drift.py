"""How a pattern that is not quite steady still moves: along the softest modes of its relaxation.

A perturbation of a steady state decays as ``exp(J t)``, J the Jacobian. After a time T only the eigenvectors of the
smallest |lambda| are left, and y_t = sum_i b_i E_i with

    b_i ~ N(0, t_i^2),    t_i = a exp(-|lambda_i| T)

`Modes` are the E_i and |lambda_i|, `decay` the a and T of greatest likelihood. The modes come from a block Arnoldi
iteration (Y. Saad, Numerical Methods for Large Eigenvalue Problems, 2nd ed., 6.5) for ``(J - s I)^-1``, applied by the
factors of ``(J - s I)^T (J - s I)``, all columns of a block at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..sparse import Cholesky, System

BLOCKS = 5
COLUMNS = 0.45  # of a block, over the number of modes
SHIFT = 1e-3  # s over the largest rate of the first species' reaction: beside zero, where translations are singular
STEEPEST = 12.0  # most of |lambda| T at the last mode
ROUNDS = 30


@dataclass(frozen=True, eq=False)
class Modes:
    """An orthonormal basis of soft eigenvectors.

    Attributes
    ----------
    basis : ndarray (S cells, m)
    rates : ndarray (m,)
        |lambda|, ascending.
    """

    basis: np.ndarray
    rates: np.ndarray


def soft_modes(system: System, y: np.ndarray, params: Mapping[str, float], count: int) -> Modes:
    """The `count` eigenvectors of J at the flat state y with eigenvalues nearest to zero.

    The softer half to about 1e-3; the drift along the others is so small that their span need not be exact.
    """
    J = system.jacobian(y, params)
    shift = SHIFT * float(np.max(np.abs(system.reaction_jacobian(y, params)[0][0])))
    M = sparse.csr_array(J - shift * sparse.eye_array(y.size))
    factor = Cholesky(system.grid, M.T @ M)
    rng = np.random.default_rng(0)
    width = int(np.ceil(COLUMNS * count))
    block, _ = np.linalg.qr(rng.standard_normal((y.size, width)))
    V, images = block, []
    for n in range(BLOCKS):
        image = factor.solve(M.T @ block)
        images.append(image)
        if n + 1 < BLOCKS:
            block = image - V @ (V.T @ image)
            block, _ = np.linalg.qr(block - V @ (V.T @ block))
            V = np.concatenate([V, block], axis=1)
    inverse, X = np.linalg.eig(V.T @ np.concatenate(images, axis=1))
    values = shift + 1.0 / np.where(inverse == 0.0, 1e-300, inverse)
    columns: list[np.ndarray] = []
    rates: list[float] = []
    for i in np.argsort(-np.abs(inverse)):
        if len(columns) >= count:
            break
        if values[i].imag >= 0.0:
            parts = [X[:, i].real] if values[i].imag == 0.0 else [X[:, i].real, X[:, i].imag]
            columns += parts
            rates += [abs(values[i])] * len(parts)
    Q, _ = np.linalg.qr(V @ np.stack(columns[:count], axis=1))
    order = np.argsort(rates[:count], kind="stable")
    return Modes(Q[:, order], np.array(rates)[order])


def decay(rates: np.ndarray, squares: np.ndarray, floor: float) -> np.ndarray:
    """t_i = a exp(-rates_i T), at least `floor`, with the a and T of greatest likelihood for E[b_i^2] = `squares`.

    Minimises ``sum_i 2 log t_i + squares_i / t_i^2`` by Newton's method: convex in (log a, T).
    """
    x = rates / rates.max()
    A = np.stack([np.ones_like(x), -x], axis=1)
    c = np.array([0.5 * np.log(np.mean(squares)), 0.0])
    for _ in range(ROUNDS):
        ratio = squares * np.exp(-2.0 * (A @ c))
        slope = A.T @ (1.0 - ratio)
        step = np.linalg.solve(2.0 * (A.T * ratio) @ A + 1e-9 * np.eye(2), -slope)
        step *= min(1.0, 1.0 / max(float(np.max(np.abs(step))), 1e-300))
        c = c + step
        if float(np.max(np.abs(step))) < 1e-6:
            break
    steepness = float(np.clip(c[1], 0.0, STEEPEST))
    if steepness != c[1]:
        level = 0.5 * np.log(np.mean(squares * np.exp(2.0 * steepness * x)))
        c = np.array([level, steepness])
    return np.maximum(np.exp(A @ c), floor)
