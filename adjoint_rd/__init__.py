"""Exact gradients through reaction-diffusion systems, and parameters out of patterns."""

from importlib import import_module
from typing import Any

from . import losses
from ._version import __version__
from .errors import (
    AdjointRDError,
    BackendError,
    CheckpointError,
    DivergenceError,
    InputError,
    StabilityError,
    StabilityWarning,
)
from .grid import Grid
from .models import Model
from .simulation import Gradient, Run, Simulation, SteadyRun, Tangent

# What is imported when it is first used: the rest of SciPy, matplotlib and the like stay out of `import adjoint_rd`.
_LATER = {
    "Objective": "objective",
    "standard_errors": "objective",
    "load": "io",
}
_MODULES = ("initial", "io", "models", "plots", "presets", "stability", "validate")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER, *_MODULES])


__all__ = [
    "AdjointRDError",
    "BackendError",
    "CheckpointError",
    "DivergenceError",
    "Gradient",
    "Grid",
    "InputError",
    "Model",
    "Objective",
    "Run",
    "Simulation",
    "StabilityError",
    "StabilityWarning",
    "SteadyRun",
    "Tangent",
    "__version__",
    "load",
    "losses",
    "presets",
    "standard_errors",
    "validate",
]
