"""A guess of the first state of a movie, and the spectrum of its error, both learned from the movie itself.

An observer that is driven by the observed species o (see `movie_start`) knows the hidden species h, but only after its
burn-in, never in the first frame. From the frames after the burn-in, h is regressed on what is seen from each of them
on: with features f_j (o, the steady hidden species s(o), and the reaction at (s, o), each in a few successive frames),
in every mode of the grid's Laplacian

    h^ = sum_j G_j(|k|) f^_j,

G real and constant on rings of wavenumbers, by least squares over the modes of the ring and the frames (a Wiener filter
with several inputs: N. Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949). The same
filter is applied to the first frames. Its error in a ring is that in blocks of frames left out of the fit; what errors
of the observer's parameters cause, which all frames share, is added. So the first state has a prior whose width is
measured, from some 1e-3 at high wavenumbers to the size of h itself at low ones: one width for all would bias the
parameters at low wavenumbers and slow the solver down at high ones. The observed species begins as the low-passed first
frame.
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
FEWEST = 4  # frames to learn from
PASSES = 3
RING = 0.1  # width of a ring, wavenumber times spacing
RIDGE = 1e-4  # of the features' power
INFLATE = 1.5  # of the measured error
UNIFORM = 0.1  # error of the mean, of the largest value: frames have one each, and much the same
STRAY = 0.03  # error of the parameters that the observer is given, of their values
LEAST = 0.5  # error of h in units of the noise of o, which hides what is finer
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
    part, hidden = observer.part, observer.part.hidden
    features = _Features(observer, params)
    rings = _Rings(features.spectral, guess.wavenumbers)
    first = None
    for _ in range(PASSES):  # after the first the observer begins where it should
        h = observer.integrals(params, first)["hidden"]
        first, error = _filtered(features, rings, h[..., 0], frames)
    slopes = [params[q] * features.transformed(h[frames, :, 1 + i]) for i, q in enumerate(part.inner)]
    stray = STRAY**2 * sum(rings.mean(np.mean(np.abs(each) ** 2, axis=0)) for each in slopes)
    least = LEAST / OBSERVED * guess.deviation[part.observed]
    error = np.sqrt((INFLATE * error) ** 2 + stray + least**2)
    error[0] = UNIFORM * float(np.max(np.abs(first))) * np.sqrt(observer.grid.size)
    mean, deviation = guess.mean.copy(), guess.deviation.copy()
    mean[hidden] = first
    deviation[hidden] = error if complete else np.maximum(error, deviation[hidden])
    return Background(mean, guess.wavenumbers, deviation)


def _edges(grid: Grid) -> np.ndarray:
    """0 and the centres of the rings."""
    h = min(grid.spacing)
    most = float(np.sqrt(np.max(-Spectral(grid).lam)))
    return np.concatenate([[0.0], np.arange(0.5 * RING / h, most, RING / h)])


class _Rings:
    """Modes of a grid by wavenumber: the mean alone, then rings about the other `wavenumbers`."""

    def __init__(self, spectral: Spectral, wavenumbers: np.ndarray):
        k = np.sqrt(-spectral.lam).ravel()
        ring = np.searchsorted(0.5 * (wavenumbers[2:] + wavenumbers[1:-1]), k)
        self.modes = [np.flatnonzero(ring == n) for n in range(len(wavenumbers) - 1)]  # the mean in the first one too

    def mean(self, power: np.ndarray) -> np.ndarray:
        """The mean in each ring, with that of the first for the mean itself."""
        return self.filled([float(power.ravel()[modes].mean()) if modes.size else np.nan for modes in self.modes])

    @staticmethod
    def filled(values: list[float]) -> np.ndarray:
        """Values of the rings, where one is empty that of the ring before, and of the mean."""
        for n in range(1, len(values)):
            if np.isnan(values[n]):
                values[n] = values[n - 1]
        return np.array(values[:1] + values)


class _Features:
    """What is seen at a frame and after it, as coefficients of unit white noise in each mode (features, *modes)."""

    def __init__(self, observer: Observer, params: Mapping[str, float]):
        self.grid, part = observer.grid, observer.part
        self.spectral = Spectral(self.grid)
        walls = sum(kind != "periodic" for kind in self.grid.boundary)  # see `cleanup.spectrum`
        self.unit = np.sqrt(self.grid.size * 2.0**walls)
        kinetics = tuple(params[name] for name in observer.model.parameters)
        self.hats = []
        for o in observer.frames:
            s, _ = Residual(observer.model, self.grid, o, part, observer.known).hidden(params)
            state = (s, o) if part.hidden == 0 else (o, s)
            reaction = observer.model.reaction(state, kinetics)[part.observed]
            self.hats.append(self.transformed(np.stack([o, s, reaction])))

    def transformed(self, a: np.ndarray) -> np.ndarray:
        return self.spectral.forth(a.reshape(-1, *self.grid.shape)) / self.unit

    def back(self, hat: np.ndarray) -> np.ndarray:
        return self.spectral.back(hat * self.unit)

    def at(self, frame: int) -> np.ndarray:
        return np.concatenate(self.hats[frame : frame + AHEAD])


def _filtered(features: _Features, rings: _Rings, h: np.ndarray, frames: range) -> tuple[np.ndarray, np.ndarray]:
    """h in the first frame, and the error at each wavenumber."""
    X = np.stack([features.at(f).reshape(3 * AHEAD, -1) for f in frames])
    Y = features.transformed(h[frames]).reshape(len(frames), -1)
    X0 = features.at(0).reshape(3 * AHEAD, -1)
    mean_x, mean_y = X[:, :, :1].mean(axis=0), Y[:, :1].mean()  # of the first mode, in which all is uniform
    X[:, :, :1] -= mean_x
    Y[:, :1] -= mean_y
    X0[:, :1] -= mean_x
    blocks = np.array_split(np.arange(len(frames)), BLOCKS)
    first, error = np.zeros(Y.shape[1], Y.dtype), []
    for modes in rings.modes:
        if not modes.size:
            error.append(np.nan)
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
        error.append(float(np.sqrt(total / y.size)))
    first[:1] += mean_y
    return features.back(first.reshape(features.hats[0].shape[1:])), rings.filled(error)


def _solve(square: np.ndarray, cross: np.ndarray) -> np.ndarray:
    ridge = RIDGE * np.diag(square) + 1e-300
    return np.linalg.solve(square + np.diag(ridge), cross)
