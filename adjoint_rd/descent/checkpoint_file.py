"""Checkpoint files of `adjoint_rd.minimize`: the last whole iteration, and the one before it."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..errors import CheckpointError, InputError
from .state import Best, Options, State, Trial

FORMAT, VERSION = "adjoint_rd.minimize", 2
SCALARS = ("value", "iteration", "scale", "successes", "skips", "rate", "nfev", "trials", "recent")


class CheckpointFile:
    """The file of one run.

    Parameters
    ----------
    path : Path
    options : Options
        Of the run; a file of other options is refused.
    problem : dict or None
        What the objective says of itself; a file of another problem is refused.
    """

    def __init__(self, path: Path, options: Options, problem: Mapping[str, Any] | None):
        self.path, self.options, self.problem = path, options, problem
        self._owned = False  # whether the file is of this run
        self._saved: State | None = None  # what it holds

    def prepare(self, resume: bool) -> bool:
        """Check, before anything is computed, that files can be written; return whether there is one to load."""
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise InputError(
                f"checkpoint={str(path)!r}: cannot write there ({error.strerror or error}). Give another folder."
            ) from None
        if path.is_dir():
            raise InputError(f"checkpoint={str(path)!r} is a folder; give the name of a file.")
        if not resume:
            return False
        files.remove_leftovers(path)
        return files.any_generation(path)

    def save(self, state: State, trials: Sequence[Trial], history: Mapping[str, Sequence[float]]) -> None:
        """Write the state, and of the trials and the history what belongs to it."""
        if state is self._saved:
            return
        best = state.best
        arrays = {"x": state.x, "gradient": state.gradient, "best_x": best.x, "best_gradient": best.gradient}
        arrays |= {f"memory_{name}": array for name, array in state.memory.items()}
        arrays |= {f"history_{name}": np.array(series[: state.iteration]) for name, series in history.items()}
        content = {
            "options": asdict(self.options),
            "problem": self.problem,
            "state": {name: getattr(state, name) for name in SCALARS},
            "best": {"value": best.value, "iteration": best.iteration},
            "trials": [list(vars(trial).values()) for trial in trials[: state.trials]],
        }
        if not self._owned:  # files of an earlier run are no generations of this one
            files.previous(self.path).unlink(missing_ok=True)
        files.write_archive(self.path, FORMAT, VERSION, content, arrays, keep_previous=self._owned)
        self._owned, self._saved = True, state

    def load(self, shape: tuple[int, ...]) -> tuple[State, list[Trial], dict[str, list[float]]]:
        """The state, the trials and the history in the file, or in the generation before it if it is damaged.

        Parameters
        ----------
        shape : tuple of int
            Of x.
        """
        try:
            said, arrays = files.read_latest(self.path, FORMAT, VERSION, stacklevel=6)
        except files.DamagedError as error:
            raise CheckpointError(
                f"{self.path} is not a checkpoint of minimize: {error} Delete it to start anew."
            ) from error
        except InputError as error:
            raise CheckpointError(str(error)) from error
        try:
            saved, problem = said["options"], said["problem"]
            state = State(
                x=arrays["x"],
                gradient=arrays["gradient"],
                best=Best(arrays["best_x"], said["best"]["value"], arrays["best_gradient"], said["best"]["iteration"]),
                memory=_with_prefix(arrays, "memory_"),
                **{**said["state"], "recent": tuple(said["state"]["recent"])},
            )
            trials = [Trial(*entry) for entry in said["trials"]]
            history = {name: series.tolist() for name, series in _with_prefix(arrays, "history_").items()}
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.path} is an incomplete checkpoint: {error!r}. Delete it to start anew."
            ) from error
        self._check_same(saved, problem, state.x.shape, shape)
        self._owned = True
        return state, trials, history

    def _check_same(self, saved: Mapping[str, Any], problem: Any, shape: Any, expected: Any) -> None:
        """Raise a `CheckpointError` unless the file is of a run with these settings, of this problem."""
        mine = json.loads(json.dumps(asdict(self.options)))
        different = [name for name in mine if mine[name] != saved.get(name)]
        here = json.loads(json.dumps(self.problem))
        if problem is not None and here is not None:
            different += [
                f"{name} {problem.get(name)!r} there, {here.get(name)!r} here"
                for name in {**problem, **here}
                if problem.get(name) != here.get(name)
            ]
        if shape != expected:
            different.append(f"x of shape {shape}, not {expected}")
        if different:
            raise CheckpointError(
                f"{self.path} is of a run with other settings ({', '.join(different)}). Delete it, or use the same."
            )


def _with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
