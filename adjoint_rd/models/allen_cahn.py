"""Allen-Cahn: one bistable species, the phase-field equation.

    u_t = Du Lap u + r (u - u^3)

    u       order parameter, -1 <= u <= 1
    r       rate, 1/time
    Du      diffusivity, length^2/time

Source: S. M. Allen, J. W. Cahn, Acta Metall. 27 (1979) 1085, Eq. (11) with f = (1 - u^2)^2 / 4.
"""

from .base import Model


def reaction(s, p):
    """R = r (u - u^3)."""
    (u,) = s
    (r,) = p
    return (r * (u - u * u * u),)


def reaction_j(s, p, t, dp):
    """R_s t + R_p dp."""
    (u,) = s
    (r,) = p
    (tu,) = t
    (dr,) = dp
    uu = u * u
    return (r * (tu - (uu + uu + uu) * tu) + dr * (u - uu * u),)


def reaction_jt(s, p, a):
    """R_s^T a  with  R_s = r (1 - 3 u^2)."""
    (u,) = s
    (r,) = p
    (au,) = a
    uu = u * u
    return (r * (au - (uu + uu + uu) * au),)


def reaction_pt(s, p, a):
    """R_p^T a  with  R_p = u - u^3."""
    (u,) = s
    (au,) = a
    return ((u - u * u * u) * au,)


def reaction_jt_t(s, p, t, dp, a):
    """Derivative of R_s^T a along (t, dp)."""
    (u,) = s
    (r,) = p
    (tu,) = t
    (dr,) = dp
    (au,) = a
    uu = u * u
    utu = u * tu
    utu3 = utu + utu + utu
    return (dr * (au - (uu + uu + uu) * au) - r * (utu3 + utu3) * au,)


def reaction_pt_t(s, p, t, dp, a):
    """Derivative of R_p^T a along (t, dp)."""
    (u,) = s
    (tu,) = t
    (au,) = a
    uu = u * u
    return ((tu - (uu + uu + uu) * tu) * au,)


allen_cahn = Model(
    name="allen_cahn",
    species=("u",),
    parameters=("r",),
    reaction=reaction,
    reaction_j=reaction_j,
    reaction_jt=reaction_jt,
    reaction_pt=reaction_pt,
    reaction_jt_t=reaction_jt_t,
    reaction_pt_t=reaction_pt_t,
    rest=lambda p: (1.0,),
    box=lambda p: ((-1.0, 1.0),),
    seed=lambda p: (-1.0,),
    equations="u_t = Du Lap u + r (u - u^3)",
)
