"""CUDA. Without a card: PTX of every kernel, the simulator, what is said when a part is missing.

The tests marked `gpu` need a card and are skipped elsewhere; those that are not about the card alone hold for each
backend.
"""

import importlib.util
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reference as ref
import setups

import adjoint_rd as rd
from adjoint_rd import cuda_device
from adjoint_rd.kernels.cpu import Geometry

HERE = Path(__file__).parent
PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
GPU = pytest.mark.gpu
needs_numba_cuda = pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is missing")
needs_no_card = pytest.mark.skipif(cuda_device.is_usable(), reason="there is a card")


# ------------------------------------------------------------------------------------------------ without a card


def python(*arguments):
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=600
    )


def test_importing_the_library_does_not_import_numba_cuda():
    done = python("-c", "import sys, adjoint_rd; print([m for m in sys.modules if m.startswith('numba.cuda.cudadrv')])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_without_numba_cuda_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(rd.BackendError, match=r"numba-cuda.*pip install 'adjoint-rd\[cuda\]'"):
        rd.Simulation("gray_scott", rd.Grid((8, 8)), dt=1.0, backend="cuda")


@needs_numba_cuda
def test_without_the_toolkit_the_extra_is_named(monkeypatch):
    from numba.cuda.cudadrv import nvvm

    def missing():
        raise nvvm.NvvmSupportError("libNVVM cannot be found")

    monkeypatch.setattr(nvvm, "NVVM", missing)
    with pytest.raises(rd.BackendError, match=r"libNVVM cannot be found.*pip install 'adjoint-rd\[cuda\]'"):
        cuda_device.module()


@needs_numba_cuda
@needs_no_card
def test_without_a_driver_the_message_says_so_and_auto_takes_the_cpu():
    with pytest.raises(rd.BackendError, match=r"NVIDIA card and its driver .*driver.*backend='cpu' or 'auto'"):
        rd.Simulation("gray_scott", rd.Grid((8, 8)), dt=1.0, backend="cuda")
    assert rd.Simulation("gray_scott", rd.Grid((8, 8)), dt=1.0, backend="auto").backend == "cpu"


@needs_numba_cuda
@pytest.mark.parametrize(
    ("version", "capability", "said"),
    [
        ((12, 8), (9, 0), r"driver is for CUDA 12\.8, older than the toolkit's 13\.\d+; update"),
        ((13, 0), (7, 0), r"compute capability is 7\.0, and CUDA 13 compiles for 7\.5 and more"),
    ],
)
def test_a_card_or_driver_too_old_for_the_toolkit_is_said(monkeypatch, version, capability, said):
    from numba import cuda
    from numba.cuda.cudadrv import driver

    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_current_device", lambda: SimpleNamespace(compute_capability=capability))
    monkeypatch.setattr(driver.driver, "get_version", lambda: version)
    with pytest.raises(rd.BackendError, match=said):
        cuda_device.module()


def test_a_tensor_that_cannot_be_read_is_an_input_error(monkeypatch):
    class Tensor:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("Can't get it on a Variable that requires grad.")

    monkeypatch.setattr(cuda_device, "module", lambda: None)
    with pytest.raises(rd.InputError, match=r"a Tensor, cannot be read: .*requires grad"):
        cuda_device.as_device_array(Tensor())


@needs_numba_cuda
def test_the_simulated_card_gives_what_the_cpu_gives():
    done = python(str(HERE / "cuda_simulator.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest relative error" in done.stdout


@needs_numba_cuda
@needs_no_card
def test_the_host_asks_a_card_for_nothing_that_it_would_refuse():
    done = python(str(HERE / "cuda_host.py"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_refused_graph_is_said_once_and_its_steps_are_launched_one_by_one(monkeypatch):
    def refuse(stream, enqueue):
        raise cuda_device._GraphError("cuStreamBeginCapture: not permitted")

    monkeypatch.setattr(cuda_device, "_Graph", refuse)
    monkeypatch.setattr(cuda_device, "module", lambda: SimpleNamespace(defer_cleanup=nullcontext))
    graphs, launched = cuda_device.Graphs(SimpleNamespace(handle=1)), []
    with pytest.warns(RuntimeWarning, match=r"not permitted.*one by one") as said:
        for _ in range(4):
            graphs.launch("three steps", lambda: launched.append(3), 3)
    assert launched == [3] * 4
    assert len(said) == 1


@pytest.mark.parametrize(
    ("keys", "steps", "times"), [(100, 10, 1), (3, cuda_device.MOST_GRAPH_STEPS // 2, 3), (300, 1, 3)]
)
def test_sequences_are_replayed_while_there_is_room_for_them(monkeypatch, keys, steps, times):
    made = []
    monkeypatch.setattr(cuda_device, "_Graph", lambda stream, enqueue: SimpleNamespace(launch=lambda: made.append(1)))
    monkeypatch.setattr(cuda_device, "module", lambda: SimpleNamespace(defer_cleanup=nullcontext))
    graphs, launched = cuda_device.Graphs(SimpleNamespace(handle=1)), []
    for _ in range(3):
        for key in range(keys):
            graphs.launch(key, lambda: launched.append(1), steps)
    assert len(launched) == times * keys
    assert len(launched) + len(made) == 3 * keys


GEOMETRIES = {  # the boundaries that take most code, and unequal spacings; axis 2 is the columns
    1: Geometry(1, (), (2,), True, False),
    2: Geometry(2, (1,), (2,), True, False),
    3: Geometry(3, (1,), (0, 2), True, False),
}


@needs_numba_cuda
@pytest.mark.parametrize("dim", GEOMETRIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", ["push", "tangent", "pull", "second"])
def test_a_sweep_compiles_for_every_card(operation, dtype, dim):
    import ptx

    fielded = {1: (0, 1), 2: (), 3: (0,)}[dim]
    found = ptx.sweep(operation, rd.models.get("gray_scott"), GEOMETRIES[dim], dtype, fielded, identity=dim != 1)
    check_ptx(found, dtype, sums=operation in ("pull", "second"))


HELPERS = {"fold": True, "fill": False, "scale": False, "accumulate": False, "blend": False}
HELPERS |= {"mark_not_finite": False, "largest_change": True, "square_seed": True}


@needs_numba_cuda
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in HELPERS for dtype in ("float32", "float64")[name == "fold" :]]
)
def test_a_helper_compiles_for_every_card(name, dtype):
    import ptx

    # Sums over blocks, losses and the largest change are in float64 for either dtype.
    check_ptx(ptx.helper(name, dtype), "float64" if HELPERS[name] else dtype, HELPERS[name])


def check_ptx(found, dtype, sums):
    """PTX for every capability: assembled without spills, without local memory, in float32 if that is the dtype."""
    import ptx

    assert list(found) == list(ptx.CAPABILITIES)
    for capability, text in found.items():
        instructions = ptx.instructions(text)
        assert not [name for name in instructions if ".local" in name]
        assert any("bar" in name for name in instructions) == sums
        if dtype == "float32":
            assert ptx.double_arithmetic(text) == []
        if ptx.ptxas() is not None:
            registers, stores, loads = ptx.assembled(text, capability)
            assert stores == loads == 0
            assert registers <= 128


@needs_numba_cuda
def test_the_check_for_double_precision_finds_a_bare_number():
    import ptx

    gray_scott = rd.models.get("gray_scott")
    careless = setups.replace(gray_scott, reaction=lambda s, p: (p[0] * (1.0 - s[0]), -p[1] * s[1]))
    for model, clean in ((gray_scott, True), (careless, False)):
        text = ptx.sweep("push", model, Geometry(2, (1, 2), (), False, False), "float32")[9, 0]
        assert (ptx.double_arithmetic(text) == []) == clean


# ----------------------------------------------------------------------------------------- the same on every backend


def usable(backend):
    if backend == "cuda" and not cuda_device.is_usable():
        pytest.skip("no usable card")
    return backend


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def backend(request):
    return usable(request.param)


CASES = [  # model, shape, boundary, scheme, fields
    ("gray_scott", (37, 41), "periodic", "euler", ()),
    ("gray_scott", (9, 11, 10), "mixed", "rk4", ("F",)),
    ("schnakenberg", (300,), "dirichlet", "euler", "all"),
    ("oregonator", (20, 9), "neumann", "euler", ()),
]
# Other files try the CPU in many set-ups, which take long to compile: here the first will do.
ON_EACH_BACKEND = [("cpu", CASES[0])] + [("cuda", case) for case in CASES]


def called(case):
    return f"{case[0]}-{setups.word(case[1])}-{case[3]}"


def each(pairs):
    return [
        pytest.param(
            (backend, setups.draw(*case, equal_spacing=case is CASES[0])),
            marks=[GPU] * (backend == "cuda"),
            id=f"{backend}-{called(case)}",
        )
        for backend, case in pairs
    ]


@pytest.fixture(params=each(ON_EACH_BACKEND))
def backend_and_case(request):
    backend, case = request.param
    return usable(backend), case


def test_runs_are_those_of_the_reference(backend_and_case):
    backend, case = backend_and_case
    got = setups.simulation(case, backend=backend).run(case.y0, case.params, steps=12, save_every=5)
    for step, state in zip(got.steps, got.states, strict=True):
        assert ref.relative_error(state, ref.run(**case.physics, steps=int(step))) < 1e-13


def test_tangents_and_transposes_agree(backend_and_case):
    backend, case = backend_and_case
    sim = setups.simulation(case, backend=backend)
    dparams, t = setups.directions(case)
    a = np.random.default_rng(3).standard_normal(case.y0.shape)
    tangent = sim.tangent(case.y0, case.params, direction=dparams, initial=t, steps=9).tangent
    pulled = sim.gradient(case.y0, case.params, rd.losses.Linear(a), steps=9, checkpoints=2)
    pulled = pulled.params, pulled.initial
    scale = np.sqrt(setups.dot(pulled, pulled) * setups.dot((dparams, t), (dparams, t)))
    assert abs(setups.dot(pulled, (dparams, t)) - np.sum(a * tangent)) < 1e-13 * scale


def test_gradients_are_of_second_order_in_taylors_test(backend):
    sim = rd.Simulation("gray_scott", rd.Grid((24, 20)), dt=1.0, backend=backend)
    y0 = sim.initial_state("square", rng=0)
    loss = rd.losses.L2(sim.run(y0, PARAMS, steps=60).final)
    objective = rd.Objective(sim, y0, loss, steps=60, free=tuple(PARAMS))
    report = rd.validate.taylor(objective, objective.pack(Du=0.13, Dv=0.07, F=0.04, k=0.06))
    assert report.passed, str(report)


def test_a_batch_gives_what_its_members_give(backend):
    sim = rd.Simulation("gray_scott", rd.Grid((20, 24)), dt=0.9, backend=backend)
    states = np.stack([sim.initial_state("square", rng=seed) for seed in range(3)])
    params = [dict(PARAMS, F=0.03 + 0.002 * n) for n in range(3)]
    targets = [rd.losses.L2(np.roll(state, 3, axis=1)) for state in states]
    together = sim.gradient(states, params, targets, steps=30)
    for n in range(3):
        alone = sim.gradient(states[n], params[n], targets[n], steps=30, checkpoints=7)
        assert together.value[n] == alone.value
        assert {name: together.params[name][n] for name in PARAMS} == alone.params
        np.testing.assert_array_equal(together.initial[n], alone.initial)


def test_runs_twice_give_the_same_bits(backend):
    """Four times: on a card the first launches one by one, the second records a graph, the others replay it."""
    dtype = "float64" if backend == "cpu" else "float32"
    sim = rd.Simulation("gray_scott", rd.Grid((130, 70)), dt=1.0, dtype=dtype, backend=backend)
    y0 = sim.initial_state("square", rng=0)
    loss = rd.losses.L2(0.9 * y0)
    found = [sim.gradient(y0, PARAMS, loss, steps=40) for _ in range(4)]
    for each in found[1:]:
        assert each.value == found[0].value
        assert each.params == found[0].params
        np.testing.assert_array_equal(each.initial, found[0].initial)


def test_graphs_follow_new_parameters_and_larger_buffers(backend):
    sim = rd.Simulation("gray_scott", rd.Grid((33, 20)), dt=1.0, backend=backend)
    y0 = sim.initial_state("square", rng=0)
    loss = rd.losses.L2(0.9 * y0)
    for steps in (10, 10, 10, 25, 10):
        for F in (0.03, 0.04):
            fresh = rd.Simulation("gray_scott", rd.Grid((33, 20)), dt=1.0, backend=backend)
            got, want = (each.gradient(y0, dict(PARAMS, F=F), loss, steps=steps) for each in (sim, fresh))
            assert got.params == want.params
            np.testing.assert_array_equal(got.initial, want.initial)


# ---------------------------------------------------------------------------------------------------- on a card only


@GPU
@pytest.mark.parametrize("setup", CASES, ids=called)
def test_gradients_equal_those_of_the_cpu(setup):
    case = setups.draw(*setup)
    loss = rd.losses.Trajectory({50: rd.losses.L2(case.target), 100: setups.Wavy(case.target)})
    card, cpu = (
        setups.simulation(case, backend=usable(backend)).gradient(case.y0, case.params, loss, steps=100)
        for backend in ("cuda", "cpu")
    )
    assert abs(card.value - cpu.value) <= 1e-12 * abs(cpu.value)
    assert ref.relative_error(card.initial, cpu.initial) < 1e-12
    for name in case.params:
        assert ref.relative_error(np.asarray(card.params[name]), np.asarray(cpu.params[name])) < 1e-12


@GPU
@pytest.mark.parametrize("library", ["torch", "cupy", "numba"])
def test_arrays_of_other_libraries_are_used_in_place(library):
    usable("cuda")
    sim = rd.Simulation("gray_scott", rd.Grid((40, 30)), dt=1.0, backend="cuda")
    y0 = sim.initial_state("square", rng=0)
    if library == "numba":
        from numba import cuda

        given = cuda.to_device(y0)
    else:
        module = pytest.importorskip(library)
        given = module.as_tensor(y0, device="cuda") if library == "torch" else module.asarray(y0)
    run, want = sim.run(given, PARAMS, steps=7), sim.run(y0, PARAMS, steps=7)
    np.testing.assert_array_equal(run.final.copy_to_host(), want.final)
    if library == "torch":
        back = module.as_tensor(run.final, device="cuda")
        assert back.data_ptr() == run.final.__cuda_array_interface__["data"][0]


@GPU
def test_too_little_device_memory_is_said_before_it_is_tried():
    usable("cuda")
    sim = rd.Simulation("gray_scott", rd.Grid((1024, 1024)), dt=1.0, backend="cuda")
    y0 = sim.initial_state("square", rng=0)
    with pytest.raises(rd.CheckpointError, match=r"GB may be used"):
        sim.gradient(y0, PARAMS, rd.losses.L2(y0), steps=10**6, checkpoints="all")
