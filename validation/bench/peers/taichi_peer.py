"""Taichi: its plain kernels with their generated gradients, one field of all states, launched step by step."""
from functools import cached_property

import numpy as np

from validation.bench.peers import Unavailable

VARIANTS = ("",)
PACKAGES = ("taichi",)
MAX_THREADS = None


def stored(variant):
    return 4


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    try:
        import taichi as ti
    except ImportError as error:
        raise Unavailable(f"{error} (pip install taichi)") from None
    real = {"float64": ti.f64, "float32": ti.f32}[dtype]
    ti.init(arch=ti.cpu, cpu_max_num_threads=threads, default_fp=real, log_level=ti.ERROR, offline_cache=False)
    return Case(ti, real, n, dtype, steps, y0, params, np.zeros_like(y0) if target is None else target, dt)


class Case:
    def __init__(self, ti, real, n, dtype, steps, y0, params, target, dt):
        self.ti, self.real, self.n, self.steps = ti, real, n, steps
        self.y0, self.target, self.dt = y0, target, dt
        self.params = np.array(list(params.values()), dtype)
        self.names = tuple(params)

    @cached_property
    def program(self):
        """Fields and kernels; Taichi compiles a kernel at its first launch, on the fields it names."""
        ti, real, n, steps, dt = self.ti, self.real, self.n, self.steps, self.dt
        u = ti.field(real, (steps + 1, n, n), needs_grad=True)
        v = ti.field(real, (steps + 1, n, n), needs_grad=True)
        p = ti.field(real, 4, needs_grad=True)
        target = ti.field(real, (2, n, n))
        loss = ti.field(real, (), needs_grad=True)

        @ti.kernel
        def step(t: ti.i32):
            for i, j in ti.ndrange(n, n):
                above, below, left, right = (i + n - 1) % n, (i + 1) % n, (j + n - 1) % n, (j + 1) % n
                U, V = u[t, i, j], v[t, i, j]
                lu = u[t, above, j] + u[t, below, j] + u[t, i, left] + u[t, i, right] - 4 * U
                lv = v[t, above, j] + v[t, below, j] + v[t, i, left] + v[t, i, right] - 4 * V
                r = U * V * V
                u[t + 1, i, j] = U + dt * (p[0] * lu - r + p[2] * (1 - U))
                v[t + 1, i, j] = V + dt * (p[1] * lv + r - (p[2] + p[3]) * V)

        @ti.kernel
        def misfit():
            for i, j in ti.ndrange(n, n):
                loss[None] += 0.5 * ((u[steps, i, j] - target[0, i, j]) ** 2 + (v[steps, i, j] - target[1, i, j]) ** 2)

        @ti.kernel
        def fill(y: ti.types.ndarray()):
            for i, j in ti.ndrange(n, n):
                u[0, i, j] = y[0, i, j]
                v[0, i, j] = y[1, i, j]

        @ti.kernel
        def take(t: ti.i32, y: ti.types.ndarray()):
            for i, j in ti.ndrange(n, n):
                y[0, i, j] = u[t, i, j]
                y[1, i, j] = v[t, i, j]

        @ti.kernel
        def take_grad(y: ti.types.ndarray()):
            for i, j in ti.ndrange(n, n):
                y[0, i, j] = u.grad[0, i, j]
                y[1, i, j] = v.grad[0, i, j]

        p.from_numpy(self.params)
        target.from_numpy(self.target)
        return u, v, p, loss, step, misfit, fill, take, take_grad

    def gradient(self):
        u, v, p, loss, step, misfit, fill, _, take_grad = self.program
        fill(self.y0)
        loss[None] = 0
        for field in (u, v, p):
            field.grad.fill(0)
        loss.grad[None] = 1
        for t in range(self.steps):
            step(t)
        misfit()
        misfit.grad()
        for t in reversed(range(self.steps)):
            step.grad(t)
        initial = np.empty_like(self.y0)
        take_grad(initial)
        return float(loss[None]), dict(zip(self.names, p.grad.to_numpy().tolist(), strict=True)), initial

    def forward(self):
        _, _, _, _, step, _, fill, take, _ = self.program
        fill(self.y0)
        for t in range(self.steps):
            step(t)
        final = np.empty_like(self.y0)
        take(self.steps, final)
        return final
