"""Validation: do the derivatives of your own set-up hold? Each function returns a frozen report.

    model               a model's hand-written derivatives, point by point, against complex steps of `reaction`
    dot_product         <a, J t> = <J^T a, t>: the transposed steps against the tangent steps
    taylor              J(x + h v) - J(x) - h g.v = O(h^2); with the Hessian product, O(h^3)
    finite_difference   central differences over a range of steps, per parameter
    complex_step        the model's own functions on complex NumPy arrays, through the same scheme

A report has `passed`, its numbers, and ``str(report)`` in words. With a window, all are about ``obj.freeze(x)``.

Sources: W. Squire, G. Trapp, SIAM Rev. 40 (1998) 110 (complex step); P. E. Farrell et al., SIAM J. Sci. Comput. 35
(2013) C369, section 6 (Taylor remainders as a test of adjoints).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import losses, models
from .arrays import as_generator, as_real_array
from .errors import AdjointRDError, InputError, check_count, check_number, shown
from .grid import Grid
from .objective import Objective, SumObjective
from .simulation import Simulation


@dataclass(frozen=True)
class Row:
    """One line of a report: what was compared, the derivative claimed, the one found, and their relative error."""

    name: str
    claimed: float
    found: float
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return bool(self.error <= self.limit)

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "WRONG"
        error = f"{self.error:8.1e} <= {self.limit:7.0e}"
        return f"  {self.name:<28} {self.claimed: .12e} {self.found: .12e}  {error}  {verdict}"


@dataclass(frozen=True)
class Report:
    """Comparisons of one kind.

    Attributes
    ----------
    title : str
    rows : tuple of Row
    columns : (str, str)
        What `Row.claimed` and `Row.found` are.
    """

    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, str]

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    @property
    def worst(self) -> float:
        """The largest relative error."""
        return max(row.error for row in self.rows)

    def __str__(self) -> str:
        wrong = [row.name for row in self.rows if not row.passed]
        verdict = "passed" if not wrong else f"FAILED for {', '.join(wrong)}"
        head = f"  {'':<28} {self.columns[0]:>19} {self.columns[1]:>19}  relative error"
        return "\n".join([f"{self.title}: {verdict}", head, *map(str, self.rows)])


@dataclass(frozen=True)
class DifferenceReport(Report):
    """A `Report` with the errors at every step size.

    Attributes
    ----------
    step_sizes : tuple of float
    errors : dict
        {name: relative error at each step size}: the V-curve, truncation on one side and rounding on the other.
    """

    step_sizes: tuple[float, ...] = ()
    errors: Any = None

    def __str__(self) -> str:
        lines = [super().__str__(), "  relative error by step size:"]
        lines.append(f"  {'':<28} " + " ".join(f"{h:7.0e}" for h in self.step_sizes))
        for name, curve in self.errors.items():
            lines.append(f"  {name:<28} " + " ".join(f"{error:7.0e}" for error in curve))
        return "\n".join(lines)


@dataclass(frozen=True)
class TaylorReport:
    """Taylor remainders along a direction.

    Attributes
    ----------
    step_sizes, remainders : tuple of float
    orders : tuple of float
        Between successive step sizes, where the remainder is above rounding.
    expected : float
        2 with the gradient, 3 with the gradient and the Hessian product.
    tolerance : float
        How far each order may be from it.
    exact : bool
        The remainder is at rounding level for every step size (a quadratic, say): nothing is left to measure.
    """

    step_sizes: tuple[float, ...]
    remainders: tuple[float, ...]
    orders: tuple[float, ...]
    expected: float
    tolerance: float
    exact: bool

    @property
    def passed(self) -> bool:
        """Whether every order is as expected."""
        close = [abs(order - self.expected) <= self.tolerance for order in self.orders]
        return self.exact or (len(close) >= 2 and all(close))

    def __str__(self) -> str:
        what = "with the gradient" if self.expected == 2 else "with the gradient and the Hessian product"
        title = f"Taylor remainder {what}: {'passed' if self.passed else 'FAILED'}"
        if self.exact:
            return f"{title}\n  the remainder is at rounding level for every step size"
        orders = " ".join(f"{order:.3f}" for order in self.orders) or "none above rounding"
        table = [f"  h = {h:8.2e}   remainder {r:9.3e}" for h, r in zip(self.step_sizes, self.remainders, strict=True)]
        return "\n".join([f"{title}\n  orders {orders} (expected {self.expected:g} +- {self.tolerance:g})", *table])


def model(model: Any, *, params: Mapping[str, float] | None = None, points: int = 20, rng: Any = 0) -> Report:
    """Check a model's hand-written derivatives at random points: which function is wrong, and where.

    Parameters
    ----------
    model : str or Model
    params : dict, optional
        Typical values of the kinetic parameters; by default random ones between 0.1 and 1.
    points : int
        Random states, each species between 0.1 and 1 times the size of the rest state (at least 1).
    rng : int or numpy Generator

    Returns
    -------
    Report
        One row for each function, with the worst of its components. `reaction_j` is compared with complex steps of
        `reaction`, `reaction_jt` and `reaction_pt` with their transposes, and the second-order functions with complex
        steps of those two. In float32, a function that computes in float64 (a bare number in it) is a failure too.
    """
    model = models.get(model)
    points = check_count("points", points, 1)
    rng = as_generator(rng)
    S, P = len(model.species), len(model.parameters)
    p = tuple(
        np.full(points, float(params[name])) if params else rng.uniform(0.1, 1.0, points) for name in model.parameters
    )
    s = tuple(rng.uniform(0.1, 1.0, points) for _ in range(S))
    t, a = (tuple(rng.standard_normal(points) for _ in range(S)) for _ in range(2))
    dp = tuple(rng.standard_normal(points) for _ in range(P))
    h = 1e-30

    def along(function: Callable[..., Any], *last: Any) -> tuple[np.ndarray, ...]:
        moved = function(
            tuple(x + 1j * h * d for x, d in zip(s, t, strict=True)),
            tuple(x + 1j * h * d for x, d in zip(p, dp, strict=True)),
            *last,
        )
        return tuple(np.imag(np.broadcast_to(value, points)) / h for value in moved)

    def unit(n: int, i: int) -> tuple[np.ndarray, ...]:
        return tuple(np.full(points, float(i == j)) for j in range(n))

    zero_s, zero_p = (np.zeros(points),) * S, (np.zeros(points),) * P
    transposed_s = tuple(_dot(a, model.reaction_j(s, p, unit(S, c), zero_p)) for c in range(S))
    transposed_p = tuple(_dot(a, model.reaction_j(s, p, zero_s, unit(P, i))) for i in range(P))
    pairs = {
        "reaction_j": (model.reaction_j(s, p, t, dp), along(model.reaction), model.species),
        "reaction_jt": (model.reaction_jt(s, p, a), transposed_s, model.species),
        "reaction_pt": (model.reaction_pt(s, p, a), transposed_p, model.parameters),
    }
    if model.has_second_order:
        assert model.reaction_jt_t is not None and model.reaction_pt_t is not None
        pairs["reaction_jt_t"] = (model.reaction_jt_t(s, p, t, dp, a), along(model.reaction_jt, a), model.species)
        pairs["reaction_pt_t"] = (model.reaction_pt_t(s, p, t, dp, a), along(model.reaction_pt, a), model.parameters)
    rows = [_pointwise(name, claimed, found, names) for name, (claimed, found, names) in pairs.items()]
    rows += [Row(f"{name} in float32", 0.0, 0.0, float("inf"), 0.0) for name in _promoting(model)]
    return Report(f"derivatives of the model {model.name}", tuple(rows), ("by hand", "complex step"))


def _pointwise(name: str, claimed: Any, found: Any, names: tuple[str, ...]) -> Row:
    if len(claimed) != len(names):
        raise InputError(f"{name} returned {len(claimed)} values; it must return one for each of {', '.join(names)}.")
    worst = Row(name, 0.0, 0.0, 0.0, 1e-11)
    scale = max(float(np.max(np.abs(value))) for value in found) or 1.0
    for part, one, other in zip(names, claimed, found, strict=True):
        one = np.broadcast_to(one, np.shape(other))
        error = np.abs(one - other) / scale
        at = int(np.argmax(error))
        if not error[at] <= worst.error:
            worst = Row(f"{name}, {part}", float(one[at]), float(other[at]), float(error[at]), 1e-11)
    return worst if worst.claimed else Row(name, float(claimed[0].flat[0]), float(found[0].flat[0]), worst.error, 1e-11)


def _promoting(model: models.Model) -> list[str]:
    """The model's functions that return float64 for float32 arguments."""
    from numba import config, njit, types

    if config.DISABLE_JIT:
        return []  # nothing is compiled, so that nothing is known of it

    s = types.UniTuple(types.float32, len(model.species))
    p = types.UniTuple(types.float32, len(model.parameters))
    arguments = {
        "reaction": (s, p),
        "reaction_j": (s, p, s, p),
        "reaction_jt": (s, p, s),
        "reaction_pt": (s, p, s),
        "reaction_jt_t": (s, p, s, p, s),
        "reaction_pt_t": (s, p, s, p, s),
    }
    found = []
    for name, signature in arguments.items():
        function = getattr(model, name)
        if function is None:
            continue
        compiled = njit(function)
        compiled.compile(signature)
        returned = compiled.nopython_signatures[0].return_type
        if any(part != types.float32 for part in returned):
            found.append(name)
    return found


def dot_product(
    sim: Simulation,
    y0: Any,
    params: Mapping[str, Any],
    *,
    steps: int = 50,
    rng: Any = 0,
    tolerance: float | None = None,
) -> Report:
    """Compare <a, J t> with <J^T a, t> for random a and t: one row per parameter and one for the initial state.

    Parameters
    ----------
    sim : Simulation
    y0, params
        As in `Simulation.run`.
    steps : int
    rng : int or numpy Generator
    tolerance : float, optional
        On the difference relative to |J t| |a|; by default 1e-13 times `steps` in float64 and 1e-5 in float32.

    Returns
    -------
    Report
    """
    y0 = sim.check_state(y0)
    params = sim.check_params(params)
    steps = check_count("steps", steps, 1)
    rng = as_generator(rng)
    tolerance = _tolerance(tolerance, 1e-13 * steps if sim.dtype == np.float64 else 1e-5)
    a = rng.standard_normal(sim.state_shape)
    a = np.asarray(a, dtype=sim.dtype).astype(np.float64)
    transposed = sim.gradient(y0, params, losses.Linear(a), steps=steps)
    rows = []
    for name in (*sim.model.names, "initial"):
        if name == "initial":
            t = np.asarray(rng.standard_normal(sim.state_shape), dtype=sim.dtype)
            pushed = sim.tangent(y0, params, steps=steps, initial=t).tangent
            right = float(np.sum(transposed.initial.astype(np.float64) * t))
        else:
            size = np.abs(params[name]) if np.any(params[name]) else 1.0
            t = np.asarray(size * rng.standard_normal(np.shape(params[name])), dtype=sim.dtype)
            pushed = sim.tangent(y0, params, steps=steps, direction={name: t}).tangent
            right = float(np.sum(transposed.params[name] * t.astype(np.float64)))
        pushed = pushed.astype(np.float64)
        left = float(np.sum(a * pushed))
        size = float(np.linalg.norm(pushed) * np.linalg.norm(a)) or 1.0
        rows.append(Row(name, right, left, abs(left - right) / size, tolerance))
    return Report(f"dot product of adjoint and tangent over {steps} steps", tuple(rows), ("<J^T a, t>", "<a, J t>"))


def taylor(
    obj: Any,
    x: Any,
    *,
    hessian: bool = False,
    direction: Any = None,
    rng: Any = 0,
    largest_step: float = 1e-2,
    tolerance: float | None = None,
) -> TaylorReport:
    """Measure the order of the Taylor remainder of an objective.

    Parameters
    ----------
    obj : Objective, SumObjective or SteadyObjective
    x : array_like (n,)
    hessian : bool
        Include the Hessian product: order 3 instead of 2.
    direction : array_like (n,), optional
        By default random, of unit norm.
    rng : int or numpy Generator
    largest_step : float
        The first of twelve step sizes, each half of the one before. Those at which the objective cannot be computed
        count as an infinite remainder.
    tolerance : float, optional
        By default 0.05 for order 2 and 0.1 for order 3.

    Returns
    -------
    TaylorReport
        With the orders of the three smallest steps whose remainders are well above rounding.
    """
    obj, x = _frozen(obj, x)
    rng = as_generator(rng)
    v = rng.standard_normal(x.shape) if direction is None else np.array(as_real_array("direction", direction), float)
    v = v / np.linalg.norm(v)
    if hessian and not callable(getattr(obj, "hessp", None)):
        raise InputError(f"a {type(obj).__name__} has no Hessian products; use hessian=False.")
    value, gradient = obj.value_and_grad(x)
    slope = float(gradient @ v)
    curvature = float(v @ obj.hessp(x, v)) if hessian else 0.0
    step_sizes = largest_step * 0.5 ** np.arange(12)
    values = np.array([_value(obj, x + h * v) for h in step_sizes])
    remainders = np.abs(values - value - step_sizes * slope - 0.5 * step_sizes**2 * curvature)
    remainders[np.isnan(values)] = np.inf
    floor = 300.0 * _rounding(obj) * (abs(value) + np.nanmax(np.abs([value, *values])))
    if callable(getattr(obj, "value_error", None)):
        floor += 2.0 * obj.value_error(x)
    usable = np.flatnonzero(remainders > floor)
    last = int(usable[-1]) if len(usable) and np.all(remainders[: usable[-1] + 1] > floor) else len(usable) - 1
    orders = [float(np.log2(remainders[i] / remainders[i + 1])) for i in range(max(last - 3, 0), last)]
    expected = 3.0 if hessian else 2.0
    tolerance = _tolerance(tolerance, 0.1 if hessian else 0.05)
    return TaylorReport(
        tuple(map(float, step_sizes)),
        tuple(map(float, remainders)),
        tuple(orders),
        expected,
        tolerance,
        exact=bool(len(usable) == 0),
    )


def finite_difference(
    obj: Any, x: Any, *, step_sizes: Any = None, rng: Any = 0, tolerance: float | None = None
) -> DifferenceReport:
    """Compare the gradient with central differences over a range of step sizes; the best one counts.

    Parameters
    ----------
    obj : Objective, SumObjective or SteadyObjective
    x : array_like (n,)
    step_sizes : sequence of float, optional
        In units of x; by default 1e-1 to 1e-9. Those at which the objective cannot be computed count as NaN.
    rng : int or numpy Generator
        For fields and initial states, which are differenced along one random direction each.
    tolerance : float, optional
        On the relative error at the best step; by default 1e-6 in float64 and 2e-2 in float32.

    Returns
    -------
    DifferenceReport
    """
    obj, x = _frozen(obj, x)
    single = _rounding(obj) < 1e-10
    step_sizes = np.logspace(-1, -9, 17) if step_sizes is None else np.asarray(step_sizes, dtype=float)
    tolerance = _tolerance(tolerance, 1e-6 if single else 2e-2)
    gradient = obj.grad(x)
    rng = as_generator(rng)
    scale = 1e-6 * float(np.max(np.abs(gradient))) or 1.0
    rows, errors = [], {}
    for name, v in _directions(obj, rng):
        claimed = float(gradient @ v)
        found = np.array([(_value(obj, x + h * v) - _value(obj, x - h * v)) / (2 * h) for h in step_sizes])
        curve = np.abs(found - claimed) / max(abs(claimed), scale)
        best = int(np.argmin(np.where(np.isnan(curve), np.inf, curve)))
        rows.append(Row(name, claimed, float(found[best]), float(curve[best]), tolerance))
        errors[name] = tuple(map(float, curve))
    return DifferenceReport(
        "central differences, best step",
        tuple(rows),
        ("gradient", "difference"),
        tuple(map(float, step_sizes)),
        errors,
    )


def complex_step(obj: Any, x: Any, *, rng: Any = 0, tolerance: float | None = None) -> Report:
    """Compare the gradient with complex steps through the model's own functions on NumPy arrays.

    The run is repeated with ``p + i h dp`` and ``y0 + i h dy0``, h = 1e-30, in a plain NumPy form of the same grid
    and scheme: the imaginary part over h is the tangent of the state to the last bit, without a difference. The loss
    enters by its own `seed` (finite differences and Taylor remainders test that one).

    Parameters
    ----------
    obj : Objective or SumObjective
    x : array_like (n,)
    rng : int or numpy Generator
        For fields and initial states, which are moved along one random direction each.
    tolerance : float, optional
        On the relative error; by default 1e-12 in float64 and 1e-3 in float32.

    Returns
    -------
    Report
    """
    obj, x = _frozen(obj, x)
    if not isinstance(obj, (Objective, SumObjective)):
        raise InputError(f"complex_step repeats a run; a {type(obj).__name__} has no run. Use taylor.")
    tolerance = _tolerance(tolerance, 1e-12 if _rounding(obj) < 1e-10 else 1e-3)
    gradient = obj.grad(x)
    scale = 1e-6 * float(np.max(np.abs(gradient))) or 1.0
    rows = []
    for name, v in _directions(obj, as_generator(rng)):
        claimed = float(gradient @ v)
        found = sum(_complex_derivative(each, x, v) for each in _parts(obj))
        rows.append(Row(name, claimed, found, abs(claimed - found) / max(abs(claimed), scale), tolerance))
    return Report("complex step", tuple(rows), ("gradient", "complex step"))


def _frozen(obj: Any, x: Any) -> tuple[Any, np.ndarray]:
    if not callable(getattr(obj, "frozen_at", None)):
        raise InputError(f"obj={shown(obj)} must be an Objective, a sum of them or a SteadyObjective.")
    return obj.frozen_at(x)


def _value(obj: Any, x: np.ndarray) -> float:
    """J(x), NaN where the objective raises."""
    try:
        with np.errstate(over="ignore"):
            return obj.value(x)
    except (AdjointRDError, ArithmeticError):
        return float("nan")


def _complex_derivative(obj: Objective, x: np.ndarray, v: np.ndarray) -> float:
    h = 1e-30
    params, direction = obj.unpack(x), obj.direction(x, v)
    y0 = np.asarray(params.pop("initial", obj.y0), dtype=np.float64)
    y = y0 + 1j * h * direction.pop("initial", 0.0)
    moved = {name: value + 1j * h * direction.get(name, 0.0) for name, value in params.items()}
    observed = losses.by_step(obj.loss, obj.steps)
    total = 0.0
    for step in range(obj.steps + 1):
        if step in observed:
            total += float(np.sum(np.asarray(observed[step].seed(y.real), dtype=np.float64) * (y.imag / h)))
        if step < obj.steps:
            y = obj.sim.scheme.reference_step(lambda z: _rate(obj.sim, z, moved), y, obj.sim.dt)
    if obj.penalty is not None:
        for name, part in obj.penalty.gradient(params).items():
            total += float(np.sum(part * direction.get(name, 0.0)))
    return total


def _rate(sim: Simulation, y: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    kinetics = tuple(params[name] for name in sim.model.parameters)
    reaction = sim.model.reaction(tuple(y), kinetics)
    return np.stack(
        [
            params[name] * _laplacian(sim.grid, y[c], None if sim.wall is None else sim.wall[c]) + reaction[c]
            for c, name in enumerate(sim.model.diffusivities)
        ]
    )


def _laplacian(grid: Grid, y: np.ndarray, wall: float | None) -> np.ndarray:
    total = np.zeros_like(y)
    for axis, (h, kind) in enumerate(zip(grid.spacing, grid.boundary, strict=True)):
        before, after = np.roll(y, 1, axis), np.roll(y, -1, axis)
        if kind != "periodic":
            for neighbour, edge in ((before, 0), (after, -1)):
                at = tuple(edge if i == axis else slice(None) for i in range(y.ndim))
                neighbour[at] = y[at] if kind == "neumann" else 2.0 * wall - y[at]  # type: ignore[operator]
        total += (before - 2.0 * y + after) / h**2
    return total


def _directions(obj: Any, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """A unit vector for each scalar, and a random direction of unit norm for each field and the initial state."""
    found = []
    for name, where in obj.blocks.items():
        v = np.zeros(obj.size)
        size = where.stop - where.start
        v[where] = 1.0 if size == 1 else rng.standard_normal(size)
        label = name if size == 1 else f"{name} (random direction)"
        found.append((label, v / np.linalg.norm(v)))
    return found


def _tolerance(given: Any, usual: float) -> float:
    return usual if given is None else check_number("tolerance", given, above=0.0)


def _parts(obj: Any) -> tuple[Objective, ...]:
    return obj.objectives if isinstance(obj, SumObjective) else (obj,)


def _rounding(obj: Any) -> float:
    return float(max(np.finfo(each.sim.dtype).eps for each in _parts(obj)))


def _dot(one: Any, other: Any) -> Any:
    return sum(x * y for x, y in zip(one, other, strict=True))
