"""Runs on grids finer than the data: losses of every R-th cell, interpolation, extrapolation (Richardson)."""

from typing import Any

import numpy as np

from .. import losses
from ..errors import check_count
from ..grid import Grid


class Subsampled:
    """A loss of every R-th cell of a state, beginning with the first along each axis.

    Parameters
    ----------
    loss : loss
        Of the coarse state, such as `losses.L2`.
    every : int
        R.
    """

    def __init__(self, loss: Any, every: int):
        losses.check_loss(loss)
        self.loss = loss
        self.every = check_count("every", every, 1)

    def _coarse(self, y: np.ndarray) -> np.ndarray:
        return y[(slice(None), *(slice(None, None, self.every),) * (y.ndim - 1))]

    def _spread(self, y: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        full = np.zeros(y.shape)
        self._coarse(full)[...] = coarse  # a view
        return full

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        return self.loss.value(self._coarse(y))

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy, zero between the compared cells."""
        return self._spread(y, self.loss.seed(self._coarse(y)))

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the seed along t."""
        return self._spread(y, self.loss.seed_tangent(self._coarse(y), self._coarse(t)))

    def misfit(self, y: np.ndarray) -> np.ndarray:
        """The loss's misfit of the compared cells."""
        return self.loss.misfit(self._coarse(y))

    def misfit_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the misfit along t."""
        return self.loss.misfit_tangent(self._coarse(y), self._coarse(t))


def interpolate(state: np.ndarray, refine: int) -> np.ndarray:
    """A periodic state (S, *shape) on a grid `refine` times finer: its trigonometric interpolant."""
    check_count("refine", refine, 1)
    if refine == 1:
        return np.array(state)
    for axis in range(1, state.ndim):
        n = state.shape[axis]
        modes = np.fft.rfft(state, axis=axis)
        if n % 2 == 0:  # the highest mode stands for both signs of its wavenumber
            modes[(slice(None),) * axis + (n // 2,)] *= 0.5
        state = np.fft.irfft(modes, n * refine, axis=axis) * refine
    return state


def finer(grid: Grid, refine: int) -> Grid:
    """The grid `refine` times finer."""
    shape, spacing = tuple(n * refine for n in grid.shape), tuple(h / refine for h in grid.spacing)
    return Grid(shape, spacing=spacing, boundary=grid.boundary)


def weights(refine: tuple[int, ...]) -> np.ndarray:
    """Of results on grids of these refinements in their extrapolation to spacing 0.

    The polynomial in ``s = 1 / R^2`` through them at s = 0, ``w_i = prod_{j != i} s_j / (s_j - s_i)``: it removes as
    many even powers of the spacing from the error as there are finer grids.
    """
    s = 1.0 / np.array(refine, dtype=np.float64) ** 2
    return np.array([np.prod([other / (other - own) for other in s if other != own]) for own in s])
