"""Kernels for CUDA: one launch updates all points of all members of a batch.

States are seen as ``(B, S, rows, columns)``: B members, and the grid flattened as on the CPU. A thread block (see
`Tiling`) covers a patch of columns and rows of one member; each thread goes down its column through `rows_each` rows,
whose vertical neighbours it finds in the L1 cache. The point functions are those of `adjoint_rd.kernels.cells`, bound
by the same `specialise.build`.

Sums have two stages and no atomics, so that they are the same bits in each run: a block adds its threads' values in a
fixed order to its own place in ``sums``; `fold` adds the places of the blocks. A thread's own value (of at most
`MOST_ROWS_EACH` points) is in the state's dtype, all further sums are in float64.

Importing this module imports `numba.cuda`, but needs no driver: kernels are compiled at their first launch.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda, float32, float64, uint32

from ..models import Model
from . import cells
from .cpu import COEFFICIENTS_BEFORE_D, Geometry
from .specialise import build

THREADS = 128
WARP = 32
LANES = 16  # of a block that add one sum, before one thread adds what they have
MOST_ROWS_EACH = 8  # the rows above and below a block's patch are read twice: (4 * 8 + 2) / (4 * 8) = 1.06
BLOCKS_THAT_FILL_A_CARD = 8192  # several times what the largest cards run at once
FOLD_THREADS = 256
SUMMED_IN = {np.dtype(np.float32): float32, np.dtype(np.float64): float64}


class Tiling(NamedTuple):
    """How a grid is cut into thread blocks.

    width, height: threads of a block along columns and rows; rows_each: rows that a thread goes through; across, down:
    blocks along columns and rows.
    """

    width: int
    height: int
    rows_each: int
    across: int
    down: int

    @property
    def blocks(self) -> int:
        """Blocks to a member."""
        return self.across * self.down


def tiling(rows: int, columns: int) -> Tiling:
    """The tiling of a grid: it depends on nothing else, so that sums are the same on every card and in every batch."""
    width = THREADS if rows == 1 else WARP
    while rows > 1 and width > 8 and columns <= width // 2:
        width //= 2
    height = THREADS // width
    across = -(-columns // width)
    blocks = across * -(-rows // height)
    rows_each = min(MOST_ROWS_EACH, max(1, blocks // BLOCKS_THAT_FILL_A_CARD))
    return Tiling(width, height, rows_each, across, -(-rows // (height * rows_each)))


def sweep(x_0, x_1, x_2, x_3, out, k, dk, fields, field_direction, sums, field_sums, rows, m, plane, rows_each, across):
    """`out` at each point, and what the points add to the sums.

    x_0 .. x_3: the operation's inputs, the rest of them unused; they and `out` are flattened states. k (B, n),
    dk (B, S + P): as in `cpu.Plan`, a row for each member. fields, field_direction, field_sums: flattened
    (B, P, rows, columns). sums: (B, blocks, S + P) float64. The rest are uint32, m the columns.

    Indices are uint32: a signed index costs a test for negative numbers, a 64-bit one twice the integer instructions,
    and there are more of these than of the arithmetic. Numba computes in 64 bits; `uint32` around a result makes LLVM
    narrow it.
    """
    block = uint32(cuda.blockIdx.x)
    b = uint32(cuda.blockIdx.y)
    width = uint32(cuda.blockDim.x)
    height = uint32(cuda.blockDim.y)
    down = uint32(block // across)
    j = uint32(uint32(uint32(block - down * across) * width) + uint32(cuda.threadIdx.x))
    top = uint32(uint32(down * uint32(rows_each * height)) + uint32(cuda.threadIdx.y))
    cells = uint32(rows * m)
    planes = uint32(rows // plane) if flattened else uint32(1)
    layer = uint32(plane * m)
    for c in species:
        at_species_[c] = uint32(uint32(b * uint32(len_species) + uint32(c)) * cells)
    for i in kinetics:
        at_field_[i] = uint32(uint32(b * uint32(len_kinetics) + uint32(i)) * cells)
    h = k[b, 0]
    q = (k[b, 1], k[b, 2], k[b, 3])
    d = tuple(k[b, d_at + c] for c in species)
    dd = tuple(dk[b, c] for c in species)
    for i in kinetics:
        p_[i] = k[b, p_at + i]
        dp_[i] = dk[b, len_species + i]
    none = h - h  # a zero of the right type
    for c in species:
        diffusion_sum_[c] = none
    for i in kinetics:
        kinetic_sum_[i] = none
    if j < m:
        for n in range(rows_each):
            r = uint32(top + uint32(n * height))
            if r < rows:
                at = uint32(uint32(r * m) + j)
                i0 = uint32(r // plane) if flattened else uint32(0)
                i1 = uint32(r - uint32(i0 * plane)) if flattened else r
                left = uint32(at - 1) if j > 0 else (uint32(at + uint32(m - 1)) if 2 in periodic else at)
                right = uint32(at + 1) if j < m - 1 else (uint32(at - j) if 2 in periodic else at)
                for axis in row_axes:
                    if axis == 0:
                        beyond = uint32(uint32(planes - 1) * layer)
                        before_[0] = uint32(at - layer) if i0 > 0 else (uint32(at + beyond) if 0 in periodic else at)
                        after_[0] = (
                            uint32(at + layer) if i0 < planes - 1 else (uint32(at - beyond) if 0 in periodic else at)
                        )
                    else:
                        beyond = uint32(uint32(plane - 1) * m)
                        before_[1] = uint32(at - m) if i1 > 0 else (uint32(at + beyond) if 1 in periodic else at)
                        after_[1] = uint32(at + m) if i1 < plane - 1 else (uint32(at - beyond) if 1 in periodic else at)
                weight = none
                for axis in wall_axes:
                    if axis == 0:
                        if i0 == 0 or i0 == planes - 1:
                            weight += q[0] + q[0]
                    elif axis == 1:
                        if i1 == 0 or i1 == plane - 1:
                            weight += q[1] + q[1]
                    else:
                        if j == 0 or j == m - 1:
                            weight += q[2] + q[2]
                wall = tuple(weight * k[b, wall_at + c] if walls else none for c in species)
                p = tuple(fields[uint32(at_field_[i] + at)] if i in fielded else p_[i] for i in kinetics)
                dp = tuple(field_direction[uint32(at_field_[i] + at)] if i in fielded else dp_[i] for i in kinetics)
                values = tuple(tuple(x_[i][uint32(at_species_[c] + at)] for c in species) for i in inputs)
                laps = tuple(
                    tuple(
                        lap(
                            values[i][c],
                            q,
                            x_[i][uint32(at_species_[c] + left)] + x_[i][uint32(at_species_[c] + right)],
                            tuple(
                                x_[i][uint32(at_species_[c] + before_[axis])]
                                + x_[i][uint32(at_species_[c] + after_[axis])]
                                for axis in row_axes
                            ),
                        )
                        for c in species
                    )
                    for i in stencilled
                )
                if walls:
                    laps = tuple(
                        tuple(
                            laps[s][c] - weight * values[i][c] + wall[c]
                            if i in affine
                            else laps[s][c] - weight * values[i][c]
                            for c in species
                        )
                        for s, i in stencilled_pairs
                    )
                new = update(values, laps, p, dp, d, dd, h)
                for c in species:
                    out[uint32(at_species_[c] + at)] = new[c]
                if gradient:
                    gd = diffusion(values, laps, wall)
                    for c in species:
                        diffusion_sum_[c] += gd[c]
                    gp = kinetic(values, p, dp)
                    for i in kinetics:
                        if i in fielded:
                            field_sums[uint32(at_field_[i] + at)] += h * gp[i]
                        else:
                            kinetic_sum_[i] += gp[i]
    if gradient:
        narrow = cuda.shared.array(narrow_shape, summed_in)
        wide = cuda.shared.array(wide_shape, float64)
        t = uint32(uint32(uint32(cuda.threadIdx.y) * width) + uint32(cuda.threadIdx.x))
        for c in species:
            narrow[c, t] = diffusion_sum_[c]
        for i in kinetics:
            narrow[len_species + i, t] = kinetic_sum_[i]
        cuda.syncthreads()
        n = t
        while n < len_sums * LANES:
            s = uint32(n // LANES)
            lane = uint32(n - uint32(s * LANES))
            total = float64(narrow[s, lane])
            for other in range(LANES, THREADS, LANES):
                total += float64(narrow[s, uint32(lane + other)])
            wide[s, lane] = total
            n = uint32(n + THREADS)
        cuda.syncthreads()
        if t < len_sums:
            total = wide[t, 0]
            for lane in range(1, LANES):
                total += wide[t, lane]
            sums[b, block, t] += total


@cache
def device_function(function: Callable[..., Any]) -> Any:
    """A function that kernels call, compiled to be inlined by NVVM; the simulator calls it as it is."""
    if config.ENABLE_CUDASIM:
        return getattr(function, "py_func", function)
    return cuda.jit(function, device=True, forceinline=True)


@device_function
def add_up(part, t, count):
    """part[0] = the sum of part[:count], in an order that never changes; all threads t < count take part.

    count: a power of two. part: an array in shared memory, written before a synchronisation of the block.
    """
    half = count // 2
    while half > 0:
        if t < half:
            part[t] += part[t + half]
        cuda.syncthreads()
        half //= 2


def fold(sums, totals):
    """totals[b, s] = the sum of sums[b, :, s], one block of `FOLD_THREADS` threads for each."""
    part = cuda.shared.array(FOLD_THREADS, float64)
    s = cuda.blockIdx.x
    b = cuda.blockIdx.y
    t = cuda.threadIdx.x
    total = 0.0
    for n in range(t, sums.shape[1], FOLD_THREADS):
        total += sums[b, n, s]
    part[t] = total
    cuda.syncthreads()
    add_up(part, t, FOLD_THREADS)
    if t == 0:
        totals[b, s] = part[0]


def fill(out, value):
    """out = value, a flat array."""
    for n in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[n] = value


def scale(out, weight, x):
    """out = weight * x, flat arrays."""
    for n in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[n] = weight * x[n]


def accumulate(out, weight, x):
    """out += weight * x, flat arrays."""
    for n in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[n] += weight * x[n]


def blend(out, x, weight, rate):
    """out = x + weight * rate, flat arrays."""
    for n in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[n] = x[n] + weight * rate[n]


def mark_not_finite(x, marks):
    """marks[b] = 1 if the member x[b], flattened to (B, size), has a NaN or an infinity: x - x is 0 for all others."""
    b = cuda.blockIdx.y
    for n in range(cuda.grid(1), x.shape[1], cuda.gridsize(1)):
        if not x[b, n] - x[b, n] == 0:
            marks[b] = 1


def largest_change(x, y, sums):
    """sums[b, block, 0] = max |x[b] - y[b]| over the block's values; x, y: (B, size). NaN is passed over."""
    part = cuda.shared.array(FOLD_THREADS, float64)
    b = cuda.blockIdx.y
    t = cuda.threadIdx.x
    most = 0.0
    for n in range(cuda.grid(1), x.shape[1], cuda.gridsize(1)):
        most = max(most, abs(float64(x[b, n]) - float64(y[b, n])))
    part[t] = most
    cuda.syncthreads()
    half = FOLD_THREADS // 2
    while half > 0:
        if t < half:
            part[t] = max(part[t], part[t + half])
        cuda.syncthreads()
        half //= 2
    if t == 0:
        sums[b, cuda.blockIdx.x, 0] = part[0]


def square_seed(adjoint, y, target, weight, weights, species, sums, first, rows_each, across):
    """adjoint += w^2 (y - target), and sums[b, block, 0] = sum (w (y - target))^2 / 2, in members `first` and on.

    adjoint, y: (B, S, rows, columns). target: (T, O, rows, columns) float64 of the O species listed in `species`, T = 1
    for all members or as many as there are; w: weight (T,), or `weights` of the target's shape if it is not empty. All
    sums are in float64, as in `cpu.add_square_seed`.
    """
    wide = cuda.shared.array(THREADS, float64)
    m = y.shape[3]
    block = cuda.blockIdx.x
    b = first + cuda.blockIdx.y
    of = cuda.blockIdx.y if target.shape[0] > 1 else 0
    down = block // across
    j = (block - down * across) * cuda.blockDim.x + cuda.threadIdx.x
    top = down * rows_each * cuda.blockDim.y + cuda.threadIdx.y
    total = 0.0
    if j < m:
        for n in range(rows_each):
            r = top + n * cuda.blockDim.y
            if r < y.shape[2]:
                for o in range(species.size):
                    c = species[o]
                    w = weights[of, o, r, j] if weights.size > 0 else weight[of]
                    misfit = w * (y[b, c, r, j] - target[of, o, r, j])
                    adjoint[b, c, r, j] += w * misfit
                    total += misfit * misfit
    t = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    wide[t] = total
    cuda.syncthreads()
    add_up(wide, t, THREADS)
    if t == 0:
        sums[b, block, 0] = 0.5 * wide[0]


HELPERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (fold, fill, scale, accumulate, blend, mark_not_finite, largest_change, square_seed)
}


def launcher(kernel: Any, blocks: Any, threads: Any, stream: Any = 0) -> Callable[..., None]:
    """``kernel[blocks, threads, stream]``, without Numba's warning that a small grid leaves much of a card idle."""
    if config.ENABLE_CUDASIM:  # there a kernel remembers the last configuration, whoever made it
        return lambda *arguments: kernel[blocks, threads, stream](*arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")
        return kernel[blocks, threads, stream]


@cache
def helper(name: str) -> Any:
    """One of `HELPERS`, to be compiled at its first launch."""
    return cuda.jit(HELPERS[name])


@cache
def sweep_kernel(
    operation: cells.Operation,
    model: Model,
    geometry: Geometry,
    fielded: tuple[int, ...],
    identity: bool,
    dtype: np.dtype,
) -> Any:
    """Return the kernel of one operation for a model on a kind of grid, to be compiled at its first launch.

    Parameters
    ----------
    operation, model, geometry, fielded, identity
        As in `cpu.sweep_kernel`.
    dtype : dtype
        Of the states.

    Returns
    -------
    dispatcher
        ``kernel[(blocks, B), (width, height), stream](...)`` with the arguments of `sweep`.
    """
    return cuda.jit(build(sweep, **_names(operation, model, geometry, fielded, identity, dtype)))


def _names(
    operation: cells.Operation,
    model: Model,
    geometry: Geometry,
    fielded: tuple[int, ...],
    identity: bool,
    dtype: np.dtype,
) -> dict[str, Any]:
    species = tuple(range(len(model.species)))
    kinetics = tuple(range(len(model.parameters)))
    len_sums = len(species) + len(kinetics)
    constants: dict[str, Any] = dict(
        species=species,
        kinetics=kinetics,
        len_species=len(species),
        len_kinetics=len(kinetics),
        len_sums=len_sums,
        inputs=tuple(range(operation.inputs)),
        stencilled=operation.stencilled,
        stencilled_pairs=tuple(enumerate(operation.stencilled)),
        affine=operation.affine,
        fielded=fielded,
        identity=identity,
        gradient=operation.diffusion is not None,
        flattened=geometry.ndim == 3,  # else there is one plane, and no division to find it
        narrow_shape=(len_sums, THREADS),
        wide_shape=(len_sums, LANES),
        d_at=COEFFICIENTS_BEFORE_D,
        p_at=COEFFICIENTS_BEFORE_D + len(species),
        wall_at=COEFFICIENTS_BEFORE_D + len(species) + len(kinetics),
        **geometry.constants(),
    )
    physics = {name: device_function(getattr(model, name)) for name in operation.needs}

    def point(template: Any) -> Any:
        return device_function(build(template, **constants, **physics))

    bound = dict(lap=point(cells.lap), update=point(operation.update), summed_in=SUMMED_IN[np.dtype(dtype)])
    if operation.diffusion is not None:
        bound.update(diffusion=point(operation.diffusion), kinetic=point(operation.kinetics))
    return {**constants, **bound}


def signature(dtype: np.dtype) -> tuple[Any, ...]:
    """The argument types of `sweep` for states of a dtype, C-contiguous: what can be compiled without a card."""
    real = SUMMED_IN[np.dtype(dtype)]
    state, table = real[::1], real[:, ::1]
    return (*(state,) * 5, table, table, state, state, float64[:, :, ::1], state, *(uint32,) * 5)
