"""Where users let files be written and read, checked before work begins."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, did_you_mean
from .files import replacing


def write_json(path: Any, content: Any) -> None:
    """Write JSON that is whole or not there; arrays become lists, what is not finite becomes null."""
    with replacing(target(path, ".json")) as file:
        file.write((json.dumps(_plain(content), indent=2, allow_nan=False) + "\n").encode())


def write_figure(path: Any, figure: Any) -> None:
    """Write a matplotlib Figure as a PNG that is whole or not there."""
    with replacing(target(path, ".png")) as file:
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


def target(path: Any, suffix: str) -> Path:
    """Return a path that a file can be written to, or raise an `InputError` that says what is wrong."""
    path = as_path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"path={str(path)!r} must end in {suffix}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; make it first.")
    return path


def source(path: Any) -> Path:
    """Return the path of a file that exists, or raise an `InputError` that names one spelt alike."""
    path = as_path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file.")
    if not path.exists():
        near = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"there is no file {path}.{did_you_mean(path.name, near)}")
    return path


def as_path(path: Any) -> Path:
    """Return a path, or raise an `InputError` for what is none."""
    try:
        return Path(path)
    except TypeError:
        raise InputError(f"path={path!r} must be a string or a path.") from None
