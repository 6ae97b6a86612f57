"""JAX: jit(value_and_grad) of a lax.scan, with what a user may choose to keep; the best variant counts.

    scan   everything that reverse mode wants is stored
    ckpt   jax.checkpoint on each step: states are stored, the rest is recomputed
    sqrt   jax.checkpoint on segments of about sqrt(steps)
    roll   the Laplacian by jnp.roll            pad    by jnp.pad(mode="wrap") and slices
"""
import math

import numpy as np

from validation.bench.peers import Unavailable

VARIANTS = tuple(f"{keep}-{lap}" for keep in ("scan", "ckpt", "sqrt") for lap in ("roll", "pad"))
PACKAGES = ("jax", "jaxlib")
MAX_THREADS = None


def stored(variant):
    return {"scan": 10, "ckpt": 2, "sqrt": 2}[variant.partition("-")[0]]


def segment(steps):
    """The divisor of `steps` nearest to its square root."""
    return min((s for s in range(1, steps + 1) if steps % s == 0), key=lambda s: abs(math.log(s * s / steps)))


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant="ckpt-roll"):
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise Unavailable(f"{error} (pip install jax)") from None
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", dtype == "float64")
    keep, _, how = variant.partition("-")
    real = np.dtype(dtype).type

    def lap_roll(y):
        return jnp.roll(y, 1, 0) + jnp.roll(y, -1, 0) + jnp.roll(y, 1, 1) + jnp.roll(y, -1, 1) - 4 * y

    def lap_pad(y):
        w = jnp.pad(y, 1, mode="wrap")
        return w[:-2, 1:-1] + w[2:, 1:-1] + w[1:-1, :-2] + w[1:-1, 2:] - 4 * y

    lap = {"roll": lap_roll, "pad": lap_pad}[how]

    def step(y, p):
        u, v = y
        r = u * v * v
        return (
            u + dt * (p["Du"] * lap(u) - r + p["F"] * (1 - u)),
            v + dt * (p["Dv"] * lap(v) + r - (p["F"] + p["k"]) * v),
        )

    def run(y, p):
        one = jax.checkpoint(step) if keep == "ckpt" else step

        def several(y, length):
            return jax.lax.scan(lambda y, _: (one(y, p), None), y, None, length=length)[0]

        if keep != "sqrt":
            return several(y, steps)
        inner = segment(steps)
        whole = jax.checkpoint(lambda y, _: (several(y, inner), None))
        return jax.lax.scan(whole, y, None, length=steps // inner)[0]

    def loss(p, y, target):
        u, v = run(y, p)
        return 0.5 * ((u - target[0]) ** 2).sum() + 0.5 * ((v - target[1]) ** 2).sum()

    target = np.zeros_like(y0) if target is None else target
    args = (
        {name: jnp.asarray(x, real) for name, x in params.items()},
        (jnp.asarray(y0[0]), jnp.asarray(y0[1])),
        (jnp.asarray(target[0]), jnp.asarray(target[1])),
    )
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*args).compile()
    forward = jax.jit(run).lower(args[1], args[0]).compile()
    return Case(jax.block_until_ready, gradient, forward, args)


class Case:
    def __init__(self, wait, gradient, forward, args):
        self.wait, self.compiled_gradient, self.compiled_forward, self.args = wait, gradient, forward, args

    def gradient(self):
        value, (params, initial) = self.wait(self.compiled_gradient(*self.args))
        return float(value), {name: float(g) for name, g in params.items()}, np.stack(initial)

    def forward(self):
        p, y, _ = self.args
        return np.stack(self.wait(self.compiled_forward(y, p)))
