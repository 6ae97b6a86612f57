"""NumPy, as one writes it: np.roll for the Laplacian, the hand-derived adjoint, everything stored. Also the oracle of
a run."""

import numpy as np

VARIANTS = ("",)
PACKAGES = ("numpy",)
MAX_THREADS = 1


def stored(variant):
    return 2


def lap(y):
    return np.roll(y, 1, 0) + np.roll(y, -1, 0) + np.roll(y, 1, 1) + np.roll(y, -1, 1) - 4 * y


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant=""):
    return Case(np.dtype(dtype).type, steps, y0, params, target, dt)


class Case:
    def __init__(self, real, steps, y0, params, target, dt):
        self.steps, self.y0, self.target = steps, y0, 0 if target is None else target
        self.du, self.dv, self.f, self.k = (real(dt * params[name]) for name in ("Du", "Dv", "F", "k"))
        self.real, self.dt = real, real(dt)

    def step(self, u, v):
        r = self.dt * u * v * v
        return u + self.du * lap(u) - r + self.f * (1 - u), v + self.dv * lap(v) + r - (self.f + self.k) * v

    def gradient(self):
        states = [(self.y0[0], self.y0[1])]
        for _ in range(self.steps):
            states.append(self.step(*states[-1]))
        p, q = np.stack(states.pop()) - self.target
        value = 0.5 * float((p.astype("float64") ** 2).sum() + (q.astype("float64") ** 2).sum())
        sums = np.zeros(4)
        while states:
            u, v = states.pop()
            lp, lq, w = lap(p), lap(q), self.dt * v * (q - p)
            qv = (q * v).sum()
            sums += (lp * u).sum(), (lq * v).sum(), (p * (1 - u)).sum() - qv, -qv
            p, q = p + self.du * lp + v * w - self.f * p, q + self.dv * lq + 2 * u * w - (self.f + self.k) * q
        sums *= float(self.dt)
        return value, dict(zip(("Du", "Dv", "F", "k"), sums.tolist(), strict=True)), np.stack([p, q])

    def forward(self):
        u, v = self.y0
        for _ in range(self.steps):
            u, v = self.step(u, v)
        return np.stack([u, v])
