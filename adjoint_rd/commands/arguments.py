"""Parsers of the commands: errors with a hint, options that several commands share, NAME=VALUE pairs."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Errors as everywhere else: one line that begins with ``adjoint-rd: error:``, exit code 2."""

    def error(self, message: str) -> Any:
        """Raise it as an `InputError`."""
        raise InputError(f"{message} (see {self.prog} --help)")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """As `parse_args`, with "did you mean" for the options of the command."""
        args, extra = self.parse_known_args(argv)
        if extra:
            commands = next(action.choices for action in self._actions if isinstance(action.choices, dict))
            options = [option for action in commands[args.command]._actions for option in action.option_strings]
            hint = did_you_mean(extra[0], options) if extra[0].startswith("-") else ""
            raise InputError(
                f"{extra[0]!r} is not known to adjoint-rd {args.command}.{hint} See adjoint-rd {args.command} --help."
            )
        return args


def add_command(
    commands: Any,
    name: str,
    summary: str,
    description: str,
    examples: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a command with the options that all have; `function(args)` returns its exit code."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(function=function)
    parser.add_argument(
        "--progress", choices=("auto", "on", "off"), default="auto", help="progress bars: auto (on a terminal), on, off"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use; results do not depend on it")
    return parser


def setup_arguments(parser: argparse.ArgumentParser, shape: tuple[int, ...]) -> None:
    """Add the options that `setup.Setup` reads; `shape` is the default grid."""
    model = parser.add_argument_group("model")
    model.add_argument("--preset", metavar="NAME", help="a named parameter set with its initial state, spacing and dt")
    model.add_argument(
        "--model",
        metavar="NAME",
        help="gray_scott (default), schnakenberg, allen_cahn, or FILE.py:NAME for your own adjoint_rd.Model",
    )
    model.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter, such as F=0.035; repeat it for each",
    )
    grid = parser.add_argument_group("grid and time")
    grid.add_argument(
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help=f"cells along 1 to 3 axes (default {' '.join(map(str, shape))})",
    )
    grid.add_argument(
        "--spacing", type=float, nargs="+", metavar="H", help="distance between cells (default 1, or the preset's)"
    )
    grid.add_argument(
        "--boundary",
        nargs="+",
        metavar="KIND",
        default=["periodic"],
        help="periodic (default), neumann or dirichlet, one or one per axis",
    )
    grid.add_argument("--dt", type=float, help="time step (default 1, or the preset's)")
    grid.add_argument("--scheme", default="euler", help="euler (default) or rk4")
    grid.add_argument("--dtype", default="float64", help="float64 (default) or float32")
    grid.add_argument("--stability", metavar="POLICY", help="what dt above a stability limit gives: error, warn or off")
    start = parser.add_argument_group("initial state")
    start.add_argument("--initial", metavar="KIND", help="square (default, or the preset's), noise, disk, random, ...")
    start.add_argument(
        "--initial-option", action="append", default=[], metavar="NAME=VALUE", help="of the kind, such as size=10"
    )
    start.add_argument("--initial-file", metavar="FILE", help="the last frame of a file (run.npz, npy, HDF5) instead")
    start.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default 0)")
    parser.set_defaults(default_shape=shape)


def target_arguments(parser: argparse.ArgumentParser, absent: str = "") -> None:
    """Add --target and --target-param; `absent` says what is the target without them."""
    parser.add_argument("--target", metavar="FILE", help="the last frame of this file is the target")
    parser.add_argument(
        "--target-param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"the target is a run with these parameters changed{absent}",
    )


def named_values(given: Sequence[str], option: str) -> dict[str, Any]:
    """``["F=0.03", ...]`` as {"F": 0.03}; whole numbers stay whole, and lists are written 0,1."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise InputError(f"{option} {item!r} must be NAME=VALUE, such as F=0.035.")
        if name in found:
            raise InputError(f"{option} gives {name} twice.")
        try:
            numbers = [_number(part) for part in text.split(",")]
        except ValueError:
            raise InputError(f"{option} {item!r}: {text!r} is not a number.") from None
        found[name.strip()] = numbers[0] if len(numbers) == 1 else tuple(numbers)
    return found


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return float(text)


def one_or_many(values: Sequence[Any]) -> Any:
    """The one value, or a tuple of several."""
    return values[0] if len(values) == 1 else tuple(values)
