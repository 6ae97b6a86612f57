"""The peers on a card, each run in a process of its own: batches of the problem of problem.py, float32.

prepare(n, steps, y0, target)    y0, target (B, 2, n, n); the parameters are B copies of problem.PARAMS
                                 -> object with .gradient() and .forward(), which return when the card is done:
                                 (L (B,), {name: (B,)}, dL/dy0 (B, 2, n, n)), and the final states: what has the
                                 size of a state lies on the card before and after
"""

import numpy as np

from validation.bench.peers import Unavailable
from validation.bench.problem import PARAMS


class Ours:
    """adjoint_rd with backend "cuda" (or "cpu")."""

    def __init__(self, n, steps, y0, target, backend="cuda"):
        import adjoint_rd as rd

        sim = rd.Simulation("gray_scott", rd.Grid((n, n)), dt=1.0, dtype="float32", backend=backend)
        many = len(y0) > 1
        losses = [rd.losses.L2(each) for each in target]
        start, params = (y0, [PARAMS] * len(y0)) if many else (y0[0], PARAMS)
        if backend == "cuda":
            from numba import cuda

            start = cuda.to_device(start)
        loss = losses if many else losses[0]
        self.run = lambda: sim.run(start, params, steps=steps).final
        self.grad = lambda: sim.gradient(start, params, loss, steps=steps)

    def gradient(self):
        g = self.grad()
        return np.atleast_1d(g.value), {name: np.atleast_1d(x) for name, x in g.params.items()}, g.initial

    def forward(self):
        return self.run()


class Jax:
    """jit(vmap(value_and_grad)) of a scan of checkpointed steps: what JAX does best here."""

    def __init__(self, n, steps, y0, target):
        try:
            import jax
            import jax.numpy as jnp
        except ImportError as error:
            raise Unavailable(f"{error} (pip install 'jax[cuda13]')") from None
        if jax.default_backend() != "gpu":
            raise Unavailable("JAX sees no card (pip install 'jax[cuda13]')")

        def lap(x):
            return jnp.roll(x, 1, 0) + jnp.roll(x, -1, 0) + jnp.roll(x, 1, 1) + jnp.roll(x, -1, 1) - 4 * x

        def step(y, p):
            u, v = y
            r = u * v * v
            return jnp.stack([u + p["Du"] * lap(u) - r + p["F"] * (1 - u),
                              v + p["Dv"] * lap(v) + r - (p["F"] + p["k"]) * v])  # fmt: skip

        def run(y, p):
            return jax.lax.scan(lambda y, _: (jax.checkpoint(step)(y, p), None), y, None, length=steps)[0]

        def loss(p, y, target):
            return 0.5 * ((run(y, p) - target) ** 2).sum()

        self.jax = jax
        self.arguments = (
            {name: jnp.full(len(y0), x, "float32") for name, x in PARAMS.items()}, jnp.asarray(y0), jnp.asarray(target)
        )  # fmt: skip
        self.grad = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))
        self.run = jax.jit(jax.vmap(run))

    def gradient(self):
        value, (params, initial) = self.jax.block_until_ready(self.grad(*self.arguments))
        return value, params, initial

    def forward(self):
        return self.jax.block_until_ready(self.run(self.arguments[1], self.arguments[0]))


class Torch:
    """Autograd through a loop of steps, eager or with the step under torch.compile."""

    def __init__(self, n, steps, y0, target, compiled=False):
        try:
            import torch
        except ImportError as error:
            raise Unavailable(f"{error} (pip install torch)") from None
        if not torch.cuda.is_available():
            raise Unavailable("torch sees no card")

        def lap(x):
            return torch.roll(x, 1, 1) + torch.roll(x, -1, 1) + torch.roll(x, 1, 2) + torch.roll(x, -1, 2) - 4 * x

        def step(u, v, Du, Dv, F, k):
            r = u * v * v
            return u + Du * lap(u) - r + F * (1 - u), v + Dv * lap(v) + r - (F + k) * v

        self.torch, self.steps = torch, steps
        self.step = torch.compile(step, dynamic=False) if compiled else step
        self.y0, self.target = (torch.as_tensor(x, device="cuda") for x in (y0, target))

    def _run(self, wanted):
        full = dict(dtype=self.torch.float32, device="cuda", requires_grad=wanted)
        p = [self.torch.full((len(self.y0), 1, 1), x, **full) for x in PARAMS.values()]
        y0 = self.y0.clone().requires_grad_(wanted)
        u, v = y0[:, 0], y0[:, 1]
        for _ in range(self.steps):
            u, v = self.step(u, v, *p)
        return y0, p, self.torch.stack([u, v], 1)

    def gradient(self):
        y0, p, final = self._run(True)
        values = 0.5 * ((final - self.target) ** 2).sum((1, 2, 3))
        values.sum().backward()
        grads = {name: x.grad.reshape(-1).cpu() for name, x in zip(PARAMS, p, strict=True)}
        self.torch.cuda.synchronize()
        return values.detach().cpu(), grads, y0.grad

    def forward(self):
        with self.torch.no_grad():
            final = self._run(False)[2]
        self.torch.cuda.synchronize()
        return final


RAW = r"""
extern "C" __global__ void step(const float* y, float* out, int n, float Du, float Dv, float F, float k) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= n || j >= n) return;
    size_t N = (size_t)n * n, b = 2 * N * blockIdx.z, row = (size_t)i * n;
    size_t up = (size_t)(i ? i - 1 : n - 1) * n, down = (size_t)(i < n - 1 ? i + 1 : 0) * n;
    int left = j ? j - 1 : n - 1, right = j < n - 1 ? j + 1 : 0;
    const float *U = y + b, *V = y + b + N;
    float u = U[row + j], v = V[row + j], r = u * v * v;
    float lu = U[up + j] + U[down + j] + U[row + left] + U[row + right] - 4.0f * u;
    float lv = V[up + j] + V[down + j] + V[row + left] + V[row + right] - 4.0f * v;
    out[b + row + j] = u + Du * lu - r + F * (1.0f - u);
    out[b + N + row + j] = v + Dv * lv + r - (F + k) * v;
}"""


class Cupy:
    """The forward step as a hand-written kernel, one launch a step: what the memory allows without blocking in time."""

    def __init__(self, n, steps, y0, target):
        try:
            import cupy
        except ImportError as error:
            raise Unavailable(f"{error} (pip install cupy-cuda13x)") from None
        self.cupy, self.steps, self.n = cupy, steps, n
        self.kernel = cupy.RawKernel(RAW, "step")
        self.y0 = cupy.asarray(y0)

    def forward(self):
        y, z = self.y0.copy(), self.cupy.empty_like(self.y0)
        across = (self.n + 31) // 32, (self.n + 7) // 8, len(y)
        numbers = [self.cupy.float32(x) for x in PARAMS.values()]
        for _ in range(self.steps):
            self.kernel(across, (32, 8), (y, z, self.cupy.int32(self.n), *numbers))
            y, z = z, y
        self.cupy.cuda.Device().synchronize()
        return y


PEERS = {
    "ours": Ours,
    "ours on the CPU": lambda *arguments: Ours(*arguments, backend="cpu"),
    "jax": Jax,
    "torch eager": Torch,
    "torch.compile": lambda *arguments: Torch(*arguments, compiled=True),
    "cupy": Cupy,
}
