"""Trajectory matching over parameters and the free first state (strong-constraint 4D-Var), by Gauss-Newton.

    J(p, xi) = 1/2 sum_i |W (H y(t_i; p, y0) - d_i)|^2 + 1/2 |xi|^2,     y0 = b + L xi

H takes the observed species and cells, W is one over the noise (0 where nothing was seen), b is a guess of the first
state and L = (standard deviation) x (a low-pass filter of the grid's wavenumbers): a prior that every pattern on the
grid satisfies, which only keeps what the frames cannot see (high wavenumbers, which diffuse away before the second
frame) from growing.

Each iteration linearises the run, m + J_xi dxi + J_x dx with x = log p, and eliminates x by projection: with the QR
factors J_x = Q R and P = I - Q Q^T,

    (I + J_xi^T P J_xi) dxi = -(xi + J_xi^T P m),    dx = -R^-1 Q^T (m + J_xi dxi)

by conjugate gradients whose products are one tangent and one adjoint run. The covariance of x is that of the posterior
with the first state integrated out, the inverse of the Schur complement. By Woodbury's identity, with B = J_xi^T Q,

    cov x = R^-1 [I + B^T (I + J_xi^T P J_xi)^-1 B] R^-T.

The systems with different right-hand sides at one linearisation share their search directions: each starts from its
Galerkin solution in the space of all directions so far, and new ones are kept conjugate to them (Y. Saad, Math. Comp.
48 (1987) 651).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import AdjointRDError
from ..losses import Linear, Trajectory
from ..simulation import Simulation
from ..sparse import Spectral

MOST_MOVE = 0.5  # of a logarithm in one iteration
HALVINGS = 6


class Window:
    """The least-squares problem of the frames of a window.

    Parameters
    ----------
    sim : Simulation
    marks : sequence of int
        The step number of each frame; the first is 0.
    data : ndarray (M, O, *shape)
        The frames of the observed species in the cells that `every` selects.
    weights : ndarray, broadcasts against `data`
        One over the standard deviation of the noise; 0 where nothing was seen.
    species : tuple of int
        The O observed species.
    free : tuple of str
        The parameters to fit.
    fixed : dict
        The others.
    background : ndarray (S, *grid)
        b.
    spread : ndarray (S,)
        Standard deviation of the first state about b, of each species.
    smooth : float
        The wavenumber (1/length) at which the low-pass filter of L is a half.
    every : int
        Frames show every so-manyth cell of the grid along each axis.
    """

    def __init__(
        self,
        sim: Simulation,
        marks: Sequence[int],
        data: np.ndarray,
        weights: np.ndarray,
        species: tuple[int, ...],
        free: tuple[str, ...],
        fixed: Mapping[str, float],
        background: np.ndarray,
        spread: np.ndarray,
        smooth: float,
        every: int = 1,
    ):
        self.sim, self.marks, self.data = sim, [int(mark) for mark in marks], data
        self.weights = np.broadcast_to(weights, data.shape)
        self.species, self.free, self.fixed = species, free, dict(fixed)
        self.background = background
        self.every = (slice(None, None, every),) * sim.grid.ndim
        self.spectral = Spectral(sim.grid)
        # The fourth power: steep enough to matter, flat enough to leave the wavenumbers of patterns alone.
        self.filter = 1.0 / (1.0 + (self.spectral.lam / smooth**2) ** 2)
        self.spread = np.asarray(spread, dtype=np.float64).reshape(-1, *(1,) * sim.grid.ndim)
        self.count = int(np.count_nonzero(self.weights))
        self.gap = int(np.gcd.reduce(self.marks)) if len(self.marks) > 1 else 1

    def shorter(self, frames: int) -> Window:
        """The same problem for the first so many frames."""
        copy = object.__new__(Window)
        copy.__dict__.update(self.__dict__)
        copy.marks, copy.data, copy.weights = self.marks[:frames], self.data[:frames], self.weights[:frames]
        copy.count = int(np.count_nonzero(copy.weights))
        return copy

    def params(self, x: np.ndarray) -> dict[str, float]:
        """All parameters at x."""
        return {**self.fixed, **dict(zip(self.free, np.exp(x).tolist(), strict=True))}

    def smoothed(self, xi: np.ndarray) -> np.ndarray:
        """L xi, symmetric."""
        return self.spread * self.spectral.apply(xi.reshape(self.background.shape), self.filter)

    def first(self, xi: np.ndarray) -> np.ndarray:
        """The first state."""
        return self.background + self.smoothed(xi)

    def _observed(self, states: np.ndarray) -> np.ndarray:
        return states[(slice(None), list(self.species), *self.every)]

    def misfit(self, x: np.ndarray, xi: np.ndarray) -> np.ndarray:
        """W (H y - d), of the data's shape; raises if the run diverges."""
        run = self.sim.run(self.first(xi), self.params(x), steps=self.marks[-1], save_every=self.gap)
        states = run.states[[mark // self.gap for mark in self.marks]]
        return (self._observed(states) - self.data) * self.weights

    def cost(self, m: np.ndarray, xi: np.ndarray) -> float:
        """J."""
        return 0.5 * (float(np.vdot(m, m)) + float(xi @ xi))


class Linearised:
    """A window's run linearised about one point: products with J_xi and J_x, and solves."""

    def __init__(self, window: Window, x: np.ndarray, xi: np.ndarray):
        self.window, self.y0, self.p = window, window.first(xi), window.params(x)
        columns = [self._tangent(direction={name: self.p[name]}).ravel() for name in window.free]
        self.Q, self.R = np.linalg.qr(np.stack(columns, axis=1))
        self.directions: list[np.ndarray] = []
        self.images: list[np.ndarray] = []  # of the directions under the matrix
        self.products = 0

    def _tangent(self, **along: Any) -> np.ndarray:
        window = self.window
        found = window.sim.tangents_at(self.y0, self.p, window.marks, **along)
        return window._observed(np.stack([each.tangent for each in found])) * window.weights

    def forth(self, xi: np.ndarray) -> np.ndarray:
        """J_xi xi as a vector."""
        return self._tangent(initial=self.window.smoothed(xi)).ravel()

    def back(self, m: np.ndarray) -> np.ndarray:
        """J_xi^T m."""
        window = self.window
        seeds = m.reshape(window.data.shape) * window.weights
        losses = {}
        for mark, seed in zip(window.marks, seeds, strict=True):
            full = np.zeros(self.y0.shape)
            full[(list(window.species), *window.every)] = seed
            losses[mark] = Linear(full)
        gradient = window.sim.gradient(self.y0, self.p, Trajectory(losses), steps=window.marks[-1])
        return window.smoothed(gradient.initial).ravel()

    def projected(self, m: np.ndarray) -> np.ndarray:
        """P m."""
        return m - self.Q @ (self.Q.T @ m)

    def product(self, xi: np.ndarray) -> np.ndarray:
        """(I + J_xi^T P J_xi) xi."""
        self.products += 1
        return xi + self.back(self.projected(self.forth(xi)))

    def solve(
        self, b: np.ndarray, tolerance: float, most: int, done: Callable[[np.ndarray], bool] | None = None
    ) -> np.ndarray:
        """Conjugate gradients that share their directions.

        Stops at a residual of `tolerance` |b|, after `most` products, or when ``done(x)``.
        """
        x = np.zeros_like(b)
        r = b.copy()
        for d, Ad in zip(self.directions, self.images, strict=True):
            a = float(d @ r)
            x += a * d
            r -= a * Ad
        size = tolerance * float(np.linalg.norm(b))
        for _ in range(most):
            if np.linalg.norm(r) <= size:
                break
            d = r.copy()
            for other, image in zip(self.directions, self.images, strict=True):
                d -= float(image @ r) * other
            Ad = self.product(d)
            length = float(np.sqrt(d @ Ad))
            d, Ad = d / length, Ad / length
            self.directions.append(d)
            self.images.append(Ad)
            a = float(d @ r)
            x += a * d
            r -= a * Ad
            if done is not None and done(x):
                break
        return x

    def step(self, m: np.ndarray, xi: np.ndarray, tolerance: float, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The Gauss-Newton step (dx, dxi)."""
        m = m.ravel()
        dxi = self.solve(-(xi + self.back(self.projected(m))), tolerance, most)
        return -np.linalg.solve(self.R, self.Q.T @ (m + self.forth(dxi))), dxi

    def covariance(self, tolerance: float, most: int) -> np.ndarray:
        """Of x, see the module. CG approaches it from below; it stops when the last ten products added less than
        `tolerance` of each variance."""
        P = self.Q.shape[1]
        B = np.stack([self.back(self.Q[:, i]) for i in range(P)], axis=1)
        inverse = np.linalg.inv(self.R)
        inner = np.eye(P)
        for i in range(P):
            history: list[float] = []

            def done(z: np.ndarray, i: int = i, history: list[float] = history) -> bool:
                history.append(1.0 + float(B[:, i] @ z))
                return len(history) > 10 and history[-1] - history[-11] < tolerance * history[-1]

            inner[:, i] += B.T @ self.solve(B[:, i], 1e-6, most, done)
        inner = 0.5 * (inner + inner.T)
        return inverse @ inner @ inverse.T


@dataclass
class MovieFit:
    """Where Gauss-Newton got to.

    Attributes
    ----------
    x : ndarray
        Logarithms of the free parameters.
    xi : ndarray
    misfit : ndarray (M, O, *shape)
        In units of the noise.
    chi2 : float
        Mean square of the misfit, corrected for nothing.
    iterations, products : int
    converged : bool
    linear : Linearised or None
        About the last iterate.
    """

    x: np.ndarray
    xi: np.ndarray
    misfit: np.ndarray
    chi2: float
    iterations: int = 0
    products: int = 0
    converged: bool = False
    linear: Linearised | None = field(default=None, repr=False)


def fit(
    window: Window,
    x: np.ndarray,
    xi: np.ndarray,
    *,
    most: int = 12,
    products: int = 60,
    tolerance: float = 0.03,
    small: float = 1e-3,
    report: Callable[[MovieFit], None] | None = None,
) -> MovieFit:
    """Gauss-Newton with halved steps.

    Parameters
    ----------
    window : Window
    x, xi : ndarray
        Start.
    most : int
        Iterations.
    products : int
        Of conjugate gradients in one iteration.
    tolerance : float
        Of the linear systems.
    small : float
        Converged when no logarithm changes by more.
    report : callable, optional
        Called after each iteration.

    Raises
    ------
    AdjointRDError
        If the start itself diverges.
    """
    m = window.misfit(x, xi)
    now = MovieFit(x, xi, m, float(np.vdot(m, m)) / window.count)
    cost = window.cost(m, xi)
    while now.iterations < most and not now.converged:
        linear = Linearised(window, now.x, now.xi)
        dx, dxi = linear.step(now.misfit, now.xi, tolerance, products)
        now.iterations += 1
        now.products += linear.products
        now.linear = linear
        scale = min(1.0, MOST_MOVE / max(float(np.max(np.abs(dx), initial=0.0)), 1e-300))
        for _ in range(HALVINGS):
            try:
                m = window.misfit(now.x + scale * dx, now.xi + scale * dxi)
                there = window.cost(m, now.xi + scale * dxi)
            except AdjointRDError:
                there = np.inf
            if there < cost:
                break
            scale *= 0.4
        else:
            now.converged = float(np.max(np.abs(dx), initial=0.0)) < small
            break
        now.x, now.xi, now.misfit, cost = now.x + scale * dx, now.xi + scale * dxi, m, there
        now.chi2 = float(np.vdot(m, m)) / window.count
        now.converged = float(np.max(np.abs(dx), initial=0.0)) < small
        if report is not None:
            report(now)
    return now
