"""Frames of a pattern, and what their file says about them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import MOST_BYTES


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
    dt : float or None
        The time step of a run of this library, whose frames obey the equations of this very grid.
    """

    fields: np.ndarray
    times: np.ndarray | None
    spacing: tuple[float, ...] | None
    parameters: dict[str, float]
    names: tuple[str, ...]
    boundary: tuple[str, ...] | None
    source: str
    scale: float | None = 1.0
    dt: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The cells along each axis."""
        return self.fields.shape[2:]

    def __str__(self) -> str:
        frames, species = self.fields.shape[:2]
        named = f" ({', '.join(self.names)})" if self.names else ""
        size = "x".join(map(str, self.shape))
        return f"{frames} frame{'s' * (frames != 1)} of {species} species{named} on {size} cells, from {self.source}"


def check_size(path: Path, shape: tuple[int, ...]) -> None:
    """Raise an `InputError` if so many values are more than is read from a file."""
    size = 8 * int(np.prod(shape, dtype=object))
    if size > MOST_BYTES:
        raise InputError(
            f"{path} has {shape} values (time, species, cells), {size / 2**30:.1f} GiB in float64, and at most "
            f"{MOST_BYTES / 2**30:.0f} are read; use frames= to read fewer."
        )
