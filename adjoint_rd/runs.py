"""What runs and derivatives give back, and runs in files: arrays, and a JSON header with the SHA-256 of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .files import open_npz, read_arrays, read_header, write_archive
from .paths import source, target

FORMAT = "adjoint_rd.run"
VERSION = 1
MOST_SHOWN = 8  # items of an array that a `repr` writes out


class _Brief:
    """A dataclass whose `repr` gives the type and shape of its arrays in place of their numbers."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in vars(self).items())})"


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > MOST_SHOWN:
        return f"<array of {value.dtype}, shape {value.shape}>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {_brief(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list) and len(value) > 1:
        return f"[{_brief(value[0])}, ... {len(value)} in all]"
    return repr(value)


@dataclass(frozen=True, repr=False)
class Run(_Brief):
    """States of a run.

    Attributes
    ----------
    final : ndarray (S, *shape)
        The state after the last step.
    states : ndarray (n, S, *shape)
        The saved states.
    steps : ndarray of int (n,)
        The step number of each saved state; y0 is step 0.
    params : dict
        The parameters of the run.
    dt : float
    spacing : tuple of float
    model : str
    """

    final: np.ndarray
    states: np.ndarray
    steps: np.ndarray
    params: dict[str, Any]
    dt: float
    spacing: tuple[float, ...]
    model: str

    def save(self, path: Any) -> None:
        """Write the run, of one member or of a batch, to an .npz file, which `adjoint_rd.load` reads.

        Parameters
        ----------
        path : str or path-like
            Must end in .npz; an existing file is replaced.
        """
        path = target(path, ".npz")
        arrays = {"final": self.final, "states": self.states, "steps": self.steps}
        batch = not isinstance(self.params, Mapping)
        params: list[dict[str, Any]] = []
        for n, member in enumerate(self.params if batch else [self.params]):
            fields = {name: f"params/{n}/{name}" for name, value in member.items() if np.ndim(value)}
            arrays.update({key: member[name] for name, key in fields.items()})
            params.append({name: {"array": fields[name]} if name in fields else float(member[name]) for name in member})
        content = {
            "model": self.model,
            "params": params if batch else params[0],
            "dt": float(self.dt),
            "spacing": [float(h) for h in self.spacing],
        }
        write_archive(path, FORMAT, VERSION, content, arrays)


@dataclass(frozen=True, repr=False)
class SteadyRun(_Brief):
    """Where `Simulation.run_to_steady` got to.

    Of a batch, each attribute is an array with B as its first axis.

    Attributes
    ----------
    final : ndarray (S, *shape)
    steps_taken : int
    rate : float
        max |y_t| at the end, measured as the change in one step over dt.
    converged : bool
        Whether `rate` is at most the tolerance.
    """

    final: np.ndarray
    steps_taken: Any
    rate: Any
    converged: Any


@dataclass(frozen=True, repr=False)
class Gradient(_Brief):
    """A loss and its derivatives.

    Attributes
    ----------
    value : float
    params : dict
        {name: float, or ndarray of the grid's shape for a field}: dL/dp.
    initial : ndarray (S, *shape)
        dL/dy0; with a window, the derivative with respect to the first state of the window.
    """

    value: float
    params: dict[str, Any]
    initial: np.ndarray


@dataclass(frozen=True, repr=False)
class Tangent(_Brief):
    """A final state and its derivative along a direction, both (S, *shape)."""

    final: np.ndarray
    tangent: np.ndarray


def load(path: Any) -> Run:
    """Read a run that `Run.save` wrote, and check that every array is as it was written.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If the file is missing, truncated, changed, not a saved run, or of another format version.
    """
    path = source(path)
    with open_npz(path) as archive:
        header = read_header(path, archive, FORMAT, VERSION)
        if header is None:
            raise InputError(
                f"{path} is an .npz file, but not a run saved by adjoint_rd (it holds "
                f"{', '.join(archive.files) or 'nothing'}). "
                "Use numpy.load, or adjoint_rd.io.read_observation for frames to fit."
            )
        return read_run(path, archive, header)


def read_run(path: Path, archive: Any, header: dict[str, Any]) -> Run:
    """The run in an open archive whose header was read."""
    arrays = read_arrays(path, archive, header) if "arrays" in header else {}
    try:
        batch = isinstance(header["params"], list)
        params = [
            {
                name: arrays[value["array"]] if isinstance(value, Mapping) else float(value)
                for name, value in each.items()
            }
            for each in (header["params"] if batch else [header["params"]])
        ]
        run = Run(
            arrays["final"],
            arrays["states"],
            arrays["steps"],
            params if batch else params[0],
            float(header["dt"]),
            tuple(float(h) for h in header["spacing"]),
            str(header["model"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is an incomplete saved run: {error!r}. Use another copy.") from None
    members = run.final.shape[:1] if batch else ()
    if run.states.shape != (*members, len(run.steps), *run.final.shape[len(members) :]):
        raise InputError(
            f"{path} does not fit together: states {run.states.shape}, steps {run.steps.shape}, final "
            f"{run.final.shape}."
        )
    return run
