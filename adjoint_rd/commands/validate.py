"""``adjoint-rd validate``."""

import argparse
from collections.abc import Callable
from typing import Any

from ..errors import InputError, did_you_mean
from .arguments import add_command, setup_arguments
from .output import FAILED, OK, print_above_bar, progress_bar, say_interrupted, say_written
from .setup import Setup

DESCRIPTION = """\
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

EXAMPLES = """\
examples:
  adjoint-rd validate --preset reference
  adjoint-rd validate --preset reference --shape 24 20 --boundary neumann periodic --scheme rk4 --steps 50
  adjoint-rd validate --model my_model.py:model --param Du=1 --param r=0.5 --dt 0.1 --checks dot-product taylor
"""

CHECKS = ("model", "finite-difference", "taylor", "hessian", "dot-product", "complex-step")


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "validate", "check gradients", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="default 20")
    parser.add_argument(
        "--checks", nargs="+", metavar="NAME", default=list(CHECKS), help=f"default all: {' '.join(CHECKS)}"
    )
    parser.add_argument(
        "--free", nargs="+", metavar="NAME", help="parameters to check (default all); 'initial' is the initial state"
    )
    parser.add_argument("--window", type=int, metavar="N", help="check the gradient of the last so many steps")
    parser.add_argument("--out", metavar="DIR", help="folder for validate.json (default: print only)")
    setup_arguments(parser, (32, 24))


def run(args: argparse.Namespace) -> int:
    """The reports of `adjoint_rd.validate`, and whether all passed."""
    from .. import losses, paths
    from .. import validate as checks
    from ..objective import Objective

    for name in args.checks:
        if name not in CHECKS:
            raise InputError(f"--checks has {name!r}; the checks are {', '.join(CHECKS)}.{did_you_mean(name, CHECKS)}")
    setup = Setup(args)
    sim, params = setup.sim, setup.params
    folder = paths.output_folder(args.out) if args.out else None
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
        with progress_bar(args, len(args.checks), "checks") as progress:
            for name in args.checks:
                reports[name] = ways[name]()
                progress(1)
                print_above_bar(f"\n{name}: {'pass' if reports[name].passed else 'FAIL'}\n{reports[name]}")
    except KeyboardInterrupt:
        interrupted = True
    failed = [name for name, report in reports.items() if not report.passed]
    if folder:
        content = {name: dict(passed=bool(report.passed), report=str(report)) for name, report in reports.items()}
        paths.write_json(folder / "validate.json", dict(setup=setup.describe(), params=params, checks=content))
        say_written(folder, ["validate.json"])
    if interrupted:
        return say_interrupted(f"after {len(reports)} of {len(args.checks)} checks")
    print(
        f"\n{len(reports) - len(failed)} of {len(reports)} checks passed"
        + (f"; FAILED: {', '.join(failed)}" if failed else ".")
    )
    return FAILED if failed else OK
