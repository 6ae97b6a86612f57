"""Guards: numbers that agree with linear algebra, alarms where they belong, and none where they do not."""

import numpy as np
import pytest
import scipy.optimize

import adjoint_rd as rd
from adjoint_rd import guards

TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


def simulation(dt=1.0, shape=(16, 16), **options):
    return rd.Simulation("gray_scott", rd.Grid(shape), dt=dt, stability="off", threads=1, **options)


def start(sim):
    return sim.initial_state("square", rng=0, clip=(0, 1))


def step_matrix(sim, y, params):
    columns = []
    for i in range(y.size):
        t = np.zeros(y.size)
        t[i] = 1.0
        columns.append(sim.tangent(y, params, steps=1, initial=t.reshape(y.shape)).tangent.ravel())
    return np.array(columns).T


@pytest.mark.parametrize("dt", [1.0, 1.6])
def test_the_multipliers_are_those_of_the_steps_matrix(dt):
    sim = simulation(dt, (6, 6))
    y = sim.run(start(sim), TRUE, steps=5).final
    eigenvalues = np.linalg.eigvals(step_matrix(sim, y, TRUE))
    lowest, mode = guards.lowest_multiplier(sim, y, TRUE, iterations=400)
    assert lowest == pytest.approx(eigenvalues.real.min(), abs=2e-3)
    assert np.linalg.norm(mode) == pytest.approx(1.0)
    radius, _ = guards.spectral_radius(sim, y, TRUE, iterations=600)
    assert radius == pytest.approx(np.abs(eigenvalues).max(), rel=5e-3)


def test_the_multiplier_of_the_rest_state_is_known_exactly():
    sim = simulation(1.3)
    rest = sim.initial_state("uniform")
    lowest, mode = guards.lowest_multiplier(sim, rest, TRUE, iterations=2000)
    assert lowest == pytest.approx(1.0 - 1.3 * (8 * 0.16 + 0.035), abs=1e-6)
    signs = np.sign(mode[0] * np.where(np.indices((16, 16)).sum(0) % 2, -1, 1))
    assert abs(signs.sum()) == signs.size  # the checkerboard
    assert guards.lowest_multiplier(sim, rest, TRUE, iterations=5, start=mode)[0] == pytest.approx(lowest, abs=1e-9)


@pytest.mark.parametrize("shape", [(16,), (16, 16), (8, 8, 8)])
def test_the_checkerboard_has_amplitude_one_and_smooth_waves_next_to_none(shape):
    board = np.where(np.indices(shape).sum(0) % 2, -1.0, 1.0)[None]
    assert guards.checkerboard(0.3 + 0.2 * board) == pytest.approx(0.2)
    assert guards.checkerboard(np.full((1, *shape), 0.7)) == pytest.approx(0.0, abs=1e-15)
    wave = np.cos(2 * np.pi * np.indices(shape)[0] / shape[0])[None]
    assert guards.checkerboard(wave) < 0.2


def test_the_flip_amplitude_is_that_of_the_alternating_part():
    y = np.random.default_rng(0).random((2, 4, 4))
    amplitude, share = guards.flip(y + 0.1, y - 0.1, y + 0.1)
    assert amplitude == pytest.approx(0.1) and share == pytest.approx(1.0)
    assert guards.flip(y, y + 0.1, y + 0.2)[1] < 1e-10


def test_outside_measures_the_farthest_value():
    box = ((0.0, 1.0), (0.0, 1.0))
    y = np.full((2, 3, 3), 0.4)
    assert guards.outside(y, box) == pytest.approx(-0.4)
    y[1, 0, 0], y[0, 1, 1] = -0.25, 1.1
    assert guards.outside(y, box) == pytest.approx(0.25)
    y[0, 0, 0] = np.nan
    assert guards.outside(y, box) == np.inf


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_a_watched_run_is_the_run(every):
    sim = simulation()
    y0 = start(sim)
    found = guards.watch(sim, y0, TRUE, steps=50, every=every)
    assert found.healthy and found.steps_taken == 50
    assert np.array_equal(found.final, sim.run(y0, TRUE, steps=50).final)


@pytest.mark.parametrize("every", [1, 3, 10])
def test_divergence_is_reported_at_its_step(every):
    sim = simulation(2.5)
    y0 = start(sim)
    with pytest.raises(rd.DivergenceError) as caught:
        sim.run(y0, TRUE, steps=5000)
    found = guards.watch(sim, y0, TRUE, steps=5000, every=every, stop=False)
    assert found.diverged == caught.value.step and found.steps_taken == found.diverged - 1
    assert np.isfinite(found.final).all()


@pytest.mark.parametrize(
    ("guard", "dt"),
    [(guards.Multiplier(), 1.9), (guards.Range(), 1.7), (guards.Flip(), 1.6), (guards.Checkerboard(), 1.6)],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_guard_alarms_beyond_the_limit_and_not_below(guard, dt):
    sim = simulation(dt)
    found = guards.watch(sim, start(sim), TRUE, steps=5000, guards=[guard], every=3)
    assert [alarm.guard for alarm in found.alarms] == [guard.name]
    assert np.isfinite(found.final).all() and found.diverged is None
    assert guard.name in str(found.alarms[0]) and "dt" in found.alarms[0].reason
    quiet = simulation(1.0)
    assert guards.watch(quiet, start(quiet), TRUE, steps=500, guards=[guard], every=3).healthy


def test_the_multiplier_alarms_before_anything_has_grown():
    sim = simulation(1.9)
    found = guards.watch(sim, start(sim), TRUE, steps=5000)
    assert found.alarms[0].guard == "multiplier" and found.steps_taken == 0


def test_noise_that_starts_outside_the_box_is_allowed_for():
    sim = simulation()
    y0 = start(sim) + 0.02 * np.random.default_rng(0).standard_normal(sim.state_shape)
    assert y0.min() < -0.04
    assert guards.watch(sim, y0, TRUE, steps=200, guards=[guards.Range(margin=1e-3)]).healthy
    assert not guards.watch(sim, y0 - 0.2, TRUE, steps=0, guards=[guards.Range(box=((0, 1), (0, 1)))]).alarms


def test_a_dying_pattern_is_reported():
    sim = simulation()
    dead = dict(TRUE, k=0.09)
    found = guards.watch(sim, start(sim), dead, steps=3000)
    assert found.alarms[0].guard == "pattern lost"
    assert guards.watch(sim, start(sim), TRUE, steps=600, guards=[guards.PatternLost()]).healthy


def test_models_without_a_box_say_what_to_give():
    sim = rd.Simulation("schnakenberg", rd.Grid((8, 8)), dt=1e-3)
    params = {name: 0.5 for name in sim.model.names}
    y0 = np.ones(sim.state_shape)
    if sim.model.box is None:
        with pytest.raises(rd.InputError, match="Range\\(box"):
            guards.watch(sim, y0, params, steps=1, guards=[guards.Range()])
    assert guards.watch(sim, y0, params, steps=1, guards=[guards.Range(box=((0, 2), (0, 2)))]).healthy


def quiet_run(**options):
    sim = simulation(shape=(8, 8))
    return guards.watch(sim, start(sim), TRUE, steps=4, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guards.Limit("sure"), "Did you mean|limit"),
        (lambda: guards.Limit(margin=np.nan), "margin=nan"),
        (lambda: guards.Range(margin="a"), "margin='a'"),
        (lambda: guards.Range(box=((1, 0), (0, 1))), "low < high"),
        (lambda: guards.Range(box=3), "box=3"),
        (lambda: quiet_run(guards=[guards.Range(box=((0, 1),))]), "2 species"),
        (lambda: guards.Multiplier(every=0), "every=0"),
        (lambda: guards.Multiplier(first=1.5), "first=1.5"),
        (lambda: guards.Flip(looks=0), "looks=0"),
        (lambda: guards.Checkerboard(growth=0.5), "growth"),
        (lambda: guards.PatternLost(least=0.0), "least"),
        (lambda: quiet_run(guards=guards.Range()), "list of guards"),
        (lambda: quiet_run(guards=["range"]), "look"),
        (lambda: quiet_run(guards=[guards.Range]), "is a class"),
        (lambda: quiet_run(every=0), "every=0"),
        (
            lambda: guards.lowest_multiplier(simulation(), start(simulation()), TRUE, start=np.zeros((2, 16, 16))),
            "norm",
        ),
        (lambda: guards.flip(np.ones(3), np.ones(3), np.ones(4)), "shapes"),
        (lambda: guards.outside(np.ones((2, 3)), ((0, 1),)), "2 species"),
        (lambda: guards.constraint(simulation()), "Objective"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(rd.InputError, match=message):
        call()


# Gradients


def test_the_flow_is_that_of_the_gradients_of_windows():
    sim = simulation()
    y0 = start(sim)
    target = sim.run(y0, dict(TRUE, F=0.04), steps=60).final
    for loss in (rd.losses.L2(target), rd.losses.Trajectory({45: rd.losses.L2(target), 60: rd.losses.L2(target)})):
        flow = guards.gradient_flow(sim, y0, TRUE, loss, steps=60, points=7)
        assert flow.back[0] == 0 and flow.back[-1] == 60
        for n, back in enumerate(flow.back[1:], start=1):
            g = sim.gradient(y0, TRUE, loss, steps=60, window=int(back))
            assert flow.norm[n] == pytest.approx(np.linalg.norm(g.initial), rel=1e-10)
            for name in sim.model.names:
                assert flow.params[name][n] == pytest.approx(g.params[name], rel=1e-9)
        assert "window" in str(flow) and "steps back" in str(flow)


def test_an_explosion_is_found_with_its_step():
    sim = simulation(1.9)
    y0 = sim.initial_state("uniform")
    weights = np.where(np.indices((16, 16)).sum(0) % 2, -1.0, 1.0) * np.ones((2, 1, 1))
    factor = abs(1.0 - 1.9 * (8 * 0.16 + 0.035))
    flow = guards.gradient_flow(sim, y0, TRUE, rd.losses.Linear(weights), steps=40, points=40, explode=1e3)
    assert flow.growth == pytest.approx(factor, rel=0.05)
    # 1e3 times the largest of the first tenth, that is after 4 steps
    assert flow.explodes_at == 4 + int(np.ceil(np.log(1e3) / np.log(factor)))
    assert flow.window <= flow.explodes_at
    alarm = guards.exploding_adjoint(sim, y0, TRUE, rd.losses.Linear(weights), steps=40, points=40)
    assert alarm.step == 40 - flow.explodes_at and 1e3 < alarm.number < 1e3 * factor**2 and "window" in alarm.reason
    quiet = simulation(1.0)
    calm = guards.gradient_flow(quiet, start(quiet), TRUE, rd.losses.L2(0 * start(quiet)), steps=40)
    assert calm.explodes_at is None
    assert guards.exploding_adjoint(quiet, start(quiet), TRUE, rd.losses.L2(0 * start(quiet)), steps=40) is None


def test_the_suggested_window_gives_nearly_the_gradient_of_longer_ones():
    sim = simulation()
    dead = dict(TRUE, F=0.1, k=0.1)  # relaxes fast: what was long ago does not matter
    y0 = start(sim)
    loss = rd.losses.L2(0.1 + 0 * y0)
    flow = guards.gradient_flow(sim, y0, dead, loss, steps=400)
    assert flow.window < 200 and "less than" in flow.reason
    assert flow.vanishes_at is not None
    near, far = (sim.gradient(y0, dead, loss, steps=400, window=w).params for w in (flow.window, None))
    assert near["F"] == pytest.approx(far["F"], rel=0.1)


def test_the_limit_is_a_constraint_for_scipy():
    sim = rd.Simulation("gray_scott", rd.Grid((16, 16)), dt=1.0)
    y0 = start(sim)
    obj = rd.Objective(
        sim,
        y0,
        rd.losses.L2(sim.run(y0, TRUE, steps=20).final),
        steps=20,
        free=("Du", "Dv"),
        fixed=dict(F=0.035, k=0.065),
    )
    limit = guards.constraint(obj, limit="safe", margin=1.25)
    # An objective that pulls Du up, out of the safe region.
    result = scipy.optimize.minimize(lambda x: -x[0], obj.pack(Du=0.1, Dv=0.05), method="SLSQP", constraints=limit)
    assert sim.limits(obj.unpack(result.x)).safe == pytest.approx(1.25, rel=1e-4)
    with pytest.raises(rd.InputError, match="safe"):
        guards.constraint(obj, limit="save")
