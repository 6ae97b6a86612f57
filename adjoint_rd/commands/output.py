"""What commands say: exit codes, progress bars, files written, interrupts, warnings."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StabilityWarning

OK, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


@contextmanager
def progress_bar(args: argparse.Namespace, total: int | None, label: str) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields ``update(count, text=None)``."""
    from tqdm import tqdm

    disable = {"auto": None, "on": False, "off": True}[args.progress]
    with tqdm(total=total, desc=label, disable=disable, file=sys.stderr, leave=False) as bar:

        def update(count: int, text: str | None = None) -> None:
            if text is not None:
                bar.set_description_str(text, refresh=False)
            bar.update(count)

        yield update


def print_above_bar(text: str) -> None:
    """Print to standard output without disturbing a bar."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def say_written(folder: Path, names: Sequence[str]) -> None:
    """Name the files written to a folder."""
    listed = list(names) if len(names) <= 6 else [*names[:3], f"... ({len(names)} files)", names[-1]]
    print(f"wrote {folder}{os.sep}: {', '.join(listed)}")


def say_interrupted(where: str) -> int:
    """Say on standard error how far a command got; returns the exit code."""
    print(f"adjoint-rd: interrupted {where}", file=sys.stderr)
    return INTERRUPTED


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings of this library as one line on standard error; others as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", StabilityWarning)
        show = warnings.showwarning

        def plain(message: Any, category: Any, *args: Any, **kwargs: Any) -> None:
            if issubclass(category, StabilityWarning):
                print(f"adjoint-rd: warning: {message}", file=sys.stderr)
            else:
                show(message, category, *args, **kwargs)

        warnings.showwarning = plain
        yield
