"""A guess of the first state of a movie, and the spectrum of its error, both learned from the movie itself.

An observer that is driven by the observed species o (see `movie_start`) knows the hidden species h, but only after its
burn-in, never in the first frame. From the frames after the burn-in, h is regressed on what is seen from each of them
on: with features f_j (o, the steady hidden species s(o), and the reaction at (s, o), each in a few successive frames),
in every mode of the grid's Laplacian

    h^ = sum_j G_j(|k|) f^_j,

G real and constant on rings of wavenumbers, by least squares over the modes of the ring and the frames (a Wiener filter
with several inputs: N. Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949). The same
filter is applied to the first frames. Its error in a ring is that in blocks of frames left out of the fit. So the first
state has a prior whose width is measured, from 1e-3 at high wavenumbers to the size of h itself at low ones, instead of
one that is too wide there and too narrow here. The observed species begins as the low-passed first frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..grid import Grid
from ..sparse import Spectral
from .movie_start import Observer
from .start import Residual

AHEAD = 4  # successive frames that the features are of
BLOCKS = 3  # of frames, each left out once
FEWEST = 6  # frames to learn from
RING = 0.1  # width of a ring, wavenumber times spacing
RIDGE = 1e-4  # of the features' power
INFLATE = 1.5  # of the measured error
UNIFORM = 3.0  # of the error of the mean, on top: there is one mean in a frame, and frames are much alike
LEAST = 1e-4  # error, of the hidden species' largest value
OBSERVED = 4.0  # error of the observed species' first state, in units of the noise
BLIND = 0.2  # error of the hidden one, of its largest value, where there is nothing to learn from
HOLES = 0.1  # least error of the observed one in units of its largest value, where not all is seen
SMOOTH = 1.5  # wavenumber times spacing beyond which the first state is smooth


@dataclass(frozen=True)
class Background:
    """The prior of the first state: its mean, and its standard deviation in each mode.

    Attributes
    ----------
    mean : ndarray (S, *shape)
    wavenumbers : ndarray (K,)
    deviation : ndarray (S, K)
        At these wavenumbers, as of a white field with this standard deviation in each cell.
    """

    mean: np.ndarray
    wavenumbers: np.ndarray
    deviation: np.ndarray

    def on(self, grid: Grid, refine: int = 1) -> np.ndarray:
        """The deviation in each mode of a grid, `refine` times finer than that of `mean`, (S, *modes)."""
        k = np.sqrt(-Spectral(grid).lam)
        rows = [np.exp(np.interp(k, self.wavenumbers, np.log(row))) for row in self.deviation]
        return float(refine) ** (0.5 * grid.ndim) * np.stack(rows)


def blind(first: np.ndarray, grid: Grid, observed: tuple[int, ...], sigma: np.ndarray, complete: bool) -> Background:
    """A background about a guess of which nothing is known but that the observed species have errors like noise.

    Parameters
    ----------
    first : ndarray (S, *shape)
    grid : Grid
    observed : tuple of int
    sigma : ndarray (O,)
        Noise of the observed species.
    complete : bool
        Whether all cells of all frames are seen.
    """
    edges = _edges(grid)
    size = np.max(np.abs(first), axis=tuple(range(1, first.ndim)))
    spread = BLIND * np.maximum(size, 0.1 * size.max())
    for c, noise in zip(observed, sigma, strict=True):
        spread[c] = OBSERVED * noise if complete else max(OBSERVED * noise, HOLES * size[c])
    # The fourth power: steep enough to matter, flat enough to leave the wavenumbers of patterns alone.
    smooth = 1.0 / (1.0 + (edges * min(grid.spacing) / SMOOTH) ** 4)
    return Background(first, edges, spread[:, None] * smooth)


def learned(observer: Observer, params: Mapping[str, float], guess: Background, complete: bool) -> Background:
    """The background of a movie of one species, from its later frames; `guess` if there are too few.

    Parameters
    ----------
    observer : Observer
    params : dict
        All parameters, as good as they are known so far.
    guess : Background
        By `blind`.
    complete : bool
        Whether all cells of all frames are seen; else the error is at least that of the guess.
    """
    frames = range(observer.burn, len(observer.frames) - AHEAD)
    if len(frames) < FEWEST:
        return guess
    hidden, grid = observer.part.hidden, observer.grid
    features = _Features(observer, params)
    first, mean, error = None, guess.mean.copy(), np.zeros(len(guess.wavenumbers))
    for _ in range(2):  # the second time the observer begins where it should
        h = observer.integrals(params, first)["hidden"].reshape(-1, *grid.shape)
        first, error = _filtered(features, h, frames, guess.wavenumbers)
    size = float(np.max(np.abs(mean[hidden])))
    error = np.maximum(INFLATE * error, LEAST * size)
    error[0] *= UNIFORM
    deviation = guess.deviation.copy()
    deviation[hidden] = error if complete else np.maximum(error, deviation[hidden])
    mean[hidden] = first
    return Background(mean, guess.wavenumbers, deviation)


def _edges(grid: Grid) -> np.ndarray:
    """0 and the centres of the rings."""
    h = min(grid.spacing)
    most = float(np.sqrt(np.max(-Spectral(grid).lam)))
    return np.concatenate([[0.0], np.arange(0.5 * RING / h, most, RING / h)])


class _Features:
    """What is seen at a frame and after it, as coefficients of unit white noise in each mode (features, *modes)."""

    def __init__(self, observer: Observer, params: Mapping[str, float]):
        self.grid, part = observer.grid, observer.part
        self.spectral = Spectral(self.grid)
        kinetics = tuple(params[name] for name in observer.model.parameters)
        self.hats = []
        for o in observer.frames:
            s, _ = Residual(observer.model, self.grid, o, part, observer.known).hidden(params)
            state = (s, o) if part.hidden == 0 else (o, s)
            reaction = observer.model.reaction(state, kinetics)[part.observed]
            self.hats.append(self.transformed(np.stack([o, s, reaction])))

    def transformed(self, a: np.ndarray) -> np.ndarray:
        walls = sum(kind != "periodic" for kind in self.grid.boundary)  # see `cleanup.spectrum`
        return self.spectral.forth(a.reshape(-1, *self.grid.shape)) / np.sqrt(self.grid.size * 2.0**walls)

    def back(self, hat: np.ndarray) -> np.ndarray:
        walls = sum(kind != "periodic" for kind in self.grid.boundary)
        return self.spectral.back(hat * np.sqrt(self.grid.size * 2.0**walls))

    def at(self, frame: int) -> np.ndarray:
        return np.concatenate(self.hats[frame : frame + AHEAD])


def _filtered(
    features: _Features, h: np.ndarray, frames: range, wavenumbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """h in the first frame, and the error in rings of wavenumbers."""
    X = np.stack([features.at(f).reshape(3 * AHEAD, -1) for f in frames])
    Y = np.stack([features.transformed(h[f]).ravel() for f in frames])
    X0, uniform = features.at(0).reshape(3 * AHEAD, -1), 0  # the first mode
    mean_x, mean_y = X[:, :, uniform].mean(axis=0), Y[:, uniform].mean()
    X[:, :, uniform] -= mean_x
    Y[:, uniform] -= mean_y
    X0[:, uniform] -= mean_x
    k = np.sqrt(-np.broadcast_to(features.spectral.lam, features.hats[0].shape[1:])).ravel()
    ring = np.searchsorted(0.5 * (wavenumbers[1:] + wavenumbers[:-1])[1:], k)
    blocks = np.array_split(np.arange(len(frames)), BLOCKS)
    first, error = np.zeros(k.size, Y.dtype), np.empty(len(wavenumbers))
    for n in range(len(wavenumbers) - 1):
        modes = np.flatnonzero(ring == n)
        if not modes.size:
            error[n + 1] = error[n]
            continue
        x, y = X[:, :, modes], Y[:, modes]
        square = np.einsum("fim,fjm->fij", x, x.conj()).real
        cross = np.einsum("fim,fm->fi", x, y.conj()).real
        first[modes] = _solve(square.sum(axis=0), cross.sum(axis=0)) @ X0[:, modes]
        total = 0.0
        for block in blocks:
            others = np.setdiff1d(np.arange(len(frames)), block)
            G = _solve(square[others].sum(axis=0), cross[others].sum(axis=0))
            total += float(np.sum(np.abs(y[block] - G @ x[block]) ** 2))
        error[n + 1] = np.sqrt(total / y.size)
    error[0] = error[1]
    first[uniform] += mean_y
    return features.back(first.reshape(features.hats[0].shape[1:])), error


def _solve(square: np.ndarray, cross: np.ndarray) -> np.ndarray:
    ridge = RIDGE * np.diag(square) + 1e-300
    return np.linalg.solve(square + np.diag(ridge), cross)
