"""`fit_trajectory`: the fits on all grids, with as many substeps as they turn out to need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import models
from ..errors import DivergenceError, StabilityError, check_choice, check_count
from ..grid import Grid
from ..io import Observation
from . import checks
from .optimisers import OPTIMISERS
from .result import Progress, RefinementFit, TrajectoryFit
from .task import Task

FRAMES = 6  # used by default
ROUNDS = 4  # the substeps are chosen anew if the start blows up or an estimate leaves the margin


def fit_trajectory(
    observation: Observation,
    model: Any = "gray_scott",
    *,
    free: Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    refine: int | Sequence[int] | None = None,
    frames: int = FRAMES,
    substeps: int | None = None,
    boundary: Any = None,
    noise: Any = None,
    transform: Any = "log",
    method: str = "adjoint",
    progress: Callable[[Progress], None] | None = None,
    on_refinement: Callable[[TrajectoryFit], None] | None = None,
    threads: int | None = None,
) -> TrajectoryFit:
    """Fit a model's parameters to frames of all its species.

    Parameters
    ----------
    observation : Observation
        With `times` and `spacing`; see `io.read_observation`. Frames may be unevenly spaced in time if their intervals
        are multiples of the shortest.
    model : str or Model
    free : sequence of str, optional
        The parameters to fit, by default all that are not in `fixed`.
    fixed : dict, optional
        {name: float}: known parameters.
    start : dict, optional
        {name: float}: where to begin, for some or all of the free parameters. The others begin at the least-squares
        solution of ``y(t_2) - y(t_0) = integral of (D Lap y + R)`` (Simpson's rule on the frames, smoothed over 1.5
        cells): good if the frames are close in time and not too noisy.
    refine : int or sequence of int, optional
        The values of R; by default 1, 2 and 3 on periodic grids and 1 on others, which cannot be refined here.
    frames : int
        Use the first so many frames. Long stretches cost time, and where patterns are chaotic they make a rough
        landscape.
    substeps : int, optional
        Steps per interval (the shortest) between frames for R = 1; R^2 times as many on finer grids. By default as
        many as keep the stability limits at 1.5 times the start's parameters. Frames of a run of this library on the
        same grid want its own number, and refine=1: then there is no discretisation error at all.
    boundary : str or sequence of str, optional
        By default the file's; periodic if it says nothing, which `message` then mentions.
    noise : float or sequence of float, optional
        The standard deviation of the frames, one or one per species. By default it is taken to be proportional to each
        species' own standard deviation, and its size is estimated from the misfit.
    transform : str, None or dict
        See `Objective`; the default keeps all parameters positive.
    method : {"adjoint", "least_squares"}
        L-BFGS-B with the adjoint's gradient, in variables scaled by the Gauss-Newton Hessian at the start; or
        least_squares (trust region) with the tangents' Jacobian. Both find the same minimum.
    progress : callable, optional
        Called with a `Progress` after each evaluation.
    on_refinement : callable, optional
        Called with the `TrajectoryFit` so far after each value of R.
    threads : int, optional
        See `Simulation`.

    Returns
    -------
    TrajectoryFit

    Raises
    ------
    InputError
        If the frames do not fit the model, or lack times or spacing.
    """
    check_choice("method", method, tuple(OPTIMISERS))
    if substeps is not None:
        check_count("substeps", substeps, 1)
    if isinstance(free, str):
        free = (free,)
    frames_used = checks.frames(observation, models.get(model), check_count("frames", frames, 2))
    boundary, notes = checks.boundary(observation, boundary)
    grid = Grid(frames_used.shape[2:], spacing=checks.spacing(observation), boundary=boundary)
    interval, marks = checks.times(observation, len(frames_used))
    known = dict(fixed or {})
    task = Task(
        model=models.get(model),
        frames=frames_used,
        marks=marks,
        interval=interval,
        grid=grid,
        free=tuple(name for name in models.get(model).names if name not in known) if free is None else tuple(free),
        fixed=known,
        sigma=checks.noise(noise, frames_used),
        noise_known=noise is not None,
        transform=transform,
        method=method,
        threads=threads,
        truth=checks.known_parameters(observation, models.get(model)),
        names=observation.names or models.get(model).species,
    )
    last = float(observation.times[len(frames_used) - 1])
    used = (
        f"the first {len(frames_used)} of {len(observation.fields)}"
        if len(frames_used) < len(observation.fields)
        else "all"
    )
    notes = [f"Used {used} frames, times {float(observation.times[0]):g} to {last:g}.", *notes]
    refinements = checks.refine(refine, grid)
    begin, remarks = task.start(dict(start or {}))
    values, notes, factor = begin, notes + remarks, 1
    for attempt in range(1, ROUNDS + 1):
        base = factor * task.base_substeps(values, refinements) if substeps is None else substeps
        done: list[RefinementFit] = []
        try:
            for R in refinements:
                found, fitted = task.fit(R, base * R * R, done[-1].params if done else values, progress)
                done.append(found)
                result = task.result(done, begin, fitted, notes)
                if found.dt > found.safe and substeps is None:
                    break
                if on_refinement is not None:
                    on_refinement(result)
            else:
                return result
        except (DivergenceError, StabilityError):  # at the start: trials are caught by the objective
            if attempt == ROUNDS or substeps is not None:
                raise
            notes.append(f"The start blew up with {base} steps per interval, R=1; twice as many were used.")
            factor *= 2
            continue
        notes.append(
            f"The estimate for R={R} left the margin of the time step (dt={found.dt:.4g}, safe up to "
            f"{found.safe:.4g}); the fit was repeated with more substeps."
        )
        values = found.params
    message = f"{result.message} The time step stayed too long for the estimates; give a start."
    return replace(result, success=False, message=message)
