"""Objective: value, gradient, Hessian products and misfit agree; windows, sums, penalties; abnormal trials."""

import numpy as np
import pytest
import reference as ref
import setups
from scipy.optimize import least_squares, minimize

import adjoint_rd as rd
from adjoint_rd import penalties

STEPS = 20
GRAY_SCOTT = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


def central(function, x, v, h=1e-6):
    return (function(x + h * v) - function(x - h * v)) / (2 * h)


def direction(obj, seed=0):
    v = np.random.default_rng(seed).standard_normal(obj.size)
    return v / np.linalg.norm(v)


def scalars(transform, **options):
    """Everything of a 1-D Gray-Scott run free, and a point."""
    case = setups.draw("gray_scott", (9,), "periodic")
    loss = rd.losses.Trajectory({7: rd.losses.L2(case.target, sigma=0.3), STEPS: rd.losses.L2(case.target)})
    free = (*case.params, "initial")
    obj = rd.Objective(setups.simulation(case), case.y0, loss, steps=STEPS, free=free, transform=transform, **options)
    return obj, obj.pack(**case.params)


def fields(transform, **options):
    """A field, a scalar and the initial state free, the others fixed."""
    case = setups.draw("schnakenberg", (6, 5), "dirichlet", fields=("a",))
    fixed = {name: case.params[name] for name in ("Du", "Dv", "b", "a")}
    loss, free = rd.losses.L2(case.target), ("gamma", "a", "initial")
    obj = rd.Objective(
        setups.simulation(case), case.y0, loss, steps=STEPS, free=free, fixed=fixed, transform=transform, **options
    )
    return obj, obj.pack(gamma=case.params["gamma"], a=case.params["a"], initial=1.1 * case.y0)


PRIOR = penalties.Gaussian(dict(F=0.04, Du=0.2), dict(F=0.01, Du=0.05))
OBJECTIVES = {
    "none": lambda: scalars(None),
    "log": lambda: scalars("log"),
    "softplus": lambda: scalars("softplus"),
    "sigmoid": lambda: scalars("sigmoid"),
    "one for each": lambda: scalars({"Du": "log", "F": ("sigmoid", 0.2), "k": "softplus", "initial": "softplus"}),
    "with a penalty": lambda: scalars("log", penalty=PRIOR),
    "fields": lambda: fields("log"),
    "fields, none": lambda: fields(None),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    return OBJECTIVES[request.param]()


def test_the_gradient_is_the_derivative_of_the_value(objective):
    obj, x = objective
    v = direction(obj)
    slope = obj.grad(x) @ v
    assert slope == pytest.approx(central(obj.value, x, v), rel=1e-7)
    assert obj(x) == obj.value(x) == obj.value_and_grad(x)[0]
    assert slope != pytest.approx(central(obj.value, x, 1.001 * v), rel=1e-5)  # the control


def test_the_hessian_product_is_the_derivative_of_the_gradient(objective):
    obj, x = objective
    v, w = direction(obj), direction(obj, 1)
    product = obj.hessp(x, v)
    assert ref.relative_error(product, central(obj.grad, x, v)) < 1e-6
    assert w @ product == pytest.approx(v @ obj.hessp(x, w), rel=1e-9)


def test_the_misfit_has_the_value_and_the_gradient(objective):
    obj, x = objective
    m, jacobian = obj.misfit(x), obj.misfit_jacobian(x)
    assert jacobian.shape == (m.size, obj.size)
    assert 0.5 * m @ m == pytest.approx(obj.value(x), rel=1e-12)
    assert ref.relative_error(jacobian.T @ m, obj.grad(x)) < 1e-11
    v = direction(obj)
    assert ref.relative_error(jacobian @ v, central(obj.misfit, x, v)) < 1e-7


def test_pack_and_unpack_are_inverse(objective):
    obj, x = objective
    values = obj.unpack(x)
    assert list(values) == [*obj.sim.model.names, "initial"]
    assert np.allclose(obj.pack(**{name: values[name] for name in obj.free}), x, rtol=1e-13)
    assert sum(where.stop - where.start for where in obj.blocks.values()) == obj.size == len(x)


def test_the_gradient_is_that_of_the_simulation_times_the_slope():
    obj, x = scalars("log")
    values = obj.unpack(x)
    y0 = values.pop("initial")
    found = obj.sim.gradient(y0, values, obj.loss, steps=STEPS)
    assert obj.value(x) == found.value
    want = [found.params[name] * values[name] for name in obj.sim.model.names]
    assert np.allclose(obj.grad(x), [*want, *found.initial.ravel()], rtol=1e-13)


# ------------------------------------------------------------------------------------------------- windows


def windowed(window=8, **options):
    """Scalars free; observations before and after the start of the window."""
    case = setups.draw("gray_scott", (9,), "periodic")
    early, late = rd.losses.L2(case.target, sigma=0.3), rd.losses.L2(case.target)
    loss = rd.losses.Trajectory({5: early, STEPS - 3: late, STEPS: late})
    sim = setups.simulation(case)
    obj = rd.Objective(sim, case.y0, loss, steps=STEPS, free=tuple(case.params), window=window, **options)
    return obj, obj.pack(**case.params), early


def test_a_frozen_objective_starts_at_the_window_and_has_its_derivatives():
    obj, x, early = windowed(penalty=PRIOR)
    frozen = obj.freeze(x)
    assert (frozen.steps, frozen.window) == (8, None)
    assert np.array_equal(frozen.y0, obj.sim.run(obj.y0, obj.unpack(x), steps=STEPS - 8).final)
    assert np.array_equal(obj.grad(x), frozen.grad(x))
    v = direction(obj)
    assert ref.relative_error(obj.hessp(x, v), frozen.hessp(x, v)) < 1e-14
    before = early.value(obj.sim.run(obj.y0, obj.unpack(x), steps=5).final)
    assert obj.value(x) == pytest.approx(frozen.value(x) + before, rel=1e-14)
    assert frozen.grad(x) @ v == pytest.approx(central(frozen.value, x, v), rel=1e-7)


def test_a_windowed_gradient_is_not_that_of_the_value():
    obj, x, _ = windowed()
    v = direction(obj)
    assert obj.grad(x) @ v != pytest.approx(central(obj.value, x, v), rel=1e-3)
    whole, x, _ = windowed(window=None)
    assert whole.freeze(x) is whole
    assert whole.value(x) == obj.value(x)


def test_a_frozen_initial_state_is_the_windows_first():
    obj, x = scalars("log", window=8)
    frozen = obj.freeze(x)
    params = obj.unpack(x)
    params.pop("initial")
    z = frozen.pack(**params)  # "initial" by default its y0
    assert np.array_equal(frozen.unpack(z)["initial"], frozen.y0)
    assert np.array_equal(obj.grad(x), frozen.grad(z))
    v = direction(obj)
    assert ref.relative_error(obj.hessp(x, v), frozen.hessp(z, v)) < 1e-14


def test_least_squares_wants_the_whole_run():
    obj, x, _ = windowed()
    with pytest.raises(rd.InputError, match="use window=None, or freeze"):
        obj.misfit(x)
    assert obj.freeze(x).misfit(x).size == 2 * 18


# --------------------------------------------------------------------------------------------------- memory


@pytest.fixture
def counted(monkeypatch):
    """An objective and the list of runs that it takes."""
    obj, x = scalars("log")
    runs = []
    gradient = obj.sim.gradient
    monkeypatch.setattr(obj.sim, "gradient", lambda *a, **k: runs.append(1) or gradient(*a, **k))
    return obj, x, runs


def test_the_value_and_then_the_gradient_cost_one_run(counted):
    obj, x, runs = counted
    value, gradient = obj.value(x), obj.grad(x)
    assert obj.value_and_grad(x.copy())[0] == value
    obj.hessp(x, direction(obj))
    assert len(runs) == 1
    obj.value(x + 1e-9)
    assert len(runs) == 2
    assert np.array_equal(obj.grad(x), gradient)
    assert len(runs) == 3


def test_an_x_changed_in_place_is_noticed(counted):
    obj, x, runs = counted
    value = obj.value(x)
    x[0] += 0.1
    assert obj.value(x) != value
    assert len(runs) == 2


def test_a_gradient_changed_in_place_does_no_harm(counted):
    obj, x, _ = counted
    gradient = obj.grad(x)
    kept = gradient.copy()
    gradient[:] = 0.0
    assert np.array_equal(obj.grad(x), kept)
    m = obj.misfit(x)
    kept = m.copy()
    m[:] = 0.0
    assert np.array_equal(obj.misfit(x), kept)


# ------------------------------------------------------------------------------------------- sums and bounds


def small(seed=0, **options):
    """Gray-Scott near known parameters, observed with noise."""
    case = setups.draw("gray_scott", (9,), "periodic", seed=seed)
    sim, params = setups.simulation(case), case.params
    options = dict(free=tuple(params)) | options
    return rd.Objective(sim, case.y0, rd.losses.L2(case.target), steps=STEPS, **options), params


def test_a_sum_adds_everything_up():
    one, params = small()
    other, _ = small(1)
    both = rd.Objective.sum([one, other])
    x, v = one.pack(**params), direction(one)
    assert both(x) == both.value(x) == one.value(x) + other.value(x)
    assert np.array_equal(both.grad(x), one.grad(x) + other.grad(x))
    assert np.array_equal(both.hessp(x, v), one.hessp(x, v) + other.hessp(x, v))
    assert np.array_equal(both.misfit(x), np.concatenate([one.misfit(x), other.misfit(x)]))
    m, jacobian = both.misfit(x), both.misfit_jacobian(x)
    assert ref.relative_error(jacobian.T @ m, both.grad(x)) < 1e-11
    assert both.unpack(x) == one.unpack(x)
    assert np.array_equal(both.pack(**params), x)
    for (low, high), a, b in zip(both.bounds, one.bounds, other.bounds, strict=True):
        assert low is None
        assert high == (None if a[1] is None else min(a[1], b[1]))


def test_a_sum_needs_objectives_of_the_same_unknowns():
    one, _ = small()
    with pytest.raises(rd.InputError, match="objective 1 has other free parameters or transforms"):
        rd.Objective.sum([one, small(transform=None)[0]])
    with pytest.raises(rd.InputError, match="objective 1 has 'initial' free"):
        rd.Objective.sum([one, scalars("log")[0]])
    with pytest.raises(rd.InputError, match="at least one"):
        rd.Objective.sum([])


def test_bounds_are_the_box_of_stable_diffusivities():
    sim = rd.Simulation("gray_scott", rd.Grid((9,)), dt=1.0)  # K = 4 cos^2(pi / 18)
    most = 0.95 * 2.0 / sim.grid.largest_wavenumber_squared
    run = dict(steps=5, fixed=dict(k=0.06), free=("F", "Dv", "Du"))
    y0 = sim.initial_state("square", size=3)
    for transform, low, high in [(None, 0.0, most), ("log", None, np.log(most)), (("sigmoid", 0.1), None, None)]:
        obj = rd.Objective(sim, y0, rd.losses.L2(y0), transform=transform, **run)
        want = [(None, None), (low, high), (low, high)]
        for found, expected in zip(obj.bounds, want, strict=True):
            assert found == pytest.approx(expected)


def test_a_penalty_on_a_parameter_that_is_fixed_moves_nothing():
    prior = penalties.Gaussian(dict(F=0.0, k=0.0), dict(F=0.01, k=0.01))
    free = ("Du", "Dv", "F")
    with_it, params = small(free=free, fixed=dict(k=0.06), penalty=prior)
    without, _ = small(free=free, fixed=dict(k=0.06))
    x = with_it.pack(**{name: params[name] for name in free})
    added = 0.5 * (params["F"] / 0.01) ** 2 + 0.5 * 6.0**2
    assert with_it.value(x) == pytest.approx(without.value(x) + added, rel=1e-13)
    change = with_it.grad(x) - without.grad(x)
    assert change == pytest.approx([0.0, 0.0, params["F"] ** 2 / 0.01**2], rel=1e-9, abs=1e-9)


# ------------------------------------------------------------------------------------------ standard errors


@pytest.fixture(scope="module")
def noisy():
    """16 x 16 Gray-Scott: (make an objective from a seed, its point of truth, the exact observations)."""
    sim = rd.Simulation("gray_scott", rd.Grid((16, 16)), dt=1.0)
    y0 = sim.initial_state("square", size=6, rng=0)
    run = sim.run(y0, GRAY_SCOTT, steps=60, save_every=30)
    sigma = 0.005

    def objective(seed=None, transform="log"):
        noise = 0.0 if seed is None else sigma * np.random.default_rng(seed).standard_normal(run.states.shape)
        seen = run.states + noise
        loss = rd.losses.Trajectory({30 * n: rd.losses.L2(seen[n], sigma=sigma) for n in (1, 2)})
        return rd.Objective(sim, y0, loss, steps=60, free=tuple(GRAY_SCOTT), transform=transform)

    return objective


def test_standard_errors_are_those_of_the_linear_model_at_a_perfect_fit(noisy):
    for transform in ("log", None):
        obj = noisy(transform=transform)
        x = obj.pack(**GRAY_SCOTT)
        jacobian = obj.misfit_jacobian(x)
        errors = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
        found = rd.standard_errors(obj, x)
        for name, error in zip(GRAY_SCOTT, errors, strict=True):
            in_units = error * (GRAY_SCOTT[name] if transform == "log" else 1.0)
            assert found[name] == pytest.approx(in_units, rel=1e-8)


def test_standard_errors_are_as_large_as_the_scatter_of_estimates(noisy):
    z = []
    for seed in range(30):
        obj = noisy(seed)
        fit = least_squares(obj.misfit, obj.pack(**GRAY_SCOTT), jac=obj.misfit_jacobian)
        estimate, errors = obj.unpack(fit.x), rd.standard_errors(obj, fit.x)
        z.append([(estimate[name] - GRAY_SCOTT[name]) / errors[name] for name in GRAY_SCOTT])
    rms = np.sqrt(np.mean(np.square(z), axis=0))
    assert np.all((rms > 0.7) & (rms < 1.4)), rms


def test_a_parameter_that_the_data_do_not_determine_has_no_standard_error():
    sim = rd.Simulation("gray_scott", rd.Grid((9,)), dt=1.0)
    flat = np.stack([np.full(9, 0.5), np.full(9, 0.25)])  # nothing diffuses
    target = sim.run(flat, GRAY_SCOTT, steps=STEPS).final
    obj = rd.Objective(sim, flat, rd.losses.L2(target), steps=STEPS, free=("Du", "F"), fixed=dict(Dv=0.08, k=0.065))
    found = rd.standard_errors(obj, obj.pack(Du=0.16, F=0.035))
    assert np.isnan(found["Du"])
    assert found["F"] > 0


# ------------------------------------------------------------------------------------------ abnormal trials


def edge(transform="log", steps=STEPS, **options):
    """A 1-D Gray-Scott fit whose stable box ends close by: Du, Dv < 0.49."""
    sim = rd.Simulation("gray_scott", rd.Grid((9,)), dt=1.0)
    y0 = setups.draw("gray_scott", (9,), "periodic").y0
    target = sim.run(y0, GRAY_SCOTT, steps=steps).final
    obj = rd.Objective(
        sim, y0, rd.losses.L2(target, sigma=0.1), steps=steps, free=tuple(GRAY_SCOTT), transform=transform, **options
    )
    return obj, obj.pack(**GRAY_SCOTT | dict(Du=0.2, F=0.04))


ABNORMAL = {  # where a trial goes, from the good start: outside the box, and to runs that diverge inside it
    "Du outside": ("log", dict(Du=0.8)),
    "Du and Dv outside": ("log", dict(Du=0.8, Dv=1.5, F=0.03)),
    "Du negative": (None, dict(Du=-0.1)),
    "k diverges": (None, dict(k=-4.0)),
    "k and Du diverge": (None, dict(k=-4.0, Du=0.9)),
    "k decays too fast": ("log", dict(k=5.0)),
    "F diverges": (None, dict(F=-6.0, Du=0.1)),
}


@pytest.fixture(params=ABNORMAL)
def abnormal(request):
    """An objective that has seen a good point, its value there, and an abnormal point."""
    transform, moved = ABNORMAL[request.param]
    obj, x = edge(transform)
    value = obj.value(x)
    params = obj.unpack(x) | moved
    trial = np.array([params[name] if transform is None else np.log(params[name]) for name in GRAY_SCOTT])
    return obj, value, trial


def test_an_abnormal_trial_is_finite_worse_than_the_last_good_and_noted(abnormal):
    obj, good, trial = abnormal
    value, gradient = obj.value_and_grad(trial)
    assert np.isfinite(value)
    assert value > good
    assert np.all(np.isfinite(gradient))
    assert len(obj.log) == 1
    assert np.array_equal(obj.log[0].x, trial)
    assert not np.array_equal(obj.log[0].used, trial)
    assert obj.log[0].reason


def test_the_continuation_has_its_own_gradient_and_hessian(abnormal):
    obj, _, trial = abnormal
    v = direction(obj)
    assert obj.grad(trial) @ v == pytest.approx(central(obj.value, trial, v), rel=1e-6)
    assert ref.relative_error(obj.hessp(trial, v), central(obj.grad, trial, v)) < 1e-5


def test_the_continuation_of_the_misfit_agrees_with_that_of_the_value(abnormal):
    obj, _, trial = abnormal
    m, jacobian = obj.misfit(trial), obj.misfit_jacobian(trial)
    assert 0.5 * m @ m == pytest.approx(obj.value(trial), rel=1e-9)
    assert ref.relative_error(jacobian.T @ m, obj.grad(trial)) < 1e-8
    v = direction(obj)
    assert ref.relative_error(jacobian @ v, central(obj.misfit, trial, v)) < 1e-5


def test_the_continuation_is_continuous_at_the_edge_of_the_box():
    obj, x = edge("log")
    obj.value(x)
    high = obj.bounds[0][1]
    on, out = x.copy(), x.copy()
    on[0], out[0] = high, np.nextafter(high, np.inf)
    assert obj.value(out) == pytest.approx(obj.value(on), rel=1e-12)
    assert len(obj.log) == 1
    out[0] = high + 0.3
    assert obj.value(out) > obj.value(on)


def test_the_first_point_of_all_must_be_a_good_one():
    obj, _ = edge(None)
    with pytest.raises(rd.DivergenceError, match="no longer finite after step"):
        obj.value(np.array([0.16, 0.08, 0.035, -4.0]))


def test_a_state_too_large_for_the_loss_counts_as_diverged():
    """After three steps it is of size 1e240: finite, but its square is not."""
    for on_unstable in ("continue", "raise"):
        obj, x = edge(None, on_unstable=on_unstable, steps=3)
        good, trial = obj.value(x), np.array([*x[:3], -1e40])
        huge = np.abs(obj.sim.run(obj.y0, obj.unpack(trial), steps=3).final).max()
        assert 1e154 < huge < np.inf
        if on_unstable == "raise":
            with pytest.raises(rd.DivergenceError, match="overflows"):
                obj.value(trial)
        else:
            assert good < obj.value(trial) < np.inf
            assert np.all(np.isfinite(obj.grad(trial)))
            assert np.all(np.isfinite(obj.misfit(trial)))
            assert obj.log


def test_raise_raises_instead():
    obj, x = edge(None, on_unstable="raise")
    obj.value(x)
    with pytest.raises(rd.StabilityError, match="'certain' limit"):
        obj.value_and_grad(x + np.array([0.6, 0.0, 0.0, 0.0]))
    with pytest.raises(rd.DivergenceError):
        obj.misfit(x - np.array([0.0, 0.0, 0.0, 4.0]))
    assert obj.log == []


def is_abnormal(obj, x):
    noted = len(obj.log)
    obj.value(np.array(x))
    return len(obj.log) > noted


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "trust-ncg"])
def test_optimisers_come_back_from_unstable_trials_and_find_the_truth(method):
    obj, _ = edge(None)
    options = dict(ftol=1e-15, gtol=1e-8) if method == "L-BFGS-B" else {}
    second = dict(hessp=obj.hessp) if method == "trust-ncg" else {}
    x0 = obj.pack(Du=0.45, Dv=0.02, F=0.08, k=0.03)
    found = minimize(obj.value_and_grad, x0, jac=True, method=method, options=options, **second)
    assert obj.log, "no trial was unstable: this tests nothing"
    assert found.success
    assert obj.unpack(found.x) == pytest.approx(GRAY_SCOTT, rel=1e-3)


STARTS = [
    dict(Du=0.45, Dv=0.02, F=0.08, k=0.03),
    dict(Du=0.02, Dv=0.02, F=0.035, k=0.065),
    dict(Du=0.03, Dv=0.4, F=0.08, k=0.03),
    dict(Du=0.4, Dv=0.4, F=0.01, k=0.02),
    dict(Du=0.05, Dv=0.3, F=0.2, k=0.2),
]


@pytest.mark.parametrize("transform", [None, "log"])
def test_success_is_never_claimed_at_an_abnormal_point(transform):
    abnormal_trials = 0
    for start in STARTS:
        obj, _ = edge(transform)
        found = minimize(obj.value_and_grad, obj.pack(**start), jac=True, method="L-BFGS-B")
        abnormal_trials += len(obj.log)
        assert not (found.success and is_abnormal(obj, found.x)), found
        # Where it stops the run is stable, and no better point is close by within the box.
        high = np.array(obj.bounds, dtype=float)[:, 1]
        slope = obj.grad(found.x)
        inward = np.where((found.x > high - 1e-3) & (slope < 0), 0.0, slope)
        assert np.abs(inward).max() < 0.05 * np.abs(obj.grad(obj.pack(**start))).max(), found
    assert abnormal_trials > 10, "few trials were unstable: this tests little"


def test_least_squares_comes_back_from_unstable_trials_and_finds_the_truth():
    obj, _ = edge(None)
    x0 = obj.pack(Du=0.3, Dv=0.02, F=0.1, k=0.1)
    found = least_squares(obj.misfit, x0, jac=obj.misfit_jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert obj.log, "no trial was unstable: this tests nothing"
    assert obj.unpack(found.x) == pytest.approx(GRAY_SCOTT, rel=1e-6)


def test_the_box_holds_where_the_true_diffusivity_is_unstable():
    """The target was made with a diffusivity that this time step cannot take."""
    fine = rd.Simulation("gray_scott", rd.Grid((9,)), dt=0.25)
    y0 = setups.draw("gray_scott", (9,), "periodic").y0
    target = fine.run(y0, GRAY_SCOTT | dict(Du=0.7), steps=4 * STEPS).final
    sim = rd.Simulation("gray_scott", rd.Grid((9,)), dt=1.0)
    fixed = {name: GRAY_SCOTT[name] for name in ("Dv", "F", "k")}
    obj = rd.Objective(sim, y0, rd.losses.L2(target, sigma=0.1), steps=STEPS, free=("Du",), fixed=fixed)
    for bounds in (None, obj.bounds):
        found = minimize(obj.value_and_grad, obj.pack(Du=0.2), jac=True, method="L-BFGS-B", bounds=bounds)
        assert found.x[0] <= obj.bounds[0][1] + 1e-6
        assert not (found.success and is_abnormal(obj, found.x))
