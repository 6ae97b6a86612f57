"""The checks of gradients: they pass where all is right, on every scheme and wall, and fail where a term is wrong."""

import dataclasses

import numpy as np
import pytest
from setups import decay

import adjoint_rd as rd
from adjoint_rd import models, penalties, validate

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
PRIOR = penalties.Gaussian(dict(F=0.04), dict(F=0.01))


def objective(model="gray_scott", boundary="periodic", scheme="euler", **options):
    sim = rd.Simulation(model, rd.Grid((7, 6), boundary=boundary), dt=0.5, scheme=scheme, stability="off")
    y0 = np.random.default_rng(0).uniform(0.1, 0.9, sim.state_shape)
    obj = rd.Objective(sim, y0, rd.losses.L2(0.9 * y0), steps=6, free=(*PARAMS, "initial"), **options)
    return obj, obj.pack(**PARAMS)


@pytest.mark.parametrize("scheme", ["euler", "rk4"])
@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_the_gradient_equals_complex_steps(scheme, boundary):
    report = validate.complex_step(*objective(scheme=scheme, boundary=boundary, penalty=PRIOR))
    assert report.passed and report.worst < 1e-11 and len(report.rows) == 5
    assert str(report).startswith("complex step: passed")


def test_complex_steps_find_a_wrong_term():
    def wrong(s, p, a):
        u, v = s
        F, k = p
        d = a[1] - a[0]
        return v * v * d - F * a[0], u * v * d - (F + k) * a[1]  # a factor of 2 lost

    model = dataclasses.replace(models.get("gray_scott"), name="wrong", reaction_jt=wrong)
    report = validate.complex_step(*objective(model))
    assert not report.passed and report.worst > 1e-4 and "FAILED for" in str(report)


DECAY = decay()


def test_a_linear_problem_has_no_remainder_to_measure():
    loss = rd.losses.Linear(np.random.default_rng(1).standard_normal((1, 7, 6)))
    sim = rd.Simulation(DECAY, rd.Grid((7, 6)), dt=0.5)
    y0 = np.ones(sim.state_shape)
    obj = rd.Objective(sim, y0, loss, steps=6, free=("initial",), fixed=dict(Du=0.1, r=0.2), transform=None)
    report = validate.taylor(obj, obj.pack())
    assert report.passed and report.exact and "the remainder is at rounding level" in str(report)


def test_a_model_without_second_derivatives_is_checked_in_the_first():
    report = validate.model(DECAY)
    assert report.passed and [row.name.split(",")[0] for row in report.rows] == [
        "reaction_j",
        "reaction_jt",
        "reaction_pt",
    ]


@pytest.mark.jit
def test_a_bare_number_is_reported_because_it_promotes_float32():
    promoting = dataclasses.replace(DECAY, name="promoting", reaction=lambda s, p: (-p[0] * s[0] * 1.0,))
    report = validate.model(promoting)
    assert not report.passed and [row.name for row in report.rows if not row.passed] == ["reaction in float32"]


def test_a_derivative_of_the_wrong_length_is_refused():
    short = dataclasses.replace(DECAY, name="short", reaction_pt=lambda s, p, a: ())
    with pytest.raises(rd.InputError, match="reaction_pt returned"):
        validate.model(short)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_products_are_transposes_to_the_tolerance_that_is_asked_for(dtype):
    sim = rd.Simulation("gray_scott", rd.Grid((7, 6)), dt=0.5, dtype=dtype)
    y0 = np.random.default_rng(0).uniform(0.1, 0.9, sim.state_shape)
    report = validate.dot_product(sim, y0, PARAMS, steps=8)
    assert report.passed and 0.0 < report.worst
    assert not validate.dot_product(sim, y0, PARAMS, steps=8, tolerance=report.worst / 2).passed
