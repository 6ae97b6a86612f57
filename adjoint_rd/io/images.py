"""Images: grey ones are observations; states and patterns are written."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_choice, check_count
from ..files import replacing
from ..paths import target
from .observation import Observation, check_size

TEXT_KEY = "adjoint_rd.pattern"  # of the text chunk that `write_pattern` puts into a PNG
GAP = 4  # pixels between the species of an image


def read_image(path: Path, frames: slice | None, kind: str) -> Observation:
    """Frames from a grey image of the kind "PNG", "TIFF" or "GIF", see `read_observation`."""
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[kind]) as image:
                count = getattr(image, "n_frames", 1)
                wanted = range(*(frames or slice(None)).indices(count))
                check_size(path, (len(wanted), 1, image.height, image.width))
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

    path = target(path, ".png")
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

    path = target(path, ".png")
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
