"""A process that runs rd.minimize is interrupted by SIGINT, or killed: the best point comes back, and a run that goes
on from its file ends at the numbers of an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import files, matching, pattern_losses
from adjoint_rd.descent import checkpoint_file

ROOT = Path(__file__).parents[1]
TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06)
OPTIONS = dict(method="adam", learning_rate=0.01, checkpoint_every=1)
BEGIN = dict(Du=0.17, Dv=0.075, F=0.037, k=0.061)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


def one_run():
    """An ordinary objective, and its options."""
    sim = rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0, threads=1)
    y0 = sim.run(sim.initial_state("square", rng=0, clip=(0, 1)), TRUE, steps=300).final
    loss = rd.losses.L2(sim.run(y0, TRUE, steps=60).final)
    return rd.Objective(sim, y0, loss, steps=60, free=tuple(TRUE)), dict(tol=0.0)


def batches():
    """A stochastic objective, with guards and a judge."""
    sim = rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0, threads=2)

    def start(rng):
        return sim.initial_state("square", rng=rng, size=8, clip=(0, 1))

    targets = matching.steady_targets(sim, TRUE, start, 2, max_steps=300)
    obj = rd.PatternMatching(
        sim, start, targets, lambda patterns: pattern_losses.LogSpectrum(patterns, radial=True), window=50,
        warmup=200, batch=2, evaluation=2, free=tuple(TRUE),
    )  # fmt: skip
    return obj, dict(stochastic=True, judge=obj.judge, judge_every=2, guards=[rd.guards.Limit("safe")], rise=0.1)


PROBLEMS = {"one run": one_run, "batches": batches}


def minimise(problem, maxiter, **options):
    obj, own = PROBLEMS[problem]()
    return rd.minimize(obj, obj.pack(**BEGIN), maxiter=maxiter, **OPTIONS, **own, **options)


def child(problem, file):
    """What the process does; Python's own reaction to SIGINT, which a background job does not inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = minimise(problem, 100_000, checkpoint=file)
    said = dict(status=found.status, message=found.message, x=found.x.tolist(), fun=found.fun, nit=found.nit)
    print(json.dumps(said), flush=True)


def interrupt(problem, file, sent):
    """Start a process, send a signal after its first few checkpoints; (exit code, what it printed)."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    code = f"import test_interrupted_process as t; t.child({problem!r}, {str(file)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        seen, until = set(), time.monotonic() + 120
        while len(seen) < 4 and time.monotonic() < until and process.poll() is None:
            if file.exists():
                seen.add(file.stat().st_mtime_ns)
            time.sleep(0.001)
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert seen, err
    return process.returncode, out, err


def same(one, other):
    assert np.array_equal(one.x, other.x) and one.fun == other.fun and one.nit == other.nit
    assert np.array_equal(one.x_last, other.x_last) and str(one.trials) == str(other.trials)
    for name in one.history:
        assert np.array_equal(one.history[name], other.history[name], equal_nan=True)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_sigint_returns_the_best_point_and_the_run_goes_on(problem, tmp_path):
    file = tmp_path / "run.npz"
    code, out, err = interrupt(problem, file, signal.SIGINT)
    assert code == 0, err
    said = json.loads(out)
    assert said["status"] == 5 and "best point" in said["message"] and said["nit"] >= 1
    obj, own = PROBLEMS[problem]()
    judged = own.get("judge", lambda x: obj(x))
    assert judged(np.array(said["x"])) == said["fun"] <= judged(obj.pack(**BEGIN))
    n = said["nit"] + 4
    same(minimise(problem, n, checkpoint=file, resume=True), minimise(problem, n))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_killed_process_leaves_a_file_to_go_on_from(problem, tmp_path):
    file = tmp_path / "run.npz"
    code, out, _ = interrupt(problem, file, signal.SIGKILL)
    assert code == -signal.SIGKILL and not out
    header, _ = files.read_archive(file, checkpoint_file.FORMAT, checkpoint_file.VERSION)
    n = header["state"]["iteration"] + 4
    same(minimise(problem, n, checkpoint=file, resume=True), minimise(problem, n))
