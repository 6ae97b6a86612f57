"""A library of simulated patterns: parameters spread over a region, random initial states, runs until at rest.

For Gray-Scott the region is given in ``(log Du, Dv / Du, log F, k - (sqrt(F) / 2 - F))``, the last counted from the
saddle-node of the uniform states, along which patterns at rest lie (J. E. Pearson, Science 261 (1993) 189); else in
log p. Points are scrambled Sobol points. A pattern at rest still creeps, and how long it has done so is unknown: the
rate max |y_t| at which a run stops is random, log-uniform. Patterns that died, or moved on, are left out. Lengths are
in cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import qmc

from ..errors import AdjointRDError, InputError
from ..files import DamagedError, read_archive, write_archive
from ..grid import Grid
from ..models import Model
from ..simulation import Simulation

FORMAT, VERSION = "adjoint_rd.pattern_library", 1
GRAY_SCOTT = {"Du": (0.08, 0.24), "Dv/Du": (0.35, 0.65), "F": (0.022, 0.065), "k - k_c": (-0.004, 0.008)}
SAFE = 0.24  # the largest D dt / h^2
FRACTIONS = (0.1, 0.5)  # of the cells in the seed state at first
YOUNG = 3000.0  # time before a pattern counts as at rest
OLD = 30_000.0  # the longest time of a run
RATES = (2e-5, 2e-4)  # max |y_t| at which a run stops
MOST_RATE = 3e-4  # of a pattern that is kept
DEAD = 0.02  # standard deviation over the grid below which a pattern has died


@dataclass(frozen=True)
class Region:
    """A box of parameters, in coordinates of its own.

    Attributes
    ----------
    model : Model
    names : tuple of str
        Of the coordinates.
    low, high : ndarray (P,)
        In the user's terms: not logarithms.
    """

    model: Model
    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray

    @property
    def pearson(self) -> bool:
        """Whether k is counted from the saddle-node."""
        return "k - k_c" in self.names

    def point(self, unit: np.ndarray) -> np.ndarray:
        """The parameters (in the model's order of names) of a point of the unit cube."""
        straight = np.array([name in ("Dv/Du", "k - k_c") for name in self.names])
        a, b = (np.where(straight, x, np.log(np.where(straight, 1.0, x))) for x in (self.low, self.high))
        c = a + unit * (b - a)
        c = np.where(straight, c, np.exp(c))
        if not self.pearson:
            return c
        Du, ratio, F, beyond = c
        return np.array([Du, Du * ratio, F, np.sqrt(F) / 2.0 - F + beyond])

    def about(self) -> dict[str, list[float]]:
        """For a header."""
        return {name: [float(a), float(b)] for name, a, b in zip(self.names, self.low, self.high, strict=True)}


def region(model: Model, bounds: Mapping[str, tuple[float, float]] | None) -> Region:
    """The region of bounds in cells, {name: (low, high)}; of Gray-Scott by default `GRAY_SCOTT`."""
    if bounds is None and model.name != "gray_scott":
        raise InputError(f"bounds is needed for {model.name}: {{name: (low, high)}} of {', '.join(model.names)}.")
    given = dict(GRAY_SCOTT if bounds is None else bounds)
    if bounds is not None and set(given) != set(model.names):
        raise InputError(f"bounds has {', '.join(given)}; it must have {', '.join(model.names)}.")
    if any(len(pair) != 2 for pair in given.values()):
        raise InputError(f"bounds={given} must be pairs 0 < low < high.")
    order = list(given) if bounds is None else list(model.names)
    low, high = (np.array([float(given[name][i]) for name in order]) for i in (0, 1))
    if bounds is not None and not (np.all(low > 0) and np.all(high > low) and np.all(np.isfinite(high))):
        raise InputError(f"bounds={given} must be pairs 0 < low < high.")
    return Region(model, tuple(order), low, high)


class Simulator:
    """Patterns at rest of given parameters, from random initial states.

    Parameters
    ----------
    model : Model
    shape : (H, W)
    largest : float
        The largest diffusivity there will be, in cells; it fixes the time step.
    """

    def __init__(self, model: Model, shape: tuple[int, int], largest: float):
        self.model = model
        self.dt = SAFE / largest
        self.sim = Simulation(model, Grid(shape), dt=self.dt, dtype="float32", stability="off", threads=1)

    def pattern(self, params: Mapping[str, float], rng: np.random.Generator) -> np.ndarray | None:
        """The last species of a pattern at rest (H, W), float32; None if it died, moves or diverged."""
        young, old = int(YOUNG / self.dt), int(OLD / self.dt)
        try:
            y = self.sim.initial_state("random", rng=rng, params=params, fraction=float(rng.uniform(*FRACTIONS)))
            y = self.sim.run(y, params, steps=young).final
            if y[-1].std() < DEAD / 2.0:
                return None
            rate = float(np.exp(rng.uniform(*np.log(RATES))))
            found = self.sim.run_to_steady(y, params, tol=rate, max_steps=old - young)
        except AdjointRDError:
            return None
        v = found.final[-1]
        return v if found.rate <= MOST_RATE and v.std() >= DEAD else None


@dataclass(frozen=True)
class Library:
    """Patterns and their parameters.

    Attributes
    ----------
    params : ndarray (N, P)
        In the model's order of names, in cells.
    patterns : ndarray (N, H, W), float32
    drawn : int
        How many points were tried.
    """

    params: np.ndarray
    patterns: np.ndarray
    drawn: int


def build(
    where: Region, shape: tuple[int, int], count: int, path: Path | None, progress: Callable[[int, int], None] | None
) -> Library:
    """A library of `count` patterns: from the file, extended and saved as far as that lacks.

    Parameters
    ----------
    where : Region
    shape : (H, W)
    count : int
    path : Path or None
        Of an .npz file; it need not exist. An interrupted build keeps what is done.
    progress : callable or None
        Called with (patterns so far, points tried).
    """
    about = {"model": where.model.name, "region": where.about(), "shape": list(shape)}
    found = _read(path, about)
    params, patterns, drawn = list(found.params), list(found.patterns), found.drawn
    if len(params) >= count:
        return Library(found.params[:count], found.patterns[:count], drawn)
    simulator = Simulator(where.model, shape, _largest(where))
    most = 20 * count
    points = qmc.Sobol(len(where.names), rng=np.random.default_rng(5)).random(1 << (most - 1).bit_length())
    try:
        while len(params) < count and drawn < most:
            p = where.point(points[drawn])
            named = dict(zip(where.model.names, p.tolist(), strict=True))
            v = simulator.pattern(named, np.random.default_rng([7, drawn]))
            drawn += 1
            if v is not None:
                params.append(p)
                patterns.append(v)
            if progress is not None:
                progress(len(params), drawn)
    finally:
        result = Library(np.array(params).reshape(-1, len(where.names)), np.array(patterns), drawn)
        if path is not None and params:
            save(path, about, result)
    if len(params) < min(count, 100):
        raise InputError(f"only {len(params)} of {drawn} points of bounds={where.about()} give patterns at rest.")
    return result


def save(path: Path, about: Mapping[str, Any], library: Library) -> None:
    """Write a library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_archive(
        path, FORMAT, VERSION, {**about, "drawn": library.drawn},
        {"params": library.params, "patterns": library.patterns.astype(np.float32)},
    )  # fmt: skip


def _read(path: Path | None, about: Mapping[str, Any]) -> Library:
    empty = Library(np.empty((0, len(about["region"]))), np.empty((0, *about["shape"]), np.float32), 0)
    if path is None or not path.exists():
        return empty
    header, arrays = read_archive(path, FORMAT, VERSION)
    if any(header.get(key) != value for key, value in about.items()):
        raise InputError(
            f"library={str(path)!r} is of {header.get('model')}, region {header.get('region')}, shape "
            f"{header.get('shape')}; asked for is {about}. Give another path."
        )
    try:
        return Library(arrays["params"], arrays["patterns"], int(header["drawn"]))
    except KeyError as error:
        raise DamagedError(f"{path} is incomplete: {error}.") from None


def _largest(where: Region) -> float:
    names = where.names
    return float(max(where.high[i] for i, name in enumerate(names) if name in where.model.diffusivities))
