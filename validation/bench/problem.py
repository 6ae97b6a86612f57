"""The problem that every peer solves, a small value that travels to a worker process as JSON.

    u' = u + dt (Du Lap u - u v^2 + F (1 - u))        Lap: five-point star, spacing 1, periodic
    v' = v + dt (Dv Lap v + u v^2 - (F + k) v)
    L  = 0.5 sum((y_N - target)^2)                     wanted: L, dL/d(Du, Dv, F, k), dL/dy_0

The start is a board of 16 x 16 tiles, half of them well seeded, with a little noise: patterns live on it at every
size, and v
does not sink to denormal numbers, which would time the processor's microcode instead of the peers. The target is
noise. Weak
seeds (v = 0.25) or a zero target leave spots on the edge of dying and sums that cancel: float32 gradients, good to
1e-4 here, then differ from float64 by 1e-3 in every peer.
"""

from dataclasses import asdict, dataclass

import numpy as np

PARAMS = {"Du": 0.16, "Dv": 0.08, "F": 0.035, "k": 0.065}
STEPS = {64: 800, 128: 400, 256: 200, 512: 100, 1024: 50, 2048: 25}


def default_steps(n):
    """Steps at size n: the work grows with n, the trajectory of n = 1024 stays below 1 GB."""
    return STEPS.get(n, max(4, 51_200 // n))


@dataclass(frozen=True)
class Problem:
    n: int
    steps: int
    dtype: str = "float64"
    dt: float = 1.0
    seed: int = 0
    zero_target: bool = False

    @property
    def words(self):
        """Numbers in one field."""
        return self.n * self.n

    @property
    def itemsize(self):
        return np.dtype(self.dtype).itemsize

    def initial(self):
        rng = np.random.default_rng(self.seed)
        tiles = rng.random((-(-self.n // 16),) * 2) < 0.5
        seeded = np.kron(tiles, np.ones((16, 16)))[: self.n, : self.n]
        noise = rng.random((2, self.n, self.n))
        return np.stack([1 - 0.5 * seeded - 0.02 * noise[0], 0.4 * seeded + 0.02 * noise[1]]).astype(self.dtype)

    def target(self):
        if self.zero_target:
            return np.zeros((2, self.n, self.n), self.dtype)
        return np.random.default_rng(self.seed + 1).random((2, self.n, self.n)).astype(self.dtype)

    def as_dict(self):
        return asdict(self)
