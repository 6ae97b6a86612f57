"""The arguments of a trajectory fit, checked, and what the file says of the parameters."""

from typing import Any

import numpy as np

from .. import models
from ..errors import InputError, check_count
from ..grid import BOUNDARIES, Grid
from ..io import Observation

REFINE = (1, 2, 3)


def known_parameters(observation: Observation, model: Any) -> dict[str, float]:
    """What the file says of the model's parameters.

    Names are compared without case; the diffusivity of the c-th species may also be called ``D_`` or ``D`` and the
    file's name of that species (``D_A`` in The Well).
    """
    given = {name.lower(): value for name, value in observation.parameters.items()}
    found = {}
    for name in model.names:
        aliases = [name.lower()]
        if name in model.diffusivities and len(observation.names) == len(model.species):
            species = observation.names[model.diffusivities.index(name)].lower()
            aliases += [f"d_{species}", f"d{species}"]
        for alias in aliases:
            if alias in given:
                found[name] = given[alias]
                break
    return found


def frames(observation: Any, model: models.Model, frames: int) -> np.ndarray:
    """The first so many frames (T, S, *shape), float64."""
    if not isinstance(observation, Observation):
        raise InputError(
            f"observation is a {type(observation).__name__}; it must be an Observation, from "
            "adjoint_rd.io.read_observation."
        )
    fields, species = np.asarray(observation.fields), model.species
    if fields.ndim < 3 or fields.shape[1] != len(species):
        raise InputError(
            f"the observation has fields of shape {fields.shape} (time, species, cells); {model.name} needs frames "
            "of its "
            f"{len(species)} species {', '.join(species)}, because the run starts at the first frame."
        )
    if len(fields) < 2:
        raise InputError("the observation has one frame; a trajectory fit needs at least 2.")
    used = np.array(fields[:frames], dtype=np.float64)
    if not np.isfinite(used).all():
        raise InputError("the frames have values that are not finite; a trajectory fit needs complete frames.")
    return used


def spacing(observation: Observation) -> tuple[float, ...]:
    """That of the file."""
    if observation.spacing is None:
        raise InputError(
            "the observation has no spacing; give it: dataclasses.replace(observation, spacing=(h, h)), or --spacing."
        )
    return observation.spacing


def boundary(observation: Observation, boundary: Any) -> tuple[Any, list[str]]:
    """What is given, else the file's, else periodic; and remarks."""
    if boundary is not None:
        return boundary, []
    if observation.boundary is None:
        return "periodic", ["The file says nothing of the boundary; it was taken as periodic."]
    unknown = [kind for kind in observation.boundary if kind not in BOUNDARIES]
    if unknown:
        raise InputError(
            f"the file calls its boundary {unknown[0]!r}; say what it is with boundary=, one of "
            f"{', '.join(BOUNDARIES)}."
        )
    return observation.boundary, []


def times(observation: Observation, count: int) -> tuple[float, list[int]]:
    """The shortest interval between frames, and the times of all frames but the first in this unit."""
    times = observation.times
    if times is None:
        raise InputError(
            "the observation has no times; give them: dataclasses.replace(observation, times=...), or --interval."
        )
    if np.shape(times) != (len(observation.fields),):
        raise InputError(f"the observation has times of shape {np.shape(times)} for {len(observation.fields)} frames.")
    times = np.asarray(times, dtype=np.float64)[:count]
    gaps = np.diff(times)
    if not np.all(gaps > 0):
        raise InputError("the times of the frames must increase.")
    counts = gaps / gaps.min()
    if not np.allclose(counts, np.rint(counts), rtol=0, atol=1e-3):
        raise InputError(
            f"the intervals between frames, {gaps.min():g} to {gaps.max():g}, must be multiples of the shortest."
        )
    marks = np.cumsum(np.rint(counts).astype(int))
    return float((times[-1] - times[0]) / marks[-1]), [int(mark) for mark in marks]


def refine(refine: Any, grid: Grid) -> tuple[int, ...]:
    """The values, ascending."""
    periodic = set(grid.boundary) == {"periodic"}
    if refine is None:
        return REFINE if periodic else (1,)
    values = tuple(sorted({check_count("refine", R, 1) for R in ([refine] if np.ndim(refine) == 0 else refine)}))
    if not values:
        raise InputError("refine is empty; give one value or several, such as (1, 2, 3).")
    if values[-1] > 1 and not periodic:
        raise InputError(
            f"refine={values[-1]} interpolates by Fourier series, which needs a periodic grid; this is {grid}. Use "
            "refine=1."
        )
    return values


def noise(noise: Any, frames: np.ndarray) -> np.ndarray:
    """The standard deviation of each species, by default its own, to broadcast against a state."""
    scale = np.std(frames, axis=(0, *range(2, frames.ndim)))
    scale[scale == 0.0] = 1.0
    if noise is not None:
        try:
            scale = np.broadcast_to(np.asarray(noise, dtype=np.float64), scale.shape)
        except (TypeError, ValueError):
            raise InputError(
                f"noise={noise!r} must be one number, or one for each of the {len(scale)} species."
            ) from None
    return scale.reshape(-1, *(1,) * (frames.ndim - 2))
