"""``adjoint-rd fit``."""

import argparse
import sys
from pathlib import Path
from typing import Any

from .arguments import add_command, named_values, one_or_many
from .output import FAILED, OK, print_above_bar, progress_bar, say_interrupted, say_written
from .setup import model_of

DESCRIPTION = """\
Fit a model's parameters to the frames of a file: a run that starts at the first frame is compared with the later ones
and improved by L-BFGS-B with the adjoint's gradient. The file is HDF5 in the layout of The Well, .npz (fields, times,
spacing, or a saved run) or .npy.

The grid's own Laplacian biases the diffusivities. --refine R starts from the first frame interpolated (Fourier) to a
grid R times finer and compares every R-th cell; two values of R give an extrapolation and an estimate of the
discretisation error. Frames of a simulation on the same grid have no such error: use --refine 1
--substeps N, the steps that it took from frame to frame.

It prints truth (if the file holds it), estimates, standard errors and errors, and writes

  fit.json        all numbers
  fit.png         the last frame used: observed, fitted, difference
  history.png     the misfit at each evaluation
  fitted.npz      the fitted frames: fields, times, spacing
"""

EXAMPLES = """\
examples:
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5 --refine 1 2 --frames 11 --out maze_fit
  adjoint-rd fit frames.npy --interval 10 --spacing 0.015625 --fixed F=0.029
  adjoint-rd fit frames.npz --start Du=2e-5 --start Dv=1e-5
"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "fit", "parameters from frames", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("file", metavar="FILE", help="HDF5 in the layout of The Well, .npz or .npy")
    parser.add_argument("--out", metavar="DIR", help="folder for the results (default fit_FILE, in the current folder)")
    how = parser.add_argument_group("the fit")
    how.add_argument("--model", default="gray_scott", metavar="NAME", help="gray_scott (default), ..., or FILE.py:NAME")
    how.add_argument(
        "--refine", type=int, nargs="+", metavar="R", help="default 1 2 3 (1 on grids that are not periodic)"
    )
    how.add_argument(
        "--substeps", type=int, metavar="N", help="steps between frames for R=1 (default: as stability asks)"
    )
    how.add_argument("--frames", type=int, default=6, metavar="N", help="use the first N frames (default 6)")
    how.add_argument(
        "--fixed", action="append", default=[], metavar="NAME=VALUE", help="a known parameter, not fitted; repeatable"
    )
    how.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="where a parameter begins (default: least residual)",
    )
    how.add_argument(
        "--noise",
        type=float,
        nargs="+",
        metavar="SIGMA",
        help="noise of the frames, one or one per species (default: unknown)",
    )
    how.add_argument("--method", default="adjoint", metavar="NAME", help="adjoint (default: L-BFGS-B) or least_squares")
    data = parser.add_argument_group("the file, where it does not say itself")
    data.add_argument("--trajectory", type=int, default=0, metavar="N", help="of an HDF5 file (default 0)")
    data.add_argument("--axes", metavar="AXES", help="of an array, such as tsxy (time, species, x, y)")
    data.add_argument("--interval", type=float, metavar="T", help="time between frames")
    data.add_argument(
        "--spacing", type=float, nargs="+", metavar="H", help="distance between cells, one or one per axis"
    )
    data.add_argument(
        "--boundary", nargs="+", metavar="KIND", help="periodic, neumann or dirichlet, one or one per axis"
    )


def run(args: argparse.Namespace) -> int:
    """Parameters from frames, with truth, errors and figures."""
    from dataclasses import replace

    import numpy as np

    from .. import io
    from ..trajectory_fit import Progress, TrajectoryFit, fit_trajectory

    observation = io.read_observation(args.file, trajectory=args.trajectory, axes=args.axes)
    if args.spacing:
        given = args.spacing * len(observation.shape) if len(args.spacing) == 1 else args.spacing
        observation = replace(observation, spacing=tuple(given))
    if args.interval:
        observation = replace(observation, times=args.interval * np.arange(len(observation.fields)))
    folder = io.output_folder(args.out or f"fit_{Path(args.file).stem}")
    print(observation)
    so_far: list[TrajectoryFit] = []
    last: list[Progress] = []
    interrupted = False
    with progress_bar(args, None, "fit") as progress:

        def show(event: Progress) -> None:
            last[:] = [event]
            progress(1, f"R={event.refine}, evaluation {event.evaluations}, misfit {event.misfit:.3g}")

        def keep(result: TrajectoryFit) -> None:
            so_far.append(result)
            done = result.refinements[-1]
            size = "x".join(map(str, done.shape))
            print_above_bar(
                f"R={done.refine}: {size} cells, {done.substeps} steps per interval, {done.evaluations} evaluations, "
                f"rms {done.rms:.3g}, {done.seconds:.1f} s"
            )

        try:
            result: TrajectoryFit | None = fit_trajectory(
                observation,
                model_of(args.model),
                fixed=named_values(args.fixed, "--fixed"),
                start=named_values(args.start, "--start"),
                refine=args.refine,
                frames=args.frames,
                substeps=args.substeps,
                boundary=one_or_many(args.boundary) if args.boundary else None,
                noise=one_or_many(args.noise) if args.noise else None,
                method=args.method,
                progress=show,
                on_refinement=keep,
                threads=args.threads,
            )
        except KeyboardInterrupt:
            interrupted = True
            result = so_far[-1] if so_far else None
    unfinished = last[0] if interrupted and last else None
    if result is None:
        where = "before the first evaluation"
        if unfinished:
            values = ", ".join(f"{name}={value:.6g}" for name, value in unfinished.params.items())
            where = f"at evaluation {unfinished.evaluations} of R={unfinished.refine}: {values}"
            io.write_json(
                folder / "fit.json", dict(source=observation.source, finished=False, unfinished=vars(unfinished))
            )
            say_written(folder, ["fit.json"])
        return say_interrupted(where)
    print(f"\n{result}")
    _write_fit(folder, result, observation, unfinished)
    if interrupted:
        return say_interrupted(
            f"after R={result.refinements[-1].refine}; the results above are complete, finer grids are missing"
        )
    if not result.success:
        print("adjoint-rd: the fit failed, see above", file=sys.stderr)
    return OK if result.success else FAILED


def _write_fit(folder: Path, result: Any, observation: Any, unfinished: Any) -> None:
    import numpy as np

    from .. import io, plots

    content = dict(
        source=observation.source,
        params=result.params,
        stderr=result.stderr,
        discretisation=result.discretisation,
        truth=result.truth,
        error_percent=result.errors(),
        refinements=[{**vars(each), "error_percent": result.errors(each.params)} for each in result.refinements],
        start=result.start,
        success=result.success,
        message=result.message,
        finished=unfinished is None,
        unfinished=vars(unfinished) if unfinished else None,
    )
    io.write_json(folder / "fit.json", content)
    times = observation.times[: len(result.fitted)]
    with io.replacing(folder / "fitted.npz") as file:
        np.savez(file, fields=result.fitted, times=times, spacing=np.array(result.spacing))
    fine = result.refinements[-1]
    title = f"time {times[-1]:g}, R={fine.refine}: " + ", ".join(
        f"{name}={value:.5g}" for name, value in fine.params.items()
    )
    figure = plots.plot_fit(
        result.observed[-1], result.fitted[-1], names=result.names, spacing=result.spacing, title=title
    )
    io.write_figure(folder / "fit.png", figure)
    history = {f"R={each.refine}": each.history for each in result.refinements}
    io.write_figure(folder / "history.png", plots.plot_history(history, label="misfit"))
    say_written(folder, ["fit.json", "fit.png", "history.png", "fitted.npz"])
