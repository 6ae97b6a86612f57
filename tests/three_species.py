"""The Oregonator of `reference.py` as a user would bring it: three species, four kinetic parameters, by hand.

    u_t = Du Lap u + e (q w - u w + u - u^2)
    v_t = Dv Lap v + u - v
    w_t = Dw Lap w + s (f v - q w - u w)

    u, v, w       scaled concentrations of HBrO2, of the oxidised catalyst and of bromide
    e, s          1/epsilon and 1/epsilon', rates relative to that of the catalyst
    q, f          dimensionless
    Du, Dv, Dw    diffusivities

Source: R. J. Field, R. M. Noyes, J. Chem. Phys. 60 (1974) 1877; scaled as by J. J. Tyson, P. C. Fife, J. Chem. Phys. 73
(1980) 2224.
"""

from adjoint_rd import Model


def reaction(s, p):
    """R = (e (q w - u w + u - u^2), u - v, s (f v - q w - u w))."""
    u, v, w = s
    e, s0, q, f = p
    uw = u * w
    qw = q * w
    return e * (qw - uw + u - u * u), u - v, s0 * (f * v - qw - uw)


def reaction_j(s, p, t, dp):
    """R_s t + R_p dp."""
    u, v, w = s
    e, s0, q, f = p
    tu, tv, tw = t
    de, ds, dq, df = dp
    uw = u * w
    qw = q * w
    tuw = tu * w + u * tw
    tqw = dq * w + q * tw
    utu = u * tu
    return (
        de * (qw - uw + u - u * u) + e * (tqw - tuw + tu - (utu + utu)),
        tu - tv,
        ds * (f * v - qw - uw) + s0 * (df * v + f * tv - tqw - tuw),
    )


def reaction_jt(s, p, a):
    """R_s^T a  with  R_s = [[e (1 - w - 2u), 0, e (q - u)], [1, -1, 0], [-s w, s f, -s (q + u)]]."""
    u, _, w = s
    e, s0, q, f = p
    au, av, aw = a
    eau = e * au
    saw = s0 * aw
    return eau - (w + u + u) * eau + av - w * saw, f * saw - av, (q - u) * eau - (q + u) * saw


def reaction_pt(s, p, a):
    """R_p^T a  with  R_p = [[q w - u w + u - u^2, 0, e w, 0], [0, 0, 0, 0], [0, f v - q w - u w, -s w, s v]]."""
    u, v, w = s
    e, s0, q, f = p
    au, _, aw = a
    uw = u * w
    qw = q * w
    return (qw - uw + u - u * u) * au, (f * v - qw - uw) * aw, e * w * au - s0 * w * aw, s0 * v * aw


def reaction_jt_t(s, p, t, dp, a):
    """Derivative of R_s^T a along (t, dp)."""
    u, _, w = s
    e, s0, q, f = p
    tu, _, tw = t
    de, ds, dq, df = dp
    au, _, aw = a
    eau = e * au
    saw = s0 * aw
    teau = de * au
    tsaw = ds * aw
    return (
        teau - (w + u + u) * teau - (tw + tu + tu) * eau - tw * saw - w * tsaw,
        df * saw + f * tsaw,
        (dq - tu) * eau + (q - u) * teau - (dq + tu) * saw - (q + u) * tsaw,
    )


def reaction_pt_t(s, p, t, dp, a):
    """Derivative of R_p^T a along (t, dp)."""
    u, v, w = s
    e, s0, q, f = p
    tu, tv, tw = t
    de, ds, dq, df = dp
    au, _, aw = a
    tuw = tu * w + u * tw
    tqw = dq * w + q * tw
    utu = u * tu
    return (
        (tqw - tuw + tu - (utu + utu)) * au,
        (df * v + f * tv - tqw - tuw) * aw,
        (de * w + e * tw) * au - (ds * w + s0 * tw) * aw,
        (ds * v + s0 * tv) * aw,
    )


oregonator = Model(
    name="oregonator",
    species=("u", "v", "w"),
    parameters=("e", "s", "q", "f"),
    reaction=reaction,
    reaction_j=reaction_j,
    reaction_jt=reaction_jt,
    reaction_pt=reaction_pt,
    reaction_jt_t=reaction_jt_t,
    reaction_pt_t=reaction_pt_t,
    rest=lambda p: (0.0, 0.0, 0.0),
    seed=lambda p: (0.8, 0.2, 0.1),
    box=lambda p: ((0.0, 1.0), (0.0, 1.0), (0.0, 1.0)),
    equations=(
        "u_t = Du Lap u + e (q w - u w + u - u^2);  v_t = Dv Lap v + u - v;  w_t = Dw Lap w + s (f v - q w - u w)"
    ),
)
