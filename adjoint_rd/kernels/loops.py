r"""Compiled time loops, which go through the grid in waves.

A step of a large grid is limited by memory, not by arithmetic. But slab r of step n + 1 needs only slabs r - 1 .. r + 1
of step n (a slab is a row, or a plane in 3-D), so a thread can take several steps on one pass: after a few more slabs
of step n it does the slabs of step n + 1 that have become possible, then those of n + 2, all of them still in cache.
Where its share of the grid meets another thread's (or, on a periodic grid, itself), the later steps have to stop one
slab earlier each; what is left open there is done when all have met::

    step 3          ______                    ______\    /______
    step 2        __________        then      ________\/________
    step 1      ______________
               share of a thread               between two shares

The same operations are done as step by step, and each sum is added up in the same order: the numbers are the same to
the last bit.

Source: the wave front of M. Wolf and M. Lam, A data locality optimizing algorithm (PLDI 1991); the two phases are split
tiling, T. Grosser et al., Split tiling for GPUs (GPGPU-6, 2013).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import njit

from .cpu import INNER, Share
from .subnormals import flush_subnormals, restore_control


class Waves(NamedTuple):
    """How a time loop goes through a grid.

    depth: steps to a pass; 1 if a step is more than one sweep. width: slabs that a pass goes ahead by. slabs: of the
    whole grid; tiles: of one slab. wraps: whether the last slab is a neighbour of the first. Each share must have at
    least 2 `depth` slabs if depth > 1.
    """

    depth: int
    width: int
    slabs: int
    tiles: int
    wraps: bool


def through(arrays, steps, work, plan, share, waves):
    """Take steps 0 .. steps - 1 of a loop on one thread's share, its threads meeting when they have to.

    ``step(arrays, n, work, plan, share)`` is the n-th; it meets the other threads itself if share.threads > 1. It is
    called at one place only, because it is large and would be compiled once for each.
    """
    control = flush_subnormals()
    first = share.first // waves.tiles
    last = share.last // waves.tiles
    left = 1 if first > 0 or waves.wraps else 0
    right = 1 if last < waves.slabs or waves.wraps else 0
    n = 0
    while n < steps:
        depth = min(waves.depth, steps - n)
        width = waves.width if depth > 1 else last - first
        threads = share.threads if depth == 1 else 1
        passes = (last - first + depth - 1 + width - 1) // width
        for front in range(first + width, first + width * (passes + 1) + 1, width):
            closing = front > first + width * passes  # what the shares left open between them
            if closing and depth > 1:
                meet(share.sync, share.threads)
            for s in range(depth):
                for across in range(2):  # on the one side of the grid's end and, while closing, on the other
                    low = 0
                    high = 0
                    if not closing:
                        if across == 0:
                            low = max(first + left * s, front - width - s)
                            high = min(last - right * s, front - s)
                    elif across == 0:
                        low = max(first - s, 0)
                        high = first + left * s
                    elif first == 0:
                        low = waves.slabs - left * s
                        high = waves.slabs
                    if low < high:
                        step(arrays, n + s, work, plan, part(share, low * waves.tiles, high * waves.tiles, threads))
        if depth > 1:
            meet(share.sync, share.threads)
        n += depth
    restore_control(control)


@njit(**INNER)
def part(share, first, last, threads):
    """A share of fewer tiles, whose thread meets `threads` - 1 others."""
    return Share(share.sums, share.field_sums, first, last, share.sync, threads, share.rows, share.columns)


# The n-th step of each loop. `push` and its kin are the scheme's.


def advance(arrays, n, work, plan, share):
    """From x to y, then to and fro between y and z (which may be x): the result is in y if n is even."""
    x, y, z = arrays
    if n == 0:
        push(x, y, work, plan, share)
    elif n % 2 == 1:
        push(y, z, work, plan, share)
    else:
        push(z, y, work, plan, share)


def record(arrays, n, work, plan, share):
    """states[n + 1] from states[n]."""
    (states,) = arrays
    push(states[n], states[n + 1], work, plan, share)


def reverse(arrays, n, work, plan, share):
    """The adjoint back, n steps from the last state, to and fro between a and b: from a to b if n is even."""
    states, a, b = arrays
    y = states[states.shape[0] - 1 - n]
    if n % 2 == 0:
        pull(y, a, b, work, plan, share)
    else:
        pull(y, b, a, work, plan, share)


def advance_tangent(arrays, n, work, plan, share):
    """State and one tangent together, to and fro between y and z, t and s."""
    y, z, t, s = arrays
    if n % 2 == 0:
        tangent(y, t, s, work, plan, share)
        push(y, z, work, plan, share)
    else:
        tangent(z, s, t, work, plan, share)
        push(z, y, work, plan, share)


def record_tangent(arrays, n, work, plan, share):
    """States and tangents n + 1 from n."""
    states, tangents = arrays
    tangent(states[n], tangents[n], tangents[n + 1], work, plan, share)
    push(states[n], states[n + 1], work, plan, share)


def reverse_second(arrays, n, work, plan, share):
    """The adjoint (a, b) and its tangent (at, bt) back, as `reverse`; sums and field_sums are those of the tangent."""
    states, tangents, a, b, at, bt, sums, field_sums = arrays
    y = states[states.shape[0] - 1 - n]
    t = tangents[states.shape[0] - 1 - n]
    second_share = Share(
        sums, field_sums, share.first, share.last, share.sync, share.threads, share.rows, share.columns
    )
    if n % 2 == 0:
        second(y, t, a, at, b, bt, work, plan, share, second_share)
    else:
        second(y, t, b, bt, a, at, work, plan, share, second_share)


LOOPS: dict[str, Callable[..., Any]] = {
    step.__name__: step for step in (advance, record, reverse, advance_tangent, record_tangent, reverse_second)
}
