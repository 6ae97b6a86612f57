"""What is said, and handed back, when a run or a derivative stops being finite."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from . import stability
from .errors import DivergenceError, InputError


def diverged(sim: Any, start: np.ndarray, params: dict[str, Any], first: int, last: int) -> None:
    """Raise a `DivergenceError` for a run that is finite at step `first` (state `start`) and not at `last`."""
    plan, fielded = sim.plan(params)
    good, bad = first, last
    state = sim.executor.buffer("last finite")
    sim.executor.copy(state, start)
    while bad - good > 1:
        middle = (good + bad) // 2
        pair = sim.executor.pair("state", state)
        sim.executor.advance(pair, plan, fielded, middle - good)
        if sim.executor.finite(pair.current):
            sim.executor.copy(state, pair.current)
            good = middle
        else:
            bad = middle
    found = sim.executor.look(state).copy()
    pair = sim.executor.pair("state", state)
    sim.executor.advance(pair, plan, fielded, bad - good)
    where = place(sim, sim.executor.look(pair.current))
    largest = float(np.max(np.abs(found)))
    safe = stability.limits(sim.model, sim.grid, params, sim.scheme).safe
    given = ", ".join(f"{name}={np.mean(params[name]):.4g}" for name in sim.model.names)
    raise DivergenceError(
        f"the state is no longer finite after step {bad} (first at {where}; largest value before it {largest:.3g}) "
        f"with {given}, dt={sim.dt:g}. Use a smaller dt; the safe limit here is {safe:.4g}."
        f"{sim.model.percent_hint(params)}",
        step=bad,
        state=found,
    )


def place(sim: Any, state: np.ndarray) -> str:
    """Where the first value that is not finite is, in words; of a batch, in any member."""
    species, *index = (int(i) for i in np.argwhere(~np.isfinite(state))[0][-1 - sim.grid.ndim :])
    return f"{sim.model.species[species]}[{', '.join(map(str, index))}]"


def loss_value(loss: Any, step: int, y: np.ndarray) -> float:
    """Return the value of a loss at a finite state, or raise if it is not one finite number."""
    value = loss.value(y)
    if np.ndim(value) or not isinstance(value, (float, int, np.floating, np.integer)):
        raise InputError(f"the loss at step {step} returned {value!r}; value(y) must return one number.")
    if not isfinite(value):
        raise DivergenceError(
            f"the loss at step {step} returned {float(value)} for a finite state, {y.min():.3g} .. {y.max():.3g}.",
            step=step,
            state=y.copy(),
        )
    return float(value)


def check_derivatives(dtype: Any, value: Any, by_name: Mapping[str, Any], others_finite: bool) -> None:
    """Raise a `DivergenceError` if a loss or a derivative of a finite run overflows."""
    names = [name for name, slope in by_name.items() if not np.isfinite(slope).all()]
    if np.isfinite(value).all() and not names and others_finite:
        return
    which = "the loss" if not np.isfinite(value).all() else f"dL/d{names[0]}" if names else "the derivative"
    raise DivergenceError(
        f"{which} overflows {dtype}, though the states are finite: derivatives grow along this run. Use fewer "
        "steps, a window, or parameters and a dt further from instability."
    )
