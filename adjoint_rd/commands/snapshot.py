"""What ``adjoint-rd fit`` does with one frame: `adjoint_rd.invert`, a table, a figure."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arguments import named_values, one_or_many
from .output import FAILED, OK, print_above_bar, progress_bar, say_interrupted, say_written
from .setup import model_of

BOUNDARIES = ("periodic", "neumann", "cropped")


def run(args: argparse.Namespace, observation: Any) -> int:
    """Parameters from one frame."""
    from .. import models, paths
    from ..inverse import invert

    model = models.get(model_of(args.model))
    options = _options(args, observation, model)
    folder = paths.output_folder(args.out or f"fit_{Path(args.file).stem}")
    data = observation.fields[args.frame or 0]
    data = data[0] if len(data) == 1 else data
    print(_about(observation, options))
    began = time.perf_counter()
    try:
        with progress_bar(args, None, "fit") as progress:

            def show(line: str) -> None:
                print_above_bar(f"  {line}")
                progress(1)

            result = invert(data, model=model, progress=show, **options)
    except KeyboardInterrupt:
        return say_interrupted("before the fit was done; nothing was written")
    seconds = time.perf_counter() - began
    print(f"\n{table(result)}\n\n{_verdict(result)} ({seconds:.1f} s)\n")
    _write_json(folder, result, observation, options, seconds)
    written = ["fit.json"]
    if result.success and observation.fields.ndim == 4:
        written.append(_draw(args, folder, result, data, model, options))
    say_written(folder, written)
    if not result.success:
        print("adjoint-rd: the fit was refused, see above", file=sys.stderr)
    return OK if result.success else FAILED


def _options(args: argparse.Namespace, observation: Any, model: Any) -> dict[str, Any]:
    """The arguments of `invert` that the command line and the file give."""
    names = observation.names
    species = args.species or (list(names) if set(names) <= set(model.species) and names else None)
    count = observation.fields.shape[1]
    if species is None and count > 1:
        species = list(model.species)
    if species is not None and len(species) != count:
        raise InputError(
            f"--species {' '.join(species)}: {args.file} has {count} species; name each, of {', '.join(model.species)}."
        )
    boundary = one_or_many(args.boundary) if args.boundary else None
    if boundary is None:
        said = observation.boundary
        boundary = said[0].lower() if said and len(set(said)) == 1 and said[0].lower() in BOUNDARIES else "periodic"
    if boundary not in BOUNDARIES:
        raise InputError(f"--boundary {' '.join(args.boundary)}: for one frame it is one of {', '.join(BOUNDARIES)}.")
    if args.noise and len(args.noise) > 1:
        raise InputError("--noise: one frame has one noise level.")
    if args.gain == "unknown" and args.scale is not None:
        raise InputError("--gain unknown with --scale: give one of them.")
    scale = args.scale if args.scale is not None else None if args.gain == "unknown" else observation.scale
    if scale is None and args.gain == "known":
        raise InputError(f"--gain known: {args.file} does not say the value of white; give --scale X.")
    spacing = one_or_many(args.spacing) if args.spacing else observation.spacing or 1.0
    return dict(
        spacing=spacing, scale=scale, boundary=boundary, offset=bool(args.offset),
        subsample=args.subsample or 1, at_rest=bool(args.at_rest),
        noise=args.noise[0] if args.noise else None, known=named_values(args.fixed, "--fixed"),
        start=named_values(args.start, "--start") or None,
        species=None if species is None else species[0] if len(species) == 1 else species,
    )  # fmt: skip


def _about(observation: Any, options: dict[str, Any]) -> str:
    scale, h = options["scale"], options["spacing"]
    gain = "gain unknown" if scale is None else f"scale {scale:g}"
    spacing = " x ".join(f"{each:g}" for each in h) if isinstance(h, tuple) else f"{h:g}"
    return f"{observation}\nspacing {spacing}, {options['boundary']}, {gain}"


def table(result: Any) -> str:
    """Parameters and combinations with their standard errors, in columns."""
    import math

    rows = [(name, value, result.stderr.get(name)) for name, value in result.params.items()]
    rows += [(name, *pair) for name, pair in result.combinations.items()]
    lines = [f"{'':14}{'value':>12}{'standard error':>18}{'%':>9}"]
    for name, value, error in rows:
        if error is None:
            lines.append(f"{name:14}{value:>12.6g}{'(known)':>18}")
        elif math.isnan(error) or math.isnan(value):
            shown = "-" if math.isnan(value) else f"{value:.6g}"
            lines.append(f"{name:14}{shown:>12}{'not determined':>18}")
        else:
            lines.append(f"{name:14}{value:>12.6g}{error:>18.2g}{100 * abs(error / value):>9.2g}")
    return "\n".join(lines)


def _verdict(result: Any) -> str:
    import textwrap

    return textwrap.fill(f"{'Success' if result.success else 'Refused'}: {result.message}", 110)


def _write_json(folder: Path, result: Any, observation: Any, options: dict[str, Any], seconds: float) -> None:
    from .. import paths

    names = (
        "success", "message", "params", "stderr", "names", "covariance", "noise", "rate", "offset", "gain", "stages"
    )  # fmt: skip
    content = dict(
        source=observation.source,
        options=options,
        **{name: getattr(result, name) for name in names},
        combinations={name: dict(value=value, stderr=error) for name, (value, error) in result.combinations.items()},
        seconds=seconds,
    )
    paths.write_json(folder / "fit.json", content)


def _draw(args: argparse.Namespace, folder: Path, result: Any, data: Any, model: Any, options: dict[str, Any]) -> str:
    """The figure, with the objectives along a line where there is a Green form and it is wanted."""
    import numpy as np

    from .. import paths, plots
    from ..grid import Grid
    from ..inversion import slices, start

    species = options["species"] or model.species[-1]
    single = isinstance(species, str)
    species = species if single else species[-1]
    data = data if single else data[-1]
    every = (slice(None, None, options["subsample"]),) * 2
    observed = model.species.index(species)
    fitted = result.gain * result.state[observed] + result.offset
    line = None
    plain = options["subsample"] == 1 and options["boundary"] != "cropped" and not options["known"]
    plain = plain and single and bool(np.isfinite(data).all())
    if args.landscape and plain and start.structure(model, observed, {}).green and min(result.params.values()) > 0:
        v = (data - result.offset) / result.gain
        grid = Grid(v.shape, spacing=options["spacing"], boundary=options["boundary"])
        with progress_bar(args, None, "landscape") as progress:
            line = slices.line(
                v, result.params, model, grid, observed=observed, start=options["start"], progress=progress
            )
    title = ", ".join(f"{name} = {value:.4g}" for name, value in result.params.items())
    figure = plots.plot_inversion(
        data, fitted[every], spacing=options["spacing"], line=line, name=species, title=title
    )
    paths.write_figure(folder / "fit.png", figure)
    return "fit.png"
