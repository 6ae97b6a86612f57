"""Observations from .npy and .npz files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import open_npz, read_header, read_member
from ..runs import FORMAT, VERSION, Run, read_run
from .observation import Observation, check_size

SPATIAL = "xyz"


def read_npy(path: Path, frames: slice | None, axes: str | None) -> Observation:
    """Frames from an array, see `read_observation`."""
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"PK":
        raise InputError(f"{path} is named .npy but holds an archive; rename it to .npz.")
    try:
        if start != b"\x93NUMPY":
            raise ValueError("it does not begin like one")
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, MemoryError) as error:
        raise InputError(f"{path} is not a readable .npy file: {error}") from None
    return Observation(_arrange(path, array, frames, axes), None, None, {}, (), None, str(path))


def read_npz(path: Path, frames: slice | None, axes: str | None) -> Observation:
    """Frames from a saved run or from named arrays, see `read_observation`."""
    with open_npz(path) as archive:
        header = read_header(path, archive, FORMAT, VERSION)
        if header is not None:
            run = read_run(path, archive, header)
            return _from_run(path, run, frames)
        sizes = {name: read_member(path, archive, name) for name in archive.files}
    arrays = {name: array for name, array in sizes.items() if array.ndim}
    name = "fields" if "fields" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if name is None:
        raise InputError(
            f"{path} holds {', '.join(f'{n} {a.shape}' for n, a in sizes.items()) or 'nothing'}; name the frames "
            "'fields' (and optionally 'times', 'spacing')."
        )
    fields = _arrange(path, arrays[name], frames, axes)
    times = spacing = None
    if "times" in arrays:
        times = np.asarray(arrays["times"], dtype=np.float64)[frames or slice(None)]
        if times.shape != fields.shape[:1]:
            raise InputError(f"{path}: times has shape {arrays['times'].shape} for {len(arrays[name])} frames.")
    if "spacing" in sizes:
        try:
            spacing = tuple(float(h) for h in np.broadcast_to(sizes["spacing"], fields.ndim - 2))
        except ValueError:
            raise InputError(f"{path}: spacing {sizes['spacing']} must be one number, or one per axis.") from None
    parameters = {
        key: float(value)
        for key, value in sizes.items()
        if not value.ndim and value.dtype.kind in "iuf" and key != "spacing"
    }
    return Observation(fields, times, spacing, parameters, (), None, str(path))


def _from_run(path: Path, run: Run, frames: slice | None) -> Observation:
    from ..models import MODELS

    if not isinstance(run.params, Mapping):
        raise InputError(f"{path} is a batch of {len(run.params)} runs; save the member to fit by itself.")
    states = run.states[frames or slice(None)].astype(np.float64)
    names = MODELS[run.model].species if run.model in MODELS else ()
    parameters = {name: float(value) for name, value in run.params.items() if not np.ndim(value)}
    times = run.steps[frames or slice(None)] * run.dt
    return Observation(states, times, run.spacing, parameters, tuple(names), None, str(path), dt=run.dt)


def _arrange(path: Path, array: np.ndarray, frames: slice | None, axes: str | None) -> np.ndarray:
    """An array of the file as (T, S, *shape) in float64."""
    if array.dtype.kind not in "iufb":
        raise InputError(f"{path} has dtype {array.dtype}; it must be real numbers.")
    if axes is None:
        axes = {1: "x", 2: "xy", 4: "tsxy", 5: "tsxyz"}.get(array.ndim)
        if axes is None:
            choices = "'txy', 'sxy' or 'xyz'" if array.ndim == 3 else "such as 'tsxy'"
            raise InputError(f"{path} has an array of shape {array.shape}; say what its axes are with axes={choices}.")
    spatial = axes.lstrip("t").lstrip("s") if isinstance(axes, str) else None
    if not spatial or spatial != SPATIAL[: len(spatial)] or len(set(axes)) != len(axes):
        raise InputError(
            f"axes={axes!r} must be 't' and 's' (both optional), then x, xy or xyz: 'tsxy', 'txy', 'sxy', ..."
        )
    if len(axes) != array.ndim:
        raise InputError(
            f"axes={axes!r} names {len(axes)} axes; the array in {path} has the {array.ndim} axes {array.shape}."
        )
    if "t" not in axes:
        array = array[None]
    if "s" not in axes:
        array = array[:, None]
    array = array[frames or slice(None)]
    check_size(path, array.shape)
    return np.array(array, dtype=np.float64, order="C")
