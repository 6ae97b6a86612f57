"""NVIDIA Warp on the CPU: its plain kernels on a wp.Tape, all states kept. Warp runs a CPU kernel on one thread."""

from functools import cached_property

import numpy as np

from validation.bench.peers import Unavailable

VARIANTS = ("",)
PACKAGES = ("warp-lang",)
MAX_THREADS = 1


def stored(variant):
    return 4


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    try:
        import warp as wp
    except ImportError as error:
        raise Unavailable(f"{error} (pip install warp-lang)") from None
    wp.config.quiet = True
    wp.init()
    real = {"float64": wp.float64, "float32": wp.float32}[dtype]

    @wp.kernel
    def step(
        u: wp.array2d(dtype=real),
        v: wp.array2d(dtype=real),
        u_out: wp.array2d(dtype=real),
        v_out: wp.array2d(dtype=real),
        p: wp.array(dtype=real),
        dt: real,
        n: int,
    ):
        i, j = wp.tid()
        above = i - 1
        if i == 0:
            above = n - 1
        below = i + 1
        if i == n - 1:
            below = 0
        left = j - 1
        if j == 0:
            left = n - 1
        right = j + 1
        if j == n - 1:
            right = 0
        U = u[i, j]
        V = v[i, j]
        lu = u[above, j] + u[below, j] + u[i, left] + u[i, right] - real(4.0) * U
        lv = v[above, j] + v[below, j] + v[i, left] + v[i, right] - real(4.0) * V
        r = U * V * V
        u_out[i, j] = U + dt * (p[0] * lu - r + p[2] * (real(1.0) - U))
        v_out[i, j] = V + dt * (p[1] * lv + r - (p[2] + p[3]) * V)

    @wp.kernel
    def misfit(
        u: wp.array2d(dtype=real),
        v: wp.array2d(dtype=real),
        u_target: wp.array2d(dtype=real),
        v_target: wp.array2d(dtype=real),
        loss: wp.array(dtype=real),
    ):
        i, j = wp.tid()
        eu = u[i, j] - u_target[i, j]
        ev = v[i, j] - v_target[i, j]
        wp.atomic_add(loss, 0, real(0.5) * (eu * eu + ev * ev))

    target = np.zeros_like(y0) if target is None else target
    tiny = Case(wp, step, misfit, real, 4, dtype, 1, np.ones((2, 4, 4), dtype), params, np.zeros((2, 4, 4), dtype), dt)
    tiny.gradient()
    return Case(wp, step, misfit, real, n, dtype, steps, y0, params, target, dt)


class Case:
    def __init__(self, wp, step, misfit, real, n, dtype, steps, y0, params, target, dt):
        self.wp, self.step, self.misfit, self.real, self.n, self.steps = wp, step, misfit, real, n, steps
        self.y0, self.target, self.dt, self.names = y0, target, real(dt), tuple(params)
        self.values = np.array(list(params.values()), dtype)

    @cached_property
    def arrays(self):
        wp, shape = self.wp, (self.n, self.n)
        with wp.ScopedDevice("cpu"):
            states = [
                tuple(wp.zeros(shape, dtype=self.real, requires_grad=True) for _ in "uv") for _ in range(self.steps + 1)
            ]
            target = tuple(wp.array(t, dtype=self.real) for t in self.target)
            p = wp.array(self.values, dtype=self.real, requires_grad=True)
            loss = wp.zeros(1, dtype=self.real, requires_grad=True)
        return states, target, p, loss

    def _steps(self):
        states, _, p, _ = self.arrays
        for t in range(self.steps):
            self.wp.launch(
                self.step, (self.n, self.n), inputs=[*states[t], *states[t + 1], p, self.dt, self.n], device="cpu"
            )

    def _start(self):
        for y, array in zip(self.y0, self.arrays[0][0], strict=True):
            array.assign(y)

    def gradient(self):
        states, target, p, loss = self.arrays
        self._start()
        loss.zero_()
        tape = self.wp.Tape()
        with tape:
            self._steps()
            self.wp.launch(self.misfit, (self.n, self.n), inputs=[*states[-1], *target, loss], device="cpu")
        tape.backward(loss)
        grads = dict(zip(self.names, p.grad.numpy().tolist(), strict=True))
        result = float(loss.numpy()[0]), grads, np.stack([y.grad.numpy() for y in states[0]])
        tape.zero()
        return result

    def forward(self):
        self._start()
        self._steps()
        return np.stack([y.numpy() for y in self.arrays[0][-1]])
