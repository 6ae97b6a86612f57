"""What a user may get wrong: one row a case, with words of the message, which says what was given and what is needed.

Grids, simulations, arrays, parameters, losses, objectives, fits and users' models; files and the command line are in
`test_bad_input_files.py`.
"""

import contextlib
import math

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


class LossOf:
    """A loss that returns what it is told to."""

    def __init__(self, value=1.0, seed=None):
        self.given = value, seed

    def value(self, y):
        return self.given[0]

    def seed(self, y):
        return np.zeros_like(y) if self.given[1] is None else self.given[1]


def refused(words, call, error=rd.InputError):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "numba" not in type(caught.value).__module__
    assert len(str(caught.value)) < 500


class OnACard:
    """Like an array of CuPy: NumPy must not read it."""

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")


class WithGradient:
    """Like a tensor of torch that needs a gradient."""

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


# ------------------------------------------------------------------------------------------------------ grid


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(shape=()), r"shape=\(\) has 0 axes; grids have 1, 2 or 3"),
        (dict(shape=(3, 3, 3, 3)), r"shape=\(3, 3, 3, 3\) has 4 axes"),
        (dict(shape=(2, 8)), r"shape=\(2, 8\) has an axis of 2 cells; the star needs at least 3"),
        (dict(shape=(0, 8)), r"an axis of 0 cells"),
        (dict(shape=(-5,)), r"an axis of -5 cells"),
        (dict(shape=(4.0, 3)), r"shape=\(4.0, 3\) must be a tuple of whole numbers, such as"),
        (dict(shape=(True, 8)), r"must be a tuple of whole numbers"),
        (dict(shape="ab"), r"shape='ab' must be a tuple"),
        (dict(shape=None), r"shape=None must be a tuple"),
        (dict(spacing=0), r"spacing=0 must be a positive finite length"),
        (dict(spacing=-1.0), r"spacing=-1.0 must be"),
        (dict(spacing=math.nan), r"spacing=nan must be"),
        (dict(spacing=1j), r"spacing=1j must be"),
        (dict(spacing=True), r"spacing=True must be"),
        (dict(spacing=(1.0, 2.0, 3.0)), r"has 3 entries; give one, or one for each of the 2 axes"),
        (dict(boundary="peridic"), r"boundary='peridic' is not known.*Did you mean 'periodic'\?"),
        (dict(boundary=None), r"boundary=None is not known"),
        (dict(boundary=("neumann",) * 3), r"has 3 entries"),
        (dict(wall=(1.0, 0.0)), r"wall=\(1.0, 0.0\) is given, but no axis of boundary=.* is 'dirichlet'"),
        (dict(boundary="dirichlet", wall="a"), r"wall='a' must be one number per species"),
        (dict(boundary="dirichlet", wall=math.inf), r"wall=inf must be finite"),
    ],
)
def test_a_grid_refuses(options, words):
    given = dict(shape=SHAPE) | options
    refused(words, lambda: rd.Grid(given.pop("shape"), **given))


def test_cuda_without_a_card_is_refused_with_the_remedy():
    try:
        simulation(backend="cuda")
    except rd.BackendError as error:
        assert "backend='cuda'" in str(error) and len(str(error)) < 500
    else:
        pytest.skip("there is a card here")


def test_walls_are_one_for_each_species():
    grid = rd.Grid(SHAPE, boundary="dirichlet", wall=(1.0,))
    refused(r"grid.wall=\(1.0,\) has 1 values; gray_scott has the 2 species u, v", lambda: simulation(grid=grid))


# ------------------------------------------------------------------------------------------------ simulation


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(model="gray_scot"), r"model='gray_scot' is not known.*Did you mean 'gray_scott'\?"),
        (dict(model=None), r"use one of gray_scott, .* or your own adjoint_rd.Model"),
        (dict(grid=SHAPE), r"grid=\(5, 6\) must be an adjoint_rd.Grid, such as"),
        (dict(dt=0), r"dt=0 \(the time step\) must be positive"),
        (dict(dt=-1.0), r"dt=-1.0 .* positive"),
        (dict(dt=math.nan), r"dt=nan .* positive and finite"),
        (dict(dt=True), r"dt=True .* must be a positive number"),
        (dict(dt="1"), r"dt='1' .* must be a positive number"),
        (dict(dt=np.complex64(1.0)), r"dt=.*1\+0j.* must be a positive number"),
        (dict(scheme="rk5"), r"scheme='rk5' is not known; use one of 'euler', 'rk4'.*Did you mean 'rk4'\?"),
        (dict(dtype="float16"), r"dtype='float16' must be 'float64' or 'float32'"),
        (dict(dtype="complex128"), r"dtype='complex128' must be"),
        (dict(backend="gpu"), r"backend='gpu' is not known"),
        (dict(stability=True), r"stability=True is not known; use one of 'error', 'warn', 'off'"),
        (dict(threads=0), r"threads=0 must be >= 1"),
        (dict(threads=True), r"threads=True must be a whole number"),
        (dict(threads=100_000), r"threads=100000 is far more than the"),
    ],
)
def test_a_simulation_refuses(options, words):
    refused(words, lambda: simulation(**options))


@pytest.mark.parametrize(
    ("y0", "words"),
    [
        (
            Y0[0],
            r"y0 has shape \(5, 6\); gray_scott on this grid needs \(2, 5, 6\): the species u, v first, then the grid",
        ),
        (Y0[:, :, :4], r"y0 has shape \(2, 5, 4\)"),
        (Y0.astype(complex), r"y0 has dtype complex128; it must be real numbers"),
        (Y0 > 0.5, r"y0 has dtype bool"),
        (Y0.astype(object), r"y0 has dtype object"),
        ("pattern", r"y0 has dtype <U7"),
        (None, r"y0 has dtype object"),
        (RAGGED, r"y0 is no array: its rows differ in length"),
        (HOLED, rf"y0 has {np.isnan(HOLED).sum()} values that are not finite, the first at index \(.*\): nan"),
        (MASKED, r"y0 is masked; fill the holes first"),
        (Y0[:0], r"y0 has shape \(0, 5, 6\)"),
        (np.float64(1.0), r"y0 has shape \(\)"),
        (Y0[None, None], r"y0 has shape \(1, 1, 2, 5, 6\)"),
        ([Y0[0], Y0[1, :4]], r"y0 is no array: its rows differ in length"),
        (np.where(Y0 == Y0.max(), np.inf, Y0), r"y0 has 1 values that are not finite, the first at index \(.*\): inf"),
        (OnACard(), r"y0 is a OnACard that NumPy cannot read: .*Please use `.get\(\)`"),
        (WithGradient(), r"y0 is a WithGradient that NumPy cannot read: .*detach"),
        (Y0[None][:0], r"the batch is empty"),
    ],
)
def test_an_initial_state_is_refused(y0, words):
    refused(words, lambda: SIM.run(y0, PARAMS, steps=1))
    refused(words, lambda: SIM.gradient(y0, PARAMS, LOSS, steps=1))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({**PARAMS, "f": 0.1}, r"params has 'f', which gray_scott does not know; .* Du, Dv, F, k. Did you mean 'F'\?"),
        ({**PARAMS, 1: 0.1}, r"params has 1, which"),
        ({name: PARAMS[name] for name in ("Du", "k")}, r"params lacks Dv, F; gray_scott needs Du, Dv, F, k"),
        ({}, r"params lacks Du, Dv, F, k"),
        (None, r"params=None must be a dict with the parameters Du, Dv, F, k"),
        ([("Du", 0.1)], r"must be a dict"),
        (PARAMS | dict(Du=-0.1), r"params\['Du'\]=-0.1 is a diffusivity; it must be >= 0"),
        (PARAMS | dict(Du=np.full(SHAPE, 0.1)), r"diffusivities are scalars.*div\(D grad y\)"),
        (PARAMS | dict(F=True), r"params\['F'\]=True must be a real number"),
        (PARAMS | dict(F=np.True_), r"must be a real number"),
        (dict(Du=0.1, D=0.1, F=0.1), r"params has 'D', which .* does not know and lacks Dv, k; .* Did you mean 'Dv'\?"),
        (PARAMS | dict(F=OnACard()), r"params\['F'\] is a OnACard that NumPy cannot read"),
        (PARAMS | dict(F="0.03"), r"params\['F'\]='0.03' must be a real number"),
        (PARAMS | dict(F=None), r"must be a real number"),
        (PARAMS | dict(F=0.03 + 0j), r"must be a real number"),
        (PARAMS | dict(F=np.complex64(0.03)), r"must be a real number"),
        (PARAMS | dict(F=np.array(0.03j)), r"must be a real number"),
        (PARAMS | dict(F=10**400), r"must be a real number"),
        (PARAMS | dict(F=math.nan), r"params\['F'\]=nan must be finite"),
        (PARAMS | dict(F=-math.inf), r"params\['F'\]=-inf must be finite"),
        (PARAMS | dict(F=np.ma.masked), r"params\['F'\] is masked"),
        (PARAMS | dict(F=MASKED[0]), r"params\['F'\] is masked"),
        (PARAMS | dict(F=RAGGED), r"params\['F'\] is no array"),
        (
            PARAMS | dict(F=np.ones((6, 5))),
            r"params\['F'\] has shape \(6, 5\); a field must have the grid's .*\(5, 6\)",
        ),
        (PARAMS | dict(F=np.array([0.1])), r"shape \(1,\)"),
        (PARAMS | dict(F=HOLED[0]), r"params\['F'\] has .* not finite"),
        (PARAMS | dict(F=Y0[0] > 0.5), r"params\['F'\] has dtype bool"),
        (PARAMS | dict(F=Y0[0] + 0j), r"params\['F'\] has dtype complex128"),
    ],
)
def test_parameters_are_refused(params, words):
    refused(words, lambda: SIM.run(Y0, params, steps=1))
    refused(words, lambda: SIM.tangent(Y0, params, steps=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(steps=True), r"steps=True must be a whole number >= 0"),
        (dict(steps=2.5), r"steps=2.5 must be a whole number"),
        (dict(steps=2.0), r"steps=2.0 must be a whole number"),
        (dict(steps="2"), r"steps='2' must be a whole number"),
        (dict(steps=-1), r"steps=-1 must be >= 0"),
        (dict(steps=None), r"steps=None"),
        (dict(steps=2, save_every=0), r"save_every=0 must be >= 1"),
        (dict(steps=2, save_every=True), r"save_every=True"),
    ],
)
def test_a_number_of_steps_is_refused(options, words):
    refused(words, lambda: SIM.run(Y0, PARAMS, **options))


@pytest.mark.parametrize(
    ("options", "words", "error"),
    [
        (dict(window=4), r"window=4 is longer than the run of steps=3; use window=None for all steps", rd.InputError),
        (dict(window=0), r"window=0 must be >= 1", rd.InputError),
        (dict(window=True), r"window=True must be a whole number", rd.InputError),
        (dict(checkpoints="al"), r"checkpoints='al' must be 'auto', 'all', 'disk' or a whole number", rd.InputError),
        (dict(checkpoints=0), r"checkpoints=0 must be >= 1", rd.InputError),
        (dict(checkpoints=4), r"checkpoints=4 is more than the run's 3 steps", rd.CheckpointError),
    ],
)
def test_a_window_or_checkpoints_are_refused(options, words, error):
    refused(words, lambda: SIM.gradient(Y0, PARAMS, LOSS, steps=3, **options), error)


def test_float32_refuses_what_only_float64_holds():
    sim = simulation(dtype="float32")
    refused(
        r"y0 has 60 values that are not finite in float32.*1e\+39",
        lambda: sim.run(np.full_like(Y0, 1e39), PARAMS, steps=1),
    )
    refused(r"params\['k'\]=1e\+39 must be finite, in float32", lambda: sim.run(Y0, PARAMS | dict(k=1e39), steps=1))


def test_the_limits_on_dt_are_named_with_their_numbers():
    words = r"dt=10 exceeds 1.\d+, the 'certain' limit of euler in 2-D.*Du dt/h\^2 = 1.6.*Use dt <= 1.\d+"
    refused(words, lambda: simulation(dt=10.0).run(Y0, PARAMS, steps=1), rd.StabilityError)
    assert issubclass(rd.StabilityError, ValueError)


@pytest.mark.parametrize("params", [PARAMS | dict(F=4.0), PARAMS | dict(k=6.5), PARAMS | dict(F=np.full(SHAPE, 4.0))])
def test_parameters_in_percent_are_suspected(params):
    words = r"(F=4|k=6.5) looks like a percentage; did you mean 0.0(4|65)\?"
    refused(words, lambda: simulation(dt=1.0).run(Y0, params, steps=1), rd.StabilityError)
    assert not SIM.model.percent_hint(PARAMS)


def test_a_run_that_diverges_says_when_and_keeps_the_last_finite_state():
    sim = simulation(stability="off")
    with pytest.raises(
        rd.DivergenceError, match=r"no longer finite after step \d+ \(first at [uv]\[\d, \d\].*k=-50.*Use a smaller dt"
    ) as caught:
        sim.run(Y0, PARAMS | dict(k=-50.0), steps=100)
    assert isinstance(caught.value, FloatingPointError)
    step = caught.value.step
    last = sim.run(Y0, PARAMS | dict(k=-50.0), steps=step - 1).final
    assert np.array_equal(caught.value.state, last)
    with pytest.raises(rd.DivergenceError) as again:
        sim.gradient(Y0, PARAMS | dict(k=-50.0), LOSS, steps=100, checkpoints=3)
    assert again.value.step == step
    assert np.array_equal(again.value.state, last)


# ------------------------------------------------------------------------------------ directions and losses


@pytest.mark.parametrize(
    ("direction", "words"),
    [
        (dict(f=1.0), r"direction has 'f'.*Did you mean 'F'\?"),
        (dict(F="a"), r"direction\['F'\] has dtype <U1"),
        (dict(F=1j), r"direction\['F'\] has dtype complex128"),
        (dict(F=True), r"direction\['F'\] has dtype bool"),
        (dict(F=math.nan), r"direction\['F'\] has 1 values that are not finite"),
        (dict(F=np.ones(SHAPE)), r"direction\['F'\] has shape \(5, 6\), the parameter has \(\)"),
        ("F", r"direction='F' must be a dict"),
        ([1.0], r"direction=\[1.0\] must be a dict"),
    ],
)
def test_a_direction_is_refused(direction, words):
    refused(words, lambda: SIM.tangent(Y0, PARAMS, steps=1, direction=direction))
    refused(words, lambda: SIM.hessian_product(Y0, PARAMS, LOSS, steps=1, direction=direction))


def test_a_direction_in_the_initial_state_is_checked_like_one():
    refused(r"initial has shape \(5, 6\)", lambda: SIM.tangent(Y0, PARAMS, steps=1, initial=Y0[0]))
    refused(r"initial has dtype complex128", lambda: SIM.tangent(Y0, PARAMS, steps=1, initial=1j * Y0))


def test_steps_of_tangents_must_ascend():
    refused(r"marks=\[3, 2\] must be ascending", lambda: SIM.tangents_at(Y0, PARAMS, [3, 2]))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (None, r"loss=None has no value and no seed"),
        (lambda y: 0.0, r"has no value and no seed; a loss has value\(y\) and seed\(y\) = dL/dy"),
        (rd.losses.L2, r"is a class; make one of it"),
        (rd.losses.Trajectory({9: LOSS}), r"loss observes step 9, but the run has steps=3"),
        (rd.losses.L2(Y0[0]), r"the target's shape \(5, 6\) does not fit the state's \(2, 5, 6\)"),
        (rd.losses.L2(Y0[0], species=7), r"species=\[7\] names more than the state's 2"),
        (LossOf(np.ones(3)), r"the loss at step 3 returned array\(.*\); value\(y\) must return one number"),
        (LossOf(None), r"returned None"),
        (LossOf(1j), r"returned 1j"),
        (LossOf(seed=np.ones((2, 3))), r"returned a seed of shape \(2, 3\) .* real numbers of shape \(2, 5, 6\)"),
        (LossOf(seed=1j * Y0), r"dtype complex128; it must be real numbers"),
    ],
)
def test_a_loss_is_refused(loss, words):
    refused(words, lambda: SIM.gradient(Y0, PARAMS, loss, steps=3))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (LossOf(math.nan), r"the loss at step 3 returned nan for a finite state, 0\.\d+ \.\. \d\.\d+"),
        (LossOf(-math.inf), r"the loss at step 3 returned -inf"),
        (LossOf(seed=HOLED), r"returned a seed that is not finite at [uv]\[\d, \d\], for a finite state"),
        (rd.losses.L2(Y0, sigma=1e-160), r"the loss overflows float64, though the states are finite"),
    ],
)
def test_a_loss_that_is_not_finite_is_named(loss, words):
    refused(words, lambda: SIM.gradient(Y0, PARAMS, loss, steps=3), rd.DivergenceError)


def test_derivatives_that_overflow_are_never_returned():
    sim = simulation(stability="off", dtype="float32", dt=1.0)
    rest, wild = np.stack([np.ones(SHAPE), np.zeros(SHAPE)]), PARAMS | dict(k=-30.0)
    assert np.isfinite(sim.run(rest, wild, steps=60).final).all()  # v stays zero, its derivatives do not
    words = "overflows float32, though the states are finite.*Use fewer steps, a window"
    refused(words, lambda: sim.tangent(rest, wild, steps=60, initial=Y0), rd.DivergenceError)
    loss = rd.losses.Linear(np.ones_like(Y0))
    refused(words, lambda: sim.gradient(rest, wild, loss, steps=60), rd.DivergenceError)
    refused(words, lambda: sim.hessian_product(rest, wild, loss, steps=60, initial=Y0), rd.DivergenceError)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("a", r"weights has dtype <U1"),
        (HOLED, r"weights has \d+ values that are not finite"),
        (WithGradient(), r"weights is a WithGradient"),
    ],
)
def test_a_linear_loss_refuses(weights, words):
    refused(words, lambda: rd.losses.Linear(weights))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(target=1j * Y0), r"target has dtype complex128"),
        (dict(target="a"), r"target has dtype <U1"),
        (dict(target=RAGGED), r"target is no array: its rows differ in length"),
        (dict(target=WithGradient()), r"target is a WithGradient that NumPy cannot read"),
        (dict(target=HOLED), r"target has .* not finite, the first at index .*; mask them out"),
        (dict(target=MASKED), r"target is masked; give its data, and mask=~numpy.ma.getmaskarray\(target\)"),
        (dict(target=Y0, species=[0, 0]), r"species=\[0, 0\] names one twice"),
        (dict(target=Y0, species=[0]), r"target has 2 species on its first axis, species=\[0\] names 1"),
        (dict(target=Y0[0], species="u"), r"species='u' must be a whole number"),
        (dict(target=Y0[0], species=-1), r"species=-1 must be >= 0"),
        (dict(target=Y0, sigma=0.0), r"sigma=.* must be positive"),
        (dict(target=Y0, sigma=-HOLED), r"sigma, of shape \(2, 5, 6\), must be positive"),
        (dict(target=Y0, sigma="a"), r"sigma=.* must be real numbers"),
        (dict(target=Y0, sigma=np.ones(4)), r"sigma \(4,\) and mask \(\) must broadcast to the target's shape"),
        (dict(target=Y0, mask=np.ones((3, 3))), r"mask \(3, 3\) must broadcast"),
    ],
)
def test_a_least_squares_loss_refuses(options, words):
    with pytest.raises(rd.InputError, match=words):
        rd.losses.L2(**options)


@pytest.mark.parametrize("given", [{}, None, [(1, LOSS)], {-1: LOSS}, {1.5: LOSS}, {True: LOSS}, {2: 5}])
def test_a_trajectory_refuses_what_is_no_dict_of_steps_and_losses(given):
    with pytest.raises(rd.InputError, match=r"dict \{step: loss\}|step=|the loss of step 2=5 has no value"):
        rd.losses.Trajectory(given)


# ------------------------------------------------------------------------------------------------- objective


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
        (np.ones((32, 32)), dict(noise=-1), r"noise=-1 must be a standard deviation >= 0"),
        (np.ones((32, 32)), dict(mask=np.ones((2, 2), bool)), r"mask has .* shape \(2, 2\); it must be bool"),
    ],
)
def test_an_inversion_refuses(data, options, words):
    refused(words, lambda: rd.invert(data, **options))


def test_a_uniform_image_is_no_pattern():
    found = rd.invert(np.full((24, 24), 0.3))
    assert not found.success and "uniform" in found.message
    assert all(math.isnan(value) for value in found.params.values())


def test_a_constant_target_is_fitted_as_any_other():
    loss = rd.losses.L2(np.full((2, *SHAPE), 0.3))
    assert np.isfinite(SIM.gradient(Y0, PARAMS, loss, steps=3).value)


# ---------------------------------------------------------------------------------------------- users' models


def decay(**changes):
    """u_t = Du Lap u - r u, with changes."""
    given = dict(
        name="decay",
        species=("u",),
        parameters=("r",),
        reaction=lambda s, p: (-p[0] * s[0],),
        reaction_j=lambda s, p, t, dp: (-p[0] * t[0] - dp[0] * s[0],),
        reaction_jt=lambda s, p, a: (-p[0] * a[0],),
        reaction_pt=lambda s, p, a: (-s[0] * a[0],),
        rest=lambda p: (0.0,),
    )
    return rd.Model(**given | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(species="u"), r"species='u' must be a tuple of names"),
        (dict(species=None), r"species=None must be a tuple of names"),
        (dict(species=()), r"species is empty"),
        (dict(species=("u", "u")), r"a name appears twice"),
        (dict(parameters=("Du",)), r"a name appears twice in .*'Du'"),
        (dict(parameters=(1,)), r"parameters=\(1,\) must be a tuple of names"),
        (dict(diffusivities=("A", "B")), r"2 diffusivities for 1 species"),
        (dict(reaction=None), r"reaction=None must be a function"),
        (dict(rest=(0.0,)), r"rest=\(0.0,\) must be a function"),
    ],
)
def test_a_model_refuses(changes, words):
    refused(words, lambda: decay(**changes))


RATES = {"fast": 2.0}


def not_compilable(s, p):
    return (-RATES["fast"] * s[0] * p[0],)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(reaction=lambda s, p: (s[0], s[0])), r"decay.reaction returned \(1.0, 1.0\); .* a tuple of 1 values"),
        (dict(reaction=lambda s, p: s[0]), r"decay.reaction returned 1.0; it must return a tuple of 1 values"),
        (dict(reaction=lambda s: (s[0],)), r"decay.reaction fails .*: TypeError: .*takes 1 positional argument"),
        (dict(reaction=lambda s, p: (missing * s[0],)), r"decay.reaction fails .*: NameError: .*'missing'"),  # noqa: F821
        (dict(reaction_pt=lambda s, p, a: ()), r"decay.reaction_pt returned \(\)"),
        (dict(reaction=not_compilable), r"the functions of decay cannot be compiled. They may use .* Numba says:"),
        (dict(rest=lambda p: (0.0, 1.0)), r"decay.rest returned \(0.0, 1.0\); it must return 1 values"),
        (dict(box=lambda p: ((0, 1), (0, 1))), r"decay.box returned .*; it must return \(low, high\) for each"),
    ],
)
def test_a_wrong_function_is_named_without_a_trace_of_numba(changes, words):
    run = dict(steps=1)
    refused(
        words,
        lambda: rd.Simulation(decay(**changes), rd.Grid((8,)), dt=0.1).run(np.ones((1, 8)), dict(Du=0.1, r=0.1), **run),
    )


def test_the_right_input_passes():
    """The control: what is refused above is the fault and nothing else."""
    assert np.isfinite(SIM.gradient(Y0, PARAMS, LOSS, steps=3, window=2, checkpoints=1).value)
    assert np.isfinite(
        SIM.run(Y0.tolist(), {name: np.float32(value) for name, value in PARAMS.items()}, steps=np.int64(2)).final
    ).all()
    assert np.isfinite(
        SIM.run(np.ma.masked_array(Y0), PARAMS | dict(F=np.full(SHAPE, 0.03).tolist()), steps=1).final
    ).all()
    obj = objective()
    assert np.isfinite(obj.value(obj.pack(F=0.03, k=np.float32(0.06)).tolist()))
    model = decay(reaction=lambda s, p: (math.log(s[0] - 1.0) * p[0],))  # outside its domain at 1
    rd.Simulation(model, rd.Grid((8,)), dt=0.1)


@pytest.mark.parametrize(
    "given",
    [
        np.asfortranarray(Y0),
        np.repeat(Y0, 2, axis=2)[:, :, ::2],
        Y0[:, ::-1][:, ::-1],
        Y0.astype(">f8"),
        Y0.tolist(),
        np.ma.masked_array(Y0),
    ],
)
@pytest.mark.parametrize("writeable", [True, False])
def test_any_layout_of_the_same_numbers_is_read_and_never_written(given, writeable):
    if isinstance(given, np.ndarray):
        given.flags.writeable = writeable
    before = np.array(given)
    found = SIM.gradient(given, PARAMS, rd.losses.L2(given), steps=3, checkpoints=1)
    assert np.array_equal(SIM.run(given, PARAMS, steps=3).final, SIM.run(Y0, PARAMS, steps=3).final)
    assert np.array_equal(found.initial, SIM.gradient(Y0, PARAMS, LOSS, steps=3).initial)
    assert np.array_equal(np.array(given), before)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8"])
def test_other_real_numbers_are_converted(dtype):
    given = (10 * Y0).astype(dtype)
    sim = simulation(stability="off", dt=1e-3)
    assert np.array_equal(
        sim.run(given, PARAMS, steps=2).final, sim.run(given.astype("float64"), PARAMS, steps=2).final
    )


def test_no_step_gives_a_copy():
    found = SIM.run(Y0, PARAMS, steps=0)
    assert np.array_equal(found.final, Y0) and not np.shares_memory(found.final, Y0)


@pytest.mark.parametrize("x", [[0.0, 710.0], [800.0, 800.0], [1e200, 0.0], [-1e300, 5.0]])
def test_an_x_far_too_large_never_gives_what_is_not_finite(x):
    obj = objective()
    obj.value(obj.pack(F=0.03, k=0.06))
    for function in (obj.value_and_grad, obj.misfit, obj.misfit_jacobian, lambda x: obj.hessp(x, [1.0, 1.0])):
        with contextlib.suppress(rd.DivergenceError):
            found = function(np.array(x))
            assert all(np.isfinite(part).all() for part in (found if isinstance(found, tuple) else [found]))


def test_counts_beyond_any_run_are_refused():
    refused(r"steps, a number of 31 digits, is more than any run can take", lambda: SIM.run(Y0, PARAMS, steps=10**30))
