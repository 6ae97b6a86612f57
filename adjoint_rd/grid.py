"""Grid: shape, spacing and boundary of a uniform cell-centred grid in one, two or three dimensions.

The Laplacian on it is the standard second-order star, ``sum_i (y[j - e_i] - 2 y[j] + y[j + e_i]) / h_i^2``. What stands
for a neighbour beyond the edge, per axis:

    periodic    the cell on the opposite side
    neumann     the edge cell itself (zero flux through the cell face)
    dirichlet   ``2 g - y`` (the value g on the cell face)

Each makes a symmetric operator (for Dirichlet, the linear part of an affine one), so the adjoint uses the same star.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import InputError, as_real, check_choice, shown

BOUNDARIES = ("periodic", "neumann", "dirichlet")


@dataclass(frozen=True)
class Grid:
    """A uniform grid.

    Parameters
    ----------
    shape : sequence of int
        Cells along each of the 1 to 3 axes, at least 3 each.
    spacing : float or sequence of float
        Distance between cell centres in the user's unit of length, one for all axes or one per axis.
    boundary : str or sequence of str
        "periodic", "neumann" or "dirichlet", one for all axes or one per axis.
    wall : sequence of float, optional
        The value on Dirichlet walls, one per species; by default the model's rest state.

    Raises
    ------
    InputError
        If any of these is out of range.
    """

    shape: tuple[int, ...]
    spacing: Any = 1.0
    boundary: Any = "periodic"
    wall: Any = None

    def __post_init__(self) -> None:
        shape = _check_shape(self.shape)
        object.__setattr__(self, "shape", shape)
        spacing = _per_axis("spacing", self.spacing, len(shape), _check_spacing)
        object.__setattr__(self, "spacing", spacing)
        boundary = _per_axis(
            "boundary", self.boundary, len(shape), lambda name, value: check_choice(name, value, BOUNDARIES)
        )
        object.__setattr__(self, "boundary", boundary)
        if self.wall is not None:
            try:
                wall = tuple(float(value) for value in np.atleast_1d(np.asarray(self.wall, dtype=float)))
            except (TypeError, ValueError, OverflowError):
                raise InputError(f"wall={self.wall!r} must be one number per species.") from None
            if not np.all(np.isfinite(wall)):
                raise InputError(f"wall={self.wall!r} must be finite.")
            if "dirichlet" not in boundary:
                raise InputError(f"wall={self.wall!r} is given, but no axis of boundary={boundary!r} is 'dirichlet'.")
            object.__setattr__(self, "wall", wall)

    @property
    def ndim(self) -> int:
        """The number of axes, 1 to 3."""
        return len(self.shape)

    @cached_property
    def size(self) -> int:
        """The number of cells."""
        return int(np.prod(self.shape))

    @cached_property
    def cell_volume(self) -> float:
        """The product of the spacings."""
        return float(np.prod(self.spacing))

    @cached_property
    def largest_wavenumber_squared(self) -> float:
        """The largest eigenvalue of minus the discrete Laplacian, 1/length^2.

        ``sum_i 4/h_i^2 sin^2(theta_i / 2)`` with the highest mode that fits: theta = pi (even periodic axes, and
        Dirichlet), pi (n - 1)/n (odd periodic axes, and Neumann).
        """
        total = 0.0
        for n, h, kind in zip(self.shape, self.spacing, self.boundary, strict=True):
            reaches_pi = kind == "dirichlet" or (kind == "periodic" and n % 2 == 0)
            theta = np.pi if reaches_pi else np.pi * (n - 1) / n
            total += 4.0 / h**2 * float(np.sin(theta / 2.0)) ** 2
        return total

    def __str__(self) -> str:
        spacing = "x".join(f"{h:g}" for h in self.spacing) if len(set(self.spacing)) > 1 else f"{self.spacing[0]:g}"
        boundary = self.boundary[0] if len(set(self.boundary)) == 1 else "/".join(self.boundary)
        return f"{'x'.join(map(str, self.shape))} cells, spacing {spacing}, {boundary}"


def _check_shape(shape: Any) -> tuple[int, ...]:
    try:
        if isinstance(shape, (int, np.integer)) and not isinstance(shape, bool):
            shape = (shape,)
        if any(isinstance(n, bool) for n in shape):
            raise TypeError
        checked = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise InputError(f"shape={shape!r} must be a tuple of whole numbers, such as (128, 128).") from None
    if not 1 <= len(checked) <= 3:
        raise InputError(f"shape={checked} has {len(checked)} axes; grids have 1, 2 or 3.")
    if min(checked) < 3:
        raise InputError(f"shape={checked} has an axis of {min(checked)} cells; the star needs at least 3.")
    return checked


def _check_spacing(name: str, value: Any) -> float:
    try:
        number = as_real(value)
    except (TypeError, OverflowError):
        number = float("nan")
    if not (np.isfinite(number) and number > 0):
        raise InputError(
            f"{name}={shown(value)} must be a positive finite length, in the unit that the diffusivities use."
        )
    if not 1e-100 < number < 1e100:
        raise InputError(f"{name}={shown(value)} is so far from 1 that its square is no number; use another unit.")
    return number


def _per_axis(name: str, value: Any, ndim: int, check: Any) -> tuple[Any, ...]:
    several = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0
    values = tuple(value) if several else (value,) * ndim
    if len(values) != ndim:
        raise InputError(
            f"{name}={shown(value)} has {len(values)} entries; give one, or one for each of the {ndim} axes."
        )
    return tuple(check(name, each) for each in values)
