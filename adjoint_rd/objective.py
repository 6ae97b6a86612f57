"""Objective: a vector x for optimisers -> parameters -> a run -> a loss, and the derivatives back.

``J(x) = loss(run(y0, p(x))) + penalty(p(x))`` with ``p = transform(x)``. Where a trial x is unstable or diverges, J
is continued so that line searches back off; see `Objective`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from . import losses, transforms
from .arrays import as_array, as_real_array
from .checks import free_and_fixed
from .errors import DivergenceError, InputError, StabilityError, check_choice, check_count, did_you_mean, shown
from .simulation import Simulation

BOX_MARGIN = 0.95  # the stable box ends at this fraction of the diffusivity where pure diffusion becomes unstable
SHRINK_TRIALS = 12  # halvings of the way back to a good point
MOST_COLUMNS = 1000
LEAST_WEIGHT = 1e-12  # of the added quadratic, for objectives that are zero at a perfect fit


@dataclass(frozen=True)
class Trial:
    """An abnormal trial: the x that was asked for, the x that was used instead, and why."""

    x: np.ndarray
    used: np.ndarray
    reason: str


@dataclass(frozen=True)
class _Anchor:
    """A point that stands for x: P(x) = used, with dP/dx = `slope` (diagonal), and the added weight * |x - used|^2 /
    2."""

    used: np.ndarray
    slope: np.ndarray
    weight: float


class Objective:
    """The loss of a run as a function of a vector, with exact derivatives.

    Parameters
    ----------
    sim : Simulation
    y0 : array_like (S, *shape)
        The initial state; if "initial" is free, only its shape matters until `pack`.
    loss : loss
        See `adjoint_rd.losses`.
    steps : int
    free : sequence of str
        The parameters to vary, in the order of x; "initial" stands for the initial state.
    fixed : dict
        {name: float or array}: the other parameters. A free parameter given here too is a field of that shape if it is
        an array.
    transform : str, None, tuple or dict
        One for all parameters or {name: one}: None, "log", "softplus", "sigmoid" or ("sigmoid", scale); see
        `adjoint_rd.transforms`. The initial state is never transformed unless named in the dict.
    window : int, optional
        As in `Simulation.gradient`. The value is still that of all steps; what is then exact is `freeze`.
    penalty : optional
        See `adjoint_rd.penalties`.
    on_unstable : {"continue", "raise"}
        What a trial that is unstable (dt above the `certain` limit) or diverges gives. "raise": the error. "continue":
        a finite value, larger than that of the last good point, with a consistent gradient. Outside the box of stable
        diffusivities (see `bounds`) it is the value at the nearest point of the box plus a quadratic in the distance;
        if the run diverges all the same, at a point on the way back to the last good x. Each such trial is noted in
        `log`.
    checkpoints : "auto", "all" or int
        As in `Simulation.gradient`.

    Attributes
    ----------
    log : list of Trial
        The abnormal trials so far.
    """

    def __init__(
        self,
        sim: Simulation,
        y0: Any,
        loss: Any,
        *,
        steps: int,
        free: Sequence[str],
        fixed: Mapping[str, Any] | None = None,
        transform: Any = "log",
        window: int | None = None,
        penalty: Any = None,
        on_unstable: str = "continue",
        checkpoints: Any = "auto",
    ):
        if not isinstance(sim, Simulation):
            raise InputError(f"sim={sim!r} must be an adjoint_rd.Simulation.")
        self.sim = sim
        self.y0 = sim.check_state(y0)
        self.steps = check_count("steps", steps)
        self.loss = loss
        self.window = window
        sim._window_start(self.steps, window)
        losses.by_step(loss, self.steps)
        if penalty is not None and not all(callable(getattr(penalty, name, None)) for name in ("value", "gradient")):
            raise InputError(
                f"penalty={shown(penalty)} has no value(params) and gradient(params), see penalties.Gaussian."
            )
        self.penalty = penalty
        self.on_unstable = check_choice("on_unstable", on_unstable, ("continue", "raise"))
        self.checkpoints = checkpoints
        self.free, self.fixed, self._shapes = self._check_free(free, fixed)
        self.transforms = self._check_transforms(transform)
        self.log: list[Trial] = []
        self._good: tuple[np.ndarray, float] | None = None
        self._weight: float | None = None
        self._memo: dict[str, tuple[bytes, Any]] = {}
        self.blocks: dict[str, slice] = {}  # where each free parameter is in x
        start = 0
        for name in self.free:
            size = int(np.prod(self._shapes[name], dtype=int))
            self.blocks[name] = slice(start, start + size)
            start += size
        self.size = start
        self._box = np.array(self.bounds, dtype=float).T  # None becomes NaN: open

    def runs(self, x: Any) -> list[tuple[Simulation, np.ndarray, dict[str, Any], int]]:
        """The runs that J(x) takes, as (sim, y0, params, steps), for guards to watch."""
        values = self.unpack(x)
        y0 = values.pop("initial", self.y0)
        return [(self.sim, y0, values, self.steps)]

    def describe(self) -> dict[str, Any]:
        """What the objective is of, in JSON's types: a checkpoint of another one is refused."""
        sim = self.sim
        return {
            "model": sim.model.name,
            "grid": str(sim.grid),
            "dt": sim.dt,
            "scheme": sim.scheme_name,
            "dtype": sim.dtype.name,
            "steps": self.steps,
            "window": self.window,
            "free": list(self.free),
            "transform": [repr(self.transforms[name]) for name in self.free],
        }

    # Parameters <-> vector

    def _check_free(self, free: Any, fixed: Any) -> tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]:
        more = {"initial": "the initial state is y0, and free may name it"}
        free, fixed = free_and_fixed(self.sim.model, free, fixed, more)
        known = {name: self.sim._check_param(name, value, "fixed") for name, value in fixed.items()}
        shapes: dict[str, Any] = {name: np.shape(known.get(name, 0.0)) for name in free if name != "initial"}
        if "initial" in free:
            shapes["initial"] = self.sim.state_shape
        return free, {name: value for name, value in known.items() if name not in free}, shapes

    def _check_transforms(self, transform: Any) -> dict[str, Any]:
        if isinstance(transform, Mapping):
            for name in transform:
                if name not in self.free:
                    raise InputError(f"transform names {name!r}, which is not free.{did_you_mean(name, self.free)}")
            return {name: transforms.get(transform.get(name), f"transform[{name!r}]") for name in self.free}
        one = transforms.get(transform)
        return {name: transforms.get(None) if name == "initial" else one for name in self.free}

    def pack(self, **values: Any) -> np.ndarray:
        """Return the vector x of the given values of the free parameters (``initial`` defaults to y0)."""
        for name in values:
            if name not in self.free:
                raise InputError(
                    f"pack got {name!r}, which is not free; free is {', '.join(self.free)}."
                    f"{did_you_mean(name, self.free)}"
                )
        x = np.empty(self.size)
        for name in self.free:
            if name not in values and name != "initial":
                raise InputError(f"pack lacks {name!r}; free is {', '.join(self.free)}.")
            value = as_array(name, values.get(name, self.y0))
            if value.dtype.kind not in "iuf":
                raise InputError(f"pack got {name}={values.get(name)!r}; it must be real numbers.")
            value = value.astype(np.float64)
            if value.ndim and value.shape != self._shapes[name]:
                raise InputError(
                    f"pack got {name!r} of shape {value.shape}; it is free with shape {self._shapes[name]}."
                )
            transform = self.transforms[name]
            if not np.all(np.isfinite(value)) or not transform.accepts(value):
                raise InputError(
                    f"pack got {name}={values.get(name)!r}; it must be {transform.requirement} for its transform."
                )
            x[self.blocks[name]] = np.ravel(np.broadcast_to(transform.inverse(value), self._shapes[name]))
        return x

    def unpack(self, x: Any) -> dict[str, Any]:
        """Return all parameters at x as {name: float or array}, and "initial" if it is free."""
        values = dict(self.fixed)
        values.update(self._transformed(self._check_x(x)))
        order = [*self.sim.model.names, *(["initial"] if "initial" in self.free else [])]
        return {name: values[name] for name in order}

    def direction(self, x: np.ndarray, v: np.ndarray) -> dict[str, Any]:
        """The direction in parameter space, {name: array}, that the direction v in x amounts to at x."""
        return {
            name: (self.transforms[name].slope(x[where]) * v[where]).reshape(self._shapes[name])
            for name, where in self.blocks.items()
        }

    def _transformed(self, x: np.ndarray) -> dict[str, Any]:
        values = {}
        for name, where in self.blocks.items():
            with np.errstate(over="ignore"):
                value = self.transforms[name].forward(x[where])
            if not np.isfinite(value).all():
                raise DivergenceError(f"x is too large: {name} overflows at {np.max(np.abs(x[where])):g}.")
            shape = self._shapes[name]
            values[name] = value.reshape(shape) if shape else float(value[0])
        return values

    def _check_x(self, x: Any, argument: str = "x") -> np.ndarray:
        x = np.array(as_real_array(argument, x), dtype=np.float64)
        if x.shape != (self.size,):
            raise InputError(f"{argument} has shape {x.shape}; this objective takes ({self.size},), see pack().")
        if not np.all(np.isfinite(x)):
            first = int(np.argmin(np.isfinite(x)))
            raise InputError(f"{argument} has values that are not finite, the first at index {first}.")
        return x

    @property
    def bounds(self) -> list[tuple[float | None, float | None]]:
        """(low, high) for each item of x: the box where diffusion alone is stable (and >= 0), open otherwise."""
        box: list[tuple[float | None, float | None]] = [(None, None)] * self.size
        most = BOX_MARGIN * self.sim.scheme.REAL_STABILITY_INTERVAL
        most /= self.sim.dt * self.sim.grid.largest_wavenumber_squared
        for name in self.sim.model.diffusivities:
            if name in self.free:
                transform = self.transforms[name]
                high = float(transform.inverse(most)) if transform.accepts(most) else None
                low = 0.0 if transform.accepts(-1.0) else None
                box[self.blocks[name].start] = (low, high)
        return box

    # Values and derivatives

    def __call__(self, x: Any) -> float:
        """J(x)."""
        return self.value(x)

    def value(self, x: Any) -> float:
        """J(x)."""
        return self.value_and_grad(x)[0]

    def grad(self, x: Any) -> np.ndarray:
        """dJ/dx (n,)."""
        return self.value_and_grad(x)[1]

    def value_and_grad(self, x: Any) -> tuple[float, np.ndarray]:
        """(J(x), dJ/dx); the last result is kept, so that asking for each separately costs one run."""
        x = self._check_x(x)
        (value, gradient), anchor = self._at(x, "gradient", self._evaluate)
        if anchor is None:
            return value, gradient.copy()
        distance = x - anchor.used
        with np.errstate(over="ignore", invalid="ignore"):
            value += 0.5 * anchor.weight * float(distance @ distance)
            gradient = anchor.slope * gradient + anchor.weight * (1.0 - anchor.slope) * distance
        _check_continued(value, gradient)
        return value, gradient

    def _evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        values = self._transformed(x)
        y0 = values.pop("initial", self.y0)
        params = {**self.fixed, **values}
        found = self.sim.gradient(
            y0, params, self.loss, steps=self.steps, window=self.window, checkpoints=self.checkpoints
        )
        value, by_name = found.value, {**found.params, "initial": found.initial}
        if self.penalty is not None:
            value += float(self.penalty.value(params))
            for name, part in self.penalty.gradient(params).items():
                by_name[name] = by_name[name] + part
        return value, self._chain(x, by_name)

    def _chain(self, x: np.ndarray, by_name: Mapping[str, Any]) -> np.ndarray:
        gradient = np.empty(self.size)
        for name, where in self.blocks.items():
            value = by_name[name]
            gradient[where] = self.transforms[name].slope(x[where]) * (np.ravel(value) if self._shapes[name] else value)
        return gradient

    def hessp(self, x: Any, v: Any) -> np.ndarray:
        """The Hessian of J at x times v (n,). With a window: that of `freeze(x)`."""
        x = self._check_x(x)
        v = self._check_x(v, "v")
        (_, gradient), anchor = self._at(x, "gradient", self._evaluate)
        if anchor is None:
            product = self._second(x, v, gradient)
            _check_continued(0.0, product)
            return product
        inner = anchor.slope * self._second(anchor.used, anchor.slope * v, gradient)
        product = inner + anchor.weight * (1.0 - anchor.slope) ** 2 * v
        _check_continued(0.0, product)
        return product

    def _second(self, x: np.ndarray, v: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        values = self._transformed(x)
        direction = self.direction(x, v)
        y0, dy0 = values.pop("initial", self.y0), direction.pop("initial", None)
        params = {**self.fixed, **values}
        found = self.sim.hessian_product(
            y0, params, self.loss, steps=self.steps, direction=direction, initial=dy0, window=self.window
        )
        by_name = {**found.params, "initial": found.initial}
        if self.penalty is not None:
            for name, part in self.penalty.hessian_product(params, direction).items():
                by_name[name] = by_name[name] + part
        product = self._chain(x, by_name)
        for name, where in self.blocks.items():
            transform = self.transforms[name]
            slope = transform.slope(x[where])
            by_p = np.divide(gradient[where], slope, out=np.zeros_like(x[where]), where=slope != 0.0)  # dJ/dp
            product[where] += transform.curvature(x[where]) * v[where] * by_p
        return product

    def misfit(self, x: Any) -> np.ndarray:
        """The vector m with J = |m|^2 / 2, for `scipy.optimize.least_squares`."""
        x = self._check_x(x)
        m, anchor = self._at(x, "misfit", self._misfit)
        if anchor is None:
            return m.copy()
        return self._stretch(x, m, anchor)[0] * m

    def misfit_jacobian(self, x: Any) -> np.ndarray:
        """dm/dx, one tangent run for each column; no trajectory is stored."""
        x = self._check_x(x)
        if self.size > MOST_COLUMNS:
            raise InputError(
                f"misfit_jacobian needs one run for each of the {self.size} items of x; use grad and hessp."
            )
        m, anchor = self._at(x, "misfit", self._misfit)
        if anchor is None:
            return self._misfit_columns(x)
        columns = self._misfit_columns(anchor.used) * anchor.slope
        stretch, slope = self._stretch(x, m, anchor, m @ columns)
        return stretch * columns + np.outer(m, slope)

    def _stretch(self, x: np.ndarray, m: np.ndarray, anchor: _Anchor, gradient: Any = 0.0) -> tuple[float, Any]:
        """The factor s with |s m|^2 / 2 = J, where J has the added quadratic, and ds/dx."""
        value = 0.5 * float(m @ m)
        if value == 0.0:  # no multiple of a zero misfit has the quadratic's value
            return 1.0, np.zeros(self.size)
        distance = x - anchor.used
        with np.errstate(over="ignore", invalid="ignore"):
            added = 0.5 * anchor.weight * float(distance @ distance)
            added_slope = anchor.weight * (1.0 - anchor.slope) * distance
            s = np.sqrt(1.0 + added / value)
            slope = 0.5 / s * (added_slope / value - added / value**2 * gradient)
        _check_continued(float(s), slope)
        return float(s), slope

    def _misfit(self, x: np.ndarray) -> np.ndarray:
        values = self._transformed(x)
        y0 = values.pop("initial", self.y0)
        params = {**self.fixed, **values}
        observed = self._least_squares_losses()
        parts, state, before = [], y0, 0
        for step, loss in observed.items():
            state = self.sim.run(state, params, steps=step - before).final
            before = step
            parts.append(loss.misfit(state))
        if self.penalty is not None:
            parts.append(self.penalty.misfit(params))
        return np.concatenate(parts)

    def _misfit_columns(self, x: np.ndarray) -> np.ndarray:
        values = self._transformed(x)
        y0 = values.pop("initial", self.y0)
        params = {**self.fixed, **values}
        observed = self._least_squares_losses()
        columns = []
        for i in range(self.size):
            v = np.zeros(self.size)
            v[i] = 1.0
            direction = self.direction(x, v)
            dy0 = direction.pop("initial", None)
            found = self.sim.tangents_at(y0, params, list(observed), direction=direction, initial=dy0)
            column = [
                loss.misfit_tangent(at.final, at.tangent) for loss, at in zip(observed.values(), found, strict=True)
            ]
            if self.penalty is not None:
                column.append(self.penalty.misfit_tangent(params, direction))
            columns.append(np.concatenate(column))
        return np.stack(columns, axis=1)

    def _least_squares_losses(self) -> dict[int, Any]:
        if self.window is not None:
            raise InputError("misfit is of the whole run; use window=None, or freeze(x) for the window alone.")
        observed = losses.by_step(self.loss, self.steps)
        for step, loss in observed.items():
            if not callable(getattr(loss, "misfit", None)):
                raise InputError(f"the loss at step {step} has no misfit(y); least squares needs losses such as L2.")
        if self.penalty is not None and not callable(getattr(self.penalty, "misfit", None)):
            raise InputError("the penalty has no misfit(params); least squares needs one such as penalties.Gaussian.")
        return observed

    def freeze(self, x: Any) -> "Objective":
        """The ordinary objective of the window: it starts at the state `window` steps before the end, computed at x.

        Returns
        -------
        Objective
            With ``steps=window`` and ``window=None``. Observations before the window are left out. If "initial" is
            free, it is the window's first state there.
        """
        if self.window is None:
            return self
        start = self.steps - self.window
        values = self.unpack(x)
        y0 = values.pop("initial", self.y0)
        first = self.sim.run(y0, values, steps=start).final
        observed = {step - start: loss for step, loss in losses.by_step(self.loss, self.steps).items() if step >= start}
        if not observed:
            raise InputError(f"no observation lies in the last window={self.window} of {self.steps} steps.")
        return self._like(first, losses.Trajectory(observed), self.window)

    def frozen_at(self, x: Any) -> tuple["Objective", np.ndarray]:
        """``freeze(x)``, and what x is there: a free "initial" becomes the window's first state."""
        x, frozen = self._check_x(x), self.freeze(x)
        if frozen is self or "initial" not in self.free:
            return frozen, x
        values = self.unpack(x)
        return frozen, frozen.pack(**{name: values[name] for name in self.free if name != "initial"})

    def _like(self, y0: np.ndarray, loss: Any, steps: int) -> "Objective":
        shaped = {name: np.zeros(shape) for name, shape in self._shapes.items() if shape and name != "initial"}
        return Objective(
            self.sim,
            y0,
            loss,
            steps=steps,
            free=self.free,
            fixed={**self.fixed, **shaped},
            transform=dict(self.transforms),
            penalty=self.penalty,
            on_unstable=self.on_unstable,
            checkpoints=self.checkpoints,
        )

    @staticmethod
    def sum(objectives: Sequence["Objective"]) -> "SumObjective":
        """The sum of objectives that share their free parameters, for several observations."""
        return SumObjective(objectives)

    # Abnormal trials

    def _at(self, x: np.ndarray, what: str, function: Callable[[np.ndarray], Any]) -> tuple[Any, _Anchor | None]:
        """`function` at x, or at the anchor that stands for x; with the last result kept."""
        key = x.tobytes()
        last = self._memo.get(what)  # read once: another thread may replace it
        if last is not None and last[0] == key:
            return last[1]
        found = self._find(x, function)
        self._memo[what] = (key, found)
        return found

    def _find(self, x: np.ndarray, function: Callable[[np.ndarray], Any]) -> tuple[Any, _Anchor | None]:
        if self.on_unstable == "raise":
            return self._finite(function, x), None
        inside = np.fmin(np.fmax(x, self._box[0]), self._box[1])
        in_box = bool(np.all(inside == x))
        try:
            result = self._finite(function, inside)
        except (StabilityError, DivergenceError) as error:
            return self._back_off(x, inside, function, error)
        value = _value_of(result)
        if in_box:
            self._good = (x.copy(), value)
            self._weight = self._weight or 10.0 * max(abs(value), LEAST_WEIGHT)
            return result, None
        self.log.append(Trial(x.copy(), inside, "a diffusivity is outside the stable box, see bounds"))
        weight = self._weight or 10.0 * max(abs(value), LEAST_WEIGHT)
        return result, _Anchor(inside, (inside == x).astype(float), weight)

    @staticmethod
    def _finite(function: Callable[[np.ndarray], Any], x: np.ndarray) -> Any:
        """`function` at x; a state that is finite but so large that the loss is not counts as divergence."""
        with np.errstate(over="ignore", invalid="ignore"):
            result = function(x)
            parts = result if isinstance(result, tuple) else (_value_of(result), result)
            finite = all(isfinite(part) if type(part) is float else np.isfinite(part).all() for part in parts)
        if not finite:
            raise DivergenceError("the loss or its gradient overflows: the state is finite, but much too large.")
        return result

    def _back_off(
        self, x: np.ndarray, inside: np.ndarray, function: Callable[[np.ndarray], Any], error: Exception
    ) -> tuple[Any, _Anchor]:
        if self._good is None:
            raise error  # the user's own start: nothing to go back to
        good, good_value = self._good
        fraction = 1.0
        for _ in range(SHRINK_TRIALS):
            fraction *= 0.5
            used = good + fraction * (inside - good)
            try:
                result = self._finite(function, used)
            except (StabilityError, DivergenceError):
                continue
            if _value_of(result) >= good_value:
                break
            # Lower than the last good point: a line search would take x for progress. That point itself stands for x.
            fraction, used, result = 0.0, good, function(good)
            break
        else:
            fraction, used, result = 0.0, good, function(good)
        self.log.append(Trial(x.copy(), used, str(error)))
        slope = np.where(inside == x, fraction, 0.0)
        return result, _Anchor(used, slope, self._weight or 1.0)


def _check_continued(value: float, derivative: np.ndarray) -> None:
    """Raise a `DivergenceError` if J or its derivative overflows beyond the region of normal trials."""
    if not (isfinite(value) and np.isfinite(derivative).all()):
        raise DivergenceError("J or its derivative overflows: x is much too far from where runs are normal.")


def _value_of(result: Any) -> float:
    return result[0] if isinstance(result, tuple) else 0.5 * float(result @ result)


class SumObjective:
    """The sum of objectives over the same x; made by `Objective.sum`."""

    def __init__(self, objectives: Sequence[Objective]):
        self.objectives = tuple(objectives)
        if not self.objectives:
            raise InputError("Objective.sum needs at least one objective.")
        first = self.objectives[0]
        for n, each in enumerate(self.objectives):
            if "initial" in each.free:
                raise InputError(f"objective {n} has 'initial' free; a sum shares parameters, not initial states.")
            if each.free != first.free or each.transforms != first.transforms or each.size != first.size:
                raise InputError(f"objective {n} has other free parameters or transforms than the first: {each.free}.")
        self.free, self.size, self.transforms = first.free, first.size, first.transforms
        self.pack, self.blocks = first.pack, first.blocks

    @property
    def bounds(self) -> list[tuple[float | None, float | None]]:
        """The intersection of the objectives' bounds."""
        stacked = np.array([each.bounds for each in self.objectives], dtype=float)
        low, high = np.fmax.reduce(stacked[..., 0]), np.fmin.reduce(stacked[..., 1])
        return [
            (None if np.isnan(a) else float(a), None if np.isnan(b) else float(b))
            for a, b in zip(low, high, strict=True)
        ]

    @property
    def log(self) -> list[Trial]:
        """The abnormal trials of all."""
        return [trial for each in self.objectives for trial in each.log]

    def runs(self, x: Any) -> list[tuple[Simulation, np.ndarray, dict[str, Any], int]]:
        """As `Objective.runs`, of all."""
        return [run for each in self.objectives for run in each.runs(x)]

    def describe(self) -> dict[str, Any]:
        """As `Objective.describe`, of all."""
        return {f"objective {n}": each.describe() for n, each in enumerate(self.objectives)}

    def unpack(self, x: Any) -> dict[str, Any]:
        """As `Objective.unpack` of the first objective."""
        return self.objectives[0].unpack(x)

    def __call__(self, x: Any) -> float:
        """J(x)."""
        return self.value(x)

    def value(self, x: Any) -> float:
        """The sum of the values."""
        return self.value_and_grad(x)[0]

    def grad(self, x: Any) -> np.ndarray:
        """The sum of the gradients."""
        return self.value_and_grad(x)[1]

    def value_and_grad(self, x: Any) -> tuple[float, np.ndarray]:
        """The sums of the values and of the gradients."""
        pairs = [each.value_and_grad(x) for each in self.objectives]
        return sum(pair[0] for pair in pairs), np.sum([pair[1] for pair in pairs], axis=0)

    def hessp(self, x: Any, v: Any) -> np.ndarray:
        """The sum of the Hessian products."""
        return np.sum([each.hessp(x, v) for each in self.objectives], axis=0)

    def misfit(self, x: Any) -> np.ndarray:
        """The misfits, one after the other."""
        return np.concatenate([each.misfit(x) for each in self.objectives])

    def misfit_jacobian(self, x: Any) -> np.ndarray:
        """The Jacobians, one below the other."""
        return np.concatenate([each.misfit_jacobian(x) for each in self.objectives])

    def freeze(self, x: Any) -> "SumObjective":
        """The sum of the frozen objectives."""
        return SumObjective([each.freeze(x) for each in self.objectives])

    def frozen_at(self, x: Any) -> tuple["SumObjective", np.ndarray]:
        """As `Objective.frozen_at`; a sum has no free initial state."""
        return self.freeze(x), np.array(x, dtype=np.float64)


def standard_errors(obj: Any, x: Any) -> dict[str, Any]:
    """Standard errors of the free parameters at a minimum x, from the inverse Hessian.

    For a loss that is minus the log-likelihood (L2 with `sigma` the noise), ``cov(x) = H^-1``; the errors are taken
    from x to the parameters' units by the slope of the transform.

    Parameters
    ----------
    obj : Objective or SumObjective
    x : array_like (n,)
        n at most 1000: the Hessian is built column by column.

    Returns
    -------
    dict
        {name: float or array}; NaN where the Hessian is not positive definite, that is where the data do not
        determine the parameter or x is no minimum.
    """
    if not isinstance(obj, (Objective, SumObjective)):
        raise InputError(f"obj={obj!r} must be an adjoint_rd.Objective, or a sum of them.")
    x = np.array(as_real_array("x", x), dtype=np.float64)
    if obj.size > MOST_COLUMNS:
        raise InputError(f"standard_errors builds a {obj.size} x {obj.size} Hessian; at most {MOST_COLUMNS} unknowns.")
    frozen, x = obj.frozen_at(x)
    hessian = np.stack([frozen.hessp(x, v) for v in np.eye(obj.size)], axis=1)
    hessian = 0.5 * (hessian + hessian.T)
    eigenvalues, vectors = np.linalg.eigh(hessian)
    good = eigenvalues > obj.size * np.finfo(float).eps * max(abs(eigenvalues).max(), np.finfo(float).tiny)
    variance = np.sum(vectors[:, good] ** 2 / eigenvalues[good], axis=1)
    # A direction that the data do not determine spoils every parameter that it moves.
    variance[np.any(np.abs(vectors[:, ~good]) > 1e-6, axis=1)] = np.nan
    one = getattr(obj, "objectives", (obj,))[0]
    result = {}
    for name, where in one.blocks.items():
        error = np.abs(one.transforms[name].slope(x[where])) * np.sqrt(variance[where])
        result[name] = error.reshape(one._shapes[name]) if one._shapes[name] else float(error[0])
    return result
