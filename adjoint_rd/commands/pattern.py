"""``adjoint-rd pattern``."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arguments import add_command, setup_arguments
from .output import FAILED, OK, progress_bar, say_interrupted
from .setup import Setup

DESCRIPTION = """\
Make a pattern to fit: run a model from a random initial state until it hardly changes, and save one species as an
8-bit grey PNG, levels = round(255 v / scale), with the scale and the spacing, but not the parameters, in a text chunk.

Without options it is the target of the reference experiment (arXiv 2606.11258): Gray-Scott with Du=0.16 Dv=0.08
F=0.035 k=0.065 on 128x128 cells, stopped at max |y_t| = 5e-5.
"""

EXAMPLES = """\
examples:
  adjoint-rd pattern --out target.png && adjoint-rd fit target.png
  adjoint-rd pattern --preset lambda --seed 3 --out lambda.png
  adjoint-rd pattern --param Du=0.18 --param Dv=0.085 --param F=0.046 --param k=0.063 --initial random --out worms.png
"""

DEAD = 0.01  # of the standard deviation over the grid: there is no pattern


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "pattern", "make a pattern (PNG) to fit", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("--out", default="target.png", metavar="FILE", help="the PNG (default target.png)")
    parser.add_argument("--tol", type=float, default=5e-5, metavar="RATE", help="stop at max |y_t| (default 5e-5)")
    parser.add_argument("--max-steps", type=int, default=200_000, metavar="N", help="at most (default 200000)")
    parser.add_argument("--species", metavar="NAME", help="what is saved (default the model's last species)")
    parser.add_argument("--scale", type=float, metavar="X", help="the value of white (default 1, or more if needed)")
    setup_arguments(parser, (128, 128))


def run(args: argparse.Namespace) -> int:
    """Run until steady, write the PNG."""
    import numpy as np

    from .. import io, paths
    from .setup import species_indices

    if not args.preset and not args.param and args.model in (None, "gray_scott"):
        args.preset = "reference"
    path = Path(args.out)
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {args.out} must end in .png.")
    paths.output_folder(path.parent)
    setup = Setup(args)
    sim = setup.sim
    if sim.grid.ndim != 2:
        raise InputError(f"--shape {' '.join(map(str, sim.grid.shape))}: an image needs two axes.")
    index = species_indices([args.species] if args.species else None, sim.model.species)[-1]
    print(setup.describe())
    try:
        with progress_bar(args, args.max_steps, "steps") as progress:
            found = sim.run_to_steady(setup.y0, setup.params, tol=args.tol, max_steps=args.max_steps, progress=progress)
    except KeyboardInterrupt:
        return say_interrupted("before the pattern was steady; nothing was written")
    values, name = found.final[index], sim.model.species[index]
    scale = args.scale or max(1.0, float(values.max()))
    io.write_pattern(path, values, species=name, scale=scale, spacing=sim.grid.spacing)
    print(f"{found.steps_taken} steps, max |y_t| = {found.rate:.2g}")
    print(f"wrote {path}: {name} in {values.min():.4g} .. {values.max():.4g}, {scale / 255:.4g} a level")
    if np.std(values) < DEAD:
        print(f"adjoint-rd: no pattern: {name} is uniform. Try another --seed or --initial.")
        return FAILED
    if not found.converged:
        print(f"adjoint-rd: still moving after {found.steps_taken} steps (--tol {args.tol:g}).")
        return FAILED
    return OK
