"""Refinement: fields and parameters together, with the equation as a weak constraint.

Minimise over the fields y, the parameters p, the drift's coefficients b and the data's own parameters (offset, gain)

    |g o + c - data|^2 / sigma^2  +  |R(y; p) - E b|^2 / tau^2  +  |b|^2 / t_b^2

by Gauss-Newton with a line search. The fields' block ``A = J^T W J / tau^2 + P / sigma^2`` is factored (`Cholesky`),
the few other unknowns follow from their Schur complement, whose inverse is their covariance. R is zero for a steady
state; tau is how large it may be:

    white   R ~ N(0, tau^2): steady to within tau
    drift   R = E b + N(0, tau^2): the state still moves along the softest modes E of J, b ~ N(0, t_b^2)

Which tau and which of the two is decided by the evidence, the probability of the data under the model with the fields
integrated out (Laplace's approximation; D. J. C. MacKay, Neural Comput. 4 (1992) 415):

    log evidence = -cost / 2 - [log det A + log det S - (log det A_0 + log det S_0)] / 2 - n log sigma

where A_0, S_0 are A and the Schur complement S of b without the data, and both A have 1 / s^2 added: s = 0.1 is a weak
prior of the fields that keeps soft modes proper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import linalg as iterative

from ..sparse import LU, Cholesky, System

PRIOR = 0.1  # s, in the unit of the state
FREE = 30.0  # s in the iteration and for the covariance: wide enough to add no information
CORRECTIONS = 2  # of the fields after a step
FARTHEST = 0.7  # most change of a logarithm in one iteration


@dataclass(frozen=True, eq=False)
class Data:
    """What is observed.

    Attributes
    ----------
    values : ndarray (S, cells)
        Zero where not observed.
    weight : ndarray (S, cells)
        1 where observed, 0 elsewhere, between where errors of neighbours are not independent.
    rows : ndarray (S cells,)
        1 where the equation holds, 0 where it is not known to.
    offset, gain : bool
        Whether the data are ``gain * state + offset`` with unknown offset or gain, one for all.
    """

    values: np.ndarray
    weight: np.ndarray
    rows: np.ndarray
    offset: bool = False
    gain: bool = False

    @property
    def count(self) -> int:
        """The number of independent values."""
        return round(float(np.sum(self.weight**2)))


@dataclass(frozen=True, eq=False)
class Fit:
    """A weak-constraint fit.

    Attributes
    ----------
    params : dict
    state : ndarray (S, cells)
    b : ndarray
    offset, gain : float
    sigma, tau, spread : float
        `spread` is t_b.
    cost : float
        The sum of squares.
    chi2 : float
        The mean of the squared misfit over sigma^2.
    rate : float
        The root mean square of R where the equation holds.
    covariance : ndarray
        Of the free parameters (of their logarithms where positive), then offset and gain.
    b_errors : ndarray
    evidence : float
    iterations : int
    converged : bool
    modes : ndarray or None
    label : str
    """

    params: dict[str, float]
    state: np.ndarray
    b: np.ndarray
    offset: float
    gain: float
    sigma: float
    tau: float
    spread: float
    cost: float
    chi2: float
    rate: float
    covariance: np.ndarray
    b_errors: np.ndarray
    evidence: float
    iterations: int
    converged: bool
    modes: np.ndarray | None = field(default=None, repr=False)
    label: str = ""


class Problem:
    """The refinement of one set of data."""

    def __init__(self, system: System, data: Data, free: tuple[str, ...], noise_bias: bool = False):
        self.system, self.data, self.free = system, data, free
        self.P = sparse.diags_array(data.weight.ravel() ** 2)

    def residuals(self, y: np.ndarray, params: Mapping[str, float], offset: float, gain: float) -> tuple[Any, Any]:
        """(R on its rows, misfit where observed)."""
        R = self.system.residual(y, params) * self.data.rows
        d = (gain * y + offset - self.data.values.ravel()) * self.data.weight.ravel()
        return R, d

    def fit(
        self,
        start: Fit,
        sigma: float,
        tau: float,
        *,
        modes: np.ndarray | None = None,
        spread: float = 1e-3,
        max_iterations: int = 10,
        tol: float = 3e-5,
        evidence: bool = True,
        label: str = "",
    ) -> Fit:
        """Gauss-Newton from `start`; see the module."""
        data, free, system = self.data, self.free, self.system
        y, params = start.state.ravel().copy(), dict(start.params)
        offset, gain = start.offset, start.gain
        E = None if modes is None else modes * data.rows[:, None]
        m = 0 if E is None else E.shape[1]
        logs = np.array([params[name] > 0 for name in free], dtype=bool)
        b = np.zeros(m)
        if m:
            R, _ = self.residuals(y, params, offset, gain)
            b = np.linalg.solve(E.T @ E / tau**2 + np.eye(m) / spread**2, E.T @ R / tau**2)
        extras = [name for name, on in (("offset", data.offset), ("gain", data.gain)) if on]

        def cost(y: np.ndarray, params: Mapping[str, float], b: np.ndarray, offset: float, gain: float) -> Any:
            R, d = self.residuals(y, params, offset, gain)
            r = R - E @ b if m else R
            return float(r @ r) / tau**2 + float(d @ d) / sigma**2 + float(b @ b) / spread**2, r, d

        value, r, d = cost(y, params, b, offset, gain)
        converged, taken = False, 0
        while True:
            J = sparse.csr_array(sparse.diags_array(data.rows / tau) @ system.jacobian(y, params))
            A0 = sparse.csr_array(J.T @ J) + sparse.diags_array(np.full(y.size, 1.0 / FREE**2))
            A = A0 + self.P * (gain / sigma) ** 2
            curved, crossed = self._curvature(y, params, r / tau**2)
            try:
                factor = Cholesky(system.grid, A if curved is None else A + curved)
            except np.linalg.LinAlgError:
                curved = None
                factor = Cholesky(system.grid, A)
            Rp = system.parameter_jacobian(y, params, free) * (data.rows / tau)[:, None]
            slope = np.array([params[name] if log else 1.0 for name, log in zip(free, logs, strict=True)], dtype=float)
            C = np.concatenate([Rp * slope, -E / tau], axis=1) if m else Rp * slope
            k, q = len(free), len(extras)
            D = np.zeros((y.size, q))  # d misfit / d extras
            for i, name in enumerate(extras):
                D[:, i] = data.weight.ravel() * (1.0 if name == "offset" else y) / sigma
            G = np.concatenate([J.T @ C, (gain / sigma) * data.weight.ravel()[:, None] * D], axis=1)
            if curved is not None:
                G[:, :k] += crossed * slope
            H = np.zeros((k + m + q,) * 2)
            H[: k + m, : k + m] = C.T @ C
            H[k : k + m, k : k + m] += np.eye(m) / spread**2
            H[k + m :, k + m :] = D.T @ D
            gx = J.T @ (r / tau) + (gain / sigma**2) * data.weight.ravel() * d
            gp = np.concatenate([C.T @ (r / tau), D.T @ (d / sigma)])
            gp[k : k + m] += b / spread**2
            X = factor.solve(np.concatenate([gx[:, None], G], axis=1))
            S = H - G.T @ X[:, 1:]
            if curved is not None:
                S[:k, :k] += np.diag(np.where(logs, gp[:k], 0.0))
                if np.linalg.eigvalsh(0.5 * (S + S.T)).min() <= 0.0:
                    curved = None
                    factor = Cholesky(system.grid, A)
                    G[:, :k] -= crossed * slope
                    X = factor.solve(np.concatenate([gx[:, None], G], axis=1))
                    S = H - G.T @ X[:, 1:]
            S = 0.5 * (S + S.T)
            if taken >= max_iterations or converged:
                break
            step_p = -np.linalg.lstsq(S, gp - G.T @ X[:, 0], rcond=1e-14)[0]
            step_y = -X[:, 0] - X[:, 1:] @ step_p
            largest = (
                float(
                    np.max(
                        np.abs(step_p[:k]) / np.where(logs, 1.0, np.abs(list(params[n] for n in free)) + 1e-3),
                        initial=0.0,
                    )
                )
                if k
                else 0.0
            )
            length, better = min(1.0, FARTHEST / max(largest, 1e-300)), False
            for _ in range(6):
                moved = length * step_p
                y_there = y + length * step_y
                p_there = dict(params)
                for name, log, x in zip(free, logs, moved[:k], strict=True):
                    p_there[name] = params[name] * float(np.exp(x)) if log else params[name] + float(x)
                b_there = b + moved[k : k + m]
                more = dict(zip(extras, moved[k + m :], strict=True))
                o_there, g_there = offset + more.get("offset", 0.0), gain + more.get("gain", 0.0)
                there, r_there, d_there = cost(y_there, p_there, b_there, o_there, g_there)
                # The valley is curved: bring the fields back to its floor by steps with the old factors.
                for _ in range(CORRECTIONS):
                    before = there
                    J_there = sparse.csr_array(sparse.diags_array(data.rows / tau) @ system.jacobian(y_there, p_there))
                    g = J_there.T @ (r_there / tau) + (g_there / sigma**2) * data.weight.ravel() * d_there
                    y_next = y_there - factor.solve(g)
                    there_next, r_next, d_next = cost(y_next, p_there, b_there, o_there, g_there)
                    if not there_next < there:
                        break
                    y_there, there, r_there, d_there = y_next, there_next, r_next, d_next
                    if before - there < 0.3:
                        break
                if there < value:
                    better = True
                    break
                length /= 4.0
            if not better:
                converged = largest < 1e-3
                break
            taken += 1
            gained = value - there
            y, params, b, offset, gain = y_there, p_there, b_there, o_there, g_there
            value, r, d = there, r_there, d_there
            # A step that changes the cost by much less than one unit changes nothing that the data could show.
            if largest * length < tol or gained < 1e-2:
                converged = True
                if largest * length < 1e-3:
                    break
        covariance = _inverse(S)
        found = float("nan")
        if evidence:
            proper = sparse.diags_array(np.full(y.size, 1.0 / PRIOR**2 - 1.0 / FREE**2))
            prior = Cholesky(system.grid, A0 + proper)
            with_data = Cholesky(system.grid, A + proper)
            total = with_data.logdet - prior.logdet
            if m:
                G0 = -(J.T @ E) / tau
                S0 = E.T @ E / tau**2 + np.eye(m) / spread**2 - G0.T @ prior.solve(G0)
                Sb = E.T @ E / tau**2 + np.eye(m) / spread**2 - G0.T @ with_data.solve(G0)
                total += np.linalg.slogdet(Sb)[1] - np.linalg.slogdet(S0)[1]
            found = -0.5 * value - 0.5 * float(total) - data.count * float(np.log(sigma))
        errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        keep = np.r_[0:k, k + m : k + m + q]
        rows = max(float(data.rows.sum()), 1.0)
        R = r + (E @ b if m else 0.0)
        return Fit(
            params, y.reshape(start.state.shape), b, offset, gain, sigma, tau, spread, value,
            float(d @ d) / sigma**2 / max(data.count, 1), float(np.sqrt(R @ R / rows)), covariance[np.ix_(keep, keep)],
            errors[k : k + m], found, taken, converged, modes, label or f"tau = {tau:.0e}",
        )  # fmt: skip

    def _curvature(self, y: np.ndarray, params: Mapping[str, float], a: np.ndarray) -> tuple[Any, Any]:
        """What Newton's Hessian has beyond Gauss-Newton's: the second derivatives of a^T R in (y, y) and (y, p)."""
        system, model = self.system, self.system.model
        if not model.has_second_order:
            return None, None
        a = a * self.data.rows
        s, p, al = tuple(system.split(y)), system.kinetics(params), system.split(a)
        zero, one, count = np.zeros(system.grid.size), np.ones(system.grid.size), len(model.species)
        nothing = tuple(0.0 for _ in p)
        blocks = []
        for j in range(count):
            t = tuple(one if c == j else zero for c in range(count))
            blocks.append([np.broadcast_to(f, one.shape) for f in model.reaction_jt_t(s, p, t, nothing, tuple(al))])
        curved = sparse.block_array(
            [[sparse.diags_array(0.5 * (blocks[j][i] + blocks[i][j])) for j in range(count)] for i in range(count)],
            format="csr",
        )
        crossed = np.zeros((count, system.grid.size, len(self.free)))
        for n, name in enumerate(self.free):
            if name in model.diffusivities:
                c = model.diffusivities.index(name)
                crossed[c, :, n] = system.lap @ al[c]
            else:
                dp = tuple(1.0 if other == name else 0.0 for other in model.parameters)
                t = tuple(zero for _ in s)
                for c, f in enumerate(model.reaction_jt_t(s, p, t, dp, tuple(al))):
                    crossed[c, :, n] = f
        return curved, crossed.reshape(-1, len(self.free))

    def soft_modes(self, fit: Fit, count: int) -> tuple[np.ndarray, np.ndarray]:
        """An orthonormal basis of the `count` softest eigenvectors of J, and their eigenvalues."""
        system = self.system
        J = system.jacobian(fit.state.ravel(), fit.params)
        scale = float(np.max(np.abs(system.reaction_jacobian(fit.state.ravel(), fit.params)[0][0])))
        shift = 0.02 * scale * 0.5
        lu = LU(system.grid, J - shift * sparse.eye_array(J.shape[0]))
        operator = iterative.LinearOperator(J.shape, matvec=lambda a: lu.solve(np.ravel(a)), dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(J.shape[0])
        inverse, X = iterative.eigs(
            operator, k=count, which="LM", tol=1e-3, v0=start, ncv=min(2 * count + 10, J.shape[0])
        )
        values = shift + 1.0 / inverse
        columns, kept = [], []
        for i in np.argsort(np.abs(values)):
            if abs(values[i].imag) < 1e-12:
                columns.append(X[:, i].real)
                kept.append(values[i])
            elif values[i].imag > 0:
                columns += [X[:, i].real, X[:, i].imag]
                kept += [values[i], values[i].conj()]
        Q, _ = np.linalg.qr(np.stack(columns[:count], axis=1))
        return Q, np.array(kept[:count])


def start_fit(params: Mapping[str, float], state: np.ndarray, offset: float = 0.0, gain: float = 1.0) -> Fit:
    """A `Fit` to start from."""
    nothing = np.zeros(0)
    return Fit(
        dict(params), state, nothing, offset, gain, 1.0, 1.0, 1.0, np.inf, np.inf, np.inf, np.zeros((0, 0)), nothing,
        -np.inf, 0, False,
    )  # fmt: skip


def refit_spread(fit: Fit) -> float:
    """t_b of greatest likelihood given the fit, one step of expectation maximisation."""
    return float(max(np.sqrt(np.mean(fit.b**2 + fit.b_errors**2)), 1e-8))


def _inverse(S: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric matrix, scaled first; infinite variances where it is singular."""
    if not S.size:
        return S
    scale = np.sqrt(np.maximum(np.abs(np.diag(S)), 1e-300))
    values, vectors = np.linalg.eigh(S / np.outer(scale, scale))
    values = np.maximum(values, 1e-15)
    return (vectors / values) @ vectors.T / np.outer(scale, scale)


__all__ = ["Data", "Fit", "Problem", "refit_spread", "replace", "start_fit"]
