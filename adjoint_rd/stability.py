"""A-priori limits on the time step of an explicit scheme, each a number with a reason.

With K the largest eigenvalue of minus the discrete Laplacian (``sum_i 4/h_i^2`` for even grids) and z* the length of
the real axis on which the scheme is stable (2 for Euler, 2.785 for RK4):

    certain   The highest mode of the rest state obeys ``x_t = (J - K D) x`` with J = R_s at the rest state. Beyond
              ``z* / |eigenvalue|`` it grows in every step, whatever the pattern. Where J is diagonal, as for
              Gray-Scott, this is ``z* / (K D + decay rate)``.
    safe      ``z* / (K D_c + max(-J_cc))``, the smallest over the species c, the maximum taken over the corners and the
              centre of the box of states that the model declares. It bounds each species' own feedback in a step;
              between `safe` and `certain` blow-up is possible and depends on the pattern.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from .errors import InputError, check_choice, check_number
from .grid import Grid
from .models import Model


@dataclass(frozen=True)
class Limits:
    """The two limits on dt in the user's unit of time; `safe` is NaN for models that declare no box."""

    certain: float
    safe: float
    certain_reason: str
    safe_reason: str


def limits(model: Model, grid: Grid, params: Mapping[str, Any], scheme: ModuleType) -> Limits:
    """Compute the limits for known parameters.

    Parameters
    ----------
    model : Model
    grid : Grid
    params : dict
        Floats, or arrays for kinetic parameters that vary in space. For these the limits are taken at the smallest and
        at the largest value, and the more cautious of the two answers is given (for `certain`: the larger limit).
    scheme : module
        One of `adjoint_rd.schemes`.

    Returns
    -------
    Limits
    """
    certain = max((_certain(model, grid, each, scheme) for each in _extremes(params)), key=lambda pair: pair[0])
    safe = safe_limit(model, grid, params, scheme)
    return Limits(certain[0], safe[0], certain[1], safe[1])


def safe_limit(model: Model, grid: Grid, params: Mapping[str, Any], scheme: ModuleType) -> tuple[float, str]:
    """The `safe` limit alone, and its reason; see `limits`."""
    return min((_safe(model, grid, each, scheme) for each in _extremes(params)), key=lambda pair: pair[0])


def constraint(obj: Any, *, limit: str = "safe", margin: float = 1.0) -> Any:
    """The a-priori limit on dt as a constraint on x, for `scipy.optimize.minimize` (SLSQP, COBYLA, trust-constr).

    It is ``log(limit(p(x)) / (margin dt)) >= 0``: no penalty is added to the objective.

    Parameters
    ----------
    obj : Objective
    limit : {"safe", "certain"}
        See the module.
    margin : float
        The least allowed limit over dt.

    Returns
    -------
    scipy.optimize.NonlinearConstraint
    """
    from scipy.optimize import NonlinearConstraint

    check_choice("limit", limit, ("safe", "certain"))
    check_number("margin", margin, above=0.0)
    if not (callable(getattr(obj, "unpack", None)) and hasattr(obj, "sim")):
        raise InputError(f"obj={obj!r} must be an Objective.")

    def function(x: np.ndarray) -> float:
        values = obj.unpack(x)
        values.pop("initial", None)
        return math.log(getattr(obj.sim.limits(values), limit) / (margin * obj.sim.dt))

    return NonlinearConstraint(function, 0.0, np.inf, jac="2-point")


def _extremes(params: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """`params`; or, if some are fields, the sets of their smallest and of their largest values."""
    if all(type(value) is float for value in params.values()):
        return [params]
    return [{name: float(end(value)) for name, value in params.items()} for end in (np.min, np.max)]


def _certain(model: Model, grid: Grid, params: Mapping[str, float], scheme: ModuleType) -> tuple[float, str]:
    K = grid.largest_wavenumber_squared
    rest = model.rest_state(params)
    p = tuple(params[name] for name in model.parameters)
    columns = [_jacobian_column(model, rest, p, c) for c in range(len(rest))]
    diagonal = all(columns[c][r] == 0.0 for c in range(len(rest)) for r in range(len(rest)) if r != c)
    rates: Any
    if diagonal:
        rates = [columns[c][c] - K * params[name] for c, name in enumerate(model.diffusivities)]
    else:
        matrix = np.array(columns).T - K * np.diag([params[name] for name in model.diffusivities])
        rates = np.linalg.eigvals(matrix)
    limit, worst = min(((_largest_stable_dt(rate, scheme), rate) for rate in rates), key=lambda pair: pair[0])
    return limit, f"the rest state's highest mode decays at rate {-worst.real:.4g}"


def _safe(model: Model, grid: Grid, params: Mapping[str, float], scheme: ModuleType) -> tuple[float, str]:
    if model.box is None:
        return float("nan"), f"{model.name} declares no box of states"
    K = grid.largest_wavenumber_squared
    box = model.box(params)
    if len(box) != len(model.species):
        raise InputError(f"{model.name}.box returned {box}; it must return (low, high) for each of the species.")
    p = tuple(params[name] for name in model.parameters)
    states = [*product(*box), tuple([0.5 * (low + high) for low, high in box])]
    units, zero = _units(len(model.species), len(p))
    reaction_j = model.reaction_j
    limit, reason = float("inf"), "nothing limits it"
    for c, name in enumerate(model.diffusivities):
        unit, decay = units[c], 0.0
        for state in states:
            here = -reaction_j(state, p, unit, zero)[c]
            if here > decay:  # not max(): this runs at every trial of an optimiser
                decay = here
        rate = K * params[name] + decay
        if rate > 0.0 and scheme.REAL_STABILITY_INTERVAL / rate < limit:
            limit = scheme.REAL_STABILITY_INTERVAL / rate
            reason = f"diffusion and reaction of {model.species[c]} decay at up to {rate:.4g}"
    return limit, reason


def _jacobian_column(model: Model, state: tuple[float, ...], p: tuple[float, ...], c: int) -> tuple[float, ...]:
    units, zero = _units(len(state), len(p))
    return model.reaction_j(state, p, units[c], zero)


@cache
def _units(S: int, P: int) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """The S unit tangents of a state, and the zero tangent of the parameters."""
    return tuple(tuple(1.0 if i == c else 0.0 for i in range(S)) for c in range(S)), (0.0,) * P


def _largest_stable_dt(rate: complex, scheme: ModuleType) -> float:
    """The largest dt with |R(dt rate)| <= 1, infinite for a mode that does not decay."""
    if rate.real >= 0.0:
        return float("inf")  # it grows by itself: no step size is to blame
    if rate.imag == 0.0:
        return scheme.REAL_STABILITY_INTERVAL / -rate.real
    low, high = 0.0, 2.0 * scheme.REAL_STABILITY_INTERVAL / -rate.real
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if abs(scheme.amplification(middle * rate)) <= 1.0 else (low, middle)
    return low
