"""Landscapes: losses over slices through parameter space, averaged over initial states, and where uniform states
bifurcate.

    found = rd.landscape.scan(sim, starts, {"L2": loss}, params, {"F": np.linspace(0.02, 0.06, 30), "k": ...},
    steps=2000) rd.landscape_plots.show(found)

Uniform states of Gray-Scott: the red one (u, v) = (1, 0), always stable, and for ``F >= 4 (F + k)^2`` the blue one with

    v = (F + sqrt(F^2 - 4 F (F + k)^2)) / (2 (F + k)),    u = (F + k) / v

where the Jacobian is ``[[-v^2 - F, -2 (F + k)], [v^2, F + k]]``, of trace k - v^2 and determinant (F + k) (v^2 - F).
Hence

    saddle-node  F = 4 (F + k)^2, that is  k = sqrt(F) / 2 - F: no blue state above
    Hopf         v^2 = k, that is  F + k = sqrt(F) k^(1/4), with k > F: the blue state oscillates above
    Turing       Du (F + k) - Dv (v^2 + F) = 2 sqrt(Du Dv (F + k) (v^2 - F)): the blue state forms patterns above

Source: J. E. Pearson, Science 261 (1993) 189; J. D. Murray, Mathematical Biology II, 2.3 (conditions for Turing
instability).
"""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from . import files
from . import losses as losses_module
from .errors import CheckpointError, DivergenceError, InputError, StabilityError, check_count
from .simulation import Simulation

FILE_FORMAT, FILE_VERSION = "adjoint_rd.landscape", 1

__all__ = ["Landscape", "Line", "blue_state", "boundaries", "pairwise", "scan"]

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
        An .npz file to keep what is done in, every ten seconds; if it is there, the scan continues from it.
    workers : int
        Threads that take grid points from a common list.
    progress : callable, optional
        Called with 1 after each grid point.

    Returns
    -------
    Landscape
    """
    starts = [
        sim.check_state(y)
        for y in ([starts] if isinstance(starts, np.ndarray) and starts.ndim == len(sim.state_shape) else starts)
    ]
    axes = {name: np.array(values, dtype=np.float64) for name, values in axes.items()}
    if not axes or any(axis.ndim != 1 or not axis.size for axis in axes.values()):
        raise InputError("axes must be {name: 1-D array}, with at least one entry.")
    sim.model.check_names({**params, **{name: axis[0] for name, axis in axes.items()}}, "params and axes")
    base = {name: float(value) for name, value in params.items() if name not in axes}
    of_start = {
        label: list(loss) if isinstance(loss, (list, tuple)) else [loss] * len(starts) for label, loss in losses.items()
    }
    for label, each in of_start.items():
        if len(each) != len(starts):
            raise InputError(f"losses[{label!r}] has {len(each)} losses for {len(starts)} starts.")
        for loss in each:
            losses_module.check_loss(loss, f"losses[{label!r}]")
    steps = check_count("steps", steps, 1)
    first = sim._window_start(steps, window)
    shape = tuple(axis.size for axis in axes.values())
    width = 1 + (len(axes) if gradients else 0)
    table = np.full((*shape, len(starts), len(of_start), width), np.nan)
    done = np.zeros(shape, dtype=bool)
    identity = {
        "axes": {name: axis.tolist() for name, axis in axes.items()},
        "params": base, "labels": list(of_start), "starts": [float(np.sum(y, dtype=np.float64)) for y in starts],
        "steps": steps, "window": window, "gradients": gradients, "dt": sim.dt, "model": sim.model.name,
        "grid": str(sim.grid), "scheme": sim.scheme_name, "dtype": sim.dtype.name,
    }  # fmt: skip
    file = None if path is None else Path(path)
    if file is not None and file.exists():
        _read(file, identity, table, done)
    lock, saved = threading.Lock(), [time.monotonic()]

    def clone() -> Simulation:
        return Simulation(
            sim.model,
            sim.grid,
            dt=sim.dt,
            scheme=sim.scheme_name,
            dtype=sim.dtype,
            stability=sim.stability or "warn",
            threads=1,
        )

    local = threading.local()

    def point(index: tuple[int, ...]) -> None:
        if workers == 1:
            mine = sim
        else:
            mine = local.sim = getattr(local, "sim", None) or clone()
        values = {**base, **{name: float(axis[i]) for (name, axis), i in zip(axes.items(), index, strict=True)}}
        found = np.full((len(starts), len(of_start), width), np.nan)
        for n, y0 in enumerate(starts):
            try:
                y = mine.run(y0, values, steps=first).final if first else y0
                end = None if gradients else mine.run(y, values, steps=steps - first).final
                for m, each in enumerate(of_start.values()):
                    if gradients:
                        g = mine.gradient(y, values, each[n], steps=steps - first)
                        found[n, m] = [g.value, *(g.params[name] for name in axes)]
                    else:
                        found[n, m, 0] = each[n].value(end)
            except (StabilityError, DivergenceError):
                found[n] = np.nan
        with lock:
            table[index] = found
            done[index] = True
            if file is not None and time.monotonic() - saved[0] > SAVE_SECONDS:
                _write(file, identity, table, done)
                saved[0] = time.monotonic()
            if progress is not None:
                progress(1)

    todo = [index for index in product(*map(range, shape)) if not done[index]]
    try:
        if check_count("workers", workers, 1) == 1:
            for index in todo:
                point(index)
        else:
            with ThreadPoolExecutor(workers) as pool:
                try:
                    for _ in pool.map(point, todo):
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    finally:
        if file is not None:
            with lock:
                _write(file, identity, table, done)
    unstable = np.isnan(table[..., 0, 0]).sum(axis=-1)
    values, spread, slopes = {}, {}, {}
    for m, label in enumerate(of_start):
        mine = np.ma.masked_invalid(table[..., m, :])
        values[label] = mine[..., 0].mean(axis=-1).filled(np.nan)
        spread[label] = mine[..., 0].std(axis=-1).filled(np.nan)
        if gradients:
            slopes[label] = mine[..., 1:].mean(axis=-2).filled(np.nan)
    return Landscape(axes, base, values, spread, slopes, unstable)


def _write(file: Path, identity: Mapping[str, Any], table: np.ndarray, done: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_archive(file, FILE_FORMAT, FILE_VERSION, {"identity": identity}, {"table": table, "done": done})


def _read(file: Path, identity: Mapping[str, Any], table: np.ndarray, done: np.ndarray) -> None:
    try:
        said, arrays = files.read_archive(file, FILE_FORMAT, FILE_VERSION)
    except (InputError, OSError) as error:
        raise CheckpointError(f"{file} is not a scan: {error} Delete it to start anew.") from error
    mine = json.loads(json.dumps(identity))
    different = [name for name in mine if said["identity"].get(name) != mine[name]]
    if different:
        raise CheckpointError(
            f"{file} is of another scan (other {', '.join(different)}). Delete it or give another path."
        )
    table[...], done[...] = arrays["table"], arrays["done"]


# Uniform states of Gray-Scott


@dataclass(frozen=True)
class Line:
    """A boundary in the plane of k and F: points (k[i], F[i]), and what it is."""

    name: str
    k: np.ndarray
    F: np.ndarray
    meaning: str


def blue_state(F: Any, k: Any) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of the uniform state with the larger v; NaN where there is none."""
    F, k = np.asarray(F, dtype=np.float64), np.asarray(k, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        v = (F + np.sqrt(F * F - 4.0 * F * (F + k) ** 2)) / (2.0 * (F + k))
        return (F + k) / v, v


def turing_excess(F: Any, k: Any, Du: float, Dv: float) -> np.ndarray:
    """Positive where some wave grows on the blue state by Turing's mechanism; NaN where there is no blue state."""
    _, v = blue_state(F, k)
    s = np.asarray(F) + np.asarray(k)
    determinant = s * (v * v - F)
    return Du * s - Dv * (v * v + F) - 2.0 * np.sqrt(Du * Dv * np.maximum(determinant, 0.0))


def boundaries(Du: float, Dv: float, F: Any = None) -> list[Line]:
    """The saddle-node, Hopf and Turing lines of Gray-Scott, for ``0 < F <= 1/4``.

    Parameters
    ----------
    Du, Dv : float
    F : 1-D array, optional
        Where to compute them; the Hopf line is given at its own points.

    Returns
    -------
    list of Line
    """
    F = np.linspace(1e-4, 0.12, 400) if F is None else np.array(F, dtype=np.float64)
    F = F[(F > 0) & (F < 0.25)]
    edge = np.sqrt(F) / 2.0 - F
    kept = edge >= 0.0
    saddle = Line("saddle-node", edge[kept], F[kept], "no blue state for larger k")
    k = np.linspace(1e-6, 1.0 / 16.0, 400)
    root = (k**0.25 - np.sqrt(np.maximum(np.sqrt(k) - 4.0 * k, 0.0))) / 2.0
    hopf = Line("Hopf", k, root**2, "the blue state oscillates for smaller F")
    points = []
    for f, most in zip(F[kept], edge[kept], strict=True):
        trial = np.linspace(0.0, most * (1.0 - 1e-9), 200)
        excess = turing_excess(f, trial, Du, Dv)
        for n in np.flatnonzero((excess[:-1] < 0.0) != (excess[1:] < 0.0)):
            points.append((brentq(lambda q, f=f: float(turing_excess(f, q, Du, Dv)), trial[n], trial[n + 1]), f))
    turing = np.array(points).reshape(-1, 2)
    return [saddle, hopf, Line("Turing", turing[:, 0], turing[:, 1], "the blue state forms patterns for larger k")]


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
    names = list(classes)
    made = {name: [make_loss(target) for target in classes[name]] for name in names}
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
