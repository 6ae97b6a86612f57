"""The set-ups of `reference.py` as the library's objects, and losses that both sides understand."""

from dataclasses import replace

import numpy as np
import reference as ref
from three_species import oregonator

import adjoint_rd as rd

MODELS = {name: oregonator if name == "oregonator" else name for name in ref.MODELS}
MIXED = ("dirichlet", "periodic", "neumann")


def word(value):
    """A parameter of a test, in its name."""
    if isinstance(value, tuple):
        return ("-" if isinstance(value[0], str) else "x").join(map(str, value)) if value else "scalars"
    if value is None:
        return "whole"
    return {"True": "equal", "False": "unequal"}.get(str(value), str(value))


def draw(model, shape, boundary, scheme="euler", fields=(), seed=0, equal_spacing=False):
    """A `reference.Case`; "mixed" is another boundary on each axis, fields="all" all kinetic parameters."""
    boundary = MIXED[: len(shape)] if boundary == "mixed" else boundary
    fields = ref.MODELS[model].kinetics if fields == "all" else fields
    case = ref.draw(model, shape, boundary, scheme, fields, seed)
    return replace(case, spacing=(1.1,) * len(shape)) if equal_spacing else case


def redraw(case, seed):
    """Another random state and other parameters in the same set-up: nothing is compiled again."""
    fields = tuple(name for name, value in case.params.items() if np.ndim(value))
    other = ref.draw(case.model, case.y0.shape[1:], case.boundary, case.scheme, fields, seed)
    return replace(case, y0=other.y0, params=other.params)


def simulation(case, dtype="float64", model=None, **options):
    """The library's simulation of a case."""
    wall = case.wall if "dirichlet" in case.boundary else None
    grid = rd.Grid(case.y0.shape[1:], spacing=case.spacing, boundary=case.boundary, wall=wall)
    model = MODELS[case.model] if model is None else model
    return rd.Simulation(model, grid, dt=case.dt, scheme=case.scheme, dtype=dtype, **options)


def directions(case, seed=0):
    """A random direction in every parameter (fields too), as large as the parameter, and one in the state."""
    rng = np.random.default_rng(seed)
    dparams = {name: value * rng.standard_normal(np.shape(value)) for name, value in case.params.items()}
    return dparams, rng.standard_normal(case.y0.shape)


class Wavy:
    """sum((y - target)^2 (1 + 0.3 y)): a user's own loss, not quadratic."""

    def __init__(self, target):
        self.target = target

    def __call__(self, y):
        return ((y - self.target) ** 2 * (1 + 0.3 * y)).sum()

    def value(self, y):
        return float(self(y.astype(np.float64)))

    def seed(self, y):
        d = y - self.target
        return 2 * d * (1 + 0.3 * y) + 0.3 * d**2

    def seed_tangent(self, y, t):
        d = y - self.target
        return (2 * (1 + 0.3 * y) + 1.2 * d) * t


def dot(one, other):
    """The inner product of two (params, initial) pairs."""
    return sum(np.sum(one[0][name] * other[0][name]) for name in one[0]) + np.sum(one[1] * other[1])


def decay(**changes):
    """u_t = Du Lap u - r u, with changes."""
    given = dict(
        name="decay",
        species=("u",),
        parameters=("r",),
        reaction=lambda s, p: (-p[0] * s[0],),
        reaction_j=lambda s, p, t, dp: (-p[0] * t[0] - dp[0] * s[0],),
        reaction_jt=lambda s, p, a: (-p[0] * a[0],),
        reaction_pt=lambda s, p, a: (-s[0] * a[0],),
        rest=lambda p: (0.0,),
    )
    return rd.Model(**given | changes)
