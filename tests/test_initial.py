"""Initial states: what their definitions say, the same for the same rng; nonsense is refused in words."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adjoint_rd import initial
from adjoint_rd.errors import InputError

REST, SEED = (1.0, 0.0), (0.5, 0.25)
SHAPES = [(40,), (24, 36), (12, 16, 20)]
shapes = st.lists(st.integers(1, 24), min_size=1, max_size=3).map(tuple)


def make(kind="square", shape=(48, 48), rest=REST, seed=SEED, rng=0, **options):
    return initial.make(kind, shape, rest, seed, rng, **options)


def cells_of(y, state):
    """Which cells hold exactly this state."""
    return np.all(y == np.reshape(state, (-1,) + (1,) * (y.ndim - 1)), axis=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", initial.KINDS)
class TestEveryKind:
    def test_gives_finite_float64_of_the_shape(self, kind, shape):
        y = make(kind, shape)
        assert y.shape == (2, *shape)
        assert y.dtype == np.float64
        assert y.flags.c_contiguous
        assert np.isfinite(y).all()

    def test_is_the_same_for_the_same_rng(self, kind, shape):
        y = make(kind, shape, rng=7)
        np.testing.assert_array_equal(y, make(kind, shape, rng=7))
        np.testing.assert_array_equal(y, make(kind, shape, rng=np.random.default_rng(7)))
        if kind != "uniform":
            assert not np.array_equal(y, make(kind, shape, rng=8))

    def test_works_for_other_numbers_of_species(self, kind, shape):
        assert make(kind, shape, rest=(0.0,), seed=(1.0,)).shape == (1, *shape)
        assert make(kind, shape, rest=(0.0, 1.0, 2.0), seed=(1.0, 1.0, 0.0)).shape == (3, *shape)

    def test_stays_within_clip(self, kind, shape):
        y = make(kind, shape, clip=((0.9, 0.0), (1.0, None)))
        assert y[0].min() >= 0.9 and y[0].max() <= 1.0 and y[1].min() >= 0.0


@settings(max_examples=60, deadline=None)
@given(shape=shapes, kind=st.sampled_from(list(initial.KINDS)), rng=st.integers(0, 2**32))
def test_defaults_fit_any_grid(shape, kind, rng):
    y = make(kind, shape, rng=rng, clip=(0, 1))
    assert y.shape == (2, *shape)
    assert y.min() >= 0.0 and y.max() <= 1.0


@settings(max_examples=40, deadline=None)
@given(shape=shapes, data=st.data())
def test_a_square_is_central_and_of_its_size(shape, data):
    size = data.draw(st.integers(1, min(shape)))
    inside = cells_of(make("square", shape, size=size, noise=0.0), SEED)
    assert inside.sum() == size ** len(shape)
    for axis, n in enumerate(shape):
        where = np.flatnonzero(inside.any(axis=tuple(i for i in range(len(shape)) if i != axis)))
        before, after = where[0], n - 1 - where[-1]
        assert where[-1] - where[0] + 1 == size
        assert 0 <= after - before <= 1


@pytest.mark.parametrize(("n", "side"), [(128, 20), (80, 20), (64, 16), (3, 1)])
def test_a_square_is_20_cells_or_a_quarter_of_the_grid(n, side):
    assert cells_of(make("square", (n, n)), SEED).sum() == side**2


def test_the_default_square_is_the_reference_experiment():
    """rest + 0.02 N(0, 1), clipped to [0, 1], then the square: written out, in that order of draws."""
    expected = np.array(REST)[:, None, None] + 0.02 * np.random.default_rng(3).standard_normal((2, 128, 128))
    expected = np.clip(expected, 0.0, 1.0)
    expected[:, 54:74, 54:74] = np.array(SEED)[:, None, None]
    np.testing.assert_allclose(make("square", (128, 128), rng=3, clip=(0, 1)), expected, rtol=0, atol=1e-15)


def test_uniform_is_rest_exactly():
    assert cells_of(make("uniform"), REST).all()


def test_noise_has_the_standard_deviation_asked_for():
    y = make("noise", (128, 128), noise=(0.05, 0.01))
    np.testing.assert_allclose(y.mean(axis=(1, 2)), REST, atol=2e-3)
    np.testing.assert_allclose(y.std(axis=(1, 2)), (0.05, 0.01), rtol=0.03)


def test_squares_cover_no_more_than_their_cells_and_one_of_them_exactly():
    assert cells_of(make("squares", count=1, size=7), SEED).sum() == 49
    assert 49 <= cells_of(make("squares", count=5, size=7), SEED).sum() <= 5 * 49


def test_a_disk_is_round_and_central():
    inside = cells_of(make("disk", (64, 64), radius=12.0), SEED)
    assert inside.sum() == pytest.approx(np.pi * 144, rel=0.03)
    for mirrored in (inside[::-1], inside[:, ::-1], inside.T):
        np.testing.assert_array_equal(inside, mirrored)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_stripe_crosses_the_grid(axis):
    inside = cells_of(make("stripe", (30, 40), width=6, axis=axis), SEED)
    assert inside.sum() == 6 * (40, 30)[axis]
    assert inside.all(axis=1 - axis % 2).sum() == 6


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
def test_sharp_islands_cover_the_fraction_asked_for(fraction):
    y = make("random", (64, 64), fraction=fraction, softness=0.0)
    inside = cells_of(y, SEED)
    assert inside.mean() == pytest.approx(fraction, abs=1e-3)
    assert (inside | cells_of(y, REST)).all()


def test_islands_are_as_smooth_as_their_length():
    """Neighbours agree much more often than in noise, and more so for longer islands, over the edges too."""
    changes = []
    for length in (2.0, 4.0, 8.0):
        inside = cells_of(make("random", (128, 128), length=length, softness=0.0), SEED)
        changes.append(np.mean([(inside != np.roll(inside, 1, axis)).mean() for axis in (0, 1)]))
        assert (inside[0] != inside[-1]).mean() < 0.3
    assert changes[0] > 1.5 * changes[1] > 2.25 * changes[2] > 0.0


@pytest.mark.parametrize("kind", ["random", "gaussians"])
def test_species_are_drawn_apart_only_when_independent(kind):
    for independent in (False, True):
        y = make(kind, rest=(0.0, 0.0), seed=(1.0, 1.0), independent=independent)
        assert np.array_equal(y[0], y[1]) is not independent


def test_gaussians_reach_both_states():
    y = make("gaussians", inside=(0, 1), outside=(1, 0))
    np.testing.assert_allclose([y.min(axis=(1, 2)), y.max(axis=(1, 2))], [[0, 0], [1, 1]], atol=1e-12)


def test_inside_and_outside_replace_seed_and_rest():
    y = make("square", noise=0.0, size=4, inside=(0.0, 1.0), outside=(0.4, 0.3))
    assert cells_of(y, (0.0, 1.0)).sum() == 16
    assert cells_of(y, (0.4, 0.3)).sum() == 48**2 - 16


def test_every_option_is_documented():
    for kind, function in initial.KINDS.items():
        for option in inspect.signature(function).parameters.values():
            if option.kind is option.KEYWORD_ONLY:
                assert f"    {option.name} :" in function.__doc__ or f", {option.name} :" in function.__doc__, (
                    kind,
                    option,
                )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(kind="sqare"), "Did you mean 'square'"),
        (dict(kind=None), "None"),
        (dict(sise=4), "Did you mean 'size'"),
        (dict(length=4.0), "'square' has no option 'length'"),
        (dict(size=49), "size=49.*48"),
        (dict(size=4.0), "whole number"),
        (dict(size=True), "whole number"),
        (dict(noise=-0.1), "noise=-0.1"),
        (dict(noise=np.nan), "noise=nan"),
        (dict(noise=(0.1, 0.1, 0.1)), "one per species"),
        (dict(clip=(1, 0)), "low <= high"),
        (dict(clip=(np.nan, 1)), "clip"),
        (dict(clip=0.5), "clip=0.5"),
        (dict(clip=((0, 0, 0), None)), "clip"),
        (dict(rng=-1), "rng=-1"),
        (dict(rng="0"), "rng='0'"),
        (dict(rng=1.5), "rng=1.5"),
        (dict(shape=(0, 4)), "shape"),
        (dict(shape=()), "shape"),
        (dict(shape=(4, 4, 4, 4)), "4 axes"),
        (dict(shape=(4.5, 4)), "shape"),
        (dict(rest=(1.0,)), "species"),
        (dict(inside=(1.0,)), "species"),
        (dict(seed=(0.5, np.inf)), "seed"),
        (dict(outside="ab"), "outside"),
        (dict(kind="squares", count=0), "count=0"),
        (dict(kind="disk", radius=25.0), "radius=25.0"),
        (dict(kind="disk", radius=0), "radius=0"),
        (dict(kind="stripe", axis=2), "axis=2"),
        (dict(kind="stripe", width=100), "width=100"),
        (dict(kind="random", fraction=1.0), "fraction=1.0"),
        (dict(kind="random", length=0.0), "length=0.0"),
        (dict(kind="random", softness=-1.0), "softness=-1.0"),
        (dict(kind="random", independent="yes"), "independent='yes'"),
        (dict(kind="gaussians", count=(5, 2)), "low <= high"),
        (dict(kind="gaussians", width=(0.0, 2.0)), "width=0.0"),
        (dict(kind="gaussians", amplitude="big"), "amplitude='big'"),
        (dict(kind="uniform", noise=0.1), "'uniform' has no option 'noise'"),
    ],
    ids=str,
)
def test_nonsense_is_refused_by_name(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)
