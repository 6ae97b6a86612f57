"""Images that are no steady Gray-Scott pattern, for the refusals of the inversion suite."""

import numpy as np

import adjoint_rd as rd


def impostors(size, each):
    """Yield (name, image): `each` of uniform, noise, stripes with and without noise, rounded square stripes, blobs.

    Then patterns of Schnakenberg's model.
    """
    rng = np.random.default_rng(6)
    i, j = np.mgrid[:size, :size]
    for n in range(each):
        m = int(rng.integers(3, size // 6))
        level, swing = rng.uniform(0.1, 0.4), rng.uniform(0.02, 0.15)
        wave = np.sin(2 * np.pi * (m * i + int(rng.integers(0, 3)) * j) / size)
        noise = rng.standard_normal((size, size))
        yield f"uniform {n}", np.full((size, size), level) + (0.01 * noise if n % 2 else 0.0)
        yield f"noise {n}", rng.random((size, size)) if n % 2 else noise
        yield f"stripes {n}", level + swing * wave
        yield f"stripes, noise {n}", level + swing * wave + 0.01 * swing * noise
        yield f"square stripes {n}", np.round(255 * (level + swing * np.tanh(4 * wave))) / 255
        yield f"blobs {n}", level + swing * _blobs(size, m, rng) + (0.01 * swing * noise if n % 2 else 0.0)
    yield from _schnakenberg(size, max(each // 4, 1), rng)


def _blobs(size, m, rng):
    """A Gaussian random field with wavenumbers about m, squashed: it looks like a Turing pattern."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size) * size, np.fft.fftfreq(size) * size, indexing="ij"))
    hat = np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-((k - m) ** 2) / 2)
    field = np.fft.ifft2(hat).real
    return np.tanh(field / field.std())


def _schnakenberg(size, count, rng):
    sim = rd.Simulation("schnakenberg", rd.Grid((size, size)), dt=0.01, stability="off", threads=1)
    for n in range(count):
        params = {"Du": 0.5, "Dv": 20.0, "a": 0.1 + 0.02 * n, "b": 0.9, "gamma": 1.0}
        y = sim.run(sim.initial_state("noise", rng=n, params=params), params, steps=6000).final
        for name, field in zip("uv", y, strict=True):
            image = 0.35 * field / field.max()
            yield f"schnakenberg {name} {n}", image
            yield f"schnakenberg {name} {n}, noise", image + 0.003 * rng.standard_normal(image.shape)
