"""One step of Newton's method for `weak`: a point, its cost, the equations linearised there, and what they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..sparse import Cholesky

LEAST_GAIN = 1e-3  # of the cost, below which nothing is left to gain,
SMALL_GAIN = 3.0  # or little in fields that are hardly determined, as at the rim of a crop,
SMALL_STEP = 0.01  # in standard errors: what parameters may still move then

Scales = tuple[float, float, np.ndarray]  # sigma, tau, the t_i


@dataclass(frozen=True, eq=False)
class Point:
    """The unknowns."""

    y: np.ndarray
    params: dict[str, float]
    b: np.ndarray
    offset: float


@dataclass(frozen=True, eq=False)
class Cost:
    """The cost at a point; r = R - E b, of the data's part half the slope and curvature, with the prior's half of the
    slope in the fields.
    """

    value: float
    r: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    pull: np.ndarray


@dataclass(frozen=True, eq=False)
class Linear:
    """At a point: J = R_y / tau, C = (R_p, -E) / tau, the data's slope D in the offset, d p / d log p, gradients.

    Half the gradients of the cost: `gx` in the fields, `gp` in the parameters, b and the offset.
    """

    J: Any
    C: np.ndarray
    D: np.ndarray
    slopes: np.ndarray
    gx: np.ndarray
    gp: np.ndarray


@dataclass(frozen=True, eq=False)
class Normal:
    """The normal equations at a point, the fields eliminated: Schur complement `S`, X = A^-1 [gx, G]."""

    A0: Any
    A: Any
    linear: Linear
    factor: Cholesky
    S: np.ndarray
    G: np.ndarray
    X: np.ndarray

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the parameters and the fields."""
        x = self.X[:, 0]
        step = np.linalg.lstsq(self.S, self.G.T @ x - self.linear.gp, rcond=1e-14)[0]
        return step, -x - self.X[:, 1:] @ step

    @cached_property
    def gain(self) -> float:
        """By how much the step should lower the cost."""
        step, fields = self.steps
        return -float(step @ self.linear.gp + fields @ self.linear.gx)

    def largest(self, sizes: np.ndarray) -> float:
        """The largest step of a parameter, over its size."""
        return float(np.max(np.abs(self.steps[0][: sizes.size]) / sizes, initial=0.0))

    def is_minimum(self, parameters: int) -> bool:
        """Whether there is nothing left to gain, or little and in what so many parameters hardly depend on."""
        if self.gain < LEAST_GAIN:
            return True
        errors = np.sqrt(np.maximum(np.diag(inverse(self.S))[:parameters], 0.0))
        return self.gain < SMALL_GAIN and bool(np.all(np.abs(self.steps[0][:parameters]) <= SMALL_STEP * errors))


@dataclass(frozen=True, eq=False)
class Visit:
    """A point where the equations were linearised, and the multiplier (R - E b) / tau^2 that they were curved by."""

    at: Point
    cost: Cost
    normal: Normal
    multiplier: np.ndarray
    scales: Scales

    def onward(self, length: float) -> np.ndarray:
        """The multiplier after a step: what the equations, linearised, lead to.

        Newton's method for (y, p, multiplier), R - E b = tau^2 multiplier. With the residual itself over tau^2, which
        after a step is mostly what the linearisation missed, Newton's matrix is hardly ever positive and the step at
        small tau hardly ever a good one (P. E. Gill, D. P. Robinson, Comput. Optim. Appl. 51 (2012) 1).
        """
        step, fields = self.normal.steps
        linear, tau = self.normal.linear, self.scales[1]
        reached = (self.cost.r / tau + linear.J @ fields + linear.C @ step[: linear.C.shape[1]]) / tau
        return self.multiplier + length * (reached - self.multiplier)


def inverse(S: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric matrix, scaled first; infinite variances where it is singular."""
    if not S.size:
        return S
    scale = np.sqrt(np.maximum(np.abs(np.diag(S)), 1e-300))
    values, vectors = np.linalg.eigh(S / np.outer(scale, scale))
    values = np.maximum(values, 1e-15)
    return (vectors / values) @ vectors.T / np.outer(scale, scale)
