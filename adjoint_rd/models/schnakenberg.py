"""Schnakenberg: the simplest activator-depleted-substrate kinetics, written with a rate scale gamma.

    u_t = Du Lap u + gamma (a - u + u^2 v)
    v_t = Dv Lap v + gamma (b - u^2 v)

    u, v    concentrations of activator and substrate
    a, b    feeds, dimensionless
    gamma   rate scale, 1/time
    Du, Dv  diffusivities, length^2/time

Source: J. Schnakenberg, J. Theor. Biol. 81 (1979) 389; J. D. Murray, Mathematical Biology II (2003), Eq. (2.10).
"""

from .base import Model


def reaction(s, p):
    """R = gamma (a - u + u^2 v, b - u^2 v)."""
    u, v = s
    a0, b0, g = p
    uuv = u * u * v
    return g * (a0 - u + uuv), g * (b0 - uuv)


def reaction_j(s, p, t, dp):
    """R_s t + R_p dp."""
    u, v = s
    a0, b0, g = p
    tu, tv = t
    da, db, dg = dp
    uu = u * u
    uuv = uu * v
    uvtu = u * v * tu
    tuuv = uvtu + uvtu + uu * tv
    return g * (da - tu + tuuv) + dg * (a0 - u + uuv), g * (db - tuuv) + dg * (b0 - uuv)


def reaction_jt(s, p, a):
    """R_s^T a  with  R_s = gamma [[2uv - 1, u^2], [-2uv, -u^2]]."""
    u, v = s
    g = p[2]
    au, av = a
    ud = u * (au - av)
    uvd = v * ud
    return g * (uvd + uvd - au), g * u * ud


def reaction_pt(s, p, a):
    """R_p^T a  with  R_p = [[gamma, 0, a - u + u^2 v], [0, gamma, b - u^2 v]]."""
    u, v = s
    a0, b0, g = p
    au, av = a
    uuv = u * u * v
    return g * au, g * av, (a0 - u + uuv) * au + (b0 - uuv) * av


def reaction_jt_t(s, p, t, dp, a):
    """Derivative of R_s^T a along (t, dp)."""
    u, v = s
    g = p[2]
    tu, tv = t
    dg = dp[2]
    au, av = a
    d = au - av
    uvd = u * v * d
    tuvd = (tu * v + u * tv) * d
    utud = u * tu * d
    return (
        g * (tuvd + tuvd) + dg * (uvd + uvd - au),
        g * (utud + utud) + dg * u * u * d,
    )


def reaction_pt_t(s, p, t, dp, a):
    """Derivative of R_p^T a along (t, dp)."""
    u, v = s
    tu, tv = t
    da, db, dg = dp
    au, av = a
    uvtu = u * v * tu
    tuuv = uvtu + uvtu + u * u * tv
    return dg * au, dg * av, (da - tu + tuuv) * au + (db - tuuv) * av


def _rest(p):
    u = p["a"] + p["b"]
    return u, p["b"] / u**2 if u else 0.0


schnakenberg = Model(
    name="schnakenberg",
    species=("u", "v"),
    parameters=("a", "b", "gamma"),
    reaction=reaction,
    reaction_j=reaction_j,
    reaction_jt=reaction_jt,
    reaction_pt=reaction_pt,
    reaction_jt_t=reaction_jt_t,
    reaction_pt_t=reaction_pt_t,
    rest=_rest,
    # No invariant region is known; patterns stay well within three times the rest state.
    box=lambda p: tuple((0.0, 3.0 * value) for value in _rest(p)),
    equations="u_t = Du Lap u + gamma (a - u + u^2 v);  v_t = Dv Lap v + gamma (b - u^2 v)",
)
