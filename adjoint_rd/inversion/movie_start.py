"""A start for the inversion of a movie of one species: an observer, then variable projection.

One species o is observed, one hidden, h, whose equation is linear in it (see `start.structure`). Driven by the observed
o(t), low-passed in space and a cubic spline in time,

    h_t = D_h Lap h + R_h(h, o(t); q)          (Gray-Scott: u_t = Du Lap u - u v^2 + F (1 - u),  q = (Du, F))

forgets its start (the steady state for o(0)) at the rate at which h decays: it is an observer of h. After a burn-in,
the observed equation, integrated over m intervals between frames,

    o(t + m) - o(t) = integral of D_o Lap o + R_o(h, o; q, w)

is linear in the other parameters w (Dv, k), which least squares eliminate; what is left is a smooth problem in log q
for the Levenberg-Marquardt method, with the derivatives of h with respect to q integrated beside h. As in `start`, the
residual is divided by the norm of the reaction through h, and low-passed, since noise in Lap o and o_t biases this
form: it is a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from ..errors import InputError
from ..grid import Grid
from ..models import Model
from ..sparse import Spectral, System
from .cleanup import low_pass
from .start import Residual, Structure, _levenberg_marquardt

LEAST_RATE, MOST_RATE = 1e-5, 1e3


@dataclass(frozen=True)
class MovieStart:
    """What the observer found.

    Attributes
    ----------
    params : dict
        All parameters.
    first : ndarray (S, *shape)
        A guess of the state at the first frame: o low-passed, h steady for it.
    residual : float
        Relative to the reaction through h.
    iterations : int
    observer : Observer or None
        None if all species are seen.
    """

    params: dict[str, float]
    first: np.ndarray
    residual: float
    iterations: int
    observer: Observer | None = None


class Observer:
    """The projected problem of one movie.

    Parameters
    ----------
    model, grid
    frames : ndarray (M, *shape)
        Of the observed species, complete.
    times : ndarray (M,)
        In units of which rates are 1 / unit.
    part : Structure
    known : dict
    cutoff : float
        Wavenumber of the low-pass filter of the frames; inf for none.
    band : float
        Wavenumber of the low-pass filter of the residual.
    burn : int
        Frames before which residuals are left out.
    span : int
        m.
    """

    def __init__(
        self,
        model: Model,
        grid: Grid,
        frames: np.ndarray,
        times: np.ndarray,
        part: Structure,
        known: Mapping[str, float],
        *,
        cutoff: float,
        band: float,
        burn: int,
        span: int,
    ):
        self.model, self.grid, self.part, self.known = model, grid, part, dict(known)
        self.system = System(model, grid)
        self.times = np.asarray(times, dtype=np.float64)
        smooth = np.stack([low_pass(frame, grid, cutoff) for frame in frames]).reshape(len(frames), grid.size)
        self.frames = smooth
        self.spline = CubicSpline(self.times, smooth, axis=0).c  # (4, M - 1, cells), in the time since each frame
        self.burn = burn
        self.windows = [(f, f + span) for f in range(burn, len(frames) - span, span)]
        self.spectral = Spectral(grid)
        self.filter = None if not np.isfinite(band) else (-self.spectral.lam <= band**2).astype(np.float64)
        self.first = Residual(model, grid, smooth[0], part, known)
        self._most_steps = 0  # an interval; set by the first evaluation

    def _seen(self, a: np.ndarray) -> np.ndarray:
        """(windows, cells), low-passed, as a vector."""
        if self.filter is None:
            return a.ravel()
        return self.spectral.apply(a.reshape(-1, *self.grid.shape), self.filter).ravel()

    def _point(self, h: np.ndarray, o: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (h, o) if self.part.hidden == 0 else (o, h)

    def integrals(self, params: Mapping[str, float], first: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Integrals over each interval between frames, (M - 1, cells) each.

        "o", "reaction" (R_o), "alone" (R_o at h = 0), the slopes of R_o by each kinetic parameter, and for each inner
        parameter q "through q": R_o,h dh/dq. Also "hidden" (M - 1, cells, 1 + number of q), h and each dh/dq at the
        beginning of each interval. `first` is h in the first frame, by default the steady state there.
        """
        part, model = self.part, self.model
        kinetics = tuple(params[name] for name in model.parameters)
        nothing = (0.0,) * len(kinetics)
        D_h = params[model.diffusivities[part.hidden]]
        h, slopes = self.first.hidden(params)
        h = h if first is None else first.ravel()
        y = np.stack([h, *(slopes[name] for name in part.inner)], axis=1)
        cells, inner = h.size, part.inner
        outer = [name for name in part.inner + part.outer if name in model.parameters]
        keys = ["o", "reaction", "alone", *outer, *(f"through {name}" for name in inner)]
        total = {key: np.zeros((len(self.times) - 1, cells)) for key in keys}
        total["hidden"] = np.zeros((len(self.times) - 1, *y.shape))
        one, zero = np.ones(cells), np.zeros(cells)
        to_h = self._point(one, zero)
        steps_of = {
            name: tuple(1.0 if other == name else 0.0 for other in model.parameters) for name in outer
        }
        walls = D_h * self.system.walls[part.hidden]
        for f, length in enumerate(np.diff(self.times)):
            count = self._substeps(params, float(length), self.frames[f])
            dt = length / count
            c = self.spline[:, f]
            total["hidden"][f] = y
            for s in range(count):
                t = (s + 0.0) * dt
                o = ((c[0] * t + c[1]) * t + c[2]) * t + c[3]
                h = y[:, 0]
                state = self._point(h, o)
                R = model.reaction(state, kinetics)
                slope = model.reaction_j(state, kinetics, to_h, nothing)
                by = {name: model.reaction_j(state, kinetics, (zero, zero), dp) for name, dp in steps_of.items()}
                total["o"][f] += dt * o
                total["reaction"][f] += dt * R[part.observed]
                total["alone"][f] += dt * np.broadcast_to(
                    model.reaction(self._point(zero, o), kinetics)[part.observed], cells
                )
                for name in outer:
                    total[name][f] += dt * by[name][part.observed]
                for i, name in enumerate(inner):
                    total[f"through {name}"][f] += dt * slope[part.observed] * y[:, 1 + i]
                lap = self.system.lap @ y
                change = D_h * lap + slope[part.hidden][:, None] * y
                change[:, 0] = D_h * lap[:, 0] + walls + R[part.hidden]
                for i, name in enumerate(inner):
                    if name in model.diffusivities:
                        change[:, 1 + i] += lap[:, 0] + self.system.walls[part.hidden]
                    else:
                        change[:, 1 + i] += by[name][part.hidden]
                y = y + dt * change
        return total

    def _substeps(self, params: Mapping[str, float], length: float, o: np.ndarray) -> int:
        """Euler steps an interval: D K dt <= 1.4 with the decay by the reaction."""
        part, model = self.part, self.model
        one, zero = np.ones_like(o), np.zeros_like(o)
        kinetics = tuple(params[name] for name in model.parameters)
        nothing = (0.0,) * len(kinetics)
        slope = model.reaction_j(self._point(zero, o), kinetics, self._point(one, zero), nothing)[part.hidden]
        D_h = params[model.diffusivities[part.hidden]]
        fastest = D_h * self.grid.largest_wavenumber_squared + max(-float(np.min(slope)), 0.0)
        return max(1, int(np.ceil(fastest * length / 1.4)))

    def residual(self, log_inner: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """(r, dr/dlog q, all parameters), see the module."""
        part, model = self.part, self.model
        params = dict(self.known)
        params.update(zip(part.inner, np.exp(log_inner).tolist(), strict=True))
        params.update(dict.fromkeys(part.outer, 0.0))
        longest = float(np.max(np.diff(self.times)))
        steps = self._substeps(params, longest, self.frames[0])
        self._most_steps = self._most_steps or max(100, 8 * steps)
        if steps > self._most_steps:  # far from any pattern on this grid, and endless
            return np.full(1, np.inf), np.zeros((1, len(part.inner))), params
        total = self.integrals(params)
        D_o = model.diffusivities[part.observed]

        def gather(key: str) -> np.ndarray:
            return np.stack([total[key][a:b].sum(axis=0) for a, b in self.windows])

        lap_o = np.stack(
            [
                self.system.lap @ row + self.system.walls[part.observed] * (self.times[b] - self.times[a])
                for row, (a, b) in zip(gather("o"), self.windows, strict=True)
            ]
        )
        change = np.stack([self.frames[b] - self.frames[a] for a, b in self.windows])
        g = self._seen(gather("reaction") + params.get(D_o, 0.0) * lap_o - change)
        through = self._seen(gather("reaction") - gather("alone"))
        norm = float(np.linalg.norm(through)) + 1e-300
        columns = [self._seen(lap_o if name == D_o else gather(name)) for name in part.outer]
        Q, r = np.zeros((g.size, 0)), g
        if columns:
            Q, R = np.linalg.qr(np.stack(columns, axis=1))
            c = -np.linalg.solve(R + 1e-300 * np.eye(len(R)), Q.T @ g)
            r = g - Q @ (Q.T @ g)
            params.update(zip(part.outer, c.tolist(), strict=True))
        J = []
        for name, q in zip(part.inner, np.exp(log_inner), strict=True):
            pushed = self._seen(gather(f"through {name}"))
            column = pushed if name in model.diffusivities else pushed + self._seen(gather(name))
            column = q * (column - Q @ (Q.T @ column))
            J.append(column / norm - r * (q * float(through @ pushed) / norm**3))
        return r / norm, np.stack(J, axis=1) if J else np.zeros((r.size, 0)), params

    def fit(self, start: Mapping[str, float], max_iterations: int = 40, tol: float = 1e-4) -> MovieStart:
        """Levenberg-Marquardt from a start of the inner parameters."""
        x = np.log([start[name] for name in self.part.inner])
        x, params, r, _, taken = _levenberg_marquardt(self.residual, x, max_iterations, tol)
        hidden, _ = self.first.hidden(params)
        first = np.stack(self._point(hidden, self.frames[0])).reshape(2, *self.grid.shape)
        return MovieStart(params, first, float(np.linalg.norm(r)), taken, self)


def best_start(observer: Observer, starts: Any, implausible: Any) -> MovieStart:
    """The fit of least residual; later starts are tried only if the result so far is implausible or poor."""
    best: tuple[tuple[bool, float], MovieStart] | None = None
    for start in starts:
        fit = observer.fit(start)
        rank = (implausible(fit.params) is not None, fit.residual)
        if best is None or rank < best[0]:
            best = (rank, fit)
        if not best[0][0] and best[1].residual < 0.3:
            break
    assert best is not None
    return best[1]


def regression(
    model: Model,
    grid: Grid,
    frames: np.ndarray,
    times: np.ndarray,
    start: Mapping[str, float],
    known: Mapping[str, float],
    *,
    cutoff: float,
    band: float,
    span: int,
) -> MovieStart:
    """All species seen, (M, S, *shape): least squares of the equations integrated over `span` intervals.

    Raises
    ------
    InputError
        If the equations are not linear in the parameters that are neither known nor in `start`.
    """
    system, spectral = System(model, grid), Spectral(grid)
    smooth = np.stack([[low_pass(each, grid, cutoff) for each in frame] for frame in frames])
    flat = smooth.reshape(len(frames), -1)
    spline = CubicSpline(times, flat, axis=0)
    params = {**dict.fromkeys(model.names, 1.0), **start, **known}
    unknown = tuple(name for name in model.names if name not in start and name not in known)
    pass_band = (-spectral.lam <= band**2).astype(np.float64) if np.isfinite(band) else None

    def seen(a: np.ndarray) -> np.ndarray:
        if pass_band is None:
            return a.ravel()
        return spectral.apply(a.reshape(-1, *grid.shape), pass_band).ravel()

    rows, right = [], []
    for a in range(0, len(times) - span, span):
        change = flat[a + span] - flat[a]
        points = np.linspace(times[a], times[a + span], 4 * span + 1)
        weights = np.full(points.size, 2.0)
        weights[1::2], weights[[0, -1]] = 4.0, 1.0
        weights *= (points[1] - points[0]) / 3.0  # Simpson's rule
        base, columns = np.zeros(system.size), np.zeros((system.size, len(unknown)))
        for point, weight in zip(points, weights, strict=True):
            y = spline(point)
            C = system.parameter_jacobian(y, params, unknown)
            fixed = system.residual(y, params) - C @ np.array([params[name] for name in unknown])
            base += weight * fixed
            columns += weight * C
        rows.append(np.stack([seen(column) for column in columns.T], axis=1) if unknown else np.zeros((change.size, 0)))
        right.append(seen(change - base))
    moved = system.residual(flat[0], {**params, **dict.fromkeys(unknown, 1.7)})
    C = system.parameter_jacobian(flat[0], params, unknown)
    bent = moved - system.residual(flat[0], params) - 0.7 * C.sum(axis=1)
    if unknown and np.max(np.abs(bent)) > 1e-9 * np.max(np.abs(C)):
        raise InputError(
            f"{model.name} is not linear in {', '.join(unknown)} together; give start= or known= for some."
        )
    matrix, b = np.concatenate(rows), np.concatenate(right)
    found = np.linalg.lstsq(matrix, b, rcond=None)[0]
    params.update(zip(unknown, found.tolist(), strict=True))
    residual = float(np.linalg.norm(b - matrix @ found) / (np.linalg.norm(b) + 1e-300))
    return MovieStart(params, smooth[0], residual, 1)
