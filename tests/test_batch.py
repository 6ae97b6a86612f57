"""A batch gives what its members give one by one, to the last bit, and says which member was wrong."""

import numpy as np
import pytest

import adjoint_rd as rd

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


@pytest.fixture(scope="module")
def batch():
    sim = rd.Simulation("gray_scott", rd.Grid((20, 24)), dt=0.9)
    states = np.stack([sim.initial_state("square", rng=seed) for seed in range(5)])
    params = [dict(PARAMS, F=0.03 + 0.002 * n) for n in range(5)]
    return sim, states, params


def test_run_of_a_batch_equals_the_runs_of_its_members(batch):
    sim, states, params = batch
    together = sim.run(states, params, steps=30, save_every=10)
    for n in range(5):
        alone = sim.run(states[n], params[n], steps=30, save_every=10)
        np.testing.assert_array_equal(together.final[n], alone.final)
        np.testing.assert_array_equal(together.states[n], alone.states)


def test_gradient_of_a_batch_equals_the_gradients_of_its_members(batch):
    sim, states, params = batch
    targets = [rd.losses.L2(np.roll(state, 3, axis=1)) for state in states]
    together = sim.gradient(states, params, targets, steps=30)
    assert together.value.shape == (5,)
    for n in range(5):
        alone = sim.gradient(states[n], params[n], targets[n], steps=30, checkpoints=7)
        assert together.value[n] == alone.value
        assert {name: together.params[name][n] for name in PARAMS} == alone.params
        np.testing.assert_array_equal(together.initial[n], alone.initial)


def test_one_state_serves_all_parameter_sets_and_the_other_way_round(batch):
    sim, states, params = batch
    many_params = sim.run(states[0], params, steps=5)
    many_states = sim.run(states, params[0], steps=5)
    np.testing.assert_array_equal(many_params.final[0], many_states.final[0])
    assert many_params.final.shape == many_states.final.shape == states.shape


def test_an_error_names_the_member(batch):
    sim, states, params = batch
    wrong = [*params[:3], dict(params[3], F=np.nan), params[4]]
    with pytest.raises(rd.InputError, match=r"F.*finite") as raised:
        sim.run(states, wrong, steps=5)
    assert "member 3" in raised.value.__notes__[0]


@pytest.mark.parametrize("count", [0, 4])
def test_lengths_that_differ_are_refused(batch, count):
    sim, states, params = batch
    with pytest.raises(rd.InputError, match=r"members|empty"):
        sim.run(states if count else states[:0], params[:count], steps=5)


def test_progress_counts_the_steps_of_all_members(batch):
    sim, states, params = batch
    counts = []
    sim.run(states, params, steps=30, progress=counts.append)
    assert sum(counts) == 5 * 30
