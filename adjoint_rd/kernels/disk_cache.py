"""Numba's disk cache, with faults of the disk turned into warnings: the kernels are then compiled anew.

Numba raises at the first call of a function if its cache is damaged, cannot be written or has no place at all, and runs
machine code that has changed on the disk. Here each cache file ends with its SHA-256, and whatever goes wrong costs the
compile time only.
"""

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

DIGEST_BYTES = 32


def njit_cached(function: Callable[..., Any], **options: Any) -> Any:
    """``numba.njit(function, cache=True, **options)`` whose cache never stops a run."""
    dispatcher: Any = njit(function, **options)
    if dispatcher is function:  # NUMBA_DISABLE_JIT
        return function
    try:
        dispatcher._cache = _Cache(function)
    except Exception as error:  # no writable place, or a Numba whose insides differ
        _warn("cannot be kept on disk", error)
    return dispatcher


class _Cache(FunctionCache):
    def __init__(self, py_func: Callable[..., Any]):
        super().__init__(py_func)
        plain = self._cache_file
        self._cache_file = _CheckedFile(plain._cache_path, self._impl.filename_base + ".checked", plain._source_stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            _warn("could not be read from the disk", error)
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn("could not be written to the disk", error)


class _CheckedFile(IndexDataCacheFile):
    """Index and data files that end with their SHA-256, of which their readers take no notice."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[Any]:
        with super()._open_for_write(filepath) as file:
            hashing = _Hashing(file)
            yield hashing
            file.write(hashing.digest.digest())

    def _load_index(self) -> Any:
        if Path(self._index_path).exists():
            _check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name))
        return super()._load_data(name)


class _Hashing:
    """A file to write to, and the SHA-256 of what was written."""

    def __init__(self, file: Any):
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)


def _check(path: str) -> None:
    data = Path(path).read_bytes()
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        raise ValueError(f"{path} is truncated or changed")


def _warn(what: str, error: Exception) -> None:
    warnings.warn(
        f"Compiled kernels {what} ({type(error).__name__}: {error}) and are compiled anew in each process that needs "
        "them. If this lasts, set NUMBA_CACHE_DIR to a writable folder, or delete the one it names.",
        stacklevel=3,
    )
