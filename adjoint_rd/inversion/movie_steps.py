"""Which time step made the frames: explicit Euler's of some length, or none (the continuous equations).

Explicit Euler with dt moves a pattern differently from the equations, by O(dt) (some 1 % of the parameters at dt = 1
for Gray-Scott), and frames of a simulation are as often made by it as by an accurate scheme. With c = W H dy/d(dt),
from Euler runs with dt and dt/2 at the fitted point, the frames' own time step is base + theta, where base is dt for a
fit by Euler and 0 for one by RK4, and

    theta = -[c^T P m - z^T (xi + J_xi^T P m)] / S,    S = c^T P c - z^T J_xi^T P c,    (I + J_xi^T P J_xi) z = J_xi^T
    P c

with variance 1 / S: one Gauss-Newton step in theta with the parameters and the first state eliminated. Time steps of
runs are round numbers, so the candidates are 1, 2, 2.5 and 5 times powers of ten that divide the frames' interval, and
0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import AdjointRDError
from ..grid import Grid
from ..simulation import Simulation
from .movie_fit import Linearised, MovieFit, Window

ROUND = (1.0, 2.0, 2.5, 5.0)
SLACK = 0.95  # of the `certain` limit
AGREES = 0.12  # of the first dt: an estimate so near to what is used is not refined
SMALLEST = 0.15  # of the first dt: a shorter Euler step is as good as none
UNCERTAIN = 0.25  # of the first dt: a standard deviation from which theta is left open


@dataclass(frozen=True)
class TimeStep:
    """The time step of the frames.

    Attributes
    ----------
    estimate, deviation : float
    slope : ndarray
        By how much the fitted logarithms move per unit of dt.
    agrees : bool
        Whether the estimate agrees with the scheme that is used.
    open : bool
        Whether the frames leave it open.
    """

    estimate: float
    deviation: float
    slope: np.ndarray
    agrees: bool = True
    open: bool = False


def candidates(gap: float, most: float) -> dict[float, int]:
    """{dt: steps in `gap`} of the round Euler steps up to `most`; 0.0: 0 for the continuous equations."""
    found = {0.0: 0}
    for n in range(max(1, int(np.ceil(gap / most))), int(gap / (SMALLEST * most)) + 1):
        if _is_round(gap / n):
            found[gap / n] = n
    return found


def _is_round(dt: float) -> bool:
    mantissa = dt / 10.0 ** np.floor(np.log10(dt) + 1e-9)
    return bool(np.min(np.abs(mantissa / np.array(ROUND) - 1.0)) < 1e-6)


def limit(sim: Simulation, params: Any) -> float:
    """The `certain` limit on dt, with some slack."""
    return SLACK * sim.limits(params).certain


def round_steps(gap: float, most: float) -> int:
    """Steps in `gap`: of the largest round length (1, 2, 2.5, 5 times a power of ten) below `most` that divides it."""
    least = max(1, int(np.ceil(gap / most)))
    return next((n for n in range(least, 3 * least) if _is_round(gap / n)), least)


def by_default(model: Any, grid: Grid, gap: float, scheme: str, params: Any) -> int:
    """Steps in `gap` for a scheme: round Euler steps, or as few of RK4 as are stable."""
    sim = Simulation(model, grid, dt=gap, scheme=scheme, stability="off", threads=1)
    most = limit(sim, params)
    if scheme == "euler":
        return round_steps(gap, most)
    return max(1, int(np.ceil(gap / (0.8 * most))))


def time_step(window: Window, fit: MovieFit, linear: Linearised, euler: Window) -> TimeStep:
    """Estimate the frames' own time step at a fit.

    Parameters
    ----------
    window, fit, linear
        The fit, and the window linearised about it (or near it).
    euler : Window
        The same by Euler's scheme.
    """
    dt = euler.sim.dt
    half = euler.with_steps(2 * euler.steps, "euler")
    # The misfits hold the same data.
    c = (euler.misfit(fit.x, fit.xi) - half.misfit(fit.x, fit.xi)).ravel() / (dt - half.sim.dt)
    seen = linear.projected(c)
    b = linear.back(seen)
    z = linear.solve(b, 0.02, 80)
    m = fit.misfit.ravel()
    S = float(np.vdot(seen, seen)) - float(b @ z)
    g = float(seen @ m) - float(z @ (fit.xi + linear.back(linear.projected(m))))
    slope = -np.linalg.solve(linear.R, linear.Q @ (c - linear.forth(z)))
    base = dt if window.sim.scheme_name == "euler" else 0.0
    return TimeStep(base - g / S, float(1.0 / np.sqrt(S)), slope)


def choose(
    window: Window, fit: MovieFit, refit: Callable[[Window, MovieFit], MovieFit], log: Callable[..., None]
) -> tuple[Window, MovieFit, TimeStep]:
    """From a fit by Euler's scheme, find the scheme and time step of the frames.

    Parameters
    ----------
    window, fit
        By Euler's scheme.
    refit : callable
        ``(window, fit) -> fit`` of another window, from a fit.
    log : callable

    Returns
    -------
    window, fit, time step
    """
    first, gap, euler = window.sim.dt, window.interval, window
    choices = {**candidates(gap, 1.2 * first), first: window.steps}
    base = first
    while True:
        assert fit.linear is not None
        found = time_step(window, fit, fit.linear, euler)
        log("time step", dt=found.estimate, deviation=found.deviation, used=base, chi2=fit.chi2)
        del choices[base]
        agrees = abs(found.estimate - base) <= max(AGREES * first, 2.0 * found.deviation)
        found = replace(found, agrees=agrees, open=found.deviation > UNCERTAIN * first)
        if agrees or not choices:
            return window, fit, found
        base = min(choices, key=lambda dt, estimate=found.estimate: abs(dt - estimate))
        if base:
            other = euler = window.with_steps(choices[base], "euler")
        else:
            steps = by_default(window.model, window.grid, gap, "rk4", window.params(fit.x))
            other = window.with_steps(steps, "rk4")
        try:
            window, fit = other, refit(other, fit)
        except AdjointRDError:
            return window, fit, found
