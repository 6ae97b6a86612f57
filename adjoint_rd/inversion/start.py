"""A start from the equation residual, by variable projection.

One species o is observed, one is hidden, h. If the hidden species' equation is linear in it,

    D_h Lap h + a(o; q) h + c(o; q) = 0     (Gray-Scott: (F + v^2 - Du Lap) u = F,  q = (Du, F))

it gives h for each q. The observed species' equation is linear in the other parameters (Dv, k), which least squares
eliminate; what is left is a smooth problem in log q, for the Levenberg-Marquardt method (G. H. Golub, V. Pereyra, SIAM
J.
Numer. Anal. 10 (1973) 413; the Jacobian is L. Kaufman's, BIT 15 (1975) 49). The residual is divided by the norm of the
part of the reaction that the hidden species causes (``u v^2``): without this, q -> 0, u -> 0 is a spurious minimum.

With noise in o, ``Lap o`` biases that form. Then the Green form follows, an output error:

    r = P [ (-alpha - D_o Lap)^-1 N(h, o; p) - o ]     (Gray-Scott: (F + k - Dv Lap)^-1 (u v^2) - v)

for models whose reaction is ``alpha o + N`` with alpha constant, and P the low-pass filter of `cleanup`.

Which parameters and species play which part is found from the model's own functions, at random points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..grid import Grid
from ..models import Model
from ..sparse import Spectral, System

STEP = 1.0  # most change of a logarithm in one iteration
SOLVE_TOLERANCE = 1e-11


@dataclass(frozen=True)
class Structure:
    """Which parameter plays which part, see the module.

    Attributes
    ----------
    observed, hidden : int
        Species.
    inner : tuple of str
        Free parameters of the hidden species' equation.
    outer : tuple of str
        The other free ones, which enter the observed species' equation linearly.
    green : bool
        Whether the Green form applies.
    """

    observed: int
    hidden: int
    inner: tuple[str, ...]
    outer: tuple[str, ...]
    green: bool


def structure(model: Model, observed: int, known: Mapping[str, float]) -> Structure:
    """Find the structure of a model with two species, or raise an `InputError` that says what does not fit."""
    if len(model.species) != 2:
        raise InputError(
            f"model={model.name!r} has {len(model.species)} species; the residual start needs two. Give start= all "
            "parameters and data of every species."
        )
    hidden = 1 - observed
    rng = np.random.default_rng(12345)
    free = tuple(name for name in model.names if name not in known)
    s = rng.uniform(0.2, 1.0, (2, 16))
    p = tuple(rng.uniform(0.2, 1.0, 16) for _ in model.parameters)
    shift = np.zeros((2, 16))
    shift[hidden] = rng.uniform(0.5, 1.0, 16)

    def reaction(state: np.ndarray, params: Any = p) -> np.ndarray:
        return np.stack(np.broadcast_arrays(*model.reaction(tuple(state), params)))

    curved = reaction(s + shift) - 2.0 * reaction(s) + reaction(s - shift)
    if np.max(np.abs(curved[hidden])) > 1e-9:
        raise InputError(
            f"the equation of {model.species[hidden]} in {model.name} is not linear in {model.species[hidden]}: given "
            f"{model.species[observed]} alone, its solution need not be unique nor, in a movie, forget where it began. "
            f"Observe {model.species[hidden]} instead, or give start= all parameters and data of both species."
        )
    inner, outer = [], []
    for name in free:
        if name in model.diffusivities:
            (inner if model.diffusivities.index(name) == hidden else outer).append(name)
            continue
        i = model.parameters.index(name)
        dp = tuple(1.0 if j == i else 0.0 for j in range(len(p)))
        slope = np.stack(np.broadcast_arrays(*model.reaction_j(tuple(s), p, (0.0 * s[0], 0.0 * s[1]), dp)))
        if np.max(np.abs(slope[hidden])) > 1e-12:
            inner.append(name)
            continue
        moved = tuple(x + 0.5 * d for x, d in zip(p, dp, strict=True))
        back = tuple(x - 0.5 * d for x, d in zip(p, dp, strict=True))
        if np.max(np.abs(reaction(s, moved) - 2.0 * reaction(s) + reaction(s, back))[observed]) > 1e-9:
            raise InputError(
                f"{name} enters {model.name} nonlinearly; give known={{{name!r}: ...}} or start= all parameters."
            )
        outer.append(name)
    alone = s.copy()
    alone[hidden] = 0.0
    ahead = np.zeros((2, 16))
    ahead[observed] = 0.3
    bend = reaction(alone + ahead) - 2.0 * reaction(alone) + reaction(alone - ahead)
    return Structure(observed, hidden, tuple(inner), tuple(outer), bool(np.max(np.abs(bend[observed])) < 1e-9))


@dataclass(frozen=True)
class StartFit:
    """What a residual fit found.

    Attributes
    ----------
    params : dict
        All parameters.
    state : ndarray (S, cells)
    residual : float
        The norm of the residual over that of the reaction through the hidden species (strong form), or the root mean
        square of the output error (Green form).
    iterations : int
    covariance : ndarray or None
        Of the logarithms of the free parameters, in the model's order of names, from the residual's spectrum.
    """

    params: dict[str, float]
    state: np.ndarray
    residual: float
    iterations: int
    covariance: np.ndarray | None = None


class Residual:
    """The residual problem of one image."""

    def __init__(
        self,
        model: Model,
        grid: Grid,
        image: np.ndarray,
        part: Structure,
        known: Mapping[str, float],
        weight: np.ndarray | None = None,
        cutoff: float = np.inf,
        noise_variance: float = 0.0,
    ):
        self.model, self.grid, self.part, self.known = model, grid, part, dict(known)
        self.system = System(model, grid)
        self.o = np.asarray(image, dtype=np.float64).ravel()
        self.weight = None if weight is None else np.asarray(weight, dtype=np.float64).ravel()
        self.spectral = Spectral(grid)
        self.filter = None if not np.isfinite(cutoff) else (-self.spectral.lam <= cutoff**2).astype(np.float64)
        self.lap_o = self.system.lap @ self.o + self.system.walls[part.observed]
        self._last: dict[str, np.ndarray] = {}
        self.free = part.inner + part.outer
        self.noise_variance = noise_variance

    # The hidden species

    def _point(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (h, self.o) if self.part.hidden == 0 else (self.o, h)

    def _kinetics(self, params: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(params[name] for name in self.model.parameters)

    def _field(self, value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), self.o.shape)

    def _slope(self, s: Any, params: Mapping[str, float], name: str, species: int) -> np.ndarray:
        """d R_species / d name at s, without diffusion."""
        dp = tuple(1.0 if other == name else 0.0 for other in self.model.parameters)
        zero = np.zeros_like(self.o)
        return self._field(self.model.reaction_j(s, self._kinetics(params), (zero, zero), dp)[species])

    def _to_hidden(self, s: Any, params: Mapping[str, float], species: int) -> np.ndarray:
        """d R_species / d h."""
        one, zero = np.ones_like(self.o), np.zeros_like(self.o)
        t = (one, zero) if self.part.hidden == 0 else (zero, one)
        nothing = tuple(0.0 for _ in self.model.parameters)
        return self._field(self.model.reaction_j(s, self._kinetics(params), t, nothing)[species])

    def hidden(self, params: Mapping[str, float]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The hidden species and its derivatives with respect to the inner parameters."""
        part, model = self.part, self.model
        zero = np.zeros_like(self.o)
        s0 = self._point(zero)
        D_name = model.diffusivities[part.hidden]
        D = params[D_name]
        decay = -self._to_hidden(s0, params, part.hidden)
        source = (
            self._field(model.reaction(s0, self._kinetics(params))[part.hidden]) + D * self.system.walls[part.hidden]
        )
        h = self._solve(decay, D, source[None], ("h",))[0]
        s = self._point(h)
        lap_h = self.system.lap @ h + self.system.walls[part.hidden]
        right = [lap_h if name == D_name else self._slope(s, params, name, part.hidden) for name in part.inner]
        slopes = self._solve(decay, D, np.stack(right), part.inner) if right else np.zeros((0, h.size))
        return h, dict(zip(part.inner, slopes, strict=True))

    def _solve(self, decay: np.ndarray, D: float, right: np.ndarray, keys: tuple[str, ...]) -> np.ndarray:
        """``(decay - D Lap) x = right`` by conjugate gradients, preconditioned with the mean of `decay`."""
        shape = self.grid.shape
        mean = max(float(np.mean(decay)), 1e-12)
        if np.min(decay) < 0:
            decay = np.maximum(decay, 1e-3 * mean)
        inverse = 1.0 / (mean - D * self.spectral.lam)
        x = np.stack([self._last.get(key, np.zeros(self.o.size)) for key in keys])

        def product(a: np.ndarray) -> np.ndarray:
            return decay * a - D * (self.system.lap @ a.T).T

        r = right - product(x)
        size = np.linalg.norm(right, axis=1) + 1e-300
        z = self.spectral.apply(r.reshape(-1, *shape), inverse).reshape(r.shape)
        d = z
        rz = np.einsum("ij,ij->i", r, z)
        for _ in range(400):
            if np.all(np.linalg.norm(r, axis=1) <= SOLVE_TOLERANCE * size):
                break
            Ad = product(d)
            alpha = rz / np.maximum(np.einsum("ij,ij->i", d, Ad), 1e-300)
            x = x + alpha[:, None] * d
            r = r - alpha[:, None] * Ad
            z = self.spectral.apply(r.reshape(-1, *shape), inverse).reshape(r.shape)
            rz_new = np.einsum("ij,ij->i", r, z)
            d = z + (rz_new / np.maximum(rz, 1e-300))[:, None] * d
            rz = rz_new
        for key, column in zip(keys, x, strict=True):
            self._last[key] = column
        return x

    # Forms of the residual

    def _seen(self, a: np.ndarray) -> np.ndarray:
        """P a: filtered and weighted."""
        if self.filter is not None:
            a = self.spectral.apply(a.reshape(self.grid.shape), self.filter).ravel()
        return a if self.weight is None else a * self.weight

    def strong(self, log_inner: np.ndarray, slopes: bool = True) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """(r, dr/dlog q, all parameters) with the outer parameters eliminated and r normalised."""
        part, model = self.part, self.model
        params = dict(self.known)
        params.update(zip(part.inner, np.exp(log_inner).tolist(), strict=True))
        params.update(dict.fromkeys(part.outer, 0.0))
        h, dh = self.hidden(params)
        s, s0 = self._point(h), self._point(np.zeros_like(h))
        p = self._kinetics(params)
        through = self._field(model.reaction(s, p)[part.observed]) - self._field(model.reaction(s0, p)[part.observed])
        D_o = model.diffusivities[part.observed]
        g = self._seen(self._field(model.reaction(s, p)[part.observed]) + params.get(D_o, 0.0) * self.lap_o)
        columns = [
            self._seen(self.lap_o if name == D_o else self._slope(s, params, name, part.observed))
            for name in part.outer
        ]
        through = self._seen(through)
        if columns:
            Q, R = np.linalg.qr(np.stack(columns, axis=1))
            c = -np.linalg.solve(R + 1e-300 * np.eye(len(R)), Q.T @ g)
            r = g - Q @ (Q.T @ g)
            params.update(zip(part.outer, c.tolist(), strict=True))
        else:
            Q, r = np.zeros((g.size, 0)), g
        norm = float(np.linalg.norm(through)) + 1e-300
        sensitive = self._to_hidden(s, params, part.observed)
        J = []
        for name, q in zip(part.inner, np.exp(log_inner), strict=True):
            moved = self._seen(sensitive * dh[name])
            explicit = 0.0
            if name not in model.diffusivities:
                # With the outer parameters at their fitted values, not at zero.
                explicit = self._seen(self._slope(s, params, name, part.observed))
                explicit_through = explicit - self._seen(self._slope(s0, params, name, part.observed))
                pushed = moved + explicit_through
            else:
                pushed = moved
            column = moved + explicit
            column = q * (column - Q @ (Q.T @ column))
            J.append(column / norm - r * (q * float(through @ pushed) / norm**3))
        return r / norm, np.stack(J, axis=1) if J else np.zeros((r.size, 0)), params

    def green(self, log_free: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """(r, dr/dlog p, all parameters) of the Green form."""
        part, model = self.part, self.model
        params = dict(self.known)
        params.update(zip(self.free, np.exp(log_free).tolist(), strict=True))
        h, dh = self.hidden(params)
        zero = np.zeros_like(h)
        s, s0 = self._point(h), self._point(zero)
        p = self._kinetics(params)
        one = np.ones_like(h)
        t = (zero, one) if part.hidden == 0 else (one, zero)
        alpha = float(np.mean(self._field(model.reaction_j(s0, p, t, tuple(0.0 for _ in p))[part.observed])))
        D_name = model.diffusivities[part.observed]
        D = params[D_name]
        inverse = 1.0 / np.maximum(-alpha - D * self.spectral.lam, 1e-9)
        if self.filter is not None:
            inverse = inverse * self.filter

        def smooth(a: np.ndarray) -> np.ndarray:
            return self.spectral.apply(a.reshape(self.grid.shape), inverse).ravel()

        source = (
            self._field(model.reaction(s, p)[part.observed]) - alpha * self.o + D * self.system.walls[part.observed]
        )
        w = smooth(source)
        sw = self._point(zero)
        sw = (zero, w) if part.hidden == 0 else (w, zero)
        through = self._to_hidden(s, params, part.observed)
        weight = 1.0 if self.weight is None else self.weight
        target = self.o
        if self.filter is not None:
            target = self.spectral.apply(target.reshape(self.grid.shape), self.filter).ravel()
        J = []
        for name in self.free:
            if name == D_name:
                column = self.system.lap @ w + self.system.walls[part.observed]
            elif name in model.diffusivities:
                column = np.zeros_like(w)
            else:
                column = (
                    self._slope(s, params, name, part.observed)
                    - self._slope(s0, params, name, part.observed)
                    + self._slope(sw, params, name, part.observed)
                )
            if name in dh:
                column = column + through * dh[name]
            J.append(params[name] * smooth(column) * weight)
        return (w - target) * weight, np.stack(J, axis=1), params

    # Fits

    def fit(self, start: Mapping[str, float], max_iterations: int = 60, tol: float = 1e-8) -> StartFit:
        """The strong form from a start of the inner parameters."""
        x = np.log([start[name] for name in self.part.inner])
        x, params, r, _, taken = _levenberg_marquardt(self.strong, x, max_iterations, tol)
        return StartFit(params, self._state(params), float(np.linalg.norm(r)), taken)

    def fit_green(self, start: Mapping[str, float], max_iterations: int = 20, tol: float = 1e-7) -> StartFit:
        """The Green form from a start of all free parameters."""
        x = np.log([max(start[name], 1e-5) for name in self.free])
        x, params, r, _, taken = _levenberg_marquardt(self.green, x, max_iterations, tol)
        return StartFit(params, self._state(params), float(np.sqrt(np.mean(r**2))), taken)

    def _state(self, params: Mapping[str, float]) -> np.ndarray:
        h, _ = self.hidden(params)
        return np.stack(self._point(h))

    def covariance(self, params: Mapping[str, float]) -> np.ndarray | None:
        """Of log p in the order of the model's free names, for a residual that is stationary but not white.

        With r = J dx + e and e of the power spectrum S, ``cov = (J^T J)^-1 [sum_q |J(q)|^2 S(q)] (J^T J)^-1``, J the
        derivative of the strong form with respect to all free parameters, S the smoothed power of r itself.
        """
        part, model = self.part, self.model
        if any(params[name] == 0 for name in self.free):
            return None
        h, dh = self.hidden(params)
        s = self._point(h)
        D_o = model.diffusivities[part.observed]
        r = self._field(model.reaction(s, self._kinetics(params))[part.observed]) + params[D_o] * self.lap_o
        sensitive = self._to_hidden(s, params, part.observed)
        J = []
        for name in self.free:
            if name == D_o:
                column = self.lap_o
            elif name in model.diffusivities:
                column = np.zeros_like(r)
            else:
                column = self._slope(s, params, name, part.observed)
            J.append(params[name] * (column + (sensitive * dh[name] if name in dh else 0.0)))
        shape = self.grid.shape
        J = [self._seen(column).reshape(shape) for column in J]
        r = self._seen(r).reshape(shape)
        axes = tuple(range(r.ndim))
        power = np.abs(np.fft.fftn(r, axes=axes)) ** 2 / r.size
        freq = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(n) ** 2 for n in shape], indexing="ij")))
        ring = (freq * max(shape) / 2.0).astype(int)
        smooth = (np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1))[ring]
        hat = np.stack([np.fft.fftn(column, axes=axes).ravel() for column in J])
        middle = (hat.conj() * smooth.ravel()) @ hat.T / r.size
        normal = np.stack([column.ravel() for column in J])
        normal = normal @ normal.T
        try:
            inverse = np.linalg.inv(normal)
        except np.linalg.LinAlgError:
            return None
        cov = inverse @ middle.real @ inverse
        names = [name for name in model.names if name in self.free]
        order = [self.free.index(name) for name in names]
        return cov[np.ix_(order, order)]


def _levenberg_marquardt(form: Any, x: np.ndarray, max_iterations: int, tol: float) -> tuple[Any, ...]:
    """Minimise |r|^2 for ``form(x) -> (r, J, params)``; steps of at most `STEP`."""
    damping = 1e-3
    r, J, params = form(x)
    value = float(r @ r)
    taken = 0
    while taken < max_iterations and x.size:
        taken += 1
        normal, g = J.T @ J, J.T @ r
        diagonal = np.diag(np.maximum(np.diag(normal), 1e-300))
        step = np.clip(-np.linalg.lstsq(normal + damping * diagonal, g, rcond=None)[0], -STEP, STEP)
        trial = np.clip(x + step, np.log(1e-5), np.log(1e3))
        r_there, J_there, params_there = form(trial)
        value_there = float(r_there @ r_there)
        small = float(np.max(np.abs(trial - x))) < tol
        if np.isfinite(value_there) and value_there < value:
            x, r, J, params, value = trial, r_there, J_there, params_there, value_there
            damping = max(damping / 5.0, 1e-12)
            if small:
                break
        else:
            if small or damping > 1e8:
                break
            damping *= 8.0
    return x, params, r, J, taken
