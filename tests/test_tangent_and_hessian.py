"""Tangents, transposes and Hessian products of compiled runs, against each other and against two independent programs.

`test_every_setup.py` does the same for every set-up, interpreted.
"""

from dataclasses import replace

import numpy as np
import pytest
import reference as ref
import setups

import adjoint_rd as rd
from adjoint_rd import checkpoint, sweeps

STEPS = 50
SETUPS = [  # model, shape, boundary, scheme, parameters that are fields, equal spacings; compiled in test_gradient too
    ("gray_scott", (9,), "periodic", "euler", (), True),
    ("schnakenberg", (8,), "neumann", "euler", "all", True),
    ("schnakenberg", (6, 5), "dirichlet", "euler", ("a",), False),
    ("allen_cahn", (4, 7), "neumann", "rk4", "all", False),
    ("oregonator", (5, 4), "mixed", "euler", ("e", "q"), False),
    ("gray_scott", (3, 4, 5), "neumann", "euler", "all", False),
    ("gray_scott", (4, 3, 5), "mixed", "euler", (), False),
]
NAMES = ("model", "shape", "boundary", "scheme", "fields", "equal")


def tangent_error(case, sim):
    """Against complex steps through the NumPy reference: J t = Im y(p + i h dp, y0 + i h dy0) / h."""
    h, (dparams, dinitial) = 1e-30, setups.directions(case)
    moved = {name: value + 1j * h * dparams[name] for name, value in case.params.items()}
    want = ref.run(**case.physics | {"y0": case.y0 + 1j * h * dinitial, "params": moved}, steps=STEPS).imag / h
    got = sim.tangent(case.y0, case.params, steps=STEPS, direction=dparams, initial=dinitial)
    assert ref.relative_error(got.final, ref.run(**case.physics, steps=STEPS)) < 1e-13
    return ref.relative_error(got.tangent, want)


def dot_errors(case, sim):
    """|<a, J t> - <J^T a, t>| / (|J t| |a|) for directions in the initial state, in all parameters, and in both."""
    rng = np.random.default_rng(1)
    dparams, dinitial = setups.directions(case)
    a = rng.standard_normal(case.y0.shape).astype(sim.dtype).astype(float)
    pulled = sim.gradient(case.y0, case.params, rd.losses.Linear(a), steps=STEPS)
    nothing = {name: np.zeros(np.shape(value)) for name, value in dparams.items()}, np.zeros_like(dinitial)
    found = []
    for t in ((nothing[0], dinitial), (dparams, nothing[1]), (dparams, dinitial)):
        # The direction as the simulation's dtype sees it: its rounding is no error of the transpose.
        t = {name: np.asarray(value, sim.dtype).astype(float) for name, value in t[0].items()}, t[1].astype(sim.dtype)
        pushed = sim.tangent(case.y0, case.params, steps=STEPS, direction=t[0], initial=t[1]).tangent.astype(float)
        difference = np.sum(a * pushed) - setups.dot((pulled.params, pulled.initial.astype(float)), t)
        found.append(abs(difference) / (np.linalg.norm(pushed) * np.linalg.norm(a)))
    return found


@pytest.mark.parametrize(NAMES, SETUPS, ids=setups.word)
def test_the_tangent_is_the_derivative_and_the_gradient_its_transpose(model, shape, boundary, scheme, fields, equal):
    case = setups.draw(model, shape, boundary, scheme, fields, equal_spacing=equal)
    sim = setups.simulation(case)
    assert tangent_error(case, sim) <= 1e-12
    assert max(dot_errors(case, sim)) <= 1e-13 * STEPS


@pytest.mark.parametrize(NAMES, [SETUPS[0], SETUPS[5]], ids=setups.word)
def test_the_transpose_holds_in_float32(model, shape, boundary, scheme, fields, equal):
    case = setups.draw(model, shape, boundary, scheme, fields, equal_spacing=equal)
    found = dot_errors(case, setups.simulation(case, "float32"))
    assert max(found) <= 1e-5
    assert max(found) > 1e-12, "float32 was not used"


HESSIANS = [  # with a window
    (*SETUPS[0], 30),
    (*SETUPS[2], None),
    (*SETUPS[4], None),
    (*SETUPS[6], 45),
    ("allen_cahn", (11,), "dirichlet", "rk4", (), True, None),
]


@pytest.mark.parametrize((*NAMES, "window"), HESSIANS, ids=setups.word)
def test_hessian_products_equal_automatic_differentiation(model, shape, boundary, scheme, fields, equal, window):
    pytest.importorskip("jax")
    import reference_jax

    case = setups.draw(model, shape, boundary, scheme, fields, equal_spacing=equal)
    sim = setups.simulation(case)
    wavy = setups.Wavy(case.target)
    loss = rd.losses.Trajectory({10: wavy, 33: rd.losses.L2(case.target), STEPS: wavy})
    jax_loss = {10: wavy, 33: ref.l2(case.target), STEPS: wavy}
    for seed in (1, 2):
        case = setups.redraw(case, seed)
        dparams, dinitial = setups.directions(case, seed)
        along = dict(steps=STEPS, window=window)
        got = sim.hessian_product(case.y0, case.params, loss, direction=dparams, initial=dinitial, **along)
        want = reference_jax.hvp(**case.physics, loss=jax_loss, dparams=dparams, dinitial=dinitial, **along)
        found = ref.block_errors(got, want)
        assert max(found.values()) <= 1e-11, found


@pytest.mark.parametrize((*NAMES, "window"), HESSIANS, ids=setups.word)
def test_hessian_products_are_symmetric_and_linear(model, shape, boundary, scheme, fields, equal, window):
    case = setups.draw(model, shape, boundary, scheme, fields, equal_spacing=equal)
    sim, loss = setups.simulation(case), setups.Wavy(case.target)

    def product(of):
        found = sim.hessian_product(
            case.y0, case.params, loss, steps=STEPS, window=window, direction=of[0], initial=of[1]
        )
        return found.params, found.initial

    s, t = setups.directions(case, 1), setups.directions(case, 2)
    both = {name: s[0][name] - 2 * t[0][name] for name in s[0]}, s[1] - 2 * t[1]
    Hs, Ht, Hboth = product(s), product(t), product(both)
    scale = np.sqrt(setups.dot(Hs, Hs) * setups.dot(t, t))
    assert abs(setups.dot(t, Hs) - setups.dot(s, Ht)) <= 1e-13 * STEPS * scale
    assert abs(setups.dot(t, Hboth) - setups.dot(t, Hs) + 2 * setups.dot(t, Ht)) <= 1e-13 * STEPS * scale


def test_the_derivative_of_the_loss_comes_with_the_hessian_product():
    case = setups.draw("gray_scott", (9,), "periodic")
    sim, loss, (dparams, dinitial) = setups.simulation(case), setups.Wavy(case.target), setups.directions(case)
    found = sim.hessian_product(case.y0, case.params, loss, steps=STEPS, direction=dparams, initial=dinitial)
    gradient = sim.gradient(case.y0, case.params, loss, steps=STEPS)
    want = setups.dot((gradient.params, gradient.initial), (dparams, dinitial))
    assert found.value == pytest.approx(want, rel=1e-12)


def test_a_linear_loss_still_has_the_curvature_of_the_run():
    case = setups.draw("gray_scott", (9,), "periodic")
    sim, (dparams, dinitial) = setups.simulation(case), setups.directions(case)
    loss = rd.losses.Linear(case.target)
    found = sim.hessian_product(case.y0, case.params, loss, steps=STEPS, direction=dparams, initial=dinitial)
    assert np.abs(found.initial).max() > 1e-3


def doubled(s, p, t, dp, a):
    """`allen_cahn.reaction_jt_t`, twice as large."""
    (u,), (r,), (tu,), (dr,), (au,) = s, p, t, dp, a
    uu = u * u
    ututu = u * tu + u * tu + u * tu
    e = dr * (au - (uu + uu + uu) * au) - r * (ututu + ututu) * au
    return (e + e,)


def test_a_wrong_second_derivative_spoils_the_symmetry():
    """The control."""
    case = setups.draw("allen_cahn", (11,), "dirichlet", "rk4")
    mutant = replace(rd.models.get("allen_cahn"), reaction_jt_t=doubled)
    s, t = setups.directions(case, 1), setups.directions(case, 2)
    gap = {}
    for model in (None, mutant):
        sim, loss = setups.simulation(case, model=model), setups.Wavy(case.target)

        def product(of, sim=sim, loss=loss):
            found = sim.hessian_product(case.y0, case.params, loss, steps=STEPS, direction=of[0], initial=of[1])
            return found.params, found.initial

        Hs, Ht = product(s), product(t)
        gap[model] = abs(setups.dot(t, Hs) - setups.dot(s, Ht)) / np.sqrt(setups.dot(Hs, Hs) * setups.dot(t, t))
    assert gap[None] < 1e-13 * STEPS
    assert gap[mutant] > 1e-4


def test_a_model_without_second_derivatives_says_what_it_lacks():
    case = setups.draw("gray_scott", (9,), "periodic")
    first_order = replace(rd.models.get("gray_scott"), reaction_pt_t=None)
    sim = setups.simulation(case, model=first_order)
    with pytest.raises(rd.InputError, match="no second derivatives; give the Model reaction_jt_t and reaction_pt_t"):
        sim.hessian_product(case.y0, case.params, setups.Wavy(case.target), steps=5)


def test_a_loss_without_seed_tangent_says_that_hessian_products_need_it():
    class Bare:
        value = staticmethod(lambda y: float(y.sum()))
        seed = staticmethod(np.ones_like)

    case = setups.draw("gray_scott", (9,), "periodic")
    sim = setups.simulation(case)
    with pytest.raises(rd.InputError, match="seed_tangent"):
        sim.hessian_product(case.y0, case.params, Bare(), steps=5)


def test_hessian_products_do_not_depend_on_the_checkpoints(monkeypatch):
    case = setups.draw("gray_scott", (9,), "periodic")
    sim = setups.simulation(case)
    _, t = setups.directions(case)
    arguments = (case.y0, case.params, rd.losses.L2(case.target))
    whole = sim.hessian_product(*arguments, steps=40, direction={"F": 1.0}, initial=t)
    stored, kept = sweeps.HessianSweep.store, []
    monkeypatch.setattr(sweeps.HessianSweep, "store", lambda self, slot: (kept.append(slot), stored(self, slot)))
    monkeypatch.setattr(checkpoint, "UNNOTICED_BYTES", 0)
    monkeypatch.setattr(checkpoint, "available_bytes", lambda: 5000.0)
    found = sim.hessian_product(*arguments, steps=40, direction={"F": 1.0}, initial=t)
    assert len(kept) > 5 and found.value == whole.value and found.params == whole.params
    assert np.array_equal(found.initial, whole.initial)
