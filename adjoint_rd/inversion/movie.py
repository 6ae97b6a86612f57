"""Parameters from a movie: frames of a moving pattern of which some species are seen, with noise.

    clean up     noise level (the corner of every frame's spectrum), low-pass wavenumber
    start        an observer of the hidden species, or regression if all are seen      movie_start
    background   the first state and the error of this guess, by wavenumber            movie_background
    match        parameters and the free first state, by Gauss-Newton on windows that
                 grow from a few frames to all, as far as the last fit still follows
                 the frames (C. Pires et al., Tellus 48A (1996) 96)                      movie_fit
    verify       misfit against noise, frame by frame and between neighbours           movie_verdict

Frames of a run of this library want that run's `dt`, `scheme` and grid: then there is no discretisation error at all.
If `dt` and `scheme` are not given, `movie_steps` finds from the frames whether they follow Euler steps of some length
or the continuous equations (then by RK4, whose error in time is negligible). The star Laplacian's error is ``O(h^2)``:
with `refine` the runs of the fit are corrected for it, see `movie_grid`.
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
from ..trajectory_fit.refinement import finer, interpolate
from . import cleanup, movie_background, movie_fit, movie_grid, movie_steps, movie_verdict, verdict
from .movie_fit import MovieFit, Window
from .movie_start import MovieStart, Observer, best_start, regression
from .start import structure

BURN, SPAN = 8, 3  # frames that the observer takes to forget its start; intervals in one residual
BAND = 1.2  # wavenumber times spacing up to which the observer's residual looks
FIRST_WINDOW = 6  # frames
SHORT: dict[str, Any] = dict(most=8, products=40, tolerance=0.1, gain=0.004)  # `movie_fit.fit` to some of the frames
FULL: dict[str, Any] = dict(most=12, products=80, tolerance=0.01)  # to all
SETTLE: dict[str, Any] = dict(close=0.2, tolerance=0.01, products=150)  # `movie_fit.settle`
FOLLOWS = 1.5  # misfit of a frame, over the noise squared, up to which a run follows it
FLOOR = 1e-3  # of the largest value: frames are not trusted to better


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
    scheme : str or None
        None: to be found.
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
    scheme: str | None
    refine: tuple[int, ...]

    @property
    def free(self) -> tuple[str, ...]:
        """The parameters to fit."""
        return tuple(name for name in self.model.names if name not in self.known)


Log = Callable[..., None]


@dataclass(frozen=True)
class Matched:
    """A fit to all frames, the covariance of its logarithms, and what was found of the time step or of the grid."""

    window: Window
    fit: MovieFit
    covariance: np.ndarray
    step: movie_steps.TimeStep | None = None
    correction: movie_grid.Correction | None = None


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
    try:
        matched = _match(movie, begin.params, _background(movie, begin, sigma), sigma, log)
    except AdjointRDError as error:
        return refused(movie, f"the model does not run from the start that was found ({error})")
    refusal = movie_verdict.implausible(movie, matched)
    if refusal:
        return refused(movie, refusal)
    return _result(movie, matched, sigma, measured)


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


def _background(movie: Movie, begin: MovieStart, sigma: np.ndarray) -> movie_background.Background:
    complete = bool(movie.seen.all())
    guess = movie_background.blind(begin.first, movie.grid, movie.species, sigma, complete)
    if begin.observer is None:
        return guess
    return movie_background.learned(begin.observer, begin.params, guess, complete)


def _starts(movie: Movie, inner: tuple[str, ...]) -> list[dict[str, float]]:
    h2 = float(np.prod(movie.grid.spacing)) ** (2.0 / movie.grid.ndim)
    usual = {name: (0.1269 * h2 if name in movie.model.diffusivities else 0.03) for name in inner}
    first = {**usual, **{name: value for name, value in movie.start.items() if name in inner}}
    factors = product((0.3, 3.0), repeat=len(inner))
    return [first, *({name: v * f for (name, v), f in zip(usual.items(), each, strict=True)} for each in factors)]


def _match(
    movie: Movie, params: Mapping[str, float], background: movie_background.Background, sigma: np.ndarray, log: Log
) -> Matched:
    """Gauss-Newton on growing windows; the time step, or the error of the grid; the standard errors."""
    window = _window(movie, params, background, sigma)
    x, xi = np.log([params[name] for name in movie.free]), np.zeros(window.background.size)

    def report(window: Window) -> Callable[[MovieFit], None]:
        name = f"match {len(window.counts)} frames"
        return lambda fit: log(name, params=window.params(fit.x), chi2=fit.chi2, products=fit.products)

    now = movie_fit.fit_at(window.shorter(2), x, xi)
    length = min(FIRST_WINDOW, len(movie.counts))
    while length < len(movie.counts):
        shorter = window.shorter(length)
        now = movie_fit.fit(shorter, now.x, now.xi, **SHORT, near=now.linear, report=report(shorter))
        length = _next_length(window, now, length)

    def refit(window: Window, fit: MovieFit) -> MovieFit:
        return movie_fit.fit(window, fit.x, fit.xi, **FULL, near=fit.linear, report=report(window))

    fit = refit(window, now)
    step = correction = None
    if len(movie.refine) > 1:
        window, fit, correction = movie_grid.correct(window, fit, movie.refine, refit, log)
    elif movie.dt is None and movie.scheme is None and movie.refine == (1,):
        window, fit, step = movie_steps.choose(window, fit, refit, log)
    covariance = movie_fit.settle(window, fit, **SETTLE, report=report(window))
    if step is not None and step.open:
        covariance = covariance + np.outer(step.slope, step.slope) * step.deviation**2
    if correction is not None:
        moved = movie_grid.left_over(correction, fit, window)
        covariance = covariance + np.outer(moved, moved)
    log("standard errors", **dict(zip(movie.free, np.sqrt(np.diag(covariance)).tolist(), strict=True)))
    return Matched(window, fit, covariance, step, correction)


def _window(
    movie: Movie, params: Mapping[str, float], background: movie_background.Background, sigma: np.ndarray
) -> Window:
    coarse, scheme = movie.grid, movie.scheme or "euler"
    R = movie.refine[0]
    grid = finer(coarse, R)
    if movie.dt is not None:
        steps = round(movie.gap / movie.dt) * R * R
    elif scheme == "euler":  # so that its error falls as that of the grid does
        steps = movie_steps.by_default(movie.model, coarse, movie.gap, scheme, params) * R * R
    else:
        steps = movie_steps.by_default(movie.model, grid, movie.gap, scheme, params)
    weights = movie.seen / sigma.reshape(1, -1, *(1,) * coarse.ndim)
    return Window(
        movie.model, grid, movie.gap, movie.counts, steps, scheme, movie.frames, weights, movie.species, movie.free,
        movie.known, interpolate(background.mean, R), background.on(grid, R), R,
    )  # fmt: skip


def _next_length(window: Window, now: MovieFit, length: int) -> int:
    """Frames of the next window: up to where the run of this one still follows the frames, and some more."""
    least, total = length + max(2, length // 6), len(window.counts)
    try:
        m = movie_fit.fit_at(window, now.x, now.xi).misfit
    except AdjointRDError:
        return min(least, total)
    cells = np.maximum(np.count_nonzero(window.weights.reshape(total, -1), axis=1), 1)
    lost = np.flatnonzero(np.sum(m.reshape(total, -1) ** 2, axis=1) / cells > FOLLOWS)
    follows = int(lost[0]) if lost.size else total
    return min(max(least, follows), total)


def refused(
    movie: Movie, reason: str, params: Mapping[str, float] | None = None, state: np.ndarray | None = None
) -> dict[str, Any]:
    """The result of a failure; with the best that there is, if that is anything."""
    nothing = dict.fromkeys(movie.free, float("nan"))
    return dict(
        params={**nothing, **movie.known, **(params or {})},
        stderr=nothing,
        covariance=np.full((len(movie.free),) * 2, np.nan),
        names=movie.free,
        state=np.full((len(movie.model.species), *movie.grid.shape), np.nan) if state is None else state,
        success=False,
        message=reason[0].upper() + reason[1:],
    )


def _result(movie: Movie, last: Matched, sigma: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    window, fit, covariance = last.window, last.fit, last.covariance
    floored = bool(np.any(measured < sigma))
    if floored or movie.noise is None:
        covariance = covariance * max(fit.chi2, 1.0)
    params = window.params(fit.x)
    refusal = movie_verdict.misfit(movie, last, floored)
    if refusal:
        return refused(movie, refusal)
    if not fit.converged:
        return refused(movie, movie_verdict.NOT_CONVERGED, params, window.first(fit.xi))
    values = np.array([params[name] for name in movie.free])
    relative = np.sqrt(np.diag(covariance))
    rate = window.sim.rate(window.first(fit.xi), params)
    return dict(
        params={name: params[name] for name in movie.model.names},
        stderr=dict(zip(movie.free, (relative * values).tolist(), strict=True)),
        covariance=covariance * np.outer(values, values),
        names=movie.free,
        state=window.first(fit.xi),
        success=True,
        message=movie_verdict.praise(movie, last, relative, float(measured.max())),
        noise=float(measured.max()),
        rate=float(np.sqrt(np.mean(rate**2))),
    )
