"""Kernels compiled to PTX and assembled by ptxas, without a card or a driver."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from numba import float64, int32, int64
from numba.cuda import compiler

from adjoint_rd.kernels import cells
from adjoint_rd.kernels import cuda as kernels

CAPABILITIES = ((7, 5), (8, 0), (9, 0), (10, 0))
OPERATIONS = {operation.name: operation for operation in (cells.PUSH, cells.TANGENT, cells.PULL, cells.SECOND)}
SUMMING = {"add", "cvt", "mov", "ld", "st", "selp"}  # what a sum of float32 numbers in float64 needs


def compiled(function, signature):
    """{compute capability: PTX} of a kernel; types are inferred once, for all of them.

    Numba-cuda asks the current card for its capability where a kernel calls a device function: here is none, so it is
    told one.
    """
    lowest = CAPABILITIES[0]
    options = dict(debug=None, lineinfo=False, fastmath=False, opt=None, abi="numba", abi_info=None, lto=False)
    with patch("numba.cuda.dispatcher.get_current_device", lambda: SimpleNamespace(compute_capability=lowest)):
        library, _ = compiler._compile_pyfunc_with_fixup(
            function, signature, device=False, cc=lowest, forceinline=False, launch_bounds=None, **options
        )
    return {capability: "\n".join(library.get_asm_strs(cc=capability)) for capability in CAPABILITIES}


def sweep(operation, model, geometry, dtype, fielded=(), identity=True):
    """{compute capability: PTX} of a sweep."""
    kernel = kernels.sweep_kernel(OPERATIONS[operation], model, geometry, fielded, identity, np.dtype(dtype))
    return compiled(kernel.py_func, kernels.signature(dtype))


def helper(name, dtype):
    """{compute capability: PTX} of a helper."""
    real = kernels.SUMMED_IN[np.dtype(dtype)]
    flat, member, state = real[::1], real[:, ::1], real[:, :, :, ::1]
    wide, sums = float64[:, :, :, ::1], float64[:, :, ::1]
    signature = {
        "fold": (sums, float64[:, ::1]),
        "fill": (flat, real),
        "scale": (flat, real, flat),
        "accumulate": (flat, real, flat),
        "blend": (flat, flat, real, flat),
        "mark_not_finite": (member, int32[::1]),
        "largest_change": (member, member, sums),
        "square_seed": (state, state, wide, float64[::1], wide, int64[::1], sums, int64, int64, int64),
    }[name]
    return compiled(kernels.HELPERS[name], signature)


def instructions(ptx):
    """The opcodes with their types, in order: "fma.rn.f32", "bar.sync", ..."""
    return re.findall(r"^\s+(?:@!?%p\d+ )?([a-z][a-z0-9_]*(?:\.[a-z0-9_:]+)*)\s", ptx, flags=re.MULTILINE)


def double_arithmetic(ptx):
    """Instructions in float64 other than those that add up what the points gave, which begin at the first barrier."""
    found = instructions(ptx)
    barriers = [n for n, name in enumerate(found) if name.startswith(("bar.", "barrier."))]
    summing_from = barriers[0] if barriers else len(found)
    return [
        name
        for n, name in enumerate(found)
        if ".f64" in name and not (n > summing_from and name.split(".")[0] in SUMMING)
    ]


def ptxas():
    """The assembler: of the toolkit on the path, or of the wheel nvidia-cuda-nvcc; None if there is none."""
    found = shutil.which("ptxas")
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations if package else ():
        found = found or next((str(path) for path in Path(folder).glob("*/bin/ptxas")), None)
    return found


def assembled(ptx, capability):
    """(registers, bytes of spill stores, bytes of spill loads) that ptxas -v reports.

    Raises
    ------
    AssertionError
        If it refuses the PTX.
    """
    architecture = f"sm_{capability[0]}{capability[1]}"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [ptxas(), "-v", f"-arch={architecture}", "-o", os.devnull, file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = done.stdout + done.stderr
    stores, loads = (sum(map(int, re.findall(rf"(\d+) bytes spill {what}", report))) for what in ("stores", "loads"))
    return max(map(int, re.findall(r"Used (\d+) registers", report))), stores, loads
