"""How the search for a steady state ends where there is none near, and what is handed back then."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import steady

SPOTS = {"Du": 0.16, "Dv": 0.08, "F": 0.035, "k": 0.065}
SIM = rd.Simulation("gray_scott", rd.Grid((12, 12)), dt=1.0, threads=1)
START = SIM.initial_state("square", rng=2, size=4)


def objective(**options):
    fixed = {name: value for name, value in SPOTS.items() if name != "F"}
    return steady.SteadyObjective(SIM, START, rd.losses.L2(0.9 * START), free="F", fixed=fixed, modes=None, **options)


def test_steps_are_taken_first():
    found = steady.find(SIM, START, SPOTS, steps=50, max_iterations=0)
    assert np.array_equal(found.state, SIM.run(START, SPOTS, steps=50).final) and not found.converged


def test_an_objective_that_does_not_converge_says_so_and_keeps_the_state():
    with pytest.raises(steady.SteadyError, match=r"no steady state within 1 Newton steps at .*'F': 0.035") as caught:
        objective(max_iterations=1)(np.log([0.035]))
    assert isinstance(caught.value, rd.AdjointRDError) and caught.value.state.shape == SIM.state_shape


def test_value_gradient_and_call_agree():
    obj = objective()
    x = obj.pack(F=0.035)
    value, gradient = obj.value_and_grad(x)
    assert obj(x) == obj.value(x) == value and np.array_equal(obj.grad(x), gradient)
    h = 1e-4
    assert gradient[0] == pytest.approx((obj(x + h) - obj(x - h)) / (2 * h), rel=1e-4)


def test_a_solver_that_does_not_converge_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(steady.iterative, "gmres", lambda A, b, **options: (np.zeros_like(b), 8))
    with pytest.raises(steady.SteadyError, match=r"GMRES did not converge .* use solver='direct'"):
        steady.find(SIM, START, SPOTS, solver="krylov")


def test_a_start_that_is_far_away_ends_with_finite_numbers():
    wild = 40.0 * np.random.default_rng(0).standard_normal(SIM.state_shape)
    found = steady.find(SIM, wild, SPOTS, max_iterations=30, modes=None)
    assert np.isfinite(found.state).all() and np.isfinite(found.rate)


def test_a_step_that_is_not_finite_is_an_error_with_the_state(monkeypatch):
    monkeypatch.setattr(steady, "_factor", lambda *args: lambda b, transpose: np.full_like(b, np.nan))
    with pytest.raises(steady.SteadyError, match="the Newton step is not finite") as caught:
        steady.find(SIM, START, SPOTS)
    assert np.array_equal(caught.value.state, START)
