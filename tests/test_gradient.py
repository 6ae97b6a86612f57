"""`Simulation.gradient` against automatic differentiation (JAX, float64) of an independent program, over 100 steps."""

from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import setups
from three_species import oregonator

import adjoint_rd as rd

pytest.importorskip("jax")
import reference_jax

STEPS = 100
LIMIT = 1e-11  # max-norm of the error over max-norm of the block


def both_losses(case, kind):
    """The library's loss, and the same as JAX sees it."""
    if kind == "final":
        return rd.losses.L2(case.target, sigma=0.5), ref.l2(case.target, sigma=0.5)
    if kind == "part":  # one species, some cells, a noise level for each
        rng = np.random.default_rng(0)
        mask, sigma = rng.random(case.target.shape[1:]) < 0.7, rng.uniform(0.5, 2.0, case.target.shape[1:])
        last = len(case.target) - 1
        return (
            rd.losses.L2(case.target[last], species=last, sigma=sigma, mask=mask),
            ref.l2(case.target[last], species=last, sigma=sigma, mask=mask),
        )
    early, own, final = rd.losses.L2(case.target, sigma=2.0), setups.Wavy(case.target), rd.losses.L2(0.9 * case.target)
    jax_early, jax_final = ref.l2(case.target, sigma=2.0), ref.l2(0.9 * case.target)
    return (
        rd.losses.Trajectory({0: early, 37: own, 60: early, STEPS: final}),
        {0: jax_early, 37: own, 60: jax_early, STEPS: jax_final},
    )


def errors(sim, case, loss, jax_loss, **keywords):
    """The relative error of each block, the value among them."""
    got = sim.gradient(case.y0, case.params, loss, steps=STEPS, **keywords)
    want = reference_jax.value_and_grad(**case.physics, loss=jax_loss, steps=STEPS, window=keywords.get("window"))
    return {"value": abs(got.value - want.value) / want.value, **ref.block_errors(got, want)}


SETUPS = [  # model, shape, boundary, scheme, parameters that are fields, loss, window, equal spacings
    ("gray_scott", (9,), "periodic", "euler", (), "part", None, True),
    ("schnakenberg", (8,), "neumann", "euler", "all", "final", None, True),
    ("allen_cahn", (11,), "dirichlet", "euler", (), "times", 50, True),
    ("oregonator", (7,), "mixed", "rk4", (), "final", None, True),
    ("gray_scott", (5, 6), "periodic", "euler", (), "times", None, True),
    ("schnakenberg", (6, 5), "dirichlet", "euler", ("a",), "times", 63, False),
    ("allen_cahn", (4, 7), "neumann", "rk4", "all", "part", None, False),
    ("oregonator", (5, 4), "mixed", "euler", ("e", "q"), "final", None, False),
    ("gray_scott", (3, 4, 5), "neumann", "euler", "all", "part", 30, False),
    ("gray_scott", (4, 3, 5), "mixed", "euler", (), "times", None, False),
    ("schnakenberg", (4, 3, 5), "periodic", "euler", (), "final", None, True),
    ("oregonator", (3, 5, 4), "dirichlet", "euler", (), "final", 100, False),
]


@pytest.mark.parametrize(
    ("model", "shape", "boundary", "scheme", "fields", "kind", "window", "equal"), SETUPS, ids=setups.word
)
def test_the_gradient_equals_automatic_differentiation(model, shape, boundary, scheme, fields, kind, window, equal):
    case = setups.draw(model, shape, boundary, scheme, fields, equal_spacing=equal)
    sim = setups.simulation(case)
    losses = both_losses(case, kind)
    for seed in (1, 2, 3):
        found = errors(sim, setups.redraw(case, seed), *losses, window=window)
        assert set(found) == {"value", *ref.MODELS[model].parameters, "initial"}
        assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize(
    ("shape", "boundary", "fields"), [((5, 6), "periodic", ()), ((3, 4, 5), "neumann", "all")], ids=setups.word
)
def test_float32_gradients_are_those_of_float64_to_its_precision(shape, boundary, fields):
    case = setups.draw("gray_scott", shape, boundary, "euler", fields, equal_spacing=len(shape) == 2)
    loss = rd.losses.L2(case.target)
    want = setups.simulation(case).gradient(case.y0, case.params, loss, steps=STEPS)
    got = setups.simulation(case, "float32").gradient(case.y0, case.params, loss, steps=STEPS)
    assert got.initial.dtype == np.float32
    found = ref.block_errors(got, want)
    assert max(found.values()) <= 1e-4, found
    assert min(found.values()) > 1e-13, "float32 was not used"


class WrongSign(rd.losses.L2):
    def seed(self, y):
        return -super().seed(y)


def without_the_cross_term(s, p, a):
    """`gray_scott.reaction_jt` less its v^2 av: u's part in making v is forgotten."""
    u, v = s
    F, k = p
    au, av = a
    uvd = u * v * (av - au)
    return -v * v * au - F * au, uvd + uvd - (F + k) * av


def test_the_comparison_sees_a_wrong_loss_and_a_dropped_term():
    """The control."""
    case = setups.draw("gray_scott", (9,), "periodic")
    loss = ref.l2(case.target)
    found = errors(setups.simulation(case), case, WrongSign(case.target), loss)
    assert found.pop("value") <= LIMIT
    assert min(found.values()) > 1.9
    mutant = replace(rd.models.get("gray_scott"), reaction_jt=without_the_cross_term)
    found = errors(setups.simulation(case, model=mutant), case, rd.losses.L2(case.target), loss)
    assert found.pop("value") <= LIMIT
    assert min(found.values()) > 1e-4, found


def test_a_window_of_all_steps_is_no_window():
    case = setups.draw("gray_scott", (9,), "periodic")
    sim, loss = setups.simulation(case), rd.losses.L2(case.target)
    whole = sim.gradient(case.y0, case.params, loss, steps=20)
    window = sim.gradient(case.y0, case.params, loss, steps=20, window=20)
    assert window.params == whole.params
    assert np.array_equal(window.initial, whole.initial)
    shorter = sim.gradient(case.y0, case.params, loss, steps=20, window=19)
    assert shorter.value == whole.value
    assert shorter.params != whole.params


def test_observations_before_the_window_count_in_the_value_alone():
    case = setups.draw("gray_scott", (9,), "periodic")
    sim, early, late = setups.simulation(case), rd.losses.L2(case.target), rd.losses.L2(0.9 * case.target)
    run = dict(steps=20, window=5)
    some = sim.gradient(case.y0, case.params, rd.losses.Trajectory({14: early, 20: late}), **run)
    only = sim.gradient(case.y0, case.params, late, **run)
    assert some.params == only.params
    assert np.array_equal(some.initial, only.initial)
    state = sim.run(case.y0, case.params, steps=14).final
    assert some.value == pytest.approx(only.value + early.value(state), rel=1e-14)
    at_its_start = sim.gradient(case.y0, case.params, rd.losses.Trajectory({15: early, 20: late}), **run)
    assert not np.array_equal(at_its_start.initial, only.initial)
    assert at_its_start.params == only.params  # the window's first state is held fixed


def test_no_steps_leave_the_loss_of_the_initial_state():
    case = setups.draw("oregonator", (7,), "mixed")
    loss = rd.losses.L2(case.target)
    found = setups.simulation(case).gradient(case.y0, case.params, loss, steps=0)
    assert found.value == pytest.approx(loss.value(case.y0), rel=1e-14)
    assert np.array_equal(found.initial, loss.seed(case.y0))
    assert found.params == dict.fromkeys(oregonator.names, 0.0)
