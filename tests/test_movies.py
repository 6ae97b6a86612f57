"""Parameters from moving patterns: short versions of validation/movie_suite.py, and the parts."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import linearised, models, presets
from adjoint_rd.inversion import movie_fit, start
from adjoint_rd.inversion.movie_start import Observer
from adjoint_rd.trajectory_fit.refinement import interpolate, weights

N = 32
NAMES = ("Du", "Dv", "F", "k")
OWN = dict(dt=1.0, scheme="euler")  # the frames are those of a run of this library


@pytest.fixture(scope="module")
def gamma():
    """(params, states at frames, their times) of a moving pattern."""
    preset = presets.get("gamma")
    sim = rd.Simulation(preset.model, rd.Grid((N, N)), dt=preset.dt, stability="off", threads=1)
    y = sim.run(sim.initial_state(**{**preset.initial, "count": 4}, rng=1), preset.parameters, steps=1200).final
    run = sim.run(y, preset.parameters, steps=200, save_every=10)
    assert run.final[1].std() > 0.02, "the pattern died"
    return dict(preset.parameters), run.states, run.steps.astype(float)


def noisy(v, fraction, seed):
    return v + fraction * v.max() * np.random.default_rng(seed).standard_normal(v.shape)


def scores(fit, params):
    return np.array([(fit.params[name] - params[name]) / fit.stderr[name] for name in NAMES])


def errors(fit, params):
    return np.array([fit.params[name] / params[name] - 1.0 for name in NAMES])


def test_noisy_frames_of_v_give_all_parameters_within_their_errors(gamma):
    params, states, times = gamma
    fit = rd.invert(noisy(states[:, 1], 0.01, 0), times=times, **OWN)
    assert fit.success, fit.message
    assert np.max(np.abs(scores(fit, params))) < 4.0
    assert np.max(np.abs(errors(fit, params))) < 0.02
    assert fit.noise == pytest.approx(0.01 * states[:, 1].max(), rel=0.05)


def test_noisy_frames_of_both_species_do_too(gamma):
    params, states, times = gamma
    fit = rd.invert(noisy(states, 0.01, 1), times=times, species=("u", "v"), **OWN)
    assert fit.success, fit.message
    assert np.max(np.abs(scores(fit, params))) < 4.0


def test_frames_of_noise_are_refused(gamma):
    frames = np.random.default_rng(0).random((11, N, N))
    fit = rd.invert(frames, times=np.arange(11.0))
    assert not fit.success and "noise" in fit.message


def test_frames_that_do_not_move_are_refused(gamma):
    _, states, times = gamma
    still = noisy(np.repeat(states[:1, 1], len(times), axis=0), 0.01, 0)
    fit = rd.invert(still, times=times, **OWN)
    assert not fit.success and "do not move" in fit.message


def test_the_observers_slopes_are_its_derivatives(gamma):
    params, states, times = gamma
    gray_scott = models.get("gray_scott")
    part = start.structure(gray_scott, 1, {})
    options = dict(cutoff=np.inf, band=np.inf, burn=2, span=3)
    observer = Observer(gray_scott, rd.Grid((N, N)), states[:9, 1], times[:9], part, {}, **options)
    x = np.log([1.2 * params[name] for name in part.inner])
    _, J, _ = observer.residual(x)
    for i in range(len(x)):
        h = np.zeros(len(x))
        h[i] = 1e-4
        slope = (observer.residual(x + h)[0] - observer.residual(x - h)[0]) / 2e-4
        # Kaufman's Jacobian: exact in the part that the residual does not see
        assert np.linalg.norm(J[:, i] - slope) < 0.5 * np.linalg.norm(slope)


@pytest.fixture(scope="module")
def window(gamma):
    params, states, _ = gamma
    data = states[:6, 1:] + 0.003 * np.random.default_rng(3).standard_normal(states[:6, 1:].shape)
    model, grid, weight, deviation = models.get("gray_scott"), rd.Grid((N, N)), np.array(1 / 0.003), np.array(0.1)
    frames = (10.0, range(6), 10, "euler", data, weight, (1,))
    return params, movie_fit.Window(model, grid, *frames, NAMES, {}, states[0], deviation)


def test_the_products_are_transposes_and_derivatives(window):
    params, w = window
    rng = np.random.default_rng(4)
    x, xi = np.log([params[name] for name in NAMES]), 0.1 * rng.standard_normal(2 * N * N)
    linear = movie_fit.Linearised(w, x, xi)
    t, m = rng.standard_normal(xi.size), rng.standard_normal(w.data.size)
    assert float(linear.forth(t) @ m) == pytest.approx(float(t @ linear.back(m)), rel=1e-10)
    h = 1e-4
    slope = (w.misfit(x, xi + h * t) - w.misfit(x, xi - h * t)).ravel() / (2 * h)
    np.testing.assert_allclose(linear.forth(t), slope, atol=1e-4 * np.abs(slope).max())


def test_the_covariance_is_the_inverse_of_the_schur_complement():
    """Against dense algebra on a grid of 6x6."""
    rng = np.random.default_rng(5)
    model, grid = models.get("gray_scott"), rd.Grid((6, 6))
    y0 = np.stack([0.5 + 0.1 * rng.random((6, 6)), 0.25 + 0.1 * rng.random((6, 6))])
    data = np.zeros((4, 1, 6, 6))
    deviation = np.array([0.2, 0.1]).reshape(2, 1, 1) * np.linspace(0.1, 1.0, 24).reshape(6, 4)
    frames = (5.0, range(4), 5, "euler", data, np.array(100.0), (1,))
    w = movie_fit.Window(model, grid, *frames, NAMES, {}, y0, deviation)
    x, xi = np.log([0.16, 0.08, 0.03, 0.06]), np.zeros(72)
    linear = movie_fit.Linearised(w, x, xi)
    J = np.concatenate([linear.Q.T @ linear.R, np.stack([linear.forth(e) for e in np.eye(72)], axis=1)], axis=1)
    dense = np.linalg.inv(J.T @ J + np.diag([0.0] * 4 + [1.0] * 72))[:4, :4]
    np.testing.assert_allclose(linear.covariance(1e-12, 200), dense, rtol=1e-5, atol=1e-6 * np.abs(dense).max())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"times": np.arange(3.0)}, "times has shape"),
        ({"times": -np.arange(21.0)}, "increase"),
        ({"dt": 3.0}, "dt=3.0"),
        ({"scale": None}, "scale=None"),
        ({"refine": ()}, "refine is empty"),
        ({"known": {"D": 1.0}}, "known has 'D'"),
        ({"species": "w"}, "species has 'w'"),
        ({"boundary": "cropped"}, "boundary='cropped'"),
        ({"offset": True}, "offset="),
        ({"mask": np.ones((3, 3), dtype=bool)}, "mask has"),
    ],
)
def test_wrong_arguments_are_named(gamma, options, words):
    _, states, times = gamma
    with pytest.raises(rd.InputError) as error:
        rd.invert(states[:, 1], **{"times": times, **options})
    assert words in str(error.value)


@pytest.mark.parametrize("scheme, dt", [("euler", 1.0), ("rk4", 1.0)])
def test_the_time_step_of_the_frames_is_found(gamma, scheme, dt):
    params, states, times = gamma
    sim = rd.Simulation("gray_scott", rd.Grid((N, N)), dt=dt, scheme=scheme, stability="off", threads=1)
    frames = sim.run(states[0], params, steps=200, save_every=10).states[:, 1]
    fit = rd.invert(noisy(frames, 0.002, 0), times=times)
    assert fit.success, fit.message
    assert ("Explicit Euler with dt 1;" in fit.message) == (scheme == "euler")
    assert np.max(np.abs(scores(fit, params))) < 4.0


@pytest.mark.parametrize("keep", [0, 2**28])
@pytest.mark.parametrize("shape", [(12, 10), (128, 128)])  # the latter's buffers are padded
def test_a_linearised_run_has_the_tangents_and_the_gradient_of_the_simulation(shape, keep, monkeypatch):
    monkeypatch.setattr(linearised, "KEEP_BYTES", keep)
    rng = np.random.default_rng(6)
    sim = rd.Simulation("gray_scott", rd.Grid(shape), dt=1.0, threads=1)
    params, marks = dict(Du=0.16, Dv=0.08, F=0.03, k=0.06), [0, 4, 7]
    y0, t = (0.3 * rng.random((2, *shape)) for _ in range(2))
    run = linearised.LinearisedRun(sim, y0, params, marks)
    expected = sim.tangents_at(y0, params, marks, direction={"F": 1.0}, initial=t)
    np.testing.assert_array_equal(run.forth({"F": 1.0}, t), [each.tangent for each in expected])
    seeds = rng.standard_normal((3, 1, *shape))
    losses = {}
    for mark, seed in zip(marks, seeds, strict=True):
        losses[mark] = rd.losses.Linear(np.concatenate([0.0 * seed, seed]))
    gradient = sim.gradient(y0, params, rd.losses.Trajectory(losses), steps=7)
    np.testing.assert_allclose(run.back(seeds, [1]), gradient.initial, rtol=0, atol=1e-14)


def test_the_extrapolation_is_exact_for_even_powers_of_the_spacing():
    s = 1.0 / np.array([1, 2, 3]) ** 2
    assert weights((1, 2, 3)) @ (5.0 + 2.0 * s - 3.0 * s**2) == pytest.approx(5.0)


def test_frames_of_the_continuous_equations_are_fitted_by_corrected_runs(gamma):
    """Frames of a run on a grid four times finer, whose own error is a sixteenth."""
    params, states, times = gamma
    fine = rd.Simulation("gray_scott", rd.Grid((4 * N, 4 * N), spacing=0.25), dt=1 / 16, stability="off", threads=1)
    y0 = interpolate(states[0], 4)
    frames = fine.run(y0, params, steps=1600, save_every=160).states[:, :, ::4, ::4]
    options = dict(times=times[:11], species=("u", "v"), noise=0.001)
    frames = frames + 0.001 * np.random.default_rng(0).standard_normal(frames.shape)
    fit = rd.invert(frames, refine=(1, 2, 3), **options)
    assert fit.success, fit.message
    assert np.max(np.abs(errors(fit, params))) < 0.01
    assert "Corrected" in fit.message
    plain = rd.invert(frames, **options)
    assert not plain.success or np.max(np.abs(errors(plain, params))) > 0.01
