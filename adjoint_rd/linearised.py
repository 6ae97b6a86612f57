"""A run linearised about its trajectory: products with the Jacobian of its states and with the transpose.

    forth   (dp, dy0) -> the tangents of the states at the marks
    back    cotangents of the states at the marks -> dy0

The states are kept between products (all of them if they fit, else those at the marks, from which each interval is run
again), so that a product with the transpose costs the reverse sweep alone. For many products about one trajectory, as
in Gauss-Newton methods; `Simulation.gradient` and `Simulation.tangents_at` are the same for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .simulation import Simulation

KEEP_BYTES = 256 * 2**20


class LinearisedRun:
    """Jacobian products of a run.

    Parameters
    ----------
    sim : Simulation
        Its dtype is that of the products.
    y0 : array_like (S, *shape)
    params : dict of float
    marks : sequence of int
        Ascending step numbers, the first 0.

    Raises
    ------
    DivergenceError
        If the run diverges.
    """

    def __init__(self, sim: Simulation, y0: Any, params: Mapping[str, float], marks: Sequence[int]):
        self.sim, self.marks = sim, [int(mark) for mark in marks]
        self.params = sim.check_params(params)
        executor = sim.executor
        self._fielded = executor.fielded(self.params)
        self._plan = executor.plan(self.params, self._fielded, None, sim.wall)
        gaps = [last - first for first, last in pairwise(self.marks)]
        size = int(np.prod(executor.padded_shape)) * sim.dtype.itemsize
        self._all = (self.marks[-1] + 1) * size <= KEEP_BYTES
        longest = self.marks[-1] if self._all else max(gaps, default=0)
        self._states = np.zeros((longest + 1, *executor.padded_shape), sim.dtype)
        self._first = sim.check_state(y0)
        with executor.lock:
            if self._all:
                executor.copy(self._states[0], self._first)
                executor.record(self._states, self._plan, self._fielded, self.marks[-1])
                self._at_marks = np.stack([executor.look(self._states[mark]) for mark in self.marks])
            else:
                run = sim.run(y0, self.params, steps=self.marks[-1], save_every=int(np.gcd.reduce(gaps)))
                places = np.searchsorted(run.steps, self.marks)
                self._at_marks = run.states[places]

    def states(self) -> np.ndarray:
        """The states at the marks, (M, S, *shape)."""
        return self._at_marks

    def forth(self, direction: Mapping[str, float] | None = None, initial: Any = None) -> np.ndarray:
        """The tangents of the states at the marks, (M, S, *shape)."""
        executor = self.sim.executor
        plan = executor.plan(self.params, self._fielded, direction or {}, self.sim.wall)
        found = np.empty((len(self.marks), *self.sim.state_shape), self.sim.dtype)
        with executor.lock:
            state = executor.pair("state", self._first)
            tangent = executor.pair("tangent", None if initial is None else self.sim.check_state(initial, "initial"))
            found[0] = executor.look(tangent.current)
            for n, (first, last) in enumerate(pairwise(self.marks), start=1):
                executor.advance_tangent(state, tangent, plan, self._fielded, last - first)
                found[n] = executor.look(tangent.current)
        return found

    def back(self, cotangents: np.ndarray, species: Any = slice(None), cells: tuple[Any, ...] = ()) -> np.ndarray:
        """The cotangent of y0, (S, *shape).

        Parameters
        ----------
        cotangents : ndarray (M, O, ...)
            Of the states at the marks, in the part ``[species, *cells]`` of each; zero elsewhere.
        """
        executor = self.sim.executor
        with executor.lock:
            adjoint = executor.pair("adjoint", None)
            sums, seed = executor.sums(self._fielded), np.zeros(self.sim.state_shape, self.sim.dtype)
            for n in range(len(self.marks) - 1, -1, -1):
                seed.fill(0.0)
                seed[(species, *cells)] = cotangents[n]
                executor.add(adjoint.current, seed)
                if n == 0:
                    break
                first, last = self.marks[n - 1], self.marks[n]
                if not self._all:
                    executor.copy(self._states[0], self._at_marks[n - 1])
                    executor.record(self._states, self._plan, self._fielded, last - first)
                    first, last = 0, last - first
                executor.reverse(self._states, adjoint, self._plan, sums, first, last)
            return np.array(executor.look(adjoint.current))
