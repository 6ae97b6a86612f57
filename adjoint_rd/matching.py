"""Matching patterns from unknown initial states: a stochastic objective, and target patterns kept on disk.

    J_n(x) = mean over the members i of batch n of  loss_i(y_i),    y_i = window steps from w_i(p(x))

where w_i is a fresh initial state after a warm-up: time steps without gradient until it is steady, or for at most
`warmup` steps. The gradient is that of the window with w_i held fixed. It is not the gradient of J_n: for a window that
is short against the pattern's memory it need not even point down, see `adjoint_rd.guards.gradient_flow`.

Batches are drawn from the number of the iteration and the seed, so that `adjoint_rd.minimize` sees the same batch at a
trial as at the gradient, and a resumed run sees the same batches.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .errors import (
    CheckpointError,
    DivergenceError,
    InputError,
    StabilityError,
    attach_result,
    check_choice,
    check_count,
)
from .execution import available_threads
from .losses import check_loss
from .objective import Objective
from .simulation import Progress, Simulation

__all__ = ["PatternMatching", "steady_targets"]

FORMAT, VERSION = "adjoint_rd targets", 1  # of the files of targets
BATCH, EVALUATION, TARGET = 1, 2, 3  # streams of random numbers


class PatternMatching:
    """The mean loss between patterns that grow from random initial states and target patterns, batch by batch.

    Use it as ``rd.minimize(matching, x0, stochastic=True, judge=matching.judge)``.

    Parameters
    ----------
    sim : Simulation
    start : callable
        ``start(rng) -> y0``, a fresh initial state (S, *shape), such as ``lambda rng: sim.initial_state("square",
        rng=rng)``.
    targets : array_like (n, S, *shape)
        Patterns to match, such as those of `steady_targets`.
    make_loss : callable
        ``make_loss(patterns) -> loss`` for a list of target patterns, such as ``pattern_losses.LogSpectrum``.
    window : int
        Steps with gradient, after the warm-up.
    warmup : int
        Most steps of the warm-up; 0 for none: the window then begins at the fresh state, and the gradient is exact.
    tol : float
        A member is steady when max |y_t| is at most this, as in `Simulation.run_to_steady`.
    batch : int
        Initial states, and targets, drawn for each iteration.
    compare : {"batch", "each"}
        "batch": one loss, made from the targets of the batch. "each": a loss for each member, from its own target.
    evaluation : int
        Members of the fixed evaluation set of `judge`; its loss for "batch" is made from all targets.
    free, fixed, transform
        As in `Objective`.
    seed : int

    Attributes
    ----------
    iteration : int
        Whose batch the values are of.
    """

    def __init__(
        self,
        sim: Simulation,
        start: Callable[[np.random.Generator], np.ndarray],
        targets: Any,
        make_loss: Callable[[Sequence[np.ndarray]], Any],
        *,
        window: int = 200,
        warmup: int = 10_000,
        tol: float = 1e-6,
        batch: int = 4,
        compare: str = "batch",
        evaluation: int = 8,
        free: Sequence[str],
        fixed: Mapping[str, Any] | None = None,
        transform: Any = "log",
        seed: int = 0,
    ):
        _check_function("start", start, "start(rng) -> y0")
        _check_function("make_loss", make_loss, "make_loss(patterns) -> loss, such as pattern_losses.LogSpectrum")
        self.sim, self.start, self.make_loss = sim, start, make_loss
        if not isinstance(targets, (Sequence, np.ndarray)) or not len(targets):
            raise InputError("targets must be one pattern (S, *shape) or more, and is empty or no sequence.")
        self.targets = [sim.check_state(y, f"targets[{n}]") for n, y in enumerate(targets)]
        self.steps = check_count("window", window, 1)
        self.warmup, self.tol = check_count("warmup", warmup), tol
        self.batch = check_count("batch", batch, 1)
        self.compare = check_choice("compare", compare, ("batch", "each"))
        self.seed = check_count("seed", seed)
        if "initial" in free:
            raise InputError("free has 'initial'; the initial states are drawn here.")
        self._vector = Objective(
            sim,
            self._drawn_state(np.random.default_rng([self.seed, EVALUATION])),
            self._made(self.targets[:1]),
            steps=self.steps,
            free=free,
            fixed=fixed,
            transform=transform,
            on_unstable="raise",
        )
        self.free, self.size, self.blocks = self._vector.free, self._vector.size, self._vector.blocks
        self.transforms = self._vector.transforms
        count = check_count("evaluation", evaluation, 1)
        self._evaluation = self._draw(np.random.default_rng([self.seed, EVALUATION]), count, everything=True)
        self._last: tuple[bytes, float, np.ndarray] | None = None
        self.begin(0)

    # Batches

    def _drawn_state(self, rng: np.random.Generator) -> np.ndarray:
        return self.sim.check_state(self.start(rng), "start(rng)")

    def _made(self, patterns: Sequence[np.ndarray]) -> Any:
        loss = self.make_loss(list(patterns))
        check_loss(loss, "make_loss(patterns)")
        return loss

    def _draw(self, rng: np.random.Generator, count: int, everything: bool = False) -> tuple[np.ndarray, list[Any]]:
        """`count` initial states (count, S, *shape) and their losses."""
        states = np.stack([self._drawn_state(rng) for _ in range(count)])
        chosen = [self.targets[n] for n in rng.integers(len(self.targets), size=count)]
        if self.compare == "each":
            return states, [self._made([target]) for target in chosen]
        return states, [self._made(self.targets if everything else chosen)] * count

    def begin(self, iteration: int) -> None:
        """Draw the batch of an iteration, from its number and the seed."""
        self.iteration = check_count("iteration", iteration)
        self._members = self._draw(np.random.default_rng([self.seed, BATCH, self.iteration]), self.batch)
        self._last = None

    # Parameters

    def pack(self, **values: Any) -> np.ndarray:
        """As `Objective.pack`."""
        return self._vector.pack(**values)

    def unpack(self, x: Any) -> dict[str, Any]:
        """As `Objective.unpack`."""
        return self._vector.unpack(x)

    @property
    def bounds(self) -> list[tuple[float | None, float | None]]:
        """As `Objective.bounds`."""
        return self._vector.bounds

    # Values

    def warm(self, states: Any, params: Mapping[str, Any]) -> np.ndarray:
        """The states (B, S, *shape) after their warm-up; each stops when it is steady itself."""
        if not self.warmup:
            return np.asarray(states)
        return self.sim.run_to_steady(states, params, tol=self.tol, max_steps=self.warmup).final

    def value_and_grad(self, x: Any) -> tuple[float, np.ndarray]:
        """(J, the mean gradient of the windows) on the batch; the last result is kept.

        Raises
        ------
        StabilityError, DivergenceError
        """
        x = self._vector._check_x(x)
        if self._last is None or self._last[0] != x.tobytes():
            params = self.unpack(x)
            states, each_loss = self._members
            found = self.sim.gradient(self.warm(states, params), params, each_loss, steps=self.steps)
            by_name = {name: np.mean(found.params[name], axis=0) for name in self.free}
            self._last = (x.tobytes(), float(np.mean(found.value)), self._vector._chain(x, by_name))
        return self._last[1], self._last[2].copy()

    def __call__(self, x: Any) -> tuple[float, np.ndarray]:
        """As `value_and_grad`."""
        return self.value_and_grad(x)

    def judge(self, x: Any) -> float:
        """The mean loss on the evaluation set, which never changes; inf where a run is unstable or diverges."""
        params = self.unpack(x)
        states, each_loss = self._evaluation
        try:
            ends = self.sim.run(self.warm(states, params), params, steps=self.steps).final
        except (StabilityError, DivergenceError, InputError):
            return float("inf")
        found = float(np.mean([loss.value(y) for y, loss in zip(ends, each_loss, strict=True)]))
        return found if np.isfinite(found) else float("inf")

    def runs(self, x: Any) -> list[tuple[Simulation, np.ndarray, dict[str, Any], int]]:
        """The batch's runs as (sim, y0, params, steps), at their longest, for guards to watch."""
        params = self.unpack(x)
        return [(self.sim, y0, params, self.warmup + self.steps) for y0 in self._members[0]]


def steady_targets(
    sim: Simulation,
    params: Mapping[str, Any],
    start: Callable[[np.random.Generator], np.ndarray],
    count: int,
    *,
    tol: float = 1e-6,
    max_steps: int = 100_000,
    seed: int = 0,
    path: Any = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Patterns of known parameters from random initial states, run until steady, and kept in a file.

    Parameters
    ----------
    sim, params, tol, max_steps
        As in `Simulation.run_to_steady`.
    start : callable
        ``start(rng) -> y0``.
    count : int
    seed : int
        Pattern n is that of ``start(default_rng([seed, 3, n]))``, whatever `count` is.
    path : path, optional
        An archive of `adjoint_rd.files` (no pickle), written after every few patterns, and the one before it as
        ``.previous``. What it holds is not computed again; if `count` is larger, patterns are added.
    progress : callable, optional
        Called with the number of patterns found since the last call.

    Returns
    -------
    ndarray (count, S, *shape)

    Raises
    ------
    CheckpointError
        If the file is of other settings, or not readable.
    KeyboardInterrupt
        With the patterns found so far as the attribute `result`.
    """
    count = check_count("count", count, 1)
    _check_function("start", start, "start(rng) -> y0")
    first = sim.check_state(start(np.random.default_rng([seed, TARGET, 0])), "start(rng)")
    params = sim.check_params(params)
    identity = {
        "sim": repr(sim),
        "params": {name: np.asarray(value).tolist() for name, value in params.items()},
        "start": [float(np.sum(each, dtype=np.float64)) for each in first],
        "tol": tol,
        "max_steps": max_steps,
        "seed": seed,
    }
    file = None if path is None else Path(path)
    found = _read(file, identity, sim) if file is not None and files.any_generation(file) else []
    owned = bool(found)
    while len(found) < count:
        numbers = range(len(found), min(count, len(found) + available_threads()))
        states = np.stack([sim.check_state(start(np.random.default_rng([seed, TARGET, n]))) for n in numbers])
        try:
            found.extend(sim.run_to_steady(states, params, tol=tol, max_steps=max_steps).final)
        except BaseException as error:
            attach_result(error, np.array(found))
            raise
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            arrays = {"targets": np.array(found)}
            files.write_archive(file, FORMAT, VERSION, {"of": identity}, arrays, keep_previous=owned)
            owned = True
        if progress is not None:
            progress(len(numbers))
    return np.array(found[:count])


def _check_function(argument: str, value: Any, wanted: str) -> None:
    if not callable(value):
        raise InputError(f"{argument}={value!r} must be a function {wanted}.")


def _read(file: Path, identity: Mapping[str, Any], sim: Simulation) -> list[np.ndarray]:
    try:
        header, arrays = files.read_latest(file, FORMAT, VERSION, stacklevel=4)
        said, targets = header["of"], arrays["targets"]
    except (InputError, KeyError) as error:
        raise CheckpointError(f"{file} holds no targets: {error} Delete it to compute them anew.") from error
    different = [name for name in identity if said.get(name) != json.loads(json.dumps(identity[name]))]
    if different or targets.shape[1:] != sim.state_shape:
        what = ", ".join(different) or f"shape {targets.shape[1:]}"
        raise CheckpointError(f"{file} holds targets of another set-up ({what}). Delete it or give another path.")
    return list(targets)
