"""rd.minimize descends, keeps away from abnormal points, always returns the best point, and resumes exactly."""

import _thread
import json
import math
import signal
import threading

import numpy as np
import pytest
import scipy.optimize

import adjoint_rd as rd
from adjoint_rd import files, optimize
from adjoint_rd.descent.checkpoint_file import CheckpointFile
from adjoint_rd.optimize import METHODS, adaptive, minimize

TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


def bowl(x):
    """A quadratic with condition 100 and its minimum at 1, 2, 3."""
    weights, centre = np.array([1.0, 10.0, 100.0]), np.array([1.0, 2.0, 3.0])
    return 0.5 * float(weights @ (x - centre) ** 2), weights * (x - centre)


def rosenbrock(x):
    return scipy.optimize.rosen(x), scipy.optimize.rosen_der(x)


def cliff(x):
    """A bowl that is not a number where x[0] > 1.2; its minimum at 1 is close to the edge."""
    if x[0] > 1.2:
        return math.nan, np.full(x.size, math.nan)
    return 0.5 * float(np.sum((x - 1.0) ** 2)), x - 1.0


def valley(x):
    """Rosenbrock's, which takes long, with an edge beyond which it is not a number."""
    return rosenbrock(x) if np.max(np.abs(x)) < 2.0 else (math.nan, np.full(x.size, math.nan))


class Noisy:
    """A bowl with another centre in each iteration, drawn from the iteration's number."""

    def __init__(self, noise=0.1):
        self.noise = noise

    def begin(self, iteration):
        self.centre = 1.0 + self.noise * np.random.default_rng(iteration).standard_normal(3)

    def __call__(self, x):
        return 0.5 * float(np.sum((x - self.centre) ** 2)), x - self.centre


class Interrupting:
    """Raises in the n-th call."""

    def __init__(self, fun, calls, error):
        self.fun, self.calls, self.error = fun, calls, error

    def __call__(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return self.fun(x)


@pytest.fixture(scope="module")
def gray_scott():
    """An objective from a run that already has a pattern, with a start 10 % off."""
    sim = rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0, threads=1)
    y0 = sim.run(sim.initial_state("square", rng=0, clip=(0, 1)), TRUE, steps=300).final
    target = rd.losses.L2(sim.run(y0, TRUE, steps=60).final)

    def make(**options):
        return rd.Objective(sim, y0, target, steps=60, free=("Du", "Dv", "F", "k"), **options)

    obj = make()
    return make, obj.pack(Du=0.17, Dv=0.075, F=0.037, k=0.062), obj.pack(**TRUE)


@pytest.mark.parametrize("method", METHODS)
def test_each_rule_finds_the_minimum_of_a_quadratic(method):
    options = dict(learning_rate=0.1) if method == "adam" else {}
    result = minimize(bowl, np.zeros(3), method=method, maxiter=3000, tol=1e-6, **options)
    assert result.success and result.status == 0
    assert np.allclose(result.x, [1, 2, 3], atol=1e-5)
    assert result.fun == pytest.approx(bowl(result.x)[0]) and np.allclose(result.jac, bowl(result.x)[1])
    assert result.nfev >= len(result.history["value"]) and len(result.trials) == result.nfev - 1


def test_lbfgs_is_about_as_fast_as_scipys():
    own = minimize(rosenbrock, [-1.2, 1.0, 0.5, 2.0], tol=1e-6, maxiter=500)
    scipys = scipy.optimize.minimize(rosenbrock, [-1.2, 1.0, 0.5, 2.0], jac=True, method="L-BFGS-B")
    assert own.success and own.fun == pytest.approx(scipys.fun)
    assert own.nfev < 2.5 * scipys.nfev


@pytest.mark.parametrize("method", METHODS)
def test_a_cliff_is_never_stepped_over(method):
    seen = []
    result = minimize(
        cliff,
        [-5.0, 0.0],
        method=method,
        learning_rate=30.0,
        maxiter=400,
        tol=1e-6,
        callback=lambda intermediate_result: seen.append(intermediate_result.x[0]),
    )
    assert max(seen) <= 1.2 and np.isfinite(result.x).all() and np.isfinite(result.fun)
    assert result.fun < 1e-3
    assert any("the value is nan" in trial.reason for trial in result.trials)
    assert all(math.isfinite(trial.value) for trial in result.trials if trial.accepted)


def test_plain_descent_does_step_over_it():
    x = np.array([-5.0, 0.0])
    for _ in range(5):
        x = x - 30.0 * cliff(x)[1]
    assert not np.isfinite(x).all()


def test_scale_shrinks_jumps_and_grows_as_asked():
    # Abnormal on all scales below 1.1 of the first update: only a jump helps.
    def hole(x):
        if 0.0 < x[0] < 0.105:
            raise FloatingPointError("hole")
        return 0.5 * float((x[0] - 1.0) ** 2), x - 1.0

    result = minimize(hole, [0.0], method="gd", learning_rate=0.1, max_shrinks=3, shrink=0.5, jump=1.2, maxiter=1)
    assert [round(trial.scale, 6) for trial in result.trials] == [1.0, 0.5, 0.25, 0.125, 1.2]
    assert [trial.accepted for trial in result.trials] == [False] * 4 + [True]
    assert "hole" in result.trials[0].reason

    shrunk = minimize(
        cliff, [-1.0, 0.0], method="gd", learning_rate=30.0, maxiter=40, patience=2, grow=3.0, max_jumps=0
    )
    scales = shrunk.history["scale"]
    assert scales[0] < 0.1 and np.any(np.isclose(scales[1:] / scales[:-1], 3.0))


def test_without_a_way_out_it_says_so_and_returns_the_start():
    def wall(x):
        return (1.0, np.ones(2)) if np.all(x == 0.0) else (math.inf, np.ones(2))

    result = minimize(wall, np.zeros(2))
    assert not result.success and result.status == 3 and "Stuck" in result.message
    assert np.all(result.x == 0.0) and result.fun == 1.0


def test_a_wrong_gradient_is_reported_as_stuck_not_as_success():
    result = minimize(lambda x: (bowl(x)[0], -bowl(x)[1]), np.zeros(3))
    assert not result.success and result.status == 3


@pytest.mark.parametrize("method", ["bb", "lbfgs"])
def test_rounding_errors_end_a_run_with_success(method):
    result = minimize(lambda x: (1e12 + bowl(x)[0], bowl(x)[1]), np.zeros(3), tol=0.0, maxiter=500, method=method)
    assert result.success and np.allclose(result.x, [1, 2, 3], atol=1e-2)


def test_abnormal_starts_are_refused():
    with pytest.raises(rd.InputError, match="abnormal at x0"):
        minimize(cliff, [2.0, 0.0])
    with pytest.raises(rd.InputError, match="finite"):
        minimize(bowl, [0.0, math.nan, 0.0])


def test_the_users_own_criterion_counts():
    result = minimize(bowl, np.zeros(3), abnormal=lambda x, value, gradient: "too far" if x[2] > 2.0 else None)
    assert result.x[2] <= 2.0 and any(trial.reason == "too far" for trial in result.trials)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "bounds", [[(None, 0.5), (0.0, None), (-1.0, 10.0)], scipy.optimize.Bounds([-9, 0, -1], [0.5, 9, 10])]
)
def test_bounds_are_kept(method, bounds):
    seen = []

    def fun(x):
        seen.append(x)
        return bowl(x)

    result = minimize(fun, np.zeros(3), method=method, bounds=bounds, maxiter=3000, tol=1e-5, learning_rate=0.02)
    assert np.allclose(result.x, [0.5, 2.0, 3.0], atol=1e-3)
    assert all(x[0] <= 0.5 and x[1] >= 0.0 for x in seen)


# Callbacks, interrupts, errors


def test_stop_iteration_stops():
    def callback(intermediate_result):
        assert set(intermediate_result) >= {"x", "fun", "jac", "nit"}
        if intermediate_result.nit == 3:
            raise StopIteration

    result = minimize(bowl, np.zeros(3), method="gd", callback=callback)
    assert result.status == 4 and result.nit == 3 and not result.success


def test_a_callback_of_x_gets_x():
    seen = []
    minimize(bowl, np.zeros(3), maxiter=3, callback=seen.append)
    assert [x.shape for x in seen] == [(3,)] * 3


def test_errors_carry_the_best_point():
    def callback(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        minimize(bowl, np.zeros(3), callback=callback)
    assert caught.value.result.fun < bowl(np.zeros(3))[0]
    with pytest.raises(KeyError) as caught:
        minimize(Interrupting(bowl, 5, KeyError("mine")), np.zeros(3))
    assert caught.value.result.fun < bowl(np.zeros(3))[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [1, 2, 3, 7, 20])
def test_an_interrupt_at_any_moment_returns_the_best_point(method, calls):
    points = []

    def fun(x):
        points.append(valley(x)[0])
        return valley(x)

    result = minimize(
        Interrupting(fun, calls, KeyboardInterrupt()), [-1.2, 1.0], method=method, tol=0.0, learning_rate=0.01
    )
    assert result.status == 5 and "best point" in result.message
    accepted = [points[0], *(trial.value for trial in result.trials if trial.accepted)]
    assert result.fun == min(accepted)
    assert valley(result.x)[0] == result.fun


# Resuming


def same(one, other):
    assert np.array_equal(one.x, other.x) and one.fun == other.fun and one.nit == other.nit
    assert np.array_equal(one.x_last, other.x_last) and one.scale == other.scale and one.nfev == other.nfev
    for name in one.history:
        assert np.array_equal(one.history[name], other.history[name], equal_nan=True)
    assert str(one.trials) == str(other.trials)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [2, 9, 16, 33])
def test_a_resumed_run_continues_to_the_same_numbers(method, calls, tmp_path):
    file = tmp_path / "run.npz"
    options = dict(method=method, maxiter=40, tol=0.0, learning_rate=0.3, checkpoint=file, checkpoint_every=4)
    whole = minimize(valley, [-1.2, 1.0], **{**options, "checkpoint": None})
    broken = minimize(Interrupting(valley, calls, KeyboardInterrupt()), [-1.2, 1.0], **options)
    assert broken.nit < whole.nit
    same(minimize(valley, [-1.2, 1.0], resume=True, **options), whole)
    assert {each.name for each in tmp_path.iterdir()} <= {"run.npz", "run.npz.previous"}


def test_an_interrupt_of_the_last_save_returns_the_best_point(tmp_path, monkeypatch):
    """A second one raises, with the point attached."""
    options = dict(maxiter=6, tol=0.0, checkpoint=tmp_path / "run.npz", checkpoint_every=100, resume=True)
    whole = minimize(valley, [-1.2, 1.0], **{**options, "checkpoint": tmp_path / "other.npz"})
    save, signals = CheckpointFile.save, []

    def interrupted(*arguments):
        if signals:
            raise signals.pop()
        save(*arguments)

    monkeypatch.setattr(CheckpointFile, "save", interrupted)
    signals[:] = [KeyboardInterrupt()]
    first = minimize(valley, [-1.2, 1.0], **options)
    assert (first.status, first.fun, first.nit) == (5, whole.fun, 6)
    assert options["checkpoint"].exists()
    options["maxiter"] = 9
    signals[:] = [KeyboardInterrupt(), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt) as caught:
        minimize(valley, [-1.2, 1.0], **options)
    assert caught.value.result.nit == 9
    same(minimize(valley, [-1.2, 1.0], **options), minimize(valley, [-1.2, 1.0], maxiter=9, tol=0.0))


@pytest.mark.parametrize("method", ["gd", "momentum", "adam"])
def test_a_resumed_stochastic_run_does_too(method, tmp_path):
    file = tmp_path / "run.npz"
    options = dict(
        method=method, maxiter=40, stochastic=True, learning_rate=0.1, judge=lambda x: float(np.sum((x - 1) ** 2))
    )
    whole = minimize(Noisy(), np.zeros(3), **options)
    for n in (5, 17):
        minimize(Noisy(), np.zeros(3), **{**options, "maxiter": n}, checkpoint=file, checkpoint_every=3, resume=True)
    same(minimize(Noisy(), np.zeros(3), **options, checkpoint=file, resume=True), whole)


def test_a_killed_process_leaves_a_whole_file(tmp_path, monkeypatch):
    file = tmp_path / "run.npz"
    minimize(bowl, np.zeros(3), maxiter=3, tol=0.0, checkpoint=file, checkpoint_every=1)
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(optimize.np, "savez", full)
    with pytest.raises(OSError, match="disk full") as caught:
        minimize(bowl, np.zeros(3), maxiter=6, tol=0.0, checkpoint=file, checkpoint_every=1, resume=True)
    assert caught.value.result.nit == 4  # the best point is not lost with the file
    assert file.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.npz", "run.npz.previous"]


def test_files_hold_no_pickles_and_other_files_are_refused(tmp_path):
    file = tmp_path / "run.npz"
    minimize(bowl, np.zeros(3), maxiter=3, tol=0.0, checkpoint=file)
    with np.load(file, allow_pickle=False) as archive:
        assert json.loads(archive["header"].tobytes())["state"]["iteration"] == 3
    with pytest.raises(rd.CheckpointError, match="method"):
        minimize(bowl, np.zeros(3), method="gd", checkpoint=file, resume=True)
    with pytest.raises(rd.CheckpointError, match="shape"):
        minimize(rosenbrock, np.zeros(2), tol=0.0, checkpoint=file, resume=True)
    for more, refused in (1.0, True), (1e-9, False):

        def higher(x, more=more):
            return bowl(x)[0] + more, bowl(x)[1]

        with (
            pytest.raises(rd.CheckpointError, match="of another problem: fun is")
            if refused
            else pytest.warns(UserWarning, match="other rounding")
        ):
            minimize(higher, np.zeros(3), tol=0.0, maxiter=4, checkpoint=file, resume=True)
    file.write_bytes(b"not a checkpoint")
    files.previous(file).unlink()
    with pytest.raises(rd.CheckpointError, match="not a checkpoint"):
        minimize(bowl, np.zeros(3), checkpoint=file, resume=True)
    assert minimize(bowl, np.zeros(3), checkpoint=file).success  # without resume it is replaced


def checkpointed(file, maxiter=6, **options):
    return minimize(valley, [-1.2, 1.0], maxiter=maxiter, tol=0.0, checkpoint=file, checkpoint_every=1, **options)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path):
    file = tmp_path / "run.npz"
    whole = checkpointed(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"truncated.*Continuing from the generation before it, .*\.previous"):
        same(checkpointed(file, resume=True), whole)
    file.unlink()  # and so does a missing one
    with pytest.warns(UserWarning, match="there is no file"):
        same(checkpointed(file, resume=True), whole)


def test_the_checkpoint_before_is_of_the_same_run(tmp_path):
    file = tmp_path / "run.npz"
    checkpointed(file)
    checkpointed(file, maxiter=1)
    assert [each.name for each in tmp_path.iterdir()] == ["run.npz"]


def test_leftovers_of_killed_processes_are_removed_when_a_run_resumes(tmp_path):
    file = tmp_path / "run.npz"
    checkpointed(file)
    (tmp_path / ".run.npz.abc.part").write_bytes(b"half")
    checkpointed(file, maxiter=8, resume=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.npz", "run.npz.previous"]


# Stochastic objectives


@pytest.mark.parametrize("method", METHODS)
def test_stochastic_objectives_come_close(method):
    result = minimize(
        Noisy(),
        np.full(3, -3.0),
        method=method,
        stochastic=True,
        learning_rate=0.1,
        maxiter=300,
        judge=lambda x: 0.5 * float(np.sum((x - 1.0) ** 2)),
    )
    assert result.fun < 0.02 and result.status == 1


def test_a_batch_that_is_abnormal_where_we_stand_is_skipped():
    class Holes(Noisy):
        def begin(self, iteration):
            super().begin(iteration)
            self.bad = iteration in (3, 4)

        def __call__(self, x):
            return (math.nan, x) if self.bad else super().__call__(x)

    result = minimize(Holes(), np.zeros(3), method="adam", stochastic=True, learning_rate=0.1, maxiter=200)
    assert result.fun < 0.05 and sum("at the current point" in trial.reason for trial in result.trials) == 2

    class Later(Noisy):
        def begin(self, iteration):
            super().begin(iteration)
            self.bad = iteration >= 5

        def __call__(self, x):
            return (math.nan, x) if self.bad else super().__call__(x)

    result = minimize(Later(), np.zeros(3), method="adam", stochastic=True, maxiter=200, max_skips=4)
    assert not result.success and result.status == 6 and np.isfinite(result.fun)
    assert len(result.history["value"]) == result.nit and np.isnan(result.history["value"][-1])


# Objectives, and SciPy


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("on_unstable", ["continue", "raise"])
def test_an_objective_is_minimised_whatever_it_does_when_unstable(gray_scott, method, on_unstable):
    make, x0, _ = gray_scott
    obj = make(on_unstable=on_unstable)
    result = minimize(obj, x0, method=method, maxiter=25)
    assert result.fun < 0.3 * obj(x0) and np.isfinite(result.x).all()
    assert obj(result.x) == result.fun
    assert not any(trial.accepted and trial.reason for trial in result.trials)


@pytest.mark.parametrize("on_unstable", ["continue", "raise"])
def test_a_learning_rate_far_too_large_hits_the_limits_and_survives(gray_scott, on_unstable):
    make, x0, _ = gray_scott
    obj = make(on_unstable=on_unstable)
    result = minimize(obj, x0, method="gd", learning_rate=1e3, maxiter=15, bounds=[(None, None)] * 4)
    assert result.fun < obj(x0)
    assert sum(not trial.accepted for trial in result.trials) > 0


def test_a_point_that_an_objective_noted_is_not_accepted_the_second_time():
    class Remembering:
        """Notes x > 1 once, then answers from memory, as Objective does."""

        def __init__(self):
            self.log, self.last = [], None

        def value_and_grad(self, x):
            if x[0] > 1.0 and self.last != x[0]:
                self.log.append("beyond")
            self.last = x[0]
            return -x[0], np.array([-1.0])

    result = minimize(Remembering(), [0.0], method="gd", learning_rate=100.0, bounds=[(None, 1.5)], maxiter=5)
    assert result.x[0] <= 1.0
    assert not any(trial.accepted and trial.value < -1.0 for trial in result.trials)


def test_lbfgs_recovers_the_parameters(gray_scott):
    make, x0, truth = gray_scott
    result = minimize(make(), x0, maxiter=300)
    assert np.max(np.abs(result.x - truth)) < 1e-3


def test_an_objective_resumes_exactly(gray_scott, tmp_path):
    make, x0, _ = gray_scott
    options = dict(method="adam", maxiter=12, learning_rate=0.3)
    whole = minimize(make(), x0, **options)
    file = tmp_path / "run.npz"
    minimize(
        Interrupting(make().value_and_grad, 7, KeyboardInterrupt()),
        x0,
        bounds=make().bounds,
        checkpoint=file,
        **options,
    )
    same(minimize(make(), x0, checkpoint=file, resume=True, **options), whole)


@pytest.mark.parametrize("rule", METHODS)
def test_scipy_takes_adaptive_as_a_method(rule):
    result = scipy.optimize.minimize(
        rosenbrock,
        [-1.2, 1.0],
        jac=True,
        method=adaptive,
        bounds=[(None, 0.9), (None, None)],
        options=dict(rule=rule, maxiter=50),
    )
    assert result.x[0] <= 0.9 and result.fun < rosenbrock(np.array([-1.2, 1.0]))[0] and len(result.trials)


def test_scipy_with_adaptive_on_an_objective(gray_scott):
    make, x0, _ = gray_scott
    obj = make()
    result = scipy.optimize.minimize(
        obj.value_and_grad,
        x0,
        jac=True,
        method=adaptive,
        bounds=obj.bounds,
        tol=1e-6,
        callback=lambda intermediate_result: None,
        options=dict(maxiter=30),
    )
    assert result.fun < 1e-2 * obj(x0)
    assert scipy.optimize.minimize(obj, x0, jac=obj.grad, method=adaptive, options=dict(maxiter=5)).fun < obj(x0)
    own = scipy.optimize.minimize(make(), x0, method=adaptive, options=dict(maxiter=30))
    same(own, minimize(make(), x0, maxiter=30))  # an objective brings its gradient
    differences = scipy.optimize.minimize(lambda x: obj(x), x0, method=adaptive, options=dict(maxiter=5))
    assert differences.fun < obj(x0)
    with pytest.raises(rd.InputError, match="jac='cs'"):
        adaptive(lambda x: obj(x), x0, jac="cs")
    with pytest.raises(rd.InputError, match="constraints"):
        scipy.optimize.minimize(
            obj, x0, jac=obj.grad, method=adaptive, constraints={"type": "eq", "fun": lambda x: x[0]}
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(method="lbgfs"), "Did you mean 'lbfgs'"),
        (dict(shrink=1.5), "shrink"),
        (dict(jump=0.5), "jump"),
        (dict(bounds=[(0, 1)]), "bounds"),
        (dict(bounds=[(1, 0)] * 3), "low end"),
        (dict(maxiter=-1), "maxiter"),
        (dict(learning_rate=0.0), "learning_rate"),
        (dict(betas=(0.9, 1.0)), "betas"),
        (dict(judge=3.0), "judge=3.0"),
        (dict(judge=lambda x: "low"), "judge returned 'low'"),
        (dict(abnormal=3.0), "abnormal=3.0"),
        (dict(bounds=scipy.optimize.Bounds([0, 0], [1, 1])), "3 items"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(rd.InputError, match=message):
        minimize(bowl, np.zeros(3), **options)


def test_a_judge_that_knows_nothing_at_the_start_still_decides():
    result = minimize(
        Noisy(), np.zeros(3), method="adam", stochastic=True, maxiter=20, judge_every=5, learning_rate=0.1,
        judge=lambda x: math.nan if np.all(x == 0.0) else float(np.sum((x - 1.0) ** 2)),
    )  # fmt: skip
    assert result.fun < 3.0 and result.best_iteration > 0


@pytest.fixture
def heeds_ctrl_c():
    """SIGINT raises KeyboardInterrupt, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("delay", [0.05, 0.11, 0.23])
def test_a_real_ctrl_c_returns_the_best_point_and_resumes(gray_scott, delay, tmp_path):
    make, x0, _ = gray_scott
    options = dict(method="adam", learning_rate=0.01, tol=0.0, checkpoint=tmp_path / "run.npz", checkpoint_every=1)
    interrupted = make()
    interrupted(x0)  # kernels are compiled by now: a Ctrl-C before the first value has no point to give back
    timer = threading.Timer(delay, _thread.interrupt_main)
    timer.start()
    broken = minimize(interrupted, x0, maxiter=100_000, **options)
    timer.join()
    assert broken.status == 5 and make()(broken.x) == broken.fun
    n = broken.nit + 5
    same(
        minimize(make(), x0, maxiter=n, resume=True, **options),
        minimize(make(), x0, maxiter=n, **{**options, "checkpoint": None}),
    )
