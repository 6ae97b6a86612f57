"""The classical Runge-Kutta scheme of order 4.

    k1 = f(y), k2 = f(y + dt/2 k1), k3 = f(y + dt/2 k2), k4 = f(y + dt k3)
    y' = y + dt/6 (k1 + 2 k2 + 2 k3 + k4)

The transpose goes through the stages in reverse; they are computed again from y, so that only y need be stored.

Source: W. Kutta, Z. Math. Phys. 46 (1901) 435; the transpose after W. W. Hager, Numer. Math. 87 (2000) 247, Eq. (16).
"""

ORDER = 4
IDENTITY = False  # the kernels give rates, with h = 1; dt enters here
WORK_ARRAYS = 12
REAL_STABILITY_INTERVAL = 2.785293563405282  # |R(z)| <= 1 for real z in [-2.785.., 0]


def stages(y, work, plan, share):
    """work[0..2] = the states where k2, k3, k4 are taken; work[3..5] = k1, k2, k3."""
    dt = plan.coefficients[4]
    half = dt / y.dtype.type(2)
    push_sweep((y,), work[3], plan, share)
    blend(work[0], y, half, work[3], share)
    meet(share.sync, share.threads)
    push_sweep((work[0],), work[4], plan, share)
    blend(work[1], y, half, work[4], share)
    meet(share.sync, share.threads)
    push_sweep((work[1],), work[5], plan, share)
    blend(work[2], y, dt, work[5], share)
    meet(share.sync, share.threads)


def tangent_stages(y, t, work, plan, share):
    """After `stages`: work[6..8] = the tangents of work[0..2]; work[9..11] = those of k1, k2, k3."""
    dt = plan.coefficients[4]
    half = dt / y.dtype.type(2)
    tangent_sweep((y, t), work[9], plan, share)
    blend(work[6], t, half, work[9], share)
    meet(share.sync, share.threads)
    tangent_sweep((work[0], work[6]), work[10], plan, share)
    blend(work[7], t, half, work[10], share)
    meet(share.sync, share.threads)
    tangent_sweep((work[1], work[7]), work[11], plan, share)
    blend(work[8], t, dt, work[11], share)
    meet(share.sync, share.threads)


def push(y, out, work, plan, share):
    """y' = y + dt/6 (k1 + 2 k2 + 2 k3 + k4)."""
    dt = plan.coefficients[4]
    sixth = dt / y.dtype.type(6)
    third = dt / y.dtype.type(3)
    stages(y, work, plan, share)
    blend(out, y, sixth, work[3], share)
    accumulate(out, third, work[4], share)
    accumulate(out, third, work[5], share)
    push_sweep((work[2],), work[6], plan, share)
    accumulate(out, sixth, work[6], share)
    meet(share.sync, share.threads)


def tangent(y, t, out, work, plan, share):
    """The derivative of `push` along (t, dp)."""
    dt = plan.coefficients[4]
    sixth = dt / y.dtype.type(6)
    third = dt / y.dtype.type(3)
    stages(y, work, plan, share)
    tangent_stages(y, t, work, plan, share)
    blend(out, t, sixth, work[9], share)
    accumulate(out, third, work[10], share)
    accumulate(out, third, work[11], share)
    tangent_sweep((work[2], work[8]), work[3], plan, share)
    accumulate(out, sixth, work[3], share)
    meet(share.sync, share.threads)


def pull(y, a, out, work, plan, share):
    """The transpose of `push`: with c4 = dt/6 a', c3 = dt/3 a' + dt b4, c2 = dt/3 a' + dt/2 b3, c1 = dt/6 a' + dt/2 b2
    and bi = f_y^T ci at stage i, a = a' + b1 + b2 + b3 + b4 and g_p += sum_i f_p^T ci."""
    one = y.dtype.type(1)
    dt = plan.coefficients[4]
    half = dt / y.dtype.type(2)
    third = dt / y.dtype.type(3)
    sixth = dt / y.dtype.type(6)
    stages(y, work, plan, share)
    b = work[3]
    scale(out, one, a, share)

    c = work[6]
    scale(c, sixth, a, share)
    meet(share.sync, share.threads)
    pull_sweep((work[2], c), b, plan, share)
    accumulate(out, one, b, share)

    c = work[7]  # by turns: other threads may still read the rows of the last one that border on theirs
    scale(c, third, a, share)
    accumulate(c, dt, b, share)
    meet(share.sync, share.threads)
    pull_sweep((work[1], c), b, plan, share)
    accumulate(out, one, b, share)

    c = work[6]
    scale(c, third, a, share)
    accumulate(c, half, b, share)
    meet(share.sync, share.threads)
    pull_sweep((work[0], c), b, plan, share)
    accumulate(out, one, b, share)

    c = work[7]
    scale(c, sixth, a, share)
    accumulate(c, half, b, share)
    meet(share.sync, share.threads)
    pull_sweep((y, c), b, plan, share)
    accumulate(out, one, b, share)
    meet(share.sync, share.threads)


def second(y, t, a, at, out, tangent_out, work, plan, share, second_share):
    """`pull`, and its derivative along (t, dp) with the tangent `at` of a'; the lines come in pairs."""
    one = y.dtype.type(1)
    dt = plan.coefficients[4]
    half = dt / y.dtype.type(2)
    third = dt / y.dtype.type(3)
    sixth = dt / y.dtype.type(6)
    stages(y, work, plan, share)
    tangent_stages(y, t, work, plan, share)
    b = work[3]
    bt = work[4]
    scale(out, one, a, share)
    scale(tangent_out, one, at, share)

    c = work[5]
    ct = work[9]
    scale(c, sixth, a, share)
    scale(ct, sixth, at, share)
    meet(share.sync, share.threads)
    pull_sweep((work[2], c), b, plan, share)
    second_sweep((work[2], work[8], c, ct), bt, plan, second_share)
    accumulate(out, one, b, share)
    accumulate(tangent_out, one, bt, share)

    c = work[10]
    ct = work[11]
    scale(c, third, a, share)
    scale(ct, third, at, share)
    accumulate(c, dt, b, share)
    accumulate(ct, dt, bt, share)
    meet(share.sync, share.threads)
    pull_sweep((work[1], c), b, plan, share)
    second_sweep((work[1], work[7], c, ct), bt, plan, second_share)
    accumulate(out, one, b, share)
    accumulate(tangent_out, one, bt, share)

    c = work[5]
    ct = work[9]
    scale(c, third, a, share)
    scale(ct, third, at, share)
    accumulate(c, half, b, share)
    accumulate(ct, half, bt, share)
    meet(share.sync, share.threads)
    pull_sweep((work[0], c), b, plan, share)
    second_sweep((work[0], work[6], c, ct), bt, plan, second_share)
    accumulate(out, one, b, share)
    accumulate(tangent_out, one, bt, share)

    c = work[10]
    ct = work[11]
    scale(c, sixth, a, share)
    scale(ct, sixth, at, share)
    accumulate(c, half, b, share)
    accumulate(ct, half, bt, share)
    meet(share.sync, share.threads)
    pull_sweep((y, c), b, plan, share)
    second_sweep((y, t, c, ct), bt, plan, second_share)
    accumulate(out, one, b, share)
    accumulate(tangent_out, one, bt, share)
    meet(share.sync, share.threads)


def amplification(z):
    """R(z) = y'/y for y_t = lambda y, z = lambda dt."""
    return 1.0 + z * (1.0 + z / 2.0 * (1.0 + z / 3.0 * (1.0 + z / 4.0)))


def reference_step(rate, y, dt):
    """`push` for any arrays and any function y_t = rate(y): what validation compares with."""
    k1 = rate(y)
    k2 = rate(y + dt / 2 * k1)
    k3 = rate(y + dt / 2 * k2)
    k4 = rate(y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
