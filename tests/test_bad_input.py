"""What a user may get wrong in grids, simulations, arrays and parameters: one row a case, with words of the message,
which says what was given and what is needed.

Losses and directions, objectives and fits, users' models, and files have tables of their own, `test_bad_input_*.py`.
"""

import math

import numpy as np
import pytest
from bad_input import HOLED, LOSS, MASKED, PARAMS, RAGGED, SHAPE, SIM, Y0, OnACard, WithGradient, refused, simulation

import adjoint_rd as rd


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
        (dict(spacing=1e-200), r"spacing=1e-200 is so far from 1 that its square is no number"),
        (dict(boundary="dirichlet", wall=10**400), r"wall=.* must be one number per species"),
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
        (Y0[None, :1], r"(?s)y0 has shape \(1, 5, 6\).*in member 0 of the batch"),
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


def test_the_right_input_passes():
    """The control: what is refused above is the fault and nothing else."""
    assert np.isfinite(SIM.gradient(Y0, PARAMS, LOSS, steps=3, window=2, checkpoints=1).value)
    assert np.isfinite(
        SIM.run(Y0.tolist(), {name: np.float32(value) for name, value in PARAMS.items()}, steps=np.int64(2)).final
    ).all()
    assert np.isfinite(
        SIM.run(np.ma.masked_array(Y0), PARAMS | dict(F=np.full(SHAPE, 0.03).tolist()), steps=1).final
    ).all()


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


def test_counts_beyond_any_run_are_refused():
    refused(r"steps, a number of 31 digits, is more than any run can take", lambda: SIM.run(Y0, PARAMS, steps=10**30))
