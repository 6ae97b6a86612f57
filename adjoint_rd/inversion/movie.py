"""Parameters from a movie: frames of a moving pattern of which some species are seen, with noise.

    clean up     noise level (the corner of every frame's spectrum), low-pass wavenumber
    start        an observer of the hidden species, or regression if all are seen      movie_start
    match        parameters and the free first state, by Gauss-Newton on windows that
                 grow from a few frames to all: on a short window a poor start is still
                 in the right valley (C. Pires et al., Tellus 48A (1996) 96)             movie_fit
    verify       misfit against noise, frame by frame and between neighbours           movie_verdict

Frames of the continuous equations: the default scheme (RK4) has no error in time to speak of; the star Laplacian's is
``O(h^2)``. With `refine` the equations are solved on grids R times finer, of which the frames show every R-th cell,
and two values of R give the extrapolation ``p_f + (p_f - p_c) / ((R_f / R_c)^2 - 1)``. Frames of a run of this library
want that run's `dt`, `scheme` and grid: then there is no discretisation error at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..errors import AdjointRDError
from ..grid import Grid
from ..models import Model
from ..simulation import Simulation
from . import cleanup, movie_fit, movie_verdict, verdict
from .movie_start import MovieStart, Observer, best_start, regression
from .start import structure

BURN, SPAN = 8, 3  # frames that the observer takes to forget its start; intervals in one residual
BAND = 1.2  # wavenumber times spacing up to which the observer's residual looks
FIRST_WINDOW = 6  # frames
WINDOW_ITERATIONS, WINDOW_PRODUCTS = 3, 25  # on windows before the last
SPREAD = (0.2, 0.1)  # prior standard deviation of the first state, hidden and observed species, in units of their range
SMOOTH = 1.5  # wavenumber times spacing where the prior's filter is a half
VARIANCE_TOLERANCE = 0.01
CLOSE = 0.2  # of a standard error: converged when no parameter changes by more
FLOOR = 3e-4  # of the largest value: frames are not trusted to better
REACH = 0.55  # of the stability limit, by the default dt


@dataclass(frozen=True)
class Movie:
    """Checked frames.

    Attributes
    ----------
    model, grid
        The grid of the frames.
    frames : ndarray (M, O, *shape)
        In the model's units, zero where not seen.
    seen : ndarray of bool (M, O, *shape)
    times : ndarray (M,)
        From zero.
    counts : tuple of int
        The frames' times in units of `gap`.
    gap : float
        The greatest common interval.
    species : tuple of int
    known : dict
    start : dict
    noise : float or None
        In the model's units.
    dt : float or None
    scheme : str
    refine : tuple of int
    """

    model: Model
    grid: Grid
    frames: np.ndarray
    seen: np.ndarray
    times: np.ndarray
    counts: tuple[int, ...]
    gap: float
    species: tuple[int, ...]
    known: dict[str, float]
    start: dict[str, float]
    noise: float | None
    dt: float | None
    scheme: str
    refine: tuple[int, ...]

    @property
    def free(self) -> tuple[str, ...]:
        """The parameters to fit."""
        return tuple(name for name in self.model.names if name not in self.known)


Log = Callable[..., None]


def invert(movie: Movie, log: Log) -> dict[str, Any]:
    """All stages.

    Parameters
    ----------
    movie : Movie
    log : callable
        ``log(stage, **entries)``.

    Returns
    -------
    dict
        The attributes of `adjoint_rd.inverse.Inversion`, without `stages`.
    """
    images = np.stack(
        [
            np.stack([cleanup.fill(v, s, movie.grid) for v, s in zip(frame, seen, strict=True)])
            for frame, seen in zip(movie.frames, movie.seen, strict=True)
        ]
    )
    spectra = [[cleanup.spectrum(image, movie.grid, movie.noise) for image in frame] for frame in images]
    peak = float(np.max(np.abs(images), initial=0.0))
    measured = np.sqrt(np.mean([[each.noise**2 for each in frame] for frame in spectra], axis=0))
    sigma = np.maximum(measured, FLOOR * peak)
    cutoffs = [float(np.median([frame[c].cutoff for frame in spectra])) for c in range(len(movie.species))]
    log("clean up", noise=float(measured.max()), cutoff=max(cutoffs), frames=len(images))
    refusal = movie_verdict.nothing_to_fit(movie, images, spectra, sigma)
    if refusal:
        return refused(movie, refusal)
    begin = _start(movie, images, cutoffs, log)
    if isinstance(begin, str):
        return refused(movie, begin)
    done: list[tuple[movie_fit.Window, movie_fit.MovieFit, np.ndarray]] = []
    params, first = begin.params, begin.first
    for R in movie.refine:
        try:
            window, fit, covariance = _match(movie, R, params, first, sigma, log)
        except AdjointRDError as error:
            return refused(movie, f"the model does not run from the start that was found ({error})")
        refusal = movie_verdict.implausible(movie, window, fit)
        if refusal:
            return refused(movie, refusal)
        done.append((window, fit, covariance))
        params, first = window.params(fit.x), _coarse(window.first(fit.xi), R)
    return _result(movie, done, sigma, measured, log)


def _start(movie: Movie, images: np.ndarray, cutoffs: list[float], log: Log) -> MovieStart | str:
    h = min(movie.grid.spacing)
    count = len(images)
    span = max(1, min(SPAN, (count - 1) // 4))
    options = dict(cutoff=max(cutoffs), band=min(*cutoffs, BAND / h), span=span)

    def wrong(params: Mapping[str, float]) -> str | None:
        return verdict.implausible(params, movie.model, movie.grid)

    if len(movie.species) == len(movie.model.species):
        order = np.argsort(movie.species)
        found = regression(movie.model, movie.grid, images[:, order], movie.times, movie.start, movie.known, **options)
    else:
        part = structure(movie.model, movie.species[0], movie.known)
        burn = min(BURN, (count - span) // 4)
        observer = Observer(
            movie.model, movie.grid, images[:, 0], movie.times, part, movie.known, burn=burn, **options
        )
        found = best_start(observer, _starts(movie, part.inner), wrong)
    log("start", params=found.params, residual=found.residual, iterations=found.iterations)
    reason = wrong(found.params)
    if reason or min(found.params[name] for name in movie.free) <= 0:
        reason = reason or "a parameter that is not positive"
        return f"the equations lead to {reason}; the frames are no movie of {movie.model.name}, or too noisy."
    return found


def _starts(movie: Movie, inner: tuple[str, ...]) -> list[dict[str, float]]:
    h2 = float(np.prod(movie.grid.spacing)) ** (2.0 / movie.grid.ndim)
    usual = {name: (0.1269 * h2 if name in movie.model.diffusivities else 0.03) for name in inner}
    first = {**usual, **{name: value for name, value in movie.start.items() if name in inner}}
    factors = product((0.3, 3.0), repeat=len(inner))
    return [first, *({name: v * f for (name, v), f in zip(usual.items(), each, strict=True)} for each in factors)]


def _match(
    movie: Movie, R: int, params: Mapping[str, float], first: np.ndarray, sigma: np.ndarray, log: Log
) -> tuple[movie_fit.Window, movie_fit.MovieFit, np.ndarray]:
    """Gauss-Newton on growing windows, on the grid R times finer."""
    grid = movie.grid
    if R > 1:
        shape = tuple(n * R for n in grid.shape)
        grid = Grid(shape, spacing=tuple(h / R for h in grid.spacing), boundary=grid.boundary)
        first = interpolate(first, R)
    steps = _steps_per_gap(movie, grid, params, R)
    sim = Simulation(movie.model, grid, dt=movie.gap / steps, scheme=movie.scheme, stability="off")
    size = np.max(np.abs(first), axis=tuple(range(1, first.ndim)))
    spread = np.array([SPREAD[c in movie.species] * max(each, 0.1 * size.max()) for c, each in enumerate(size)])
    shaped = sigma.reshape(1, -1, *(1,) * movie.grid.ndim)
    window = movie_fit.Window(
        sim, [steps * count for count in movie.counts], movie.frames, movie.seen / shaped, movie.species, movie.free,
        movie.known, first, spread, SMOOTH / min(movie.grid.spacing), R,
    )  # fmt: skip
    x, xi = np.log([params[name] for name in movie.free]), np.zeros(first.size)
    total = len(movie.counts)
    lengths = [total] if R > movie.refine[0] else _lengths(total)
    for length in lengths:
        last = length == total

        def report(fit: movie_fit.MovieFit, length: int = length) -> None:
            log(
                f"match {length} frames" + (f", R={R}" if R > 1 else ""), params=window.params(fit.x), chi2=fit.chi2,
                products=fit.products,
            )  # fmt: skip

        options = dict(most=10, products=80, tolerance=0.03) if last else dict(
            most=WINDOW_ITERATIONS, products=WINDOW_PRODUCTS, tolerance=0.1
        )  # fmt: skip
        fit = movie_fit.fit(window.shorter(length), x, xi, report=report, **options)
        x, xi = fit.x, fit.xi
    assert fit.linear is not None
    covariance = fit.linear.covariance(VARIANCE_TOLERANCE, 150)
    small = CLOSE * np.sqrt(np.diag(covariance))
    if fit.converged and np.any(np.abs(fit.change) > small):
        fit = movie_fit.fit(
            window, x, xi, most=4, products=80, tolerance=0.01, small=small, near=fit.linear, report=report
        )
    log("standard errors", **{name: float(s / CLOSE) for name, s in zip(movie.free, small, strict=True)})
    return window, fit, covariance


def _lengths(total: int) -> list[int]:
    """Frames of the windows: about doubling, up to all."""
    found = [total]
    while found[0] > 1.5 * FIRST_WINDOW:
        found.insert(0, found[0] // 2 + 1)
    return found


def _steps_per_gap(movie: Movie, grid: Grid, params: Mapping[str, float], R: int) -> int:
    if movie.dt is not None:
        return round(movie.gap / movie.dt) * R * R
    trial = Simulation(movie.model, grid, dt=movie.gap, scheme=movie.scheme, stability="off", threads=1)
    found = trial.limits({**params, **movie.known})
    limit = found.safe if found.safe == found.safe else found.certain
    return max(1, int(np.ceil(movie.gap / (REACH * limit))))


def interpolate(state: np.ndarray, R: int) -> np.ndarray:
    """A periodic state on a grid R times finer, see `trajectory_fit.interpolate`."""
    from ..trajectory_fit import interpolate as by_fourier

    return by_fourier(state, R)


def _coarse(state: np.ndarray, R: int) -> np.ndarray:
    return state[(slice(None), *(slice(None, None, R),) * (state.ndim - 1))]


def refused(movie: Movie, reason: str) -> dict[str, Any]:
    """The result of a failure."""
    nothing = dict.fromkeys(movie.free, float("nan"))
    return dict(
        params={**nothing, **movie.known},
        stderr=nothing,
        covariance=np.full((len(movie.free),) * 2, np.nan),
        names=movie.free,
        state=np.full((len(movie.model.species), *movie.grid.shape), np.nan),
        success=False,
        message=reason[0].upper() + reason[1:],
    )


def _result(movie: Movie, done: Any, sigma: np.ndarray, measured: np.ndarray, log: Log) -> dict[str, Any]:
    window, fit, covariance = done[-1]
    x, message = fit.x, ""
    if len(done) > 1:
        q = (movie.refine[-1] / movie.refine[-2]) ** 2
        x = x + (x - done[-2][1].x) / (q - 1.0)
    floored = bool(np.any(measured < sigma))
    if floored or movie.noise is None:
        # Below the floor, sigma is a weight and not a noise: its size is that of the misfit.
        covariance = covariance * (fit.chi2 if floored else max(fit.chi2, 1.0))
    params = window.params(x)
    values = np.array([params[name] for name in movie.free])
    relative = np.sqrt(np.diag(covariance))
    refusal = movie_verdict.misfit(movie, window, fit, floored) or movie_verdict.not_converged(fit)
    if refusal:
        return refused(movie, refusal)
    message = movie_verdict.praise(movie, done, x, relative, float(measured.max()))
    rate = window.sim.rate(window.first(fit.xi), params)
    return dict(
        params={name: params[name] for name in movie.model.names},
        stderr=dict(zip(movie.free, (relative * values).tolist(), strict=True)),
        covariance=covariance * np.outer(values, values),
        names=movie.free,
        state=window.first(fit.xi),
        success=True,
        message=message,
        noise=float(measured.max()),
        rate=float(np.sqrt(np.mean(rate**2))),
    )

