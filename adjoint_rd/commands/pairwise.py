"""``adjoint-rd pairwise``."""

import argparse
from typing import Any

from ..errors import InputError, check_choice
from .arguments import add_command
from .output import OK, progress_bar, say_interrupted, say_written

DESCRIPTION = """\
The mean loss between patterns of each pair of presets: which classes a loss tells apart, and how far their own members
lie from each other. Each class is grown from several seeds. Writes

  pairwise_LOSS.png   the matrix; targets down, patterns across
  pairwise.json       the matrices
  patterns.npz        the patterns, by class
"""

EXAMPLES = """\
examples:
  adjoint-rd pairwise --presets reference kappa lambda mu --members 3
  adjoint-rd pairwise --presets well-maze well-spots --loss l2 log-spectrum gram --shape 64 64 --steps 4000
"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "pairwise", "losses between pattern classes", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("--presets", nargs="+", default=[], metavar="NAME", help="the classes, at least two")
    parser.add_argument("--members", type=int, default=3, metavar="N", help="patterns of each class (default 3)")
    parser.add_argument("--loss", nargs="+", default=["log-spectrum"], metavar="NAME", help="default log-spectrum")
    parser.add_argument("--shape", type=int, nargs=2, default=[96, 96], metavar="N", help="cells (default 96 96)")
    parser.add_argument("--steps", type=int, metavar="N", help="default: what each preset takes to develop")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first member (default 0)")
    parser.add_argument("--out", default="pairwise", metavar="DIR", help="folder for the results (default pairwise)")


def run(args: argparse.Namespace) -> int:
    """Grow the classes, compare, draw."""
    import numpy as np

    from .. import files, landscape, landscape_plots, named_losses, paths, presets

    if len(set(args.presets)) < 2 or args.members < 1:
        raise InputError("give --presets at least two names, and --members at least 1.")
    for name in args.loss:
        check_choice("--loss", name, named_losses.NAMED)
    chosen = [presets.get(name) for name in dict.fromkeys(args.presets)]
    folder = paths.output_folder(args.out)
    classes: dict[str, Any] = {}
    try:
        with progress_bar(args, len(chosen), "classes") as progress:
            for preset in chosen:
                classes[preset.name] = _grow(preset, args)
                progress(1)
    except KeyboardInterrupt:
        return say_interrupted(f"after {len(classes)} of {len(chosen)} classes; nothing is written")
    matrices = {}
    for name in args.loss:
        labels, matrix = landscape.pairwise(classes, lambda target, name=name: named_losses.make(name, [target]))
        matrices[name] = matrix
        paths.write_figure(folder / f"pairwise_{name}.png", landscape_plots.pairwise(labels, matrix))
        print(f"{name} (targets down, patterns across)")
        print(" " * 16 + "".join(f"{label[:13]:>14}" for label in labels))
        for label, row in zip(labels, matrix, strict=True):
            print(f"{label[:15]:16}" + "".join(f"{value:>14.4g}" for value in row))
    paths.write_json(folder / "pairwise.json", dict(classes=list(classes), members=args.members, matrices=matrices))
    with files.replacing(folder / "patterns.npz") as file:
        np.savez(file, **classes)
    say_written(folder, [*(f"pairwise_{name}.png" for name in args.loss), "pairwise.json", "patterns.npz"])
    return OK


def _grow(preset: Any, args: argparse.Namespace) -> Any:
    """The class's patterns (members, S, *shape)."""
    import numpy as np

    from ..grid import Grid
    from ..simulation import Simulation

    grid = Grid(tuple(args.shape), spacing=preset.spacing)
    sim = Simulation(preset.model, grid, dt=preset.dt, threads=args.threads)
    starts = [sim.initial_state(**preset.initial, rng=args.seed + n) for n in range(args.members)]
    steps = preset.steps_to_develop if args.steps is None else args.steps
    return sim.run(np.stack(starts), preset.parameters, steps=steps).final
