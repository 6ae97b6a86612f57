"""Refinement of a large image in tiles: each as a crop, by itself, and their estimates put together.

The factors of a whole image of n^2 cells take n^3 operations. A tile loses the equation on its outermost cells.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from . import cleanup, estimate
from .refine import refine
from .snapshot import Snapshot
from .start import Residual, StartFit, structure

MOST_CELLS = 20_000  # more are refined in tiles
TILE = 64**2  # cells of one, about
LEAST_TILES = 2  # from which an interrupted fit has a result
COMMON = 0.3  # of a tile's standard errors: what may bias all tiles alike, measured 0.2 for patterns that still move


def fit(given: Snapshot, begin: StartFit, shift: float, spectrum: cleanup.Spectrum) -> estimate.Estimate | str:
    """The estimate from all tiles, or why there is none; if interrupted from those that are done."""
    state = begin.state.reshape(len(given.model.species), *given.grid.shape)
    fitted, found, reason = state.copy(), [], ""
    places = _places(given.grid.shape)
    tried, note = 0, ""
    for n, place in enumerate(places, 1):
        box = (slice(None), *place)
        data = np.where(given.seen[box], given.values[box] / given.scale, np.nan)
        if np.isnan(data).mean() > 0.5:
            continue
        try:
            one = _fit_tile(given, data, replace(begin, state=state[box].reshape(len(state), -1)), shift, spectrum)
        except KeyboardInterrupt:
            if len(found) < LEAST_TILES:
                raise
            note = f" Interrupted: from {len(found)} of {len(places)} tiles."
            break
        tried += 1
        if isinstance(one, str):
            reason = reason or one
            given.log(f"tile {n} of {len(places)}", failed=one)
            continue
        given.log(f"tile {n} of {len(places)}", params=dict(zip(given.free, one.values().tolist(), strict=True)))
        found.append(one)
        fitted[box] = one.state.reshape(fitted[box].shape)
    given.log("tiles", tiles=len(places), fitted=len(found))
    if not tried:
        return "no part of the image has data on half of its cells"
    if len(found) < 0.5 * tried:
        return f"{tried - len(found)} of {tried} tiles do not fit: {reason}"
    joint, agreement = estimate.together(given, found)
    if agreement < estimate.DISAGREE:
        return "its parts do not have the same parameters"
    if len(given.species) == 1:  # on the rim of a tile the hidden species is hardly known
        part = structure(given.model, given.species[0], given.known)
        whole = Residual(given.model, given.grid, fitted[part.observed], part, given.known)
        fitted[part.hidden] = whole.hidden(joint.params(given))[0].reshape(given.grid.shape)
    joint = replace(
        joint, state=fitted.reshape(len(state), -1), covariance=joint.covariance * (1.0 + COMMON**2 * len(found)),
        rate=float(np.sqrt(np.mean([one.rate**2 for one in found]))),
        noise=float(np.mean([one.noise for one in found])), note=note + joint.note,
    )  # fmt: skip
    return estimate.of_tiles(given, joint)


def _places(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """The tiles, as near to cubes as the shape allows."""
    side = 1
    while np.prod([min(n, side) for n in shape]) < min(TILE, np.prod(shape)):
        side += 1
    parts = [np.array_split(np.arange(n), max(round(n / side), 1)) for n in shape]
    return list(product(*([slice(part[0], part[-1] + 1) for part in along] for along in parts)))


def _fit_tile(
    given: Snapshot, data: np.ndarray, begin: StartFit, shift: float, spectrum: cleanup.Spectrum
) -> estimate.Estimate | str:
    tile = Snapshot(
        data, given.model, given.grid.spacing, None, given.noise and given.noise / abs(given.scale), None,
        given.scale, [given.model.species[c] for c in given.species], "cropped", given.known, given.offset_unknown,
        1, None, given.at_rest, None,
    )  # fmt: skip
    found = refine(tile, begin, shift, spectrum, loose=False)
    return found if isinstance(found, str) else estimate.of_fit(tile, found, begin, spectrum)
