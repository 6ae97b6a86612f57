"""Where the uniform states of Gray-Scott appear, oscillate and form patterns.

The red state (u, v) = (1, 0), always stable, and for ``F >= 4 (F + k)^2`` the blue one with

    v = (F + sqrt(F^2 - 4 F (F + k)^2)) / (2 (F + k)),    u = (F + k) / v

where the Jacobian is ``[[-v^2 - F, -2 (F + k)], [v^2, F + k]]``, of trace k - v^2 and determinant (F + k) (v^2 - F).
Hence

    saddle-node  F = 4 (F + k)^2, that is  k = sqrt(F) / 2 - F: no blue state above
    Hopf         v^2 = k, that is  F + k = sqrt(F) k^(1/4), with k > F: the blue state oscillates above
    Turing       Du (F + k) - Dv (v^2 + F) = 2 sqrt(Du Dv (F + k) (v^2 - F)): the blue state forms patterns above; only
                 where it is stable without diffusion, v^2 > k (never for Du = Dv)

Source: J. E. Pearson, Science 261 (1993) 189; J. D. Murray, Mathematical Biology II, 2.3 (conditions for Turing
instability).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from .arrays import as_real_array
from .errors import check_number

__all__ = ["Line", "blue_state", "boundaries", "turing_excess"]


@dataclass(frozen=True)
class Line:
    """A boundary in the plane of k and F: points (k[i], F[i]), and what it is."""

    name: str
    k: np.ndarray
    F: np.ndarray
    meaning: str


def blue_state(F: Any, k: Any) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of the uniform state with the larger v; NaN where there is none."""
    F, k = as_real_array("F", F).astype(np.float64), as_real_array("k", k).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        v = (F + np.sqrt(F * F - 4.0 * F * (F + k) ** 2)) / (2.0 * (F + k))
        return (F + k) / v, v


def turing_excess(F: Any, k: Any, Du: float, Dv: float) -> np.ndarray:
    """Positive where some wave grows on the blue state by Turing's mechanism; NaN where there is no blue state."""
    _, v = blue_state(F, k)
    s = np.asarray(F) + np.asarray(k)
    determinant = s * (v * v - F)
    return Du * s - Dv * (v * v + F) - 2.0 * np.sqrt(Du * Dv * np.maximum(determinant, 0.0))


def boundaries(Du: float, Dv: float, F: Any = None) -> list[Line]:
    """The saddle-node, Hopf and Turing lines of Gray-Scott, for ``0 < F <= 1/4``.

    Parameters
    ----------
    Du, Dv : float
    F : 1-D array, optional
        Where to compute them; the Hopf line is given at its own points.

    Returns
    -------
    list of Line
    """
    Du, Dv = check_number("Du", Du, above=0.0), check_number("Dv", Dv, above=0.0)
    F = np.linspace(1e-4, 0.12, 400) if F is None else as_real_array("F", F).astype(np.float64)
    F = F[(F > 0) & (F < 0.25)]
    edge = np.sqrt(F) / 2.0 - F
    kept = edge >= 0.0
    saddle = Line("saddle-node", edge[kept], F[kept], "no blue state for larger k")
    k = np.linspace(1e-6, 1.0 / 16.0, 400)
    root = (k**0.25 - np.sqrt(np.maximum(np.sqrt(k) - 4.0 * k, 0.0))) / 2.0
    hopf = Line("Hopf", k, root**2, "the blue state oscillates for smaller F")
    points = []
    for f, most in zip(F[kept], edge[kept], strict=True):
        trial = np.linspace(0.0, most * (1.0 - 1e-9), 200)
        excess = turing_excess(f, trial, Du, Dv)
        for n in np.flatnonzero((excess[:-1] < 0.0) != (excess[1:] < 0.0)):
            points.append((brentq(lambda q, f=f: float(turing_excess(f, q, Du, Dv)), trial[n], trial[n + 1]), f))
    turing = np.array(points).reshape(-1, 2)
    turing = turing[blue_state(turing[:, 1], turing[:, 0])[1] ** 2 > turing[:, 0]]
    return [saddle, hopf, Line("Turing", turing[:, 0], turing[:, 1], "the blue state forms patterns for larger k")]
