"""Flush-to-zero for the length of a time loop.

Where a species dies out its values become subnormal numbers (below 2.2e-308, or 1.2e-38 in float32), on which
processors are slow. The control register of the calling thread is set for the loop and restored after it. x86-64
only; elsewhere the two functions do nothing, and such runs are slower.
"""

import platform

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO = np.uint32(0x8040)  # bits 15 and 6 of MXCSR (Intel SDM vol. 1, 10.2.3)

if platform.machine() in ("x86_64", "AMD64") and not config.DISABLE_JIT:  # without the JIT these are plain Python

    @intrinsic
    def _read_control(typingctx):
        def codegen(context, builder, signature, args):
            byte_pointer = ir.IntType(8).as_pointer()
            place = builder.alloca(ir.IntType(32))
            store = builder.module.declare_intrinsic(
                "llvm.x86.sse.stmxcsr", (), ir.FunctionType(ir.VoidType(), [byte_pointer])
            )
            builder.call(store, [builder.bitcast(place, byte_pointer)])
            return builder.load(place)

        return types.uint32(), codegen

    @intrinsic
    def _write_control(typingctx, value):
        def codegen(context, builder, signature, args):
            byte_pointer = ir.IntType(8).as_pointer()
            place = builder.alloca(ir.IntType(32))
            builder.store(args[0], place)
            load = builder.module.declare_intrinsic(
                "llvm.x86.sse.ldmxcsr", (), ir.FunctionType(ir.VoidType(), [byte_pointer])
            )
            builder.call(load, [builder.bitcast(place, byte_pointer)])
            return context.get_dummy_value()

        return types.void(types.uint32), codegen

    @njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def flush_subnormals():
        """Flush subnormal numbers to zero in this thread; return what `restore_control` needs."""
        before = _read_control()
        _write_control(np.uint32(before | FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO))
        return before

    @njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def restore_control(before):
        """Set the control register back."""
        _write_control(np.uint32(before))

else:

    @njit(nogil=True)
    def flush_subnormals():
        """Do nothing on this platform."""
        return np.uint32(0)

    @njit(nogil=True)
    def restore_control(before):
        """Do nothing on this platform."""
