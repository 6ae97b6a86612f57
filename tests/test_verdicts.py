"""When an inversion refuses, and in which words: each reason, and that it is not given for a good fit."""

from types import SimpleNamespace

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import models
from adjoint_rd.inversion import cleanup, constraints, movie_verdict, verdict

GRAY_SCOTT = models.get("gray_scott")
GRID = rd.Grid((24, 24))
TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
REST = np.stack([np.ones((24, 24)), np.zeros((24, 24))])
WAVE = 0.2 + 0.1 * np.cos(2 * np.pi * np.arange(24) / 8.0)[:, None] * np.ones(24)


def fit(**changes):
    return SimpleNamespace(**dict(noise=0.01, chi2=1.0, state=np.stack([1 - WAVE, WAVE]), converged=True) | changes)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((24, 24), 0.3), "uniform"),
        (np.round(2 * WAVE / WAVE.max()) / 2, "only 2 levels"),
        (np.random.default_rng(0).random((24, 24)), "the image is noise: no wavenumber stands out"),
    ],
)
def test_an_image_without_a_pattern_is_refused(image, words):
    assert words in verdict.no_pattern(image, cleanup.spectrum(image, GRID), 4)


def test_a_single_wave_holds_too_few_numbers():
    noisy = WAVE + 0.01 * np.random.default_rng(0).standard_normal(WAVE.shape)
    said = verdict.no_pattern(noisy, cleanup.spectrum(noisy, GRID), 4)
    assert "Fourier amplitudes above the noise" in said and "4 parameters cannot be told from so few" in said


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (TRUE, None),
        (TRUE | dict(k=np.nan), "k = nan"),
        (TRUE | dict(Du=1e-5), "Du = 1e-05, too small for a pattern that this grid resolves"),
        (TRUE | dict(Dv=1e4), "Dv = 1e+04, which would even out everything on this grid"),
        (TRUE | dict(F=3.0), "F = 3, outside the range of patterns"),
    ],
)
def test_implausible_parameters_are_refused(params, words):
    assert verdict.implausible(params, GRAY_SCOTT, GRID) == words


def test_a_misfit_beyond_the_noise_is_refused():
    assert verdict.misfit(fit(), GRAY_SCOTT) is None
    assert "the misfit is 2.00 times the noise" in verdict.misfit(fit(chi2=4.0), GRAY_SCOTT)
    spectrum = SimpleNamespace(noise=0.01)
    assert verdict.too_rough(fit(), spectrum, True, 576, GRAY_SCOTT) is None
    assert "the misfit, 0.02, is more than the noise of 0.01" in verdict.too_rough(
        fit(chi2=4.0), spectrum, True, 576, GRAY_SCOTT
    )
    assert verdict.not_converged(fit()) is None and "did not converge" in verdict.not_converged(fit(converged=False))


@pytest.mark.parametrize(
    ("state", "params", "words"),
    [
        (np.stack([1 - WAVE, WAVE]), TRUE, "the fitted state does not last: after a time of"),
        (1e3 * np.stack([1 - WAVE, -WAVE]), TRUE, "does not survive when the model runs on from it"),
    ],
)
def test_a_state_that_does_not_stay_is_refused(state, params, words):
    reason, change = verdict.runs_on(GRAY_SCOTT, GRID, state, params, 0.0)
    assert words in reason and change > verdict.MOST_CHANGE


def test_a_steady_state_stays():
    sim = rd.Simulation("gray_scott", GRID, dt=1.0, threads=1)
    state = sim.run_to_steady(sim.initial_state("square", rng=2, size=8), TRUE, tol=1e-5, max_steps=30_000).final
    reason, change = verdict.runs_on(GRAY_SCOTT, GRID, state, TRUE, 1e-5)
    assert state[1].std() > 0.05 and reason is None and change < 0.01


# Movies


def matched(misfit, weight=1.0, chi2=None):
    """A matching that leaves this misfit (frames, species, *grid), in units of the noise."""
    window = SimpleNamespace(
        weights=np.full(misfit.shape, weight), count=misfit.size, params=lambda x: dict(zip(TRUE, x, strict=True))
    )
    return SimpleNamespace(
        window=window,
        fit=SimpleNamespace(misfit=misfit, chi2=np.mean(misfit**2) if chi2 is None else chi2, x=[*TRUE.values()]),
    )


NOISE = np.random.default_rng(3).standard_normal((6, 1, 24, 24))
MOVIE = SimpleNamespace(
    model=GRAY_SCOTT, grid=GRID, frames=np.tile(WAVE, (6, 1, 1, 1)), seen=np.ones((6, 1, 24, 24), bool)
)


def test_white_noise_is_all_that_a_movies_fit_may_leave():
    assert movie_verdict.misfit(MOVIE, matched(NOISE), floored=False) is None
    assert "the misfit is 1.5" in movie_verdict.misfit(MOVIE, matched(1.5 * NOISE), floored=False)
    one = NOISE.copy()
    one[3] *= 1.6
    assert "times in frame 3" in movie_verdict.misfit(MOVIE, matched(one / np.sqrt(np.mean(one**2))), floored=False)
    smooth = NOISE + np.roll(NOISE, 1, -1)
    said = movie_verdict.misfit(MOVIE, matched(smooth / smooth.std()), floored=False)
    assert "the misfits of neighbouring cells correlate (0.5" in said


def test_frames_without_noise_must_be_matched_to_a_small_part_of_their_spread():
    left = 0.01 * WAVE.std() * NOISE
    assert movie_verdict.misfit(MOVIE, matched(left), floored=True) is None
    assert "20.0 % of their spread is left" in movie_verdict.misfit(
        MOVIE, matched(left, chi2=(0.2 * WAVE.std()) ** 2), floored=True
    )


def test_implausible_parameters_of_a_movie_are_refused():
    good, bad = matched(NOISE), matched(NOISE)
    bad.fit.x = [0.16, 0.08, 3.0, 0.06]
    assert movie_verdict.implausible(MOVIE, good) is None
    assert "matching leads to F = 3, outside the range" in movie_verdict.implausible(MOVIE, bad)


def test_a_success_says_what_is_loose_and_what_the_frames_own_time_step_is():
    good = matched(NOISE)
    good.window.sim = SimpleNamespace(scheme_name="rk4", dt=0.5)
    good.step = SimpleNamespace(estimate=1.02, deviation=0.01, agrees=False)
    good.correction = None
    movie = SimpleNamespace(**vars(MOVIE), free=tuple(TRUE), refine=(1,))
    said = movie_verdict.praise(movie, good, np.array([0.02, 0.001, 0.001, 0.003]), 0.01)
    assert "the largest standard error is 2 % (Du). The data do not determine Du to 1 %. RK4 with dt 0.5" in said
    assert "own time step, estimated: 1.02 +- 0.01. No scheme tried agrees" in said


# Estimates


def test_a_constraint_on_what_is_exactly_known_is_met_or_infinitely_far_off():
    mean, cov = np.array([1.0, 2.0]), np.diag([0.0, 1.0])
    assert constraints.condition(mean, cov, np.array([1.0, 0.0]), 1.0)[2] == 0.0
    assert constraints.condition(mean, cov, np.array([1.0, 0.0]), 1.1)[2] == np.inf


def test_levels_that_are_no_multiples_of_a_step_are_not_quantised():
    rng = np.random.default_rng(0)
    assert cleanup.quantisation(rng.integers(0, 9, 2000) / 8.0) == pytest.approx(1 / 8)
    assert cleanup.quantisation(rng.choice([0.0, 1.0, 2.4, 3.1, 4.7, 5.9, 7.03], 2000)) == 0.0


@pytest.mark.parametrize("boundary", ["periodic", "neumann", ("periodic", "neumann")])
def test_holes_are_filled_smoothly(boundary):
    grid = rd.Grid((24, 24), boundary=boundary)
    known = np.ones(WAVE.shape, bool)
    known[:3, 5:9] = False
    filled = cleanup.fill(np.where(known, WAVE, 9.0), known, grid)
    assert np.array_equal(filled[known], WAVE[known]) and np.abs(filled - WAVE).max() < 0.15
    assert cleanup.fill(WAVE, np.ones_like(known), grid) is WAVE


def test_nothing_is_cut_off_above_an_infinite_wavenumber():
    assert cleanup.low_pass(WAVE, GRID, np.inf) is WAVE
    assert np.ptp(cleanup.low_pass(WAVE, GRID, 0.1)) < 1e-12
