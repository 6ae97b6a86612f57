"""Simulation: runs of a model on a grid, and exact gradients, tangents and Hessian products through them."""

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from . import batch, checkpoint, divergence, initial, losses, models, schemes, stability, sweeps
from .checks import check_finite, positive, state_dtype, unmasked
from .errors import (
    DivergenceError,
    InputError,
    StabilityError,
    StabilityWarning,
    as_real,
    check_choice,
    check_count,
    shown,
)
from .execution import Executor, available_threads
from .grid import Grid
from .runs import Gradient, Run, SteadyRun, Tangent

Progress = Callable[[int], None]


class Simulation:
    """A model on a grid with a time step: run it, and differentiate through the run.

    Parameters
    ----------
    model : str or Model
        The name of a built-in model ("gray_scott", "schnakenberg", "allen_cahn") or your own `adjoint_rd.Model`.
    grid : Grid
    dt : float
        Time step, in the user's unit of time.
    scheme : {"euler", "rk4"}
    dtype : {"float64", "float32"}
        Of the states. Losses and parameter gradients are summed in float64 either way.
    backend : {"cpu", "cuda", "auto"}
        "cuda": an NVIDIA card, with ``pip install 'adjoint-rd[cuda]'``; states stay on it, and a y0 that is on it
        already (any array with ``__cuda_array_interface__`` or DLPack) is used in place and answered by arrays on it.
        It is compiled and simulated, not yet run on a card: check it on yours with ``python validation/gpu_checks.py``.
        "auto": the card if one is usable, else the CPU.
    stability : {None, "error", "warn", "off"}
        What happens when dt exceeds a limit of `adjoint_rd.stability`. None: `StabilityError` above `certain`, one
        `StabilityWarning` above `safe`. "error": an error above `safe` too. "warn": warnings only. "off": nothing.
    threads : int, optional
        Threads to use, by default as many as help. Results do not depend on it, to the last bit.

    Raises
    ------
    InputError
        If an argument is out of range.
    BackendError
        If backend="cuda" and a package, the driver or a card is missing.
    """

    def __init__(
        self,
        model: Any,
        grid: Grid,
        *,
        dt: float,
        scheme: str = "euler",
        dtype: Any = "float64",
        backend: str = "cpu",
        stability: str | None = None,
        threads: int | None = None,
    ):
        self.model = models.get(model)
        self.model.try_functions()
        if not isinstance(grid, Grid):
            raise InputError(f"grid={grid!r} must be an adjoint_rd.Grid, such as adjoint_rd.Grid((128, 128)).")
        self.grid = grid
        self.dt = positive("dt", dt, "the time step")
        self.scheme = schemes.get(scheme)
        self.scheme_name = scheme
        self.dtype = state_dtype(dtype)
        self._largest = float(np.finfo(self.dtype).max)
        self.backend = _backend(backend)
        self.stability = None if stability is None else check_choice("stability", stability, ("error", "warn", "off"))
        if threads is not None and check_count("threads", threads, 1) > 4 * available_threads():
            raise InputError(f"threads={threads} is far more than the {available_threads()} processors here.")
        if grid.wall is not None and len(grid.wall) != len(self.model.species):
            raise InputError(
                f"grid.wall={grid.wall} has {len(grid.wall)} values; {self.model.name} has the "
                f"{len(self.model.species)} species {', '.join(self.model.species)}."
            )
        self.wall = self._wall_values()
        self.executor = self._executor(self.scheme_name, threads)
        self._warned = False
        self._batch_executor: Any = None
        self._workers: list[Simulation] = []  # one for each thread of a batch, made when needed

    def __repr__(self) -> str:
        return (
            f"<Simulation of {self.model.name} on {self.grid}, dt {self.dt:g}, {self.scheme_name}, {self.dtype.name}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # What goes to a spawned process: kernels, buffers and locks are made anew there.
        model = self.model.name if models.MODELS.get(self.model.name) is self.model else self.model
        options: dict[str, Any] = dict(
            dt=self.dt,
            scheme=self.scheme_name,
            dtype=self.dtype.name,
            backend=self.backend,
            stability=self.stability,
            threads=self.executor.threads,
        )
        return partial(type(self), model, self.grid, **options), ()

    @property
    def state_shape(self) -> tuple[int, ...]:
        """(S, *shape)."""
        return (len(self.model.species), *self.grid.shape)

    @property
    def _state_bytes(self) -> int:
        return self.executor.state_bytes

    # What users give

    def initial_state(
        self, kind: str = "square", *, rng: Any = None, params: Mapping[str, Any] | None = None, **options: Any
    ) -> np.ndarray:
        """Return an initial state of a kind that `adjoint_rd.initial` documents.

        Parameters
        ----------
        kind : str
        rng : int or numpy Generator, optional
            The seed of the noise.
        params : dict, optional
            Needed by models whose rest state depends on the parameters.
        **options
            Of the kind.

        Returns
        -------
        ndarray (S, *shape), of the simulation's dtype
        """
        given = {} if params is None else params
        self.model.check_names(
            {**dict.fromkeys(self.model.names), **given} if isinstance(given, Mapping) else given, "params"
        )
        given = {name: self._check_param(name, value, "params") for name, value in given.items()}
        try:
            rest, seed = self.model.rest_state(given), self.model.seed_state(given)
        except KeyError as error:
            raise InputError(
                f"the rest state of {self.model.name} depends on {error}; give params= to initial_state."
            ) from None
        # In float64, with the noise and a copy.
        checkpoint.check_room(4 * 8 * self.grid.size * len(rest), f"an initial state on {self.grid}")
        options.setdefault("clip", self.model.clip)
        return initial.make(kind, self.grid.shape, rest, seed, rng, **options).astype(self.dtype)

    def check_params(self, params: Mapping[str, Any], argument: str = "params") -> dict[str, Any]:
        """Return the parameters as floats and float64 arrays, or raise an `InputError` that says what is wrong."""
        self.model.check_names(params, argument)
        return {name: self._check_param(name, params[name], argument) for name in self.model.names}

    def _check_param(self, name: str, value: Any, argument: str) -> Any:
        plain = type(value) is float
        field = value if plain else unmasked(f"{argument}[{name!r}]", value)
        if plain or field.ndim == 0:
            try:
                number = value if plain else as_real(value)
            except (TypeError, OverflowError):
                raise InputError(f"{argument}[{name!r}]={value!r} must be a real number.") from None
            if not abs(number) <= self._largest:
                raise InputError(f"{argument}[{name!r}]={value!r} must be finite, in {self.dtype}.")
            if number < 0 and name in self.model.diffusivities:
                raise InputError(f"{argument}[{name!r}]={number:g} is a diffusivity; it must be >= 0.")
            return number
        if name in self.model.diffusivities:
            raise InputError(
                f"{argument}[{name!r}] is a field of shape {field.shape}; diffusivities are scalars, because a "
                "field needs the flux form div(D grad y), which is not available yet."
            )
        if field.dtype.kind not in "iuf":
            raise InputError(f"{argument}[{name!r}] has dtype {field.dtype}; it must be real numbers.")
        if field.shape != self.grid.shape:
            raise InputError(
                f"{argument}[{name!r}] has shape {field.shape}; a field must have the grid's shape {self.grid.shape}."
            )
        check_finite(f"{argument}[{name!r}]", field, self._largest)
        return np.array(field, dtype=np.float64)

    def check_state(self, state: Any, argument: str = "y0") -> np.ndarray:
        """Return `state` as an array of the simulation's shape and dtype, or raise an `InputError`."""
        if self.backend == "cuda" and not isinstance(state, np.ndarray):
            with self.executor.lock:
                on_card = self.executor.adopt(argument, state)
            if on_card is not None:
                return on_card
        array = unmasked(argument, state)
        if array.dtype.kind not in "iuf":
            raise InputError(f"{argument} has dtype {array.dtype}; it must be real numbers.")
        if array.shape != self.state_shape:
            raise InputError(
                f"{argument} has shape {array.shape}; {self.model.name} on this grid needs {self.state_shape}: "
                f"the species {', '.join(self.model.species)} first, then the grid."
            )
        check_finite(argument, array, self._largest)
        return np.ascontiguousarray(array, dtype=self.dtype)

    def limits(self, params: Mapping[str, Any]) -> stability.Limits:
        """The limits on dt for these parameters, see `adjoint_rd.stability`."""
        return stability.limits(self.model, self.grid, self.check_params(params), self.scheme)

    def check_stability(self, params: Mapping[str, Any]) -> None:
        """Raise a `StabilityError`, or warn, if dt exceeds a limit; `params` as from `check_params`."""
        if self.stability == "off" or self.dt <= stability.safe_limit(self.model, self.grid, params, self.scheme)[0]:
            return
        found = stability.limits(self.model, self.grid, params, self.scheme)
        if self.dt > found.certain:
            message = self._limit_message("certain", found.certain, found.certain_reason, params)
            if self.stability != "warn":
                raise StabilityError(message)
        elif found.safe == found.safe:
            message = self._limit_message("safe", found.safe, found.safe_reason, params)
            if self.stability == "error":
                raise StabilityError(message)
        else:
            return
        if not self._warned:
            self._warned = True
            warnings.warn(message, StabilityWarning, stacklevel=_level_of_caller())

    def _limit_message(self, name: str, limit: float, reason: str, params: Mapping[str, Any]) -> str:
        h2 = min(self.grid.spacing) ** 2
        fractions = ", ".join(f"{D} dt/h^2 = {params[D] * self.dt / h2:.3g}" for D in self.model.diffusivities)
        outlook = "every run grows without bound" if name == "certain" else "blow-up is possible"
        other = "" if self.scheme_name == "rk4" else " A higher-order scheme='rk4' allows 1.39 times as much."
        other += self.model.percent_hint(params)
        return (
            f"dt={self.dt:g} exceeds {limit:.4g}, the '{name}' limit of {self.scheme_name} in {self.grid.ndim}-D, "
            f"where {outlook}: {reason}; {fractions}. Use dt <= {limit:.4g} or a coarser spacing.{other}"
        )

    # Runs

    def run(
        self,
        y0: Any,
        params: Mapping[str, Any],
        *,
        steps: int,
        save_every: int | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Take `steps` steps from `y0`.

        Parameters
        ----------
        y0 : array_like (S, *shape)
            Or (B, S, *shape), a batch of B members; arrays in the result then have B as their first axis.
        params : dict
            {name: float}; kinetic parameters may be arrays of the grid's shape. Or a list of B dicts.
        steps : int
            0 gives a copy of `y0`.
        save_every : int, optional
            Save every so many steps, y0 and the last state included; by default only these two.
        progress : callable, optional
            Called now and then with the number of steps taken since the last call.

        Returns
        -------
        Run

        Raises
        ------
        InputError, StabilityError
        DivergenceError
            If the state stops being finite; it carries the step and the last finite state.
        """
        members = batch.members(y0, params, len(self.state_shape))
        together = self._together(members)
        if together is not None:
            marks = _marks(check_count("steps", steps), save_every)
            states, final = together.run(marks, progress)
            return Run(final, states, np.array(marks), together.params, self.dt, self.grid.spacing, self.model.name)
        if members is not None:
            runs = self._in_batch(
                [
                    lambda sim, report, y=y, p=p: sim.run(y, p, steps=steps, save_every=save_every, progress=report)
                    for y, p in members
                ],
                progress,
            )
            return replace(
                runs[0],
                final=np.stack([each.final for each in runs]),
                states=np.stack([each.states for each in runs]),
                params=[each.params for each in runs],
            )
        y0 = self.check_state(y0)
        params = self.check_params(params)
        marks = _marks(check_count("steps", steps), save_every)
        self.check_stability(params)
        checkpoint.check_room(
            len(marks) * self._state_bytes,
            f"save_every={save_every} keeps {len(marks)} states and",
            "Save fewer, or run in pieces and save each.",
            None if isinstance(y0, np.ndarray) else self.executor.available_bytes(),
        )
        saved = self.executor.saved(len(marks), y0)
        with self.executor.lock:
            plan, fielded = self.plan(params)
            for n, finite in self.executor.fill_run(saved, marks, plan, fielded, progress):
                if not finite:
                    divergence.diverged(self, saved[n - 1], params, marks[n - 1], marks[n])
        return Run(saved[-1], saved, np.array(marks), params, self.dt, self.grid.spacing, self.model.name)

    def run_to_steady(
        self,
        y0: Any,
        params: Mapping[str, Any],
        *,
        tol: Any = 1e-8,
        max_steps: Any = 400_000,
        progress: Progress | None = None,
    ) -> SteadyRun:
        """Take steps until the state hardly changes: max |y(n+1) - y(n)| / dt <= tol, looked at every 100 steps.

        Parameters
        ----------
        y0, params, progress
            As in `run`, batches included: each member stops when it is steady itself.
        tol : float
            In the unit of the state over the unit of time. For a batch, one or a sequence of B.
        max_steps : int
            Stop after so many steps in any case; `converged` then says False. For a batch, one or a sequence of B.

        Returns
        -------
        SteadyRun
        """
        members = batch.members(y0, params, len(self.state_shape))
        if members is not None:
            tols = batch.each("tol", tol, len(members))
            limits = batch.each("max_steps", max_steps, len(members))
            found = self._in_batch(
                [
                    lambda sim, report, y=y, p=p, one=one, most=most: sim.run_to_steady(
                        y, p, tol=one, max_steps=most, progress=report
                    )
                    for (y, p), one, most in zip(members, tols, limits, strict=True)
                ],
                progress,
            )
            return SteadyRun(
                *(np.stack([getattr(run, name) for run in found]) for name in SteadyRun.__dataclass_fields__)
            )
        y0 = self.check_state(y0)
        params = self.check_params(params)
        tol = positive("tol", tol, "the rate at which a state counts as steady")
        max_steps = check_count("max_steps", max_steps, 1)
        self.check_stability(params)
        taken, rate = 0, float("inf")
        with self.executor.lock:
            plan, fielded = self.plan(params)
            state = self.executor.pair("state", y0)
            before, start = self.executor.buffer("steady_before"), self.executor.buffer("since")
            while taken < max_steps and rate > tol:
                stretch = min(100, max_steps - taken)
                self.executor.copy(start, state.current)
                self.executor.advance(state, plan, fielded, stretch - 1, progress)
                self.executor.copy(before, state.current)
                self.executor.advance(state, plan, fielded, 1, progress)
                rate = self.executor.largest_change(state.current, before) / self.dt
                if not self.executor.finite(state.current):
                    divergence.diverged(self, start, params, taken, taken + stretch)
                taken += stretch
            final = self.executor.result(state.current, y0)
        return SteadyRun(final, taken, rate, rate <= tol)

    def rate(self, y: Any, params: Mapping[str, Any]) -> np.ndarray:
        """Return the residual ``y_t = D Lap y + R(y; p)`` at y, (S, *shape), whatever the scheme."""
        y = self.check_state(y)
        params = self.check_params(params)
        # One Euler step, in which the residual is what is added to y.
        one_step = self._executor("euler", 1)
        fielded = one_step.fielded(params)
        state = one_step.pair("state", y)
        one_step.advance(state, one_step.plan(params, fielded, None, self.wall), fielded, 1)
        return (one_step.look(state.current) - (y if isinstance(y, np.ndarray) else y.copy_to_host())) / self.dt

    # Derivatives

    def gradient(
        self,
        y0: Any,
        params: Mapping[str, Any],
        loss: Any,
        *,
        steps: int,
        window: int | None = None,
        checkpoints: Any = "auto",
        progress: Progress | None = None,
    ) -> Gradient:
        """Return a loss of the run and its exact derivatives, by the transpose of the steps that ran.

        Parameters
        ----------
        y0, params, steps, progress
            As in `run`, batches included.
        loss : loss
            Of the final state, or a `losses.Trajectory` of states at several steps. For a batch, one or a list of B.
        window : int, optional
            Go back through the last `window` steps only, with the state before them held fixed: this is not the
            gradient of the whole value. None: all steps.
        checkpoints : "auto", "all", "disk" or int
            See `adjoint_rd.checkpoint.choose`. All give the same numbers, to the last bit.

        Returns
        -------
        Gradient

        Raises
        ------
        InputError, StabilityError, DivergenceError, CheckpointError
        """
        members = batch.members(y0, params, len(self.state_shape))
        if members is not None:
            each_loss = loss if isinstance(loss, list) else [loss] * len(members)
            if len(each_loss) != len(members):
                raise InputError(f"loss is a list of {len(each_loss)}, the batch has {len(members)} members.")
            together = self._together(members)
            if together is not None:
                start = self._window_start(check_count("steps", steps), window)
                values, gradients, initial = together.gradient(each_loss, steps, start, checkpoints, progress)
                return Gradient(
                    values, {name: np.stack([each[name] for each in gradients]) for name in self.model.names}, initial
                )
            options: dict[str, Any] = dict(steps=steps, window=window, checkpoints=checkpoints)
            found = self._in_batch(
                [
                    lambda sim, report, y=y, p=p, one=one: sim.gradient(y, p, one, progress=report, **options)
                    for (y, p), one in zip(members, each_loss, strict=True)
                ],
                progress,
            )
            return Gradient(
                np.array([each.value for each in found]),
                {name: np.stack([each.params[name] for each in found]) for name in self.model.names},
                np.stack([each.initial for each in found]),
            )
        y0 = self.check_state(y0)
        params = self.check_params(params)
        steps = check_count("steps", steps)
        observed = losses.by_step(loss, steps)
        start = self._window_start(steps, window)
        schedule = self._schedule(checkpoints, steps - start)
        on_disk = isinstance(checkpoints, str) and checkpoints == "disk"
        self.check_stability(params)
        with self.executor.lock:
            plan, fielded = self.plan(params)
            value, first = self._before_window(y0, params, plan, fielded, observed, start, progress)
            sweep = sweeps.GradientSweep(
                self.executor,
                plan,
                fielded,
                schedule,
                self.executor.disk_slots() if on_disk else self.executor.memory_slots("slots", schedule.slots),
                first,
                {step - start: each for step, each in observed.items() if step >= start},
                *self._hooks(params, start),
                progress,
            )
            sweeps.follow(schedule, sweep.observed, sweep)
            # Summed from the first observation to the last, in whatever order the schedule met them.
            value = sum(sweep.values[::-1], start=value)
            by_name = sweep.sums.gradient()
            divergence.check_derivatives(self.dtype, value, by_name, self.executor.finite(sweep.adjoint.current))
            return Gradient(value, by_name, self.executor.result(sweep.adjoint.current, y0))

    def predicted_bytes(self, steps: int, *, window: int | None = None, checkpoints: Any = "auto") -> int:
        """Memory (of the card with backend="cuda") that `gradient` will take at its peak, beyond the library's own.

        The states that the checkpoint schedule keeps, and nine more: two each for the working state and the adjoint,
        y0, the state at the window's start, the seed, the loss's own copy and the result. Further terms (sums, fields)
        are small.
        """
        steps = check_count("steps", steps)
        schedule = self._schedule(checkpoints, steps - self._window_start(steps, window))
        kept = schedule.buffer_states if checkpoints == "disk" else schedule.states
        return (kept + 9) * self._state_bytes

    def tangent(
        self,
        y0: Any,
        params: Mapping[str, Any],
        *,
        steps: int,
        direction: Mapping[str, Any] | None = None,
        initial: Any = None,
        progress: Progress | None = None,
    ) -> Tangent:
        """Return the final state and its derivative along a direction: the Jacobian-vector product of the run.

        Parameters
        ----------
        y0, params, steps, progress
            As in `run`.
        direction : dict, optional
            {name: float, or array for a field}: the direction in parameter space; what is missing is zero.
        initial : array_like (S, *shape), optional
            The direction in the initial state, by default zero.

        Returns
        -------
        Tangent
        """
        return next(
            iter(self.tangents_at(y0, params, [steps], direction=direction, initial=initial, progress=progress))
        )

    def tangents_at(
        self,
        y0: Any,
        params: Mapping[str, Any],
        marks: list[int],
        *,
        direction: Mapping[str, Any] | None = None,
        initial: Any = None,
        progress: Progress | None = None,
    ) -> list[Tangent]:
        """Like `tangent`, at each of the ascending step numbers `marks`."""
        y0 = self.check_state(y0)
        params = self.check_params(params)
        marks = [check_count("steps", mark) for mark in marks]
        if any(after < before for before, after in pairwise(marks)):
            raise InputError(f"marks={marks} must be ascending.")
        self.check_stability(params)
        direction = self._check_direction(params, direction)
        t0 = np.zeros(self.state_shape, self.dtype) if initial is None else self.check_state(initial, "initial")
        found = []
        with self.executor.lock:
            plan, fielded = self.plan(params, direction)
            state = self.executor.pair("state", y0)
            tangent = self.executor.pair("tangent", t0)
            before = 0
            since = self.executor.buffer("since")
            for mark in marks:
                self.executor.copy(since, state.current)
                self.executor.advance_tangent(state, tangent, plan, fielded, mark - before, progress)
                if not self.executor.finite(state.current):
                    divergence.diverged(self, since, params, before, mark)
                divergence.check_derivatives(self.dtype, 0.0, {}, self.executor.finite(tangent.current))
                found.append(
                    Tangent(self.executor.result(state.current, y0), self.executor.result(tangent.current, y0))
                )
                before = mark
        return found

    def hessian_product(
        self,
        y0: Any,
        params: Mapping[str, Any],
        loss: Any,
        *,
        steps: int,
        direction: Mapping[str, Any] | None = None,
        initial: Any = None,
        window: int | None = None,
        progress: Progress | None = None,
    ) -> Gradient:
        """Return the directional derivative of `gradient` along a direction: the Hessian-vector product.

        Parameters
        ----------
        y0, params, loss, steps, window, progress
            As in `gradient`. With a window, the Hessian is that of the run from the window's first state.
        direction, initial
            As in `tangent`; with a window, `initial` is a direction in the window's first state.

        Returns
        -------
        Gradient
            `value` is the derivative of the loss along the direction, `params` and `initial` are those of the gradient.

        Raises
        ------
        InputError
            Also if the model lacks second derivatives or the loss a `seed_tangent`.
        """
        y0 = self.check_state(y0)
        params = self.check_params(params)
        steps = check_count("steps", steps)
        observed = losses.by_step(loss, steps)
        start = self._window_start(steps, window)
        direction = self._check_direction(params, direction)
        if not self.model.has_second_order:
            raise InputError(
                f"{self.model.name} has no second derivatives; give the Model reaction_jt_t and reaction_pt_t."
            )
        for step, each in observed.items():
            if not callable(getattr(each, "seed_tangent", None)):
                raise InputError(f"the loss at step {step} has no seed_tangent(y, t); Hessian products need it.")
        t0 = np.zeros(self.state_shape, self.dtype) if initial is None else self.check_state(initial, "initial")
        self.check_stability(params)
        with self.executor.lock:
            plan, fielded = self.plan(params, direction)
            _, first = self._before_window(y0, params, plan, fielded, {}, start, progress)
            schedule = self._schedule("auto", steps - start, 2)
            sweep = sweeps.HessianSweep(
                self.executor,
                plan,
                fielded,
                schedule,
                self.executor.memory_slots("slots", schedule.slots),
                first,
                {step - start: each for step, each in observed.items() if step >= start},
                *self._hooks(params, start),
                progress,
                tangent_slots=self.executor.memory_slots("tangent_slots", schedule.slots),
                tangent=t0,
            )
            sweeps.follow(schedule, sweep.observed, sweep)
            value, by_name = sum(sweep.values[::-1]), sweep.sums_tangent.gradient()
            finite = self.executor.finite(sweep.adjoint_tangent.current)
            divergence.check_derivatives(self.dtype, value, by_name, finite)
            return Gradient(
                value,
                by_name,
                self.executor.result(sweep.adjoint_tangent.current, y0),
            )

    # Helpers

    def _schedule(self, checkpoints: Any, steps: int, arrays: int = 1) -> checkpoint.Schedule:
        """What `checkpoints` asks for, for runs that keep so many arrays a step."""
        executor = self.executor
        nbytes = arrays * self._state_bytes
        return checkpoint.choose(checkpoints, steps, nbytes, executor.available_bytes(), executor.store_all_bytes)

    def _together(self, members: list[tuple[Any, Any]] | None) -> Any:
        """The members as a `cuda_batch.Batch`, None if they are to be run one by one."""
        if self.backend != "cuda" or members is None or len(members) == 1:
            return None
        from .cuda_batch import Batch

        found = Batch(self, members)
        return found if found.together else None

    def batch_executor(self, count: int) -> Any:
        """What runs `count` members in one launch; kept until another number is asked for."""
        from .cuda_execution import CudaExecutor

        if self._batch_executor is None or self._batch_executor.members != count:
            self._batch_executor = None  # free its buffers before new ones are made
            self._batch_executor = CudaExecutor(self.model, self.grid, self.scheme, self.dtype, self.dt, count)
        return self._batch_executor

    def _in_batch(self, jobs: list[Any], progress: Progress | None) -> list[Any]:
        def worker(number: int) -> Simulation:
            while len(self._workers) <= number:
                self._workers.append(self.single())
            return self._workers[number]

        return batch.run_members(jobs, worker, self.executor.threads or available_threads(), progress)

    def single(self) -> "Simulation":
        """The same simulation with buffers of its own and one thread."""
        return Simulation(
            self.model,
            self.grid,
            dt=self.dt,
            scheme=self.scheme_name,
            dtype=self.dtype,
            backend=self.backend,
            stability=self.stability,
            threads=1,
        )

    def _executor(self, scheme: str, threads: int | None) -> Executor:
        """What runs the kernels of a scheme on this backend."""
        of = schemes.get(scheme)
        if self.backend == "cuda":
            from .cuda_execution import CudaExecutor

            return CudaExecutor(self.model, self.grid, of, self.dtype, self.dt)
        return Executor(self.model, self.grid, of, self.dtype, self.dt, threads)

    def plan(self, params: dict[str, Any], direction: Mapping[str, Any] | None = None) -> tuple[Any, tuple[int, ...]]:
        """What the executor needs of the parameters, and which of them are fields."""
        fielded = self.executor.fielded(params)
        return self.executor.plan(params, fielded, direction, self.wall), fielded

    def _wall_values(self) -> tuple[float, ...] | None:
        if "dirichlet" not in self.grid.boundary or self.grid.wall is not None:
            return self.grid.wall
        try:
            return self.model.rest_state({})
        except KeyError as error:
            # Walls that move with a parameter would add a term to its gradient.
            raise InputError(
                f"the rest state of {self.model.name} depends on {error}, so it cannot be the default value of "
                "Dirichlet walls; give Grid(..., wall=...) one number per species."
            ) from None

    def _check_direction(self, params: dict[str, Any], direction: Mapping[str, Any] | None) -> dict[str, Any]:
        if direction is not None and not isinstance(direction, Mapping):
            raise InputError(f"direction={shown(direction)} must be a dict {{name: number, or array for a field}}.")
        checked = {}
        for name, value in (direction or {}).items():
            self.model.check_names({**params, name: value}, "direction")
            array = unmasked(f"direction[{name!r}]", value)
            if array.dtype.kind not in "iuf":
                raise InputError(f"direction[{name!r}] has dtype {array.dtype}; it must be real numbers.")
            if array.ndim and array.shape != np.shape(params[name]):
                raise InputError(
                    f"direction[{name!r}] has shape {array.shape}, the parameter has {np.shape(params[name])}."
                )
            check_finite(f"direction[{name!r}]", array, self._largest)
            checked[name] = array.astype(np.float64)
        return checked

    @staticmethod
    def _window_start(steps: int, window: int | None) -> int:
        if window is None:
            return 0
        if check_count("window", window, 1) > steps:
            raise InputError(f"window={window} is longer than the run of steps={steps}; use window=None for all steps.")
        return steps - window

    def _before_window(
        self,
        y0: np.ndarray,
        params: dict[str, Any],
        plan: Any,
        fielded: tuple[int, ...],
        observed: dict[int, Any],
        start: int,
        progress: Progress | None,
    ) -> tuple[float, np.ndarray]:
        """The losses observed before step `start`, and the state there."""
        if start == 0:
            return 0.0, y0
        value, before = 0.0, 0
        state, since = self.executor.pair("state", y0), self.executor.buffer("since")
        for mark in [*sorted(step for step in observed if step < start), start]:
            self.executor.copy(since, state.current)
            self.executor.advance(state, plan, fielded, mark - before, progress)
            if not self.executor.finite(state.current):
                divergence.diverged(self, since, params, before, mark)
            if mark < start:
                value += divergence.loss_value(observed[mark], mark, self.executor.look(state.current))
            before = mark
        return value, self.executor.result(state.current, y0)

    def _hooks(self, params: dict[str, Any], offset: int) -> tuple[Any, Any]:
        """What a sweep whose step 0 is step `offset` of the run does with losses, and with states to be checked."""

        def evaluate(loss: Any, step: int, y: np.ndarray) -> tuple[float, np.ndarray]:
            seed = np.asarray(loss.seed(y))
            if seed.shape != self.state_shape or seed.dtype.kind not in "iuf":
                raise InputError(
                    f"the loss at step {step + offset} returned a seed of shape {seed.shape} and dtype {seed.dtype}; "
                    f"it must be real numbers of shape {self.state_shape}."
                )
            value = divergence.loss_value(loss, step + offset, y)
            if not np.isfinite(seed).all():
                raise DivergenceError(
                    f"the loss at step {step + offset} returned a seed that is not finite at "
                    f"{divergence.place(self, seed)}, for a finite state.",
                    step=step + offset,
                    state=y.copy(),
                )
            return value, seed

        def check(state: np.ndarray, since: np.ndarray, first: int, last: int) -> None:
            if not self.executor.finite(state):
                divergence.diverged(self, since, params, first + offset, last + offset)

        return evaluate, check


def _marks(steps: int, save_every: int | None) -> list[int]:
    """The step numbers that a run saves."""
    every = steps if save_every is None else check_count("save_every", save_every, 1)
    return sorted({*range(0, steps + 1, every or 1), steps})


def _backend(asked: str) -> str:
    """The backend to use, "cpu" or "cuda"."""
    check_choice("backend", asked, ("cpu", "cuda", "auto"))
    if asked == "auto":
        from .cuda_device import is_usable

        return "cuda" if is_usable() else "cpu"
    return asked


def _level_of_caller() -> int:
    """The `stacklevel` at which a warning raised by the caller points at code outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        frame, level = frame.f_back, level + 1
    return level
