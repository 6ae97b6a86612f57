"""C: gray_scott.c compiled on the spot with gcc -O3 -march=native -ffast-math, called through ctypes, everything
stored."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np

from validation.bench.peers import Unavailable, l2

VARIANTS = ("",)
PACKAGES = ()
MAX_THREADS = None
SOURCE = Path(__file__).with_name("gray_scott.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-std=c11")


def stored(variant):
    return 2


def compile_c(source, *, defines=(), threads=1):
    """The library of one C file; OpenMP is linked in only where threads are wanted, so that one thread pays nothing
    for it."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        raise Unavailable("no gcc on PATH (Debian: apt-get install gcc)")
    with tempfile.TemporaryDirectory(prefix="adjoint_rd_bench_") as folder:
        library = Path(folder) / "peer.so"
        openmp = ("-fopenmp",) if threads > 1 else ()
        command = [compiler, *FLAGS, *openmp, *defines, str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[:300]}")
        return ctypes.CDLL(str(library))


def versions():
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    line = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    return {"gcc": line}


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    real = {"float64": "double", "float32": "float"}[dtype]
    library = compile_c(SOURCE, defines=(f"-DREAL={real}",), threads=threads)
    return Case(library, n, dtype, steps, y0, params, target, dt)


class Case:
    def __init__(self, library, n, dtype, steps, y0, params, target, dt):
        self.n, self.dtype, self.steps, self.y0, self.target = (
            n,
            np.dtype(dtype),
            steps,
            y0,
            0 if target is None else target,
        )
        self.args = tuple(ctypes.c_double(x) for x in (params["Du"], params["Dv"], params["F"], params["k"], dt))
        self.library = library

    @cached_property
    def trajectory(self):
        return np.empty((self.steps + 1, 2, self.n, self.n), self.dtype)

    @cached_property
    def pair(self):
        return np.empty((2, 2, self.n, self.n), self.dtype)

    def _call(self, name, *arrays):
        pointers = (ctypes.c_void_p(a.ctypes.data) for a in arrays)
        getattr(self.library, name)(ctypes.c_size_t(self.n), ctypes.c_size_t(self.steps), *pointers, *self.args)

    def gradient(self):
        self.trajectory[0] = self.y0
        self._call("forward_store", self.trajectory)
        value, self.pair[0] = l2(self.trajectory[-1], self.target)
        sums = np.zeros(4)
        self._call("reverse", self.trajectory, self.pair, sums)
        return value, dict(zip(("Du", "Dv", "F", "k"), sums.tolist(), strict=True)), self.pair[self.steps % 2].copy()

    def forward(self):
        self.pair[0] = self.y0
        self._call("forward", self.pair)
        return self.pair[self.steps % 2].copy()
