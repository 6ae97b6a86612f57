"""Numba, Gray-Scott written and fused by hand: the best that one model's own code reaches, everything stored.

    forward   u' = u + dt (Du Lap u - u v^2 + F (1 - u))      v' = v + dt (Dv Lap v + u v^2 - (F + k) v)
    reverse   p <- p + dt (Du Lap p + v^2 d - F p)            q <- q + dt (Dv Lap q + 2 u v d - (F + k) q),   d = q - p

Rows wrap by index, the first and last column are peeled, a row is one call on slices. Flags: `contract` (fused
multiply-add)
and `reassoc`, so that the sums of the reverse row are SIMD: measured as fast as fastmath=True, and NaN and Inf stay
what they are.
"""

from functools import cached_property

import numpy as np

from validation.bench.peers import Unavailable, l2

VARIANTS = ("",)
PACKAGES = ("numba", "llvmlite", "numpy")
MAX_THREADS = None
FLAGS = {"contract", "reassoc"}


def stored(variant):
    return 2


def kernels(dtype, parallel, flags=FLAGS):
    """forward(pair, steps, ...), forward_store(trajectory, ...), reverse(trajectory, pair, rows, ...) for one dtype."""
    try:
        from numba import njit, prange
    except ImportError as error:
        raise Unavailable(f"{error} (pip install numba)") from None
    real = np.dtype(dtype).type
    zero, one, two, four = real(0), real(1), real(2), real(4)
    row = njit(fastmath=flags, error_model="numpy")
    loop = njit(fastmath=flags, error_model="numpy", parallel=parallel)

    @row
    def forward_row(u_above, u, u_below, v_above, v, v_below, u_out, v_out, du, dv, f, fk, dt):
        m = u.shape[0]
        for e in range(2):
            j, left, right = (0, m - 1, 1) if e == 0 else (m - 1, m - 2, 0)
            U, V = u[j], v[j]
            r = dt * U * V * V
            u_out[j] = U + du * (u_above[j] + u_below[j] + u[left] + u[right] - four * U) - r + f * (one - U)
            v_out[j] = V + dv * (v_above[j] + v_below[j] + v[left] + v[right] - four * V) + r - fk * V
        for j in range(1, m - 1):
            U, V = u[j], v[j]
            r = dt * U * V * V
            u_out[j] = U + du * (u_above[j] + u_below[j] + u[j - 1] + u[j + 1] - four * U) - r + f * (one - U)
            v_out[j] = V + dv * (v_above[j] + v_below[j] + v[j - 1] + v[j + 1] - four * V) + r - fk * V

    @row
    def reverse_row(u, v, p_above, p, p_below, q_above, q, q_below, p_out, q_out, du, dv, f, fk, dt):
        m = u.shape[0]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for e in range(2):
            j, left, right = (0, m - 1, 1) if e == 0 else (m - 1, m - 2, 0)
            U, V, P, Q = u[j], v[j], p[j], q[j]
            lp = p_above[j] + p_below[j] + p[left] + p[right] - four * P
            lq = q_above[j] + q_below[j] + q[left] + q[right] - four * Q
            w = dt * V * (Q - P)
            p_out[j] = P + du * lp + V * w - f * P
            q_out[j] = Q + dv * lq + two * U * w - fk * Q
            s0 += lp * U
            s1 += lq * V
            s2 += P * (one - U)
            s3 += Q * V
        for j in range(1, m - 1):
            U, V, P, Q = u[j], v[j], p[j], q[j]
            lp = p_above[j] + p_below[j] + p[j - 1] + p[j + 1] - four * P
            lq = q_above[j] + q_below[j] + q[j - 1] + q[j + 1] - four * Q
            w = dt * V * (Q - P)
            p_out[j] = P + du * lp + V * w - f * P
            q_out[j] = Q + dv * lq + two * U * w - fk * Q
            s0 += lp * U
            s1 += lq * V
            s2 += P * (one - U)
            s3 += Q * V
        return s0, s1, s2, s3

    @loop
    def forward_step(u, v, u_out, v_out, du, dv, f, fk, dt):
        n = u.shape[0]
        for i in prange(n):
            above = n - 1 if i == 0 else i - 1
            below = 0 if i == n - 1 else i + 1
            forward_row(u[above], u[i], u[below], v[above], v[i], v[below], u_out[i], v_out[i], du, dv, f, fk, dt)

    @loop
    def reverse_step(u, v, p, q, p_out, q_out, du, dv, f, fk, dt, rows):
        n = u.shape[0]
        for i in prange(n):
            above = n - 1 if i == 0 else i - 1
            below = 0 if i == n - 1 else i + 1
            s0, s1, s2, s3 = reverse_row(
                u[i], v[i], p[above], p[i], p[below], q[above], q[i], q[below], p_out[i], q_out[i], du, dv, f, fk, dt
            )
            rows[i, 0] += s0
            rows[i, 1] += s1
            rows[i, 2] += s2 - s3
            rows[i, 3] -= s3

    @row
    def forward(pair, steps, du, dv, f, fk, dt):
        for t in range(steps):
            y, out = pair[t % 2], pair[(t + 1) % 2]
            forward_step(y[0], y[1], out[0], out[1], du, dv, f, fk, dt)

    @row
    def forward_store(trajectory, du, dv, f, fk, dt):
        for t in range(trajectory.shape[0] - 1):
            y, out = trajectory[t], trajectory[t + 1]
            forward_step(y[0], y[1], out[0], out[1], du, dv, f, fk, dt)

    @row
    def reverse(trajectory, pair, rows, du, dv, f, fk, dt):
        steps = trajectory.shape[0] - 1
        for i in range(steps):
            y, a, out = trajectory[steps - 1 - i], pair[i % 2], pair[(i + 1) % 2]
            reverse_step(y[0], y[1], a[0], a[1], out[0], out[1], du, dv, f, fk, dt, rows)

    return forward, forward_store, reverse


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    compiled = kernels(dtype, threads > 1)
    if threads > 1:
        import numba

        numba.set_num_threads(threads)
    tiny = Case(compiled, 4, dtype, 1, np.ones((2, 4, 4), dtype), params, None, dt)
    tiny.gradient(), tiny.forward()
    return Case(compiled, n, dtype, steps, y0, params, target, dt)


class Case:
    def __init__(self, compiled, n, dtype, steps, y0, params, target, dt):
        self.compiled, self.n, self.dtype, self.steps = compiled, n, np.dtype(dtype), steps
        self.y0, self.target, self.dt = y0, 0 if target is None else target, dt
        rates = (params["Du"], params["Dv"], params["F"], params["F"] + params["k"], 1.0)
        self.args = tuple(self.dtype.type(dt * x) for x in rates)

    @cached_property
    def trajectory(self):
        return np.empty((self.steps + 1, 2, self.n, self.n), self.dtype)

    @cached_property
    def pair(self):
        return np.empty((2, 2, self.n, self.n), self.dtype)

    def gradient(self):
        _, forward_store, reverse = self.compiled
        self.trajectory[0] = self.y0
        forward_store(self.trajectory, *self.args)
        value, self.pair[0] = l2(self.trajectory[-1], self.target)
        rows = np.zeros((self.n, 4))
        reverse(self.trajectory, self.pair, rows, *self.args)
        sums = (self.dt * rows.sum(axis=0)).tolist()
        return value, dict(zip(("Du", "Dv", "F", "k"), sums, strict=True)), self.pair[self.steps % 2].copy()

    def forward(self):
        self.pair[0] = self.y0
        self.compiled[0](self.pair, self.steps, *self.args)
        return self.pair[self.steps % 2].copy()
