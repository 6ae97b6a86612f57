"""The arguments of an inversion of a movie, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import models
from ..arrays import as_array, as_dict, as_names, as_real_array
from ..errors import InputError, check_choice, check_count, check_number, did_you_mean
from ..grid import Grid
from ..schemes import get as get_scheme
from .movie import Movie, invert

LEAST_FRAMES = 5
LEAST_CELLS = 400


def run(
    data: Any,
    times: Any,
    *,
    model: Any,
    spacing: Any,
    start: Mapping[str, float] | None,
    noise: float | None,
    mask: Any,
    scale: float | None,
    species: Any,
    boundary: str,
    known: Mapping[str, float] | None,
    dt: float | None,
    scheme: str | None,
    refine: Any,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Check the arguments of `adjoint_rd.invert` and invert; the attributes of an `Inversion`."""
    model = models.get(model)
    indices, single = _species(model, species)
    if scale is None:
        raise InputError("scale=None (unknown gain) is for single snapshots; give scale= a number for a movie.")
    factor = check_number("scale", scale)
    if factor == 0.0:
        raise InputError("scale=0.0 must be other than zero.")
    frames, seen = _frames(data, mask, len(indices), single)
    check_choice("boundary", boundary, ("periodic", "neumann"))
    grid = Grid(frames.shape[2:], spacing=spacing, boundary=boundary)
    if grid.size < LEAST_CELLS:
        raise InputError(f"frames of shape {grid.shape} are too few cells; at least {LEAST_CELLS} are needed.")
    since, counts, gap = _times(times, len(frames))
    if scheme is not None:
        get_scheme(scheme)
    movie = Movie(
        model=model,
        grid=grid,
        frames=frames * factor,
        seen=seen,
        times=since,
        counts=counts,
        gap=gap,
        species=indices,
        known=_parameters("known", known, model, positive=False),
        start=_parameters("start", start, model, positive=True),
        noise=None if noise is None else check_number("noise", noise, least=0.0) * abs(factor),
        dt=None if dt is None else _dt(dt, gap),
        scheme=scheme if dt is None or scheme is not None else "euler",
        refine=_refine(refine, grid),
    )
    stages: list[dict[str, Any]] = []

    def log(name: str, **entries: Any) -> None:
        stages.append({"stage": name, **entries})
        if progress is not None:
            shown = ", ".join(f"{k} {v:.4g}" for k, v in entries.items() if k != "params")
            params = ", ".join(f"{k} {v:.5g}" for k, v in entries.get("params", {}).items())
            progress(f"{name}: {shown}{'; ' + params if params else ''}")

    found = invert(movie, log)
    if "noise" in found:
        found["noise"] /= abs(factor)
    return {**found, "stages": stages, "gain": 1.0 / factor}


def _species(model: models.Model, species: Any) -> tuple[tuple[int, ...], bool]:
    names = model.species
    single = species is None or isinstance(species, str)
    given = as_names("species", names[-1] if species is None else species)
    for name in given:
        if not isinstance(name, str) or name not in names:
            raise InputError(
                f"species has {name!r}; {model.name} has {', '.join(names)}.{did_you_mean(str(name), names)}"
            )
    if not given or len(set(given)) < len(given):
        raise InputError(f"species={species!r} must name each observed species once.")
    if 1 < len(given) < len(names):
        raise InputError(f"species={species!r} must be one or all of {', '.join(names)}.")
    return tuple(names.index(name) for name in given), single


def _frames(data: Any, mask: Any, count: int, single: bool) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.ma.getmaskarray(data) if np.ma.isMaskedArray(data) else False
    array = as_real_array("data", data).astype(np.float64)
    if array.ndim < 2:
        raise InputError(f"data has shape {array.shape}; with times it must be (frames, *grid).")
    seen = ~np.isnan(array) & ~np.broadcast_to(hidden, array.shape)
    if single:
        array, seen = array[:, None], seen[:, None]
    if not 3 <= array.ndim <= 5 or array.shape[1] != count:
        raise InputError(
            f"data has shape {np.shape(data)}; with times it must be (frames, *grid)"
            + ("." if single else f" with the {count} species between: (frames, {count}, *grid).")
        )
    if len(array) < LEAST_FRAMES:
        raise InputError(f"data has {len(array)} frames; a movie needs at least {LEAST_FRAMES}.")
    if np.any(np.isinf(array)):
        raise InputError("data has infinite values; mark missing ones as NaN or in mask.")
    if mask is not None:
        mask = as_array("mask", mask)
        if mask.dtype != bool or mask.shape not in (array.shape[2:], array.shape[:1] + array.shape[2:]):
            raise InputError(
                f"mask has dtype {mask.dtype} and shape {mask.shape}; it must be bool of shape {array.shape[2:]}, "
                "or with the frames first, True where the data count."
            )
        seen = seen & (mask if mask.ndim == array.ndim - 2 else mask[:, None])
    if seen.reshape(len(seen), -1).mean(axis=1).min() < 0.3:
        raise InputError("less than 30 % of the cells of a frame count; leave such frames out.")
    return np.where(seen, array, 0.0), seen


def _times(times: Any, count: int) -> tuple[np.ndarray, tuple[int, ...], float]:
    found = as_real_array("times", times).astype(np.float64)
    if found.shape != (count,):
        raise InputError(f"times has shape {found.shape} for {count} frames; it must be one number a frame.")
    gaps = np.diff(found)
    if not np.all(np.isfinite(found)) or not np.all(gaps > 0):
        raise InputError("times must be finite and increase.")
    for divisor in (1, 2, 3, 4, 5, 6, 8, 10):
        unit = float(gaps.min()) / divisor
        counts = gaps / unit
        if np.allclose(counts, np.rint(counts), rtol=0, atol=1e-3):
            marks = np.concatenate([[0], np.cumsum(np.rint(counts).astype(int))])
            return found - found[0], tuple(marks.tolist()), float((found[-1] - found[0]) / marks[-1])
    raise InputError(
        f"the intervals between times, {gaps.min():g} to {gaps.max():g}, must be multiples of some simple fraction (at "
        "least a tenth) of the shortest."
    )


def _parameters(argument: str, given: Any, model: models.Model, positive: bool) -> dict[str, float]:
    found = {}
    for name, value in as_dict(argument, given).items():
        if name not in model.names:
            raise InputError(
                f"{argument} has {name!r}; {model.name} has {', '.join(model.names)}.{did_you_mean(name, model.names)}"
            )
        found[name] = check_number(f"{argument}[{name!r}]", value)
        if positive and found[name] <= 0:
            raise InputError(f"{argument}[{name!r}]={value!r} must be positive.")
    return found


def _dt(dt: Any, gap: float) -> float:
    number = check_number("dt", dt)
    steps = round(gap / number) if number > 0 else 0
    if steps < 1 or abs(gap / number - steps) > 1e-3:
        raise InputError(f"dt={dt!r} must be positive and divide {gap:g}, the common interval of the times.")
    return number


def _refine(refine: Any, grid: Grid) -> tuple[int, ...]:
    given = refine if isinstance(refine, (tuple, list)) else [refine]
    values = tuple(sorted({check_count("refine", R, 1) for R in given}))
    if not values:
        raise InputError("refine is empty; give one value or several, such as (1, 2, 3).")
    if any(R % values[0] for R in values):
        raise InputError(f"refine={refine!r} must be multiples of the least, on which the fit is made.")
    if values[-1] > 1 and set(grid.boundary) != {"periodic"}:
        raise InputError(f"refine={values[-1]} interpolates by Fourier series, which needs boundary='periodic'.")
    return values
