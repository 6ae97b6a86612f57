"""The measured memory bandwidth that roofline fractions refer to: STREAM triad, a = b + s c, on arrays larger than the
cache.

A pseudo-peer: it takes its turn in every round, so that it meets the same machine as the peers. `.forward()` is one
pass.
"""

import ctypes
from pathlib import Path

import numpy as np

from validation.bench.peers.c import compile_c

VARIANTS = ("",)
PACKAGES = ()
MAX_THREADS = None
LENGTH = 1 << 24
BYTES = 3 * 8 * LENGTH


def stored(variant):
    return 0


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    return Triad(compile_c(Path(__file__).with_name("triad.c"), threads=threads))


class Triad:
    def __init__(self, library):
        self.arrays = [np.full(LENGTH, x) for x in (0.0, 1.0, 2.0)]
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in self.arrays]
        self.call = lambda: library.triad(ctypes.c_size_t(LENGTH), *pointers, ctypes.c_double(3.0))

    def forward(self):
        self.call()
