"""Observations from HDF5 in the layout of The Well, https://polymathic-ai.org/the_well/data_format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError, InputError
from .observation import Observation, check_size


def read_hdf5(path: Path, frames: slice | None, trajectory: int) -> Observation:
    """Frames of one trajectory, see `read_observation`; links are refused, never followed."""
    try:
        import h5py
    except ImportError:
        raise BackendError(f"reading {path} needs h5py; install it with: pip install 'adjoint-rd[io]'") from None
    try:
        with h5py.File(path, "r") as file:
            return _read_well(path, _Hard(h5py, path, file), frames, trajectory)
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} is not a readable HDF5 file (damaged or truncated?): {error}") from None


class _Hard:
    """A group of an HDF5 file through which only its own, hard-linked members are reached."""

    def __init__(self, h5py: Any, path: Path, group: Any):
        self.h5py, self.path, self.group = h5py, path, group

    def get(self, name: str) -> Any:
        """A member: a `_Hard` group, a dataset, or None if there is none."""
        link = self.group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, self.h5py.HardLink):
            raise InputError(
                f"{self.path}: {name!r} is a {type(link).__name__}; links are not followed. Copy the data into the "
                "file."
            )
        item = self.group[name]
        if isinstance(item, self.h5py.Group):
            return _Hard(self.h5py, self.path, item)
        if item.external or item.is_virtual:
            raise InputError(
                f"{self.path}: {name!r} keeps its data in other files, which are not read. Copy the data into the file."
            )
        return item

    def names(self) -> list[str]:
        """The members' names: as the file lists them in `field_names`, or as they are stored."""
        listed = self.group.attrs.get("field_names")
        return _words(listed) if listed is not None else list(self.group)


def _read_well(path: Path, root: _Hard, frames: slice | None, trajectory: int) -> Observation:
    fields, dimensions = root.get("t0_fields"), root.get("dimensions")
    if not isinstance(fields, _Hard) or not isinstance(dimensions, _Hard):
        raise InputError(
            f"{path} is not in the layout of The Well: it needs the groups t0_fields and dimensions, and has "
            f"{', '.join(root.group) or 'none'}. Convert it, or save the frames with numpy.savez(fields=..., "
            "times=..., spacing=...)."
        )
    axes = _words(dimensions.group.attrs.get("spatial_dims", ()))
    coordinates = {name: dimensions.get(name) for name in (*axes, "time")}
    missing = [name for name, item in coordinates.items() if item is None]
    if missing or not axes:
        raise InputError(f"{path}: dimensions lacks {', '.join(missing) or 'the attribute spatial_dims'}.")
    for name, item in coordinates.items():
        if isinstance(item, _Hard) or item.dtype.kind not in "iuf":
            raise InputError(f"{path}: dimensions/{name} must be an array of real numbers.")
        check_size(path, item.shape)
    frames = frames or slice(None)
    names, stack = [], []
    for name in fields.names():
        dataset = fields.get(name)
        if dataset is None or isinstance(dataset, _Hard) or not dataset.attrs.get("time_varying", True):
            continue
        stack.append(_read_field(path, name, dataset, frames, trajectory, len(axes)))
        names.append(name)
    if not stack:
        raise InputError(f"{path}: t0_fields has no field that varies in time.")
    if len({each.shape for each in stack}) > 1:
        raise InputError(f"{path}: the fields {', '.join(names)} have different shapes.")
    times = np.asarray(coordinates["time"], dtype=np.float64)
    times = (times[trajectory] if times.ndim == 2 else times)[frames]
    spacing = tuple(_spacing(path, name, np.asarray(coordinates[name], dtype=np.float64)) for name in axes)
    return Observation(
        np.stack(stack, axis=1),
        times,
        spacing,
        _well_parameters(root, trajectory),
        tuple(names),
        _well_boundary(root, axes),
        f"{path}, trajectory {trajectory}",
    )


def _read_field(path: Path, name: str, dataset: Any, frames: slice, trajectory: int, ndim: int) -> np.ndarray:
    if dataset.dtype.kind not in "iuf":
        raise InputError(f"{path}: the field {name} has dtype {dataset.dtype}; it must be real numbers.")
    if dataset.ndim == ndim + 1:
        where: Any = frames
    elif dataset.ndim == ndim + 2:
        if trajectory >= dataset.shape[0]:
            raise InputError(f"trajectory={trajectory}, but {path} has {dataset.shape[0]}, counted from 0.")
        where = (trajectory, frames)
    else:
        raise InputError(
            f"{path}: the field {name} has shape {dataset.shape}; it must be (trajectories, times, {ndim} axes)."
        )
    count = len(range(*frames.indices(dataset.shape[-ndim - 1])))
    check_size(path, (count, *dataset.shape[-ndim:]))
    return np.asarray(dataset[where], dtype=np.float64)


def _well_parameters(root: _Hard, trajectory: int) -> dict[str, float]:
    found = {}
    for name, value in root.group.attrs.items():
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf" and not name.startswith("n_"):
            found[name] = float(value)
    scalars = root.get("scalars")
    for name in scalars.names() if isinstance(scalars, _Hard) else ():
        dataset = scalars.get(name)
        if dataset is None or dataset.dtype.kind not in "iuf" or dataset.attrs.get("time_varying", False):
            continue
        if dataset.size == 1:
            found[name] = float(np.ravel(dataset[()])[0])
        elif dataset.ndim == 1 and dataset.attrs.get("sample_varying", False) and trajectory < dataset.size:
            found[name] = float(dataset[trajectory])
    return found


def _well_boundary(root: _Hard, axes: Sequence[str]) -> tuple[str, ...] | None:
    group = root.get("boundary_conditions")
    kinds: dict[str, str] = {}
    for name in group.group if isinstance(group, _Hard) else ():
        member = group.get(name)
        kind = getattr(getattr(member, "group", member), "attrs", {}).get("bc_type")
        if kind is None:
            continue
        kind = _words([kind])[0].lower()
        on = _words(member.group.attrs.get("associated_dims", ())) if isinstance(member, _Hard) else []
        for axis in on or [axis for axis in axes if name.lower().startswith(f"{axis}_")]:
            kinds[axis] = kind
    return tuple(kinds[axis] for axis in axes) if all(axis in kinds for axis in axes) else None


def _spacing(path: Path, name: str, coordinate: np.ndarray) -> float:
    if coordinate.ndim != 1 or len(coordinate) < 2:
        raise InputError(f"{path}: dimensions/{name} has shape {coordinate.shape}; it must be one coordinate per cell.")
    steps = np.diff(coordinate)
    h = float(coordinate[-1] - coordinate[0]) / (len(coordinate) - 1)
    if not (h > 0 and np.allclose(steps, h, rtol=1e-3, atol=0)):
        raise InputError(f"{path}: dimensions/{name} is not evenly spaced ({steps.min():g} .. {steps.max():g}).")
    return h


def _words(values: Any) -> list[str]:
    return [
        value.decode() if isinstance(value, bytes) else str(value)
        for value in np.ravel(np.asarray(values, dtype=object))
    ]
