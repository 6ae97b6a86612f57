"""Every preset still has a pattern long after the start, and is described truly."""

import dataclasses
import pickle

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import presets

PEARSON = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
MUNAFO = ["nu", "xi", "pi", "rho", "sigma"]
WELL = [f"well-{name}" for name in ["gliders", "bubbles", "maze", "worms", "spirals", "spots"]]
SIDE, STEPS = 96, 20_000  # 1.8e8 cell-steps: about a second each


def simulate(preset, steps, initial=None, rng=0, **changes):
    """The last two states of a run, and the simulation."""
    grid = rd.Grid((SIDE, SIDE), spacing=preset.spacing)
    sim = rd.Simulation(preset.model, grid, dt=preset.dt, stability="off")
    y0 = sim.initial_state(**(initial or preset.initial), rng=rng)
    parameters = {**preset.parameters, **changes}
    before = sim.run(y0, parameters, steps=steps - 1).final
    return before, sim.run(before, parameters, steps=1).final


def has_a_pattern(y):
    return np.isfinite(y).all() and y[1].max() > 0.1 and y[1].std() > 0.02


@pytest.mark.parametrize("name", presets.names())
def test_the_pattern_survives(name):
    preset = presets.get(name)
    before, y = simulate(preset, STEPS)
    assert has_a_pattern(y)
    rate = np.abs(y - before).max() / preset.dt
    if preset.behaviour == "moving":
        assert rate > 2e-4
    else:
        assert rate < 5e-3
    assert 0 < preset.steps_to_develop <= STEPS


@pytest.mark.parametrize(
    ("name", "changes", "initial"),
    [
        ("zeta", dict(F=0.022, k=0.061), None),
        ("xi", {}, dict(kind="square", clip=(0, 1))),
        ("rho", {}, dict(kind="square", clip=(0, 1))),
        ("nu", {}, dict(kind="square", clip=(0, 1))),
    ],
    ids=["a point that dies", "spirals from a square", "bubbles from a square", "solitons from a square"],
)
def test_the_survival_test_can_fail(name, changes, initial):
    _, y = simulate(presets.get(name), 5_000, initial, **changes)
    assert not has_a_pattern(y)


def test_all_classes_are_there():
    assert set(presets.names()) == {*PEARSON, *MUNAFO, *WELL, "reference"}
    assert set(presets.names("steady")) | set(presets.names("moving")) == set(presets.names())
    assert "alpha" in presets.names("moving") and "delta" in presets.names("steady")


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_complete(name):
    preset = presets.get(name)
    assert preset.name == name
    assert set(preset.parameters) == {"Du", "Dv", "F", "k"}
    assert all(type(value) is float and value > 0.0 for value in preset.parameters.values())
    assert preset.behaviour in ("steady", "moving")
    assert preset.description and preset.source


def test_units_are_those_of_the_sources():
    pearson, well = presets.get("delta"), presets.get("well-maze")
    cell = 2.5 / 256
    assert pearson.parameters["Du"] == pytest.approx(2e-5 / cell**2, rel=1e-3)
    assert pearson.parameters["Dv"] == pytest.approx(1e-5 / cell**2, rel=1e-3)
    assert well.parameters["Du"] == pytest.approx(2e-5 * 64**2)
    assert well.parameters["Dv"] == pytest.approx(1e-5 * 64**2)
    assert (well.parameters["F"], well.parameters["k"]) == (0.029, 0.057)
    assert presets.get("reference").parameters == dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


@pytest.mark.parametrize("name", ["rho", "pi"])
def test_holes_are_made_in_the_uniform_state(name):
    preset = presets.get(name)
    F, k = preset.parameters["F"], preset.parameters["k"]
    u, v = preset.initial["outside"]
    assert u * v == pytest.approx(F + k, rel=5e-3)
    assert F * (1.0 - u) == pytest.approx(u * v * v, rel=1e-2)


def test_presets_cannot_be_changed_by_accident():
    preset = presets.get("delta")
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset.dt = 2.0
    preset.parameters["F"] = 0.0
    preset.initial["kind"] = "uniform"
    assert presets.get("delta").parameters["F"] == 0.030
    assert presets.get("delta").initial["kind"] == "squares"
    assert pickle.loads(pickle.dumps(preset)) == preset


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(rd.InputError, match="Did you mean 'lambda'"):
        presets.get("lamda")
    with pytest.raises(rd.InputError, match="Did you mean 'moving'"):
        presets.names("movin")
