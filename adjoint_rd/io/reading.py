"""Observations from files of every kind."""

from typing import Any

from ..errors import InputError, check_count, did_you_mean
from ..paths import source
from .array_files import read_npy, read_npz
from .images import read_image
from .observation import Observation
from .well import read_hdf5

IMAGES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF"}
HDF5 = (".hdf5", ".h5", ".hdf")


def read_observation(
    path: Any, *, frames: int | slice | None = None, trajectory: int = 0, axes: str | None = None
) -> Observation:
    """Read frames from a file.

    Parameters
    ----------
    path : str or path-like
        ``.hdf5 .h5``: the layout of The Well (https://polymathic-ai.org/the_well/data_format); the fields that vary in
        time in ``t0_fields``. External links, external storage and virtual datasets are refused, never followed. Needs
        h5py.
        ``.npz``: a saved run; or an array ``fields`` (or a single array of any name), optionally ``times`` and
        ``spacing``, further single numbers being the parameters. ``.npy``: an array.
        ``.png .tif .gif``: grey, 8 or 16 bits, one frame or several.
    frames : int or slice, optional
        The first so many frames, or a slice of them; by default all.
    trajectory : int
        Which trajectory of an HDF5 file.
    axes : str, optional
        What the axes of an array in .npy or .npz are: "t" time, "s" species, then "x", "y", "z" in this order. By
        default "x" for one axis, "xy" for two, "tsxy" for four, "tsxyz" for five; three axes are ambiguous and need it.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        If the file is missing, damaged, or does not hold such frames.
    BackendError
        If h5py is needed and not installed.
    """
    path = source(path)
    check_count("trajectory", trajectory)
    if frames is not None and not isinstance(frames, slice):
        frames = slice(check_count("frames", frames, 1))
    kind = path.suffix.lower()
    if kind in HDF5:
        found = read_hdf5(path, frames, trajectory)
    elif kind == ".npz":
        found = read_npz(path, frames, axes)
    elif kind == ".npy":
        found = read_npy(path, frames, axes)
    elif kind in IMAGES:
        found = read_image(path, frames, IMAGES[kind])
    else:
        known = [*HDF5, ".npz", ".npy", *IMAGES]
        raise InputError(
            f"{path}: cannot read {kind or 'a file without a suffix'!r}; use "
            f"{', '.join(known)}.{did_you_mean(kind, known)}"
        )
    if 0 in found.fields.shape:
        raise InputError(
            f"{path} holds no frames in the range asked for (shape {found.fields.shape} of time, species, cells)."
        )
    return found
