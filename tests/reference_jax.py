"""The physics of `reference.py` again, in jax.numpy and float64, for derivatives by automatic differentiation.

Written apart from the NumPy code on purpose (neighbours by roll and overwrite, time by lax.scan): the two check each
other, in `test_reference.py`. All functions take `model, y0, params` and, after them, the keywords

    steps, dt, spacing=1.0, boundary="periodic", wall=None, scheme="euler", window=None

and return NumPy. With `window=K` the state K steps before the end is held fixed: derivatives are with respect to the
parameters in the last K steps and to that state (`.initial`); a loss at an earlier step counts in the value alone.

JAX is imported inside the functions; tests say `pytest.importorskip("jax")`. Float64 is switched on for the duration of
a call only. Compiled programs are kept by (loss callables, set-up): reuse a loss object to reuse its program.
"""

import functools
from typing import NamedTuple

import numpy as np
from reference import Gradient, observations


class Setup(NamedTuple):
    """All that is static in a run (hashable, so that compiled programs are reused)."""

    model: str
    spacing: tuple
    boundary: tuple
    wall: tuple
    scheme: str
    dt: float


def run(model, y0, params, **keywords):
    """The final state."""
    return _call("run", model, y0, params, None, **keywords)


def tangent(model, y0, params, dparams=None, dinitial=None, **keywords):
    """The final state's directional derivative along (dparams, dinitial); what is left out is zero."""
    return _call("tangent", model, y0, params, None, (dparams, dinitial), **keywords)


def value_and_grad(model, y0, params, loss, **keywords):
    """Gradient(value, params, initial). loss: a callable of the final state, or {step: callable}, JAX-traceable."""
    return _call("grad", model, y0, params, loss, **keywords)


def hvp(model, y0, params, loss, dparams=None, dinitial=None, **keywords):
    """The Hessian in (params, initial) times (dparams, dinitial), as a Gradient (its value: the loss's)."""
    return _call("hvp", model, y0, params, loss, (dparams, dinitial), **keywords)


# ---------------------------------------------------------------------------------------------------- physics


def _rate(setup, y, p):
    import jax.numpy as jnp

    diffused = jnp.zeros_like(y)
    for i, (h, kind) in enumerate(zip(setup.spacing, setup.boundary, strict=True)):
        axis = i + 1
        first = (slice(None),) * axis + (0,)
        last = (slice(None),) * axis + (-1,)
        before, after = jnp.roll(y, 1, axis), jnp.roll(y, -1, axis)
        if kind == "neumann":
            before, after = before.at[first].set(y[first]), after.at[last].set(y[last])
        elif kind == "dirichlet":
            doubled = 2 * jnp.asarray(setup.wall).reshape((len(setup.wall),) + (1,) * (y.ndim - 2))
            before, after = before.at[first].set(doubled - y[first]), after.at[last].set(doubled - y[last])
        elif kind != "periodic":
            raise ValueError(f"unknown boundary {kind!r}")
        diffused = diffused + (before + after - 2 * y) / h**2

    if setup.model == "gray_scott":
        u, v = y
        converted = u * v**2
        return jnp.stack(
            [
                p["Du"] * diffused[0] - converted + p["F"] * (1 - u),
                p["Dv"] * diffused[1] + converted - (p["F"] + p["k"]) * v,
            ]
        )
    if setup.model == "schnakenberg":
        u, v = y
        made = u**2 * v
        return jnp.stack(
            [
                p["Du"] * diffused[0] + p["gamma"] * (p["a"] - u + made),
                p["Dv"] * diffused[1] + p["gamma"] * (p["b"] - made),
            ]
        )
    if setup.model == "allen_cahn":
        return p["Du"] * diffused + p["r"] * (y - y**3)
    if setup.model == "oregonator":
        u, v, w = y
        return jnp.stack(
            [
                p["Du"] * diffused[0] + p["e"] * ((p["q"] - u) * w + u * (1 - u)),
                p["Dv"] * diffused[1] + u - v,
                p["Dw"] * diffused[2] + p["s"] * (p["f"] * v - (p["q"] + u) * w),
            ]
        )
    raise ValueError(f"unknown model {setup.model!r}")


def _step(setup, y, p):
    dt = setup.dt
    k1 = _rate(setup, y, p)
    if setup.scheme == "euler":
        return y + dt * k1
    if setup.scheme == "rk4":
        k2 = _rate(setup, y + 0.5 * dt * k1, p)
        k3 = _rate(setup, y + 0.5 * dt * k2, p)
        k4 = _rate(setup, y + dt * k3, p)
        return y + dt * (k1 / 6 + k2 / 3 + k3 / 3 + k4 / 6)
    raise ValueError(f"unknown scheme {setup.scheme!r}")


def _advance(setup, y, p, steps):
    import jax

    return jax.lax.scan(lambda s, _: (_step(setup, s, p), None), y, None, length=steps)[0]


# ------------------------------------------------------------------------------------------- derivatives


@functools.lru_cache(maxsize=64)
def _compiled(what, setup, steps, seen):
    """seen: ((step, loss), ...), steps counted from the state that the derivatives start at."""
    import jax

    def final(p, y):
        return _advance(setup, y, p, steps)

    def value(p, y):
        if len(seen) == 1:
            ((step, loss),) = seen
            return loss(_advance(setup, y, p, step))
        later = jax.lax.scan(lambda s, _: (_step(setup, s, p),) * 2, y, None, length=steps)[1]
        seen_losses = (loss(later[step - 1] if step else y) for step, loss in seen)
        return sum(seen_losses, start=jax.numpy.zeros(()))  # zero when all observations are before the window

    value_grad = jax.value_and_grad(value, argnums=(0, 1))
    return jax.jit(
        {
            "run": final,
            "tangent": lambda x, t: jax.jvp(final, x, t)[1],
            "value": value,
            "grad": value_grad,
            "hvp": lambda x, t: jax.jvp(value_grad, x, t),
        }[what]
    )


def _call(
    what, model, y0, params, loss, direction=None, *, steps, dt, spacing=1.0, boundary="periodic", wall=None,
    scheme="euler", window=None,
):  # fmt: skip
    import jax

    dim = np.ndim(y0) - 1
    setup = Setup(
        model=model,
        spacing=tuple(float(h) for h in np.broadcast_to(spacing, (dim,))),
        boundary=(boundary,) * dim if isinstance(boundary, str) else tuple(boundary),
        wall=() if wall is None else tuple(float(g) for g in wall),
        scheme=scheme,
        dt=float(dt),
    )
    seen = {} if loss is None else observations(loss, steps)
    first = 0 if window is None else steps - window
    early = tuple(sorted((step, one) for step, one in seen.items() if step < first))
    late = tuple(sorted((step - first, one) for step, one in seen.items() if step >= first))

    with _float64(jax):
        p = {name: jax.numpy.asarray(x, dtype=float) for name, x in params.items()}
        y = jax.numpy.asarray(y0, dtype=float)
        before = float(_compiled("value", setup, first, early)(p, y)) if early else 0.0
        if first:
            y = _compiled("run", setup, first, ())(p, y)
        if direction is not None:
            dparams, dinitial = direction
            unknown = set(dparams or {}) - set(p)
            if unknown:
                raise ValueError(f"directions {sorted(unknown)} are not among the parameters {sorted(p)}")
            tp = {n: jax.numpy.broadcast_to(jax.numpy.asarray((dparams or {}).get(n, 0.0), float), x.shape)
                  for n, x in p.items()}  # fmt: skip
            ty = jax.numpy.zeros_like(y) if dinitial is None else jax.numpy.asarray(dinitial, dtype=float)
        compiled = _compiled(what, setup, steps - first, late)
        if what == "run":
            return np.asarray(compiled(p, y))
        if what == "tangent":
            return np.asarray(compiled((p, y), (tp, ty)))
        if what == "grad":
            value, (gp, gy) = compiled(p, y)
        else:
            (value, _), (_, (gp, gy)) = compiled((p, y), (tp, ty))
        return Gradient(before + float(value), {name: np.asarray(g) for name, g in gp.items()}, np.asarray(gy))


def _float64(jax):
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64(True)
