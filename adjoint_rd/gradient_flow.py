"""The adjoint against steps back from the end of a run: where it explodes or vanishes, how far back a gradient is worth
something, and the window that this suggests.

From step to step ``a(n) = J(n)^T a(n+1) + dL/dy(n)``, with J(n) the Jacobian of the step at y(n); a window of the last
w steps has the gradient ``sum over its steps of (dy(n+1)/dp)^T a(n+1)``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from . import losses
from .errors import check_count, check_number
from .simulation import Simulation

__all__ = ["GradientFlow", "gradient_flow"]


@dataclass(frozen=True)
class GradientFlow:
    """How the adjoint goes back through a run.

    Attributes
    ----------
    back : ndarray of int (n,)
        Steps back from the end, ascending from 0.
    norm : ndarray (n,)
        |dL/dy| at that step, the Euclidean norm.
    params : dict
        {name: ndarray (n,)}: the gradient (summed over a field) that a window of `back` steps gives.
    explodes_at : int or None
        Steps back from which on the norm is above `explode` times its largest value within the first tenth.
    vanishes_at : int or None
        Steps back from which on the norm is below `vanish` times its largest value.
    growth : float
        Factor per step back, from the end to the farthest step (geometric mean).
    window : int
        The shortest window, before any explosion, whose gradient is within a tenth of that of all longer ones.
    reason : str
        Why this window.
    """

    back: np.ndarray
    norm: np.ndarray
    params: dict[str, np.ndarray]
    explodes_at: int | None
    vanishes_at: int | None
    growth: float
    window: int
    reason: str

    def __str__(self) -> str:
        lines = [f"{'steps back':>10}  {'|dL/dy|':>10}  " + "  ".join(f"{'dL/d' + name:>11}" for name in self.params)]
        shown = np.unique(np.linspace(0, len(self.back) - 1, 12).astype(int))
        for n in shown:
            gradient = "  ".join(f"{self.params[name][n]:11.3e}" for name in self.params)
            lines.append(f"{self.back[n]:10d}  {self.norm[n]:10.3e}  {gradient}")
        state = []
        if self.explodes_at is not None:
            state.append(f"explodes {self.explodes_at} steps back")
        if self.vanishes_at is not None:
            state.append(f"vanishes {self.vanishes_at} steps back")
        lines.append(f"factor per step back {self.growth:.6f}; {', '.join(state) or 'neither explodes nor vanishes'}")
        lines.append(f"window {self.window}: {self.reason}")
        return "\n".join(lines)


def gradient_flow(
    sim: Simulation,
    y0: Any,
    params: Mapping[str, Any],
    loss: Any,
    *,
    steps: int,
    window: int | None = None,
    points: int = 50,
    explode: float = 1e3,
    vanish: float = 1e-3,
    closeness: float = 0.1,
) -> GradientFlow:
    """Follow the adjoint back through a run, and see how far back a gradient is worth something.

    Parameters
    ----------
    sim, y0, params, loss, steps, window
        As in `Simulation.gradient`.
    points : int
        At how many steps, about, the norm is taken.
    explode, vanish : float
        Factors that count as explosion and as vanishing.
    closeness : float
        How near, relative to the norm, the suggested window's gradient is to those of longer windows. Gradients are
        compared for ``log p``, so that parameters of different size count alike.

    Returns
    -------
    GradientFlow
    """
    explode, vanish = check_number("explode", explode, above=0.0), check_number("vanish", vanish, above=0.0)
    closeness = check_number("closeness", closeness, above=0.0)
    y0 = sim.check_state(y0)
    params = sim.check_params(params)
    steps = check_count("steps", steps, 1)
    observed = losses.by_step(loss, steps)
    length = steps - sim._window_start(steps, window)
    stride = max(1, length // check_count("points", points, 2))
    marks = sorted({steps - min(n, length) for n in range(0, length + stride, stride)})  # ascending
    states = [sim.run(y0, params, steps=marks[0]).final]
    for earlier, later in pairwise(marks):
        states.append(sim.run(states[-1], params, steps=later - earlier).final)
    a = np.zeros(sim.state_shape)
    if steps in observed:
        a = a + observed[steps].seed(states[-1])
    back, norm, total = [0], [_norm(a)], {name: [0.0] for name in sim.model.names}
    # From mark to mark, a = J^T a + the seeds in between; each stretch is a gradient of the linear loss a . y.
    for n in range(len(marks) - 2, -1, -1):
        begin, end = marks[n], marks[n + 1]
        inside = {step - begin: each for step, each in observed.items() if begin <= step < end}
        stretch = losses.Trajectory({**inside, end - begin: losses.Linear(a)})
        found = sim.gradient(states[n], params, stretch, steps=end - begin)
        a = np.asarray(found.initial, dtype=np.float64)
        back.append(steps - begin)
        norm.append(_norm(a))
        for name, part in found.params.items():
            total[name].append(total[name][-1] + float(np.sum(part)))
    return _judge(
        np.array(back), np.array(norm), {k: np.array(v) for k, v in total.items()}, params, explode, vanish, closeness
    )


def norm_at_end(norm: np.ndarray) -> float:
    """What an explosion is measured from: the largest norm within the first tenth of the way back."""
    return float(np.max(norm[: max(2, 1 + len(norm) // 10)]))


def _judge(
    back: np.ndarray,
    norm: np.ndarray,
    total: dict[str, np.ndarray],
    params: Mapping[str, Any],
    explode: float,
    vanish: float,
    closeness: float,
) -> GradientFlow:
    finite = np.where(np.isfinite(norm), norm, np.inf)
    exploded = np.flatnonzero(finite > explode * norm_at_end(finite))
    small = finite < vanish * np.max(finite)
    vanished = len(small) - int(np.argmin(small[::-1])) if small.any() and not small.all() else len(small)
    explodes_at = int(back[exploded[0]]) if exploded.size else None
    vanishes_at = int(back[vanished]) if vanished < len(back) else None
    growth = float((norm[-1] / norm[0]) ** (1.0 / back[-1])) if norm[0] > 0.0 and norm[-1] > 0.0 else math.nan
    usable = (exploded[0] if exploded.size else len(back) - 1) if back.size > 1 else 1
    usable = max(1, int(usable))
    scaled = np.stack(
        [series[: usable + 1] * abs(float(np.mean(params[name]))) for name, series in total.items()], axis=1
    )
    distance = np.linalg.norm(scaled - scaled[-1], axis=1)
    far = np.flatnonzero(distance > closeness * np.linalg.norm(scaled[-1]))
    chosen = min(usable, max(1, int(far[-1]) + 1 if far.size else 1))
    if chosen == usable and exploded.size:
        reason = "longer windows are in the range where the adjoint explodes"
    elif chosen == usable:
        reason = "the gradient still changes with the window's length; a longer run might want a longer window"
    else:
        reason = f"longer windows change the gradient by less than {closeness:.0%}"
    return GradientFlow(back, norm, total, explodes_at, vanishes_at, growth, int(back[chosen]), reason)


def _norm(a: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(a, dtype=np.float64))))
