"""PyTorch: autograd through a Python loop of steps; the best variant counts.

eager        as it stands
compile      the step under torch.compile
compile-x4   four steps under one torch.compile, which halves the time on small grids (its pad, in place of torch.roll,
costs
             2.5 times more, and is left out)
"""

import numpy as np

from validation.bench.peers import Unavailable

VARIANTS = ("eager", "compile", "compile-x4")
PACKAGES = ("torch",)
MAX_THREADS = None


def stored(variant):
    return 14 if variant == "eager" else 6


def prepare(n, dtype, steps, y0, params, threads, *, target=None, dt=1.0, variant="eager"):
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"{error} (pip install torch)") from None
    torch.set_num_threads(threads)

    def lap(y):
        return torch.roll(y, 1, 0) + torch.roll(y, -1, 0) + torch.roll(y, 1, 1) + torch.roll(y, -1, 1) - 4 * y

    def step(u, v, Du, Dv, F, k):
        r = u * v * v
        return u + dt * (Du * lap(u) - r + F * (1 - u)), v + dt * (Dv * lap(v) + r - (F + k) * v)

    def several(u, v, *p):
        for _ in range(4):
            u, v = step(u, v, *p)
        return u, v

    def compiled(function):
        return torch.compile(function, dynamic=False) if variant.startswith("compile") else function

    kinds = [(several, 4), (step, 1)] if variant.endswith("x4") else [(step, 1)]
    kinds = [(compiled(function), length) for function, length in kinds]
    target = torch.from_numpy(np.zeros_like(y0) if target is None else target)
    case = Case(torch, kinds, getattr(torch, dtype), steps, y0, params, target)
    case.warm_up()
    return case


class Case:
    def __init__(self, torch, kinds, dtype, steps, y0, params, target):
        self.torch, self.kinds, self.dtype, self.steps, self.params = torch, kinds, dtype, steps, params
        self.y0, self.target = torch.from_numpy(y0), target

    def warm_up(self):
        """One call of each kind each way: that is when torch.compile compiles."""
        steps, longest = self.steps, self.kinds[0][1]
        self.steps = longest + steps % longest
        try:
            self.gradient(), self.forward()
        finally:
            self.steps = steps

    def _run(self, u, v, p):
        left = self.steps
        for function, length in self.kinds:
            for _ in range(left // length):
                u, v = function(u, v, *p)
            left %= length
        return u, v

    def _leaves(self, wanted):
        p = [self.torch.tensor(x, dtype=self.dtype, requires_grad=wanted) for x in self.params.values()]
        u, v = (y.clone().requires_grad_(wanted) for y in self.y0)
        return u, v, p

    def gradient(self):
        u0, v0, p = self._leaves(True)
        u, v = self._run(u0, v0, p)
        loss = 0.5 * ((u - self.target[0]) ** 2).sum() + 0.5 * ((v - self.target[1]) ** 2).sum()
        loss.backward()
        grads = dict(zip(self.params, (x.grad.item() for x in p), strict=True))
        return loss.item(), grads, np.stack([u0.grad.numpy(), v0.grad.numpy()])

    def forward(self):
        with self.torch.no_grad():
            u, v = self._run(*self._leaves(False))
        return np.stack([u.numpy(), v.numpy()])
