"""Animations of runs, of descents and of landscapes: GIF through Pillow, MP4 when the program ffmpeg is there."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import landscape_plots
from .arrays import as_real_array
from .errors import InputError, check_choice, check_count, check_number
from .files import replacing
from .landscape import Landscape
from .paths import as_path

__all__ = ["check_path", "runs", "slices", "training", "write"]


def runs(
    states: Mapping[str, Any] | Any,
    path: Any,
    *,
    species: int = -1,
    limits: tuple[float, float] | None = None,
    scale: int = 3,
    fps: float = 12.0,
    colormap: str = "viridis",
) -> None:
    """Animate a run (`Run.states`), or several side by side, such as those of different parameters.

    Parameters
    ----------
    states : ndarray (n, S, rows, columns) or Run, or dict {label: one of these}
        Runs of different length stay at their last state.
    path : path
        .gif (needs nothing else), or .mp4 (needs ffmpeg).
    species : int
        Which to show, by default the last.
    limits : (low, high), optional
        Of the colours, by default those of all frames.
    scale : int
        Pixels a cell.
    fps : float
    colormap : str
    """
    from matplotlib import colormaps

    by_label = states if isinstance(states, Mapping) else {"": states}
    if not by_label:
        raise InputError("states is empty; give {label: states (n, S, rows, columns)}.")
    shown = {label: _species(label, getattr(run, "states", run), species) for label, run in by_label.items()}
    check_choice("colormap", colormap, tuple(colormaps))
    scale = check_count("scale", scale, 1)
    if limits is not None:
        limits = _limits(limits)
    else:
        finite = np.concatenate([run[np.isfinite(run)].ravel() for run in shown.values()])
        limits = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low, high = limits
    table = (255.0 * colormaps[colormap](np.linspace(0.0, 1.0, 256))[:, :3]).astype(np.uint8)

    def frames() -> Iterable[np.ndarray]:
        for n in range(max(len(run) for run in shown.values())):
            panels = []
            for label, run in shown.items():
                z = np.nan_to_num(run[min(n, len(run) - 1)], nan=low, posinf=high, neginf=low)
                level = np.clip((z - low) / ((high - low) or 1.0) * 255.0, 0.0, 255.0).astype(np.uint8)
                picture = table[np.kron(level, np.ones((scale, scale), np.uint8))]
                panels.append(_titled(picture, label))
            tallest = max(len(panel) for panel in panels)
            gap = np.full((tallest, 2 * scale, 3), 255, np.uint8)
            row = [part for panel in panels for part in (_padded(panel, tallest), gap)][:-1]
            yield np.concatenate(row, axis=1)

    write(frames(), path, fps=fps)


def training(
    histories: Mapping[str, Any],
    path: Any,
    *,
    truth: Mapping[str, float] | None = None,
    frames: int = 60,
    fps: float = 12.0,
) -> None:
    """Animate descents: `landscape_plots.training` of the first iterations, of more, of all.

    Parameters
    ----------
    histories, truth
        As in `landscape_plots.training`.
    path : path
        .gif or .mp4.
    frames : int
        At most so many; the axes are those of the last.
    fps : float
    """
    landscape_plots.check_histories(histories)
    longest = max(len(np.ravel(series)) for history in histories.values() for series in history.values())
    limits = [(ax.get_xlim(), ax.get_ylim()) for ax in landscape_plots.training(histories, truth=truth).axes]

    def drawn() -> Iterable[Any]:
        for n in np.unique(np.linspace(2, longest, min(check_count("frames", frames, 1), longest)).astype(int)):
            part = {
                label: {name: np.ravel(series)[:n] for name, series in history.items()}
                for label, history in histories.items()
            }
            figure = landscape_plots.training(part, truth=truth)
            for ax, (x, y) in zip(figure.axes, limits, strict=True):
                ax.set(xlim=x, ylim=y)
            yield figure

    write(drawn(), path, fps=fps)


def slices(
    found: Landscape, path: Any, *, truth: Mapping[str, float] | None = None, fps: float = 4.0, **options: Any
) -> None:
    """Animate a landscape over three parameters: a map over the last two for each value of the first.

    Parameters
    ----------
    found : Landscape
    path : path
        .gif or .mp4.
    truth, **options
        As in `landscape_plots.show`.
    fps : float
    """
    if len(found.axes) != 3:
        raise InputError(f"the landscape has {len(found.axes)} axes; an animation of slices needs three.")
    name, *others = found.axes

    def drawn() -> Iterable[Any]:
        for n, value in enumerate(found.axes[name]):
            part = replace(
                found,
                axes={other: found.axes[other] for other in others},
                params={**found.params, name: float(value)},
                values={label: array[n] for label, array in found.values.items()},
                spread={label: array[n] for label, array in found.spread.items()},
                gradients={label: array[n][..., 1:] for label, array in found.gradients.items()},
                unstable=found.unstable[n],
            )
            figure = landscape_plots.show(part, truth=truth, **options)
            figure.suptitle(f"{name} = {value:.4g}")
            yield figure

    write(drawn(), path, fps=fps)


def write(frames: Iterable[Any], path: Any, *, fps: float = 12.0) -> None:
    """Write frames, arrays (rows, columns, 3) of uint8 or matplotlib figures, to a .gif or .mp4 file."""
    from PIL import Image

    path = check_path(path)
    check_number("fps", fps, above=0.0)
    pictures = [_picture(frame) for frame in frames]
    if not pictures:
        raise InputError("an animation needs at least one frame.")
    if len({picture.shape for picture in pictures}) > 1:
        raise InputError(f"the frames differ in shape: {pictures[0].shape} and others.")
    if path.suffix.lower() == ".gif":
        images = [Image.fromarray(picture).quantize(128) for picture in pictures]
        options: dict[str, Any] = dict(save_all=True, append_images=images[1:], duration=max(20, round(1000 / fps)))
        with replacing(path) as file:
            images[0].save(file, format="GIF", loop=0, **options)
        return
    _write_mp4(pictures, path, fps)


def check_path(path: Any) -> Path:
    """Return `path` if an animation can be written there, or raise an `InputError`: ask before a long run."""
    path = as_path(path)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise InputError(f"path={str(path)!r} must end in .gif or .mp4.")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError(f"{path.name} needs the program ffmpeg, which is not here. Install it, or write a .gif.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"path={str(path)!r}: there is no folder {path.parent}.")
    return path


def _species(label: str, run: Any, species: int) -> np.ndarray:
    """One species of a run, (n, rows, columns)."""
    states = as_real_array(f"states[{label!r}]", run)
    if states.ndim != 4 or not states.size:
        raise InputError(f"the states {label!r} of shape {states.shape} must be (n, S, rows, columns) with n >= 1.")
    count = states.shape[1]
    if not isinstance(species, (int, np.integer)) or not -count <= species < count:
        raise InputError(f"species={species!r} must be an index of the {count} species.")
    return states[:, species]


def _limits(given: Any) -> tuple[float, float]:
    try:
        low, high = (check_number("limits", each) for each in given)
    except (TypeError, ValueError):
        raise InputError(f"limits={given!r} must be (low, high), finite.") from None
    return low, high


def _picture(frame: Any) -> np.ndarray:
    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise InputError(
                f"a frame of shape {frame.shape} and dtype {frame.dtype} must be (rows, columns, 3), uint8."
            )
        return frame
    if not callable(getattr(frame, "savefig", None)):
        raise InputError(f"a frame {frame!r} must be an array (rows, columns, 3) of uint8 or a matplotlib figure.")
    from PIL import Image

    stream = io.BytesIO()
    frame.savefig(stream, format="png", dpi=90)
    stream.seek(0)
    return np.asarray(Image.open(stream).convert("RGB"))


def _write_mp4(pictures: list[np.ndarray], path: Path, fps: float) -> None:
    rows, columns = (n - n % 2 for n in pictures[0].shape[:2])  # H.264 wants even sizes
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}"]
    raw = b"".join(np.ascontiguousarray(picture[:rows, :columns]).tobytes() for picture in pictures)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        command += ["-r", f"{fps:g}", "-i", "-", "-pix_fmt", "yuv420p", str(film)]
        done = subprocess.run(command, input=raw, capture_output=True)
        if done.returncode or not film.exists():
            said = done.stderr.decode(errors="replace").strip()
            raise InputError(f"ffmpeg could not write {path.name} (exit code {done.returncode}): {said}")
        with replacing(path) as file:
            file.write(film.read_bytes())


def _padded(picture: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(picture, ((0, rows - len(picture)), (0, 0), (0, 0)), constant_values=255)


def _titled(picture: np.ndarray, label: str) -> np.ndarray:
    if not label:
        return picture
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (picture.shape[1], 16), "white")
    ImageDraw.Draw(strip).text((2, 2), label, fill="black")
    return np.concatenate([np.asarray(strip), picture])
