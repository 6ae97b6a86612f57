"""Time-stepping schemes, one short file each: the step, its tangent, its transpose and the tangent of its transpose.

A scheme is written in terms of the sweeps of `adjoint_rd.kernels`, whose names are bound when it is compiled:
`push_sweep`, `tangent_sweep`, `pull_sweep`, `second_sweep`, `blend`, `scale`, `accumulate` and `meet`. It states

    ORDER           its order in time
    IDENTITY        whether it wants sweeps that include the identity (``y + h f(y)``) or rates (``f(y)``)
    WORK_ARRAYS     how many arrays of a state's size it needs
    amplification   R(z), the growth of a mode in one step, and REAL_STABILITY_INTERVAL, how far R is bounded by 1

and its functions; all must have met (`meet`) when one returns. Room for implicit and exponential schemes: the plan is
prepared once for each parameter set, and a scheme may ask for more in it.
"""

from types import ModuleType

from ..errors import check_choice
from . import euler, rk4

SCHEMES: dict[str, ModuleType] = {"euler": euler, "rk4": rk4}


def get(name: str) -> ModuleType:
    """Return the scheme of that name, or raise an `InputError` that lists them."""
    return SCHEMES[check_choice("scheme", name, SCHEMES)]
