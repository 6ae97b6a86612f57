"""``adjoint-rd bench``: the benchmarks of the source checkout, with their own options."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError


def run(argv: Sequence[str]) -> int:
    """Run the benchmarks of the source checkout that this package lies in; they are not installed with it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "validation" / "bench" / "run.py").is_file():
        raise InputError(
            "bench needs the source checkout (validation/bench/), which an ordinary installation does not have; clone "
            "the repository and install it with: pip install -e ."
        )
    sys.path.insert(0, str(root))
    from validation.bench.run import main as run  # type: ignore[import-not-found]

    return run(argv)
