"""Steady states and their implicit derivatives.

A steady state y(p) solves ``R(y; p) = D Lap y + reaction(y; p) = 0``. Differentiating this with J = R_y,

    tangent    J t = -R_p dp
    gradient   dL/dp = -lambda^T R_p   with   J^T lambda = dL/dy

so that the gradient of a loss of the steady state costs one linear solve, however long the pattern took to form, where
unrolling the time steps costs all of them (B. Christianson, Optim. Methods Softw. 3 (1994) 311; L. Blondel et al.,
NeurIPS 2022, Eq. (3)).

**Null modes.** On periodic axes a shifted pattern is steady too (up to the pinning by the grid, which is exponentially
weak):
the derivatives of y along these axes are null vectors of J. With T an orthonormal basis of them at a reference state
y_ref, both the state and its derivatives are taken from the bordered problem

    R(y; p) + T s = 0,   T^T (y - y_ref) = 0          J t + T s' = -R_p dp,   T^T t = 0

and the adjoint from its exact transpose, ``J^T lambda + T mu = dL/dy, T^T lambda = 0``. So the pattern stays where
y_ref has
it; s is the speed at which it would creep. The derivatives are those of this gauge-fixed state. For losses that do not
change under shifts they are the derivatives, full stop; for others (a target at a fixed place) they leave out the
shift.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import linalg as iterative

from . import transforms
from .arrays import as_real_array
from .checks import free_and_fixed
from .errors import AdjointRDError, InputError, check_choice, check_count, check_number, did_you_mean, shown
from .losses import check_loss
from .simulation import Simulation
from .sparse import LU, Spectral, System

DIRECT_CELLS = 100_000  # more 2-D cells than this go to the Krylov solver
DIRECT_CELLS_3D = 12_000
LARGEST_MOVE = 0.1  # of the range of the state, in one step of Newton's method


class SteadyError(AdjointRDError, ArithmeticError):
    """No steady state was found, or its linear system could not be solved.

    Attributes
    ----------
    state : ndarray (S, *shape) or None
        The best state reached.
    """

    def __init__(self, message: str, state: Any = None):
        super().__init__(message)
        self.state = state


@dataclass(frozen=True)
class SteadyGradient:
    """A loss of a steady state and its derivatives.

    Attributes
    ----------
    value : float
    params : dict
        {name: float, or ndarray of the grid's shape for a field}: dL/dp.
    adjoint : ndarray (S, *shape)
        lambda, which is also the derivative of L with respect to a source added to the equations, times -1.
    """

    value: float
    params: dict[str, Any]
    adjoint: np.ndarray


class SteadyState:
    """A steady state, and derivatives through it; made by `find` (or directly, from a state known to be steady).

    Attributes
    ----------
    state : ndarray (S, *shape)
    params : dict
    rate : float
        max |R + T s|, the residual of the (bordered) steady equation.
    drift : float
        max |T s|: how fast the pattern still creeps, in units of the state over time; 0.0 without null modes.
    iterations : int
    tol : float
    converged : bool
        Whether `rate` is at most `tol`; derivatives are refused (`SteadyError`) if not.
    """

    def __init__(
        self,
        sim: Simulation,
        state: Any,
        params: Mapping[str, Any],
        *,
        modes: np.ndarray | None = None,
        solver: str = "auto",
        iterations: int = 0,
        tol: float = 1e-10,
    ):
        self.sim = sim
        self.system = System(sim.model, sim.grid)
        self.state = np.array(state, dtype=np.float64).reshape(sim.state_shape)
        self.params = sim.check_params(params)
        self.modes = np.zeros((self.state.size, 0)) if modes is None else modes
        self.solver = _choose_solver(solver, sim)
        self.iterations = iterations
        residual = self.system.residual(self.state.ravel(), self.params)
        creep = self.modes @ (self.modes.T @ residual)
        self.rate = float(np.max(np.abs(residual - creep)))
        self.drift = float(np.max(np.abs(creep)))
        self.tol, self.converged = tol, self.rate <= tol
        self._solve: Any = None

    def solve(self, b: np.ndarray, transpose: bool = False) -> np.ndarray:
        """The x of ``J x + T s = b, T^T x = 0`` (with `transpose`: of J^T), b flat; the factors are kept."""
        if self._solve is None:
            self._solve = _factor(self.system, self.state.ravel(), self.params, self.modes, self.solver)
        return self._solve(b, transpose)

    def _check_converged(self) -> None:
        if not self.converged:
            raise SteadyError(
                f"the state is not steady: its rate {self.rate:.2g} is above tol={self.tol:g}, and derivatives of a "
                "steady state are wrong there. Start nearer to one (steps=...), allow more max_iterations, or give the "
                "tol that is good enough.",
                self.state,
            )

    def tangent(self, direction: Mapping[str, Any]) -> np.ndarray:
        """The derivative of the state, (S, *shape), along a direction {name: float, or array for a field}."""
        self._check_converged()
        return self.solve(-self._along(direction)).reshape(self.state.shape)

    def _along(self, direction: Mapping[str, Any]) -> np.ndarray:
        """R_p dp."""
        model = self.sim.model
        for name in direction:
            if name not in model.names:
                raise InputError(
                    f"direction has {name!r}, which {model.name} does not know.{did_you_mean(name, model.names)}"
                )
        s = self.system.split(self.state)
        dp = tuple(np.ravel(direction.get(name, 0.0)) for name in model.parameters)
        zeros = tuple(np.zeros(self.sim.grid.size) for _ in s)
        moved = model.reaction_j(tuple(s), self.system.kinetics(self.params), zeros, dp)
        return np.concatenate(
            [
                moved[c] + float(direction.get(D, 0.0)) * (self.system.lap @ s[c] + self.system.walls[c])
                for c, D in enumerate(model.diffusivities)
            ]
        )

    def _pull_params(self, a: np.ndarray) -> dict[str, Any]:
        """R_p^T a."""
        model = self.sim.model
        s, a = self.system.split(self.state), self.system.split(a)
        found = {
            D: float(a[c] @ (self.system.lap @ s[c] + self.system.walls[c])) for c, D in enumerate(model.diffusivities)
        }
        pulled = model.reaction_pt(tuple(s), self.system.kinetics(self.params), tuple(a))
        for name, field in zip(model.parameters, pulled, strict=True):
            field = np.broadcast_to(field, (self.sim.grid.size,))
            is_field = np.ndim(self.params[name]) > 0
            found[name] = field.reshape(self.sim.grid.shape).copy() if is_field else float(np.sum(field))
        return found

    def gradient(self, loss: Any) -> SteadyGradient:
        """The loss of the state and dL/dp by the implicit function theorem.

        Parameters
        ----------
        loss : loss
            See `adjoint_rd.losses`; ``seed(y) = dL/dy``.

        Returns
        -------
        SteadyGradient
        """
        check_loss(loss)
        self._check_converged()
        seed = np.asarray(loss.seed(self.state), dtype=np.float64)
        if seed.shape != self.state.shape:
            raise InputError(f"the loss returned a seed of shape {seed.shape}; it must be {self.state.shape}.")
        adjoint = self.solve(seed.ravel(), transpose=True)
        pulled = self._pull_params(adjoint)
        return SteadyGradient(
            float(loss.value(self.state)),
            {name: -pulled[name] for name in self.sim.model.names},
            adjoint.reshape(self.state.shape),
        )

    def gauss_newton(self, loss: Any, direction: Mapping[str, Any]) -> dict[str, Any]:
        """The Gauss-Newton product ``y_p^T L_yy y_p dp`` as {name: float or array}.

        It is the Hessian product without the curvature of y(p). `loss` needs ``seed_tangent(y, t) = L_yy t``.
        """
        if not callable(getattr(loss, "seed_tangent", None)):
            raise InputError(f"loss={shown(loss)} has no seed_tangent(y, t); Gauss-Newton products need it.")
        curved = loss.seed_tangent(self.state, self.tangent(direction))
        pulled = self._pull_params(self.solve(np.ravel(curved), transpose=True))
        return {name: -pulled[name] for name in self.sim.model.names}

    def eigenvalues(self, count: int = 6) -> np.ndarray:
        """The eigenvalues of J with the largest real parts, complex, in descending order of the real part.

        By Arnoldi iterations on ``(J - shift)^-1`` with a small positive shift, so those nearest to zero are found;
        the state is linearly stable when none (but the null modes, about 0) has a positive real part. A pair that has
        crossed the axis far from zero can be missed.
        """
        count = check_count("count", count, 1)
        J = self.system.jacobian(self.state.ravel(), self.params)
        shift = 1e-3 * float(abs(self.system.reaction_jacobian(self.state.ravel(), self.params)[0][0]).max() + 1e-12)
        lu = LU(self.sim.grid, J - shift * sparse.eye_array(J.shape[0]))
        wanted = min(count + 4, J.shape[0] - 2)
        operator = iterative.LinearOperator(J.shape, matvec=lambda b: lu.solve(np.ravel(b)), dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(J.shape[0])
        found = iterative.eigs(operator, k=wanted, which="LM", tol=1e-8, v0=start, return_eigenvectors=False)
        values = shift + 1.0 / found
        return values[np.argsort(-values.real)][:count]


def find(
    sim: Simulation,
    y_start: Any,
    params: Mapping[str, Any],
    *,
    tol: float = 1e-10,
    max_iterations: int = 100,
    steps: int = 0,
    modes: Any = "auto",
    solver: str = "auto",
) -> SteadyState:
    """Find a steady state near `y_start` by damped Newton steps on ``R(y; p) = 0``.

    The steps are those of implicit Euler, ``(1/delta - J) dy = R``, with a pseudo time step delta that grows as the
    residual falls (switched evolution relaxation: W. A. Mulder, B. van Leer, J. Comput. Phys. 59 (1985) 232;
    convergence:
    C. T. Kelley, D. E. Keyes, SIAM J. Numer. Anal. 35 (1998) 508), until they are Newton's. A step that would move the
    state by more than a tenth of its range is retaken with a smaller delta.

    Parameters
    ----------
    sim : Simulation
    y_start : array_like (S, *shape)
    params : dict
        {name: float}; kinetic parameters may be fields.
    tol : float
        Converged when max |R + T s| <= tol.
    max_iterations : int
    steps : int
        Time steps of `sim` to take first.
    modes : "auto", None or array (S cells, m)
        Null modes T to border the problem with (see `adjoint_rd.steady`). "auto": the shifts of `y_start` along the
        periodic axes, or none if a parameter is a field. None: none; the state then moves to where the grid pins it.
    solver : {"auto", "direct", "krylov"}
        Sparse LU, or GMRES preconditioned by the equation with space-averaged kinetics, which fast transforms invert.
        "auto": direct up to 100 000 cells (12 000 in 3-D).

    Returns
    -------
    SteadyState
        Look at `converged`: from far away, or where a pattern creeps without end, the iteration may run out.

    Raises
    ------
    InputError
    SteadyError
        If the iteration leaves the finite numbers, or GMRES fails.
    """
    y = sim.check_state(y_start).astype(np.float64)
    params = sim.check_params(params)
    max_iterations = check_count("max_iterations", max_iterations)
    tol = check_number("tol", tol, above=0.0)
    if check_count("steps", steps):
        y = sim.run(y, params, steps=steps).final.astype(np.float64)
    system = System(sim.model, sim.grid)
    solver = _choose_solver(solver, sim)
    y = y.ravel()
    T = _check_modes(modes, system, y, params)
    scale = max(float(np.ptp(y)), float(np.max(np.abs(y))), 1e-12)
    residual = system.residual(y, params)
    free = residual - T @ (T.T @ residual)
    norm = float(np.linalg.norm(free))
    rate = float(np.max(np.abs(free)))
    largest = float(max(np.max(np.abs(r)) for row in system.reaction_jacobian(y, params) for r in row)) + 1e-12
    delta = 10.0 * LARGEST_MOVE * scale / max(rate, 1e-300)
    taken = 0
    while taken < max_iterations and rate > tol:
        taken += 1
        inverse = 1.0 / delta
        if inverse < 1e-9 * largest:
            inverse = 0.0
        step = -_factor(system, y, params, T, solver, inverse)(residual, False)
        move = float(np.max(np.abs(step)))
        if not np.isfinite(move):
            raise SteadyError(
                "the Newton step is not finite; start nearer to a steady state (steps=...), or use modes=None.",
                y.reshape(sim.state_shape),
            )
        if move > LARGEST_MOVE * scale:
            if inverse < 1e6 * largest and move > 4.0 * LARGEST_MOVE * scale:
                delta = min(delta, 1.0 / max(inverse, 1e-3 * largest * 1e-6)) / max(4.0, move / (LARGEST_MOVE * scale))
                continue
            step *= LARGEST_MOVE * scale / move
        trial = y + step
        residual_there = system.residual(trial, params)
        free = residual_there - T @ (T.T @ residual_there)
        norm_there = float(np.linalg.norm(free))
        if not np.isfinite(norm_there):
            delta /= 10.0
            continue
        growth = norm / max(norm_there, 1e-300)
        delta *= float(np.clip(growth, 0.3, 10.0)) if inverse else (10.0 if growth > 1.0 else 0.1)
        delta = min(delta, 1e30)
        y, residual, norm = trial, residual_there, norm_there
        rate = float(np.max(np.abs(free)))
    return SteadyState(sim, y, params, modes=T, solver=solver, iterations=taken, tol=tol)


def _check_modes(modes: Any, system: System, y: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    if modes is None or (isinstance(modes, str) and modes == "auto" and any(np.ndim(p) for p in params.values())):
        return np.zeros((y.size, 0))
    if isinstance(modes, str):
        check_choice("modes", modes, ("auto",))
        return system.translations(y)
    T = as_real_array("modes", modes).astype(np.float64)
    if T.ndim != 2 or T.shape[0] != y.size:
        raise InputError(f"modes has shape {T.shape}; it must be ({y.size}, m), one flat mode a column.")
    return np.linalg.qr(T)[0]


def _choose_solver(solver: str, sim: Simulation) -> str:
    if check_choice("solver", solver, ("auto", "direct", "krylov")) != "auto":
        return solver
    most = DIRECT_CELLS_3D if sim.grid.ndim == 3 else DIRECT_CELLS
    return "direct" if sim.grid.size <= most else "krylov"


def _factor(
    system: System, y: np.ndarray, params: Mapping[str, Any], T: np.ndarray, solver: str, inverse: float = 0.0
) -> Any:
    """A function (b, transpose) that solves the bordered system with ``J - inverse``."""
    A = system.jacobian(y, params)
    if inverse:
        A = sparse.csr_array(A - inverse * sparse.eye_array(A.shape[0]))
    if solver == "direct":
        return LU(system.grid, A, T).solve
    return _Krylov(system, A, y, params, T, inverse)


class _Krylov:
    """GMRES on the bordered system, preconditioned by ``D Lap + <R_s> - inverse``, a small block a wavenumber."""

    def __init__(self, system: System, A: Any, y: np.ndarray, params: Mapping[str, Any], T: np.ndarray, inverse: float):
        self.A, self.At, self.T = A, sparse.csr_array(A.T), T
        self.shape = (len(system.model.species), *system.grid.shape)
        self.spectral = Spectral(system.grid)
        mean = np.array([[float(np.mean(r)) for r in row] for row in system.reaction_jacobian(y, params)])
        D = np.array([params[name] for name in system.model.diffusivities])
        lam = self.spectral.lam
        blocks = mean - inverse * np.eye(len(D)) + lam[..., None, None] * np.diag(D)
        # Turing modes make single blocks nearly singular: keep the preconditioner bounded.
        U, size, V = np.linalg.svd(blocks)
        size = np.maximum(size, 0.1 * float(np.max(np.abs(mean))))
        self.inverse = np.einsum("...ji,...j,...kj->...ik", V, 1.0 / size, U)

    def __call__(self, b: np.ndarray, transpose: bool = False) -> np.ndarray:
        A, T = (self.At if transpose else self.A), self.T
        m, n = T.shape[1], b.size
        inverse = np.swapaxes(self.inverse, -1, -2) if transpose else self.inverse

        def product(x: np.ndarray) -> np.ndarray:
            x = np.ravel(x)
            return np.concatenate([A @ x[:n] + T @ x[n:], T.T @ x[:n]]) if m else A @ x

        def precondition(x: np.ndarray) -> np.ndarray:
            x = np.ravel(x)
            hat = self.spectral.forth(x[:n].reshape(self.shape))
            fields = self.spectral.back(np.einsum("...ij,j...->i...", inverse, hat)).ravel()
            return np.concatenate([fields, x[n:]])

        size = (n + m, n + m)
        solution, info = iterative.gmres(
            iterative.LinearOperator(size, matvec=product, dtype=np.float64),
            np.concatenate([b, np.zeros(m)]),
            M=iterative.LinearOperator(size, matvec=precondition, dtype=np.float64),
            rtol=1e-10,
            restart=150,
            maxiter=8,
        )
        if info:
            raise SteadyError(
                "GMRES did not converge on the Jacobian of the steady state; use solver='direct', or start nearer."
            )
        return solution[:n]


class SteadyObjective:
    """The loss of the steady state as a function of a vector, with implicit derivatives, for `scipy.optimize`.

    ``J(x) = loss(y(p(x)))`` where y(p) is the branch of steady states through the one near `y_start`, continued from
    the last point that converged. On periodic axes the branch stays at the place of `y_start` (the gauge of
    `adjoint_rd.steady`).

    Parameters
    ----------
    sim : Simulation
    y_start : array_like (S, *shape)
        Near the steady state of the first x that will be asked for.
    loss : loss
    free : sequence of str
        Scalar parameters, in the order of x.
    fixed : dict
        The others.
    transform : str, None, tuple or dict
        As in `Objective`.
    tol, max_iterations, modes, solver
        As in `find`.

    Attributes
    ----------
    steady : SteadyState or None
        That of the last x.
    """

    def __init__(
        self,
        sim: Simulation,
        y_start: Any,
        loss: Any,
        *,
        free: Sequence[str],
        fixed: Mapping[str, Any] | None = None,
        transform: Any = "log",
        tol: float = 1e-11,
        max_iterations: int = 60,
        modes: Any = "auto",
        solver: str = "auto",
    ):
        if not isinstance(sim, Simulation):
            raise InputError(f"sim={sim!r} must be an adjoint_rd.Simulation.")
        check_loss(loss)
        self.sim, self.loss = sim, loss
        self.free, self.fixed = free_and_fixed(sim.model, free, fixed)
        given = transform if isinstance(transform, Mapping) else dict.fromkeys(self.free, transform)
        self.transforms = [transforms.get(given.get(name), f"transform[{name!r}]") for name in self.free]
        self.options = {"tol": tol, "max_iterations": max_iterations, "solver": solver}
        self._start = sim.check_state(y_start).astype(np.float64)
        fields = any(np.ndim(value) for value in self.fixed.values())
        self.modes = _check_modes(None if fields and isinstance(modes, str) else modes, System(sim.model, sim.grid),
                                  self._start.ravel(), {})  # fmt: skip
        self._at = self._start
        self._fixed_start: np.ndarray | None = None
        self.steady: SteadyState | None = None
        self._key = b""

    @property
    def size(self) -> int:
        """The length of x."""
        return len(self.free)

    @property
    def blocks(self) -> dict[str, slice]:
        """Where each free parameter is in x."""
        return {name: slice(n, n + 1) for n, name in enumerate(self.free)}

    @property
    def bounds(self) -> list[tuple[float | None, float | None]]:
        """(low, high) for each item of x: diffusivities >= 0, open otherwise."""
        least = {name: 0.0 for name in self.sim.model.diffusivities}
        pairs = zip(self.free, self.transforms, strict=True)
        return [(least.get(name) if transform.accepts(-1.0) else None, None) for name, transform in pairs]

    def frozen_at(self, x: Any) -> tuple[SteadyObjective, np.ndarray]:
        """The same objective, but each steady state continued from that at x, not from the last one; and x.

        So checks of derivatives at x do not depend on the branch that an earlier, longer step has led to.
        """
        x = self._check_x(x)
        frozen = copy.copy(self)
        frozen._fixed_start = self.find(x).state
        return frozen, x

    def pack(self, **values: float) -> np.ndarray:
        """The vector x of these values of the free parameters."""
        if set(values) != set(self.free):
            raise InputError(f"pack needs exactly {', '.join(self.free)}; it got {', '.join(values) or 'nothing'}.")
        for name, transform in zip(self.free, self.transforms, strict=True):
            if not transform.accepts(values[name]):
                raise InputError(
                    f"pack got {name}={values[name]!r}; it must be {transform.requirement} for its transform."
                )
        return np.array([float(t.inverse(values[name])) for name, t in zip(self.free, self.transforms, strict=True)])

    def unpack(self, x: Any) -> dict[str, Any]:
        """All parameters at x."""
        x = self._check_x(x)
        values = {name: float(t.forward(xi)) for name, t, xi in zip(self.free, self.transforms, x, strict=True)}
        return {name: {**self.fixed, **values}[name] for name in self.sim.model.names}

    def _check_x(self, x: Any) -> np.ndarray:
        x = np.array(as_real_array("x", x), dtype=np.float64)
        if x.shape != (self.size,) or not np.all(np.isfinite(x)):
            raise InputError(f"x={shown(x)} must be {self.size} finite numbers, for {', '.join(self.free)}.")
        return x

    def _slopes(self, x: np.ndarray) -> np.ndarray:
        return np.array([float(t.slope(xi)) for t, xi in zip(self.transforms, x, strict=True)])

    def find(self, x: Any) -> SteadyState:
        """The steady state at x; a `SteadyError` if it is not reached."""
        x = self._check_x(x)
        if self.steady is not None and self._key == x.tobytes():
            return self.steady
        start = (self._at if self._fixed_start is None else self._fixed_start).ravel()
        start = start - self.modes @ (self.modes.T @ (start - self._start.ravel()))
        found = find(self.sim, start.reshape(self._start.shape), self.unpack(x), modes=self.modes, **self.options)
        if not found.converged:
            raise SteadyError(
                f"no steady state within {found.iterations} Newton steps at {self.unpack(x)} (rate {found.rate:.2g}); "
                "take shorter steps in x, raise max_iterations, or loosen tol.",
                found.state,
            )
        self.steady, self._key, self._at = found, x.tobytes(), found.state
        return found

    def __call__(self, x: Any) -> float:
        """J(x)."""
        return self.value(x)

    def value(self, x: Any) -> float:
        """J(x)."""
        return float(self.loss.value(self.find(x).state))

    def grad(self, x: Any) -> np.ndarray:
        """dJ/dx (n,)."""
        return self.value_and_grad(x)[1]

    def value_and_grad(self, x: Any) -> tuple[float, np.ndarray]:
        """(J(x), dJ/dx)."""
        x = self._check_x(x)
        found = self.find(x).gradient(self.loss)
        return found.value, np.array([found.params[name] for name in self.free]) * self._slopes(x)

    def value_error(self, x: Any) -> float:
        """How far off J(x) may be, since the residual is only known to be at most `tol`: tol * sum |lambda|."""
        found = self.find(x)
        return found.tol * float(np.sum(np.abs(found.gradient(self.loss).adjoint)))

    def gauss_newton(self, x: Any, v: Any) -> np.ndarray:
        """The Gauss-Newton product at x with v (n,), positive semidefinite for convex losses."""
        x = self._check_x(x)
        slopes = self._slopes(x)
        direction = dict(zip(self.free, slopes * self._check_x(v), strict=True))
        product = self.find(x).gauss_newton(self.loss, direction)
        return slopes * np.array([product[name] for name in self.free])

    def misfit(self, x: Any) -> np.ndarray:
        """The vector m with J = |m|^2 / 2, for `scipy.optimize.least_squares`; the loss needs a `misfit`."""
        return self.loss.misfit(self.find(x).state)

    def misfit_jacobian(self, x: Any) -> np.ndarray:
        """dm/dx, one back-substitution a column."""
        x = self._check_x(x)
        found = self.find(x)
        columns = [
            self.loss.misfit_tangent(found.state, slope * found.tangent({name: 1.0}))
            for name, slope in zip(self.free, self._slopes(x), strict=True)
        ]
        return np.stack(columns, axis=1)
