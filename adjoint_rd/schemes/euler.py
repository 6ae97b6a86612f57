"""Explicit Euler: ``y' = y + dt f(y)``, order 1, one fused pass over memory a step.

Source: any textbook; E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I (1993), I.7.
"""

ORDER = 1
IDENTITY = True  # the fused kernels include the identity: their step h is dt
WORK_ARRAYS = 0
REAL_STABILITY_INTERVAL = 2.0  # |R(z)| <= 1 for real z in [-2, 0]


def push(y, out, work, plan, share):
    """y' = y + dt f(y)."""
    push_sweep((y,), out, plan, share)
    meet(share.sync, share.threads)


def tangent(y, t, out, work, plan, share):
    """t' = t + dt (f_y t + f_p dp)."""
    tangent_sweep((y, t), out, plan, share)
    meet(share.sync, share.threads)


def pull(y, a, out, work, plan, share):
    """a = a' + dt f_y^T a';  g_p += dt f_p^T a'."""
    pull_sweep((y, a), out, plan, share)
    meet(share.sync, share.threads)


def second(y, t, a, at, out, tangent_out, work, plan, share, second_share):
    """`pull`, and its tangent along (t, dp) with the tangent `at` of a'."""
    pull_sweep((y, a), out, plan, share)
    second_sweep((y, t, a, at), tangent_out, plan, second_share)
    meet(share.sync, share.threads)


def amplification(z):
    """R(z) = y'/y for y_t = lambda y, z = lambda dt."""
    return 1.0 + z


def reference_step(rate, y, dt):
    """`push` for any arrays and any function y_t = rate(y): what validation compares with."""
    return y + dt * rate(y)
