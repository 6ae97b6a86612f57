"""The losses of pattern statistics: their derivatives, what they are blind to, and what they are not blind to."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import losses
from adjoint_rd import pattern_losses as pl

SHAPE = (24, 32)


def pattern(seed, shape=SHAPE):
    """Smooth random waves in two species, with a rough part, none symmetric."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((2, *shape))
    for axis in (1, 2):
        y = y + 0.7 * np.roll(y, 1, axis) + 0.4 * np.roll(y, 2, axis)
    return 0.3 + 0.1 * np.tanh(y)


MAKE = {
    "log-spectrum": lambda t, **o: pl.LogSpectrum(t, **o),
    "log-spectrum-mean-kept": lambda t, **o: pl.LogSpectrum(t, **o, mean="keep"),
    "log-spectrum-radial": lambda t, **o: pl.LogSpectrum(t, **o, radial=True),
    "log-spectrum-hann": lambda t, **o: pl.LogSpectrum(t, **o, window="hann", radial=True),
    "log-spectrum-patches": lambda t, **o: pl.LogSpectrum(t, **o, patch=16, window="hann"),
    "log-spectrum-patches-stride-1": lambda t, **o: pl.LogSpectrum(t, **o, patch=8, stride=1, radial=True),
    "autocorrelation": lambda t, **o: pl.Autocorrelation(t, **o, max_lag=7),
    "autocorrelation-mean-kept": lambda t, **o: pl.Autocorrelation(t, **o, max_lag=7, mean="keep"),
    "moments": lambda t, **o: pl.Moments(t, **o),
    "moments-up-to-6": lambda t, **o: pl.Moments(t, **o, orders=(1, 2, 5, 6)),
    "histogram": lambda t, **o: pl.Histogram(t, **o, bins=12),
    "histogram-cumulative": lambda t, **o: pl.Histogram(t, **o, bins=12, cumulative=True),
    "gram-texture": lambda t, **o: pl.GramTexture(t, **o, wavelengths=(4, 8), orientations=3),
    "weighted": lambda t: pl.Weighted([pl.LogSpectrum(t), losses.L2(t), pl.Moments(t)], [0.5, 2.0, 3.0]),
}
SHIFT_SENSITIVE = {"log-spectrum-hann", "log-spectrum-patches", "weighted"}
INVARIANT = [name for name in MAKE if name not in SHIFT_SENSITIVE]


@pytest.fixture(params=MAKE)
def loss(request):
    return MAKE[request.param](pattern(1))


def observed_orders(remainders, hs):
    return np.log(np.divide(remainders[:-1], remainders[1:])) / np.log(np.divide(hs[:-1], hs[1:]))


def taylor_orders(loss, y, t, terms):
    """Orders of L(y + h t) - (the first `terms` terms), for halved h."""
    hs = 4e-3 * 0.5 ** np.arange(6)
    value, seed, second = loss.value(y), np.sum(loss.seed(y) * t), np.sum(loss.seed_tangent(y, t) * t)
    series = [lambda h: value, lambda h: h * seed, lambda h: 0.5 * h * h * second][:terms]
    return observed_orders([abs(loss.value(y + h * t) - sum(part(h) for part in series)) for h in hs], hs)


def direction(seed=3):
    return 0.2 * np.random.default_rng(seed).standard_normal((2, *SHAPE))


def test_the_remainder_is_of_order_2_with_the_seed(loss):
    orders = taylor_orders(loss, pattern(2), direction(), 2)
    assert abs(orders[-1] - 2.0) < 0.1


def test_the_remainder_is_of_order_3_with_the_seed_tangent(loss):
    y, t = pattern(2), direction()
    orders = taylor_orders(loss, y, t, 3)
    assert abs(orders[-1] - 3.0) < 0.25, orders


@pytest.mark.parametrize("part", ["seed", "seed_tangent"])
def test_the_taylor_test_can_fail(loss, part):
    class Wrong:
        value, seed, seed_tangent = staticmethod(loss.value), staticmethod(loss.seed), staticmethod(loss.seed_tangent)

    right = getattr(loss, part)
    setattr(Wrong, part, staticmethod(lambda *given: 1.5 * right(*given)))
    terms = 2 if part == "seed" else 3
    assert taylor_orders(Wrong, pattern(2), direction(), terms)[-1] < terms - 0.4


def test_the_seed_agrees_with_finite_differences(loss):
    y, seed = pattern(2), loss.seed(pattern(2))
    h = 1e-5
    for index in [(0, 0, 0), (1, 3, 5), (0, 23, 31), (1, 11, 0)]:
        t = np.zeros(y.shape)
        t[index] = 1.0
        slope = (loss.value(y + h * t) - loss.value(y - h * t)) / (2 * h)
        assert slope == pytest.approx(seed[index], rel=1e-5, abs=1e-7 * np.abs(seed).max())


def test_the_seed_tangent_agrees_with_finite_differences_and_is_symmetric(loss):
    y, s, t = pattern(2), direction(3), direction(4)
    h = 1e-5
    difference = (loss.seed(y + h * t) - loss.seed(y - h * t)) / (2 * h)
    exact = loss.seed_tangent(y, t)
    assert np.abs(difference - exact).max() < 1e-6 * np.abs(exact).max()
    assert np.sum(s * exact) == pytest.approx(np.sum(t * loss.seed_tangent(y, s)), rel=1e-10)


def test_the_value_is_half_the_squared_misfit_and_its_tangent_fits(loss):
    y, t, h = pattern(2), direction(), 1e-5
    m = loss.misfit(y)
    assert 0.5 * m @ m == pytest.approx(loss.value(y), rel=1e-13)
    difference = (loss.misfit(y + h * t) - loss.misfit(y - h * t)) / (2 * h)
    exact = loss.misfit_tangent(y, t)
    assert np.abs(difference - exact).max() < 1e-6 * np.abs(exact).max()
    assert m @ exact == pytest.approx(np.sum(loss.seed(y) * t), rel=1e-10)


def test_it_is_zero_at_its_target_and_positive_elsewhere(loss):
    assert loss.value(pattern(1)) < 1e-20
    assert np.abs(loss.seed(pattern(1))).max() < 1e-8
    assert loss.value(pattern(2)) > 1e-4


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("shift", [(1, 0), (5, 11), (12, 16)])
def test_it_is_invariant_under_periodic_shifts(name, shift):
    loss, y = MAKE[name](pattern(1)), pattern(2)
    moved = np.roll(y, shift, axis=(1, 2))
    assert loss.value(moved) == pytest.approx(loss.value(y), rel=1e-10)
    assert loss.value(np.roll(pattern(1), shift, axis=(1, 2))) < 1e-10
    seed = np.roll(loss.seed(y), shift, axis=(1, 2))
    assert np.abs(loss.seed(moved) - seed).max() < 1e-9 * np.abs(seed).max()


@pytest.mark.parametrize("name", sorted(SHIFT_SENSITIVE))
def test_the_invariance_test_can_fail(name):
    loss = MAKE[name](pattern(1))
    assert loss.value(np.roll(pattern(1), (5, 11), axis=(1, 2))) > 1e-6


def test_without_the_floor_rounding_errors_of_empty_modes_are_seen():
    smooth = np.sin(2 * np.pi * np.arange(32) / 32)[None, None] * np.ones((1, 32, 32)) + 0.1
    moved = np.roll(smooth, (3, 7), axis=(1, 2))
    assert pl.LogSpectrum(smooth, floor=1e-3).value(moved) < 1e-20
    assert pl.LogSpectrum(smooth, floor=1e-40).value(moved) > 1.0


def test_float32_states_are_summed_in_float64(loss):
    y = pattern(2).astype(np.float32)
    assert loss.value(y) == pytest.approx(loss.value(y.astype(np.float64)), rel=1e-6)
    assert loss.seed(y).dtype == np.float64


@pytest.mark.parametrize("name", [name for name in MAKE if name != "weighted"])
def test_one_species_gives_a_seed_in_that_species_only(name):
    target, y = pattern(1), pattern(2)
    both = MAKE[name](target)
    one = MAKE[name](target[1], species=1)
    seed = one.seed(y)
    assert np.all(seed[0] == 0.0) and np.any(seed[1] != 0.0)
    assert np.all(one.seed_tangent(y, direction())[0] == 0.0)
    listed = MAKE[name](target[[1, 0]], species=[1, 0])
    assert listed.value(y) == pytest.approx(both.value(y), rel=1e-12)


def test_several_targets_give_the_mean_of_their_features_and_a_spread():
    targets = [pattern(n) for n in range(1, 6)]
    loss = pl.Moments(targets, sigma="targets")
    singles = np.array([loss.features(t) for t in targets])
    assert np.allclose(loss.target, singles.mean(axis=0))
    assert loss.value(pattern(7)) < 0.5 * 8 * 25
    assert loss.value(2.0 * pattern(7)) > 100 * loss.value(pattern(7))
    with pytest.raises(rd.InputError, match="at least two"):
        pl.Moments(pattern(1), sigma="targets")


def test_moments_and_histograms_take_targets_of_another_size_and_grids_of_one_and_three_axes():
    for kind in (pl.Moments, pl.Histogram):
        assert kind(pattern(1, (48, 64))).value(pattern(2)) > 0.0
        rng = np.random.default_rng(0)
        for shape in [(40,), (6, 7, 8)]:
            loss, y = kind(rng.random((2, *shape))), rng.random((2, *shape))
            assert loss.seed(y).shape == y.shape


def test_dead_patterns_have_finite_losses_and_seeds(loss):
    for y in (np.zeros((2, *SHAPE)), np.ones((2, *SHAPE))):
        assert np.isfinite(loss.value(y))
        assert np.isfinite(loss.seed(y)).all()
        assert np.isfinite(loss.seed_tangent(y, direction())).all()


def test_the_gram_texture_sees_what_the_spectrum_does_not():
    rng = np.random.default_rng(0)
    spots = np.zeros((1, 32, 32))
    spots[0, ::8, ::8] = 1.0
    spots += 0.05 * rng.standard_normal(spots.shape)
    X = np.fft.fft2(spots[0])
    noise = np.angle(np.fft.fft2(rng.standard_normal((32, 32))))
    scrambled = np.fft.ifft2(np.abs(X) * np.exp(1j * noise)).real[None]
    scrambled += spots.mean() - scrambled.mean()
    assert pl.LogSpectrum(spots, radial=True).value(scrambled) < 1e-10
    assert pl.GramTexture(spots, wavelengths=(4, 8)).value(scrambled) > 1e-2


def test_gradients_through_a_run_pass_the_taylor_test():
    sim = rd.Simulation("gray_scott", rd.Grid(SHAPE), dt=1.0)
    y0 = sim.initial_state("square", rng=0)
    true = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
    for make in (MAKE["log-spectrum-radial"], MAKE["gram-texture"], MAKE["histogram"]):
        loss = make(sim.run(y0, true, steps=60).final)
        obj = rd.Objective(sim, y0, loss, steps=40, free=("Du", "Dv", "F", "k"))
        x = obj.pack(Du=0.15, Dv=0.085, F=0.04, k=0.06)
        d = np.array([0.3, -0.2, 0.5, 0.1])
        value, gradient = obj.value_and_grad(x)
        hs = 1e-2 * 0.5 ** np.arange(4)
        first = [abs(obj(x + h * d) - value - h * gradient @ d) for h in hs]
        second = [abs(obj(x + h * d) - value - h * gradient @ d - 0.5 * h * h * d @ obj.hessp(x, d)) for h in hs]
        assert observed_orders(first, hs)[-1] == pytest.approx(2.0, abs=0.1)
        assert observed_orders(second, hs)[-1] == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pl.LogSpectrum(np.ones((2, 8, 8))), "uniform"),
        (lambda: pl.GramTexture(np.ones((2, 8, 8))), "uniform"),
        (lambda: pl.Autocorrelation(pattern(1), max_lag=12), "half"),
        (lambda: pl.LogSpectrum(pattern(1), patch=40), "larger than the pattern"),
        (lambda: pl.LogSpectrum(pattern(1), stride=4), "give patch"),
        (lambda: pl.LogSpectrum(pattern(1), window="han"), "Did you mean 'hann'"),
        (lambda: pl.LogSpectrum(pattern(1), floor=0.0), "floor"),
        (lambda: pl.LogSpectrum([]), "empty"),
        (lambda: pl.Moments(pattern(1), species=[0]), "does not fit"),
        (lambda: pl.Moments(pattern(1), sigma=-1.0), "sigma"),
        (lambda: pl.Histogram(pattern(1), range=(1, 0)), "low < high"),
        (lambda: pl.Moments(np.full((2, 4, 4), np.nan)), "not finite"),
        (lambda: pl.Weighted([pl.Moments(pattern(1))], []), "one for each"),
        (lambda: pl.Weighted([pl.Moments(pattern(1))], [-1.0]), ">= 0"),
        (lambda: pl.LogSpectrum(pattern(1)).value(pattern(1, (8, 8))), "features"),
        (lambda: pl.Moments(pattern(1)[0], species=5).value(pattern(1)), "species"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(build, message):
    with pytest.raises(rd.InputError, match=message):
        build()
