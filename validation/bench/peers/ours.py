"""adjoint_rd through its public API. "" is the default checkpointing, "all" stores every state."""
import inspect

import numpy as np

from validation.bench.peers import Unavailable

VARIANTS = ("", "all")
PACKAGES = ("numba", "llvmlite", "numpy")
MAX_THREADS = None


def stored(variant):
    return 2


def versions():
    import adjoint_rd as rd

    return {"adjoint_rd": rd.__version__}


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    try:
        import adjoint_rd as rd
    except ImportError as error:
        raise Unavailable(f"{error} (pip install -e .)") from None
    options = {"dt": dt, "dtype": dtype}
    if "threads" in inspect.signature(rd.Simulation).parameters:
        options["threads"] = threads
    elif threads > 1:
        raise Unavailable("this version of adjoint_rd has no threads=")
    checkpoints = variant or "auto"
    tiny = Case(rd, 8, options, 2, np.full((2, 8, 8), 0.5, dtype), params, None, checkpoints)
    tiny.gradient(), tiny.forward()
    return Case(rd, n, options, steps, y0, params, target, checkpoints)


class Case:
    def __init__(self, rd, n, options, steps, y0, params, target, checkpoints):
        self.sim = rd.Simulation("gray_scott", rd.Grid((n, n)), **options)
        self.loss = rd.losses.L2(np.zeros_like(y0) if target is None else target)
        self.steps, self.y0, self.params, self.checkpoints = steps, y0, params, checkpoints

    def gradient(self):
        g = self.sim.gradient(self.y0, self.params, self.loss, steps=self.steps, checkpoints=self.checkpoints)
        return g.value, {name: float(x) for name, x in g.params.items()}, g.initial

    def forward(self):
        return self.sim.run(self.y0, self.params, steps=self.steps).final
