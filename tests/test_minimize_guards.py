"""Guards inside rd.minimize: trials on whose runs a guard alarms are refused, with its reason in the log."""

import numpy as np
import pytest
import scipy.optimize

import adjoint_rd as rd
from adjoint_rd import guards

TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
FREE = ("Du", "Dv", "F", "k")


@pytest.fixture(scope="module")
def sim():
    return rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0, threads=1)


@pytest.fixture(scope="module")
def grown(sim):
    return sim.run(sim.initial_state("square", rng=0, clip=(0, 1)), TRUE, steps=300).final


def objective(sim, y0, truth, **options):
    target = rd.losses.L2(sim.run(y0, truth, steps=60).final)
    return rd.Objective(sim, y0, target, steps=60, free=FREE, **options)


def reasons(result):
    return [trial.reason for trial in result.trials if not trial.accepted]


def test_the_a_priori_limit_refuses_what_would_still_run(sim, grown):
    # The target lies above `safe`: without the guard the descent goes there.
    beyond = dict(TRUE, Du=0.215)
    limits = sim.limits(beyond)
    assert limits.safe < sim.dt < limits.certain
    obj = objective(sim, grown, beyond)
    x0 = obj.pack(**dict(TRUE, Du=0.18))
    free = rd.minimize(obj, x0, maxiter=40)
    assert obj.unpack(free.x)["Du"] == pytest.approx(0.215, rel=1e-3)
    held = rd.minimize(obj, x0, maxiter=40, guards=[guards.Limit("safe")])
    assert any("guard: step 0, limit" in reason and "'safe'" in reason for reason in reasons(held))
    assert sim.limits(obj.unpack(held.x)).safe >= sim.dt
    assert obj(x0) > held.fun > free.fun


def test_run_time_guards_refuse_an_unstable_run_before_it_breaks():
    sim = rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0, threads=1, stability="off")
    y0 = sim.run(sim.initial_state("square", rng=0, clip=(0, 1)), TRUE, steps=300).final
    obj = objective(sim, y0, dict(TRUE, Du=0.2), on_unstable="raise", transform="log")
    x0 = obj.pack(**TRUE)
    seen = []

    def fun(x):
        seen.append(x)
        return obj.value_and_grad(x)

    fun.runs = obj.runs
    result = rd.minimize(fun, x0, method="gd", learning_rate=1.0, maxiter=3, guards=True, guard_every=5)
    assert any("guard: " in reason for reason in reasons(result))
    # What a guard refused was never evaluated, and what was evaluated sets off no guard.
    every = [guards.Limit(), *guards.default_guards()]
    assert all(guards.first_alarm(obj.runs(x), every, every=5) is None for x in seen)
    assert result.fun < obj(x0)


def test_a_dead_pattern_is_refused(sim):
    y0 = sim.initial_state("square", rng=0, clip=(0, 1), size=4)
    target = rd.losses.L2(sim.initial_state("uniform"))
    obj = rd.Objective(sim, y0, target, steps=600, free=("k",), fixed={name: TRUE[name] for name in FREE[:3]})
    result = rd.minimize(obj, obj.pack(k=0.062), maxiter=30, guards=[guards.PatternLost(least=0.02)])
    y = sim.run(y0, obj.unpack(result.x), steps=600).final
    assert y[1].std() > 0.005 and any("pattern lost" in reason for reason in reasons(result))


def test_a_start_that_alarms_is_refused_with_the_reason(sim, grown):
    obj = objective(sim, grown, TRUE)
    with pytest.raises(rd.InputError, match="abnormal at x0: guard: step 0, limit"):
        rd.minimize(obj, obj.pack(**dict(TRUE, Du=0.22)), guards=[guards.Limit("safe")])


def test_sums_and_scipy_take_guards_too(sim, grown):
    obj = rd.Objective.sum([objective(sim, grown, TRUE), objective(sim, grown, dict(TRUE, F=0.036))])
    x0 = obj.pack(**dict(TRUE, F=0.03))
    assert len(obj.runs(x0)) == 2
    assert rd.minimize(obj, x0, maxiter=5, guards=True).fun < obj(x0)
    options = dict(rule="gd", maxiter=3, learning_rate=10.0, guards=True)
    result = scipy.optimize.minimize(obj.value_and_grad, x0, jac=True, method=rd.adaptive, options=options)
    assert result.fun < obj(x0) and any("guard: " in reason for reason in reasons(result))


def test_guards_need_runs():
    with pytest.raises(rd.InputError, match="runs"):
        rd.minimize(lambda x: (float(x @ x), 2 * x), np.ones(2), guards=True)
    with pytest.raises(rd.InputError, match="look"):
        obj = type("O", (), {"runs": lambda self, x: [], "__call__": lambda self, x: (float(x @ x), 2 * x)})()
        rd.minimize(obj, np.ones(2), guards=["range"])


def test_a_run_that_diverges_between_looks_counts_as_an_alarm():
    sim = rd.Simulation("gray_scott", rd.Grid((16, 16)), dt=2.5, stability="off")
    y0 = sim.initial_state("square", rng=0, clip=(0, 1))
    alarm = guards.first_alarm([(sim, y0, TRUE, 5000)], [guards.Limit(margin=9.0), guards.PatternLost()])
    assert alarm.guard == "divergence" and alarm.step > 0
    assert guards.first_alarm([(sim, y0, TRUE, 5000)], [guards.Limit()]).step == 0
