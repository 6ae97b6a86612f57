"""What a user may get wrong in objectives, minimisations and inversions: one row a case, with words of the message."""

import contextlib
import math

import numpy as np
import pytest
from bad_input import HOLED, LOSS, PARAMS, SHAPE, SIM, Y0, WithGradient, refused

import adjoint_rd as rd


def objective(**options):
    given = dict(sim=SIM, y0=Y0, loss=LOSS, steps=3, free=("F", "k"), fixed=dict(Du=0.16, Dv=0.08)) | options
    return rd.Objective(given.pop("sim"), given.pop("y0"), given.pop("loss"), **given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(sim=None), r"sim=None must be an adjoint_rd.Simulation"),
        (dict(free=()), r"free is empty; name what to vary: Du, Dv, F, k or 'initial'"),
        (dict(free=None), r"free=None must be names"),
        (dict(free=("f", "k")), r"free has 'f'.*Did you mean 'F'\?"),
        (dict(free=(np.array([]), None)), r"free has array\(.*\), which gray_scott does not know"),
        (dict(free=("F", "F")), r"names something twice"),
        (dict(free=("F",)), r"k must be in free or in fixed"),
        (dict(fixed=5), r"fixed=5 must be a dict"),
        (dict(fixed=dict(Du=-1.0, Dv=0.1)), r"fixed\['Du'\]=-1 is a diffusivity"),
        (dict(fixed=dict(Du=0.1, Dv=0.1, initial=Y0)), r"fixed has 'initial'; the initial state is y0"),
        (dict(transform="lgo"), r"transform='lgo' is not known.*Did you mean 'log'\?"),
        (dict(transform={"G": "log"}), r"transform names 'G', which is not free"),
        (dict(transform={"F": 5}), r"transform\['F'\]=5 must be None"),
        (dict(transform=("sigmoid", 0.0)), r"the scale of a sigmoid must be positive"),
        (dict(transform=("sigmoid", "wide")), r"the scale of a sigmoid must be positive"),
        (dict(window=9), r"window=9 is longer than the run"),
        (dict(steps=True), r"steps=True must be a whole number"),
        (dict(loss=None), r"loss=None has no value"),
        (dict(loss=rd.losses.Trajectory({7: LOSS})), r"loss observes step 7"),
        (dict(penalty=5), r"penalty=5 has no value\(params\)"),
        (dict(on_unstable="stop"), r"on_unstable='stop' is not known; use one of 'continue', 'raise'"),
        (dict(y0=HOLED), r"y0 has .* not finite"),
    ],
)
def test_an_objective_refuses(options, words):
    refused(words, lambda: objective(**options))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([0.1], r"x has shape \(1,\); this objective takes \(2,\), see pack\(\)"),
        (0.1, r"x has shape \(\)"),
        ([0.1, math.nan], r"x has values that are not finite, the first at index 1"),
        ([0.1, 1j], r"x has dtype complex128"),
        (["a", "b"], r"x has dtype <U1"),
        (None, r"x has dtype object"),
    ],
)
def test_an_x_is_refused(x, words):
    obj = objective()
    for function in (obj.value, obj.grad, obj.misfit, obj.misfit_jacobian, obj.unpack):
        refused(words, lambda function=function: function(x))
    refused(words.replace("x has", "v has"), lambda: obj.hessp(obj.pack(F=0.03, k=0.06), x))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(F=0.1), r"pack lacks 'k'; free is F, k"),
        (dict(F=0.1, k=0.1, Du=0.1), r"pack got 'Du', which is not free"),
        (dict(F=0.1, K=0.1), r"pack got 'K', which is not free.*Did you mean 'k'\?"),
        (dict(F=-1.0, k=0.1), r"pack got F=-1.0; it must be > 0 for its transform"),
        (dict(F=math.nan, k=0.1), r"pack got F=nan"),
        (dict(F=np.ones(3), k=0.1), r"pack got 'F' of shape \(3,\); it is free with shape \(\)"),
        (dict(F="a", k=0.1), r"pack got F='a'; it must be real numbers"),
        (dict(F=1j, k=0.1), r"pack got F=1j; it must be real numbers"),
        (dict(F=None, k=0.1), r"pack got F=None; it must be real numbers"),
    ],
)
def test_pack_refuses(values, words):
    refused(words, lambda: objective().pack(**values))


def test_the_right_input_of_an_objective_passes():
    """The control: what is refused above is the fault and nothing else."""
    obj = objective()
    assert np.isfinite(obj.value(obj.pack(F=0.03, k=np.float32(0.06)).tolist()))


def test_standard_errors_want_an_objective():
    refused(r"obj=5 must be an adjoint_rd.Objective", lambda: rd.standard_errors(5, [1.0]))


# ------------------------------------------------------------------------------------------------------ fits


def bowl(x):
    return float(x @ x), 2.0 * x


@pytest.mark.parametrize(
    ("fun", "x0", "options", "words"),
    [
        (5, [1.0], {}, r"fun=5 must be an Objective or a function x -> \(value, gradient\)"),
        (bowl, [[1.0]], {}, r"x0 of shape \(1, 1\) and dtype float64 must be a vector of finite numbers"),
        (bowl, [], {}, r"x0 of shape \(0,\)"),
        (bowl, [math.nan], {}, r"must be a vector of finite numbers"),
        (bowl, ["a"], {}, r"x0 of shape \(1,\) and dtype <U1"),
        (bowl, WithGradient(), {}, r"x0 is a WithGradient that NumPy cannot read"),
        (bowl, [1.0], dict(bounds=[(2.0, 1.0)]), r"low end above its high end at index 0: \(2, 1\)"),
        (bowl, [1.0], dict(bounds=[(0, 1), (0, 1)]), r"bounds has shape \(2, 2\); x has 1 items"),
        (bowl, [1.0], dict(bounds=5), r"bounds=5 must be a pair \(low, high\) for each item of x"),
        (bowl, [1.0], dict(maxiter=2.5), r"maxiter=2.5 must be a whole number"),
        (bowl, [1.0], dict(tol=None), r"tol=None must be a number"),
        (bowl, [1.0], dict(tol=-1.0), r"tol=-1.0 must be above 0"),
        (bowl, [1.0], dict(betas=0.9), r"betas=0.9 must be the two decays"),
        (bowl, [1.0], dict(callback=5), r"callback=5 must be a function"),
        (bowl, [1.0], dict(checkpoint=5), r"checkpoint=5 must be a string or a path"),
        (bowl, [1.0], dict(method="bfgs"), r"method='bfgs' is not known.*Did you mean 'lbfgs'\?"),
        (lambda x: 5, [1.0], {}, r"fun returned 5; it must return \(value, gradient\)"),
        (lambda x: (1.0,), [1.0], {}, r"it must return \(value, gradient\)"),
        (lambda x: ("a", x), [1.0], {}, r"fun returned the value 'a'; it must be one real number"),
        (lambda x: (x, x), [1.0, 2.0], {}, r"fun returned the value array\(.*\); it must be one real number"),
        (lambda x: (1.0, "a"), [1.0], {}, r"the gradient that fun returned has dtype <U1"),
        (lambda x: (1.0, np.ones(3)), [1.0], {}, r"a gradient of shape \(3,\); x has \(1,\)"),
        (lambda x: (math.nan, x), [1.0], {}, r"fun is abnormal at x0: the value is nan"),
        (lambda x: (1.0, x * math.inf), [1.0], {}, r"fun is abnormal at x0: 1 items of the gradient"),
    ],
)
def test_a_minimisation_refuses(fun, x0, options, words):
    refused(words, lambda: rd.minimize(fun, x0, **options))


def test_a_start_outside_its_bounds_is_moved_with_a_warning():
    with pytest.warns(UserWarning, match=r"x0 is outside its bounds at 1 of 2 items, the first at index 1: 9 is not"):
        found = rd.minimize(bowl, [1.0, 9.0], bounds=[(None, None), (2.0, 3.0)])
    assert found.x[1] == 2.0


def test_a_callback_that_raises_brings_the_best_point():
    calls = []

    def callback(x):
        calls.append(x)
        if len(calls) == 3:
            raise OSError("no room for the log")

    with pytest.raises(OSError, match="no room") as caught:
        rd.minimize(bowl, [3.0, 4.0], method="gd", learning_rate=0.1, callback=callback)
    assert np.array_equal(caught.value.result.x, calls[-1]) and caught.value.result.nit == 3


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (1j * np.ones((32, 32)), {}, r"data has dtype complex128; it must be real numbers"),
        ("image", {}, r"data has dtype <U5"),
        (np.ones((16,) * 4), {}, r"data has shape \(16, 16, 16, 16\); it must be a grid of 1 to 3 axes"),
        (np.ones((2, 2)), {}, r"shape=\(2, 2\) has an axis of 2 cells"),
        (np.ones((16, 16)), {}, r"data of shape \(16, 16\) are too few cells; at least 400 are needed"),
        (np.full((32, 32), np.nan), {}, r"only 0 % of the data count"),
        (np.full((32, 32), np.inf), {}, r"data has infinite values; mark missing ones as NaN or in mask"),
        (WithGradient(), {}, r"data is a WithGradient that NumPy cannot read"),
        (np.ones((32, 32)), dict(model="gs"), r"model='gs' is not known"),
        (np.ones((32, 32)), dict(spacing=0), r"spacing=0 must be a positive finite length"),
        (np.ones((32, 32)), dict(noise=-1), r"noise=-1 must be a finite number >= 0"),
        (np.ones((32, 32)), dict(noise="auto"), r"noise='auto' must be a finite number"),
        (np.ones((32, 32)), dict(scale="unknown"), r"scale='unknown' must be a finite number"),
        (np.ones((32, 32)), dict(bounds=dict(F=0.05)), r"bounds\['F'\]=0.05 must be a sequence of real numbers"),
        (np.ones((32, 32)), dict(bounds=dict(F=(0.05, 0.04))), r"bounds\['F'\]=\(0.05, 0.04\) must be \(low, high\)"),
        (np.ones((32, 32)), dict(bounds=dict(F=("a", 1))), r"bounds\['F'\]=\('a', 1\) must be a sequence of real"),
        (np.ones((32, 32)), dict(start=dict(F="a")), r"start\['F'\]='a' must be a finite number"),
        (np.ones((3, 32, 32)), {}, r"volume of 3 layers. For snapshots give snapshots=True, for frames times="),
        (np.ones((32, 32)), dict(mask=np.ones((2, 2), bool)), r"mask has .* shape \(2, 2\); it must be bool"),
    ],
)
def test_an_inversion_refuses(data, options, words):
    refused(words, lambda: rd.invert(data, **options))


def test_a_uniform_image_is_no_pattern():
    found = rd.invert(np.full((24, 24), 0.3))
    assert not found.success and "uniform" in found.message
    assert all(math.isnan(value) for value in found.params.values())


def test_levels_of_an_image_are_pointed_out():
    found = rd.invert(np.full((24, 24), 77, dtype=np.uint8))
    assert "up to 77: levels of an image, or percent? Give scale=" in found.message


def test_a_constant_target_is_fitted_as_any_other():
    loss = rd.losses.L2(np.full((2, *SHAPE), 0.3))
    assert np.isfinite(SIM.gradient(Y0, PARAMS, loss, steps=3).value)


@pytest.mark.parametrize("x", [[0.0, 710.0], [800.0, 800.0], [1e200, 0.0], [-1e300, 5.0]])
def test_an_x_far_too_large_never_gives_what_is_not_finite(x):
    obj = objective()
    obj.value(obj.pack(F=0.03, k=0.06))
    for function in (obj.value_and_grad, obj.misfit, obj.misfit_jacobian, lambda x: obj.hessp(x, [1.0, 1.0])):
        with contextlib.suppress(rd.DivergenceError):
            found = function(np.array(x))
            assert all(np.isfinite(part).all() for part in (found if isinstance(found, tuple) else [found]))
