"""A line through parameter space: the objective of the inversion beside that of a run from an unknown initial state.

The line is ``p(s) = start^(1 - s) fit^s``, so that s = 0 is a start and s = 1 the fit. Along it

    equation    rms of P [(-alpha - D_o Lap)^-1 N(h, o; p) - o], the Green form of the residual (see `inversion.start`)
    simulation  rms of v(T; y0, p) - v_data, the objective of backpropagation through T steps, for several random y0

both over the standard deviation of the data. Nothing here takes part in the fit: it shows why the one converges.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import AdjointRDError
from ..grid import Grid
from ..models import Model
from ..simulation import Simulation
from . import cleanup
from .start import Residual, structure

REFERENCE = {"Du": 0.1269, "Dv": 0.1269, "F": 0.05, "k": 0.05}  # where the reference experiment starts
REACH = (-0.5, 2.0)
SAFE = 0.23  # of D dt / h^2 in a run


@dataclass(frozen=True)
class Slice:
    """Two objectives along a line.

    Attributes
    ----------
    s : ndarray (N,)
        0 is the start, 1 the fit.
    start, fit : dict
        The parameters there.
    equation : ndarray (N,)
        Relative to the standard deviation of the data.
    simulation : ndarray (starts, N)
        Likewise; NaN where a run did not stay finite.
    steps : int
        Of each run.
    """

    s: np.ndarray
    start: dict[str, float]
    fit: dict[str, float]
    equation: np.ndarray
    simulation: np.ndarray
    steps: int


def line(
    v: np.ndarray,
    fit: Mapping[str, float],
    model: Model,
    grid: Grid,
    *,
    observed: int,
    start: Mapping[str, float] | None = None,
    points: int = 51,
    steps: int = 3000,
    starts: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Slice:
    """Both objectives along the line from `start` through `fit`.

    Parameters
    ----------
    v : ndarray (*shape)
        The data of species `observed`, in the units of the model.
    fit : dict
        All parameters, positive.
    model, grid
        Of two species, with a Green form (`inversion.start.structure`).
    observed : int
        The species.
    start : dict, optional
        By default that of the reference experiment (Gray-Scott), else 1.25 times the fit.
    points, steps, starts : int
        Of the line; of each run; random initial states.
    progress : callable, optional
        Called with 1 after each point.

    Returns
    -------
    Slice
    """
    h2 = min(grid.spacing) ** 2
    if start is None and model.name == "gray_scott":
        start = {name: value * (h2 if name in model.diffusivities else 1.0) for name, value in REFERENCE.items()}
    start = {name: 1.25 * value for name, value in fit.items()} if start is None else {**fit, **start}
    spread = float(np.std(v))
    spectrum = cleanup.spectrum(v, grid)
    smooth = cleanup.low_pass(v, grid, spectrum.cutoff)
    residual = Residual(model, grid, smooth, structure(model, observed, {}), {})
    s = np.unique(np.concatenate([np.linspace(*REACH, points), [1.0]]))
    equation, simulation = np.full(s.size, np.nan), np.full((starts, s.size), np.nan)
    runs = _Runs(model, grid, steps, starts)
    for n, place in enumerate(s):
        p = {name: float(start[name] ** (1.0 - place) * fit[name] ** place) for name in fit}
        r, _, _ = residual.green(np.log([p[name] for name in residual.free]))
        equation[n] = np.sqrt(np.mean(r**2)) / spread
        for m, final in enumerate(runs.finals(p)):
            if final is not None:
                simulation[m, n] = np.sqrt(np.mean((final[observed] - v) ** 2)) / spread
        if progress is not None:
            progress(1)
    return Slice(s, dict(start), dict(fit), equation, simulation, steps)


class _Runs:
    """Runs from a few random initial states."""

    def __init__(self, model: Model, grid: Grid, steps: int, starts: int):
        self.model, self.grid, self.steps, self.starts = model, grid, steps, starts

    def finals(self, params: Mapping[str, float]) -> list[Any]:
        """The state after the steps from each start; None where it is not finite."""
        largest = max(params[name] for name in self.model.diffusivities)
        dt = min(1.0, SAFE * min(self.grid.spacing) ** 2 / largest * 2.0 / self.grid.ndim)
        sim = Simulation(self.model, self.grid, dt=dt, dtype="float32", stability="off", threads=1)
        found = []
        for seed in range(self.starts):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    y0 = sim.initial_state("random", rng=1000 + seed, params=params)
                    found.append(sim.run(y0, params, steps=self.steps).final)
            except AdjointRDError:
                found.append(None)
        return found
