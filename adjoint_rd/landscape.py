"""Landscapes: losses over slices through parameter space, averaged over initial states.

    found = rd.landscape.scan(sim, starts, {"L2": loss}, params, {"F": np.linspace(0.02, 0.06, 30)}, steps=2000)
    rd.landscape_plots.show(found)

Where uniform states bifurcate: `boundaries`, see `adjoint_rd.bifurcations`.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from . import files
from . import losses as losses_module
from .arrays import as_real_array
from .bifurcations import Line, blue_state, boundaries, turing_excess
from .errors import CheckpointError, DivergenceError, InputError, StabilityError, attach_result, check_count, shown
from .paths import as_path
from .simulation import Simulation

FILE_FORMAT, FILE_VERSION = "adjoint_rd.landscape", 2

__all__ = ["Landscape", "Line", "blue_state", "boundaries", "pairwise", "scan", "turing_excess"]

SAVE_SECONDS = 10.0


@dataclass(frozen=True)
class Landscape:
    """Losses on a grid of parameters.

    Attributes
    ----------
    axes : dict
        {name: ndarray}: the grid, in the order of the arrays' axes.
    params : dict
        The parameters that do not vary.
    values : dict
        {label: ndarray}: the mean over the initial states; NaN where no run stayed finite.
    spread : dict
        {label: ndarray}: the standard deviation over the initial states.
    gradients : dict
        {label: ndarray (*grid, axes)}: mean dL/dp along the axes; empty if not asked for.
    unstable : ndarray of int
        How many of the initial states diverged, or had too large a time step.
    """

    axes: dict[str, np.ndarray]
    params: dict[str, float]
    values: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    unstable: np.ndarray

    def lowest(self, label: str) -> dict[str, float]:
        """The grid point with the lowest mean loss."""
        values = self.values[label]
        if np.isnan(values).all():
            raise InputError(f"no run of the landscape {label!r} stayed finite.")
        at = np.unravel_index(np.nanargmin(values), values.shape)
        return {name: float(axis[i]) for (name, axis), i in zip(self.axes.items(), at, strict=True)}


def scan(
    sim: Simulation,
    starts: Any,
    losses: Mapping[str, Any],
    params: Mapping[str, float],
    axes: Mapping[str, Any],
    *,
    steps: int,
    window: int | None = None,
    gradients: bool = True,
    path: Any = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Landscape:
    """Compute losses over one, two or more parameters.

    Parameters
    ----------
    sim : Simulation
    starts : ndarray (S, *shape) or sequence of these
        Initial states to average over.
    losses : dict
        {label: loss}; several cost one run without gradients. A list has one loss for each start.
    params : dict
        All parameters; those in `axes` may be left out.
    axes : dict
        {name: 1-D array}.
    steps, window
        As in `Simulation.gradient`: the values are of the final state, the gradients of the last `window` steps.
    gradients : bool
        Compute dL/dp along the axes too.
    path : path, optional
        An archive of `adjoint_rd.files` (no pickle) to keep what is done in, every ten seconds, the one before it as
        ``.previous``. If one of them is there, the scan continues from it. A loss is known by its values at the starts.
    workers : int
        Threads that take grid points from a common list.
    progress : callable, optional
        Called with 1 after each grid point, and first with the number of those that the file holds.

    Returns
    -------
    Landscape

    Raises
    ------
    InputError
    CheckpointError
        If the file is of another scan, or not readable.
    KeyboardInterrupt, or an error of a loss
        With what is done as the attribute `result`, a Landscape with NaN at the other points.
    """
    workers = check_count("workers", workers, 1)
    grid = _Scan(sim, starts, losses, params, axes, steps, window, gradients)
    file = None if path is None else _ScanFile(path, grid)
    try:
        grid.compute(workers, file, progress)
    except BaseException as error:
        attach_result(error, grid.result())
        raise
    return grid.result()


class _Scan:
    """A scan under way: what is asked for, and the table (*grid, starts, losses, 1 + axes) of what is done."""

    def __init__(
        self,
        sim: Simulation,
        starts: Any,
        losses: Any,
        params: Any,
        axes: Any,
        steps: Any,
        window: Any,
        gradients: bool,
    ):
        self.sim, self.gradients = sim, gradients
        one = isinstance(starts, np.ndarray) and starts.ndim == len(sim.state_shape)
        if not one and not isinstance(starts, (Sequence, np.ndarray)):
            raise InputError(f"starts={starts!r} must be an initial state (S, *shape), or several.")
        self.starts = [sim.check_state(y, "starts") for y in ([starts] if one else starts)]
        if not self.starts:
            raise InputError("starts is empty; give at least one initial state (S, *shape).")
        self.axes = _check_axes(axes)
        if not isinstance(params, Mapping):
            raise InputError(f"params={shown(params)} must be a dict of all parameters that are not in axes.")
        every = {**params, **{name: float(axis[0]) for name, axis in self.axes.items()}}
        checked = sim.check_params(every, "params and axes")
        fields = [name for name, value in checked.items() if isinstance(value, np.ndarray)]
        if fields:
            raise InputError(f"params[{fields[0]!r}] is a field; a landscape takes one number for each parameter.")
        self.params = {name: checked[name] for name in sim.model.names if name not in self.axes}
        self.losses = _check_losses(losses, len(self.starts))
        self.at_start = {
            label: [float(loss.value(y)) for loss, y in zip(each, self.starts, strict=True)]
            for label, each in self.losses.items()
        }
        self.steps, self.window = check_count("steps", steps, 1), window
        self.first = sim._window_start(self.steps, window)
        self.shape = tuple(axis.size for axis in self.axes.values())
        width = 1 + (len(self.axes) if gradients else 0)
        self.table = np.full((*self.shape, len(self.starts), len(self.losses), width), np.nan)
        self.done = np.zeros(self.shape, dtype=bool)
        self._lock, self._local = threading.Lock(), threading.local()

    def identity(self) -> dict[str, Any]:
        """What a file must agree with, in JSON's types; a loss is known by its values at the initial states."""
        sim = self.sim
        found = {
            "axes": {name: axis.tolist() for name, axis in self.axes.items()},
            "params": self.params,
            "losses": {label: [repr(value) for value in values] for label, values in self.at_start.items()},
            "starts": [float(np.sum(y, dtype=np.float64)) for y in self.starts],
            "steps": self.steps,
            "window": self.window,
            "gradients": self.gradients,
            "dt": sim.dt,
            "model": sim.model.name,
            "grid": str(sim.grid),
            "scheme": sim.scheme_name,
            "dtype": sim.dtype.name,
        }
        return json.loads(json.dumps(found))

    def compute(self, workers: int, file: "_ScanFile | None", progress: Callable[[int], None] | None) -> None:
        """Compute what is not done; write it to the file every ten seconds, and whatever ends it."""
        todo = [index for index in product(*map(range, self.shape)) if not self.done[index]]
        if progress is not None and self.done.any():
            progress(int(self.done.sum()))

        def one(index: tuple[int, ...]) -> None:
            found = self._point(self.sim if workers == 1 else self._own_simulation(), index)
            with self._lock:
                self.table[index], self.done[index] = found, True
                if file is not None:
                    file.write(at_least=SAVE_SECONDS)
                if progress is not None:
                    progress(1)

        try:
            if workers == 1:
                for index in todo:
                    one(index)
                return
            with ThreadPoolExecutor(workers) as pool:
                try:
                    for _ in pool.map(one, todo):
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        finally:
            if file is not None and todo:
                with self._lock:
                    file.write()

    def _own_simulation(self) -> Simulation:
        """The simulation of this thread: buffers are not shared."""
        found = getattr(self._local, "sim", None)
        if found is None:
            found = self._local.sim = self.sim.single()
        return found

    def _point(self, sim: Simulation, index: tuple[int, ...]) -> np.ndarray:
        """Values and slopes (starts, losses, 1 + axes) at a grid point; NaN for a run that does not stay finite."""
        point = {name: float(axis[i]) for (name, axis), i in zip(self.axes.items(), index, strict=True)}
        params = {**self.params, **point}
        found = np.full(self.table.shape[len(self.shape) :], np.nan)
        rest = self.steps - self.first
        for n, y0 in enumerate(self.starts):
            try:
                y = sim.run(y0, params, steps=self.first).final if self.first else y0
                end = None if self.gradients else sim.run(y, params, steps=rest).final
                for m, each in enumerate(self.losses.values()):
                    if end is not None:
                        found[n, m, 0] = each[n].value(end)
                    else:
                        g = sim.gradient(y, params, each[n], steps=rest)
                        found[n, m] = [g.value, *(g.params[name] for name in self.axes)]
            except (StabilityError, DivergenceError):
                found[n] = np.nan
        return found

    def result(self) -> Landscape:
        """Means over the initial states."""
        unstable = np.isnan(self.table[..., 0, 0]).sum(axis=-1) * self.done
        values, spread, slopes = {}, {}, {}
        for m, label in enumerate(self.losses):
            mine = np.ma.masked_invalid(self.table[..., m, :])
            values[label] = mine[..., 0].mean(axis=-1).filled(np.nan)
            spread[label] = mine[..., 0].std(axis=-1).filled(np.nan)
            if self.gradients:
                slopes[label] = mine[..., 1:].mean(axis=-2).filled(np.nan)
        return Landscape(self.axes, self.params, values, spread, slopes, unstable)


class _ScanFile:
    """The archive of a scan, and the generation before it."""

    def __init__(self, path: Any, scan: _Scan):
        self.path = as_path(path)
        self.scan, self.identity = scan, scan.identity()
        self._written = time.monotonic()
        if self.path.is_dir():
            raise InputError(f"path={str(path)!r} is a folder; give the name of a file.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._owned = files.any_generation(self.path)
        if self._owned:
            self._read()

    def write(self, at_least: float = 0.0) -> None:
        """Write what is done, if the last time was `at_least` so many seconds ago."""
        if time.monotonic() - self._written < at_least:
            return
        arrays = {"table": self.scan.table, "done": self.scan.done}
        content = {"identity": self.identity}
        files.write_archive(self.path, FILE_FORMAT, FILE_VERSION, content, arrays, keep_previous=self._owned)
        self._owned, self._written = True, time.monotonic()

    def _read(self) -> None:
        try:
            said, arrays = files.read_latest(self.path, FILE_FORMAT, FILE_VERSION, stacklevel=5)
        except (InputError, OSError) as error:
            raise CheckpointError(f"{self.path} is not a scan: {error} Delete it to start anew.") from error
        there = said.get("identity", {})
        different = [name for name in self.identity if there.get(name) != self.identity[name]]
        if different:
            raise CheckpointError(
                f"{self.path} is of another scan (other {', '.join(different)}). Delete it or give another path."
            )
        self.scan.table[...], self.scan.done[...] = arrays["table"], arrays["done"]


def _check_axes(axes: Any) -> dict[str, np.ndarray]:
    if not isinstance(axes, Mapping) or not axes:
        raise InputError(f"axes={axes!r} must be a dict {{name: 1-D array}} with at least one entry.")
    checked = {}
    for name, values in axes.items():
        axis = np.array(as_real_array(f"axes[{name!r}]", values), dtype=np.float64)
        if axis.ndim != 1 or not axis.size or not np.isfinite(axis).all():
            raise InputError(f"axes[{name!r}]={values!r} must be a 1-D array of finite numbers.")
        checked[name] = axis
    return checked


def _check_losses(losses: Any, count: int) -> dict[str, list[Any]]:
    """{label: a loss for each start}."""
    if not isinstance(losses, Mapping) or not losses:
        raise InputError('losses must be a dict {label: loss} with at least one entry, such as {"L2": loss}.')
    of_start = {
        label: list(loss) if isinstance(loss, (list, tuple)) else [loss] * count for label, loss in losses.items()
    }
    for label, each in of_start.items():
        if len(each) != count:
            raise InputError(f"losses[{label!r}] has {len(each)} losses for {count} starts.")
        for loss in each:
            losses_module.check_loss(loss, f"losses[{label!r}]")
    return of_start


# Classes


def pairwise(
    classes: Mapping[str, Sequence[np.ndarray]], make_loss: Callable[[np.ndarray], Any]
) -> tuple[list[str], np.ndarray]:
    """Mean loss between patterns of each pair of classes.

    Parameters
    ----------
    classes : dict
        {name: states (S, *shape)}.
    make_loss : callable
        ``make_loss(target) -> loss``.

    Returns
    -------
    (list of str, ndarray (n, n))
        Entry (i, j): the loss of class j's patterns against targets of class i, without each pattern against itself.
    """
    if not isinstance(classes, Mapping):
        raise InputError(f"classes={classes!r} must be a dict {{name: patterns (S, *shape)}}.")
    if not callable(make_loss):
        raise InputError(f"make_loss={make_loss!r} must be a function target -> loss, such as losses.L2.")
    names = list(classes)
    made = {name: [make_loss(target) for target in classes[name]] for name in names}
    for each in made.values():
        for loss in each:
            losses_module.check_loss(loss, "make_loss(target)")
    matrix = np.full((len(names), len(names)), math.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            found = [
                loss.value(y)
                for a, loss in enumerate(made[one])
                for b, y in enumerate(classes[other])
                if not (i == j and a == b)
            ]
            if found:
                matrix[i, j] = float(np.mean(found))
    return names, matrix
