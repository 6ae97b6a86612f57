"""Loop nests on the CPU: rows of a grid and tiles of rows.

Arrays are seen as ``(S, rows, columns)``: the last axis of the grid is the columns, the others are flattened into rows
(``plane`` rows to a plane in 3-D). They may be padded at the end of both (see `Executor.buffer`). A tile is up
to `BLOCK` columns of one row. Tiles are numbered on the whole grid, and each has its own place in the sums of the
gradient, so that results do not depend on how tiles are shared among threads.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

from numba import njit

from ..models import Model
from . import cells
from .disk_cache import njit_cached
from .specialise import build

BLOCK = 4096  # columns to a tile: the rows that a tile touches stay in the L1/L2 cache, and 1-D grids can be shared

# Functions that only other compiled functions call need no wrappers for Python and C callers: half the compile time.
INNER: dict[str, Any] = dict(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)

# Contraction (a fused multiply-add for a product and a sum) is deterministic. Reassociation is allowed in the row
# loops of the transposes alone, where the one chain of additions is the sum over the row: it lets that sum use vector
# registers.
POINT_FLAGS = {"contract"}
SUM_FLAGS = {"reassoc", "contract"}


class Plan(NamedTuple):
    """The numbers that a kernel needs, prepared once for a parameter set.

    coefficients: h, q0, q1, q2, dt, then d (S), p (P), wall values (S); `direction`: dd (S), dp (P), the tangent of
    d, p. fields, field_direction: kinetic parameters that vary in space, (P, rows, columns) or (0, 0, 0) if there are
    none. plane: rows to a plane.
    """

    coefficients: Any
    direction: Any
    fields: Any
    field_direction: Any
    plane: int


class Share(NamedTuple):
    """One thread's part of the work: its tiles, and where its sums go.

    sums: (tiles, S + P) float64; field_sums: (P, rows, columns) or (0, 0, 0); sync: see `barrier.meet`. rows, columns:
    of the grid; arrays may have more of both, which are left alone.
    """

    sums: Any
    field_sums: Any
    first: int
    last: int
    sync: Any
    threads: int
    rows: int
    columns: int


COEFFICIENTS_BEFORE_D = 5


def sweep(arrays, out, plan, share):
    """The tiles of one thread's share: `out` at each of their points, and what they add to the sums."""
    sums = share.sums
    fields = plan.fields
    field_direction = plan.field_direction
    field_sums = share.field_sums
    k = plan.coefficients
    dk = plan.direction
    plane = plan.plane
    m = share.columns
    planes = share.rows // plane
    h = k[0]
    q = (k[1], k[2], k[3])
    d = tuple(k[d_at + c] for c in species)
    dd = tuple(dk[c] for c in species)
    for i in kinetics:
        p_[i] = k[p_at + i]
        dp_[i] = dk[len_species + i]
    none = h - h  # a zero of the right type
    start = 0
    stop = m
    for tile in range(share.first, share.last):
        if blocked:
            r = tile // ((m + BLOCK - 1) // BLOCK)
            start = (tile - r * ((m + BLOCK - 1) // BLOCK)) * BLOCK
            stop = min(start + BLOCK, m)
        else:
            r = tile
        i0 = r // plane
        i1 = r - i0 * plane
        before_[0] = (i0 - 1 if i0 > 0 else (planes - 1 if 0 in periodic else 0)) * plane + i1
        after_[0] = (i0 + 1 if i0 < planes - 1 else (0 if 0 in periodic else planes - 1)) * plane + i1
        before_[1] = i0 * plane + (i1 - 1 if i1 > 0 else (plane - 1 if 1 in periodic else 0))
        after_[1] = i0 * plane + (i1 + 1 if i1 < plane - 1 else (0 if 1 in periodic else plane - 1))

        wall_weight = none
        for axis in row_walls:
            if axis == 0:
                if i0 == 0 or i0 == planes - 1:
                    wall_weight += q[0] + q[0]
            else:
                if i1 == 0 or i1 == plane - 1:
                    wall_weight += q[1] + q[1]
        b = tuple(wall_weight * k[wall_at + c] for c in species)
        for c in species:
            diffusion_sum_[c] = none
        for i in kinetics:
            kinetic_sum_[i] = none

        # Rows, or slices of them that begin at 0: an index j - 1 into something longer costs a test for negative
        # numbers at every point.
        low = 0
        high = m
        if blocked:
            low = max(start, 1) - 1
            high = min(stop, m - 1) + 1
        for c in species:
            out_[c] = out[c, r, low:high] if blocked else out[c, r]
            for i in inputs:
                x_[i, c] = arrays[i][c, r, low:high] if blocked else arrays[i][c, r]
            for i in stencilled:
                for axis in row_axes:
                    u_[i, c, axis] = arrays[i][c, before_[axis], low:high] if blocked else arrays[i][c, before_[axis]]
                    v_[i, c, axis] = arrays[i][c, after_[axis], low:high] if blocked else arrays[i][c, after_[axis]]
        for i in fielded:
            f_[i] = fields[i, r, low:high] if blocked else fields[i, r]
            df_[i] = field_direction[i, r, low:high] if blocked else field_direction[i, r]
            if gradient:  # otherwise there are no sums to index
                gf_[i] = field_sums[i, r, low:high] if blocked else field_sums[i, r]
        for j in range(1, high - low - 1):
            p = tuple(f_[i][j] if i in fielded else p_[i] for i in kinetics)
            dp = tuple(df_[i][j] if i in fielded else dp_[i] for i in kinetics)
            values = tuple(tuple(x_[i, c][j] for c in species) for i in inputs)
            laps = tuple(
                tuple(
                    lap(
                        x_[i, c][j],
                        q,
                        x_[i, c][j - 1] + x_[i, c][j + 1],
                        tuple(u_[i, c, axis][j] + v_[i, c, axis][j] for axis in row_axes),
                    )
                    for c in species
                )
                for i in stencilled
            )
            if row_walls:
                laps = tuple(
                    tuple(
                        laps[s][c] - wall_weight * values[i][c] + b[c]
                        if i in affine
                        else laps[s][c] - wall_weight * values[i][c]
                        for c in species
                    )
                    for s, i in stencilled_pairs
                )
            new = update(values, laps, p, dp, d, dd, h)
            for c in species:
                out_[c][j] = new[c]
            if gradient:
                gd = diffusion(values, laps, b)
                for c in species:
                    diffusion_sum_[c] += gd[c]
                gp = kinetic(values, p, dp)
                for i in kinetics:
                    if i in fielded:
                        gf_[i][j] += h * gp[i]
                    else:
                        kinetic_sum_[i] += gp[i]

        for side in range(2):
            if side == 0:
                if blocked and start != 0:
                    continue
                j = 0
                left = m - 1 if 2 in periodic else 0
                right = 1
            else:
                if blocked and stop != m:
                    continue
                j = m - 1
                left = m - 2
                right = 0 if 2 in periodic else m - 1
            p = tuple(fields[i, r, j] if i in fielded else p_[i] for i in kinetics)
            dp = tuple(field_direction[i, r, j] if i in fielded else dp_[i] for i in kinetics)
            values = tuple(tuple(arrays[i][c, r, j] for c in species) for i in inputs)
            laps = tuple(
                tuple(
                    lap(
                        arrays[i][c, r, j],
                        q,
                        arrays[i][c, r, left] + arrays[i][c, r, right],
                        tuple(arrays[i][c, before_[axis], j] + arrays[i][c, after_[axis], j] for axis in row_axes),
                    )
                    for c in species
                )
                for i in stencilled
            )
            if walls:
                weight = wall_weight + (q[2] + q[2]) if 2 in wall_axes else wall_weight
                b = tuple(weight * k[wall_at + c] for c in species)
                laps = tuple(
                    tuple(
                        laps[s][c] - weight * values[i][c] + b[c] if i in affine else laps[s][c] - weight * values[i][c]
                        for c in species
                    )
                    for s, i in stencilled_pairs
                )
            new = update(values, laps, p, dp, d, dd, h)
            for c in species:
                out[c, r, j] = new[c]
            if gradient:
                gd = diffusion(values, laps, b)
                for c in species:
                    diffusion_sum_[c] += gd[c]
                gp = kinetic(values, p, dp)
                for i in kinetics:
                    if i in fielded:
                        field_sums[i, r, j] += h * gp[i]
                    else:
                        kinetic_sum_[i] += gp[i]
        if gradient:
            for c in species:
                sums[tile, c] += diffusion_sum_[c]
            for i in kinetics:
                sums[tile, len_species + i] += kinetic_sum_[i]


@njit(fastmath=POINT_FLAGS, **INNER)
def scale(out, weight, x, share):
    """out = weight * x on the tiles of one thread's share."""
    m = share.columns
    blocks = (m + BLOCK - 1) // BLOCK
    for tile in range(share.first, share.last):
        r = tile // blocks
        start = (tile - r * blocks) * BLOCK
        stop = min(start + BLOCK, m)
        for c in range(out.shape[0]):
            to = out[c, r, start:stop]
            of = x[c, r, start:stop]
            for j in range(stop - start):
                to[j] = weight * of[j]


@njit(fastmath=POINT_FLAGS, **INNER)
def accumulate(out, weight, x, share):
    """out += weight * x on the tiles of one thread's share."""
    m = share.columns
    blocks = (m + BLOCK - 1) // BLOCK
    for tile in range(share.first, share.last):
        r = tile // blocks
        start = (tile - r * blocks) * BLOCK
        stop = min(start + BLOCK, m)
        for c in range(out.shape[0]):
            to = out[c, r, start:stop]
            of = x[c, r, start:stop]
            for j in range(stop - start):
                to[j] += weight * of[j]


@njit(**INNER)
def blend(out, x, weight, rate, share):
    """out = x + weight * rate on the tiles of one thread's share."""
    scale(out, x.dtype.type(1), x, share)
    accumulate(out, weight, rate, share)


@partial(njit_cached, error_model="numpy", nogil=True, fastmath=SUM_FLAGS)
def add_square_seed(y, target, weight, weights, species, adjoint, values, block, first, last):
    """adjoint += w^2 (y - target), and values[tile] = sum (w (y - target))^2 / 2, on tiles first .. last - 1.

    y, adjoint: (S, rows, columns) or larger; target: (O, rows, columns) of the species listed in `species` (O,);
    w: `weight`, or `weights` of the target's shape if it is not empty. values: (tiles,) float64; block: columns to a
    tile.
    """
    m = target.shape[2]
    blocks = (m + block - 1) // block
    square = weight * weight
    for tile in range(first, last):
        r = tile // blocks
        start = (tile - r * blocks) * block
        stop = min(start + block, m)
        total = 0.0
        for o in range(len(species)):
            c = species[o]
            x = y[c, r, start:stop]
            to = target[o, r, start:stop]
            a = adjoint[c, r, start:stop]
            if weights.size:
                w = weights[o, r, start:stop]
                for j in range(stop - start):
                    misfit = w[j] * (x[j] - to[j])
                    total += misfit * misfit
                    a[j] += w[j] * misfit
            else:
                part = 0.0
                for j in range(stop - start):
                    misfit = x[j] - to[j]
                    part += misfit * misfit
                    a[j] += square * misfit
                total += square * part
        values[tile] = 0.5 * total


@partial(njit_cached, error_model="numpy", nogil=True, fastmath=SUM_FLAGS)
def all_finite(flat):
    """Whether a 1-D array has neither NaN nor infinity: x - x is 0 for all other numbers."""
    total = flat[0] - flat[0] if len(flat) else 0.0
    for j in range(len(flat)):
        total += flat[j] - flat[j]
    return total == 0.0


@cache
def _point(function: Callable[..., Any]) -> Any:
    """A scalar function of a model, compiled to be inlined by LLVM."""
    return njit(function, fastmath=POINT_FLAGS, **INNER)


def sweep_kernel(
    operation: cells.Operation, model: Model, geometry: "Geometry", fielded: tuple[int, ...], identity: bool
):
    """Compile (lazily) the sweep of one operation for a model on a kind of grid.

    Parameters
    ----------
    operation : cells.Operation
    model : Model
    geometry : Geometry
    fielded : tuple of int
        Which kinetic parameters are fields.
    identity : bool
        Whether the result includes the state itself (``y + h f(y)``) or is the rate (``f(y)``).

    Returns
    -------
    dispatcher
        ``sweep(arrays, out, plan, share)``.
    """
    species = tuple(range(len(model.species)))
    kinetics = tuple(range(len(model.parameters)))
    constants: dict[str, Any] = dict(
        species=species,
        kinetics=kinetics,
        len_species=len(species),
        inputs=tuple(range(operation.inputs)),
        stencilled=operation.stencilled,
        stencilled_pairs=tuple(enumerate(operation.stencilled)),
        affine=operation.affine,
        fielded=fielded,
        identity=identity,
        gradient=operation.diffusion is not None,
        d_at=COEFFICIENTS_BEFORE_D,
        p_at=COEFFICIENTS_BEFORE_D + len(species),
        wall_at=COEFFICIENTS_BEFORE_D + len(species) + len(kinetics),
        **geometry.constants(),
    )
    physics = {name: _point(getattr(model, name)) for name in operation.needs}

    def point(template: Any) -> Any:
        return njit(build(template, **constants, **physics), fastmath=POINT_FLAGS, **INNER)

    bound = dict(lap=point(cells.lap), update=point(operation.update))
    if operation.diffusion is not None:
        bound.update(diffusion=point(operation.diffusion), kinetic=point(operation.kinetics))
    flags = SUM_FLAGS if operation.diffusion is not None else POINT_FLAGS
    return njit(build(sweep, **constants, **bound), fastmath=flags, **INNER)


class Geometry(NamedTuple):
    """What of a grid is compiled into a kernel; axes are numbered so that 2 is the columns, and 1 and 0 the rows."""

    ndim: int
    periodic: tuple[int, ...]
    wall_axes: tuple[int, ...]
    anisotropic: bool
    blocked: bool  # whether a row is longer than BLOCK

    def constants(self) -> dict[str, Any]:
        """The names that templates see."""
        row_axes = {1: (), 2: (1,), 3: (0, 1)}[self.ndim]
        return dict(
            row_axes=row_axes,
            row_pairs=tuple(enumerate(row_axes)),
            periodic=self.periodic,
            wall_axes=self.wall_axes,
            walls=bool(self.wall_axes),
            row_walls=tuple(axis for axis in self.wall_axes if axis in row_axes),
            anisotropic=self.anisotropic,
            blocked=self.blocked,
        )
