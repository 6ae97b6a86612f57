"""The command line, as a new user meets it: what it prints, writes and returns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import cli, io
from adjoint_rd.commands import bench, validate
from adjoint_rd.trajectory_fit.task import Task

ROOT = Path(__file__).parents[1]
PARAMS = ["--param", "Du=0.16", "--param", "Dv=0.08", "--param", "F=0.035", "--param", "k=0.06"]
SMALL = [*PARAMS, "--shape", "16", "12"]


pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def frames(tmp_path):
    """A file of 4 frames, 5 apart, of a run whose parameters it holds."""
    x, y = np.meshgrid(*[2 * np.pi * np.arange(n) / n for n in (16, 12)], indexing="ij")
    v = 0.18 + 0.05 * (np.cos(2 * x) + np.cos(y) + 0.5 * np.cos(x + y))
    sim = rd.Simulation("gray_scott", rd.Grid((16, 12)), dt=0.25)
    run = sim.run(np.stack([1 - 2 * v, v]), dict(Du=0.16, Dv=0.08, F=0.035, k=0.06), steps=60, save_every=20)
    run.save(tmp_path / "frames.npz")
    return tmp_path / "frames.npz"


# Help and errors


def test_the_module_runs_and_names_its_version():
    command = [sys.executable, "-m", "adjoint_rd", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"adjoint-rd {rd.__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["simulate"], ["gradient"], ["validate"], ["pattern"], ["fit"]])
def test_help_teaches_by_examples(call, command):
    code, out, _ = call(*command, "--help")
    assert code == 0 and "examples:" in out and f"adjoint-rd {' '.join(command)}" in out
    assert max(map(len, out.splitlines())) <= 125


def test_without_a_command_help_is_printed(call):
    code, out, err = call()
    assert code == 2 and out == "" and "usage: adjoint-rd" in err


def test_presets_are_listed(call):
    code, out, _ = call("simulate", "--list-presets")
    assert code == 0 and len(out.splitlines()) == len(rd.presets.names()) and "Du=" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("simualte", "Did you mean 'simulate'?"),
        ("simulate --presett lambda", "'--presett' is not known to adjoint-rd simulate. Did you mean '--preset'?"),
        ("simulate --preset lamda", "Did you mean 'lambda'?"),
        ("simulate", "give --preset NAME, or the parameters of gray_scott: --param Du=... --param Dv=..."),
        ("simulate --param Du=1 --param dv=1", "--param has 'dv', which gray_scott does not know"),
        ("simulate --param Du=1", "--param lacks Dv, F, k"),
        ("simulate --preset lambda --param F", "--param 'F' must be NAME=VALUE"),
        ("simulate --preset lambda --param F=x", "'x' is not a number"),
        ("simulate --preset lambda --param F=1 --param F=2", "gives F twice"),
        ("simulate --preset lambda --model schnakenberg", "give one of them"),
        ("simulate --model grey_scott", "Did you mean 'gray_scott'?"),
        ("simulate --model nofile.py:m", "there is no file nofile.py"),
        ("simulate --preset lambda --shape 2 2", "shape=(2, 2)"),
        ("simulate --preset lambda --shape x", "invalid int value: 'x'"),
        ("simulate --preset lambda --dt 10", "dt=10 exceeds"),
        ("simulate --preset lambda --boundary neuman", "Did you mean 'neumann'?"),
        ("simulate --preset lambda --steps 0", "--steps 0 must be >= 1"),
        ("simulate --preset lambda --colormap virids", "Did you mean 'viridis'?"),
        ("simulate --preset lambda --initial diskk", "Did you mean 'disk'?"),
        ("simulate --preset lambda --initial-file no.npz", "there is no file no.npz"),
        ("simulate --preset lambda --out /proc/nowhere", "cannot write into the folder /proc/nowhere"),
        ("gradient --preset lambda", "give a target: --target FILE, or --target-param"),
        ("gradient --preset lambda --target-param F=1 --species w", "--species has 'w'"),
        ("gradient --preset lambda --target-param G=1 --shape 16 16", "--target-param has 'G'"),
        ("validate --preset lambda --checks tayler", "Did you mean 'taylor'?"),
        ("fit nofile.h5", "there is no file nofile.h5"),
        ("fit", "the following arguments are required: FILE (see adjoint-rd fit --help)"),
    ],
)
def test_bad_input_is_explained(call, words, message):
    code, _, err = call(*words.split())
    assert code == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("adjoint-rd: error: ") and message in err


# simulate


def test_simulate_writes_states_and_images(call):
    code, out, err = call("simulate", *SMALL, "--steps", 20, "--save-every", 10, "--out", "here", "--seed", 3)
    assert (code, err) == (0, "")
    written = sorted(path.name for path in Path("here").iterdir())
    assert written == ["final.png", "run.npz", "state_00.png", "state_10.png", "state_20.png"]
    run = rd.load("here/run.npz")
    sim = rd.Simulation("gray_scott", rd.Grid((16, 12)), dt=1.0)
    params = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06)
    expected = sim.run(sim.initial_state("square", rng=3), params, steps=20, save_every=10)
    assert np.array_equal(run.states, expected.states) and run.steps.tolist() == [0, 10, 20]
    assert "ran 20 steps (to time 20)" in out and "wrote here/" in out


def test_simulate_goes_on_from_a_file(call):
    assert call("simulate", *SMALL, "--steps", 5, "--out", "first")[0] == 0
    assert call("simulate", *SMALL, "--steps", 5, "--initial-file", "first/run.npz", "--out", "second")[0] == 0
    assert call("simulate", *SMALL, "--steps", 10, "--out", "whole")[0] == 0
    assert np.array_equal(rd.load("second/run.npz").final, rd.load("whole/run.npz").final)
    np.save("state.npy", rd.load("first/run.npz").final)  # (species, x, y)
    assert call("simulate", *SMALL, "--steps", 5, "--initial-file", "state.npy", "--out", "third")[0] == 0
    assert np.array_equal(rd.load("third/run.npz").final, rd.load("whole/run.npz").final)


def test_simulate_warns_in_one_line(call):
    code, _, err = call("simulate", "--preset", "lambda", "--shape", 16, 12, "--steps", 2)
    assert code == 0 and len(err.splitlines()) == 1 and err.startswith("adjoint-rd: warning: dt=1 exceeds")
    assert Path("simulate_lambda/run.npz").exists()


def test_progress_bars_when_asked_for(call):
    code, _, err = call("simulate", *SMALL, "--steps", 20, "--progress", "on")
    assert code == 0 and "steps: " in err


def interrupt_at(monkeypatch, target, name, count):
    """Let the count-th call of target.name be interrupted as by Ctrl-C."""
    original = getattr(target, name)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, interrupted)


def test_an_interrupted_simulation_is_kept(call, monkeypatch):
    interrupt_at(monkeypatch, rd.Simulation, "run", 8)
    code, _, err = call("simulate", *SMALL, "--steps", 200, "--save-every", 4, "--out", "here")
    assert code == 130 and "interrupted after step 14 of 200; the last state is in run.npz" in err
    run = rd.load("here/run.npz")
    assert run.steps.tolist() == [0, 4, 8, 12, 14]
    monkeypatch.undo()


# gradient


def test_gradient_prints_and_writes_the_derivatives(call):
    words = ["gradient", *SMALL, "--steps", 30, "--target-param", "F=0.04", "--species", "v", "--out", "here"]
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    sim = rd.Simulation("gray_scott", rd.Grid((16, 12)), dt=1.0)
    params, y0 = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06), sim.initial_state("square", rng=0)
    target = sim.run(y0, {**params, "F": 0.04}, steps=30).final
    expected = sim.gradient(y0, params, rd.losses.L2(target[1:], species=[1]), steps=30)
    found = json.loads(Path("here/gradient.json").read_text())
    assert found["gradient"] == expected.params and found["value"] == expected.value
    assert f"{expected.params['k']:.10g}" in out
    with np.load("here/gradient.npz") as archive:
        assert np.array_equal(archive["initial"], expected.initial)
    assert Path("here/gradient.png").stat().st_size > 1000


def test_gradient_against_a_file(call, frames):
    code, out, _ = call("gradient", *SMALL, "--steps", 10, "--window", 4, "--target", frames)
    assert code == 0 and "the last 4 steps only" in out
    code, _, err = call("gradient", *PARAMS, "--shape", 16, 16, "--target", frames)
    assert code == 2 and "shape (2, 16, 12) (species, cells); needed is (2, 16, 16)" in err


# validate


def test_validate_passes_and_says_so(call):
    words = ["validate", *PARAMS, "--shape", 10, 8, "--steps", 5, "--out", "here"]
    code, out, err = call(*words, "--free", "Du", "k", "initial")
    assert (code, err) == (0, "") and "6 of 6 checks passed." in out
    checks = json.loads(Path("here/validate.json").read_text())["checks"]
    assert list(checks) == list(validate.CHECKS) and all(check["passed"] for check in checks.values())


WRONG = """
import dataclasses
from adjoint_rd.models import allen_cahn

def reaction_jt(s, p, a):
    (u,) = s
    (r,) = p
    (au,) = a
    return (r * (au + u * u * au),)  # wrong: 1 - 3 u^2

wrong = dataclasses.replace(allen_cahn, name="wrong", reaction_jt=reaction_jt)
"""


def test_validate_finds_a_wrong_derivative_in_a_users_model(call):
    Path("my_model.py").write_text(WRONG)
    words = ["validate", "--model", "my_model.py:wrong", "--param", "Du=0.5", "--param", "r=0.4", "--dt", "0.1"]
    words += ["--shape", "12", "--initial", "noise", "--initial-option", "noise=0.3", "--steps", "5"]
    code, out, _ = call(*words, "--checks", "model", "taylor", "dot-product")
    assert code == 1 and "0 of 3 checks passed; FAILED: model, taylor, dot-product" in out
    assert "reaction_jt" in out
    code, _, err = call(*[word.replace(":wrong", ":rihgt") for word in words])
    assert code == 2 and "'rihgt' is not an adjoint_rd.Model; the file has allen_cahn, wrong" in err


# fit


def test_fit_prints_truth_estimate_and_error(call, frames):
    code, out, err = call("fit", frames, "--refine", 1, 2, "--out", "here")
    assert (code, err) == (0, "")
    for words in ("truth", "R=1, 16x12", "R=2, 32x24", "extrapolated, R=1,2", "discretisation, R=2", " %)"):
        assert words in out
    assert sorted(path.name for path in Path("here").iterdir()) == ["fit.json", "fit.png", "fitted.npz", "history.png"]
    found = json.loads(Path("here/fit.json").read_text())
    assert found["finished"] and found["truth"]["F"] == 0.035
    assert abs(found["refinements"][0]["error_percent"]["k"]) < 2
    fitted = io.read_observation("here/fitted.npz")
    assert fitted.fields.shape == (4, 2, 16, 12) and fitted.times.tolist() == [0, 5, 10, 15]


def test_a_run_of_this_library_is_fitted_on_its_own_grid_by_its_own_steps(call, frames):
    code, out, _ = call("fit", frames, "--out", "here")
    assert code == 0 and "its own dt=0.25" in out and "20 steps per interval" in out
    found = json.loads(Path("here/fit.json").read_text())
    assert [each["refine"] for each in found["refinements"]] == [1]
    assert max(abs(error) for error in found["error_percent"].values()) < 1e-3


def test_frames_with_walls_are_not_refined_unless_asked(call, frames):
    run = rd.load(frames)
    np.savez("walls.npz", fields=run.states, times=run.steps * run.dt, spacing=1.0)
    code, _, err = call("fit", "walls.npz", "--boundary", "neumann", "--frames", 2)
    assert code in (0, 1) and "Fourier" not in err


def test_fit_of_an_array_that_says_nothing(call, frames):
    np.save("frames.npy", rd.load(frames).states)
    code, _, err = call("fit", "frames.npy", "--refine", 1)
    assert code == 2 and "no spacing; give it" in err
    code, _, err = call("fit", "frames.npy", "--refine", 1, "--spacing", 1)
    assert code == 2 and "no times; give them" in err
    words = ["--spacing", 1, "--interval", 5, "--fixed", "F=0.035", "--start", "k=0.05", "--method", "least_squares"]
    code, out, err = call("fit", "frames.npy", "--refine", 1, *words, "--progress", "on")
    assert code == 0 and "truth" not in out and "it was taken as periodic" in out and "evaluation" in err
    assert sorted(json.loads(Path("fit_frames/fit.json").read_text())["params"]) == ["Du", "Dv", "k"]


def test_a_failed_fit_exits_with_1(call):
    fields = 0.5 + 0.1 * np.random.default_rng(0).standard_normal((3, 2, 12, 12))
    np.savez("noise.npz", fields=fields, times=50.0 * np.arange(3), spacing=1.0)
    code, out, err = call("fit", "noise.npz", "--refine", 1)
    assert code == 1 and "the fit failed" in err and "unexplained" in out


def test_an_interrupted_fit_keeps_the_finished_grids(call, frames, monkeypatch):
    interrupt_at(monkeypatch, Task, "fit", 2)
    code, out, err = call("fit", frames, "--refine", 1, 2, "--out", "here")
    assert code == 130 and "interrupted after R=1" in err and "R=1, 16x12" in out
    assert not json.loads(Path("here/fit.json").read_text())["finished"]
    monkeypatch.undo()


def test_an_interrupted_first_grid_keeps_the_last_parameters(call, frames, monkeypatch):
    interrupt_at(monkeypatch, rd.Objective, "value_and_grad", 3)
    code, _, err = call("fit", frames, "--refine", 1, "--out", "here")
    assert code == 130 and "interrupted at evaluation 2 of R=1: Du=0.1" in err
    found = json.loads(Path("here/fit.json").read_text())
    assert not found["finished"] and found["unfinished"]["params"]["Du"] == pytest.approx(0.16, rel=0.2)
    monkeypatch.undo()


def test_bench_is_passed_on_to_the_benchmarks_of_the_checkout(capsys):
    with pytest.raises(SystemExit):
        bench.run(["--help"])
    assert "--peers" in capsys.readouterr().out


def test_bench_without_a_checkout_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "adjoint_rd" / "commands" / "bench.py"))
    assert cli.main(["bench"]) == 2
    assert "source checkout" in capsys.readouterr().err
