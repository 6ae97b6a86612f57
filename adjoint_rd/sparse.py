"""Sparse matrices of a model on a grid, and direct solvers that know the grid.

`System` holds the steady equation ``R(y; p) = D Lap y + reaction(y; p) = 0`` as a vector function of the flat state
``y.ravel()`` (species first), with its sparse Jacobian and its derivative with respect to the parameters. `Tree` orders
the cells by nested dissection (A. George, SIAM J. Numer. Anal. 10 (1973) 345): slabs of cells cut the grid into halves
that do not touch, again and again; each slab is eliminated after its halves. `Cholesky` factors a symmetric positive
definite matrix along that tree by dense fronts (the multifrontal method, J. W. H. Liu, SIAM Rev. 34 (1992) 82), which
is several times faster here than a general sparse LU and gives the log-determinant.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import fft, linalg, sparse
from scipy.sparse.linalg import splu

from .errors import InputError
from .grid import Grid
from .kernels.disk_cache import njit_cached
from .models import Model

LEAF_CELLS = 40


# Matrices


def laplacian(grid: Grid) -> sparse.csr_array:
    """The linear part of the grid's Laplacian, (cells, cells), symmetric."""
    total = sparse.csr_array((grid.size, grid.size))
    for axis, (n, h, kind) in enumerate(zip(grid.shape, grid.spacing, grid.boundary, strict=True)):
        main = np.full(n, -2.0)
        if kind == "neumann":
            main[[0, -1]] = -1.0
        elif kind == "dirichlet":
            main[[0, -1]] = -3.0
        ring = [np.ones(1)] * 2 if kind == "periodic" else []
        offsets = [0, 1, -1, *((n - 1, 1 - n) if kind == "periodic" else ())]
        one = sparse.diags_array([main, np.ones(n - 1), np.ones(n - 1), *ring], offsets=offsets, shape=(n, n))
        before = sparse.eye_array(int(np.prod(grid.shape[:axis], dtype=int)))
        after = sparse.eye_array(int(np.prod(grid.shape[axis + 1 :], dtype=int)))
        total = total + sparse.kron(sparse.kron(before, one / h**2), after)
    return sparse.csr_array(total)


def wall_term(grid: Grid, wall: float) -> np.ndarray:
    """What Dirichlet walls of that value add to the Laplacian, (cells,): ``2 wall / h^2`` beside each."""
    added = np.zeros(grid.shape)
    for axis, (h, kind) in enumerate(zip(grid.spacing, grid.boundary, strict=True)):
        if kind == "dirichlet":
            for end in (0, -1):
                added[(slice(None),) * axis + (end,)] += 2.0 * wall / h**2
    return added.ravel()


@dataclass(frozen=True, eq=False)
class System:
    """The steady equation of a model on a grid.

    Parameters
    ----------
    model : Model
    grid : Grid
        With Dirichlet walls, `grid.wall` or a rest state that does not depend on the parameters.
    """

    model: Model
    grid: Grid

    @cached_property
    def lap(self) -> sparse.csr_array:
        """The Laplacian's linear part."""
        return laplacian(self.grid)

    @cached_property
    def walls(self) -> np.ndarray:
        """The affine part of the Laplacian for each species, (S, cells)."""
        S = len(self.model.species)
        if "dirichlet" not in self.grid.boundary:
            return np.zeros((S, 1))
        values = self.grid.wall if self.grid.wall is not None else self.model.rest_state({})
        return np.stack([wall_term(self.grid, value) for value in values])

    @property
    def size(self) -> int:
        """S times the number of cells."""
        return len(self.model.species) * self.grid.size

    def split(self, y: np.ndarray) -> np.ndarray:
        """The flat state as (S, cells)."""
        return np.asarray(y, dtype=np.float64).reshape(len(self.model.species), self.grid.size)

    def kinetics(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The kinetic parameters as floats or flat fields."""
        return tuple(_flat(params[name]) for name in self.model.parameters)

    def residual(self, y: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
        """R(y; p) as a flat vector."""
        s = self.split(y)
        reaction = self.model.reaction(tuple(s), self.kinetics(params))
        return np.concatenate(
            [
                params[D] * (self.lap @ s[c] + self.walls[c]) + reaction[c]
                for c, D in enumerate(self.model.diffusivities)
            ]
        )

    def reaction_jacobian(self, y: np.ndarray, params: Mapping[str, Any]) -> list[list[np.ndarray]]:
        """d reaction_i / d y_j as arrays of one value a cell."""
        s = tuple(self.split(y))
        p = self.kinetics(params)
        nothing = tuple(0.0 for _ in p)
        columns = []
        for j in range(len(s)):
            t = tuple(np.ones(self.grid.size) if c == j else np.zeros(self.grid.size) for c in range(len(s)))
            columns.append([np.broadcast_to(r, (self.grid.size,)) for r in self.model.reaction_j(s, p, t, nothing)])
        return [[columns[j][i] for j in range(len(s))] for i in range(len(s))]

    def jacobian(self, y: np.ndarray, params: Mapping[str, Any]) -> sparse.csr_array:
        """R_y, (S cells, S cells)."""
        J = self.reaction_jacobian(y, params)
        return sparse.csr_array(
            sparse.block_array(
                [
                    [
                        sparse.diags_array(J[i][j]) + (params[D] * self.lap if i == j else 0)
                        if i == j
                        else sparse.diags_array(J[i][j])
                        for j in range(len(J))
                    ]
                    for i, D in enumerate(self.model.diffusivities)
                ],
                format="csr",
            )
        )

    def parameter_jacobian(self, y: np.ndarray, params: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray:
        """R_p for scalar parameters, (S cells, len(names))."""
        s = self.split(y)
        p = self.kinetics(params)
        zeros = tuple(np.zeros(self.grid.size) for _ in s)
        columns = np.zeros((len(names), len(s), self.grid.size))
        for column, name in zip(columns, names, strict=True):
            if name in self.model.diffusivities:
                c = self.model.diffusivities.index(name)
                column[c] = self.lap @ s[c] + self.walls[c]
            else:
                dp = tuple(1.0 if other == name else 0.0 for other in self.model.parameters)
                column[:] = np.stack(np.broadcast_arrays(*self.model.reaction_j(tuple(s), p, zeros, dp)))
        return columns.reshape(len(names), self.size).T

    def translations(self, y: np.ndarray) -> np.ndarray:
        """Orthonormal basis of the shifts of y along periodic axes, (S cells, at most ndim): central differences of
        y."""
        s = np.asarray(y).reshape(-1, *self.grid.shape)
        scale = np.linalg.norm(s - s.mean(axis=tuple(range(1, s.ndim)), keepdims=True))
        shifts = [
            (np.roll(s, -1, axis + 1) - np.roll(s, 1, axis + 1)).ravel()
            for axis, kind in enumerate(self.grid.boundary)
            if kind == "periodic"
        ]
        shifts = [shift for shift in shifts if np.linalg.norm(shift) > 1e-6 * scale > 0.0]
        if not shifts:
            return np.zeros((s.size, 0))
        U, size, _ = np.linalg.svd(np.stack(shifts, axis=1), full_matrices=False)
        return U[:, size > 1e-6 * size[0]]


def _flat(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=np.float64).ravel()


# Nested dissection


@dataclass(frozen=True, eq=False)
class Tree:
    """Cells in elimination order, cut into fronts.

    Attributes
    ----------
    order : ndarray of int (cells,)
        The cell at each place of the elimination.
    starts : ndarray of int (fronts + 1,)
        Front f eliminates the places starts[f] .. starts[f + 1].
    beyond : list of ndarray
        For each front the later places that it touches, ascending.
    parent : ndarray of int (fronts,)
        The front that takes up a front's update; -1 for the last.
    """

    order: np.ndarray
    starts: np.ndarray
    beyond: list[np.ndarray]
    parent: np.ndarray


@lru_cache(maxsize=8)
def dissection(shape: tuple[int, ...], periodic: tuple[bool, ...], reach: int) -> Tree:
    """Nested dissection of a grid whose equations couple cells at most `reach` steps of the star apart."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    pieces: list[np.ndarray] = []

    def cut(box: np.ndarray) -> None:
        if box.size == 0:
            return
        longest = int(np.argmax(box.shape))
        n = box.shape[longest]
        if box.size <= LEAF_CELLS or n <= 2 * reach + 1:
            pieces.append(box.ravel())
            return
        middle = (n - reach) // 2
        part = np.split(box, [middle, middle + reach], axis=longest)
        cut(part[0])
        cut(part[2])
        pieces.append(part[1].ravel())

    inner, seams = index, []
    for axis, wraps in enumerate(periodic):
        if wraps:
            width = min(reach, inner.shape[axis])
            seam, inner = np.split(inner, [width], axis=axis)
            seams.append(seam.ravel())
    cut(inner)
    if seams:
        pieces.append(np.concatenate(seams))
    order = np.concatenate(pieces)
    starts = np.concatenate([[0], np.cumsum([piece.size for piece in pieces])])
    place = np.empty(index.size, dtype=np.int64)
    place[order] = np.arange(index.size)
    fronts = np.repeat(np.arange(len(pieces)), np.diff(starts))
    near = _neighbours(shape, periodic, reach)
    beyond: list[np.ndarray] = []
    parent = np.full(len(pieces), -1)
    received: list[list[np.ndarray]] = [[] for _ in pieces]
    for f, piece in enumerate(pieces):
        touched = place[near[piece].ravel()]
        later = np.unique(np.concatenate([touched, *received[f]]))
        later = later[later >= starts[f + 1]]
        received[f] = []
        beyond.append(later)
        if later.size:
            parent[f] = fronts[later[0]]
            received[parent[f]].append(later)
    return Tree(order, starts, beyond, parent)


def _neighbours(shape: tuple[int, ...], periodic: tuple[bool, ...], reach: int) -> np.ndarray:
    """For each cell those within `reach` steps of the star (beyond an edge: itself)."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    offsets = [d for d in np.ndindex(*(2 * reach + 1,) * len(shape)) if sum(abs(i - reach) for i in d) <= reach]
    columns = []
    for d in offsets:
        at = []
        inside = np.ones(shape, dtype=bool)
        for axis, (n, wraps) in enumerate(zip(shape, periodic, strict=True)):
            i = np.arange(n) + d[axis] - reach
            shaped = [1] * len(shape)
            shaped[axis] = n
            if not wraps:
                inside &= ((i >= 0) & (i < n)).reshape(shaped)
            at.append(i % n)
        columns.append(np.where(inside, index[np.ix_(*at)], index).ravel())
    return np.stack(columns, axis=1)


def _grid_tree(grid: Grid, reach: int) -> Tree:
    return dissection(grid.shape, tuple(kind == "periodic" for kind in grid.boundary), reach)


def unknowns_in_order(tree: Tree, species: int) -> np.ndarray:
    """The unknowns of a species-first vector in elimination order, the species of a cell side by side."""
    cells = tree.order.size
    return (tree.order[:, None] + cells * np.arange(species)[None, :]).ravel()


# Direct solvers


class LU:
    """Sparse LU of a matrix of `species` unknowns a cell that couples nearest neighbours, by SuperLU.

    Parameters
    ----------
    grid : Grid
    matrix : sparse array (S cells, S cells)
        Species first.
    border : ndarray (S cells, m), optional
        Solve ``[[A, B], [B^T, 0]]`` instead, see `solve`.
    """

    def __init__(self, grid: Grid, matrix: Any, border: np.ndarray | None = None):
        species = matrix.shape[0] // grid.size
        self._places = unknowns_in_order(_grid_tree(grid, 1), species)
        permuted = sparse.csc_array(matrix)[self._places][:, self._places]
        self._lu = splu(
            sparse.csc_matrix(permuted),
            permc_spec="NATURAL",
            options={"SymmetricMode": True},
            diag_pivot_thresh=1e-3,
        )
        self.border = None if border is None or border.shape[1] == 0 else border
        if self.border is not None:
            self._forth = self._plain(self.border, "N")
            self._back = self._plain(self.border, "T")
            self._corner = np.linalg.inv(self.border.T @ self._forth)

    def _plain(self, b: np.ndarray, trans: str) -> np.ndarray:
        x = np.empty_like(b)
        x[self._places] = self._lu.solve(np.ascontiguousarray(b[self._places]), trans=trans)
        return x

    def solve(self, b: np.ndarray, transpose: bool = False) -> np.ndarray:
        """The x of ``A x + B s = b, B^T x = 0`` (with `transpose`: A^T), b (S cells,) or (S cells, columns)."""
        x = self._plain(np.asarray(b, dtype=np.float64), "T" if transpose else "N")
        if self.border is None:
            return x
        basis, corner = (self._back, self._corner.T) if transpose else (self._forth, self._corner)
        return x - basis @ (corner @ (self.border.T @ x))


@cache
def _blas_threads() -> tuple[tuple[Callable[[], int], Callable[[int], None]], ...]:
    """(get, set) of the number of threads of the OpenBLAS libraries that the NumPy and SciPy wheels bring; may be
    empty."""
    found = []
    for package in (scipy, np):
        folder = Path(package.__file__).parent.parent / f"{package.__name__}.libs"
        for path in sorted(folder.glob("*openblas*")) if folder.is_dir() else ():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            for suffix in ("", "64_"):
                get = getattr(library, f"scipy_openblas_get_num_threads{suffix}", None)
                put = getattr(library, f"scipy_openblas_set_num_threads{suffix}", None)
                if get is not None and put is not None:
                    found.append((get, put))
                    break
    return tuple(found)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let OpenBLAS use one thread: fronts are small, and waiting threads spin (5 times slower on a busy machine)."""
    before = [(put, get()) for get, put in _blas_threads()]
    try:
        for put, _ in before:
            put(1)
        yield
    finally:
        for put, count in before:
            put(count)


class Cholesky:
    """``A = L L^T`` of a symmetric positive definite matrix that couples cells at most two steps of the star apart.

    Parameters
    ----------
    grid : Grid
    matrix : sparse array (S cells, S cells)
        Species first; both triangles.
    reach : int
        How far the matrix couples, 1 or 2.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a pivot is not positive.
    """

    def __init__(self, grid: Grid, matrix: Any, reach: int = 2):
        with one_blas_thread():
            self._factor(grid, matrix, reach)

    def _factor(self, grid: Grid, matrix: Any, reach: int) -> None:
        species = matrix.shape[0] // grid.size
        plan = _plan(grid.shape, tuple(kind == "periodic" for kind in grid.boundary), reach, species)
        self._plan = plan
        A = sparse.csr_array(matrix)[plan.places][:, plan.places]
        where = np.full(A.shape[0], -1, dtype=np.int64)
        updates: list[list[tuple[int, np.ndarray]]] = [[] for _ in plan.parent]
        self._fronts = []
        self.logdet = 0.0
        for f, (start, end) in enumerate(zip(plan.starts, plan.starts[1:], strict=False)):
            later = plan.beyond[f]
            own = end - start
            F11 = np.zeros((own, own), order="F")
            F21 = np.zeros((later.size, own), order="F")
            F22 = np.zeros((later.size, later.size), order="F")
            _take(A.indptr, A.indices, A.data, start, end, later, where, F11, F21)
            for child, update in updates[f]:
                _extend(update, plan.to_parent[child], own, F11, F21, F22)
            updates[f] = []
            L11, info = linalg.lapack.dpotrf(F11, lower=1, clean=0, overwrite_a=1)
            if info:
                raise np.linalg.LinAlgError(f"the matrix is not positive definite (front {f}, pivot {info})")
            self.logdet += 2.0 * float(np.sum(np.log(np.diagonal(L11))))
            L21 = F21
            if later.size:
                L21 = linalg.blas.dtrsm(1.0, L11, F21, side=1, lower=1, trans_a=1, overwrite_b=1)
                F22 = linalg.blas.dsyrk(-1.0, L21, beta=1.0, c=F22, lower=1, overwrite_c=1)
                updates[plan.parent[f]].append((f, F22))
            self._fronts.append((start, end, later, L11, L21))

    def solve(self, b: np.ndarray) -> np.ndarray:
        """``A^-1 b``, b (n,) or (n, columns)."""
        with one_blas_thread():
            return self._substitute(b)

    def _substitute(self, b: np.ndarray) -> np.ndarray:
        b = np.asarray(b, dtype=np.float64)
        x = np.array(b.reshape(b.shape[0], -1)[self._plan.places], order="C")
        for start, end, later, L11, L21 in self._fronts:
            own = linalg.blas.dtrsm(1.0, L11, x[start:end], lower=1)
            x[start:end] = own
            if later.size:
                x[later] -= L21 @ own
        for start, end, later, L11, L21 in reversed(self._fronts):
            own = x[start:end]
            if later.size:
                own = own - L21.T @ x[later]
            x[start:end] = linalg.blas.dtrsm(1.0, L11, own, lower=1, trans_a=1)
        out = np.empty_like(x)
        out[self._plan.places] = x
        return out.reshape(b.shape)


@dataclass(frozen=True, eq=False)
class _Plan:
    places: np.ndarray
    starts: np.ndarray
    beyond: list[np.ndarray]
    parent: np.ndarray
    to_parent: list[np.ndarray]  # where the unknowns of `beyond` stand in the parent's front


@lru_cache(maxsize=8)
def _plan(shape: tuple[int, ...], periodic: tuple[bool, ...], reach: int, species: int) -> _Plan:
    tree = dissection(shape, periodic, reach)
    each = np.arange(species)
    beyond = [(later[:, None] * species + each).ravel() for later in tree.beyond]
    starts = tree.starts * species
    to_parent = []
    for f, later in enumerate(beyond):
        up = tree.parent[f]
        if up < 0:
            to_parent.append(np.zeros(0, dtype=np.int64))
            continue
        own = starts[up + 1] - starts[up]
        inside = later < starts[up + 1]
        to_parent.append(np.where(inside, later - starts[up], own + np.searchsorted(beyond[up], later)))
    return _Plan(unknowns_in_order(tree, species), starts, beyond, tree.parent, to_parent)


@njit_cached
def _take(indptr, indices, data, start, end, later, where, F11, F21):
    """Copy the matrix's columns start .. end, on and below the diagonal, into a front."""
    for i in range(later.size):
        where[later[i]] = i
    for column in range(start, end):
        for e in range(indptr[column], indptr[column + 1]):
            row = indices[e]
            if row >= end:
                F21[where[row], column - start] = data[e]
            elif row >= column:
                F11[row - start, column - start] = data[e]


@njit_cached
def _extend(update, to, own, F11, F21, F22):
    """Add a child's update (lower triangle) at the places `to`, which ascend."""
    n = to.size
    for j in range(n):
        q = to[j]
        if q < own:
            for i in range(j, n):
                p = to[i]
                if p < own:
                    F11[p, q] += update[i, j]
                else:
                    F21[p - own, q] += update[i, j]
        else:
            for i in range(j, n):
                F22[to[i] - own, q - own] += update[i, j]


def check_cells(grid: Grid, most: int, what: str) -> None:
    """Refuse a grid that is too large for a direct solver."""
    if grid.size > most:
        raise InputError(
            f"{what} on {grid.size} cells needs too much memory for a direct solver; at most {most} cells."
        )


# Fast transforms


class Spectral:
    """The eigenvectors of the grid's Laplacian as fast transforms: `forth`, `back`, and the eigenvalues `lam` <= 0.

    Periodic axes take the Fourier transform, Neumann the cosine and Dirichlet the sine transform of type 2, which make
    the star diagonal: ``lam = -sum_i 4/h_i^2 sin^2(theta_i / 2)``.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        self._real_first = all(kind == "periodic" for kind in grid.boundary)
        lam = np.zeros((1,) * grid.ndim)
        for axis, (n, h, kind) in enumerate(zip(grid.shape, grid.spacing, grid.boundary, strict=True)):
            if kind == "periodic":
                last = self._real_first and axis == grid.ndim - 1
                theta = 2.0 * np.pi * (np.arange(n // 2 + 1) if last else np.arange(n)) / n
            else:
                theta = np.pi * (np.arange(n) + (kind == "dirichlet")) / n
            shaped = [1] * grid.ndim
            shaped[axis] = theta.size
            lam = lam - (4.0 / h**2 * np.sin(theta / 2.0) ** 2).reshape(shaped)
        self.lam = lam

    def forth(self, a: np.ndarray) -> np.ndarray:
        """The coefficients of a field (..., *shape)."""
        axes = tuple(range(a.ndim - self.grid.ndim, a.ndim))
        if self._real_first:
            return fft.rfftn(a, axes=axes)
        for axis, kind in zip(axes, self.grid.boundary, strict=True):
            if kind == "neumann":
                a = fft.dct(a, axis=axis)
            elif kind == "dirichlet":
                a = fft.dst(a, axis=axis)
        for axis, kind in zip(axes, self.grid.boundary, strict=True):
            if kind == "periodic":
                a = fft.fft(a, axis=axis)
        return a

    def back(self, a: np.ndarray) -> np.ndarray:
        """The field of these coefficients."""
        axes = tuple(range(a.ndim - self.grid.ndim, a.ndim))
        if self._real_first:
            return fft.irfftn(a, s=self.grid.shape, axes=axes)
        for axis, kind in zip(axes, self.grid.boundary, strict=True):
            if kind == "periodic":
                a = fft.ifft(a, axis=axis)
        a = np.real(a)
        for axis, kind in zip(axes, self.grid.boundary, strict=True):
            if kind == "neumann":
                a = fft.idct(a, axis=axis)
            elif kind == "dirichlet":
                a = fft.idst(a, axis=axis)
        return a

    def apply(self, a: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """The field times `factor`, a function of `lam`, in the space of coefficients."""
        return self.back(self.forth(a) * factor)
