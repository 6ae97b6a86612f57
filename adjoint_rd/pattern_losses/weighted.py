"""Sums of losses."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import as_numbers
from ..errors import InputError, shown
from ..losses import check_loss


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
            raise InputError(f"losses={shown(losses)} must be a sequence of losses.")
        self.losses = tuple(losses)
        self.weights = as_numbers("weights", weights)
        if not self.losses or len(self.losses) != len(self.weights):
            raise InputError(
                f"Weighted got {len(self.losses)} losses and {len(self.weights)} weights; give one for each."
            )
        for loss, weight in zip(self.losses, self.weights, strict=True):
            check_loss(loss, "losses")
            if not 0.0 <= weight < math.inf:
                raise InputError(f"weights={shown(weights)} must be finite and >= 0.")

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
