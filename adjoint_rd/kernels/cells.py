"""One grid point of a step, of its tangent, of its transpose and of the tangent of its transpose.

A step of the fused kernels is ``y' = y + h (D Lap y + R(y; p))``; with ``identity = False`` the leading ``y +`` is
left out and they give the rate. With J = R_s at y, primes for the later time and a dot for a tangent:

    push      y'    = y     + h (D Lap y + R(y; p))
    tangent   ydot' = ydot  + h (D Lap ydot + Ddot Lap y + J ydot + R_p pdot)
    pull      a     = a'    + h (D Lap a' + J^T a')
    second    adot  = adot' + h (D Lap adot' + Ddot Lap a' + J^T adot' + (J^T)dot a')

What the two transposes add to the gradients at a point (Lap is symmetric, so the Laplacian of the adjoint serves, and
no second stencil is needed; b is what Dirichlet walls add to Lap y, a constant):

    pull      h (Lap a' y + b a')                        and h R_p^T a'
    second    h (Lap adot' y + Lap a' ydot + b adot')    and h (R_p^T adot' + (R_p^T)dot a')

``values[i]`` holds the S values of the i-th input array at the point, ``laps`` the Laplacians of the inputs that need
one, times h_ref^2. ``d = h D / h_ref^2`` absorbs the spacing, ``dd`` is its tangent. All are templates, see
`specialise`: `species`, `identity`, `anisotropic`, `row_pairs`, `walls` and the model's functions are bound by name.
"""

from dataclasses import dataclass


def lap(x, q, along, across):
    """The star times h_ref^2: `along` is the sum of the neighbours in the row, `across` those sums for the row axes."""
    xx = x + x
    total = q[2] * (along - xx) if anisotropic else along - xx
    for i, axis in row_pairs:
        total = total + (q[axis] * (across[i] - xx) if anisotropic else across[i] - xx)
    return total


def push_update(values, laps, p, dp, d, dd, h):
    """y' from (y,) and (Lap y,)."""
    y = values[0]
    ly = laps[0]
    r = reaction(y, p)
    return tuple(y[c] + (d[c] * ly[c] + h * r[c]) if identity else d[c] * ly[c] + h * r[c] for c in species)


def tangent_update(values, laps, p, dp, d, dd, h):
    """ydot' from (y, ydot) and (Lap y, Lap ydot)."""
    t = values[1]
    ly = laps[0]
    lt = laps[1]
    r = reaction_j(values[0], p, t, dp)
    return tuple(
        t[c] + (d[c] * lt[c] + dd[c] * ly[c] + h * r[c]) if identity else d[c] * lt[c] + dd[c] * ly[c] + h * r[c]
        for c in species
    )


def pull_update(values, laps, p, dp, d, dd, h):
    """a from (y, a') and (Lap a',)."""
    a = values[1]
    la = laps[0]
    r = reaction_jt(values[0], p, a)
    return tuple(a[c] + (d[c] * la[c] + h * r[c]) if identity else d[c] * la[c] + h * r[c] for c in species)


def pull_diffusion(values, laps, b):
    """The point's part of g_D / (h / h_ref^2)."""
    y = values[0]
    a = values[1]
    la = laps[0]
    return tuple(la[c] * y[c] + b[c] * a[c] if walls else la[c] * y[c] for c in species)


def pull_kinetics(values, p, dp):
    """The point's part of g_p / h."""
    return reaction_pt(values[0], p, values[1])


def second_update(values, laps, p, dp, d, dd, h):
    """adot from (y, ydot, a', adot') and (Lap a', Lap adot')."""
    y = values[0]
    a = values[2]
    at = values[3]
    la = laps[0]
    lat = laps[1]
    r = reaction_jt(y, p, at)
    e = reaction_jt_t(y, p, values[1], dp, a)
    return tuple(
        at[c] + (d[c] * lat[c] + dd[c] * la[c] + h * (r[c] + e[c]))
        if identity
        else d[c] * lat[c] + dd[c] * la[c] + h * (r[c] + e[c])
        for c in species
    )


def second_diffusion(values, laps, b):
    """The point's part of gdot_D / (h / h_ref^2)."""
    y = values[0]
    t = values[1]
    at = values[3]
    la = laps[0]
    lat = laps[1]
    return tuple(
        lat[c] * y[c] + la[c] * t[c] + b[c] * at[c] if walls else lat[c] * y[c] + la[c] * t[c] for c in species
    )


def second_kinetics(values, p, dp):
    """The point's part of gdot_p / h."""
    y = values[0]
    r = reaction_pt(y, p, values[3])
    e = reaction_pt_t(y, p, values[1], dp, values[2])
    return tuple(r[i] + e[i] for i in kinetics)


@dataclass(frozen=True)
class Operation:
    """What a kernel needs to know of one of the four: its inputs and its functions.

    `inputs` counts the input arrays, `stencilled` says which of them need a Laplacian and `affine` which of these
    feel the value of a Dirichlet wall (a tangent or an adjoint feels zero there). `needs` names the model's functions.
    """

    name: str
    inputs: int
    stencilled: tuple[int, ...]
    affine: tuple[int, ...]
    update: object
    needs: tuple[str, ...]
    diffusion: object = None
    kinetics: object = None


PUSH = Operation("push", 1, (0,), (0,), push_update, ("reaction",))
TANGENT = Operation("tangent", 2, (0, 1), (0,), tangent_update, ("reaction_j",))
PULL = Operation("pull", 2, (1,), (), pull_update, ("reaction_jt", "reaction_pt"), pull_diffusion, pull_kinetics)
SECOND = Operation(
    "second",
    4,
    (2, 3),
    (),
    second_update,
    ("reaction_jt", "reaction_pt", "reaction_jt_t", "reaction_pt_t"),
    second_diffusion,
    second_kinetics,
)
