"""Exact gradients through reaction-diffusion systems, and parameters out of patterns."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .inverse import Inversion, invert
    from .inversion.statistics import StatisticsFit, invert_statistics
    from .matching import PatternMatching
    from .objective import Objective, standard_errors
    from .optimize import adaptive, minimize
    from .runs import Gradient, Run, SteadyRun, Tangent, load
    from .simulation import Simulation
    from .steady import SteadyObjective

# Imported when first used: Numba, SciPy's optimisers and matplotlib stay out of `import adjoint_rd`.
_LATER = {
    "Gradient": "runs",
    "Inversion": "inverse",
    "Objective": "objective",
    "PatternMatching": "matching",
    "Run": "runs",
    "Simulation": "simulation",
    "StatisticsFit": "inversion.statistics",
    "SteadyObjective": "steady",
    "SteadyRun": "runs",
    "Tangent": "runs",
    "adaptive": "optimize",
    "invert": "inverse",
    "invert_statistics": "inversion.statistics",
    "load": "runs",
    "minimize": "optimize",
    "standard_errors": "objective",
}
_MODULES = (
    "animations",
    "guards",
    "initial",
    "io",
    "landscape",
    "landscape_plots",
    "matching",
    "models",
    "named_losses",
    "penalties",
    "plots",
    "presets",
    "stability",
    "steady",
    "trajectory_fit",
    "transforms",
    "validate",
)


def __getattr__(name: str) -> Any:
    if name in _LATER:
        found = getattr(import_module(f".{_LATER[name]}", __name__), name)
    elif name in _MODULES:
        found = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})


__all__ = [
    "AdjointRDError",
    "BackendError",
    "CheckpointError",
    "DivergenceError",
    "Gradient",
    "Grid",
    "InputError",
    "Inversion",
    "Model",
    "Objective",
    "PatternMatching",
    "Run",
    "Simulation",
    "StabilityError",
    "StabilityWarning",
    "StatisticsFit",
    "SteadyObjective",
    "SteadyRun",
    "Tangent",
    "__version__",
    "adaptive",
    "invert",
    "invert_statistics",
    "load",
    "losses",
    "minimize",
    "standard_errors",
]
