"""Parameters from frames: the pieces, and fits of small patterns whose parameters are known."""

from dataclasses import replace

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd.io import Observation
from adjoint_rd.trajectory_fit import Subsampled, fit_trajectory, interpolate, known_parameters

TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06)
RNG = np.random.default_rng(0)


def observe(states, interval=10.0, spacing=1.0, **changes):
    """Frames as a file gives them."""
    content = dict(
        fields=np.asarray(states),
        times=interval * np.arange(len(states)),
        spacing=(spacing,) * (np.ndim(states) - 2),
        parameters=TRUE,
        names=("u", "v"),
        boundary=("periodic",) * (np.ndim(states) - 2),
        source="test",
    )
    return Observation(**{**content, **changes})


def smooth_start(shape, lengths):
    """Gentle bumps of u and v."""
    x = np.meshgrid(*[2 * np.pi * np.arange(n) / n for n in shape], indexing="ij")
    v = sum(np.cos(each * m) for each, m in zip(x, lengths, strict=True)) + 0.5 * np.cos(sum(x))
    v = 0.18 + 0.05 * v
    return np.stack([1 - 2 * v, v])


@pytest.fixture(scope="module")
def own():
    """Frames of a run on the same grid, in half the time step that a fit would choose."""
    sim = rd.Simulation("gray_scott", rd.Grid((20, 16)), dt=0.5)
    return observe(sim.run(smooth_start((20, 16), (2, 1)), TRUE, steps=80, save_every=20).states)


@pytest.fixture(scope="module")
def fine():
    """Frames of a run on a grid 6 times finer: the discretisation matters at R=1."""
    R, n = 6, 16
    sim = rd.Simulation("gray_scott", rd.Grid((n * R, n * R), spacing=1 / R), dt=0.025)
    states = sim.run(smooth_start((n * R, n * R), (2, 2)), TRUE, steps=800, save_every=200).states
    return observe(states[..., ::R, ::R], interval=5.0)


# The pieces


@pytest.mark.parametrize("shape", [(7,), (8,), (6, 9), (4, 5, 6)])
@pytest.mark.parametrize("R", [1, 2, 3])
def test_interpolation_is_exact_for_waves_that_the_grid_holds(shape, R):
    def wave(n):
        x = np.meshgrid(*[2 * np.pi * np.arange(each) / each for each in n], indexing="ij")
        total = sum((i + 1) * np.cos(each) + np.sin(each + 0.3) for i, each in enumerate(x)) + np.cos(sum(x) + 0.7)
        return np.stack([total, 1 - total])

    found = interpolate(wave(shape), R)
    assert np.allclose(found, wave(tuple(R * n for n in shape)), atol=1e-13)


@pytest.mark.parametrize("shape", [(7,), (8,), (6, 9), (4, 5, 6)])
def test_interpolation_keeps_the_given_cells(shape):
    state = RNG.random((2, *shape))  # the highest mode included
    found = interpolate(state, 3)
    assert found.dtype == np.float64
    assert np.allclose(found[(slice(None), *(slice(None, None, 3),) * len(shape))], state, atol=1e-14)


def test_the_derivatives_of_a_subsampled_loss():
    y, t = RNG.random((2, 9, 6)), RNG.standard_normal((2, 9, 6))
    loss = Subsampled(rd.losses.L2(RNG.random((2, 3, 2)), sigma=[[[0.5]], [[2.0]]]), 3)
    m = loss.misfit(y)
    assert m.size == 12 and loss.value(y) == pytest.approx(0.5 * m @ m)
    h = 1e-6
    assert np.sum(loss.seed(y) * t) == pytest.approx(
        (loss.value(y + h * t) - loss.value(y - h * t)) / (2 * h), rel=1e-8
    )
    assert np.allclose(loss.misfit_tangent(y, t), (loss.misfit(y + h * t) - loss.misfit(y - h * t)) / (2 * h))
    assert np.sum(loss.seed(y) * t) == pytest.approx(m @ loss.misfit_tangent(y, t))
    assert np.allclose(loss.seed_tangent(y, t), (loss.seed(y + h * t) - loss.seed(y - h * t)) / (2 * h))
    assert np.count_nonzero(loss.seed(y)) == 12


def test_truth_is_found_under_the_files_own_names():
    model = rd.models.gray_scott
    well = observe(np.ones((2, 2, 4)), names=("A", "B"), parameters=dict(D_A=1.0, D_B=2.0, f=3.0, K=4.0, dt=5.0))
    assert known_parameters(well, model) == dict(Du=1.0, Dv=2.0, F=3.0, k=4.0)
    assert known_parameters(replace(well, names=()), model) == dict(F=3.0, k=4.0)


# Fits


@pytest.mark.parametrize("method", ["adjoint", "least_squares"])
def test_frames_of_the_same_grid_give_the_parameters_back(own, method):
    start = dict(Du=0.2, Dv=0.06, F=0.04, k=0.055)
    fit = fit_trajectory(own, refine=1, start=start, method=method)
    one = fit.refinements[0]
    # The substeps are the fit's own choice, so that its error in time differs from the frames'.
    assert fit.success and one.substeps < 20 and one.dt <= one.safe
    assert max(map(abs, fit.errors().values())) < 3
    assert one.agreement < 1e-14
    assert fit.start == start and fit.discretisation is None
    assert "The discretisation error is unknown" in fit.message


def test_both_methods_find_the_same_minimum(own):
    one, other = (fit_trajectory(own, refine=1, method=method) for method in ("adjoint", "least_squares"))
    for name in TRUE:
        assert one.params[name] == pytest.approx(other.params[name], rel=1e-5)
        assert one.stderr[name] == pytest.approx(other.stderr[name], rel=1e-3)


def test_refinement_and_extrapolation_remove_the_discretisation_error(fine):
    seen = []
    fit = fit_trajectory(fine, refine=(2, 1), on_refinement=seen.append)
    coarse, better = (np.array(list(fit.errors(each.params).values())) for each in fit.refinements)
    last = np.array(list(fit.errors().values()))
    assert [each.refine for each in fit.refinements] == [1, 2]
    assert abs(coarse).max() > 4 and abs(better).max() < abs(coarse).max() / 3
    assert abs(last).max() < 0.4
    for name, value in fit.refinements[-1].params.items():  # the estimated error is about the true one
        if abs(value / TRUE[name] - 1) > 3e-3:
            assert fit.discretisation[name] == pytest.approx(abs(value - TRUE[name]), rel=0.35)
    assert [len(each.refinements) for each in seen] == [1, 2]
    assert fit.refinements[1].substeps == 4 * fit.refinements[0].substeps
    assert np.array_equal(fit.observed, fine.fields)
    assert np.sqrt(np.mean((fit.fitted - fit.observed)[1:] ** 2)) == pytest.approx(fit.refinements[1].rms)
    assert "extrapolated, R=1,2" in str(fit) and "of the safe stability limit at the estimates" in fit.message


def test_with_the_substeps_of_the_run_there_is_no_error_at_all(own):
    fit = fit_trajectory(own, refine=1, substeps=20)
    assert fit.refinements[0].substeps == 20 and fit.success
    assert max(map(abs, fit.errors().values())) < 1e-4
    with pytest.raises(rd.InputError, match="substeps=0 must be >= 1"):
        fit_trajectory(own, refine=1, substeps=0)
    with pytest.raises(rd.StabilityError, match="dt=10 exceeds"):
        fit_trajectory(own, refine=1, substeps=1)


def test_the_residual_is_a_good_start(own):
    fit = fit_trajectory(own, refine=1)
    assert max(map(abs, fit.errors(fit.start).values())) < 15
    assert "began at the least-squares solution of the residual" in fit.message


def test_known_parameters_are_kept(own):
    fit = fit_trajectory(own, refine=1, fixed=dict(F=TRUE["F"], Du=TRUE["Du"]), start=dict(k=0.05))
    assert list(fit.params) == ["Dv", "k"] and fit.start["k"] == 0.05
    assert max(map(abs, fit.errors().values())) < 3


def test_standard_errors_fit_the_scatter_of_noise(own):
    noise = 1e-3
    rng = np.random.default_rng(1)
    clean = fit_trajectory(own, refine=1, noise=noise).params
    deviations = []
    for _ in range(6):
        fields = own.fields.copy()
        fields[1:] += noise * rng.standard_normal(fields[1:].shape)
        noisy = replace(own, fields=fields)
        fit = fit_trajectory(noisy, refine=1, noise=noise, start=clean)
        deviations.append([(fit.params[name] - clean[name]) / fit.stderr[name] for name in TRUE])
    assert 0.5 < np.sqrt(np.mean(np.square(deviations))) < 1.6  # 24 numbers, correlated
    unknown = fit_trajectory(noisy, refine=1, start=clean)  # its size is estimated
    assert unknown.stderr["k"] == pytest.approx(fit.stderr["k"], rel=0.3)


def test_only_the_first_frames_are_used(own):
    fit = fit_trajectory(own, refine=1, frames=3)
    assert len(fit.fitted) == 3 and "Used the first 3 of 5 frames, times 0 to 20." in fit.message
    other = replace(own, fields=np.where(np.arange(5)[:, None, None, None] > 2, np.nan, own.fields))
    assert fit_trajectory(other, refine=1, frames=3).params == fit.params


def test_intervals_may_be_multiples_of_the_shortest(own):
    keep = [0, 1, 2, 4]
    fit = fit_trajectory(replace(own, fields=own.fields[keep], times=own.times[keep]), refine=1)
    assert max(map(abs, fit.errors().values())) < 3
    with pytest.raises(rd.InputError, match="10 to 14, must be multiples of the shortest"):
        fit_trajectory(replace(own, times=np.array([0.0, 10, 20, 34, 44])), refine=1)


def test_progress_is_told(own):
    events = []
    fit = fit_trajectory(own, refine=1, progress=events.append)
    assert [each.evaluations for each in events] == list(range(1, fit.refinements[0].evaluations + 1))
    assert set(events[-1].params) == set(TRUE)
    assert np.allclose([each.misfit for each in events], fit.refinements[0].history)


def test_a_boundary_that_is_not_in_the_file_is_mentioned(own):
    assert "it was taken as periodic" in fit_trajectory(replace(own, boundary=None), refine=1).message


def test_other_models(own):
    sim = rd.Simulation("allen_cahn", rd.Grid((40,)), dt=0.05)
    true = dict(Du=0.5, r=0.4)
    start = 0.3 * np.cos(2 * np.pi * np.arange(40) / 20)[None] + 0.1
    states = sim.run(start, true, steps=100, save_every=20).states
    seen = observe(states, interval=1.0, names=(), parameters=true)
    fit = fit_trajectory(seen, "allen_cahn", refine=1)
    assert fit.names == ("u",) and max(map(abs, fit.errors().values())) < 6


def test_a_hopeless_fit_says_so():
    rng = np.random.default_rng(0)
    unrelated = observe(0.5 + 0.1 * rng.standard_normal((3, 2, 12, 12)), interval=50.0)
    fit = fit_trajectory(unrelated, refine=1)
    assert not fit.success and "of the frames unexplained" in fit.message


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (dict(times=None), {}, "no times; give them"),
        (dict(times=np.array([0.0, 2.0, 1.0, 3.0, 4.0])), {}, "must increase"),
        (dict(spacing=None), {}, "no spacing; give it"),
        (dict(fields=np.ones((5, 1, 4, 4))), {}, r"2 species u, v, because the run starts at the first frame"),
        (dict(fields=np.ones((1, 2, 4, 4))), {}, "needs at least 2"),
        (dict(fields=np.full((5, 2, 4, 4), np.nan)), {}, "not finite"),
        (dict(boundary=("wall", "wall")), {}, "calls its boundary 'wall'; say what it is"),
        ({}, dict(boundary="neumann", refine=2), "needs a periodic grid"),
        ({}, dict(refine=()), "refine is empty"),
        ({}, dict(refine=0), "refine=0 must be >= 1"),
        ({}, dict(frames=1), "frames=1 must be >= 2"),
        ({}, dict(fixed=dict(f=1.0)), "fixed has 'f'"),
        ({}, dict(free=("Du", "Dv")), "F, k must be in free or in fixed"),
        ({}, dict(start=dict(f=1.0)), "start has 'f', which is not free.* Did you mean 'F'"),
        ({}, dict(start=dict(F=-1.0)), "must be > 0"),
        ({}, dict(method="adjiont"), "Did you mean 'adjoint'"),
        ({}, dict(noise=(1, 2, 3)), "one for each of the 2 species"),
        ({}, dict(noise=0.0), "sigma"),
        ({}, dict(model="schnakenburg"), "Did you mean 'schnakenberg'"),
        (dict(times=np.arange(5) * 1e8), {}, "more than 10000000; use fewer frames"),
    ],
)
def test_input_that_does_not_fit(own, changes, options, message):
    with pytest.raises(rd.InputError, match=message):
        fit_trajectory(replace(own, **changes), **options)


def test_an_observation_is_asked_for():
    with pytest.raises(rd.InputError, match="observation is a ndarray"):
        fit_trajectory(np.ones((5, 2, 4, 4)))
