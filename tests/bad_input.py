"""What the tests of bad input share: a small system, arrays that are wrong in some way, and how a refusal must look."""

import numpy as np
import pytest

import adjoint_rd as rd

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
SHAPE = (5, 6)
Y0 = np.random.default_rng(0).random((2, *SHAPE))
LOSS = rd.losses.L2(Y0)


def simulation(**options):
    given = dict(model="gray_scott", grid=rd.Grid(SHAPE), dt=0.5) | options
    return rd.Simulation(given.pop("model"), given.pop("grid"), **given)


SIM = simulation()
MASKED = np.ma.masked_array(Y0, mask=Y0 > 0.5)
HOLED = np.where(Y0 > 0.5, np.nan, Y0)
RAGGED = [[1.0, 2.0], [3.0]]


def refused(words, call, error=rd.InputError, most=500):
    """`call()` raises `error` with these words (a pattern), in at most so many characters, and no error of Numba's."""
    with pytest.raises(error, match=words) as caught:
        call()
    assert "numba" not in type(caught.value).__module__
    assert len(str(caught.value)) < most


class OnACard:
    """Like an array of CuPy: NumPy must not read it."""

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")


class WithGradient:
    """Like a tensor of torch that needs a gradient."""

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
