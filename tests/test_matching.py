"""PatternMatching: its numbers are those of single runs, batches come from iteration and seed, targets are kept."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import files, guards, matching, pattern_losses

TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06)
FREE = ("Du", "Dv", "F", "k")
SMALL = dict(window=40, warmup=300, tol=1e-6, batch=3, evaluation=2, free=FREE)


@pytest.fixture(scope="module")
def sim():
    return rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0)


@pytest.fixture(scope="module")
def start(sim):
    return lambda rng: sim.initial_state("square", rng=rng, size=8, noise=0.02, clip=(0, 1))


@pytest.fixture(scope="module")
def targets(sim, start):
    return matching.steady_targets(sim, TRUE, start, 4, max_steps=400)


def spectrum(patterns):
    return pattern_losses.LogSpectrum(patterns, radial=True)


def own(patterns):
    return rd.losses.L2(patterns[0])


@pytest.fixture
def problem(sim, start, targets):
    return rd.PatternMatching(sim, start, targets, spectrum, **SMALL)


@pytest.mark.parametrize(("make_loss", "compare"), [(spectrum, "batch"), (own, "each")])
def test_a_batch_is_the_mean_of_ordinary_objectives_of_warmed_up_states(sim, start, targets, make_loss, compare):
    found = rd.PatternMatching(sim, start, targets, make_loss, compare=compare, **SMALL)
    found.begin(5)
    x = found.pack(Du=0.15, Dv=0.075, F=0.037, k=0.059)
    rng = np.random.default_rng([0, matching.BATCH, 5])
    states = [start(rng) for _ in range(3)]
    chosen = [targets[n] for n in rng.integers(4, size=3)]
    values, gradients = [], []
    for y0, target in zip(states, chosen, strict=True):
        warm = sim.run_to_steady(y0, found.unpack(x), tol=1e-6, max_steps=300).final
        loss = make_loss([target] if compare == "each" else chosen)
        obj = rd.Objective(sim, warm, loss, steps=40, free=FREE)
        values.append(obj(x))
        gradients.append(obj.grad(x))
    assert found(x)[0] == pytest.approx(np.mean(values), rel=1e-13)
    assert found(x)[1] == pytest.approx(np.mean(gradients, axis=0), rel=1e-12)


def test_without_warm_up_the_gradient_is_exact(sim, start, targets):
    found = rd.PatternMatching(sim, start, targets, spectrum, **{**SMALL, "warmup": 0, "window": 120})
    x, d = found.pack(**TRUE) + 0.02, np.array([0.3, -0.2, 0.5, 0.4])
    slope = (found(x + 1e-5 * d)[0] - found(x - 1e-5 * d)[0]) / 2e-5
    assert found(x)[1] @ d == pytest.approx(slope, rel=1e-6)


def test_batches_come_from_iteration_and_seed(sim, start, targets, problem):
    x = problem.pack(**TRUE)
    values = []
    for n in (0, 1, 0):
        problem.begin(n)
        values.append(problem(x)[0])
    assert values[0] == values[2] != values[1]
    again = rd.PatternMatching(sim, start, targets, spectrum, **SMALL)
    other = rd.PatternMatching(sim, start, targets, spectrum, seed=1, **SMALL)
    assert again(x)[0] == values[0] != other(x)[0]


def test_the_evaluation_set_never_changes_and_prefers_the_truth(problem):
    there, away = problem.pack(**TRUE), problem.pack(**dict(TRUE, F=0.045))
    before = problem.judge(there)
    problem.begin(7)
    assert problem.judge(there) == before < problem.judge(away)
    assert problem.judge(problem.pack(**dict(TRUE, Du=0.4))) == np.inf


def test_minimize_descends_and_a_resumed_run_is_the_same(sim, start, targets, tmp_path):
    def make():
        return rd.PatternMatching(sim, start, targets, spectrum, **SMALL)

    x0 = make().pack(Du=0.15, Dv=0.075, F=0.037, k=0.059)
    options = dict(method="adam", learning_rate=0.02, stochastic=True, judge_every=3, rise=0.1)
    problem = make()
    whole = rd.minimize(problem, x0, maxiter=8, judge=problem.judge, **options)
    assert whole.fun < problem.judge(x0)
    for n in (3, 8):
        problem = make()
        part = rd.minimize(
            problem, x0, maxiter=n, judge=problem.judge, checkpoint=tmp_path / "run.npz", resume=True, **options
        )
    assert np.array_equal(part.x, whole.x) and part.fun == whole.fun
    assert np.array_equal(part.history["value"], whole.history["value"])


def test_guards_see_its_runs(problem):
    x = problem.pack(**TRUE)
    assert [run[3] for run in problem.runs(x)] == [340] * 3
    assert guards.first_alarm(problem.runs(x), [guards.Limit(), guards.Range()]) is None
    options = dict(method="gd", learning_rate=1e3, stochastic=True, maxiter=1)
    result = rd.minimize(problem, x, guards=[guards.Limit("safe")], max_shrinks=8, **options)
    assert any("guard: " in trial.reason for trial in result.trials)


def test_targets_are_computed_once_and_added_to(sim, start, targets, tmp_path, monkeypatch):
    file = tmp_path / "cache" / "targets.npz"
    seen = []
    options = dict(max_steps=400, path=file)
    first = matching.steady_targets(sim, TRUE, start, 3, progress=seen.append, **options)
    assert sum(seen) == 3 and np.array_equal(first, targets[:3])
    assert np.array_equal(matching.steady_targets(sim, TRUE, start, 4, progress=seen.append, **options), targets)
    assert sum(seen) == 4
    monkeypatch.setattr(type(sim), "run_to_steady", None)
    assert np.array_equal(matching.steady_targets(sim, TRUE, start, 2, **options), targets[:2])
    header, arrays = files.read_archive(file, matching.FORMAT, matching.VERSION)
    assert header["of"]["params"] == TRUE and len(arrays["targets"]) == 4
    with pytest.raises(rd.CheckpointError, match="params"):
        matching.steady_targets(sim, dict(TRUE, F=0.04), start, 2, **options)
    monkeypatch.undo()
    file.write_bytes(b"no archive")
    with pytest.warns(UserWarning, match="generation before it"):
        assert np.array_equal(matching.steady_targets(sim, TRUE, start, 4, **options), targets)
    files.previous(file).unlink(missing_ok=True)
    file.write_bytes(b"no archive")
    with pytest.raises(rd.CheckpointError, match="no targets"):
        matching.steady_targets(sim, TRUE, start, 2, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(targets=[]), "empty"),
        (dict(targets=np.zeros((2, 2, 8, 8))), "targets\\[0\\]"),
        (dict(window=0), "window"),
        (dict(compare="al"), "Did you mean|compare"),
        (dict(free=("F", "initial")), "initial"),
        (dict(start=lambda rng: np.zeros(3)), "start\\(rng\\)"),
        (dict(make_loss=lambda patterns: 3.0), "make_loss"),
    ],
)
def test_bad_input_is_refused(sim, start, targets, changes, message):
    given = dict(start=start, targets=targets, make_loss=spectrum) | SMALL | changes
    with pytest.raises(rd.InputError, match=message):
        rd.PatternMatching(sim, given.pop("start"), given.pop("targets"), given.pop("make_loss"), **given)
