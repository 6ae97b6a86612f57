"""Transforms between an optimiser's variable x and a parameter p, elementwise.

none      p = x
log       p = exp(x)                       p > 0
softplus  p = log(1 + exp(x))              p > 0, linear for large x
sigmoid   p = scale / (1 + exp(-x))        0 < p < scale
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError, as_real, check_choice


@dataclass(frozen=True)
class Identity:
    """p = x."""

    def forward(self, x: Any) -> Any:
        """p(x)."""
        return x

    def inverse(self, p: Any) -> Any:
        """x(p)."""
        return p

    def slope(self, x: Any) -> Any:
        """dp/dx."""
        return np.ones_like(x)

    def curvature(self, x: Any) -> Any:
        """d^2p/dx^2."""
        return np.zeros_like(x)

    def accepts(self, p: Any) -> bool:
        """Whether p is in the range of the transform."""
        return True

    requirement = "finite"


@dataclass(frozen=True)
class Log:
    """p = exp(x)."""

    def forward(self, x: Any) -> Any:
        """p(x)."""
        return np.exp(x)

    def inverse(self, p: Any) -> Any:
        """x(p)."""
        return np.log(p)

    def slope(self, x: Any) -> Any:
        """dp/dx."""
        return np.exp(x)

    def curvature(self, x: Any) -> Any:
        """d^2p/dx^2."""
        return np.exp(x)

    def accepts(self, p: Any) -> bool:
        """Whether p > 0."""
        return bool(np.all(np.asarray(p) > 0))

    requirement = "> 0"


@dataclass(frozen=True)
class Softplus:
    """p = log(1 + exp(x))."""

    def forward(self, x: Any) -> Any:
        """p(x)."""
        return np.logaddexp(0.0, x)

    def inverse(self, p: Any) -> Any:
        """x(p)."""
        return p + np.log(-np.expm1(-np.asarray(p)))

    def slope(self, x: Any) -> Any:
        """dp/dx."""
        return _logistic(x)

    def curvature(self, x: Any) -> Any:
        """d^2p/dx^2."""
        s = _logistic(x)
        return s * (1.0 - s)

    def accepts(self, p: Any) -> bool:
        """Whether p > 0."""
        return bool(np.all(np.asarray(p) > 0))

    requirement = "> 0"


@dataclass(frozen=True)
class Sigmoid:
    """p = scale / (1 + exp(-x))."""

    scale: float = 1.0

    def forward(self, x: Any) -> Any:
        """p(x)."""
        return self.scale * _logistic(x)

    def inverse(self, p: Any) -> Any:
        """x(p)."""
        p = np.asarray(p)
        return np.log(p / (self.scale - p))

    def slope(self, x: Any) -> Any:
        """dp/dx."""
        s = _logistic(x)
        return self.scale * s * (1.0 - s)

    def curvature(self, x: Any) -> Any:
        """d^2p/dx^2."""
        s = _logistic(x)
        return self.scale * s * (1.0 - s) * (1.0 - 2.0 * s)

    def accepts(self, p: Any) -> bool:
        """Whether 0 < p < scale."""
        return bool(np.all((np.asarray(p) > 0) & (np.asarray(p) < self.scale)))

    @property
    def requirement(self) -> str:
        """The range, in words."""
        return f"between 0 and {self.scale:g}"


def _logistic(x: Any) -> Any:
    return np.exp(-np.logaddexp(0.0, -np.asarray(x)))


_NAMED = {"none": Identity(), "log": Log(), "softplus": Softplus(), "sigmoid": Sigmoid()}


def get(transform: Any, argument: str = "transform") -> Any:
    """Return a transform from its name, None, ``("sigmoid", scale)``, or an object with the same methods."""
    if transform is None:
        return _NAMED["none"]
    if isinstance(transform, str):
        return _NAMED[check_choice(argument, transform, _NAMED)]
    if isinstance(transform, tuple) and len(transform) == 2 and str(transform[0]) == "sigmoid":
        try:
            scale = as_real(transform[1])
        except (TypeError, OverflowError):
            scale = float("nan")
        if not (np.isfinite(scale) and scale > 0):
            raise InputError(f"{argument}={transform!r}: the scale of a sigmoid must be positive.")
        return Sigmoid(scale)
    if all(
        callable(getattr(transform, name, None)) for name in ("forward", "inverse", "slope", "curvature", "accepts")
    ):
        return transform
    raise InputError(f"{argument}={transform!r} must be None, {', '.join(map(repr, _NAMED))} or ('sigmoid', scale).")
