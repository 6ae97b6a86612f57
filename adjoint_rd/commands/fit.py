"""``adjoint-rd fit``: one frame goes to `snapshot`, the frames of a run to `frames`."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import frames, snapshot
from .arguments import add_command

DESCRIPTION = """\
Fit a model's parameters to a pattern.

One frame (a grey PNG, TIFF or GIF, .npy, .npz, or --frame N of a longer file): a pattern at rest, or nearly so. By
default it is v of Gray-Scott on periodic unit cells. Noise, also that of 8 bits, is measured in the image. An image
that does not say which value white stands for (--scale) leaves the gain unknown: then only combinations of parameters
are determined, unless one more fact is known (--fixed Du/Dv=2). The fit is refused, with the reason, if the image is
no such pattern or does not determine the parameters. It writes

  fit.json        all numbers
  fit.png         data, fit, what is left; and why it works: the objective along a line from a start to the fit, beside
                  that of backpropagation through a simulation

Frames of a run (HDF5 in the layout of The Well, or .npz, .npy with all species): a run that starts at the first frame
is compared with the later ones and improved by L-BFGS-B with the adjoint's gradient. The grid's own Laplacian biases
the diffusivities. --refine R starts from the first frame interpolated (Fourier) to a grid R times finer and compares
every R-th cell; two values of R give an extrapolation and an estimate of the discretisation error. Frames of a
simulation on the same grid have no such error: use --refine 1 --substeps N, the steps that it took from frame to
frame; for a run.npz of adjoint-rd that is the default. It writes

  fit.json        all numbers
  fit.png         the last frame used: observed, fitted, difference
  history.png     the misfit at each evaluation
  fitted.npz      the fitted frames: fields, times, spacing
"""

EXAMPLES = """\
examples:
  adjoint-rd pattern --out target.png && adjoint-rd fit target.png
  adjoint-rd fit photograph.tif --gain unknown --fixed Du/Dv=2
  adjoint-rd fit v.npy --noise 0.01 --spacing 0.0125 --boundary cropped
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5 --refine 1 2 --frames 11 --out maze_fit
  adjoint-rd fit frames.npy --interval 10 --spacing 0.015625 --fixed F=0.029
"""

ONE_FRAME = ("gain", "scale", "species", "offset", "at_rest", "subsample", "frame")
MANY_FRAMES = ("refine", "substeps", "frames", "method", "interval")


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "fit", "parameters from a pattern or frames", DESCRIPTION, EXAMPLES, run)
    add = parser.add_argument
    add("file", metavar="FILE", help="an image (.png .tif .gif), .npy, .npz, or HDF5 in the layout of The Well")
    add("--out", metavar="DIR", help="folder for the results (default fit_FILE, in the current folder)")
    add = parser.add_argument_group("the fit").add_argument
    add("--model", default="gray_scott", metavar="NAME", help="gray_scott (default), ..., or FILE.py:NAME")
    add("--fixed", action="append", default=[], metavar="NAME=VALUE", help="a known parameter, not fitted; repeatable")
    add("--start", action="append", default=[], metavar="NAME=VALUE", help="where a parameter begins; repeatable")
    add("--noise", type=float, nargs="+", metavar="S", help="standard deviation, units of the file (default: measured)")
    add("--spacing", type=float, nargs="+", metavar="H", help="distance between cells, one or one per axis (default 1)")
    add("--boundary", nargs="+", metavar="KIND", help="periodic, neumann; dirichlet (frames) or cropped (one frame)")
    add = parser.add_argument_group("one frame").add_argument
    add("--gain", choices=("known", "unknown"), help="whether the scale is known (default: if so)")
    add("--scale", type=float, metavar="X", help="v is X times the file's values; the value of white in an image")
    add("--species", nargs="+", metavar="NAME", help="what it shows (default v; all if it has all)")
    add("--offset", action="store_true", default=None, help="an unknown constant has been added to the values")
    add("--at-rest", action="store_true", default=None, help="you know that the pattern has stopped moving")
    add("--subsample", type=int, metavar="N", help="the file has every N-th cell of the grid along each axis")
    add("--frame", type=int, metavar="N", help="fit frame N alone, counted from 0")
    add("--no-landscape", dest="landscape", action="store_false", help="leave the objectives out of the figure")
    add = parser.add_argument_group("frames of a run").add_argument
    add("--refine", type=int, nargs="+", metavar="R", help="default 1 2 3 (1 on grids that are not periodic)")
    add("--substeps", type=int, metavar="N", help="steps between frames for R=1 (default: as stability asks)")
    add("--frames", type=int, metavar="N", help="use the first N frames (default 6)")
    add("--method", metavar="NAME", help="adjoint (default: L-BFGS-B) or least_squares")
    add("--interval", type=float, metavar="T", help="time between frames")
    add = parser.add_argument_group("the file, where it does not say itself").add_argument
    add("--trajectory", type=int, default=0, metavar="N", help="of an HDF5 file (default 0)")
    add("--axes", metavar="AXES", help="of an array, such as tsxy (time, species, x, y)")


def run(args: argparse.Namespace) -> int:
    """Read the file, see what it holds, fit."""
    from .. import io

    observation = io.read_observation(args.file, trajectory=args.trajectory, axes=args.axes)
    count = len(observation.fields)
    single = count == 1 or args.frame is not None
    if not single and Path(args.file).suffix.lower() in io.IMAGES:
        raise InputError(f"{args.file} has {count} frames; say which one to fit: --frame N, 0 .. {count - 1}.")
    if args.frame is not None and not 0 <= args.frame < count:
        raise InputError(f"--frame {args.frame}: {args.file} has {count}, 0 .. {count - 1}.")
    for name in MANY_FRAMES if single else ONE_FRAME:
        if getattr(args, name) is not None:
            kind = "the frames of a run" if single else "one frame"
            raise InputError(
                f"--{name.replace('_', '-')} is for {kind}; {args.file} has {count} frame{'s' * (count != 1)}"
                f"{'' if count == 1 or not single else ', and --frame picks one'}. See adjoint-rd fit --help."
            )
    return snapshot.run(args, observation) if single else frames.run(args, observation)
