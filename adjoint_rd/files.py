"""Files that are whole or not there, and archives that know whether they are as written.

An archive is an .npz (a zip of .npy arrays): `header`, the bytes of a JSON text with the format's name and version, who
wrote it and the SHA-256 of each array; and the arrays. Nothing is ever pickled or unpickled.

A file is written beside its target, synchronised to the disk and moved into place. Where two generations are kept, the
file before is then found under the same name with ``.previous`` at the end.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ._version import __version__
from .errors import InputError

MOST_BYTES = 4 * 2**30  # of the arrays of an archive, and of an observation in float64


class DamagedError(InputError):
    """A file is truncated, changed, or none of ours."""


@contextmanager
def replacing(path: Path, keep_previous: bool = False) -> Iterator[Any]:
    """A binary file beside `path` that takes its place when all is written, and is removed if that fails.

    Parameters
    ----------
    path : Path
    keep_previous : bool
        Whether the file that is replaced stays, as `previous` (path).
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        try:
            with os.fdopen(handle, "wb", closefd=False) as file:
                yield file
                file.flush()
                os.fsync(handle)
        finally:
            os.close(handle)  # also if Ctrl-C comes between opening the file and entering the block
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's files are private
        if keep_previous and path.exists():
            _keep(path)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _synchronise_folder(path.parent)


def previous(path: Path) -> Path:
    """Where the generation before `path` is kept."""
    return path.with_name(f"{path.name}.previous")


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing `path`; not while another one writes it."""
    for each in path.parent.glob(f".{path.name}.*.part"):
        each.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    # By a second name for the same file, so that `path` is there at every moment.
    second = path.with_name(f".{path.name}.second.part")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(second)
    try:
        os.link(path, second)
    except OSError:  # a file system without hard links
        os.replace(path, previous(path))
        return
    os.replace(second, previous(path))


def _synchronise_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be synchronised."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Archives


def write_archive(
    path: Path,
    kind: str,
    version: int,
    content: Mapping[str, Any],
    arrays: Mapping[str, Any],
    *,
    keep_previous: bool = False,
) -> None:
    """Write an archive.

    Parameters
    ----------
    path : Path
    kind, version : str, int
        The name of the format and its version.
    content : dict
        What else the header says; JSON's types.
    arrays : dict
        {name: array}, of numbers.
    keep_previous : bool
        As in `replacing`.
    """
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()}
    if any(array.dtype.hasobject for array in arrays.values()):
        raise InputError("there are arrays of Python objects; only numbers are saved.")
    header = {
        "format": kind,
        "version": version,
        "written_by": f"adjoint_rd {__version__}",
        **content,
        "arrays": {name: {"sha256": _sha256(array)} for name, array in arrays.items()},
    }
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with replacing(path, keep_previous) as file:
        np.savez(file, header=text, **arrays)


def read_archive(path: Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (header, arrays) of an archive, each array checked against its SHA-256.

    Raises
    ------
    DamagedError
        If the file is truncated, changed or of another kind.
    InputError
        If it is of another version, or unpacks to far too much.
    """
    with open_npz(path) as archive:
        header = read_header(path, archive, kind, version)
        if header is None:
            holds = ", ".join(archive.files) or "nothing"
            raise DamagedError(f"{path} is an .npz file, but not one of {kind} (it holds {holds}).")
        return header, read_arrays(path, archive, header)


def read_latest(
    path: Path, kind: str, version: int, stacklevel: int = 2
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """As `read_archive`; if `path` is damaged or missing, the generation before it, which takes its place (warned of).

    Raises
    ------
    DamagedError
        If neither is readable; it tells of `path`.
    InputError
        As in `read_archive`.
    """
    try:
        return read_archive(path, kind, version)
    except (DamagedError, OSError) as error:
        older = previous(path)
        try:
            found = read_archive(older, kind, version)
        except (InputError, OSError):
            raise DamagedError(str(error)) from error
        warnings.warn(f"{error} Continuing from the generation before it, {older}.", stacklevel=stacklevel)
        os.replace(older, path)  # else the next one written would keep the damaged one
        return found


def any_generation(path: Path) -> bool:
    """Whether `path`, or the generation before it, is there."""
    return path.exists() or previous(path).exists()


def read_header(path: Path, archive: Any, kind: str, version: int) -> dict[str, Any] | None:
    """The header of an archive of this kind, or None for another .npz file."""
    if "header" not in archive.files:
        return None
    try:
        header = json.loads(read_member(path, archive, "header").tobytes().decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(header, dict) or header.get("format") != kind:
        return None
    if header.get("version") != version:
        raise InputError(
            f"{path} has version {header.get('version')!r} of the format {kind}, written by "
            f"{header.get('written_by')}; this is adjoint_rd {__version__}, which reads version {version}. Use the "
            "version that wrote it."
        )
    return header


def read_arrays(path: Path, archive: Any, header: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that a header lists, each as it was written."""
    arrays = {}
    try:
        for name, about in header["arrays"].items():
            arrays[name] = read_member(path, archive, name)
            if _sha256(arrays[name]) != about["sha256"]:
                raise DamagedError(
                    f"{path}: the array {name!r} is not what was written (its SHA-256 differs); use another copy."
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is incomplete: {error!r}. Use another copy.") from None
    return arrays


def read_member(path: Path, archive: Any, name: str) -> np.ndarray:
    """An array of an open .npz file."""
    array = archive[name]
    if not isinstance(array, np.ndarray):  # NumPy hands out the bytes of members that are none
        raise DamagedError(f"{path}: {name!r} is not a readable array; use another copy.")
    return array


@contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """An .npz file opened without unpickling, its faults as `InputError`."""
    damaged = f"{path} is not a readable .npz file (truncated, damaged, or of another kind)"
    if not path.exists():
        raise DamagedError(f"there is no file {path}.")
    try:
        if not zipfile.is_zipfile(path):
            raise DamagedError(f"{damaged}.")
        _check_unpacked_size(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except InputError:
        raise
    except (ValueError, OSError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise DamagedError(f"{damaged}: {error}") from None
    except (zipfile.BadZipFile, zlib.error, SyntaxError, OverflowError, MemoryError) as error:
        raise DamagedError(f"{damaged}: {error}") from None


def _check_unpacked_size(path: Path) -> None:
    """Raise an `InputError` if a small file unpacks to far too much."""
    with zipfile.ZipFile(path) as archive:
        size = sum(each.file_size for each in archive.infolist())
    if size > max(MOST_BYTES, 2 * path.stat().st_size):  # what is not compressed may be large
        raise InputError(
            f"{path} unpacks to {size / 2**30:.1f} GiB; at most {MOST_BYTES / 2**30:.0f} GiB are read of a compressed "
            "file. Save it uncompressed, with numpy.savez."
        )


def _sha256(array: np.ndarray) -> str:
    # Of the values; dtype and shape lie in a header that the zip's CRC-32 guards.
    array = np.ascontiguousarray(array)
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data if array.size else b"").hexdigest()
