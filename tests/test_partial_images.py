"""Parameters from images that lack something: every second pixel only, an unknown offset or gain, one bad snapshot."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import presets


@pytest.fixture(scope="module")
def worms():
    """A steady pattern with its parameters."""
    preset = presets.get("well-worms")
    sim = rd.Simulation(preset.model, rd.Grid((40, 40)), dt=preset.dt, stability="off", threads=1)
    start = sim.initial_state(**preset.initial, rng=1)
    final = sim.run_to_steady(start, preset.parameters, tol=1e-7, max_steps=150_000).final
    assert final[1].std() > 0.02, "the pattern died"
    return preset.parameters, final[1]


def close(fit, params, within):
    """All parameters within this relative error, and within four of their standard errors."""
    assert fit.success, fit.message
    for name, value in params.items():
        assert fit.params[name] == pytest.approx(value, rel=within)
        assert abs(fit.params[name] - value) < 4.0 * fit.stderr[name] + 1e-12
    return True


def test_every_second_pixel_gives_all_parameters(worms):
    params, v = worms
    fit = rd.invert(v[::2, ::2], subsample=2)
    assert close(fit, params, 1e-3) and fit.state.shape == (2, 40, 40)


def test_an_unknown_offset_is_found_with_the_parameters(worms):
    params, v = worms
    noise = 0.001 * v.max() * np.random.default_rng(0).standard_normal(v.shape)
    fit = rd.invert(v + 0.03 + noise, offset=True)
    assert close(fit, params, 0.002) and fit.offset == pytest.approx(0.03, abs=1e-5)


def test_much_noise_leaves_wide_errors_and_says_which(worms):
    params, v = worms
    fit = rd.invert(v + 0.05 * v.max() * np.random.default_rng(0).standard_normal(v.shape))
    assert close(fit, params, 0.05) and "The data do not determine Du to 1 %" in fit.message


def test_a_snapshot_that_is_no_pattern_is_named(worms):
    _, v = worms
    fit = rd.invert(np.stack([v, np.full_like(v, 0.2)]), snapshots=True)
    assert not fit.success and fit.message.startswith("snapshot 1: The image is uniform")


def test_a_result_prints_what_is_known_and_how_well(worms):
    params, v = worms
    lines = str(rd.invert(v, known={"F": params["F"]})).splitlines()
    assert lines[0].startswith("success: Fitted Du, Dv, k")
    assert lines[3].split() == ["F", f"{params['F']:.6g}", "(known)"]
    gain = str(rd.invert(v / v.max(), scale=None))
    assert "Du/F" in gain and "The gain is unknown" in gain
    assert str(rd.invert(np.full((24, 24), 0.3))).startswith("NO SUCCESS: The image is uniform")
