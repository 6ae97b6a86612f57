"""Files: runs are saved and loaded, observations are read, images are written.

    save_run, load      a `Run` as .npz: arrays, and a JSON header with a format version and the SHA-256 of each array
    read_observation    frames to fit from HDF5 (the layout of The Well), .npy, .npz, or PNG, TIFF and GIF images
    write_image         an array or a state as an 8-bit PNG with a colour map
    write_pattern       one species as an 8-bit grey PNG that says in a text chunk what its levels stand for

Nothing is unpickled, and a target is never half-written, see `files`.
"""

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BackendError, InputError, check_choice, check_count, did_you_mean
from .files import MOST_BYTES, open_npz, read_arrays, read_header, read_member, replacing, write_archive
from .simulation import Run

RUN_FORMAT = "adjoint_rd.run"
RUN_VERSION = 1
TEXT_KEY = "adjoint_rd.pattern"  # of the text chunk that `write_pattern` puts into a PNG
GAP = 4  # pixels between the species of an image
IMAGES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF"}
HDF5 = (".hdf5", ".h5", ".hdf")
SPATIAL = "xyz"


@dataclass(frozen=True)
class Observation:
    """Frames of a pattern, and what the file says about them.

    Attributes
    ----------
    fields : ndarray (T, S, *shape), float64
        T frames of S species. Images are scaled to 0 (black) .. 1 (white).
    times : ndarray (T,) or None
        The time of each frame.
    spacing : tuple of float or None
        The distance between cells, one per axis.
    parameters : dict
        {name: float}: what the file says that it was made with; empty if it says nothing.
    names : tuple of str
        The S names of the species in the file; empty if it has none.
    boundary : tuple of str or None
        "periodic", or the file's own word, one per axis.
    source : str
        The file, and which trajectory of it.
    scale : float or None
        The species are ``scale * fields``: 1.0, or what the file says. None for an image that does not say.
    """

    fields: np.ndarray
    times: np.ndarray | None
    spacing: tuple[float, ...] | None
    parameters: dict[str, float]
    names: tuple[str, ...]
    boundary: tuple[str, ...] | None
    source: str
    scale: float | None = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The cells along each axis."""
        return self.fields.shape[2:]

    def __str__(self) -> str:
        frames, species = self.fields.shape[:2]
        named = f" ({', '.join(self.names)})" if self.names else ""
        size = "x".join(map(str, self.shape))
        return f"{frames} frame{'s' * (frames != 1)} of {species} species{named} on {size} cells, from {self.source}"


# Runs


def save_run(path: Any, run: Run) -> None:
    """Write a run to an .npz file, which `load` reads.

    Parameters
    ----------
    path : str or path-like
        Must end in .npz; an existing file is replaced.
    run : Run
        Of one member or of a batch.
    """
    path = _target(path, ".npz")
    arrays = {"final": run.final, "states": run.states, "steps": run.steps}
    batch = not isinstance(run.params, Mapping)
    params: list[dict[str, Any]] = []
    for n, member in enumerate(run.params if batch else [run.params]):
        fields = {name: f"params/{n}/{name}" for name, value in member.items() if np.ndim(value)}
        arrays.update({key: member[name] for name, key in fields.items()})
        params.append({name: {"array": fields[name]} if name in fields else float(member[name]) for name in member})
    content = {
        "model": run.model,
        "params": params if batch else params[0],
        "dt": float(run.dt),
        "spacing": [float(h) for h in run.spacing],
    }
    write_archive(path, RUN_FORMAT, RUN_VERSION, content, arrays)


def load(path: Any) -> Run:
    """Read a run that `Run.save` wrote, and check that every array is as it was written.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If the file is missing, truncated, changed, not a saved run, or of another format version.
    """
    path = _source(path)
    with open_npz(path) as archive:
        header = read_header(path, archive, RUN_FORMAT, RUN_VERSION)
        if header is None:
            raise InputError(
                f"{path} is an .npz file, but not a run saved by adjoint_rd (it holds "
                f"{', '.join(archive.files) or 'nothing'}). "
                "Use numpy.load, or adjoint_rd.io.read_observation for frames to fit."
            )
        return _read_run(path, archive, header)


def _read_run(path: Path, archive: Any, header: dict[str, Any]) -> Run:
    arrays = read_arrays(path, archive, header) if "arrays" in header else {}
    try:
        batch = isinstance(header["params"], list)
        params = [
            {
                name: arrays[value["array"]] if isinstance(value, Mapping) else float(value)
                for name, value in each.items()
            }
            for each in (header["params"] if batch else [header["params"]])
        ]
        run = Run(
            arrays["final"],
            arrays["states"],
            arrays["steps"],
            params if batch else params[0],
            float(header["dt"]),
            tuple(float(h) for h in header["spacing"]),
            str(header["model"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is an incomplete saved run: {error!r}. Use another copy.") from None
    members = run.final.shape[:1] if batch else ()
    if run.states.shape != (*members, len(run.steps), *run.final.shape[len(members) :]):
        raise InputError(
            f"{path} does not fit together: states {run.states.shape}, steps {run.steps.shape}, final "
            f"{run.final.shape}."
        )
    return run


# Observations


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
    path = _source(path)
    check_count("trajectory", trajectory)
    if frames is not None and not isinstance(frames, slice):
        frames = slice(check_count("frames", frames, 1))
    kind = path.suffix.lower()
    if kind in HDF5:
        found = _read_hdf5(path, frames, trajectory)
    elif kind == ".npz":
        found = _read_npz(path, frames, axes)
    elif kind == ".npy":
        found = _read_npy(path, frames, axes)
    elif kind in IMAGES:
        found = _read_image(path, frames, IMAGES[kind])
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


def _read_npy(path: Path, frames: slice | None, axes: str | None) -> Observation:
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


def _read_npz(path: Path, frames: slice | None, axes: str | None) -> Observation:
    with open_npz(path) as archive:
        header = read_header(path, archive, RUN_FORMAT, RUN_VERSION)
        if header is not None:
            run = _read_run(path, archive, header)
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
    from .models import MODELS

    if not isinstance(run.params, Mapping):
        raise InputError(f"{path} is a batch of {len(run.params)} runs; save the member to fit by itself.")
    states = run.states[frames or slice(None)].astype(np.float64)
    names = MODELS[run.model].species if run.model in MODELS else ()
    parameters = {name: float(value) for name, value in run.params.items() if not np.ndim(value)}
    times = run.steps[frames or slice(None)] * run.dt
    return Observation(states, times, run.spacing, parameters, tuple(names), None, str(path))


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
    _check_size(path, array.shape)
    return np.array(array, dtype=np.float64, order="C")


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    size = 8 * int(np.prod(shape, dtype=object))
    if size > MOST_BYTES:
        raise InputError(
            f"{path} has {shape} values (time, species, cells), {size / 2**30:.1f} GiB in float64, and at most "
            f"{MOST_BYTES / 2**30:.0f} are read; use frames= to read fewer."
        )


# HDF5


def _read_hdf5(path: Path, frames: slice | None, trajectory: int) -> Observation:
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
        _check_size(path, item.shape)
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
    _check_size(path, (count, *dataset.shape[-ndim:]))
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


# Images


def _read_image(path: Path, frames: slice | None, kind: str) -> Observation:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[kind]) as image:
                count = getattr(image, "n_frames", 1)
                wanted = range(*(frames or slice(None)).indices(count))
                _check_size(path, (len(wanted), 1, image.height, image.width))
                grey = [_grey(path, frame) for n, frame in enumerate(ImageSequence.Iterator(image)) if n in wanted]
                facts = _facts(path, getattr(image, "text", {}).get(TEXT_KEY))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is too large an image: {error}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a {kind} image, whatever its name says.") from None
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is a damaged or truncated {kind} image: {error}") from None
    if len({each.shape for each in grey}) > 1:
        raise InputError(
            f"{path} has frames of different sizes: {', '.join(sorted({str(each.shape) for each in grey}))}."
        )
    stack = np.stack(grey)[:, None] if grey else np.empty((0, 1, image.height, image.width))
    scale, spacing, names = facts
    return Observation(stack, None, spacing, {}, names, None, str(path), scale)


def _facts(path: Path, text: str | None) -> tuple[float | None, tuple[float, ...] | None, tuple[str, ...]]:
    """(scale, spacing, names of species) from the text chunk of `write_pattern`; (None, None, ()) without one."""
    if text is None:
        return None, None, ()
    try:
        said = json.loads(text)
        scale, spacing = float(said["scale"]), tuple(float(h) for h in said["spacing"])
        if not (np.isfinite(scale) and scale > 0 and len(spacing) == 2 and all(h > 0 for h in spacing)):
            raise ValueError(text)
        return scale, spacing, (str(said["species"]),)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its text chunk {TEXT_KEY!r} is damaged ({error!r}); write the file again.") from None


def _grey(path: Path, image: Any) -> np.ndarray:
    """One frame as grey values, 0 black to 1 white (float images as they are)."""
    mode = image.mode
    if mode == "F":
        return np.asarray(image, dtype=np.float64)
    if mode.startswith("I"):  # 16 bits, stored in 16 or in 32
        return np.asarray(image).astype(np.float64) / 65535.0
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"), dtype=np.float64) / 255.0
    channels = np.asarray(image.convert("RGBA"))
    if not np.all(channels[..., 3] == 255):
        raise InputError(
            f"{path} has transparent pixels (mode {mode}); flatten it to grey first, for example with "
            "image.convert('L')."
        )
    red, green, blue = (channels[..., c] for c in range(3))
    if not (np.array_equal(red, green) and np.array_equal(green, blue)):
        raise InputError(
            f"{path} is a colour image (mode {mode}); colours do not say which value they stand for. Give the data "
            "behind it (.npy, .hdf5), or, for a photograph, a grey image made with PIL: "
            "Image.open(path).convert('L').save(...)."
        )
    return red / 255.0  # grey, stored as colour: palettes and the later frames of a GIF


def write_image(
    path: Any,
    array: Any,
    *,
    colormap: str = "viridis",
    limits: tuple[float, float] | None = None,
    zoom: int = 1,
) -> None:
    """Write an array as an 8-bit PNG; row 0 is at the top.

    Parameters
    ----------
    path : str or path-like
        Must end in .png; an existing file is replaced.
    array : array_like (H, W) or (S, H, W)
        The species of a state are put side by side.
    colormap : str
        A colour map of matplotlib, or "grey" for a grey image that `read_observation` reads back.
    limits : (low, high), optional
        The values of the ends of the colour map; by default the smallest and largest, for each species.
    zoom : int
        Pixels per cell.
    """
    from PIL import Image

    path = _target(path, ".png")
    array = np.asarray(array)
    if array.dtype.kind not in "iufb" or array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"array has shape {array.shape} and dtype {array.dtype}; an image needs real numbers (H, W) or (species, "
            "H, W). Take a slice of a 3-D state, such as y[:, 0]; adjoint_rd.plots draws states of every dimension."
        )
    panels = array[None] if array.ndim == 2 else array
    check_count("zoom", zoom, 1)
    scaled = [np.kron(_unit(each, limits), np.ones((zoom, zoom))) for each in panels]
    if colormap in ("grey", "gray"):
        pixels = [np.rint(255 * each).astype(np.uint8) for each in scaled]
    else:
        from matplotlib import colormaps

        check_choice("colormap", colormap, tuple(colormaps))
        pixels = [colormaps[colormap](each, bytes=True)[..., :3] for each in scaled]
    gap = np.full((pixels[0].shape[0], GAP, *pixels[0].shape[2:]), 255, np.uint8)
    row = [part for each in pixels for part in (gap, each)][1:]
    with replacing(path) as file:
        Image.fromarray(np.concatenate(row, axis=1)).save(file, format="PNG")


def write_pattern(path: Any, values: Any, *, species: str = "v", scale: float = 1.0, spacing: Any = 1.0) -> None:
    """Write one species as an 8-bit grey PNG, with what its levels stand for in a text chunk; row 0 is at the top.

    ``level = round(255 values / scale)``, so that `read_observation` gives ``fields`` = level / 255 and ``scale``.

    Parameters
    ----------
    path : str or path-like
        Must end in .png; an existing file is replaced.
    values : array_like (H, W)
        Between 0 and `scale`.
    species : str
        Its name.
    scale : float
        The value of white.
    spacing : float or sequence of float
        The distance between cells, one or one per axis.

    Raises
    ------
    InputError
        If values are outside of 0 .. scale, or an argument is out of range.
    """
    from PIL import Image, PngImagePlugin

    path = _target(path, ".png")
    values = np.asarray(values)
    if values.dtype.kind not in "iuf" or values.ndim != 2 or 0 in values.shape:
        raise InputError(f"values has shape {values.shape} and dtype {values.dtype}; a pattern is real numbers (H, W).")
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale={scale!r} must be a positive number, the value that white stands for.")
    half = 0.5 * scale / 255.0
    if not (values.min() >= -half and values.max() <= scale + half):
        raise InputError(
            f"values lie in {values.min():g} .. {values.max():g}, outside of 0 .. scale={scale:g}; give a larger scale."
        )
    said = {"species": species, "scale": float(scale), "spacing": [float(h) for h in np.broadcast_to(spacing, 2)]}
    info = PngImagePlugin.PngInfo()
    info.add_text(TEXT_KEY, json.dumps(said))
    pixels = np.clip(np.rint(255.0 / scale * values), 0, 255).astype(np.uint8)
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, format="PNG", pnginfo=info)


def _unit(array: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """The array mapped to 0 .. 1; what is not finite becomes 0."""
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = limits if limits is not None else (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if limits is not None and not high > low:
        raise InputError(f"limits={limits} must be (low, high) with low < high.")
    return np.clip(np.nan_to_num((values - low) / ((high - low) or 1.0), nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)


# Paths


def write_json(path: Any, content: Any) -> None:
    """Write JSON with the care of `save_run`; arrays become lists, numbers that are not finite become null."""
    with replacing(_target(path, ".json")) as file:
        file.write((json.dumps(_plain(content), indent=2, allow_nan=False) + "\n").encode())


def write_figure(path: Any, figure: Any) -> None:
    """Write a matplotlib Figure as PNG with the care of `save_run`."""
    with replacing(_target(path, ".png")) as file:
        figure.savefig(file, format="png", dpi=130)


def output_folder(path: Any) -> Path:
    """Make a folder, if it does not exist, and check that files can be written into it, before long work begins."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into the folder {folder}: {error.strerror or error}. Give another one."
        ) from None
    return folder


def _plain(value: Any) -> Any:
    rules: list[tuple[Any, Callable[[Any], Any]]] = [
        (Mapping, lambda v: {str(key): _plain(each) for key, each in v.items()}),
        (np.ndarray, lambda v: _plain(v.tolist())),
        ((list, tuple), lambda v: [_plain(each) for each in v]),
        ((bool, np.bool_), bool),
        ((int, np.integer), int),
        ((float, np.floating), lambda v: float(v) if np.isfinite(v) else None),
    ]
    return next((rule(value) for kind, rule in rules if isinstance(value, kind)), value)


def _target(path: Any, suffix: str) -> Path:
    path = _as_path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"path={str(path)!r} must end in {suffix}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; make it first.")
    return path


def _source(path: Any) -> Path:
    path = _as_path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file.")
    if not path.exists():
        near = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"there is no file {path}.{did_you_mean(path.name, near)}")
    return path


def _as_path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise InputError(f"path={path!r} must be a string or a path.") from None
