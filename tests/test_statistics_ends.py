"""How a search by statistics ends: with a result, interrupted, without patterns, with a parameter that nothing shows.

The simulations are made-up patterns, which depend on the parameters in a known way and take no time.
"""

import numpy as np
import pytest

from adjoint_rd.inversion import library
from adjoint_rd.inversion.statistics import invert_statistics

BOUNDS = {"Du": (0.13, 0.19), "Dv": (0.065, 0.095), "F": (0.034, 0.042), "k": (0.0595, 0.0635)}
TRUTH = {"Du": 0.16, "Dv": 0.08, "F": 0.038, "k": 0.0615}
WAVES = {"Du": 8, "Dv": 5, "k": 11}  # whose amplitudes tell the parameter; the mean tells F
ROW, COLUMN = np.indices((64, 64)) * (2.0 * np.pi / 64)


def made_up(params, rng, shown=("Du", "Dv", "F", "k")):
    size = {name: (params[name] / TRUTH[name]) ** (8.0 if name == "k" else 1.0) for name in shown}
    v = 0.2 * size.get("F", 1.0) * (1.0 + 0.002 * rng.standard_normal())
    for name, number in WAVES.items():
        amplitude = 0.03 * size.get(name, 1.0) * (1.0 + 0.005 * rng.standard_normal())
        v = v + amplitude * np.cos(number * (ROW if name == "Dv" else COLUMN) + rng.uniform(0.0, 6.0))
    return v.astype(np.float32)


@pytest.fixture
def search(monkeypatch):
    """A search for the parameters of a made-up pattern; `pattern(call number, params, rng)` makes the simulations."""

    def run(pattern=lambda n, params, rng: made_up(params, rng), **options):
        calls = []

        def simulate(self, params, rng):
            calls.append(params)
            return pattern(len(calls), params, rng)

        monkeypatch.setattr(library.Simulator, "pattern", simulate)
        data = made_up(TRUTH, np.random.default_rng(99)).astype(float)
        given = dict(bounds=BOUNDS, library_size=200, rounds=2, runs=60, repeats=8, noise=0.0) | options
        return invert_statistics(data, **given)

    return run


def test_the_parameters_are_found_and_the_library_tells_how_far_it_is(search):
    lines = []
    fit = search(progress=lines.append)
    assert fit.success, fit.message
    for name, value in TRUTH.items():
        assert fit.params[name] == pytest.approx(value, abs=4.0 * fit.stderr[name] + 0.01 * value)
    assert [line for line in lines if "library" in line] == [
        f"library: {count} patterns of {count} points" for count in (100, 200)
    ]
    printed = str(fit).splitlines()
    assert printed[0].startswith("success: ") and printed[1].split()[0] == "Du" and "+-" in printed[4]


def test_an_interrupt_gives_the_estimate_of_the_last_whole_round(search):
    def until(n, params, rng):
        if n == 200 + 60 + 10:
            raise KeyboardInterrupt
        return made_up(params, rng)

    fit = search(until)
    assert not fit.success and fit.message.startswith("Interrupted before the last round; the values are those of")
    assert [stage["stage"] for stage in fit.stages] == ["global", "local 1"]
    assert fit.params["Du"] == pytest.approx(TRUTH["Du"], rel=0.05)


def test_too_few_patterns_near_the_estimate_are_refused(search):
    fit = search(lambda n, params, rng: made_up(params, rng) if n <= 210 else None)
    assert not fit.success and "Only 10 of 60 simulations near the estimate give patterns" in fit.message


def test_a_parameter_that_nothing_shows_is_named(search):
    wide = {**BOUNDS, "k": (0.01, 0.4)}
    fit = search(lambda n, params, rng: made_up(params, rng, ("Du", "Dv", "F")), bounds=wide)
    assert not fit.success and "The statistics do not determine k" in fit.message


def test_repeats_that_die_leave_the_errors_as_they_are(search):
    fit = search(lambda n, params, rng: made_up(params, rng) if n <= 200 + 120 else None)
    assert fit.success and fit.stages[-1]["stage"] == "local 2"
