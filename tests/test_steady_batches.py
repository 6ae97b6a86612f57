"""Batches of runs to a steady state: each member is what it is alone, and stops when it is steady itself."""

import numpy as np
import pytest

import adjoint_rd as rd

LIVE, DEAD = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06), dict(Du=0.16, Dv=0.08, F=0.02, k=0.08)


@pytest.fixture(scope="module")
def sim():
    return rd.Simulation("gray_scott", rd.Grid((40, 40)), dt=1.0)


def starts(sim):
    return np.stack([sim.initial_state("square", rng=n, clip=(0, 1)) for n in range(3)])


def test_members_freeze_one_by_one(sim):
    y0, params, tols = starts(sim), [LIVE, DEAD, DEAD], [1e-6, 1e-6, 1e-3]
    found = sim.run_to_steady(y0, params, tol=tols, max_steps=[1500, 5000, 5000])
    alone = [
        sim.run_to_steady(y, p, tol=tol, max_steps=most)
        for y, p, tol, most in zip(y0, params, tols, [1500, 5000, 5000], strict=True)
    ]
    assert np.array_equal(found.final, [each.final for each in alone])
    assert found.steps_taken.tolist() == [each.steps_taken for each in alone]
    assert found.rate.tolist() == [each.rate for each in alone]
    assert found.converged.tolist() == [False, True, True]
    assert found.steps_taken[0] == 1500 > found.steps_taken[1] > found.steps_taken[2]


def test_one_tolerance_and_one_parameter_set_serve_all(sim):
    found = sim.run_to_steady(starts(sim), DEAD, tol=1e-4)
    assert found.final.shape == (3, *sim.state_shape) and found.converged.all()
    assert sim.run_to_steady(starts(sim)[0], DEAD, tol=1e-4).steps_taken == found.steps_taken[0]


def test_wrong_counts_are_refused(sim):
    with pytest.raises(rd.InputError, match="3 members"):
        sim.run_to_steady(starts(sim), DEAD, tol=[1e-4, 1e-3])
    with pytest.raises(rd.InputError, match="tol"):
        sim.run_to_steady(starts(sim), DEAD, tol=[1e-4, 1e-3, -1.0])
