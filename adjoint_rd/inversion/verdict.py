"""When to refuse, and what to say.

Every function returns a reason in words, or None if all is well.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DivergenceError, InputError, StabilityError
from ..grid import Grid
from ..models import Model
from ..simulation import Simulation
from .cleanup import Spectrum

LEAST_PEAK = 12.0  # of the spectrum, over the noise
MOST_RATE = 5e-3  # of y_t against the reaction, root mean squares: more is not steady, or not this model
MOST_CHI2 = 1.3
GIVEN = "what was given (boundary=, scale=, offset=, known=)"
RUN_TIME = 200.0
MOST_GROUND = 2.0 / 3.0  # of the cells; measured: 0.69 to 0.84 where growth of a few structures hid in the parameters
NEAR_REST = 0.02  # of a species' largest deviation from the rest state
MOST_CHANGE = 0.05  # of the pattern's standard deviation in that time, beyond what its rate explains


def no_pattern(v: np.ndarray, spectrum: Spectrum, unknowns: int) -> str | None:
    """Whether the data have no structure to fit."""
    spread, size = float(np.std(v)), float(np.max(np.abs(v), initial=0.0))
    if size == 0.0 or spread <= 1e-6 * size:
        return "the image is uniform: it has no pattern, and every parameter with that rest state fits."
    if spectrum.step and np.unique(v).size < 6:
        return f"the image has only {np.unique(v).size} levels; that does not determine a pattern's profile."
    if spectrum.peak < LEAST_PEAK or spectrum.signal < 0.3 * spectrum.noise:
        return (
            f"the image is noise: no wavenumber stands out ({spectrum.peak:.1f} times the noise; at least "
            f"{LEAST_PEAK:.0f} are needed)."
        )
    if spectrum.numbers < unknowns + 1:
        return (
            f"the image holds only {spectrum.numbers} Fourier amplitudes above the noise, its mean included; "
            f"{unknowns} "
            "parameters cannot be told from so few. A less regular pattern, or less noise, is needed."
        )
    return None


def too_rough(fit: Any, spectrum: Spectrum, given: bool, count: int, model: Model) -> str | None:
    """Whether the fit leaves more than the noise at the highest wavenumbers."""
    allowed = 1.1 if given else 1.1 + 6.0 / np.sqrt(count)
    if fit.noise * np.sqrt(fit.chi2) > allowed * spectrum.noise > 0.0 and fit.noise > 2e-5 * np.max(np.abs(fit.state)):
        return (
            f"no steady pattern of {model.name} fits: the misfit, {fit.noise * np.sqrt(fit.chi2):.3g}, is more than "
            f"the noise of {spectrum.noise:.3g}. Either the image is none, or {GIVEN} is wrong."
        )
    return None


def not_converged(fit: Any) -> str | None:
    """Whether the refinement ran out of iterations."""
    return None if fit.converged else "the refinement did not converge; the data may not determine the parameters"


def implausible(params: Mapping[str, float], model: Model, grid: Grid) -> str | None:
    """Whether parameters are outside of what a pattern on this grid can have."""
    h2 = min(grid.spacing) ** 2
    longest = max(n * h for n, h in zip(grid.shape, grid.spacing, strict=True))
    for name, value in params.items():
        if not np.isfinite(value):
            return f"{name} = {value}"
        if name in model.diffusivities:
            if value < 2e-4 * h2:
                return f"{name} = {value:.2g}, too small for a pattern that this grid resolves"
            if value > longest**2:
                return f"{name} = {value:.2g}, which would even out everything on this grid"
        elif model.name == "gray_scott" and not -2e-3 < value < 2.0:
            return f"{name} = {value:.2g}, outside the range of patterns"
    return None


def mostly_ground(given: Any, state: np.ndarray, params: Mapping[str, float]) -> str | None:
    """Whether most of the grid is at the observed species' rest state, so that a few structures may be growing there.

    The growth of a few structures of one kind can hide in the parameters when one species alone is seen: their profile
    is then that of structures at rest under other parameters, and the residual shows nothing.
    """
    if given.at_rest or len(given.species) == len(given.model.species):
        return None
    rest, known = given.model.rest_state(params), ~(given.hole | given.edge).ravel()
    if not known.any():
        return None
    away = [np.abs(state[c][known] - rest[c]) for c in given.species]
    ground = min(float(np.mean(each <= NEAR_REST * np.max(each))) for each in away)
    if ground > MOST_GROUND:
        return (
            f"{100 * ground:.0f} % of the image is empty ground, into which such a pattern usually still grows, and "
            "the growth of few structures can hide in the parameters. If you know that it has come to rest, say "
            "at_rest=True; else observe the other species as well, or wait until it fills the image."
        )
    return None


def magnitude(model: Model, state: np.ndarray, params: Mapping[str, float]) -> float:
    """The root mean square over the grid of the reaction's variation, the largest among the species."""
    kinetics = tuple(params[name] for name in model.parameters)
    reaction = model.reaction(tuple(state), kinetics)
    return float(max(np.std(r) for r in reaction))


def unsteady(rate: float, reaction: float) -> str | None:
    """Whether y_t is too large for a steady pattern."""
    if rate > MOST_RATE * reaction:
        return (
            f"the equation's residual is {100 * rate / max(reaction, 1e-300):.1f} % of the reaction (at most "
            f"{100 * MOST_RATE:g} %): the pattern is still moving, or it is not one of this model, or {GIVEN} is wrong."
        )
    return None


def misfit(fit: Any, model: Model) -> str | None:
    """Whether the best fit leaves more than noise."""
    spread = np.sqrt(2.0 / max(np.size(fit.state) / len(model.species), 1.0))
    if fit.chi2 > MOST_CHI2 + 4.0 * spread:
        return (
            f"no steady pattern of {model.name} fits: the misfit is {np.sqrt(fit.chi2):.2f} times the noise. Either it "
            f"is not one, or the noise is larger than given, or {GIVEN} is wrong."
        )
    return None


def runs_on(
    model: Model, grid: Grid, state: np.ndarray, params: Mapping[str, float], rate: float, settle: float = 0.0
) -> tuple[str | None, float]:
    """Whether the fitted state stays when the model runs on from it, after a time to settle: (reason, change)."""
    names = model.diffusivities
    K = grid.largest_wavenumber_squared
    y = state.reshape(len(model.species), *grid.shape)
    fastest = max(params[D] for D in names) * K
    dt = 0.8 / max(fastest, 1e-12)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            limits = Simulation(model, grid, dt=dt, stability="off", threads=1).limits(params)
            if np.isfinite(limits.safe):
                dt = min(dt, 0.9 * limits.safe)
            sim = Simulation(model, grid, dt=dt, stability="off", threads=1)
            reaction = magnitude(model, state, params)
            spread = max(float(np.std(s)) for s in y)
            # A time over which the reaction could remake the pattern several times.
            time = min(RUN_TIME, 20.0 * spread / max(reaction, 1e-12))
            steps = int(np.clip(time / dt, 20, 4000))
            if settle:
                y = sim.run(y, dict(params), steps=int(np.ceil(settle / dt))).final
            after = sim.run(y, dict(params), steps=steps).final
    except (DivergenceError, StabilityError, InputError) as error:
        return f"the fitted state does not survive when the model runs on from it ({error})", float("inf")
    observed = max(
        float(np.sqrt(np.mean((a - b) ** 2))) / max(float(np.std(b)), 1e-12) for a, b in zip(after, y, strict=True)
    )
    allowed = MOST_CHANGE + 3.0 * rate * steps * dt / spread
    if observed > allowed:
        return (
            f"the fitted state does not last: after a time of {steps * dt:.0f} it differs by {100 * observed:.0f} % "
            "of its "
            f"spread. It is no stable pattern of {model.name}"
        ), observed
    return None, observed


def praise(names: tuple[str, ...], relative: np.ndarray, rate: float, noise: float, clean: bool) -> str:
    """What to say about a success."""
    worst = int(np.argmax(relative))
    parts = [
        f"Fitted {', '.join(names)}; the largest standard error is {100 * relative[worst]:.2g} % ({names[worst]})."
    ]
    if relative[worst] > 0.01:
        loose = [name for name, error in zip(names, relative, strict=True) if error > 0.01]
        parts.append(f"The data do not determine {', '.join(loose)} to 1 %.")
    parts.append(f"y_t is {rate:.1g} (root mean square)" + (", no noise seen." if clean else f", noise {noise:.2g}."))
    return " ".join(parts)
