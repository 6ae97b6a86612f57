"""Batches: many members (initial states, parameter sets, or both) at once, in parallel over members.

Each worker thread runs whole members, one after the other, with buffers of its own that it reuses; looping over members
inside a time step would only spoil the caches.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .arrays import as_array
from .errors import InputError, shown


class _Cancelled(Exception):
    """Raised inside workers when the caller was interrupted."""


def members(y0: Any, params: Any, state_ndim: int) -> list[tuple[Any, Any]] | None:
    """Return the (y0, params) pairs of a batch, or None if it is no batch.

    A batch is a `y0` with one axis more than a state, a list of parameter dicts, or both, of the same length.
    """
    try:
        many_states = np.ndim(y0) == state_ndim + 1
    except (ValueError, TypeError, RuntimeError):
        many_states = as_array("y0", y0).ndim == state_ndim + 1  # says what is wrong
    many_params = isinstance(params, Sequence) and not isinstance(params, (str, bytes))
    if not many_states and not many_params:
        return None
    if many_params and not all(isinstance(each, Mapping) for each in params):
        raise InputError("params must be a dict, or a list of dicts for a batch.")
    count = len(y0) if many_states else len(params)
    if many_params and len(params) != count:
        raise InputError(f"y0 has {count} members and params {len(params)}; a batch needs as many of both.")
    if count == 0:
        raise InputError("the batch is empty; give at least one member.")
    return [(y0[n] if many_states else y0, params[n] if many_params else params) for n in range(count)]


def each(argument: str, value: Any, count: int) -> list[Any]:
    """One value for each of `count` members, from one for all or a sequence of `count`."""
    if np.ndim(value) == 0:
        return [value] * count
    values = np.asarray(value).tolist()
    if np.ndim(value) != 1 or len(values) != count:
        raise InputError(f"{argument}={shown(value)} must be one number, or one for each of the {count} members.")
    return values


def run_members(
    jobs: Sequence[Callable[[Any, Callable[[int], None]], Any]],
    make_worker: Callable[[int], Any],
    workers: int,
    progress: Callable[[int], None] | None,
) -> list[Any]:
    """Call each job with (a worker's own simulation, a progress function) and return the results in order.

    The first error is raised once the others have stopped, with the member's number in a note.
    """
    lock = threading.Lock()
    stop = threading.Event()
    queue = iter(range(len(jobs)))
    results: list[Any] = [None] * len(jobs)

    def report(count: int) -> None:
        if stop.is_set():
            raise _Cancelled
        if progress is not None:
            with lock:
                progress(count)

    count = min(workers, len(jobs))
    simulations = [make_worker(number) for number in range(count)]

    def work(simulation: Any) -> None:
        while not stop.is_set():
            with lock:
                job = next(queue, None)
            if job is None:
                return
            try:
                results[job] = jobs[job](simulation, report)
            except _Cancelled:
                return
            except BaseException as error:
                stop.set()
                error.add_note(f"in member {job} of the batch")
                raise

    if count == 1:
        work(simulations[0])
        return results
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, each) for each in simulations]
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()
    return results
