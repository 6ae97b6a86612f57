"""What ``adjoint-rd fit`` does with the frames of a run: trajectory matching by `adjoint_rd.trajectory_fit`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from .arguments import named_values, one_or_many
from .output import FAILED, OK, print_above_bar, progress_bar, say_interrupted, say_written
from .setup import model_of

FRAMES = 6  # that are used, unless another number is asked for


def run(args: argparse.Namespace, observation: Any) -> int:
    """Parameters from frames, with truth, errors and figures."""
    from dataclasses import replace

    import numpy as np

    from .. import paths
    from ..trajectory_fit import Progress, TrajectoryFit, fit_trajectory

    if args.spacing:
        given = args.spacing * len(observation.shape) if len(args.spacing) == 1 else args.spacing
        observation = replace(observation, spacing=tuple(given))
    if args.interval:
        observation = replace(observation, times=args.interval * np.arange(len(observation.fields)))
    folder = paths.output_folder(args.out or f"fit_{Path(args.file).stem}")
    print(observation)
    frames = args.frames or FRAMES
    refine, substeps = args.refine, args.substeps
    if observation.dt is not None and len(observation.fields) > 1 and not (args.refine or substeps or args.interval):
        refine, substeps = [1], max(1, round(float(np.min(np.diff(observation.times[:frames]))) / observation.dt))
        print(f"a run of this library: fitted on its own grid with its own dt={observation.dt:g} (else give --refine)")
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
                refine=refine,
                frames=frames,
                substeps=substeps,
                boundary=one_or_many(args.boundary) if args.boundary else None,
                noise=one_or_many(args.noise) if args.noise else None,
                method=args.method or "adjoint",
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
            paths.write_json(
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

    from .. import files, paths, plots

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
    paths.write_json(folder / "fit.json", content)
    times = observation.times[: len(result.fitted)]
    with files.replacing(folder / "fitted.npz") as file:
        np.savez(file, fields=result.fitted, times=times, spacing=np.array(result.spacing))
    fine = result.refinements[-1]
    title = f"time {times[-1]:g}, R={fine.refine}: " + ", ".join(
        f"{name}={value:.5g}" for name, value in fine.params.items()
    )
    figure = plots.plot_fit(
        result.observed[-1], result.fitted[-1], names=result.names, spacing=result.spacing, title=title
    )
    paths.write_figure(folder / "fit.png", figure)
    history = {f"R={each.refine}": each.history for each in result.refinements}
    paths.write_figure(folder / "history.png", plots.plot_history(history, label="misfit"))
    say_written(folder, ["fit.json", "fit.png", "history.png", "fitted.npz"])
