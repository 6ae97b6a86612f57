"""Threads that stay alive between chunks, and locks that survive a fork.

The threads of a chunk wait for each other after every step, so all must run, or none. If the thread that called them is
interrupted between handing out the work and doing its own share (Ctrl-C), the others are told to go on without it, and
waited for: no thread is left spinning, and none writes into buffers that are in use again.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np

from .errors import BackendError
from .kernels.barrier import CANCELLED

PATIENCE = 60.0  # seconds that cancelled threads are waited for; they need as long as the chunk


def available_threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1


class _Crew:
    """One chunk at a time: its threads wait for each other, so that they must all be running."""

    def __init__(self, helpers: int):
        self.helpers = helpers
        self.pool = ThreadPoolExecutor(helpers, thread_name_prefix="adjoint_rd")
        self.lock = threading.Lock()
        self.unsettled = False  # whether some may still be at work that was cancelled

    def run(self, function: Callable[..., Any], arguments: list[tuple[Any, ...]], sync: np.ndarray) -> None:
        """Call `function` once with each of `arguments`, at the same time, the first in this thread."""
        with self.lock:
            if self.unsettled:
                self._settle()
            try:
                apart = _processors_without_this_one(len(arguments))
                helpers = [self.pool.submit(_apart, apart, function, each) for each in arguments[1:]]
                function(*arguments[0])
                for helper in helpers:
                    helper.result()
            except BaseException:
                sync[CANCELLED] = 1
                self.unsettled = True
                self._settle()
                raise

    def _settle(self) -> None:
        """Wait until no thread is at work."""
        # Work may have been handed out without leaving a trace here; it is done when all threads can meet.
        meeting = threading.Barrier(self.helpers)
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            wait([self.pool.submit(_meet, meeting) for _ in range(self.helpers)])
        self.unsettled = False


def _meet(meeting: threading.Barrier) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        meeting.wait(PATIENCE)


def _apart(processors: set[int] | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if processors:
        with contextlib.suppress(OSError):  # the set of allowed processors has just changed
            os.sched_setaffinity(0, processors)  # of this thread alone
    function(*arguments)


def _processors_without_this_one(threads: int) -> set[int] | None:
    """The processors that helpers of this thread should use, None for any.

    Threads that meet after every step are both "cache-hot" to the kernel, which can leave them on one processor next to
    an idle one for good. So helpers keep off the processor on which this thread runs, if there are enough of them.
    """
    if _libc is None:
        return None
    allowed = os.sched_getaffinity(0)
    if len(allowed) < threads:
        return allowed
    return allowed - {_libc.sched_getcpu()}


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def run_together(function: Callable[..., Any], arguments: list[tuple[Any, ...]], sync: np.ndarray) -> None:
    """Call `function` once with each of `arguments`, at the same time, each in a thread of its own.

    Parameters
    ----------
    function : callable
    arguments : list of tuple
    sync : ndarray
        What the calls meet with, see `kernels.barrier.meet`; it is spent if this raises.
    """
    _crew(os.getpid(), len(arguments) - 1).run(function, arguments, sync)


@cache
def _crew(process: int, helpers: int) -> _Crew:
    # One per process: a forked child must not wait for threads that only its parent has.
    return _Crew(helpers)


class Lock:
    """A reentrant lock that a forked child takes anew, and refuses if it was held where the child's copy was made."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._held = 0

    def __enter__(self) -> None:
        if self._process != os.getpid():
            if self._held:
                raise BackendError(
                    "this process was forked while a thread of its parent was computing with this simulation, whose "
                    "buffers are in an unknown state here. Start processes with "
                    "multiprocessing.get_context('spawn'), or fork before computing."
                )
            self._lock, self._process = threading.RLock(), os.getpid()
        self._lock.acquire()
        self._held += 1

    def __exit__(self, *_: Any) -> None:
        self._held -= 1
        self._lock.release()
