"""Slow, obvious NumPy physics: what the library is tested against. It imports nothing of the library.

    y_t = D Lap y + R(y; p)          y: (species, *shape)

    gray_scott     u_t = Du Lap u - u v^2 + F (1 - u)              v_t = Dv Lap v + u v^2 - (F + k) v
    schnakenberg   u_t = Du Lap u + gamma (a - u + u^2 v)          v_t = Dv Lap v + gamma (b - u^2 v)
    allen_cahn     u_t = Du Lap u + r (u - u^3)
    oregonator     u_t = Du Lap u + e (q w - u w + u - u^2)        v_t = Dv Lap v + u - v
                   w_t = Dw Lap w + s (f v - q w - u w)

The last is the three-variable Oregonator (Field and Noyes 1974, scaled as by Tyson; u = HBrO2, v = the catalyst,
w = bromide) with its two small time scales written as rates, e = 1/epsilon and s = 1/epsilon', so that it is
polynomial; it is the three-species model of the tests. It is bilinear in its parameters (e q, s q, s f).

Every function works in the dtype of `y`: float32, float64, and complex128 for complex steps. Parameters are scalars;
the kinetic ones may also be fields of the grid's shape. A boundary is "periodic", "neumann" (zero flux: ghost = own
cell) or "dirichlet" (wall on the cell face: ghost = 2 g - y, with one g a species in `wall`); one for all axes or one
per axis.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Model:
    species: tuple[str, ...]
    diffusivities: tuple[str, ...]  # one name a species, in the same order
    kinetics: tuple[str, ...]
    reaction: Callable  # reaction(y, p) -> list of the species' rates; p maps names to scalars or fields

    @property
    def parameters(self):
        return self.diffusivities + self.kinetics


def gray_scott(y, p):
    u, v = y
    return [-u * v * v + p["F"] * (1 - u), u * v * v - (p["F"] + p["k"]) * v]


def schnakenberg(y, p):
    u, v = y
    return [p["gamma"] * (p["a"] - u + u * u * v), p["gamma"] * (p["b"] - u * u * v)]


def allen_cahn(y, p):
    (u,) = y
    return [p["r"] * (u - u * u * u)]


def oregonator(y, p):
    u, v, w = y
    return [p["e"] * (p["q"] * w - u * w + u - u * u), u - v, p["s"] * (p["f"] * v - p["q"] * w - u * w)]


MODELS = {
    "gray_scott": Model(("u", "v"), ("Du", "Dv"), ("F", "k"), gray_scott),
    "schnakenberg": Model(("u", "v"), ("Du", "Dv"), ("a", "b", "gamma"), schnakenberg),
    "allen_cahn": Model(("u",), ("Du",), ("r",), allen_cahn),
    "oregonator": Model(("u", "v", "w"), ("Du", "Dv", "Dw"), ("e", "s", "q", "f"), oregonator),
}


# ------------------------------------------------------------------------------------------------ space


def laplacian(y, spacing=1.0, boundary="periodic", wall=None):
    """Second-order star, (left - 2 y + right) / h^2 summed over the axes. y: (species, *shape)."""
    dim = y.ndim - 1
    boundaries = (boundary,) * dim if isinstance(boundary, str) else tuple(boundary)
    spacings = np.broadcast_to(np.asarray(spacing, dtype=float), (dim,))
    if len(boundaries) != dim:
        raise ValueError(f"{len(boundaries)} boundaries for {dim} axes")
    total = np.zeros_like(y)
    for axis, (kind, h) in enumerate(zip(boundaries, spacings, strict=True), start=1):
        low, high = np.take(y, [0], axis), np.take(y, [-1], axis)
        if kind == "periodic":
            ghosts = high, low
        elif kind == "neumann":
            ghosts = low, high
        elif kind == "dirichlet":
            g = np.asarray(wall, dtype=y.dtype).reshape((-1,) + (1,) * dim)
            ghosts = 2 * g - low, 2 * g - high
        else:
            raise ValueError(f"unknown boundary {kind!r}")
        padded = np.concatenate([ghosts[0], y, ghosts[1]], axis)
        n = y.shape[axis]
        left, right = (np.take(padded, range(start, start + n), axis) for start in (0, 2))
        total += (left - 2 * y + right) / y.dtype.type(h * h)
    return total


def rate(model, y, params, spacing=1.0, boundary="periodic", wall=None):
    """y_t: diffusion and reaction at one state."""
    m = MODELS[model]
    if set(params) != set(m.parameters):
        raise ValueError(f"{model} has the parameters {m.parameters}, not {tuple(params)}")
    p = {name: np.asarray(value, dtype=y.dtype) for name, value in params.items()}
    D = np.array([p[name] for name in m.diffusivities]).reshape((-1,) + (1,) * (y.ndim - 1))
    return D * laplacian(y, spacing, boundary, wall) + np.stack(m.reaction(y, p))


# ------------------------------------------------------------------------------------------------- time


def euler(f, y, dt):
    return y + dt * f(y)


def rk4(f, y, dt):
    k1 = f(y)
    k2 = f(y + dt / 2 * k1)
    k3 = f(y + dt / 2 * k2)
    k4 = f(y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


SCHEMES = {"euler": euler, "rk4": rk4}


def states(model, y0, params, steps, dt, spacing=1.0, boundary="periodic", wall=None, scheme="euler"):
    """Yields y_0, y_1, ..., y_steps. In the dtype of y0, or complex128 when a parameter is complex."""
    y0 = np.asarray(y0)
    is_complex = any(np.iscomplexobj(value) for value in [y0, *params.values()])
    y = y0.astype(np.complex128 if is_complex else y0.dtype)
    dt = y.dtype.type(dt)
    yield y
    for _ in range(steps):
        y = SCHEMES[scheme](lambda s: rate(model, s, params, spacing, boundary, wall), y, dt)
        yield y


def run(model, y0, params, steps, dt, spacing=1.0, boundary="periodic", wall=None, scheme="euler"):
    """The state after `steps` steps."""
    return deque(states(model, y0, params, steps, dt, spacing, boundary, wall, scheme), maxlen=1)[0]


# ----------------------------------------------------------------------------- losses and gradients


def l2(target, species=None, sigma=1.0, mask=None):
    """0.5 sum(((y - target) / sigma)^2) as a function of a NumPy or JAX state, real or complex.

    species: indices into y that `target` is of; mask: true where a cell counts. Both as arrays or None."""
    weight = 1.0 if mask is None else np.asarray(mask, dtype=float)

    def loss(y):
        seen = y if species is None else y[np.asarray(species)]
        return 0.5 * (weight * ((seen - target) / sigma) ** 2).sum()

    return loss


@dataclass(frozen=True)
class Gradient:
    """Named as the library's result: value, params {name: float or field}, initial dL/dy0."""

    value: float
    params: dict
    initial: np.ndarray


def observations(loss, steps):
    """{step: loss} of one loss (of the final state) or of such a dict."""
    if not isinstance(loss, dict):
        return {steps: loss}
    late = [step for step in loss if not 0 <= step <= steps]
    if late:
        raise ValueError(f"observations at steps {late}, outside 0..{steps}")
    return loss


def total_loss(loss, model, y0, params, steps, *args, **kwargs):
    """The loss (callable, or {step: callable}) of the run; further arguments as for `run`."""
    seen = observations(loss, steps)
    return sum(seen[i](y) for i, y in enumerate(states(model, y0, params, steps, *args, **kwargs)) if i in seen)


def complex_step(model, y0, params, loss, steps, *args, window=None, h=1e-30, **kwargs):
    """The gradient, one run an unknown: dL/dx = Im L(x + i h) / h, exact to rounding for an analytic loss.

    Further arguments as for `run`. With `window` the state `window` steps before the end is held fixed, `.initial` is
    dL/d(that state), and observations before it count in the value alone."""
    seen = observations(loss, steps)
    first = 0 if window is None else steps - window
    start = run(model, y0, params, first, *args, **kwargs)
    late = {step - first: one for step, one in seen.items() if step >= first}

    def slope(y, p):
        return np.imag(total_loss(late, model, y, p, steps - first, *args, **kwargs)) / h

    def each_entry(x, slope_at):
        x = np.asarray(x, dtype=np.complex128)
        out = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            moved = x.copy()
            moved[index] += 1j * h
            out[index] = slope_at(moved)
        return out

    return Gradient(
        value=float(total_loss(seen, model, y0, params, steps, *args, **kwargs)),
        params={n: each_entry(x, lambda moved, n=n: slope(start, params | {n: moved})) for n, x in params.items()},
        initial=each_entry(start, lambda moved: slope(moved, params)),
    )


def block_errors(got, want):
    """{block: max |got - want| / max |want|} over two gradients' parameters and initial state."""
    pairs = {name: (got.params[name], want.params[name]) for name in want.params}
    pairs["initial"] = (got.initial, want.initial)
    return {name: relative_error(a, b) for name, (a, b) in pairs.items()}


def relative_error(got, want):
    """max |got - want| / max |want|; shapes must agree, and NaN stays NaN (so that no comparison passes)."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise ValueError(f"shape {got.shape} against {want.shape}")
    error, scale = np.abs(got - want).max(), np.abs(want).max()
    return float(error / scale) if scale > 0 else float(error)


# ---------------------------------------------------------------------------------- random test cases


RANGES = {  # drawn uniformly; diffusivities apart
    "gray_scott": {"F": (0.02, 0.06), "k": (0.04, 0.07)},
    "schnakenberg": {"a": (0.05, 0.2), "b": (0.6, 1.2), "gamma": (0.5, 2.0)},
    "allen_cahn": {"r": (0.3, 1.5)},
    "oregonator": {"e": (1.0, 3.0), "s": (1.0, 4.0), "q": (0.01, 0.1), "f": (0.5, 1.5)},
}


@dataclass(frozen=True)
class Case:
    """A set-up to run: `run(**case.physics, steps=...)`; every entry is also an attribute."""

    model: str
    y0: np.ndarray
    params: dict
    dt: float
    spacing: tuple[float, ...]
    boundary: tuple[str, ...]
    wall: tuple[float, ...]
    scheme: str
    target: np.ndarray  # a rough state near the run's, for losses

    @property
    def physics(self):
        return {name: value for name, value in vars(self).items() if name != "target"}


def draw(model, shape, boundary="periodic", scheme="euler", fields=(), seed=0):
    """A random rough state, parameters (those in `fields` as fields), unequal spacings, a dt well inside stability."""
    rng = np.random.default_rng(seed)
    m, dim = MODELS[model], len(shape)
    params = {name: float(rng.uniform(0.05, 0.25)) for name in m.diffusivities}
    for name in m.kinetics:
        drawn = rng.uniform(*RANGES[model][name], size=shape if name in fields else None)
        params[name] = drawn if name in fields else float(drawn)
    spacing = tuple(float(h) for h in rng.uniform(0.8, 1.3, dim))
    diffusion = 4 * max(params[name] for name in m.diffusivities) * sum(1 / h**2 for h in spacing)
    kinetics = sum(np.max(params[name]) for name in m.kinetics)
    y0 = rng.uniform(0.1, 0.9, (len(m.species), *shape))
    return Case(
        model=model,
        y0=y0,
        params=params,
        dt=float(0.2 / (diffusion + 2 * kinetics)),
        spacing=spacing,
        boundary=(boundary,) * dim if isinstance(boundary, str) else tuple(boundary),
        wall=tuple(float(g) for g in rng.uniform(0.2, 0.8, len(m.species))),
        scheme=scheme,
        target=y0 + 0.3 * rng.standard_normal(y0.shape),
    )
