"""A barrier for the threads that run one compiled time loop together.

Each thread keeps a share of the rows through all steps of a chunk and meets the others after every step. A step of a
256 x 256 grid takes about 50 us, so the meeting must cost well under 1 us: a counter and a generation number in shared
memory, read in a spin loop that yields the processor when the others are late (more threads than free cores).
"""

import sys

from numba import njit, types
from numba.extending import intrinsic

SPINS_BEFORE_YIELD = 2000
GENERATION = 8  # in int64 items: a cache line of its own, away from the counter
CANCELLED = 9  # not 0: nobody waits any more


@intrinsic
def _atomic_add(typingctx, array, index, value):
    """Add to an int64 array's item, sequentially consistent; return the value before."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), codegen


@intrinsic
def _atomic_load(typingctx, array, index):
    """Read an int64 array's item with acquire ordering."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(array, types.int64), codegen


if sys.platform == "win32":

    @njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def _yield_processor():
        pass

else:
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def _yield_processor():
        _sched_yield()


@njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def meet(sync, threads):
    """Wait until `threads` threads have called this with the same zero-initialised int64 array `sync` (16 items).

    Once sync[CANCELLED] is not 0, it returns at once, for threads whose companions will not come; what they compute is
    then worthless.
    """
    if threads == 1:
        return
    generation = _atomic_load(sync, GENERATION)
    if _atomic_add(sync, 0, 1) == threads - 1:
        _atomic_add(sync, 0, -threads)
        _atomic_add(sync, GENERATION, 1)
        return
    spins = 0
    while _atomic_load(sync, GENERATION) == generation and _atomic_load(sync, CANCELLED) == 0:
        spins += 1
        if spins > SPINS_BEFORE_YIELD:
            _yield_processor()
