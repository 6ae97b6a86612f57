"""Animations of runs, of descents and of landscapes: GIF through Pillow, MP4 when the program ffmpeg is there."""

import io
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import landscape_plots
from .errors import InputError, check_count
from .files import replacing
from .landscape import Landscape

__all__ = ["runs", "slices", "training", "write"]


def runs(
    states: Mapping[str, np.ndarray] | np.ndarray,
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
    states : ndarray (n, S, rows, columns), or dict {label: ndarray}
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
    shown = {label: np.asarray(run)[:, species] for label, run in by_label.items()}
    for label, run in shown.items():
        if run.ndim != 3 or not len(run):
            raise InputError(f"the states {label!r} must be (n, S, rows, columns) with n >= 1.")
    if limits is None:
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

    path = Path(path)
    pictures = [_picture(frame) for frame in frames]
    if not pictures:
        raise InputError("an animation needs at least one frame.")
    if path.suffix.lower() == ".gif":
        images = [Image.fromarray(picture).quantize(128) for picture in pictures]
        options: dict[str, Any] = dict(save_all=True, append_images=images[1:], duration=max(20, round(1000 / fps)))
        with replacing(path) as file:
            images[0].save(file, format="GIF", loop=0, **options)
        return
    if path.suffix.lower() != ".mp4":
        raise InputError(f"path={str(path)!r} must end in .gif or .mp4.")
    _write_mp4(pictures, path, fps)


def _picture(frame: Any) -> np.ndarray:
    if isinstance(frame, np.ndarray):
        return frame
    from PIL import Image

    stream = io.BytesIO()
    frame.savefig(stream, format="png", dpi=90)
    stream.seek(0)
    return np.asarray(Image.open(stream).convert("RGB"))


def _write_mp4(pictures: list[np.ndarray], path: Path, fps: float) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise InputError(f"{path.name} needs the program ffmpeg, which is not here. Install it, or write a .gif.")
    rows, columns = (n - n % 2 for n in pictures[0].shape[:2])  # H.264 wants even sizes
    command = [program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}"]
    command += ["-r", f"{fps:g}", "-i", "-", "-pix_fmt", "yuv420p", str(path.absolute())]
    raw = b"".join(np.ascontiguousarray(picture[:rows, :columns]).tobytes() for picture in pictures)
    subprocess.run(command, input=raw, check=True)


def _padded(picture: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(picture, ((0, rows - len(picture)), (0, 0), (0, 0)), constant_values=255)


def _titled(picture: np.ndarray, label: str) -> np.ndarray:
    if not label:
        return picture
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (picture.shape[1], 16), "white")
    ImageDraw.Draw(strip).text((2, 2), label, fill="black")
    return np.concatenate([np.asarray(strip), picture])
