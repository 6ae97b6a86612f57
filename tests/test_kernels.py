"""Compiled kernels: results are the same however the work is cut, and the disk cache is never stale."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import reference as ref
import setups

import adjoint_rd as rd
from adjoint_rd import execution
from adjoint_rd.kernels import cpu, specialise
from adjoint_rd.schemes import compiled

STEPS = 23


def everything(sim, case, **options):
    """All arrays that a gradient and a run return, with the scalars."""
    run = sim.run(case.y0, case.params, steps=STEPS)
    loss = rd.losses.Trajectory({5: rd.losses.L2(case.target), STEPS: setups.Wavy(case.target)})
    gradient = sim.gradient(case.y0, case.params, loss, steps=STEPS, **options)
    return [run.final, np.array(gradient.value), gradient.initial, *map(np.asarray, gradient.params.values())]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------ how the work is cut

CUT = [  # rows are shared among threads: in 2-D, in 3-D, with stages and fields, and blocks of a long row in 1-D
    ("gray_scott", (5, 6), "periodic", "euler", (), True),
    ("gray_scott", (3, 4, 5), "neumann", "euler", "all", False),  # fewer planes than threads
    ("allen_cahn", (4, 7), "neumann", "rk4", "all", False),
    ("gray_scott", (2 * cpu.BLOCK + 100,), "periodic", "euler", (), True),
]
NAMES = ("model", "shape", "boundary", "scheme", "fields", "equal")


@pytest.mark.parametrize(NAMES, CUT, ids=setups.word)
def test_results_do_not_depend_on_the_threads(model, shape, boundary, scheme, fields, equal):
    case = setups.draw(model, shape, boundary, scheme, fields, equal_spacing=equal)
    found = [everything(setups.simulation(case, threads=threads), case) for threads in (1, 2, 3, 4)]
    assert setups.simulation(case).executor.tiles >= 3
    assert all(same(found[0], each) for each in found[1:])
    other = setups.redraw(case, 1)
    assert not same(found[0], everything(setups.simulation(case), other))  # the control


def test_hessian_products_and_tangents_do_not_depend_on_the_threads():
    case = setups.draw("oregonator", (5, 4), "mixed", fields=("e", "q"))
    dparams, dinitial = setups.directions(case)
    along, loss = dict(direction=dparams, initial=dinitial, steps=STEPS), setups.Wavy(case.target)

    def both(threads):
        sim = setups.simulation(case, threads=threads)
        product = sim.hessian_product(case.y0, case.params, loss, **along)
        tangent = sim.tangent(case.y0, case.params, **along)
        return [product.initial, tangent.tangent, *map(np.asarray, product.params.values())]

    found = [both(threads) for threads in (1, 2, 3)]
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_a_long_row_gives_the_states_of_the_reference():
    case = setups.draw("gray_scott", (2 * cpu.BLOCK + 100,), "periodic", equal_spacing=True)
    sim = setups.simulation(case)
    assert ref.relative_error(sim.run(case.y0, case.params, steps=3).final, ref.run(**case.physics, steps=3)) < 1e-14
    a = np.random.default_rng(0).standard_normal(case.y0.shape)
    pulled = sim.gradient(case.y0, case.params, rd.losses.Linear(a), steps=3)
    t, h = setups.directions(case), 1e-30
    params = {name: value + 1j * h * t[0][name] for name, value in case.params.items()}
    pushed = ref.run(**case.physics | {"y0": case.y0 + 1j * h * t[1], "params": params}, steps=3).imag / h
    difference = setups.dot((pulled.params, pulled.initial), t) - np.sum(a * pushed)
    assert abs(difference) < 1e-13 * np.linalg.norm(a) * np.linalg.norm(pushed)


@pytest.fixture
def block_of(monkeypatch):
    """Sets BLOCK for kernels compiled from now on."""

    def forget():
        compiled._time_loop.cache_clear()
        compiled._sweep_kernel.cache_clear()

    def set_block(columns):
        forget()
        monkeypatch.setattr(cpu, "BLOCK", columns)
        monkeypatch.setattr(execution, "BLOCK", columns)

    yield set_block
    forget()


def test_results_do_not_depend_on_the_block(block_of):
    case = setups.draw("allen_cahn", (11,), "dirichlet")
    whole = everything(setups.simulation(case), case)
    for columns in (3, 10):  # 11 = 3 + 3 + 3 + 2 = 10 + 1
        block_of(columns)
        sim = setups.simulation(case)
        assert sim.executor.tiles == -(-11 // columns)
        cut = everything(sim, case)
        assert same([whole[0], whole[2]], [cut[0], cut[2]])  # states and adjoint
        for one, other in zip([whole[1], *whole[3:]], [cut[1], *cut[3:]], strict=True):  # sums, in another order
            assert ref.relative_error(other, one) < 1e-14


@pytest.fixture
def in_waves(monkeypatch):
    """Sets the depth and width of the waves in which grids of any size are gone through from now on."""

    def set_waves(depth, width_bytes):
        monkeypatch.setattr(execution, "CACHED_STATE_BYTES", 0)
        monkeypatch.setattr(execution, "WAVE_DEPTH", depth)
        monkeypatch.setattr(execution, "WAVE_BYTES", width_bytes)

    return set_waves


IN_WAVES = [
    ("gray_scott", (17, 6), "periodic", (), True),
    ("gray_scott", (17, 6), "neumann", "all", False),
    ("gray_scott", (17, 6), "mixed", (), False),
    ("allen_cahn", (13, 3, 4), "periodic", (), True),
    ("allen_cahn", (13, 3, 4), "dirichlet", "all", False),
]


@pytest.mark.parametrize(("model", "shape", "boundary", "fields", "equal"), IN_WAVES, ids=setups.word)
def test_results_do_not_depend_on_the_waves(in_waves, model, shape, boundary, fields, equal):
    case = setups.draw(model, shape, boundary, "euler", fields, equal_spacing=equal)
    dparams, dinitial = setups.directions(case)
    along = dict(direction=dparams, initial=dinitial, steps=STEPS)

    def all_loops(threads):
        sim = setups.simulation(case, threads=threads)
        product = sim.hessian_product(case.y0, case.params, setups.Wavy(case.target), **along)
        tangent = sim.tangent(case.y0, case.params, **along)
        return [*everything(sim, case), product.initial, tangent.tangent, *map(np.asarray, product.params.values())]

    step_by_step = all_loops(1)
    for depth, width_bytes in ((2, 1), (3, 200), (4, 1000), (6, 1)):
        in_waves(depth, width_bytes)
        for threads in (1, 2):
            sim = setups.simulation(case, threads=threads)
            assert sim.executor._waves(threads).depth == min(depth, shape[0] // threads // 2) > 1
            assert same(step_by_step, all_loops(threads))


def test_a_long_row_in_waves(block_of, in_waves):
    case = setups.draw("allen_cahn", (41,), "periodic", equal_spacing=True)
    block_of(3)
    found = everything(setups.simulation(case), case)
    in_waves(4, 1)
    for threads in (1, 3):
        sim = setups.simulation(case, threads=threads)
        assert sim.executor._waves(threads).depth == min(4, 14 // threads // 2) > 1
        assert same(found, everything(sim, case))


@pytest.mark.parametrize("scheme", ["euler", "rk4"])
def test_results_do_not_depend_on_the_padding(monkeypatch, scheme):
    case = setups.draw("gray_scott", (5, 6), "mixed", scheme, equal_spacing=False)
    plain = setups.simulation(case)
    assert plain.executor.padded_shape == plain.executor.flat_shape
    monkeypatch.setattr(execution, "ALIASED_BYTES", case.y0.itemsize)
    padded = setups.simulation(case)
    assert padded.executor.padded_shape == (2, 6, 14)
    t = setups.directions(case)
    for checkpoints in ("all", 2, "disk"):
        assert same(everything(plain, case), everything(padded, case, checkpoints=checkpoints, window=None))
    along = dict(direction=t[0], initial=t[1], steps=STEPS)
    one, other = (
        sim.hessian_product(case.y0, case.params, setups.Wavy(case.target), **along) for sim in (plain, padded)
    )
    assert np.array_equal(one.initial, other.initial)
    assert one.params == other.params
    one, other = (sim.run_to_steady(case.y0, case.params, max_steps=150) for sim in (plain, padded))
    assert np.array_equal(one.final, other.final)


def test_results_do_not_depend_on_what_is_saved():
    case = setups.draw("gray_scott", (5, 6), "periodic", equal_spacing=True)
    sim = setups.simulation(case)
    every = sim.run(case.y0, case.params, steps=STEPS, save_every=1)
    assert np.array_equal(every.steps, np.arange(STEPS + 1))
    for n in (2, 7, STEPS, 100):
        some = sim.run(case.y0, case.params, steps=STEPS, save_every=n)
        assert np.array_equal(some.steps, sorted({*range(0, STEPS + 1, n), STEPS}))
        assert np.array_equal(some.states, every.states[some.steps])
    only = sim.run(case.y0, case.params, steps=STEPS)
    assert np.array_equal(only.steps, [0, STEPS])
    assert np.array_equal(only.final, every.states[-1])
    assert np.array_equal(only.states[0], case.y0)


@pytest.mark.parametrize("window", [None, 16])
def test_results_do_not_depend_on_the_checkpoints(window):
    case = setups.draw("gray_scott", (5, 6), "periodic", equal_spacing=True)
    sim = setups.simulation(case)
    everything_stored = everything(sim, case, checkpoints="all", window=window)
    for checkpoints in (1, 2, 3, 10, "auto", "disk"):
        assert same(everything_stored, everything(sim, case, checkpoints=checkpoints, window=window))


def test_results_do_not_depend_on_the_chunks_that_progress_sees(monkeypatch):
    case = setups.draw("gray_scott", (5, 6), "periodic", equal_spacing=True)
    whole = everything(setups.simulation(case), case)
    monkeypatch.setattr(execution, "FIRST_CHUNK_VALUES", 1)
    monkeypatch.setattr(execution, "CHUNK_SECONDS", 0.0)
    assert same(whole, everything(setups.simulation(case), case))
    seen = []
    setups.simulation(case).run(case.y0, case.params, steps=STEPS, progress=seen.append)
    assert seen == [1] * STEPS


def test_a_simulation_can_be_used_again_and_by_two_threads_at_once():
    case = setups.draw("gray_scott", (5, 6), "periodic", equal_spacing=True)
    other, sim = setups.redraw(case, 1), setups.simulation(case)
    want = everything(setups.simulation(case), case), everything(setups.simulation(case), other)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: everything(sim, each), [case, other] * 4))
    for n, each in enumerate(found):
        assert same(each, want[n % 2])


def test_inputs_are_left_alone_and_results_are_the_users():
    case = setups.draw("gray_scott", (5, 6), "periodic", equal_spacing=True)
    sim, y0, loss = setups.simulation(case), case.y0.copy(), rd.losses.L2(case.target)
    first = sim.run(y0, case.params, steps=3)
    gradient = sim.gradient(y0, case.params, loss, steps=3)
    kept = first.final.copy(), gradient.initial.copy()
    assert np.array_equal(y0, case.y0)
    sim.run(case.target, case.params, steps=4)
    sim.gradient(case.target, case.params, loss, steps=4)
    assert np.array_equal(first.final, kept[0])
    assert np.array_equal(gradient.initial, kept[1])


@pytest.mark.jit
def test_subnormal_numbers_work_again_after_a_run():
    case = setups.draw("gray_scott", (5, 6), "periodic", equal_spacing=True)
    everything(setups.simulation(case, threads=2), case)
    assert np.float64(1e-300) * np.float64(1e-10) > 0.0


# -------------------------------------------------------------------------------------------- the disk cache

SCRIPT = """
import json, sys
import numpy as np
from numba import njit
import adjoint_rd as rd
import kinetics
from kinetics import grown
from adjoint_rd.schemes.compiled import time_loop

RATE = 0.5

@njit
def decayed(u):
    return RATE * u

def reaction(s, p):
    (u,) = s
    (r,) = p
    return (r * grown(u) - decayed(u) + kinetics.fed(r) + kinetics.SHIFT * r,)

model = rd.Model(
    "mine", ("u",), ("r",), reaction,
    reaction_j=lambda s, p, t, dp: (t[0] * p[0],),
    reaction_jt=lambda s, p, a: (a[0] * p[0],),
    reaction_pt=lambda s, p, a: (a[0] * s[0],),
    rest=lambda p: (0.0,),
)
sim = rd.Simulation(model, rd.Grid((8,)), dt=0.01)
y0 = np.full((1, 8), 2.0)
params = dict(Du=0.1, r=3.0)
final = sim.run(y0, params, steps=1).final[0, 0]
gradient = {gradient}
loops = [time_loop(name, sim.scheme, sim.model, sim.executor.geometry, ()) for name in {loops}]
print(json.dumps(dict(
    rate=(final - 2.0) / 0.01,
    gradient=gradient,
    hits=sum(sum(loop.stats.cache_hits.values()) for loop in loops),
    misses=sum(sum(loop.stats.cache_misses.values()) for loop in loops),
)))
"""
HELPERS = """
from numba import njit

SHIFT = 7.0

@njit
def grown(u):
    return u * u

@njit
def fed(r):
    return r + r
"""


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    """Runs the script, with edits, in a new process that shares the disk cache with the ones before."""
    tmp_path = tmp_path_factory.mktemp("user")

    def run(gradient=False, script_edits=(), helper_edits=()):
        script, helpers = SCRIPT, HELPERS
        for old, new in script_edits:
            assert old in script
            script = script.replace(old, new)
        for old, new in helper_edits:
            assert old in helpers
            helpers = helpers.replace(old, new)
        call = "sim.gradient(y0, params, rd.losses.L2(0 * y0), steps=5).params['r']"
        loops = ("advance", "record", "reverse") if gradient else ("advance",)
        script = script.replace("{gradient}", call if gradient else "None").replace("{loops}", repr(loops))
        (tmp_path / "mine.py").write_text(script)
        (tmp_path / "kinetics.py").write_text(helpers)
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": str(Path(rd.__file__).parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",  # or an edit within the same second might not be seen by Python itself
        }
        command = [sys.executable, str(tmp_path / "mine.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def first(in_process):
    """What the first process prints, with nothing in the cache."""
    return in_process(gradient=True)


@pytest.mark.jit
def test_a_second_process_finds_the_compiled_kernels_on_disk(in_process, first):
    second = in_process(gradient=True)
    assert (first["hits"], first["misses"]) == (0, 3)
    assert (second["hits"], second["misses"]) == (3, 0)
    assert second["gradient"] == first["gradient"]


@pytest.mark.jit
@pytest.mark.parametrize(
    ("edits", "rate"),
    [
        # r u^2 - RATE u + 2 r + SHIFT r  at  u = 2, r = 3  is  12 - 1 + 6 + 21 = 38
        (dict(script_edits=[("r * grown(u)", "r * grown(u) + r")]), 41.0),
        (dict(script_edits=[("RATE = 0.5", "RATE = 1.5")]), 36.0),
        (dict(script_edits=[("return RATE * u", "return RATE * u * u")]), 37.0),
        (dict(helper_edits=[("return u * u", "return u * u * u")]), 50.0),
        (dict(helper_edits=[("return r + r", "return r")]), 35.0),
        (dict(helper_edits=[("SHIFT = 7.0", "SHIFT = 8.0")]), 41.0),
    ],
    ids=[
        "the reaction",
        "a constant of the script",
        "a helper of the script",
        "an imported helper",
        "a helper of an imported module",
        "a constant of an imported module",
    ],
)
def test_an_edited_model_is_never_served_stale_code(in_process, first, edits, rate):
    assert first["rate"] == pytest.approx(38.0)
    edited = in_process(**edits)
    assert edited["rate"] == pytest.approx(rate)
    assert (edited["hits"], edited["misses"]) == (0, 1)


# ------------------------------------------------------------------------------------------------ templates


def _template(x):
    total_[0] = x - x  # noqa: F821
    for i in items:  # noqa: F821
        total_[0] += weights_[i] if known else f(x)  # noqa: F821
    if flag:  # noqa: F821
        total_[0] = -total_[0]  # noqa: F821
    return total_[0]  # noqa: F821


def source_of(function):
    return sorted({*function.__code__.co_varnames, *function.__code__.co_names})


def test_loops_over_bound_tuples_are_unrolled_and_branches_taken():
    def twice(x):
        return x + x

    built = specialise.build(_template, items=(3, 5), known=False, flag=True, f=twice)
    assert built(1.5) == -6.0
    assert "flag" not in source_of(built)
    assert "items" not in source_of(built)
    assert "total_0" in source_of(built)
    assert specialise.build(_template, items=(3,), known=False, flag=False, f=twice)(1.5) == 3.0
    assert specialise.build(_template, items=(), known=False, flag=False, f=twice)(1.5) == 0.0


def _ordinary(x):
    for i in range(3):
        x += i if x > 0 and known else -i  # noqa: F821
    return x


def test_ordinary_loops_and_tests_are_left_as_they_are():
    built = specialise.build(_ordinary, known=True)
    assert (built(1), built(-5)) == (4, -8)
    assert specialise.build(_ordinary, known=False)(1) == -2


def test_the_tag_of_a_built_function_says_all_it_depends_on():
    def one(x):
        return x + x

    def other(x):
        return x * x

    def tag(**names):
        return specialise.build(
            _template, **{"items": (1,), "known": False, "flag": True, "f": one} | names
        ).__qualname__

    assert tag() == tag()
    assert len({tag(), tag(f=other), tag(flag=False), tag(items=(1, 2))}) == 4


@pytest.mark.jit
def test_the_tag_sees_through_closures_defaults_and_dispatchers():
    import numba

    def closed_over(value):
        return lambda x: x + value

    def with_default(value):
        def function(x, y=value):
            return x + y

        return function

    tags = [
        specialise.code_tag(closed_over(1.0)),
        specialise.code_tag(closed_over(2.0)),
        specialise.code_tag(with_default(1.0)),
        specialise.code_tag(with_default(2.0)),
        specialise.code_tag(numba.njit(closed_over(1.0), fastmath={"contract"})),
        specialise.code_tag(numba.njit(closed_over(1.0), fastmath=False)),
        specialise.code_tag(closed_over(np.zeros(5000))),
        specialise.code_tag(closed_over(np.arange(5000) == 2500)),  # unlike the next in its middle alone
        specialise.code_tag(closed_over(np.arange(5000) == 2501)),
    ]
    assert len(set(tags)) == len(tags)
    assert specialise.code_tag(closed_over(1.0)) == tags[0]
