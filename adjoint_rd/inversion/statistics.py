"""Parameters from translation-invariant statistics of a pattern alone: spectrum, histogram, texture; no phases.

    fit = rd.invert_statistics(v, library="library.npz")

How many spots there are and how they look is all that is used, not where they are: no equation is applied to the
pattern, and patterns of different random initial states are equivalent. Stages:

    global   kernel ridge regression of log p on the statistics (`texture`) of simulated patterns (`library`)
    local    new simulations, of the size of the data, with log p drawn from N(estimate, (2 s)^2), s the errors of
             left-out points near the estimate; regression on these; twice
    repeat   fresh simulations at the estimate, estimated like the data: they widen the errors if these were too small

This is approximate Bayesian computation with regression adjustment (M. A. Beaumont, W. Zhang, D. J. Balding, Genetics
162 (2002) 2025), its errors measured on simulations that the regression has not seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import models
from ..arrays import as_dict, as_generator, as_names, as_numbers, as_real_array
from ..errors import InputError, check_count, check_number, did_you_mean
from ..grid import Grid
from . import cleanup
from .library import Library, Simulator, build, region
from .regression import KernelRidge
from .texture import GROUPS, features

LIBRARY_SHAPE = (64, 64)
GLOBAL_SCALES = (2.0, 8.0)  # of the kernel in the library
NEIGHBOURS = 80  # of the estimate in the library, whose left-out errors count
SPREAD = 2.0  # of the local simulations, in errors
FOCUS = 2.0  # the variance, in squared errors, to which their left-out errors are weighted
MOST_STRANGE = 1.5  # distance to the nearest simulations, against what 99 % of these keep to
FEWEST_RUNS, FEWEST = 40, 30  # simulations in a local round, and patterns that come of them
EXTRA_ROUNDS = 2  # if the estimate leaves the cloud of simulations
FAR = 3.0  # distance from the cloud's centre, in its standard deviations, that counts as leaving
FLOOR = 1e-4  # smallest error of log p


@dataclass(frozen=True)
class StatisticsFit:
    """Parameters from the statistics of patterns.

    Attributes
    ----------
    params : dict
        {name: float}.
    stderr : dict
        {name: float}, in the parameters' units.
    covariance : ndarray (P, P)
        Of the parameters, in the order of `names`.
    names : tuple of str
    success : bool
        False if the pattern is unlike all simulations, or the statistics do not determine the parameters.
    message : str
        Why, in words.
    simulations : int
        How many were run for this fit, those of the library not counted.
    stages : list of dict
        The estimate and its errors (of log p) after each stage.
    """

    params: dict[str, float]
    stderr: dict[str, float]
    covariance: np.ndarray
    names: tuple[str, ...]
    success: bool
    message: str
    simulations: int
    stages: list[dict[str, Any]] = field(repr=False)

    def __str__(self) -> str:
        lines = [f"{'success' if self.success else 'NO SUCCESS'}: {self.message}"]
        lines += [f"  {name:8s} {value:.6g} +- {self.stderr[name]:.2g}" for name, value in self.params.items()]
        return "\n".join(lines)


def invert_statistics(
    data: Any,
    *,
    model: Any = "gray_scott",
    spacing: float = 1.0,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    library: Any = None,
    library_size: int = 1000,
    statistics: tuple[str, ...] = GROUPS,
    noise: float | None = None,
    rounds: int = 2,
    runs: int = 150,
    repeats: int = 24,
    rng: Any = 0,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> StatisticsFit:
    """Find the parameters of a model from statistics of periodic patterns at rest, whatever their initial states.

    Parameters
    ----------
    data : array_like (H, W) or (N, H, W)
        The last species of the model, in its absolute units, of one or several patterns of the same parameters.
        Periodic, at rest or nearly so (max |y_t| below 2e-4).
    model : str or Model
    spacing : float
        The distance between cells.
    bounds : dict, optional
        {name: (low, high)} of each parameter: where to search. Gray-Scott has a default, patterns with Du / spacing^2
        in 0.08 .. 0.24, Dv / Du in 0.35 .. 0.65, F in 0.022 .. 0.065 and k near the saddle-node.
    library : path, optional
        An .npz file for the library of simulations, made if it is not there (some minutes), continued if it was
        interrupted, and good for all patterns within the bounds. Without it the library is made anew.
    library_size : int
        Patterns in it.
    statistics : tuple of str
        Which of "histogram", "spectrum", "gradient", "curvature", "shape"; see `adjoint_rd.inversion.texture`.
    noise : float, optional
        The standard deviation of white noise in the data, which simulations are given too; measured by default.
    rounds, runs : int
        Local rounds, and simulations in each.
    repeats : int
        Simulations at the estimate, at least 8.
    rng : int or Generator
        Of the simulations.
    workers : int
        Threads that simulate; the result does not depend on it.
    progress : callable, optional
        Called with a line for each stage.

    Returns
    -------
    StatisticsFit
        After Ctrl-C in the local rounds, with what was reached and ``success=False``. While the library is made, Ctrl-C
        reaches the caller; what its file holds is kept.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    found = models.get(model)
    patterns = _check_data(data)
    spacing = check_number("spacing", spacing, above=0.0)  # of both axes
    statistics = as_names("statistics", statistics)
    for name in statistics:
        if not isinstance(name, str) or name not in GROUPS:
            raise InputError(f"statistics has {name!r}; use {', '.join(GROUPS)}.{did_you_mean(str(name), GROUPS)}")
    if noise is None:
        noise = max(cleanup.spectrum(v, Grid(v.shape)).noise for v in patterns)
    noise = check_number("noise", noise, least=0.0)
    h2 = spacing**2
    if bounds is not None:
        pairs = {name: as_numbers(f"bounds[{name!r}]", pair) for name, pair in as_dict("bounds", bounds).items()}
        bounds = {
            name: tuple(end / (h2 if name in found.diffusivities else 1.0) for end in pair)
            for name, pair in pairs.items()
        }
    where = region(found, bounds)
    search = _Search(where, patterns, statistics, noise, as_generator(rng), progress or (lambda line: None))
    search.workers = check_count("workers", workers, 1)
    runs = check_count("runs", runs, FEWEST_RUNS)
    counts = check_count("rounds", rounds, 1), runs, check_count("repeats", repeats, 8)
    kept = build(where, LIBRARY_SHAPE, check_count("library_size", library_size, 100), _path(library), search.built)
    return search.run(kept, *counts, h2)


def _check_data(data: Any) -> np.ndarray:
    array = as_real_array("data", data)
    if array.ndim not in (2, 3) or min(array.shape, default=0) < 1:
        raise InputError(f"data has shape {array.shape}; it must be real numbers (H, W) or (N, H, W).")
    array = array.astype(np.float64).reshape(-1, *array.shape[-2:])
    if min(array.shape[1:]) < 32:
        raise InputError(f"data has {array.shape[1]} x {array.shape[2]} cells; at least 32 x 32 are needed.")
    if not np.all(np.isfinite(array)):
        raise InputError("data has values that are not finite; statistics need whole patterns.")
    return array


def _path(library: Any) -> Path | None:
    if library is None:
        return None
    path = Path(library) if isinstance(library, (str, os.PathLike)) else Path()
    if path.suffix != ".npz":
        raise InputError(f"library={str(library)!r} must end in .npz.")
    return path


class _Search:
    """One inversion."""

    def __init__(
        self, where: Any, patterns: np.ndarray, groups: tuple[str, ...], noise: float, rng: np.random.Generator,
        progress: Callable[[str], None],
    ):  # fmt: skip
        self.where, self.patterns, self.groups, self.noise, self.rng = where, patterns, groups, noise, rng
        self.progress, self.workers = progress, 1
        self.names = where.model.names
        self.seen = np.stack([self._features(v, None) for v in patterns])
        self.stages: list[dict[str, Any]] = []
        self.simulations = 0
        self._told = 0

    def built(self, patterns: int, tried: int) -> None:
        """Progress of the library."""
        if patterns >= self._told + 100:
            self._told = patterns
            self.progress(f"library: {patterns} patterns of {tried} points")

    def _features(self, v: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        if rng is not None and self.noise > 0:
            v = v + self.noise * rng.standard_normal(v.shape)
        return np.array(list(features(v, self.groups).values()))

    # Stages

    def run(self, library: Library, rounds: int, runs: int, repeats: int, h2: float) -> StatisticsFit:
        """All stages; `h2` turns diffusivities from cells into the user's units."""
        if self.patterns.std() < 1e-6 * np.abs(self.patterns).max() or not self.patterns.any():
            return self._refuse("the pattern is uniform")
        x, errors, strange = self._global(library)
        if strange > 2.0 * MOST_STRANGE:
            return self._refuse(
                f"the pattern's statistics are {strange:.1f} times as far from all simulations as these are from each "
                "other: it is no pattern at rest of this model within the bounds, or its scale or spacing is wrong"
            )
        why = None
        try:
            x, errors, why = self._locally(x, errors, rounds, runs, repeats)
        except KeyboardInterrupt:
            why = "interrupted before the last round"
            if len(self.stages) > 1:
                x, errors = (np.array(self.stages[-1][key]) for key in ("log_params", "log_covariance"))
        return self._result(x, errors, why, h2)

    def _global(self, library: Library) -> tuple[np.ndarray, np.ndarray, float]:
        rng = np.random.default_rng(1)
        known = np.stack([self._features(v, rng) for v in library.patterns])
        regression = KernelRidge(known, np.log(library.params), scales=GLOBAL_SCALES)
        x = regression(self.seen).mean(axis=0)
        size = np.sqrt(np.mean(regression.left_out**2, axis=0))
        predicted = np.log(library.params) - regression.left_out
        near = np.argsort(np.sum(((predicted - x) / size) ** 2, axis=1))[:NEIGHBOURS]
        weights = np.zeros(len(known))
        weights[near] = 1.0
        errors = self._errors(regression, weights)
        strange = max(regression.strangeness(s) for s in self.seen)
        self._log("global", x, errors, patterns=len(known), strange=strange)
        return x, errors, strange

    def _locally(
        self, x: np.ndarray, errors: np.ndarray, rounds: int, runs: int, repeats: int
    ) -> tuple[np.ndarray, np.ndarray, str | None]:
        largest = self._largest(x, errors)
        shape = self.patterns.shape[1:]
        simulator = [Simulator(self.where.model, shape, largest) for _ in range(self.workers)]
        points, known = np.empty((0, len(x))), np.empty((0, self.seen.shape[1]))
        n, extra = 0, 0
        while n < rounds:
            drawn = self.rng.multivariate_normal(x, SPREAD**2 * errors, size=runs)
            new_points, new_known = self._simulate(simulator, drawn)
            points, known = np.concatenate([points, new_points]), np.concatenate([known, new_known])
            if len(points) < FEWEST:
                return x, errors, f"only {len(points)} of {runs} simulations near the estimate give patterns at rest"
            centre, spread = points.mean(axis=0), np.cov(points.T)
            regression = KernelRidge(known, points, self._weights(points, x, errors))
            x = regression(self.seen).mean(axis=0)
            outside = np.sqrt((x - centre) @ np.linalg.solve(spread, x - centre)) > FAR
            if outside and extra < EXTRA_ROUNDS:
                extra += 1
                self._log(f"local {n + 1}, left the cloud", x, errors, patterns=len(points))
                continue
            errors = self._errors(regression, self._weights(points, x, errors))
            n += 1
            strange = max(regression.strangeness(s) for s in self.seen)
            self._log(f"local {n}", x, errors, patterns=len(points), strange=strange)
        errors = errors / len(self.patterns)
        if strange > MOST_STRANGE:
            return x, errors, f"the pattern is unlike simulations of the best parameters ({strange:.1f} times too far)"
        if outside:
            return x, errors, "the estimate leaves the region that was simulated"
        return x, self._repeated(simulator, regression, x, errors, repeats), None

    def _repeated(
        self, simulator: Any, regression: KernelRidge, x: np.ndarray, errors: np.ndarray, repeats: int
    ) -> np.ndarray:
        """The errors, widened to what fresh simulations at the estimate show."""
        _, known = self._simulate(simulator, np.tile(x, (repeats, 1)))
        if len(known) < 4:
            return errors
        off = regression(known) - x
        count = len(self.patterns)
        bias = off.mean(axis=0)
        moment = np.cov(off.T) / count + np.outer(bias, bias)
        wider = max(1.0, float(np.trace(np.linalg.solve(errors, moment))) / len(x))
        self._log("repeat", x, wider * errors, patterns=len(known), bias=bias.tolist(), wider=wider)
        return wider * errors

    def _simulate(self, simulators: list[Any], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log parameters, features) of the points that give patterns; noise and initial states from `rng`."""
        seeds = self.rng.integers(1 << 62, size=len(points))

        def work(share: int) -> list[Any]:
            done = []
            for n in range(share, len(points), len(simulators)):
                own = np.random.default_rng(seeds[n])
                p = dict(zip(self.names, np.exp(points[n]).tolist(), strict=True))
                v = simulators[share].pattern(p, own)
                done.append((n, None if v is None else self._features(v.astype(np.float64), own)))
            return done

        if len(simulators) == 1:
            found = dict(work(0))
        else:
            with ThreadPoolExecutor(len(simulators)) as pool:
                found = dict(pair for part in pool.map(work, range(len(simulators))) for pair in part)
        self.simulations += len(points)
        alive = [n for n in range(len(points)) if found[n] is not None]
        return points[alive], np.array([found[n] for n in alive]).reshape(len(alive), self.seen.shape[1])

    def _largest(self, x: np.ndarray, errors: np.ndarray) -> float:
        """The largest diffusivity that the local simulations are likely to draw."""
        index = [self.names.index(name) for name in self.where.model.diffusivities]
        return float(np.exp(max(x[i] + 5.0 * SPREAD * np.sqrt(errors[i, i]) for i in index)))

    def _errors(self, regression: KernelRidge, weights: np.ndarray) -> np.ndarray:
        """The covariance of a prediction for one pattern: that of left-out points, as far from others as it is."""
        scores = _second_moment(regression.left_out / regression.left_out_spread, weights)
        spread = np.sqrt(np.mean(regression.spread_of(self.seen) ** 2, axis=0))
        return scores * np.outer(spread, spread) + FLOOR**2 * np.eye(len(spread))

    def _weights(self, points: np.ndarray, x: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Of the points, as if drawn from N(x, FOCUS errors) instead of N(x, SPREAD^2 errors)."""
        off = points - x
        square = np.einsum("ij,ij->i", off, np.linalg.solve(errors, off.T).T)
        return np.exp(-0.5 * square * (1.0 / FOCUS - 1.0 / SPREAD**2)) + 1e-12

    # Results

    def _log(self, stage: str, x: np.ndarray, errors: np.ndarray, **more: Any) -> None:
        self.stages.append({"stage": stage, "log_params": x.tolist(), "log_covariance": errors.tolist(), **more})
        values = ", ".join(
            f"{name} {value:.5g} +- {100 * error:.2g} %"
            for name, value, error in zip(self.names, np.exp(x), np.sqrt(np.diag(errors)), strict=True)
        )
        shown = ", ".join(f"{key} {value:.3g}" for key, value in more.items() if isinstance(value, (int, float)))
        self.progress(f"{stage}: {values} ({shown})")

    def _refuse(self, reason: str) -> StatisticsFit:
        nothing = dict.fromkeys(self.names, float("nan"))
        return StatisticsFit(
            nothing, nothing, np.full((len(self.names),) * 2, np.nan), self.names, False,
            reason[0].upper() + reason[1:] + ".", self.simulations, self.stages,
        )  # fmt: skip

    def _result(self, x: np.ndarray, errors: np.ndarray, why: str | None, h2: float) -> StatisticsFit:
        errors = errors + FLOOR**2 * np.eye(len(x))
        relative = np.sqrt(np.diag(errors))
        if why is None and relative.max() > 0.5:
            worst = self.names[int(np.argmax(relative))]
            why = f"the statistics do not determine {worst} (its standard error is {100 * relative.max():.0f} %)"
        if why is not None and why != "interrupted before the last round":
            return self._refuse(why)
        units = np.array([h2 if name in self.where.model.diffusivities else 1.0 for name in self.names])
        p = np.exp(x) * units
        worst = int(np.argmax(relative))
        message = f"Largest standard error {100 * relative[worst]:.2g} % ({self.names[worst]}), from simulations."
        return StatisticsFit(
            dict(zip(self.names, p.tolist(), strict=True)),
            dict(zip(self.names, (p * relative).tolist(), strict=True)),
            errors * np.outer(p, p),
            self.names,
            why is None,
            message if why is None else f"{why[0].upper()}{why[1:]}; the values are those of the stage before.",
            self.simulations,
            self.stages,
        )


def _second_moment(errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of ``e e^T``, with as many degrees of freedom as the weights leave."""
    weights = weights / weights.sum()
    effective = 1.0 / np.sum(weights**2)
    moment = (errors * weights[:, None]).T @ errors
    return moment * effective / max(effective - 1.0, 1.0)
