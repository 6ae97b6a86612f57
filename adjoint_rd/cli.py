"""The command line ``adjoint-rd``: simulate, gradient, validate, fit.

Results go to standard output and into the folder of ``--out``; warnings, errors and progress bars go to standard
error. Exit codes: 0 done, 1 a check or a fit failed, 2 bad input, 130 interrupted by Ctrl-C (what was computed so far
is written).
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from ._version import __version__
from .errors import AdjointRDError, InputError, StabilityWarning, did_you_mean

OK, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
PIECE = 1000  # steps, at most, that Ctrl-C loses; a hundredth of the run if that is less

DESCRIPTION = """\
Exact gradients through reaction-diffusion systems, and parameters out of patterns.

  simulate   run a model; writes the states as .npz and PNG
  gradient   dL/dp for every parameter, by the adjoint of the run
  validate   check the gradients of your own set-up, in six ways
  fit        parameters from the frames of a file (HDF5, npz, npy)
  bench      speed and memory against other systems (from a source checkout)
"""

EPILOG = """\
examples:
  adjoint-rd simulate --preset maze --out maze
  adjoint-rd gradient --preset well-maze --steps 500 --target-param F=0.03
  adjoint-rd validate --model gray_scott --param Du=0.16 --param Dv=0.08 --param F=0.035 --param k=0.065
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5

exit codes: 0 done, 1 a check or a fit failed, 2 bad input, 130 Ctrl-C (what was computed so far is written)
'adjoint-rd COMMAND --help' explains each command.
"""

SIMULATE = """\
Run a model from an initial state and write

  run.npz         parameters and saved states; adjoint_rd.load() reads it
  final.png       the last state, with axes and colour bars
  state_*.png     with --save-every, every saved state, one pixel a cell (2-D)
"""

SIMULATE_EXAMPLES = """\
examples:
  adjoint-rd simulate --list-presets
  adjoint-rd simulate --preset lambda --shape 256 256 --save-every 1000 --out lambda
  adjoint-rd simulate --param Du=0.16 --param Dv=0.08 --param F=0.035 --param k=0.065 --steps 4000
  adjoint-rd simulate --model allen_cahn --param Du=1 --param r=0.5 --dt 0.2 --initial noise --initial-option noise=0.5
  adjoint-rd simulate --preset delta --param F=0.032     a preset with one parameter changed
"""

GRADIENT = """\
The loss L = 1/2 sum (y - target)^2 of the state after --steps steps, and dL/dp for every parameter, by the transpose
of the steps that ran: exact to rounding. The target is the last frame of a file, or a run from the same initial state
with other parameters. With --out it writes gradient.json (numbers), gradient.npz and gradient.png (dL/dy0, the
derivative with the initial state).
"""

GRADIENT_EXAMPLES = """\
examples:
  adjoint-rd gradient --preset reference --steps 500 --target-param F=0.036 --target-param k=0.064
  adjoint-rd gradient --preset reference --steps 500 --target run.npz --species v
  adjoint-rd gradient --preset reference --steps 5000 --window 500 --target-param F=0.036
        a window goes back through the last 500 steps only: not the gradient of the whole value
"""

VALIDATE = """\
Check the gradients on the model, grid, scheme and dtype that you use:

  model               the model's hand-written derivatives, point by point, against complex steps
  finite-difference   gradient against central differences over a range of steps
  taylor              J(x + h d) - J(x) - h g.d falls like h^2
  hessian             ... and like h^3 with the Hessian product
  dot-product         <J t, a> = <t, J^T a>: the tangent and the adjoint are transposes
  complex-step        gradient against the model's forward functions on complex numbers

The loss is L = 1/2 sum (y - target)^2 where the target is a run with parameters 5 % larger. Exits with 1 if a check
fails.
"""

VALIDATE_EXAMPLES = """\
examples:
  adjoint-rd validate --preset reference
  adjoint-rd validate --preset reference --shape 24 20 --boundary neumann periodic --scheme rk4 --steps 50
  adjoint-rd validate --model my_model.py:model --param Du=1 --param r=0.5 --dt 0.1 --checks dot-product taylor
"""

FIT = """\
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

FIT_EXAMPLES = """\
examples:
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5
  adjoint-rd fit gray_scott_maze_etdrk4.hdf5 --refine 1 2 --frames 11 --out maze_fit
  adjoint-rd fit frames.npy --interval 10 --spacing 0.015625 --fixed F=0.029
  adjoint-rd fit frames.npz --start Du=2e-5 --start Dv=1e-5
"""


# Arguments


class _Parser(argparse.ArgumentParser):
    """Errors as everywhere else: one line that begins with ``adjoint-rd: error:``, exit code 2."""

    def error(self, message: str) -> Any:
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


def _parser() -> _Parser:
    parser = _Parser(
        prog="adjoint-rd", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"adjoint-rd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _simulate_parser(_command(commands, "simulate", "run a model, write states", SIMULATE, SIMULATE_EXAMPLES, simulate))
    _gradient_parser(_command(commands, "gradient", "dL/dp by the adjoint", GRADIENT, GRADIENT_EXAMPLES, gradient))
    _validate_parser(_command(commands, "validate", "check gradients", VALIDATE, VALIDATE_EXAMPLES, validate))
    _fit_parser(_command(commands, "fit", "parameters from frames", FIT, FIT_EXAMPLES, fit))
    return parser


def _command(
    commands: Any,
    name: str,
    summary: str,
    description: str,
    examples: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
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


def _setup_arguments(parser: argparse.ArgumentParser, shape: tuple[int, ...]) -> None:
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


class _ListPresets(argparse.Action):
    def __call__(self, parser: Any, *_: Any) -> None:
        from . import presets

        for name in presets.names():
            preset = presets.get(name)
            values = " ".join(f"{key}={value:g}" for key, value in preset.parameters.items())
            print(f"{name:14} {values:44} {preset.behaviour:7} {preset.description}")
        parser.exit()


def _simulate_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list-presets", action=_ListPresets, nargs=0, help="list the presets and exit")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="default 2000, or until the preset's pattern has developed"
    )
    parser.add_argument(
        "--save-every", type=int, metavar="N", help="save every so many steps, not only the first and last state"
    )
    parser.add_argument(
        "--colormap", default="viridis", metavar="NAME", help="a colour map of matplotlib, or grey (default viridis)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the results (default simulate_PRESET or simulate_MODEL)"
    )
    _setup_arguments(parser, (128, 128))


def _gradient_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="default 500")
    parser.add_argument("--window", type=int, metavar="N", help="go back through the last so many steps only")
    parser.add_argument("--target", metavar="FILE", help="the last frame of this file is the target")
    parser.add_argument(
        "--target-param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the target is a run with these parameters changed",
    )
    parser.add_argument("--species", nargs="+", metavar="NAME", help="the species that L compares (default all)")
    parser.add_argument("--out", metavar="DIR", help="folder for gradient.json, .npz and .png (default: print only)")
    _setup_arguments(parser, (128, 128))


CHECKS = ("model", "finite-difference", "taylor", "hessian", "dot-product", "complex-step")


def _validate_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="default 20")
    parser.add_argument(
        "--checks", nargs="+", metavar="NAME", default=list(CHECKS), help=f"default all: {' '.join(CHECKS)}"
    )
    parser.add_argument(
        "--free", nargs="+", metavar="NAME", help="parameters to check (default all); 'initial' is the initial state"
    )
    parser.add_argument("--window", type=int, metavar="N", help="check the gradient of the last so many steps")
    parser.add_argument("--out", metavar="DIR", help="folder for validate.json (default: print only)")
    _setup_arguments(parser, (32, 24))


def _fit_parser(parser: argparse.ArgumentParser) -> None:
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


# Commands: each returns an exit code


def simulate(args: argparse.Namespace) -> int:
    """Run, save, draw."""
    import numpy as np

    from . import io, plots
    from .simulation import Run

    setup = _Setup(args)
    label = args.preset or setup.sim.model.name
    steps = args.steps if args.steps is not None else setup.preset.steps_to_develop if setup.preset else 2000
    if steps < 1:
        raise InputError(f"--steps {steps} must be >= 1.")
    every = args.save_every or steps
    if every < 1:
        raise InputError(f"--save-every {every} must be >= 1.")
    _check_colormap(args.colormap)
    folder = io.output_folder(args.out or f"simulate_{label}")
    print(setup.describe())
    marks = sorted({*range(0, steps, every), steps})
    pieces = sorted({*marks, *range(0, steps, max(1, min(PIECE, steps // 100)))})
    state, taken, saved, interrupted = setup.y0, 0, {0: setup.y0}, False
    began = time.perf_counter()
    try:
        with _bar(args, steps, "steps") as progress:
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
    io.write_figure(folder / "final.png", figure)
    if args.save_every and setup.sim.grid.ndim == 2:
        for step in run.steps:
            name = f"state_{step:0{len(str(steps))}d}.png"
            io.write_image(folder / name, saved[int(step)], colormap=args.colormap)
            written.append(name)
    _say_written(folder, written)
    return _say_interrupted(f"after step {taken} of {steps}; the last state is in run.npz") if interrupted else OK


def gradient(args: argparse.Namespace) -> int:
    """Loss and gradient, in a table."""
    import numpy as np

    from . import io, losses, plots

    if bool(args.target) == bool(args.target_param):
        raise InputError("give a target: --target FILE, or --target-param NAME=VALUE for a run with other parameters.")
    setup = _Setup(args)
    sim, species = setup.sim, setup.sim.model.species
    folder = io.output_folder(args.out) if args.out else None
    observed = _species(args.species, species)
    print(setup.describe())
    with _bar(args, args.steps, "target") as progress:
        if args.target:
            target = _target_state(_last_frame(args.target, sim.grid.ndim), sim, observed, args.target)
            about = args.target
        else:
            changed = _values(args.target_param, "--target-param")
            other = {**setup.params, **changed}
            sim.model.check_names(other, "--target-param")
            target = sim.run(setup.y0, other, steps=args.steps, progress=progress).final[observed]
            about = "a run with " + ", ".join(f"{name}={value:g}" for name, value in changed.items())
    loss = losses.L2(target, species=observed)
    began = time.perf_counter()
    with _bar(args, None, "gradient") as progress:
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
        io.write_json(folder / "gradient.json", content)
        with io.replacing(folder / "gradient.npz") as file:
            np.savez(
                file,
                initial=found.initial,
                target=target,
                **{f"d{name}": slope for name, slope in found.params.items()},
            )
        figure = plots.plot_state(
            found.initial, names=[f"dL/d{name}0" for name in species], spacing=sim.grid.spacing, title="dL/dy0"
        )
        io.write_figure(folder / "gradient.png", figure)
        _say_written(folder, ["gradient.json", "gradient.npz", "gradient.png"])
    return OK


def validate(args: argparse.Namespace) -> int:
    """The reports of `adjoint_rd.validate`, and whether all passed."""
    from . import io, losses
    from . import validate as checks
    from .objective import Objective

    for name in args.checks:
        if name not in CHECKS:
            raise InputError(f"--checks has {name!r}; the checks are {', '.join(CHECKS)}.{did_you_mean(name, CHECKS)}")
    setup = _Setup(args)
    sim, params = setup.sim, setup.params
    folder = io.output_folder(args.out) if args.out else None
    print(setup.describe())
    free = args.free or list(sim.model.names)
    target = sim.run(setup.y0, {name: 1.05 * value for name, value in params.items()}, steps=args.steps).final
    obj = Objective(
        sim,
        setup.y0,
        losses.L2(target),
        steps=args.steps,
        free=free,
        fixed={name: value for name, value in params.items() if name not in free},
        transform={name: "log" for name in free if name != "initial" and params.get(name, 0.0) > 0.0},
        window=args.window,
    )
    x0 = obj.pack(**{name: params[name] for name in free if name != "initial"})
    ways: dict[str, Callable[[], Any]] = {
        "model": lambda: checks.model(sim.model),
        "finite-difference": lambda: checks.finite_difference(obj, x0),
        "taylor": lambda: checks.taylor(obj, x0),
        "hessian": lambda: checks.taylor(obj, x0, hessian=True),
        "dot-product": lambda: checks.dot_product(sim, setup.y0, params, steps=args.steps),
        "complex-step": lambda: checks.complex_step(obj, x0),
    }
    reports: dict[str, Any] = {}
    interrupted = False
    try:
        with _bar(args, len(args.checks), "checks") as progress:
            for name in args.checks:
                reports[name] = ways[name]()
                progress(1)
                _print_above_bar(f"\n{name}: {'pass' if reports[name].passed else 'FAIL'}\n{reports[name]}")
    except KeyboardInterrupt:
        interrupted = True
    failed = [name for name, report in reports.items() if not report.passed]
    if folder:
        content = {name: dict(passed=bool(report.passed), report=str(report)) for name, report in reports.items()}
        io.write_json(folder / "validate.json", dict(setup=setup.describe(), params=params, checks=content))
        _say_written(folder, ["validate.json"])
    if interrupted:
        return _say_interrupted(f"after {len(reports)} of {len(args.checks)} checks")
    print(
        f"\n{len(reports) - len(failed)} of {len(reports)} checks passed"
        + (f"; FAILED: {', '.join(failed)}" if failed else ".")
    )
    return FAILED if failed else OK


def fit(args: argparse.Namespace) -> int:
    """Parameters from frames, with truth, errors and figures."""
    from dataclasses import replace

    import numpy as np

    from . import io
    from .trajectory_fit import Progress, TrajectoryFit, fit_trajectory

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
    with _bar(args, None, "fit") as progress:

        def show(event: Progress) -> None:
            last[:] = [event]
            progress(1, f"R={event.refine}, evaluation {event.evaluations}, misfit {event.misfit:.3g}")

        def keep(result: TrajectoryFit) -> None:
            so_far.append(result)
            done = result.refinements[-1]
            size = "x".join(map(str, done.shape))
            _print_above_bar(
                f"R={done.refine}: {size} cells, {done.substeps} steps per interval, {done.evaluations} evaluations, "
                f"rms {done.rms:.3g}, {done.seconds:.1f} s"
            )

        try:
            result: TrajectoryFit | None = fit_trajectory(
                observation,
                _model(args.model),
                fixed=_values(args.fixed, "--fixed"),
                start=_values(args.start, "--start"),
                refine=args.refine,
                frames=args.frames,
                substeps=args.substeps,
                boundary=_one_or_many(args.boundary) if args.boundary else None,
                noise=_one_or_many(args.noise) if args.noise else None,
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
            _say_written(folder, ["fit.json"])
        return _say_interrupted(where)
    print(f"\n{result}")
    _write_fit(folder, result, observation, unfinished)
    if interrupted:
        return _say_interrupted(
            f"after R={result.refinements[-1].refine}; the results above are complete, finer grids are missing"
        )
    if not result.success:
        print("adjoint-rd: the fit failed, see above", file=sys.stderr)
    return OK if result.success else FAILED


def _write_fit(folder: Path, result: Any, observation: Any, unfinished: Any) -> None:
    import numpy as np

    from . import io, plots

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
    _say_written(folder, ["fit.json", "fit.png", "history.png", "fitted.npz"])


# What commands share


class _Setup:
    """The model, parameters, simulation and initial state that the options describe."""

    def __init__(self, args: argparse.Namespace):
        from . import presets
        from .grid import Grid
        from .simulation import Simulation

        self.preset = presets.get(args.preset) if args.preset else None
        if self.preset and args.model and args.model != self.preset.model:
            raise InputError(
                f"--preset {args.preset} is of the model {self.preset.model}, and --model says {args.model}; give "
                "one of them."
            )
        model = _model(args.model or (self.preset.model if self.preset else "gray_scott"))
        given = _values(args.param, "--param")
        params = {**(self.preset.parameters if self.preset else {}), **given}
        spacing = _one_or_many(args.spacing) if args.spacing else self.preset.spacing if self.preset else 1.0
        dt = args.dt if args.dt is not None else self.preset.dt if self.preset else 1.0
        grid = Grid(tuple(args.shape or args.default_shape), spacing=spacing, boundary=_one_or_many(args.boundary))
        self.sim = Simulation(
            model, grid, dt=dt, scheme=args.scheme, dtype=args.dtype, stability=args.stability, threads=args.threads
        )
        if not params:
            example = " ".join(f"--param {name}=..." for name in self.sim.model.names)
            raise InputError(f"give --preset NAME, or the parameters of {self.sim.model.name}: {example}")
        self.params = self.sim.check_params(params, "--param")
        self.sim.check_stability(self.params)
        self.y0 = self._initial(args)

    def _initial(self, args: argparse.Namespace) -> Any:
        if args.initial_file:
            if args.initial or args.initial_option:
                raise InputError("give --initial-file, or --initial with its options, not both.")
            return self.sim.check_state(_last_frame(args.initial_file, self.sim.grid.ndim), "--initial-file")
        options = dict(self.preset.initial) if self.preset and not args.initial else {}
        kind = args.initial or options.pop("kind", "square")
        options.update(_values(args.initial_option, "--initial-option"))
        return self.sim.initial_state(kind, rng=args.seed, params=self.params, **options)

    def describe(self) -> str:
        sim = self.sim
        values = ", ".join(f"{name}={value:g}" for name, value in self.params.items())
        return f"{sim.model.name}: {values}\n{sim.grid}, dt {sim.dt:g}, {sim.scheme_name}, {sim.dtype.name}"


def _model(name: str) -> Any:
    """A built-in model's name, or the Model in FILE.py:NAME."""
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        return name
    from importlib import util

    from .models import Model

    path = Path(file).resolve()
    if not path.is_file():
        raise InputError(f"--model {name}: there is no file {file}.")
    spec = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not isinstance(found, Model):
        known = [key for key, value in vars(module).items() if isinstance(value, Model)]
        raise InputError(
            f"--model {name}: {attribute!r} is not an adjoint_rd.Model; the file has {', '.join(known) or 'none'}."
        )
    return found


def _values(given: Sequence[str], option: str) -> dict[str, Any]:
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


def _one_or_many(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _species(given: Sequence[str] | None, names: Sequence[str]) -> list[int]:
    for name in given or ():
        if name not in names:
            raise InputError(f"--species has {name!r}; the species are {', '.join(names)}.{did_you_mean(name, names)}")
    return [names.index(name) for name in given] if given else list(range(len(names)))


def _last_frame(path: str, ndim: int) -> Any:
    """The last frame (S, *shape) of a file; an array in it may lack time, or time and species."""
    from . import io

    spatial = io.SPATIAL[:ndim]
    for axes in (f"ts{spatial}", f"s{spatial}", spatial):
        try:
            return io.read_observation(path, axes=axes).fields[-1]
        except InputError as found:
            error = found
            if "axes" not in str(error):
                break
    raise error


def _target_state(frame: Any, sim: Any, observed: list[int], path: str) -> Any:
    """The observed species of a frame that has all of them, or only them."""
    shape, count = sim.grid.shape, len(sim.model.species)
    if frame.shape[1:] != shape or len(frame) not in (count, len(observed)):
        raise InputError(
            f"--target {path}: its last frame has shape {frame.shape} (species, cells); needed is "
            f"{(len(observed), *shape)}. "
            "Set --shape and --species to fit."
        )
    return frame[observed] if len(frame) == count else frame


def _check_colormap(name: str) -> None:
    from matplotlib import colormaps

    if name not in ("grey", "gray") and name not in colormaps:
        raise InputError(f"--colormap {name!r} is not known to matplotlib.{did_you_mean(name, ['grey', *colormaps])}")


# Output


@contextmanager
def _bar(args: argparse.Namespace, total: int | None, label: str) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields ``update(count, text=None)``."""
    from tqdm import tqdm

    disable = {"auto": None, "on": False, "off": True}[args.progress]
    with tqdm(total=total, desc=label, disable=disable, file=sys.stderr, leave=False) as bar:

        def update(count: int, text: str | None = None) -> None:
            if text is not None:
                bar.set_description_str(text, refresh=False)
            bar.update(count)

        yield update


def _print_above_bar(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def _say_written(folder: Path, names: Sequence[str]) -> None:
    listed = list(names) if len(names) <= 6 else [*names[:3], f"... ({len(names)} files)", names[-1]]
    print(f"wrote {folder}{os.sep}: {', '.join(listed)}")


def _say_interrupted(where: str) -> int:
    print(f"adjoint-rd: interrupted {where}", file=sys.stderr)
    return INTERRUPTED


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings of this library as one line on standard error; others as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", StabilityWarning)
        show = warnings.showwarning

        def plain(message: Any, category: Any, *args: Any, **kwargs: Any) -> None:
            if issubclass(category, StabilityWarning):
                print(f"adjoint-rd: warning: {message}", file=sys.stderr)
            else:
                show(message, category, *args, **kwargs)

        warnings.showwarning = plain
        yield


def _bench(argv: Sequence[str]) -> int:
    """Run the benchmarks of the source checkout that this package lies in; they are not installed with it."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "validation" / "bench" / "run.py").is_file():
        raise InputError(
            "bench needs the source checkout (validation/bench/), which an ordinary installation does not have; clone "
            "the repository and install it with: pip install -e ."
        )
    sys.path.insert(0, str(root))
    from validation.bench.run import main as run  # type: ignore[import-not-found]

    return run(argv)


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
    commands = ("simulate", "gradient", "validate", "fit", "bench")
    try:
        if not argv:
            _parser().print_help(sys.stderr)
            return BAD_INPUT
        if not argv[0].startswith("-") and argv[0] not in commands:
            raise InputError(
                f"{argv[0]!r} is not a command; use {', '.join(commands)}.{did_you_mean(argv[0], commands)}"
            )
        if argv[0] == "bench":
            return _bench(argv[1:])
        args = _parser().parse_all(argv)
        with _plain_warnings():
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
        return _say_interrupted("before there was anything to keep")
