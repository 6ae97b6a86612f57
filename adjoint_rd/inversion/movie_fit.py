"""Trajectory matching over parameters and the free first state (strong-constraint 4D-Var), by Gauss-Newton.

    J(p, xi) = 1/2 sum_i |W (H y(t_i; p, y0) - d_i)|^2 + 1/2 |xi|^2,     y0 = b + L xi

H takes the observed species and cells, W is one over the noise (0 where nothing was seen), b is a guess of the first
state and L its standard deviation in each mode of the grid's Laplacian, see `movie_background`.

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
from ..grid import Grid
from ..linearised import LinearisedRun
from ..models import Model
from ..simulation import Simulation
from ..sparse import Spectral

MOST_MOVE = 0.5  # of a logarithm in one iteration
HALVINGS = 6
CANCELLED = 0.3  # of a direction: what is left of it if it was made conjugate to the others accurately
RELINEARISE, STEPS = 3, 5  # at most so many Jacobians in `settle`, and steps by each
FROZEN = 5e-3  # move of a logarithm over which the Jacobian may be kept
FLAT = 0.03  # of the cost: an iteration that lowers it by less is near the end


class Window:
    """The least-squares problem of the frames of a window.

    Parameters
    ----------
    model : Model
    grid : Grid
    interval : float
        The common interval of the frames' times.
    counts : sequence of int
        The frames' times in units of it, from 0.
    steps, scheme : int, str
        How the runs cover an interval.
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
    deviation : ndarray, broadcasts against the coefficients of `Spectral` (S, *modes)
        L.
    every : int
        Frames show every so-manyth cell of the grid along each axis.
    """

    def __init__(
        self,
        model: Model,
        grid: Grid,
        interval: float,
        counts: Sequence[int],
        steps: int,
        scheme: str,
        data: np.ndarray,
        weights: np.ndarray,
        species: tuple[int, ...],
        free: tuple[str, ...],
        fixed: Mapping[str, float],
        background: np.ndarray,
        deviation: np.ndarray,
        every: int = 1,
    ):
        self.model, self.grid, self.interval, self.data = model, grid, float(interval), data
        self.counts = [int(count) for count in counts]
        self._run_by(steps, scheme)
        self.weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), data.shape)
        self.species, self.free, self.fixed = species, free, dict(fixed)
        self.background = background
        self.every = (slice(None, None, every),) * grid.ndim
        self.spectral = Spectral(grid)
        self.deviation = deviation
        self.count = int(np.count_nonzero(self.weights))

    def shorter(self, frames: int) -> Window:
        """The same problem for the first so many frames."""
        copy = object.__new__(Window)
        copy.__dict__.update(self.__dict__)
        copy.counts, copy.marks = self.counts[:frames], self.marks[:frames]
        copy.data, copy.weights = self.data[:frames], self.weights[:frames]
        copy.count = int(np.count_nonzero(copy.weights))
        return copy

    def with_data(self, data: np.ndarray) -> Window:
        """The same problem with other frames."""
        copy = object.__new__(Window)
        copy.__dict__.update(self.__dict__)
        copy.data = data
        return copy

    def with_steps(self, steps: int, scheme: str) -> Window:
        """The same problem with so many steps of `scheme` in the common interval of the frames."""
        copy = object.__new__(Window)
        copy.__dict__.update(self.__dict__)
        copy._run_by(steps, scheme)
        return copy

    def _run_by(self, steps: int, scheme: str) -> None:
        options: dict[str, Any] = dict(dt=self.interval / steps, scheme=scheme, stability="off")
        self.steps = steps
        self.marks = [steps * count for count in self.counts]
        self.sim = Simulation(self.model, self.grid, **options)

    def params(self, x: np.ndarray) -> dict[str, float]:
        """All parameters at x."""
        return {**self.fixed, **dict(zip(self.free, np.exp(x).tolist(), strict=True))}

    def smoothed(self, xi: np.ndarray) -> np.ndarray:
        """L xi, symmetric."""
        return self.spectral.apply(xi.reshape(self.background.shape), self.deviation)

    def first(self, xi: np.ndarray) -> np.ndarray:
        """The first state."""
        return self.background + self.smoothed(xi)

    def observed(self, states: np.ndarray) -> np.ndarray:
        """H of states (M, S, *grid)."""
        return states[(slice(None), list(self.species), *self.every)]

    def misfit(self, x: np.ndarray, xi: np.ndarray) -> np.ndarray:
        """W (H y - d), of the data's shape; raises if the run diverges."""
        run = self.sim.run(self.first(xi), self.params(x), steps=self.marks[-1], save_every=self.steps)
        states = run.states[self.counts]
        return (self.observed(states) - self.data) * self.weights

    def cost(self, m: np.ndarray, xi: np.ndarray) -> float:
        """J."""
        return 0.5 * (float(np.vdot(m, m)) + float(xi @ xi))


class Linearised:
    """A window's run linearised about one point: products with J_xi and J_x, and solves.

    In float64: where patterns are chaotic, directions grow a thousandfold over the window, and float32 loses conjugacy.

    Parameters
    ----------
    window : Window
    x, xi : ndarray
        The point.
    near : Linearised, optional
        About a point nearby: its duals are the first directions here (see `covariance`), and all its directions
        precondition the solves, as a limited-memory preconditioner (S.
        Gratton, A. Sartenaer, J. Tshimanga, SIAM J. Optim. 21 (2011) 912).
    """

    def __init__(self, window: Window, x: np.ndarray, xi: np.ndarray, near: Linearised | None = None):
        self.window, self.p = window, window.params(x)
        self.run = LinearisedRun(window.sim, window.first(xi), self.p, window.marks)
        columns = [self._observed(self.run.forth({name: self.p[name]})) for name in window.free]
        Q, self.R = np.linalg.qr(np.stack(columns, axis=1))
        self.Q = np.ascontiguousarray(Q.T)
        self.B = np.stack([self.back(row) for row in self.Q])  # J_xi^T Q
        self.directions = np.empty((0, xi.size), np.float64)
        self.images = np.empty((0, xi.size), np.float64)  # of the directions under the matrix
        self.count = 0
        self.near = (near.directions[: near.count], near.images[: near.count]) if near is not None else None
        self.products = 0
        self.duals = near.duals if near is not None else None
        if self.duals is not None:
            for dual in self.duals:
                self._extend(dual)

    def _observed(self, states: np.ndarray) -> np.ndarray:
        return (self.window.observed(states) * self.window.weights).ravel()

    def forth(self, xi: np.ndarray) -> np.ndarray:
        """J_xi xi as a vector."""
        return self._observed(self.run.forth(initial=self.window.smoothed(xi)))

    def back(self, m: np.ndarray) -> np.ndarray:
        """J_xi^T m."""
        window = self.window
        seeds = m.reshape(window.data.shape) * window.weights
        return window.smoothed(self.run.back(seeds, list(window.species), window.every)).ravel()

    def projected(self, m: np.ndarray) -> np.ndarray:
        """P m."""
        return m - (self.Q @ m) @ self.Q

    def product(self, xi: np.ndarray) -> np.ndarray:
        """(I + J_xi^T P J_xi) xi."""
        self.products += 1
        return xi + self.back(self.forth(xi)) - (self.B @ xi) @ self.B

    def _preconditioned(self, r: np.ndarray) -> np.ndarray:
        if self.near is None or not len(self.near[0]):
            return r
        D, A = self.near
        along = D @ r
        t = r - along @ A
        return t + (along - A @ t) @ D

    def _keep(self, d: np.ndarray, image: np.ndarray) -> None:
        if self.count == len(self.directions):
            room = max(32, self.count)
            empty = np.empty((room, d.size), np.float64)
            self.directions = np.concatenate([self.directions, empty])
            self.images = np.concatenate([self.images, empty])
        self.directions[self.count], self.images[self.count] = d, image
        self.count += 1

    def _extend(self, d: np.ndarray) -> bool:
        """Add a direction, made conjugate to all others; False if rounding leaves nothing of it."""
        left = 0.0
        while left < CANCELLED:  # once more if rounding matters
            size = np.linalg.norm(d)
            d = d - (self.images[: self.count] @ d) @ self.directions[: self.count]
            left = np.linalg.norm(d) / size
        image = self.product(d)
        length = float(d @ image)
        if not length > 0.0:
            return False
        self._keep(d / np.sqrt(length), image / np.sqrt(length))
        return True

    def solve(
        self, b: np.ndarray, tolerance: float, most: int, done: Callable[[np.ndarray], bool] | None = None
    ) -> np.ndarray:
        """Conjugate gradients that share their directions.

        Stops at a residual of `tolerance` |b|, after `most` products, or when ``done(x)``.
        """
        b = np.asarray(b, dtype=np.float64)
        along = self.directions[: self.count] @ b
        x = along @ self.directions[: self.count]
        r = b - along @ self.images[: self.count]
        size = tolerance * float(np.linalg.norm(b))
        for _ in range(most):
            if np.linalg.norm(r) <= size:
                break
            if not self._extend(self._preconditioned(r)):
                break
            d, image = self.directions[self.count - 1], self.images[self.count - 1]
            a = d @ r
            x = x + a * d
            r = r - a * image
            if done is not None and done(x):
                break
        return x

    def step(self, m: np.ndarray, xi: np.ndarray, tolerance: float, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The Gauss-Newton step (dx, dxi)."""
        m = m.ravel()
        dxi = self.solve(-(xi + self.back(self.projected(m))), tolerance, most)
        dx = -np.linalg.solve(self.R, self.Q @ (m + self.forth(dxi)))
        return dx, dxi

    def covariance(self, tolerance: float, most: int) -> np.ndarray:
        """Of x, see the module.

        Keeps A^-1 B as `duals`. In a space of directions that holds them, a residual r of a later solve adds nothing
        to the step of x in first order, since ``B^T A^-1 r = duals r = 0``: what is left is the product of two small
        errors. Conjugate gradients approach the covariance from below; they stop when the last ten products added less
        than `tolerance` of a variance.
        """
        P = len(self.Q)
        B = self.B
        Z = np.empty_like(B)
        for i in range(P):
            history: list[float] = []

            def done(z: np.ndarray, i: int = i, history: list[float] = history) -> bool:
                history.append(1.0 + float(B[i] @ z))
                return len(history) > 10 and history[-1] - history[-11] < tolerance * history[-1]

            Z[i] = self.solve(B[i], 1e-5, most, done)
        self.duals = Z
        inner = np.eye(P) + B @ Z.T
        inner = 0.5 * (inner + inner.T)
        inverse = np.linalg.inv(self.R)
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
        Mean square of the misfit.
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
    most: int,
    products: int,
    tolerance: float,
    small: float = FROZEN,
    gain: float = 0.0,
    near: Linearised | None = None,
    report: Callable[[MovieFit], None] | None = None,
) -> MovieFit:
    """Gauss-Newton with shortened steps.

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
        Converged when no logarithm's Gauss-Newton step is longer, and the step lowers the cost by less than `FLAT`.
    gain : float
        Stop as well when an iteration lowers the cost by less than this part of it.
    near : Linearised, optional
        To precondition the first iteration; each later one is preconditioned by the one before.
    report : callable, optional
        Called after each iteration.

    Raises
    ------
    AdjointRDError
        If the start itself diverges.
    """
    now = fit_at(window, x, xi, near)
    while now.iterations < most and not now.converged:
        now.linear = linear = Linearised(window, now.x, now.xi, now.linear)
        dx, dxi = linear.step(now.misfit, now.xi, tolerance, products)
        now.iterations += 1
        now.products += linear.products
        cost = window.cost(now.misfit, now.xi)
        advanced = _advance(window, now, dx, dxi)
        left = window.cost(now.misfit, now.xi) / cost
        now.converged = bool(np.all(np.abs(dx) < small)) and left > 1.0 - FLAT
        if not advanced:
            break
        if report is not None:
            report(now)
        if left > 1.0 - gain:
            break
    return now


def fit_at(window: Window, x: np.ndarray, xi: np.ndarray, near: Linearised | None = None) -> MovieFit:
    """No iteration yet."""
    m = window.misfit(x, xi)
    return MovieFit(x, xi, m, float(np.vdot(m, m)) / window.count, linear=near)


def _advance(window: Window, now: MovieFit, dx: np.ndarray, dxi: np.ndarray) -> bool:
    """Take as much of a step as lowers the cost; False if nothing does."""
    cost = window.cost(now.misfit, now.xi)
    scale = min(1.0, MOST_MOVE / max(float(np.max(np.abs(dx), initial=0.0)), 1e-300))
    for _ in range(HALVINGS):
        try:
            there = fit_at(window, now.x + scale * dx, now.xi + scale * dxi)
        except AdjointRDError:
            there = None
        if there is not None and window.cost(there.misfit, there.xi) < cost:
            now.x, now.xi, now.misfit, now.chi2 = there.x, there.xi, there.misfit, there.chi2
            return True
        scale *= 0.4
    return False


def settle(
    window: Window,
    now: MovieFit,
    *,
    close: float,
    tolerance: float,
    products: int,
    report: Callable[[MovieFit], None] | None = None,
) -> np.ndarray:
    """Converge to a part of the standard errors, and return the covariance of x.

    Near the end the Jacobian is kept: the covariance and all further steps share one space of directions.

    Parameters
    ----------
    window : Window
    now : MovieFit
        Changed in place; `converged` says whether no step of x is longer than `close` standard errors.
    close : float
    tolerance : float
        Of the variances.
    products : int
        At most so many for each standard error.
    report : callable, optional
        Called after each step.
    """
    covariance = np.full((now.x.size,) * 2, np.nan)
    linear = now.linear if now.converged else None
    for _ in range(RELINEARISE):
        if linear is None:
            linear = now.linear = Linearised(window, now.x, now.xi, now.linear)
        begin, before = now.x, linear.products
        covariance = linear.covariance(tolerance, products)
        deviation = np.sqrt(np.diag(covariance))
        now.converged = False
        for _ in range(STEPS):
            dx, dxi = linear.step(now.misfit, now.xi, 0.03, products)
            now.converged = bool(np.all(np.abs(dx) < close * deviation))
            moved = _advance(window, now, dx, dxi)
            now.iterations += 1
            now.products += linear.products - before
            before = linear.products
            if moved and report is not None:
                report(now)
            if now.converged or not moved:
                break
        if now.converged and np.max(np.abs(now.x - begin)) < FROZEN:
            break
        linear = None
    return covariance
