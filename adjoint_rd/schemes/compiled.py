"""A scheme, a model and a kind of grid put together: compiled time loops."""

import threading
import types
from functools import cache
from typing import Any

from numba import njit

from ..kernels import cells, cpu, loops
from ..kernels.barrier import meet
from ..kernels.disk_cache import njit_cached
from ..kernels.specialise import build
from ..models import Model

SWEEPS = {
    "push_sweep": cells.PUSH,
    "tangent_sweep": cells.TANGENT,
    "pull_sweep": cells.PULL,
    "second_sweep": cells.SECOND,
}
SHARED = {"meet": meet, "blend": cpu.blend, "scale": cpu.scale, "accumulate": cpu.accumulate}

# One build at a time: two threads in Python's `ast` module at once can fail (SystemError, CPython issue 106905).
building = threading.Lock()

_sweep_kernel = cache(cpu.sweep_kernel)


def time_loop(
    name: str, scheme: types.ModuleType, model: Model, geometry: cpu.Geometry, fielded: tuple[int, ...]
) -> Any:
    """Return one of `kernels.loops.LOOPS`, bound; it is compiled (or read from Numba's cache) at its first call.

    Parameters
    ----------
    name : str
        A key of `kernels.loops.LOOPS`.
    scheme : module
        One of `adjoint_rd.schemes`.
    model : Model
    geometry : cpu.Geometry
    fielded : tuple of int
        Which kinetic parameters are fields.

    Returns
    -------
    dispatcher
    """
    with building:
        return _time_loop(name, scheme, model, geometry, fielded)


@cache
def _time_loop(
    name: str, scheme: types.ModuleType, model: Model, geometry: cpu.Geometry, fielded: tuple[int, ...]
) -> Any:
    def bind(function: types.FunctionType) -> Any:
        bound: dict[str, Any] = {}
        for used in function.__code__.co_names:
            if used in SWEEPS:
                bound[used] = _sweep_kernel(SWEEPS[used], model, geometry, fielded, scheme.IDENTITY)
            elif used in SHARED:
                bound[used] = SHARED[used]
            elif isinstance(getattr(scheme, used, None), types.FunctionType):
                bound[used] = bind(getattr(scheme, used))
        return njit(build(function, **bound), **cpu.INNER)

    function = build(loops.through, step=bind(loops.LOOPS[name]), meet=meet)
    return njit_cached(function, error_model="numpy", nogil=True)
