"""``adjoint-rd gradient``."""

import argparse
import time
from typing import Any

from ..errors import InputError
from .arguments import add_command, named_values, setup_arguments, target_arguments
from .output import OK, progress_bar, say_written
from .setup import Setup, last_frame, species_indices, target_state

DESCRIPTION = """\
The loss L = 1/2 sum (y - target)^2 of the state after --steps steps, and dL/dp for every parameter, by the transpose
of the steps that ran: exact to rounding. The target is the last frame of a file, or a run from the same initial state
with other parameters. With --out it writes gradient.json (numbers), gradient.npz and gradient.png (dL/dy0, the
derivative with the initial state).
"""

EXAMPLES = """\
examples:
  adjoint-rd gradient --preset reference --steps 500 --target-param F=0.036 --target-param k=0.064
  adjoint-rd gradient --preset reference --steps 500 --target run.npz --species v
  adjoint-rd gradient --preset reference --steps 5000 --window 500 --target-param F=0.036
        a window goes back through the last 500 steps only: not the gradient of the whole value
"""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "gradient", "dL/dp by the adjoint", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="default 500")
    parser.add_argument("--window", type=int, metavar="N", help="go back through the last so many steps only")
    target_arguments(parser)
    parser.add_argument("--species", nargs="+", metavar="NAME", help="the species that L compares (default all)")
    parser.add_argument("--out", metavar="DIR", help="folder for gradient.json, .npz and .png (default: print only)")
    setup_arguments(parser, (128, 128))


def run(args: argparse.Namespace) -> int:
    """Loss and gradient, in a table."""
    import numpy as np

    from .. import files, losses, paths, plots

    if bool(args.target) == bool(args.target_param):
        raise InputError("give a target: --target FILE, or --target-param NAME=VALUE for a run with other parameters.")
    setup = Setup(args)
    sim, species = setup.sim, setup.sim.model.species
    folder = paths.output_folder(args.out) if args.out else None
    observed = species_indices(args.species, species)
    print(setup.describe())
    with progress_bar(args, args.steps, "target") as progress:
        if args.target:
            target = target_state(last_frame(args.target, sim.grid.ndim), sim, observed, args.target)
            about = args.target
        else:
            changed = named_values(args.target_param, "--target-param")
            other = {**setup.params, **changed}
            sim.model.check_names(other, "--target-param")
            target = sim.run(setup.y0, other, steps=args.steps, progress=progress).final[observed]
            about = "a run with " + ", ".join(f"{name}={value:g}" for name, value in changed.items())
    loss = losses.L2(target, species=observed)
    began = time.perf_counter()
    with progress_bar(args, None, "gradient") as progress:
        found = sim.gradient(setup.y0, setup.params, loss, steps=args.steps, window=args.window, progress=progress)
    seconds = time.perf_counter() - began
    compared = ", ".join(species[c] for c in observed)
    print(f"target: {about}; L = 1/2 sum (y - target)^2 over {compared} after {args.steps} steps")
    if args.window:
        print(f"window: the last {args.window} steps only; this is not the gradient of the whole value")
    print(f"L = {found.value:.10g}    ({seconds:.2f} s)\n")
    print(f"{'parameter':12}{'value':>14}{'dL/dp':>20}{'p dL/dp':>20}")
    for name, slope in found.params.items():
        value = setup.params[name]
        print(f"{name:12}{value:>14.6g}{slope:>20.10g}{value * slope:>20.10g}")
    print(f"\ndL/dy0: norm {np.linalg.norm(found.initial):.6g}, largest {np.abs(found.initial).max():.6g}")
    if folder:
        content = dict(
            model=sim.model.name,
            params=setup.params,
            steps=args.steps,
            window=args.window,
            target=about,
            value=found.value,
            gradient=found.params,
        )
        paths.write_json(folder / "gradient.json", content)
        with files.replacing(folder / "gradient.npz") as file:
            np.savez(
                file,
                initial=found.initial,
                target=target,
                **{f"d{name}": slope for name, slope in found.params.items()},
            )
        figure = plots.plot_state(
            found.initial, names=[f"dL/d{name}0" for name in species], spacing=sim.grid.spacing, title="dL/dy0"
        )
        paths.write_figure(folder / "gradient.png", figure)
        say_written(folder, ["gradient.json", "gradient.npz", "gradient.png"])
    return OK
