"""Refinement: fields and parameters together, with the equation as a weak constraint.

Minimise over the fields y, the parameters p, the drift's coefficients b and the offset c of the data

    -2 log p(data | y + c)  +  |R(y; p) - E b|^2 / tau^2  +  sum_i b_i^2 / t_i^2  +  sum_j w_j (y_j - m_j)^2

by Newton's method in (y, p, b) and the multiplier (R - E b) / tau^2, whole steps that may raise the cost for a while,
a line search where they fail. The last term is a prior of fields where nothing else tells (`Data.likely`, its weights
w the `Data.precision`). The fields' block ``A = J^T W J / tau^2 + w + P / sigma^2 + K``, K the curvature of R along the
multiplier, is factored (`Cholesky`), the few other unknowns follow from their Schur complement, whose inverse is
their covariance. R is zero for a steady state; tau is how large it may be:

    white   R ~ N(0, tau^2): steady to within tau
    drift   R = E b + N(0, tau^2): the state still moves along the softest modes E of J, b_i ~ N(0, t_i^2), see `drift`;
            the t_i are those of greatest likelihood (expectation maximisation, at each linearisation)

Which tau and which of the two is decided by the evidence, the probability of the data under the model with the fields
integrated out (Laplace's approximation, without K; D. J. C. MacKay, Neural Comput. 4 (1992) 415):

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

from ..sparse import Cholesky, System
from . import drift, misfit
from .newton import LEAST_GAIN, Cost, Linear, Normal, Point, Scales, Visit, inverse

PRIOR = 0.1  # s, in the unit of the state
FREE = 30.0  # s in the iteration and for the covariance: wide enough to add no information
CORRECTIONS = 2  # after a step
FARTHEST = 0.7  # most change of a logarithm in one iteration
SMALL = 1e-3  # relative change of a parameter below which a step that leads no lower is not missed
PATIENCE = 2  # steps that may end above the least cost without the next promising this part of what they did,
FALLING = 0.3
WILD = 100.0  # if they end below so many times that cost
HARMONICS = 16  # of the slope of -log p over a step
EARLY = 6  # steps after which a cost still above `hopeless` ends a fit
EM_ROUNDS = 30
FLOOR = 0.3  # least t_i over tau: below it changes nothing


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
    step, before : float
        The data are rounded to multiples of `step`, 0.0 if they are not; `before` is their noise before that, as far as
        it is known: sigma may be more.
    offset : bool
        Whether the data are state + offset with an unknown offset, one for all.
    likely, precision : ndarray (S, cells) or float
        Of a Gaussian prior: the mean, and 1 / variance, zero where there is none.
    """

    values: np.ndarray
    weight: np.ndarray
    rows: np.ndarray
    step: float = 0.0
    before: float = 0.0
    offset: bool = False
    likely: np.ndarray | float = 0.0
    precision: np.ndarray | float = 0.0

    @property
    def count(self) -> int:
        """The number of independent values."""
        return round(float(np.sum(self.weight**2)))

    @property
    def freedom(self) -> int:
        """Of the cost: what it has terms for, less the fields; values where no equation holds fit themselves."""
        return self.count + round(float(np.sum(self.rows))) + np.count_nonzero(self.precision) - self.values.size


@dataclass(frozen=True, eq=False)
class Fit:
    """A weak-constraint fit.

    Attributes
    ----------
    params : dict
    state : ndarray (S, cells)
    b : ndarray
    offset : float
    sigma, tau : float
        sigma is that before rounding.
    spread : ndarray
        The t_i.
    noise : float
        The standard deviation of the data, rounding included.
    cost : float
        What was minimised.
    chi2 : float
        The mean of the squared misfit over sigma^2.
    rate : float
        The root mean square of R where the equation holds.
    covariance : ndarray
        Of the free parameters (of their logarithms where positive), then offset.
    evidence : float
    iterations : int
    converged : bool
    multiplier : ndarray (S cells,)
        (R - E b) / tau^2.
    modes : Modes or None
    label : str
    problem : Problem or None
    doubt : ndarray or float
        What the covariance has beyond this fit's own, for other fits that the data allow.
    """

    params: dict[str, float]
    state: np.ndarray
    b: np.ndarray
    offset: float
    sigma: float
    noise: float
    tau: float
    spread: np.ndarray
    cost: float
    chi2: float
    rate: float
    covariance: np.ndarray
    evidence: float
    iterations: int
    converged: bool
    multiplier: np.ndarray = field(repr=False)
    modes: drift.Modes | None = field(default=None, repr=False)
    label: str = ""
    problem: Problem | None = field(default=None, repr=False)
    doubt: np.ndarray | float = 0.0


class Problem:
    """The refinement of one set of data."""

    def __init__(self, system: System, data: Data, free: tuple[str, ...]):
        self.system, self.data, self.free = system, data, free

    def fit(
        self,
        start: Fit,
        sigma: float,
        tau: float,
        *,
        modes: drift.Modes | None = None,
        spread: np.ndarray | float = 1e-3,
        max_iterations: int = 24,
        hopeless: float = np.inf,
        evidence: bool = True,
        label: str = "",
    ) -> Fit:
        """Newton's method from `start`, Gauss-Newton where its matrix is not positive; see the module.

        It ends when the next step would change the cost by so little, or the parameters by so little of their standard
        errors, that the data could not show it; or when after `EARLY` steps the cost is still above `hopeless`. With
        `modes` the t_i start at `spread`.
        """
        E = self._basis(modes, start.state.size)
        scales: Scales = (sigma, tau, np.full(E.shape[1], spread))
        at = self._begin(start, E, scales)
        cost, multiplier = self._cost(at, E, scales), start.multiplier
        best: Visit | None = None  # that of least cost
        converged, taken, worse, gain = False, 0, 0, np.inf
        while True:
            normal = self._normal(at, cost, multiplier, E, scales)
            settled = normal.is_minimum(len(self.free))  # for the t_i as they are
            if modes is not None:
                normal, scales = self._refit_spread(normal, at, modes, scales)
                cost = self._cost(at, E, scales)
                if best is not None:
                    best = replace(best, cost=self._cost(best.at, E, scales))
            here = Visit(at, cost, normal, multiplier, scales)
            if best is None or cost.value < best.cost.value + LEAST_GAIN:
                best, worse = here, 0
                converged = settled
            elif normal.gain > FALLING * gain:
                worse += 1
            gain = normal.gain
            if converged or taken >= max_iterations or (taken >= EARLY and best.cost.value > hopeless):
                break
            there = self._full_step(here, best, worse, E) or self._line_search(best, E, scales, tried=here is best)
            if there is None:
                converged = best.normal.largest(self._sizes(best.at)) < SMALL
                break
            at, cost, multiplier = there
            taken += 1
        at, normal, scales = best.at, best.normal, best.scales
        cost = self._cost(at, E, scales)  # best.cost may be for t_i of after it
        covariance = self._covariance(at, sigma, normal)
        found = self._evidence(cost, normal, E, scales) if evidence else float("nan")
        k, m = len(self.free), E.shape[1]
        keep = np.r_[0:k, k + m : len(covariance)]
        R = cost.r + E @ at.b
        return Fit(
            at.params,
            at.y.reshape(start.state.shape),
            at.b,
            at.offset,
            sigma,
            float(np.sqrt(misfit.variance(self.data, sigma))),
            tau,
            scales[2],
            cost.value,
            self._chi2(at, sigma),
            float(np.sqrt(R @ R / max(float(self.data.rows.sum()), 1.0))),
            covariance[np.ix_(keep, keep)],
            found,
            taken,
            converged,
            cost.r / tau**2,
            modes,
            label or f"tau = {tau:.0e}",
            self,
        )

    def about(self, fit: Fit, params: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """(mean, covariance) of the free parameters as the data tell them at `params`, not where `fit` has them.

        The fields are those of least cost there, and the mean is one Newton step from there. For what several data
        tell together: the valley of the cost may bend between their own estimates.
        """
        there = Problem(self.system, self.data, ()).fit(
            replace(fit, params=dict(params)), fit.sigma, fit.tau, modes=fit.modes, spread=fit.spread, evidence=False
        )
        E = self._basis(fit.modes, fit.state.size)
        at, scales = Point(there.state.ravel(), dict(params), there.b, there.offset), (fit.sigma, fit.tau, there.spread)
        normal = self._normal(at, self._cost(at, E, scales), there.multiplier, E, scales)
        k = len(self.free)
        values, logs = np.array([params[name] for name in self.free]), self._logs(params)
        mean = np.where(logs, np.log(np.abs(values)), values) + normal.steps[0][:k]
        return mean, self._covariance(at, fit.sigma, normal)[:k, :k]

    def _basis(self, modes: drift.Modes | None, size: int) -> np.ndarray:
        return np.zeros((size, 0)) if modes is None else modes.basis * self.data.rows[:, None]

    def _covariance(self, at: Point, sigma: float, normal: Normal) -> np.ndarray:
        covariance = inverse(normal.S)
        return self._widened(covariance, at, sigma, normal) if self.data.step else covariance

    def _begin(self, start: Fit, E: np.ndarray, scales: Scales) -> Point:
        """The point of `start`, with the drift of least cost."""
        _, tau, spread = scales
        y, params = start.state.ravel().copy(), dict(start.params)
        R = self.system.residual(y, params) * self.data.rows
        b = np.linalg.solve(E.T @ E / tau**2 + np.diag(1.0 / spread**2), E.T @ R / tau**2)
        return Point(y, params, b, start.offset)

    def _cost(self, at: Point, E: np.ndarray, scales: Scales) -> Cost:
        sigma, tau, spread = scales
        r = self.system.residual(at.y, at.params) * self.data.rows - E @ at.b
        value, slope, curvature = misfit.minus_twice_log(at.y + at.offset, self.data, sigma)
        beside = at.y - np.ravel(self.data.likely)
        pull = np.ravel(self.data.precision) * beside
        value += float(r @ r) / tau**2 + float(np.sum((at.b / spread) ** 2)) + float(np.sum(pull * beside))
        return Cost(value, r, slope, curvature, slope + pull)

    def _chi2(self, at: Point, sigma: float) -> float:
        """The mean square of the misfit over what it should be, rounding included."""
        data = self.data
        d = (at.y + at.offset - data.values.ravel()) * data.weight.ravel()
        return float(d @ d) / misfit.variance(data, sigma) / max(data.count, 1)

    def _logs(self, params: Mapping[str, float]) -> np.ndarray:
        """Which parameters move on a logarithmic scale."""
        return np.array([params[name] > 0 for name in self.free], dtype=bool)

    def _weighted_jacobian(self, at: Point, tau: float) -> Any:
        return sparse.csr_array(sparse.diags_array(self.data.rows / tau) @ self.system.jacobian(at.y, at.params))

    def _linearised(self, at: Point, cost: Cost, E: np.ndarray, scales: Scales) -> Linear:
        _, tau, spread = scales
        k, m = len(self.free), E.shape[1]
        J = self._weighted_jacobian(at, tau)
        logs = self._logs(at.params)
        slopes = np.where(logs, [at.params[name] for name in self.free], 1.0)
        Rp = self.system.parameter_jacobian(at.y, at.params, self.free) * (self.data.rows / tau)[:, None]
        C = np.concatenate([Rp * slopes, -E / tau], axis=1)
        D = np.ones((at.y.size, int(self.data.offset)))
        gp = C.T @ (cost.r / tau)
        gp[k : k + m] += at.b / spread**2
        gx = J.T @ (cost.r / tau) + cost.pull
        return Linear(J, C, D, slopes, gx, np.concatenate([gp, D.T @ cost.slope]))

    def _normal(self, at: Point, cost: Cost, multiplier: np.ndarray, E: np.ndarray, scales: Scales) -> Normal:
        spread = scales[2]
        k, m = len(self.free), E.shape[1]
        linear = self._linearised(at, cost, E, scales)
        J, C, D = linear.J, linear.C, linear.D
        weak = np.full(at.y.size, 1.0 / FREE**2) + np.ravel(self.data.precision)
        A0 = sparse.csr_array(J.T @ J) + sparse.diags_array(weak)
        A = A0 + sparse.diags_array(cost.curvature)
        H = np.zeros((linear.gp.size,) * 2)
        H[: k + m, : k + m] = C.T @ C
        H[k : k + m, k : k + m] += np.diag(1.0 / spread**2)
        H[k + m :, k + m :] = D.T @ (cost.curvature[:, None] * D)
        G = np.concatenate([J.T @ C, cost.curvature[:, None] * D], axis=1)
        curved, crossed = self._curvature(at.y, at.params, multiplier)
        found = None
        if curved is not None:
            G_there, H_there = G.copy(), H.copy()
            G_there[:, :k] += crossed * linear.slopes
            H_there[:k, :k] += np.diag(np.where(self._logs(at.params), scales[1] * C[:, :k].T @ multiplier, 0.0))
            found = self._eliminate(A + curved, linear.gx, G_there, H_there, must_be_positive=True)
        factor, X, S = found or self._eliminate(A, linear.gx, G, H)
        return Normal(A0, A, linear, factor, S, G if found is None else G_there, X)

    def _refit_spread(self, normal: Normal, at: Point, modes: drift.Modes, scales: Scales) -> tuple[Normal, Scales]:
        """The t_i of greatest likelihood at this linearisation, by expectation maximisation."""
        sigma, tau, spread = scales
        k, m = len(self.free), spread.size
        own = np.arange(k, k + m)
        S, gp, right = normal.S.copy(), normal.linear.gp.copy(), normal.G.T @ normal.X[:, 0]
        for _ in range(EM_ROUNDS):
            try:
                covariance = np.linalg.inv(S)
            except np.linalg.LinAlgError:
                break
            b, variance = at.b + (covariance @ (right - gp))[own], np.diag(covariance)[own]
            if not np.all(variance > 0.0):
                break
            found = drift.decay(modes.rates, b**2 + variance, FLOOR * tau)
            more = 1.0 / found**2 - 1.0 / spread**2
            S_there, gp_there = S.copy(), gp.copy()
            S_there[own, own] += more
            gp_there[own] += more * at.b
            if np.linalg.eigvalsh(S_there).min() <= 0.0:
                break
            change = float(np.max(np.abs(np.log(found / spread))))
            S, gp, spread = S_there, gp_there, found
            if change < 0.02:
                break
        return replace(normal, S=S, linear=replace(normal.linear, gp=gp)), (sigma, tau, spread)

    def _eliminate(self, A: Any, gx: np.ndarray, G: np.ndarray, H: np.ndarray, must_be_positive: bool = False) -> Any:
        """(factor of A, A^-1 [gx, G], H - G^T A^-1 G); None if they must be positive definite and are not."""
        try:
            factor = Cholesky(self.system.grid, A)
        except np.linalg.LinAlgError:
            if must_be_positive:
                return None
            raise
        X = factor.solve(np.concatenate([gx[:, None], G], axis=1))
        S = H - G.T @ X[:, 1:]
        S = 0.5 * (S + S.T)
        if must_be_positive and np.linalg.eigvalsh(S).min(initial=np.inf) <= 0.0:
            return None
        return factor, X, S

    def _full_step(
        self, here: Visit, best: Visit, worse: int, E: np.ndarray
    ) -> tuple[Point, Cost, np.ndarray] | None:
        """The whole Newton step, if it leads lower than `best` or the next ones can be expected to; else None."""
        if here.normal.largest(self._sizes(here.at)) > FARTHEST:
            return None
        there = self._moved(here.at, here.normal, 1.0, E.shape[1])
        corrected, cost = self._correct(there, here.normal.factor, E, here.scales)
        if cost.value < best.cost.value:
            return corrected, cost, here.onward(1.0)
        cost = self._cost(there, E, here.scales)
        if worse < PATIENCE and cost.value < WILD * best.cost.value:
            return there, cost, here.onward(1.0)
        return None

    def _line_search(
        self, here: Visit, E: np.ndarray, scales: Scales, tried: bool
    ) -> tuple[Point, Cost, np.ndarray] | None:
        """A step to lower cost, brought back to the floor of the valley, shorter if the whole was `tried`; or None."""
        length = FARTHEST / max(here.normal.largest(self._sizes(here.at)), 1e-300)
        length = min(length, 0.25 if tried and length >= 1.0 else 1.0)
        for _ in range(6):
            there = self._moved(here.at, here.normal, length, E.shape[1])
            there, cost = self._correct(there, here.normal.factor, E, scales)
            if cost.value < here.cost.value:
                return there, cost, here.onward(length)
            length /= 4.0
        return None

    def _sizes(self, at: Point) -> np.ndarray:
        """Of the parameters, by which their steps are measured."""
        return np.where(self._logs(at.params), 1.0, np.abs([at.params[name] for name in self.free]) + 1e-3)

    def _moved(self, at: Point, normal: Normal, length: float, m: int) -> Point:
        step_p, step_y = (length * step for step in normal.steps)
        k = len(self.free)
        params = dict(at.params)
        for name, log, x in zip(self.free, self._logs(at.params), step_p[:k].tolist(), strict=True):
            params[name] = params[name] * float(np.exp(x)) if log else params[name] + x
        offset = at.offset + (float(step_p[k + m]) if self.data.offset else 0.0)
        return Point(at.y + step_y, params, at.b + step_p[k : k + m], offset)

    def _correct(self, at: Point, factor: Cholesky, E: np.ndarray, scales: Scales) -> tuple[Point, Cost]:
        """Bring the fields back to the floor of the curved valley, by steps with the old factors."""
        cost = self._cost(at, E, scales)
        for _ in range(CORRECTIONS):
            J = self._weighted_jacobian(at, scales[1])
            there = replace(at, y=at.y - factor.solve(J.T @ (cost.r / scales[1]) + cost.pull))
            cost_there = self._cost(there, E, scales)
            if not cost_there.value < cost.value:
                break
            gained = cost.value - cost_there.value
            at, cost = there, cost_there
            if gained < 0.3:
                break
        return at, cost

    def _widened(self, covariance: np.ndarray, at: Point, sigma: float, normal: Normal) -> np.ndarray:
        """The covariance of a fit to rounded data, where cells of like values have like rounding errors.

        In the flat parts of a pattern, the ground and the tops of equal spots, thousands of cells are off by the same
        part of a step, and push the parameters the same way. With w_i what the slope u of -log p at cell i contributes
        to the right side of S, the phase of x in its step uniform, the same within a step and independent from one
        step to another, the covariance is ``S^-1 M S^-1``,

            M = sum_steps sum_m |u_m|^2 T_m T_m^H,    T_m = sum_i w_i exp(2 pi i m x_i / step)

        over the cells of a step, u_m the Fourier coefficients of u over a step. (A sandwich estimate of clustered
        errors: K.-Y. Liang, S. L. Zeger, Biometrika 73 (1986) 13.) In no direction it is less than S^-1.
        """
        step, weight, values = self.data.step, self.data.weight, self.data.values
        seen = weight.ravel() > 0.0
        level = np.rint((values - np.min(values[weight > 0.0])) / step)
        cluster = (level + np.arange(len(values))[:, None] * (np.max(level) + 1.0)).ravel()[seen]
        order = np.argsort(cluster, kind="stable")
        W = (normal.X[:, 1:] - np.pad(normal.linear.D, ((0, 0), (normal.S.shape[0] - normal.linear.D.shape[1], 0))))
        W = (W * weight.reshape(-1, 1))[seen][order]
        phase = (at.y + at.offset)[seen][order] / step
        starts = np.flatnonzero(np.diff(cluster[order], prepend=np.nan) != 0.0)
        M = np.zeros(covariance.shape)
        harmonics = misfit.slope_harmonics(sigma / step, self.data.before / step, HARMONICS) / step**2
        for m, size in enumerate(harmonics, 1):
            T = np.add.reduceat(W * np.exp(2j * np.pi * m * phase)[:, None], starts, axis=0)
            M += size * (T.T @ T.conj()).real
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        ratio, turn = np.linalg.eigh(root.T @ M @ root)
        root = root @ turn * np.sqrt(np.maximum(ratio, 1.0))
        return root @ root.T

    def _evidence(self, cost: Cost, normal: Normal, E: np.ndarray, scales: Scales) -> float:
        """The log evidence, see the module."""
        sigma, tau, spread = scales
        proper = sparse.diags_array(np.full(normal.A.shape[0], 1.0 / PRIOR**2 - 1.0 / FREE**2))
        prior = Cholesky(self.system.grid, normal.A0 + proper)
        with_data = Cholesky(self.system.grid, normal.A + proper)
        total = with_data.logdet - prior.logdet
        m = E.shape[1]
        if m:
            G0 = -(normal.linear.J.T @ E) / tau
            H = E.T @ E / tau**2 + np.diag(1.0 / spread**2)
            total += np.linalg.slogdet(H - G0.T @ with_data.solve(G0))[1]
            total -= np.linalg.slogdet(H - G0.T @ prior.solve(G0))[1]
        return -0.5 * cost.value - 0.5 * float(total) - misfit.log_norm(self.data, sigma)

    def _curvature(self, y: np.ndarray, params: Mapping[str, float], a: np.ndarray) -> tuple[Any, Any]:
        """Of a^T R the second derivatives in (y, y) and (y, p), what Newton's matrix has beyond Gauss-Newton's."""
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
        return curved, crossed.reshape(y.size, len(self.free))


def start_fit(params: Mapping[str, float], state: np.ndarray, offset: float = 0.0) -> Fit:
    """A `Fit` to start from."""
    nothing = np.zeros(0)
    return Fit(
        dict(params), state, nothing, offset, 1.0, 1.0, 1.0, nothing, np.inf, np.inf, np.inf,
        np.zeros((0, 0)), -np.inf, 0, False, np.zeros(state.size),
    )  # fmt: skip


__all__ = ["Data", "Fit", "Problem", "replace", "start_fit"]
