"""The CUDA backend in Numba's simulator, against the CPU backend, both interpreted: no card is needed.

    python tests/cuda_simulator.py [--all]

Every model in one and two dimensions, two of them in three, with boundaries, schemes, fields and unequal spacings by
turns; with --all every model in every dimension with every boundary and scheme, and with blocks as they are on a card
(some minutes). The simulator runs each thread of a launch in Python, so otherwise blocks are made small, which also
gives several of them, and the grids are tiny. It is a script because Numba reads its settings once, when it is
imported: `test_cuda.py` runs it.

Before that comes the control: a kernel with one sign wrong must be noticed.
"""

import os
import sys
import warnings
from functools import partial
from itertools import product

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
os.environ["NUMBA_DISABLE_JIT"] = "1"

import numpy as np
import reference as ref
import setups

import adjoint_rd as rd
from adjoint_rd import cuda_device
from adjoint_rd.kernels import cuda as kernels

LIMIT = 1e-14
SHAPES = {1: (9,), 2: (3, 5), 3: (3, 3, 3)}
BOUNDARIES = ("mixed", "dirichlet", "periodic", "neumann")
SCHEMES = ("euler", "rk4")
SMALL = dict(THREADS=8, WARP=4, LANES=2, FOLD_THREADS=4)
MIDDLE = dict(THREADS=32, WARP=8, LANES=8, FOLD_THREADS=16)


def set_blocks(**constants):
    """Change the sizes of thread blocks, and forget kernels built for others; returns the sizes before."""
    before = {name: getattr(kernels, name) for name in constants}
    for name, value in constants.items():
        setattr(kernels, name, value)
    kernels.sweep_kernel.cache_clear()
    return before


def results(case, backend):
    """{what: array} of everything that a backend computes, for one set-up."""
    sim = setups.simulation(case, backend=backend)
    loss = rd.losses.Trajectory({1: rd.losses.L2(case.target, sigma=0.5), 2: setups.Wavy(case.target)})
    dparams, t = setups.directions(case)
    gradient = sim.gradient(case.y0, case.params, loss, steps=2)
    second = sim.hessian_product(case.y0, case.params, loss, steps=2, direction=dparams, initial=t)
    tangent = sim.tangent(case.y0, case.params, steps=2, direction=dparams, initial=t)
    found = {"run": sim.run(case.y0, case.params, steps=2, save_every=1).states, "tangent": tangent.tangent}
    for name, of in (("gradient", gradient), ("hessian", second)):
        found |= {f"{name} value": of.value, f"{name} initial": of.initial}
        found |= {f"{name} {parameter}": value for parameter, value in of.params.items() if np.ndim(value)}
        # Sums over the grid, in another order than on the CPU: where terms cancel, not each has a small relative error.
        found[f"{name} scalars"] = [value for value in of.params.values() if not np.ndim(value)]
    return found


def errors(case):
    """{what: relative error} of the simulated card against the CPU."""
    want, got = results(case, "cpu"), results(case, "cuda")
    return {what: ref.relative_error(np.asarray(got[what]), np.asarray(want[what])) for what in want}


def control():
    """A complaint unless a wrong sign in the transpose is found."""
    case = setups.draw("gray_scott", (3, 4), "mixed")
    right = kernels.build

    def wrong(template, **names):
        built = right(template, **names)
        if template.__name__ != "pull_update":
            return built
        return lambda *arguments: tuple(-value for value in built(*arguments))

    kernels.build = wrong
    kernels.sweep_kernel.cache_clear()
    found = errors(case)
    kernels.build = right
    kernels.sweep_kernel.cache_clear()
    noticed = {what for what, error in found.items() if not error <= LIMIT}
    return [] if "gradient initial" in noticed and "run" not in noticed else [f"control: noticed only {noticed}"]


def batch_errors():
    """A batch in one launch against its members on the CPU: losses alike, different, and of several steps."""
    case = setups.draw("gray_scott", (5,), "dirichlet")
    both = [setups.simulation(case, backend=backend) for backend in ("cpu", "cuda")]
    y0 = np.stack([case.y0, case.y0[..., ::-1], 0.9 * case.y0])
    params = [dict(case.params, F=F) for F in (0.03, 0.04, 0.05)]
    one, wavy = rd.losses.L2(case.target), setups.Wavy(case.target)
    found = {}
    for name, loss in {
        "one loss": one,
        "own targets": [rd.losses.L2(case.target * n) for n in (1, 2, 3)],
        "own weights": [one, rd.losses.L2(case.target, sigma=1 + case.target**2), one],
        "own steps": [rd.losses.Trajectory({1: one}), rd.losses.Trajectory({1: wavy, 3: one}), wavy],
    }.items():
        want, got = (sim.gradient(y0, params, loss, steps=3, window=2) for sim in both)
        found |= {f"{name}: value": (got.value, want.value), f"{name}: initial": (got.initial, want.initial)}
        found |= {f"{name}: {each}": (got.params[each], want.params[each]) for each in case.params}
    want, got = (sim.run(y0, params, steps=3, save_every=2) for sim in both)
    found |= {"states": (got.states, want.states), "final": (got.final, want.final)}
    return {what: ref.relative_error(np.asarray(got), np.asarray(want)) for what, (got, want) in found.items()}


class RecordedGraph:
    """Stands for a CUDA graph: launches are noted while it is made, and done with the same arguments when replayed."""

    now = None
    made = 0

    def __init__(self, stream, enqueue):
        RecordedGraph.made += 1
        self.launches = RecordedGraph.now = []
        try:
            enqueue()
        finally:
            RecordedGraph.now = None

    @staticmethod
    def launcher(kernel, blocks, threads, stream=0):
        def launch(*arguments):
            if RecordedGraph.now is None:
                kernel[blocks, threads](*arguments)
            else:
                RecordedGraph.now.append((kernel, blocks, threads, arguments))

        return launch

    def launch(self):
        for kernel, blocks, threads, arguments in self.launches:
            kernel[blocks, threads](*arguments)


def graph_errors():
    """Calls of all kinds with other parameters, states, targets and lengths each time, when sequences are replayed."""
    kernels.launcher, cuda_device._Graph = RecordedGraph.launcher, RecordedGraph
    case = setups.draw("gray_scott", (5,), "dirichlet", fields=("F",))
    cpu, card = (setups.simulation(case, backend=backend) for backend in ("cpu", "cuda"))
    card.executor.graphs.usable = True
    found = {}
    for n, steps in enumerate((2, 2, 2, 4, 2)):
        other = setups.redraw(case, n)
        dparams, t = setups.directions(other, n)
        loss = rd.losses.L2(other.target * (1 + n))
        calls = {
            "run": lambda sim, y=other, k=steps: sim.run(y.y0, y.params, steps=k).final,
            "gradient": lambda sim, y=other, k=steps, of=loss: sim.gradient(y.y0, y.params, of, steps=k),
            "tangent": lambda sim, y=other, k=steps, d=dparams: (
                sim.tangent(y.y0, y.params, steps=k, direction=d).tangent
            ),
            "hessian": lambda sim, y=other, k=steps, of=loss, d=dparams, i=t: sim.hessian_product(
                y.y0, y.params, of, steps=k, direction=d, initial=i
            ),
        }
        for name, call in calls.items():
            want, got = (
                (each.initial, each.params["Du"], each.params["F"], each.value) if hasattr(each, "initial") else (each,)
                for each in (call(cpu), call(card))
            )
            for part, (one, other_one) in enumerate(zip(got, want, strict=True)):
                found[f"{name} {n}, part {part}"] = ref.relative_error(np.asarray(one), np.asarray(other_one))
    if RecordedGraph.made < 6:
        found[f"only {RecordedGraph.made} graphs were made"] = np.inf
    return found


def other_calls():
    """What else a simulation offers: steady runs, checkpoints, divergence, a first state on the card."""
    case = setups.draw("gray_scott", (7,), "periodic")
    cpu, card = (setups.simulation(case, backend=backend) for backend in ("cpu", "cuda"))
    wrong = []
    want, got = (sim.run_to_steady(case.y0, case.params, tol=1e-3, max_steps=7) for sim in (cpu, card))
    if (got.steps_taken, got.converged) != (want.steps_taken, want.converged) or abs(got.rate - want.rate) > LIMIT:
        wrong.append(f"run_to_steady: {got} instead of {want}")
    loss = rd.losses.L2(case.target)
    for checkpoints in ("all", "disk", 2):
        want, got = (sim.gradient(case.y0, case.params, loss, steps=6, checkpoints=checkpoints) for sim in (cpu, card))
        if ref.relative_error(got.initial, want.initial) > LIMIT:
            wrong.append(f"checkpoints={checkpoints!r}")
    if ref.relative_error(card.rate(case.y0, case.params), cpu.rate(case.y0, case.params)) > LIMIT:
        wrong.append("rate")
    for sim in (cpu, card):
        hot = 1e160 * case.y0
        try:
            sim.run(hot, case.params, steps=9)
            wrong.append(f"{sim.backend}: no DivergenceError")
        except rd.DivergenceError as error:
            if error.step != 1 or not np.array_equal(error.state, hot):
                wrong.append(f"{sim.backend}: diverged at step {error.step}")
    try:
        type(card.executor)(card.model, card.grid, card.scheme, card.dtype, card.dt, 65536)
        wrong.append("a batch of more members than blocks along y")
    except rd.InputError as error:
        if "65536 members" not in str(error):
            wrong.append(f"too many members: {error}")
    on_card = kernels.cuda.to_device(case.y0)
    run, gradient = card.run(on_card, case.params, steps=2), card.gradient(on_card, case.params, loss, steps=2)
    want = cpu.run(case.y0, case.params, steps=2), cpu.gradient(case.y0, case.params, loss, steps=2)
    for got, expected in ((run.final, want[0].final), (gradient.initial, want[1].initial)):
        if isinstance(got, np.ndarray) or ref.relative_error(got.copy_to_host(), expected) > LIMIT:
            wrong.append("a first state on the card is not answered in kind")
    return wrong + batches_on_the_card(case, cpu, card) + refused_layouts(case, card)


def batches_on_the_card(case, cpu, card):
    """First states of a batch on the card, and one member that diverges."""
    wrong, many = [], np.stack([case.y0, 0.5 * case.y0])
    got = card.run(kernels.cuda.to_device(many), case.params, steps=4, save_every=2)
    want = cpu.run(many, case.params, steps=4, save_every=2)
    for number in range(2):
        if ref.relative_error(got.states[number].copy_to_host(), want.states[number]) > LIMIT:
            wrong.append(f"states of member {number} on the card")
    many[1] *= 1e160
    loss = rd.losses.L2(case.target)
    for sim in (cpu, card):
        for call in (sim.run, partial(sim.gradient, loss=loss, window=2)):
            try:
                call(many, case.params, steps=9)
                wrong.append(f"{sim.backend}: no DivergenceError of a batch")
            except rd.DivergenceError as error:
                if error.step != 1 or error.__notes__ != ["in member 1 of the batch"]:
                    wrong.append(f"{sim.backend}: diverged at step {error.step}, {error.__notes__}")
    many[1] = case.y0
    many[1, 0, 0] = np.nan
    try:
        card.run(kernels.cuda.to_device(many), case.params, steps=2)
        wrong.append("a batch on the card is not looked at")
    except rd.InputError as error:
        if error.__notes__ != ["in member 1 of the batch"]:
            wrong.append(f"the wrong member of a batch: {error.__notes__}")
    return wrong


def refused_layouts(case, card):
    """Arrays on the card that cannot be used as they are."""
    wrong = []
    for array, words in (
        (case.y0[:, :5], "y0 has shape (2, 5); this simulation needs (2, 7)"),
        (case.y0.astype(np.float32), "y0 is on the card with dtype float32"),
    ):
        try:
            card.run(kernels.cuda.to_device(np.ascontiguousarray(array)), case.params, steps=1)
            wrong.append(f"no InputError: {words}")
        except rd.InputError as error:
            if words not in str(error):
                wrong.append(f"{error} instead of {words}")
    return wrong


def main(everything):
    worst, wrong = 0.0, []

    def note(name, found):
        nonlocal worst
        worst = max(worst, *found.values())
        bad = {what: error for what, error in found.items() if not error <= LIMIT}
        if bad:
            wrong.append(f"{name}: {bad}")

    square = setups.draw("gray_scott", (8, 8), "periodic")
    if everything:
        note("8 x 8, one block of 128", errors(square))
    set_blocks(**MIDDLE)
    note("8 x 8, blocks of 32", errors(square))
    set_blocks(**SMALL)
    wrong += control()
    for number, (model, (dim, shape)) in enumerate(product(setups.MODELS, SHAPES.items())):
        kinetics = ref.MODELS[model].kinetics
        chosen = [(BOUNDARIES[(number + dim) % 4], "rk4" if dim == 1 else "euler")]
        if dim == 3 and model not in ("gray_scott", "oregonator"):
            chosen = []
        for n, (boundary, scheme) in enumerate(product(BOUNDARIES, SCHEMES) if everything else chosen):
            which = number + n
            fields = (), kinetics[::2], kinetics
            case = setups.draw(model, shape, boundary, scheme, fields[which % 3], which, bool(which % 2))
            note(f"{model} {dim}-D {boundary} {scheme}", errors(case))
    note("batch", batch_errors())
    wrong += other_calls()
    note("graphs", graph_errors())  # the last: it replaces the launcher
    print(f"largest relative error {worst:.1e}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # a run that diverges is among the checks
    sys.exit(main("--all" in sys.argv))
