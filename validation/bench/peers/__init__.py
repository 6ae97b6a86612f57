"""The peers: one module each, all with the same small interface.

    VARIANTS          names of the ways in which this peer can be used; ("",) if there is one
    PACKAGES          distributions whose versions belong beside its numbers
    MAX_THREADS       most threads it can use (None: any number)
    stored(variant)   fields of n^2 numbers that a gradient keeps per step, an estimate by which a run is refused
    beforehand prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant="") -> object with
        .gradient()   (L, {Du, Dv, F, k: float}, dL/dy0 as (2, n, n))
        .forward()    the final state, nothing stored; absent where the peer has none
    prepare imports and compiles, and leaves large buffers to the first call: so memory can be told from compilation.

Modules import their library inside `prepare`: listing peers costs nothing, and a missing one raises `Unavailable`.
"""

from importlib import import_module

NAMES = ("ours", "c", "numba_hand", "jax", "torch", "numpy", "taichi", "warp")
_MODULES = {
    "jax": "jax_peer",
    "torch": "torch_peer",
    "numpy": "numpy_peer",
    "taichi": "taichi_peer",
    "warp": "warp_peer",
}


class Unavailable(Exception):
    """This peer cannot run here; the text says why."""


def load(name):
    """The module of a peer, by the name used in tables."""
    if name == "triad":
        return import_module("validation.bench.triad")
    if name not in NAMES:
        raise ValueError(f"no peer {name!r}: known are {', '.join(NAMES)}")
    return import_module(f"{__name__}.{_MODULES.get(name, name)}")


def l2(final, target):
    """Value and seed of the loss: 0.5 |y_N - target|^2 summed in float64, and y_N - target."""
    seed = final - target
    flat = seed.ravel()
    return 0.5 * float(flat @ flat if flat.dtype == "float64" else (flat.astype("float64") ** 2).sum()), seed
