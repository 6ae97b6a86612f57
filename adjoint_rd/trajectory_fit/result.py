"""What a trajectory fit reports, on its way and at its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Progress:
    """A fit on its way: the count of evaluations on the grid `refine`, and the misfit and parameters of the last."""

    refine: int
    evaluations: int
    misfit: float
    params: dict[str, float]


@dataclass(frozen=True)
class RefinementFit:
    """The fit on one grid.

    Attributes
    ----------
    refine : int
        R.
    shape : tuple of int
    substeps : int
        Steps per interval between frames (the shortest, if they differ).
    dt, safe : float
        The step, and the limit of `adjoint_rd.stability` up to which no blow-up is possible, at the estimate.
    params, stderr : dict
        Estimates and standard errors (see `TrajectoryFit`).
    rms : float
        Of fitted minus observed, in the state's unit.
    agreement : float
        How far the gradients by the adjoint and by the tangents, J^T m, differ at the estimate, relative to |J| |m|.
    evaluations : int
    seconds : float
    history : ndarray
        The misfit sqrt(2 J / N) at each evaluation: fitted minus observed, in units of `noise` or of each species'
        spread.
    success : bool
    message : str
        The optimiser's.
    """

    refine: int
    shape: tuple[int, ...]
    substeps: int
    dt: float
    safe: float
    params: dict[str, float]
    stderr: dict[str, float]
    rms: float
    agreement: float
    evaluations: int
    seconds: float
    history: np.ndarray = field(repr=False)
    success: bool
    message: str


@dataclass(frozen=True)
class TrajectoryFit:
    """Parameters fitted to frames.

    Attributes
    ----------
    params : dict
        The free parameters: extrapolated from the two finest grids; from a single grid, its fit.
    stderr : dict
        Standard errors on the finest grid, from the Jacobian and the size of the misfit (or from `noise`): what
        independent noise in each cell would cause. They say nothing of the discretisation, nor of errors in the first
        frame.
    discretisation : dict or None
        The error of the finest grid's fit, |extrapolation - fit|, which is more than that of `params` where the grids
        are fine enough for second order. None from a single grid.
    refinements : tuple of RefinementFit
        From coarse to fine.
    start : dict
        Where the coarsest fit began.
    truth : dict
        What the file says of these parameters; empty if it says nothing.
    observed, fitted : ndarray (T, S, *shape)
        The frames that were used, and the finest grid's run in the same cells.
    names : tuple of str
        The species.
    spacing : tuple of float
        Of the frames.
    success : bool
    message : str
        What was used and found, in sentences.
    """

    params: dict[str, float]
    stderr: dict[str, float]
    discretisation: dict[str, float] | None
    refinements: tuple[RefinementFit, ...]
    start: dict[str, float]
    truth: dict[str, float]
    observed: np.ndarray = field(repr=False)
    fitted: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    spacing: tuple[float, ...]
    success: bool
    message: str

    def errors(self, params: Mapping[str, float] | None = None) -> dict[str, float]:
        """Estimate minus truth in percent of the truth, where it is known (and not 0)."""
        params = self.params if params is None else params
        return {name: 100.0 * (params[name] / self.truth[name] - 1.0) for name in params if self.truth.get(name)}

    def table(self) -> str:
        """The truth, then the estimates of each grid and of the extrapolation; one column per parameter."""
        rows = [["", *self.params]]
        if self.truth:
            rows.append(["truth", *(f"{self.truth[name]:.6g}" if name in self.truth else "" for name in self.params)])
        for each in self.refinements:
            rows.append([f"R={each.refine}, {'x'.join(map(str, each.shape))}", *self._cells(each.params)])
        last = f"R={self.refinements[-1].refine}"
        if self.discretisation is not None:
            rows.append(
                [f"extrapolated, {last[:2]}{self.refinements[-2].refine},{last[2:]}", *self._cells(self.params)]
            )
            errors = [f"{self.discretisation[name]:.1e}" for name in self.params]
            rows.append([f"discretisation, {last}", *errors])
        rows.append(["noise alone", *(f"{self.stderr[name]:.1e}" for name in self.params)])
        widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _cells(self, params: Mapping[str, float]) -> list[str]:
        errors = self.errors(params)
        return [
            f"{value:.6g}" + (f" ({errors[name]:+.2f} %)" if name in errors else "") for name, value in params.items()
        ]

    def __str__(self) -> str:
        sentences = self.message.replace(". ", ".\n")
        brackets = "In brackets: estimate minus truth. " if self.errors() else ""
        last = "The last row is an error" if self.discretisation is None else "The last two rows are errors"
        return f"{self.table()}\n{brackets}{last} in the parameters' units.\n\n{sentences}"
