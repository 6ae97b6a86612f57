"""``adjoint-rd landscape``."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arguments import add_command, named_values, setup_arguments, target_arguments
from .output import OK, progress_bar, say_interrupted, say_written
from .setup import Setup, last_frame, target_state

DESCRIPTION = """\
A loss, or several side by side, over one, two or three parameters, averaged over initial states. The target is the
last frame of a file, or a run with other parameters. Writes

  scan.npz            what is done so far; the same command continues from it
  landscape.png       curves with tangents, maps with arrows down the gradient, or a map for each slice
  landscape.json      the axes, and for each loss its values and the lowest grid point
  landscape.gif       with three axes: the slices one after the other (--animation .mp4 needs ffmpeg)

Where no run stays finite the map is grey. Maps over F and k of Gray-Scott show where its uniform states bifurcate.
"""

EXAMPLES = """\
examples:
  adjoint-rd landscape --preset reference --axis F=0.02:0.06:20 --axis k=0.05:0.07:20 --steps 2000 --out map
  adjoint-rd landscape --preset reference --axis Du=0.1:0.22:40 --loss l2 log-spectrum moments --starts 4
  adjoint-rd landscape --preset reference --axis F=0.03,0.035,0.04 --target-param k=0.06 --window 200

losses: l2, log-spectrum (averaged over rings), log-spectrum-full, log-spectrum-patches, autocorrelation, moments,
histogram, gram
"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "landscape", "losses over parameters", DESCRIPTION, EXAMPLES, run)
    parser.add_argument(
        "--axis",
        action="append",
        default=[],
        metavar="NAME=GRID",
        help="a parameter to vary: FIRST:LAST:COUNT or a list 0.03,0.04; one to three times",
    )
    parser.add_argument("--loss", nargs="+", default=["log-spectrum"], metavar="NAME", help="default log-spectrum")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="default 2000")
    parser.add_argument("--window", type=int, metavar="N", help="gradients of the last so many steps only")
    parser.add_argument("--no-gradients", action="store_true", help="values only: a third of the time")
    target_arguments(parser, absent=" (default: with those of the preset or --param)")
    parser.add_argument("--starts", type=int, default=1, metavar="N", help="initial states to average over (default 1)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="grid points at a time (default 1)")
    parser.add_argument(
        "--animation", default=".gif", choices=(".gif", ".mp4"), help="of three axes (default .gif; .mp4 needs ffmpeg)"
    )
    parser.add_argument("--out", default="landscape", metavar="DIR", help="folder for the results (default landscape)")
    setup_arguments(parser, (64, 64))


def run(args: argparse.Namespace) -> int:
    """Scan, draw."""
    from .. import animations, landscape, landscape_plots, named_losses, paths

    axes = _axes(args.axis)
    if args.starts < 1:
        raise InputError(f"--starts {args.starts} must be >= 1.")
    setup = Setup(args)
    folder = paths.output_folder(args.out)
    film = animations.check_path(folder / f"landscape{args.animation}") if len(axes) == 3 else None
    print(setup.describe())
    starts = [setup.y0, *(setup.initial(args, args.seed + n) for n in range(1, args.starts))]
    targets, truth = _targets(args, setup, starts)
    made = {
        name: [named_losses.make(name, [target]) for target in targets]
        if name in named_losses.OF_PLACES
        else named_losses.make(name, targets)
        for name in args.loss
    }
    count = 1
    for axis in axes.values():
        count *= len(axis)
    try:
        with progress_bar(args, count, "grid points") as progress:
            found = landscape.scan(
                setup.sim,
                starts,
                made,
                setup.params,
                axes,
                steps=args.steps,
                window=args.window,
                gradients=not args.no_gradients,
                path=folder / "scan.npz",
                workers=args.workers,
                progress=progress,
            )
    except KeyboardInterrupt:
        return say_interrupted(f"before the end; the same command continues from {folder / 'scan.npz'}")
    lowest = {name: found.lowest(name) for name in made if (found.unstable < args.starts).any()}
    for name, at in lowest.items():
        print(f"{name}: lowest at " + ", ".join(f"{key}={value:.6g}" for key, value in at.items()))
    print(f"{int((found.unstable > 0).sum())} of {count} grid points had a run that did not stay finite")
    written = ["scan.npz", "landscape.json", "landscape.png"]
    content = dict(axes=axes, params=found.params, truth=truth, values=found.values, lowest=lowest)
    paths.write_json(folder / "landscape.json", content)
    paths.write_figure(folder / "landscape.png", landscape_plots.show(found, truth=truth))
    if film is not None:
        written.append(film.name)
        animations.slices(found, film, truth=truth)
    say_written(folder, written)
    return OK


def _axes(given: list[str]) -> dict[str, Any]:
    """``["F=0.02:0.06:20", "k=0.05,0.06"]`` as {name: array}."""
    import numpy as np

    if not 1 <= len(given) <= 3:
        raise InputError("give --axis NAME=FIRST:LAST:COUNT one to three times, such as --axis F=0.02:0.06:20.")
    axes: dict[str, Any] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name in axes:
            raise InputError(f"--axis gives {name} twice.")
        try:
            if ":" in text:
                first, last, count = text.split(":")
                axes[name] = np.linspace(float(first), float(last), int(count))
            else:
                axes[name] = np.array([float(part) for part in text.split(",")])
        except ValueError:
            axes[name] = np.array([])
        if not axes[name].size or not np.isfinite(axes[name]).all():
            raise InputError(f"--axis {item!r} must be NAME=FIRST:LAST:COUNT or NAME=VALUE,VALUE,...")
    return axes


def _targets(args: argparse.Namespace, setup: Setup, starts: list[Any]) -> tuple[list[Any], dict[str, float] | None]:
    """The target of each start, and the parameters that it was made with, if known."""
    sim = setup.sim
    if args.target:
        if args.target_param:
            raise InputError("give --target or --target-param, not both.")
        everything = list(range(len(sim.model.species)))
        frame = target_state(last_frame(args.target, sim.grid.ndim), sim, everything, str(Path(args.target)))
        return [frame] * len(starts), None
    truth = {**setup.params, **named_values(args.target_param, "--target-param")}
    sim.model.check_names(truth, "--target-param")
    return [sim.run(y0, truth, steps=args.steps).final for y0 in starts], truth
