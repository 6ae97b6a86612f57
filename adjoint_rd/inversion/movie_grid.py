"""The error of the grid and the time step, corrected from runs on finer grids: Richardson, with a coarse Jacobian.

A run on the grid of the frames differs from the continuous equations by ``c_2 h^2 + c_4 h^4 + ...``, with Euler's
scheme too if the steps grow as R^2 with the refinement R. At the fitted parameters and first state (interpolated by
Fourier series) it is repeated with each R, and the frames y of the continuous equations are the polynomial in
``s = 1 / R^2`` through them at s = 0 (`trajectory_fit.refinement.weights`).

The fit's own frames are corrected by the difference, the fit is repeated from where it is, and so on until its
parameters stay: Gauss-Newton with the accurate misfit and the Jacobian of the coarse grid, whose error only slows it
down (a factor of about 10 an iteration; a method of deferred correction, V. Pereyra, Numer. Math. 11 (1968) 111). No
fit is ever made on a fine grid. What the extrapolation without the coarsest run would move is taken as the error that
is left, and added to the covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..simulation import Simulation
from ..trajectory_fit.refinement import finer, interpolate, weights
from .movie_fit import MovieFit, Window

MOST = 6  # corrections
SETTLED = 2e-4  # move of a logarithm after which there is no further one


@dataclass(frozen=True)
class Correction:
    """What the corrections did.

    Attributes
    ----------
    refine : tuple of int
        The first is that of the fit.
    moved : ndarray
        |change| of the fitted logarithms by all corrections.
    left : ndarray
        The frames by all values of R minus those without the coarsest, at the end.
    settled : bool
        Whether the last correction left the parameters alone.
    """

    refine: tuple[int, ...]
    moved: np.ndarray
    left: np.ndarray
    settled: bool


def correct(
    window: Window,
    fit: MovieFit,
    refine: tuple[int, ...],
    refit: Callable[[Window, MovieFit], MovieFit],
    log: Callable[..., None],
) -> tuple[Window, MovieFit, Correction]:
    """Repeat a fit with runs corrected for the error of their grid.

    Parameters
    ----------
    window, fit
        On the grid of refinement ``refine[0]``.
    refine : tuple of int
        Ascending.
    refit : callable
        ``(window, fit) -> fit`` of another window, from a fit.
    log : callable

    Returns
    -------
    window, fit, correction
        The window's data are shifted by the error of its grid.
    """
    begin, own, settled = fit.x, window, False
    for _ in range(MOST):
        error, left = grid_error(own, fit, refine)
        window, before = own.with_data(own.data + error), fit.x
        fit = refit(window, fit)
        moved = np.abs(fit.x - before)
        log("grid", params=window.params(fit.x), error=float(np.sqrt(np.mean(error**2))), moved=float(moved.max()))
        settled = bool(np.all(moved < SETTLED))
        if settled:
            break
    return window, fit, Correction(refine, np.abs(fit.x - begin), left, settled)


def left_over(correction: Correction, fit: MovieFit, window: Window) -> np.ndarray:
    """By how much what is `left` of the grid's error moves the fitted logarithms."""
    assert fit.linear is not None
    moved, _ = fit.linear.step(correction.left * window.weights, np.zeros_like(fit.xi), 0.03, 80)
    return moved


def grid_error(window: Window, fit: MovieFit, refine: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a fit's run minus those of the continuous equations, (M, O, *shape), and what is `left`."""
    frames = np.stack([_frames(window, fit, R // refine[0]) for R in refine])
    exact = np.tensordot(weights(refine), frames, axes=1)
    return frames[0] - exact, exact - np.tensordot(weights(refine[1:]), frames[1:], axes=1)


def _frames(window: Window, fit: MovieFit, ratio: int) -> np.ndarray:
    """The observed frames on a grid `ratio` times as fine as the window's."""
    grid = finer(window.grid, ratio)
    steps = window.steps * ratio**2
    sim = Simulation(window.model, grid, dt=window.interval / steps, scheme=window.sim.scheme_name, stability="off")
    first = interpolate(window.first(fit.xi), ratio)
    last = steps * window.counts[-1]
    states = sim.run(first, window.params(fit.x), steps=last, save_every=steps).states[window.counts]
    cells = (slice(None, None, ratio),) * grid.ndim
    return window.observed(states[(slice(None), slice(None), *cells)])
