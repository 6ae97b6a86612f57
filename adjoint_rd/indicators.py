"""Numbers of a state that tell of a breakdown to come; the guards of `adjoint_rd.guards` put limits on them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import as_real_array
from .errors import InputError, check_count
from .simulation import Simulation

__all__ = ["checkerboard", "flip", "lowest_multiplier", "outside", "spectral_radius"]


def outside(y: np.ndarray, box: Sequence[tuple[float, float]]) -> float:
    """How far the state (S, *shape) leaves the box ((low, high) per species); negative inside, inf if not finite."""
    if len(y) != len(box):
        raise InputError(f"box={box!r} has {len(box)} pairs (low, high); the state has {len(y)} species.")
    excess = -math.inf
    for each, (low, high) in zip(y, box, strict=True):
        smallest, largest = float(each.min()), float(each.max())
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            return math.inf
        excess = max(excess, low - smallest, largest - high)
    return excess


def checkerboard(y: np.ndarray) -> float:
    """The largest value after the filter (-1/4, 1/2, -1/4) along each axis: it keeps the highest mode as it is.

    On smooth patterns it falls with the fourth power of the wave number (in 2-D).
    """
    z = np.asarray(as_real_array("y", y), dtype=np.float64)
    for axis in range(1, z.ndim):
        z = 0.5 * z - 0.25 * (np.roll(z, 1, axis) + np.roll(z, -1, axis))
    return float(np.max(np.abs(z)))


def flip(before: np.ndarray, y: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Amplitude of what changes sign in every step, and its share: 1 if nothing else changes, 0 for smooth motion."""
    if not np.shape(before) == np.shape(y) == np.shape(after):
        raise InputError(f"the states have shapes {np.shape(before)}, {np.shape(y)} and {np.shape(after)}.")
    with np.errstate(all="ignore"):
        amplitude = float(np.max(np.abs(after - 2.0 * y + before))) / 4.0
        change = float(np.max(np.abs(after - y))) / 2.0
    return amplitude, amplitude / max(change, np.finfo(float).tiny)


def spectral_radius(
    sim: Simulation, y: Any, params: Mapping[str, Any], *, iterations: int = 50, start: Any = None
) -> tuple[float, np.ndarray]:
    """Estimate the spectral radius of the step's Jacobian at y by power iteration; it approaches from below.

    Parameters
    ----------
    sim : Simulation
    y : array_like (S, *shape)
    params : dict
    iterations : int
        One tangent step each.
    start : ndarray (S, *shape), optional
        A first guess of the mode, such as the mode that an earlier call returned.

    Returns
    -------
    (float, ndarray)
        The estimate, and the mode of unit norm. Above 1 some perturbation grows: by the physics if the eigenvalue is
        positive (patterns do grow), by too long a time step if it is negative; `lowest_multiplier` tells which.
    """
    t = _start(sim, start)
    radius = 0.0
    for _ in range(check_count("iterations", iterations, 1)):
        t = sim.tangent(y, params, steps=1, initial=t).tangent
        radius = float(np.sqrt(np.sum(np.square(t, dtype=np.float64))))
        if not (math.isfinite(radius) and radius > 0.0):
            break
        t = t / radius
    return radius, t


def lowest_multiplier(
    sim: Simulation, y: Any, params: Mapping[str, Any], *, iterations: int = 50, start: Any = None
) -> tuple[float, np.ndarray]:
    """Estimate the lowest eigenvalue of the step's Jacobian at y from above, by power iteration on 1 - J.

    Parameters
    ----------
    sim, y, params, iterations, start
        As in `spectral_radius`.

    Returns
    -------
    (float, ndarray)
        The estimate (the Rayleigh quotient), and the mode of unit norm. Below -1: unstable, by too long a time step.
    """
    t = _start(sim, start)
    lowest = math.nan
    for _ in range(check_count("iterations", iterations, 1)):
        moved = sim.tangent(y, params, steps=1, initial=t).tangent
        lowest = float(np.sum(np.multiply(t, moved, dtype=np.float64)))
        t = t - moved
        norm = float(np.sqrt(np.sum(np.square(t, dtype=np.float64))))
        if not (math.isfinite(norm) and norm > 0.0):
            break
        t = t / norm
    return lowest, t


def _start(sim: Simulation, start: Any) -> np.ndarray:
    t = (
        np.random.default_rng(0).standard_normal(sim.state_shape)
        if start is None
        else np.array(as_real_array("start", start), dtype=np.float64)
    )
    if t.shape != sim.state_shape:
        raise InputError(f"start has shape {t.shape}; it must be {sim.state_shape}.")
    norm = np.sqrt(np.sum(t * t))
    if not 0.0 < norm < math.inf:
        raise InputError(f"start has the norm {norm:g}; it must be positive and finite.")
    return t / norm
