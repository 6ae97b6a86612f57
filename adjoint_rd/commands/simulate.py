"""``adjoint-rd simulate``."""

import argparse
import time
from itertools import pairwise
from typing import Any

from ..errors import InputError
from .arguments import add_command, setup_arguments
from .output import OK, progress_bar, say_interrupted, say_written
from .setup import Setup, check_colormap

DESCRIPTION = """\
Run a model from an initial state and write

  run.npz         parameters and saved states; adjoint_rd.load() reads it
  final.png       the last state, with axes and colour bars
  state_*.png     with --save-every, every saved state, one pixel a cell (2-D)
  run.gif         with --save-every and --animation, the last species of the saved states (.mp4 needs ffmpeg)
"""

EXAMPLES = """\
examples:
  adjoint-rd simulate --list-presets
  adjoint-rd simulate --preset lambda --shape 256 256 --save-every 1000 --out lambda
  adjoint-rd simulate --param Du=0.16 --param Dv=0.08 --param F=0.035 --param k=0.065 --steps 4000
  adjoint-rd simulate --model allen_cahn --param Du=1 --param r=0.5 --dt 0.2 --initial noise --initial-option noise=0.5
  adjoint-rd simulate --preset delta --param F=0.032     a preset with one parameter changed
"""

PIECE = 1000  # steps, at most, that Ctrl-C loses; a hundredth of the run if that is less


class _ListPresets(argparse.Action):
    def __call__(self, parser: Any, *_: Any) -> None:
        from .. import presets

        for name in presets.names():
            preset = presets.get(name)
            values = " ".join(f"{key}={value:g}" for key, value in preset.parameters.items())
            print(f"{name:14} {values:44} {preset.behaviour:7} {preset.description}")
        parser.exit()


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "simulate", "run a model, write states", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("--list-presets", action=_ListPresets, nargs=0, help="list the presets and exit")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="default 2000, or until the preset's pattern has developed"
    )
    parser.add_argument(
        "--save-every", type=int, metavar="N", help="save every so many steps, not only the first and last state"
    )
    parser.add_argument(
        "--animation", nargs="?", const=".gif", choices=(".gif", ".mp4"), help="animate the saved states (2-D)"
    )
    parser.add_argument(
        "--colormap", default="viridis", metavar="NAME", help="a colour map of matplotlib, or grey (default viridis)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the results (default simulate_PRESET or simulate_MODEL)"
    )
    setup_arguments(parser, (128, 128))


def run(args: argparse.Namespace) -> int:
    """Run, save, draw."""
    import numpy as np

    from .. import io, paths, plots
    from ..runs import Run

    setup = Setup(args)
    label = args.preset or setup.sim.model.name
    steps = args.steps if args.steps is not None else setup.preset.steps_to_develop if setup.preset else 2000
    if steps < 1:
        raise InputError(f"--steps {steps} must be >= 1.")
    every = args.save_every or steps
    if every < 1:
        raise InputError(f"--save-every {every} must be >= 1.")
    check_colormap(args.colormap)
    if args.animation and not (args.save_every and setup.sim.grid.ndim == 2):
        raise InputError("--animation needs --save-every N, and a grid of two axes.")
    folder = paths.output_folder(args.out or f"simulate_{label}")
    if args.animation:
        from .. import animations

        animations.check_path(folder / f"run{args.animation}")
    print(setup.describe())
    marks = sorted({*range(0, steps, every), steps})
    pieces = sorted({*marks, *range(0, steps, max(1, min(PIECE, steps // 100)))})
    state, taken, saved, interrupted = setup.y0, 0, {0: setup.y0}, False
    began = time.perf_counter()
    try:
        with progress_bar(args, steps, "steps") as progress:
            for before, mark in pairwise(pieces):
                state = setup.sim.run(state, setup.params, steps=mark - before, progress=progress).final
                taken = mark
                if mark in marks:
                    saved[mark] = state
    except KeyboardInterrupt:
        interrupted = True
        saved[taken] = state
    seconds = time.perf_counter() - began
    run = Run(
        state,
        np.stack([saved[step] for step in sorted(saved)]),
        np.array(sorted(saved)),
        setup.params,
        setup.sim.dt,
        setup.sim.grid.spacing,
        setup.sim.model.name,
    )
    print(f"ran {taken} steps (to time {taken * setup.sim.dt:g}) in {seconds:.2f} s")
    for name, field in zip(setup.sim.model.species, state, strict=True):
        print(
            f"  {name}: {field.min():.4g} .. {field.max():.4g}, mean {field.mean():.4g}, standard deviation "
            f"{field.std():.3g}"
        )
    run.save(folder / "run.npz")
    written = ["run.npz", "final.png"]
    title = f"{label}, step {taken}"
    drawn = plots.STATE_COLORS if args.colormap == "grey" else args.colormap
    figure = plots.plot_state(
        state, names=setup.sim.model.species, spacing=setup.sim.grid.spacing, title=title, colormap=drawn
    )
    paths.write_figure(folder / "final.png", figure)
    if args.save_every and setup.sim.grid.ndim == 2:
        for step in run.steps:
            name = f"state_{step:0{len(str(steps))}d}.png"
            io.write_image(folder / name, saved[int(step)], colormap=args.colormap)
            written.append(name)
    if args.animation:
        written.append(f"run{args.animation}")
        animations.runs(run.states, folder / written[-1], colormap=drawn)
    say_written(folder, written)
    return say_interrupted(f"after step {taken} of {steps}; the last state is in run.npz") if interrupted else OK
