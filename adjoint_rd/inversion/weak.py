"""Refinement: fields and parameters together, with the equation as a weak constraint.

Minimise over the fields y, the parameters p, the drift's coefficients b and the data's own parameters (offset, gain)

    -2 log p(data | g o + c)  +  |R(y; p) - E b|^2 / tau^2  +  sum_i b_i^2 / t_i^2

by Newton's method in (y, p, b) and the multiplier (R - E b) / tau^2, whole steps that may raise the cost for a while,
a line search where they fail. The fields' block ``A = J^T W J / tau^2 + P / sigma^2 + K``, K the curvature of R along
the multiplier, is factored (`Cholesky`), the few other unknowns follow from their Schur complement, whose inverse is
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

PRIOR = 0.1  # s, in the unit of the state
FREE = 30.0  # s in the iteration and for the covariance: wide enough to add no information
CORRECTIONS = 2  # after a step
FARTHEST = 0.7  # most change of a logarithm in one iteration
SMALL = 1e-3  # relative change of a parameter after which the matrices need not be renewed
PATIENCE = 2  # steps that may end above the least cost without the next promising this part of what they did,
FALLING = 0.3
LEAST_GAIN = 1e-3  # of the cost, and square of a step in standard errors, below which nothing is left to gain
SMALL_GAIN = 0.1  # of the cost, for the second
HARMONICS = 16  # of the slope of -log p over a step
EARLY = 6  # steps after which a cost still above `hopeless` ends a fit
WILD = 100.0  # if they end below so many times that cost
EM_ROUNDS = 30
FLOOR = 0.3  # least t_i over tau: below it changes nothing

Scales = tuple[float, float, np.ndarray]  # sigma, tau, the t_i


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
    step : float
        The data are rounded to multiples of it; 0.0 if they are not.
    offset, gain : bool
        Whether the data are ``gain * state + offset`` with unknown offset or gain, one for all.
    """

    values: np.ndarray
    weight: np.ndarray
    rows: np.ndarray
    step: float = 0.0
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
    sigma, tau : float
        sigma is that before rounding.
    spread : ndarray
        The t_i.
    noise : float
        The standard deviation of the data, rounding included.
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
    multiplier : ndarray (S cells,)
        (R - E b) / tau^2.
    modes : Modes or None
    label : str
    """

    params: dict[str, float]
    state: np.ndarray
    b: np.ndarray
    offset: float
    gain: float
    sigma: float
    noise: float
    tau: float
    spread: np.ndarray
    cost: float
    chi2: float
    rate: float
    covariance: np.ndarray
    b_errors: np.ndarray
    evidence: float
    iterations: int
    converged: bool
    multiplier: np.ndarray = field(repr=False)
    modes: drift.Modes | None = field(default=None, repr=False)
    label: str = ""


@dataclass(frozen=True, eq=False)
class _Point:
    """The unknowns."""

    y: np.ndarray
    params: dict[str, float]
    b: np.ndarray
    offset: float
    gain: float


@dataclass(frozen=True, eq=False)
class _Cost:
    """The sum of squares at a point: r = R - E b, and of the data's part half the slope and curvature in g o + c."""

    value: float
    r: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


@dataclass(frozen=True, eq=False)
class _Linear:
    """At a point: J = R_y / tau, C = (R_p, -E) / tau, the data's slope D in offset and gain, d p / d log p, gradients.

    Half the gradients of the cost: `gx` in the fields, `gp` in the parameters, b, offset and gain.
    """

    J: Any
    C: np.ndarray
    D: np.ndarray
    slopes: np.ndarray
    gx: np.ndarray
    gp: np.ndarray


@dataclass(frozen=True, eq=False)
class _Normal:
    """The normal equations at a point, the fields eliminated: Schur complement `S`, X = A^-1 [gx, G]."""

    A0: Any
    A: Any
    linear: _Linear
    factor: Cholesky
    S: np.ndarray
    G: np.ndarray
    X: np.ndarray

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the parameters and the fields."""
        x = self.X[:, 0]
        step = np.linalg.lstsq(self.S, self.G.T @ x - self.linear.gp, rcond=1e-14)[0]
        return step, -x - self.X[:, 1:] @ step

    def largest(self, sizes: np.ndarray) -> float:
        """The largest step of a parameter, over its size."""
        return float(np.max(np.abs(self.steps()[0][: sizes.size]) / sizes, initial=0.0))

    def gain(self) -> float:
        """By how much the step should lower the cost."""
        step, fields = self.steps()
        return -float(step @ self.linear.gp + fields @ self.linear.gx)

    def is_minimum(self) -> bool:
        """Whether there is nothing left to gain, or only in fields that the parameters do not depend on."""
        gain, step = self.gain(), self.steps()[0]
        return gain < LEAST_GAIN or (gain < SMALL_GAIN and float(step @ self.S @ step) < LEAST_GAIN)


@dataclass(frozen=True, eq=False)
class _Visit:
    """A point where the equations were linearised, and the multiplier (R - E b) / tau^2 that they were curved by."""

    at: _Point
    cost: _Cost
    normal: _Normal
    multiplier: np.ndarray
    scales: Scales

    def onward(self, length: float) -> np.ndarray:
        """The multiplier after a step: what the equations, linearised, lead to.

        Newton's method for (y, p, multiplier), R - E b = tau^2 multiplier. With the residual itself over tau^2, which
        after a step is mostly what the linearisation missed, Newton's matrix is hardly ever positive and the step at
        small tau hardly ever a good one (P. E. Gill, D. P. Robinson, Comput. Optim. Appl. 51 (2012) 1).
        """
        step, fields = self.normal.steps()
        linear, tau = self.normal.linear, self.scales[1]
        reached = (self.cost.r / tau + linear.J @ fields + linear.C @ step[: linear.C.shape[1]]) / tau
        return self.multiplier + length * (reached - self.multiplier)


class Problem:
    """The refinement of one set of data."""

    def __init__(self, system: System, data: Data, free: tuple[str, ...]):
        self.system, self.data, self.free = system, data, free
        self.extras = [name for name, on in (("offset", data.offset), ("gain", data.gain)) if on]

    def fit(
        self,
        start: Fit,
        sigma: float,
        tau: float,
        *,
        modes: drift.Modes | None = None,
        spread: float | np.ndarray = 1e-3,
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
        E = np.zeros((start.state.size, 0)) if modes is None else modes.basis * self.data.rows[:, None]
        scales: Scales = (sigma, tau, np.full(E.shape[1], spread))
        at = self._begin(start, E, scales)
        cost, multiplier = self._cost(at, E, scales), start.multiplier
        best: _Visit | None = None  # that of least cost
        converged, taken, worse, gain = False, 0, 0, np.inf
        while True:
            normal = self._normal(at, cost, multiplier, E, scales)
            settled = normal.is_minimum()  # for the t_i as they are
            if modes is not None:
                normal, scales = self._refit_spread(normal, at, modes, scales)
                cost = self._cost(at, E, scales)
                if best is not None:
                    best = replace(best, cost=self._cost(best.at, E, scales))
            here = _Visit(at, cost, normal, multiplier, scales)
            if best is None or cost.value < best.cost.value + LEAST_GAIN:
                best, worse = here, 0
                converged = settled
            elif normal.gain() > FALLING * gain:
                worse += 1
            gain = normal.gain()
            if converged or taken >= max_iterations or (taken >= EARLY and best.cost.value > hopeless):
                break
            there = self._full_step(here, best, worse, E) or self._line_search(best, E, scales)
            if there is None:
                converged = best.normal.largest(self._sizes(best.at)) < SMALL
                break
            at, cost, multiplier = there
            taken += 1
        at, cost, normal, scales = best.at, best.cost, best.normal, best.scales
        covariance = _inverse(normal.S)
        if self.data.step:
            covariance = self._widened(covariance, at, sigma, normal)
        found = self._evidence(cost, normal, E, scales) if evidence else float("nan")
        k, m = len(self.free), E.shape[1]
        keep = np.r_[0:k, k + m : len(covariance)]
        R = cost.r + E @ at.b
        return Fit(
            at.params,
            at.y.reshape(start.state.shape),
            at.b,
            at.offset,
            at.gain,
            sigma,
            float(np.sqrt(misfit.variance(self.data, sigma))),
            tau,
            scales[2],
            cost.value,
            self._chi2(at, sigma),
            float(np.sqrt(R @ R / max(float(self.data.rows.sum()), 1.0))),
            covariance[np.ix_(keep, keep)],
            np.sqrt(np.maximum(np.diag(covariance), 0.0))[k : k + m],
            found,
            taken,
            converged,
            cost.r / tau**2,
            modes,
            label or f"tau = {tau:.0e}",
        )

    def _begin(self, start: Fit, E: np.ndarray, scales: Scales) -> _Point:
        """The point of `start`, with the drift of least cost."""
        _, tau, spread = scales
        y, params = start.state.ravel().copy(), dict(start.params)
        R = self.system.residual(y, params) * self.data.rows
        b = np.linalg.solve(E.T @ E / tau**2 + np.diag(1.0 / spread**2), E.T @ R / tau**2)
        return _Point(y, params, b, start.offset, start.gain)

    def _cost(self, at: _Point, E: np.ndarray, scales: Scales) -> _Cost:
        sigma, tau, spread = scales
        r = self.system.residual(at.y, at.params) * self.data.rows - E @ at.b
        value, slope, curvature = misfit.minus_twice_log(at.gain * at.y + at.offset, self.data, sigma)
        return _Cost(float(r @ r) / tau**2 + value + float(np.sum((at.b / spread) ** 2)), r, slope, curvature)

    def _chi2(self, at: _Point, sigma: float) -> float:
        """The mean square of the misfit over what it should be, rounding included."""
        data = self.data
        d = (at.gain * at.y + at.offset - data.values.ravel()) * data.weight.ravel()
        return float(d @ d) / misfit.variance(data, sigma) / max(data.count, 1)

    def _logs(self, params: Mapping[str, float]) -> np.ndarray:
        """Which parameters move on a logarithmic scale."""
        return np.array([params[name] > 0 for name in self.free], dtype=bool)

    def _weighted_jacobian(self, at: _Point, tau: float) -> Any:
        return sparse.csr_array(sparse.diags_array(self.data.rows / tau) @ self.system.jacobian(at.y, at.params))

    def _linearised(self, at: _Point, cost: _Cost, E: np.ndarray, scales: Scales) -> _Linear:
        _, tau, spread = scales
        k, m = len(self.free), E.shape[1]
        J = self._weighted_jacobian(at, tau)
        logs = self._logs(at.params)
        slopes = np.where(logs, [at.params[name] for name in self.free], 1.0)
        Rp = self.system.parameter_jacobian(at.y, at.params, self.free) * (self.data.rows / tau)[:, None]
        C = np.concatenate([Rp * slopes, -E / tau], axis=1)
        ones = np.ones(at.y.size)
        D = np.array([ones if name == "offset" else at.y for name in self.extras]).reshape(-1, at.y.size).T
        gp = C.T @ (cost.r / tau)
        gp[k : k + m] += at.b / spread**2
        gx = J.T @ (cost.r / tau) + at.gain * cost.slope
        return _Linear(J, C, D, slopes, gx, np.concatenate([gp, D.T @ cost.slope]))

    def _normal(self, at: _Point, cost: _Cost, multiplier: np.ndarray, E: np.ndarray, scales: Scales) -> _Normal:
        spread = scales[2]
        k, m = len(self.free), E.shape[1]
        linear = self._linearised(at, cost, E, scales)
        J, C, D = linear.J, linear.C, linear.D
        A0 = sparse.csr_array(J.T @ J) + sparse.diags_array(np.full(at.y.size, 1.0 / FREE**2))
        A = A0 + sparse.diags_array(cost.curvature * at.gain**2)
        H = np.zeros((linear.gp.size,) * 2)
        H[: k + m, : k + m] = C.T @ C
        H[k : k + m, k : k + m] += np.diag(1.0 / spread**2)
        H[k + m :, k + m :] = D.T @ (cost.curvature[:, None] * D)
        G = np.concatenate([J.T @ C, at.gain * cost.curvature[:, None] * D], axis=1)
        curved, crossed = self._curvature(at.y, at.params, multiplier)
        found = None
        if curved is not None:
            G_there, H_there = G.copy(), H.copy()
            G_there[:, :k] += crossed * linear.slopes
            H_there[:k, :k] += np.diag(np.where(self._logs(at.params), linear.gp[:k], 0.0))
            found = self._eliminate(A + curved, linear.gx, G_there, H_there, must_be_positive=True)
        factor, X, S = found or self._eliminate(A, linear.gx, G, H)
        return _Normal(A0, A, linear, factor, S, G if found is None else G_there, X)

    def _refit_spread(self, normal: _Normal, at: _Point, modes: drift.Modes, scales: Scales) -> tuple[_Normal, Scales]:
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
        if must_be_positive and np.linalg.eigvalsh(S).min() <= 0.0:
            return None
        return factor, X, S

    def _full_step(
        self, here: _Visit, best: _Visit, worse: int, E: np.ndarray
    ) -> tuple[_Point, _Cost, np.ndarray] | None:
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

    def _line_search(self, here: _Visit, E: np.ndarray, scales: Scales) -> tuple[_Point, _Cost, np.ndarray] | None:
        """A shorter step, brought back to the floor of the valley, to lower cost; None if there is none."""
        length = min(1.0, FARTHEST / max(here.normal.largest(self._sizes(here.at)), 1e-300))
        for _ in range(6):
            there = self._moved(here.at, here.normal, length, E.shape[1])
            there, cost = self._correct(there, here.normal.factor, E, scales)
            if cost.value < here.cost.value:
                return there, cost, here.onward(length)
            length /= 4.0
        return None

    def _sizes(self, at: _Point) -> np.ndarray:
        """Of the parameters, by which their steps are measured."""
        return np.where(self._logs(at.params), 1.0, np.abs([at.params[name] for name in self.free]) + 1e-3)

    def _moved(self, at: _Point, normal: _Normal, length: float, m: int) -> _Point:
        step_p, step_y = (length * step for step in normal.steps())
        k = len(self.free)
        params = dict(at.params)
        for name, log, x in zip(self.free, self._logs(at.params), step_p[:k].tolist(), strict=True):
            params[name] = params[name] * float(np.exp(x)) if log else params[name] + x
        more = dict(zip(self.extras, step_p[k + m :].tolist(), strict=True))
        return _Point(
            at.y + step_y,
            params,
            at.b + step_p[k : k + m],
            at.offset + more.get("offset", 0.0),
            at.gain + more.get("gain", 0.0),
        )

    def _correct(self, at: _Point, factor: Cholesky, E: np.ndarray, scales: Scales) -> tuple[_Point, _Cost]:
        """Bring the fields back to the floor of the curved valley, by steps with the old factors."""
        cost = self._cost(at, E, scales)
        for _ in range(CORRECTIONS):
            J = self._weighted_jacobian(at, scales[1])
            there = replace(at, y=at.y - factor.solve(J.T @ (cost.r / scales[1]) + at.gain * cost.slope))
            cost_there = self._cost(there, E, scales)
            if not cost_there.value < cost.value:
                break
            gained = cost.value - cost_there.value
            at, cost = there, cost_there
            if gained < 0.3:
                break
        return at, cost

    def _widened(self, covariance: np.ndarray, at: _Point, sigma: float, normal: _Normal) -> np.ndarray:
        """The covariance of a fit to rounded data, where cells of like values have like rounding errors.

        In the flat parts of a pattern, the ground and the tops of equal spots, thousands of cells are off by the same
        part of a step, and push the parameters the same way. With w_i what the slope u of -log p at cell i contributes
        to the right side of S, the phase of x in its step uniform, the same within a step and independent from one
        step to another, the covariance is ``S^-1 M S^-1``,

            M = sum_steps sum_m |u_m|^2 T_m T_m^H,    T_m = sum_i w_i exp(2 pi i m x_i / step)

        over the cells of a step, u_m the Fourier coefficients of u over a step. (A sandwich estimate of clustered
        errors: K.-Y. Liang, S. L. Zeger, Biometrika 73 (1986) 13.) In no direction it is less than S^-1.
        """
        linear, step = normal.linear, self.data.step
        seen = self.data.weight.ravel() > 0.0
        W = at.gain * normal.X[:, 1:]
        W[:, W.shape[1] - linear.D.shape[1] :] -= linear.D
        W, x = W[seen], (at.gain * at.y + at.offset)[seen]
        order = np.argsort(x)
        W, phase, level = W[order], x[order] / step, np.rint(self.data.values.ravel()[seen][order] / step)
        steps = np.flatnonzero(np.diff(level, prepend=np.nan) != 0.0)
        M = np.zeros(covariance.shape)
        for m, size in enumerate(misfit.slope_harmonics(sigma / step, HARMONICS) / step**2, 1):
            T = np.add.reduceat(W * np.exp(2j * np.pi * m * phase)[:, None], steps, axis=0)
            M += size * (T.T @ T.conj()).real
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        ratio, turn = np.linalg.eigh(root.T @ M @ root)
        root = root @ turn * np.sqrt(np.maximum(ratio, 1.0))
        return root @ root.T

    def _evidence(self, cost: _Cost, normal: _Normal, E: np.ndarray, scales: Scales) -> float:
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


def start_fit(params: Mapping[str, float], state: np.ndarray, offset: float = 0.0, gain: float = 1.0) -> Fit:
    """A `Fit` to start from."""
    nothing = np.zeros(0)
    return Fit(
        dict(params), state, nothing, offset, gain, 1.0, 1.0, 1.0, nothing, np.inf, np.inf, np.inf,
        np.zeros((0, 0)), nothing, -np.inf, 0, False, np.zeros(state.size),
    )  # fmt: skip


def _inverse(S: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric matrix, scaled first; infinite variances where it is singular."""
    if not S.size:
        return S
    scale = np.sqrt(np.maximum(np.abs(np.diag(S)), 1e-300))
    values, vectors = np.linalg.eigh(S / np.outer(scale, scale))
    values = np.maximum(values, 1e-15)
    return (vectors / values) @ vectors.T / np.outer(scale, scale)


__all__ = ["Data", "Fit", "Problem", "replace", "start_fit"]
