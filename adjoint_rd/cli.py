"""The command line ``adjoint-rd``: each command is a module of `adjoint_rd.commands`.

Results go to standard output and into the folder of ``--out``; warnings, errors and progress bars go to standard
error. Exit codes: 0 done, 1 a check or a fit failed, 2 bad input, 130 interrupted by Ctrl-C (what was computed so far
is written).
"""

import argparse
import os
import sys
from collections.abc import Sequence

from ._version import __version__
from .commands import bench, fit, gradient, landscape, pairwise, pattern, simulate, validate
from .commands.arguments import Parser
from .commands.output import BAD_INPUT, BROKEN_PIPE, plain_warnings, say_interrupted
from .errors import AdjointRDError, InputError, did_you_mean

# bench parses its own arguments
COMMANDS = {
    "simulate": simulate,
    "gradient": gradient,
    "validate": validate,
    "pattern": pattern,
    "fit": fit,
    "landscape": landscape,
    "pairwise": pairwise,
}

DESCRIPTION = """\
Exact gradients through reaction-diffusion systems, and parameters out of patterns.

  simulate   run a model; writes the states as .npz and PNG
  gradient   dL/dp for every parameter, by the adjoint of the run
  validate   check the gradients of your own set-up, in six ways
  pattern    make a pattern to fit, as a PNG
  fit        parameters from a pattern (PNG, TIFF, npy, npz) or from the frames of a run (HDF5, npz, npy)
  landscape  losses over one, two or three parameters, as numbers and pictures
  pairwise   losses between pattern classes
  bench      speed and memory against other systems (from a source checkout)
"""

EPILOG = """\
examples:
  adjoint-rd simulate --preset well-maze --out maze
  adjoint-rd gradient --preset well-maze --steps 500 --target-param F=0.03
  adjoint-rd validate --model gray_scott --param Du=0.16 --param Dv=0.08 --param F=0.035 --param k=0.065
  adjoint-rd pattern --out target.png && adjoint-rd fit target.png
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5
  adjoint-rd landscape --preset reference --axis F=0.02:0.06:20 --axis k=0.05:0.07:20

exit codes: 0 done, 1 a check or a fit failed, 2 bad input, 130 Ctrl-C (what was computed so far is written)
'adjoint-rd COMMAND --help' explains each command.
"""


def _parser() -> Parser:
    parser = Parser(
        prog="adjoint-rd", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"adjoint-rd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS.values():
        command.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, by default those of the process.

    Returns
    -------
    int
        The exit code.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    known = (*COMMANDS, "bench")
    try:
        if not argv:
            _parser().print_help(sys.stderr)
            return BAD_INPUT
        if not argv[0].startswith("-") and argv[0] not in known:
            raise InputError(f"{argv[0]!r} is not a command; use {', '.join(known)}.{did_you_mean(argv[0], known)}")
        if argv[0] == "bench":
            return bench.run(argv[1:])
        args = _parser().parse_all(argv)
        with plain_warnings():
            code = args.function(args)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # --help, --version, --list-presets
        return int(leaving.code or 0)
    except AdjointRDError as error:
        print(f"adjoint-rd: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # as in: adjoint-rd ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"adjoint-rd: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except MemoryError as error:
        print(f"adjoint-rd: error: not enough memory: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return say_interrupted("before there was anything to keep")
