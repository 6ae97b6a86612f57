"""adjoint_rd on a card: against the card's copy bandwidth and against JAX, torch and a hand-written CuPy kernel.

    adjoint-rd bench --backend cuda [--json OUT] [--peers jax,torch.compile] [--quick]

    traffic      bytes that a step must move at least: the forward step reads and writes each species once, the reverse
                 step reads the state and the adjoint and writes the adjoint. Bandwidth is that over the time of a step
                 of a long run, in per cent of what copying a large array reaches on the same card (read and write).
    gradients    value and gradient of L2 with respect to Du, Dv, F, k and y0. The initial state and the target are on
                 the card before, the gradient with respect to y0 stays there; compared with the CPU's before they are
                 timed. Each peer runs in a process of its own; medians of rounds.

What fails is reported and the rest goes on. Ends with 1 if a limit of issue 7 is missed or was not measured or a
gradient is wrong, with 2 if there is no card. Where there is no git, COMMIT in the environment names the commit.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from validation.bench.problem import PARAMS, Problem  # noqa: E402

CASES = {"128^2, batch 64, 200 steps": (128, 64, 200), "4096^2, 20 steps": (4096, 1, 20)}
LIMITS = {  # of issue 7: the name of a figure and what it must be
    "forward, % of copy": (75.0, "at least"),
    "reverse, % of copy": (65.0, "at least"),
    "128^2, 1000 steps, value_and_grad, ms": (10.0, "at most"),
    "128^2, batch 64, 200 steps: jax / ours": (10.0, "at least"),
    "128^2, batch 64, 200 steps: torch.compile / ours": (10.0, "at least"),
    "4096^2, 20 steps: jax / ours": (3.0, "at least"),
    "4096^2, 20 steps: torch.compile / ours": (3.0, "at least"),
}
TOLERANCE = 1e-3  # of float32 gradients, relative, see problem.py
PATIENCE = 300.0  # seconds that a peer may take for a case


def seconds(function, synchronize, rounds=9):
    """The median time of a call, after two that compile and record graphs."""
    for _ in range(2):
        function()
    synchronize()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        synchronize()
        found.append(time.perf_counter() - start)
    return median(found)


def copy_bandwidth():
    """Bytes read and written a second by copies within the device memory, of 1 GiB or a quarter of what is free."""
    from numba import cuda

    size = int(min(2**28, cuda.current_context().get_memory_info().free // 16))
    a, b = cuda.device_array(size, np.float32), cuda.device_array(size, np.float32)
    stream = cuda.stream()

    def copies():
        for _ in range(10):
            b.copy_to_device(a, stream=stream)

    return 10 * 2 * 4 * size / seconds(copies, stream.synchronize)


def step_bandwidth(n, steps, dtype):
    """Bytes a second of minimal traffic: (forward, reverse)."""
    import adjoint_rd as rd

    problem = Problem(n, steps, dtype)
    sim = rd.Simulation("gray_scott", rd.Grid((n, n)), dt=1.0, dtype=dtype, backend="cuda")
    executor, params = sim.executor, sim.check_params(PARAMS)
    plan, sums = executor.plan(params, ()), executor.sums(())
    state = executor.pair("state", problem.initial())
    adjoint = executor.pair("adjoint", problem.target())
    states = executor.buffer("states", steps)
    for step in range(steps):
        executor.copy(states[step], state.current)
    synchronize = executor.stream.synchronize
    field = n * n * np.dtype(dtype).itemsize
    forward = seconds(lambda: executor.advance(state, plan, (), steps), synchronize)
    reverse = seconds(lambda: executor.reverse(states, adjoint, plan, sums, 0, steps), synchronize)
    return steps * 4 * field / forward, steps * 6 * field / reverse


def small_gradient():
    """Seconds of value_and_grad at 128^2 over 1000 steps in float32."""
    import adjoint_rd as rd

    problem = Problem(128, 1000, "float32")
    sim = rd.Simulation("gray_scott", rd.Grid((128, 128)), dt=1.0, dtype="float32", backend="cuda")
    objective = rd.Objective(
        sim, problem.initial(), rd.losses.L2(problem.target()), steps=1000, free=tuple(PARAMS), transform="log"
    )
    x, calls = objective.pack(**PARAMS), itertools.count()
    # An objective keeps its last result, so each call has another x.
    return seconds(lambda: objective.value_and_grad(x + 1e-9 * next(calls)), lambda: None)


def of_peer(name, case, rounds):
    """{"gradient": seconds, "forward": seconds, "error": ...} of a peer, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, str(Path(__file__)), "--worker", name, case, str(rounds), str(out)]
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {"skipped": f"not done after {PATIENCE:.0f} s"}
        if done.returncode or not out.exists():
            return {"skipped": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
        return json.loads(out.read_text())


def worker(name, case, rounds, out):
    """Measure one peer here."""
    from validation.bench import card_peers

    n, batch, steps = CASES[case]
    problems = [Problem(n, steps, "float32", seed=seed) for seed in range(batch)]
    y0, target = (np.stack([make(p) for p in problems]) for make in (Problem.initial, Problem.target))
    peer = card_peers.PEERS[name](n, steps, y0, target)
    found = {}
    if hasattr(peer, "gradient"):
        right = card_peers.Ours(n, steps, y0, target, backend="cpu")
        found["error"] = max(_errors(peer.gradient(), right.gradient()))
        found["gradient"] = seconds(peer.gradient, lambda: None, rounds)
    found["forward"] = seconds(peer.forward, lambda: None, rounds)
    Path(out).write_text(json.dumps(found))


def _errors(got, want):
    """Largest relative errors (maximum norm) of the values, of each parameter and of the initial states."""
    pairs = [(got[0], want[0]), (got[2], want[2]), *((got[1][name], want[1][name]) for name in PARAMS)]
    for one, other in pairs:
        one, other = (np.ravel(_on_host(each).astype(float)) for each in (one, other))
        yield float(np.abs(one - other).max() / np.abs(other).max())


def _on_host(array):
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def commit():
    """The commit that is measured."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        found = done.stdout.strip()
    except OSError:
        found = ""
    return found or os.environ.get("COMMIT", "unknown")


def card():
    """What the figures were measured on."""
    from numba import cuda

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    capability = ".".join(map(str, device.compute_capability))
    return {
        "card": name, "compute capability": capability, "date": time.strftime("%Y-%m-%d"), "commit": commit()
    }  # fmt: skip


def measure(peers, quick, figures, tables, failed):
    """Fill figures {name: value}, tables {case: {peer: measured}} and failed [what and why], in the order measured."""

    def trying(what, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            failed.append(f"{what}: {type(error).__name__}: {error}")
            return None

    if (copied := trying("copy bandwidth", copy_bandwidth)) is None:
        return
    figures["copy, GB/s"] = copied / 1e9
    if (small := trying("128^2, 1000 steps", small_gradient)) is not None:
        figures["128^2, 1000 steps, value_and_grad, ms"] = 1e3 * small
    for n, dtype in ((4096, "float32"), (4096, "float64"), (1024, "float32")):
        of = "" if (n, dtype) == (4096, "float32") else f" ({n}^2, {dtype})"
        both = trying(f"bandwidth{of}", step_bandwidth, n, 10 if quick else 20, dtype)
        for way, moved in zip(("forward", "reverse"), both or (), strict=False):
            figures[f"{way}, % of copy{of}"] = 100 * moved / copied
    for case in CASES:
        table = tables[case] = {}
        for name in peers:
            found = table[name] = of_peer(name, case, 5 if quick else 9)
            ours = table["ours"].get("gradient")
            if name != "ours" and ours and found.get("gradient"):
                figures[f"{case}: {name} / ours"] = found["gradient"] / ours


def report(about, figures, tables, peers):
    """Markdown, and the limits missed or not measured."""
    lines = [", ".join(f"{name} {value}" for name, value in about.items()), "", "| figure | measured | wanted | |"]
    lines.append("|---|---|---|---|")
    missed = []
    for name, value in figures.items():
        limit, way = LIMITS.get(name, (None, ""))
        fine = limit is None or (value >= limit if way == "at least" else value <= limit)
        lines.append(f"| {name} | {value:.3g} | {f'{way} {limit:g}' if way else ''} | {'' if fine else 'MISSED'} |")
        missed += [] if fine else [name]
    for name in LIMITS:
        case, _, peer = name.removesuffix(" / ours").rpartition(": ")
        if name not in figures and (not case or peer in peers):
            missed.append(f"{name}: not measured")
    for case, table in tables.items():
        lines += ["", f"| {case} | gradient, ms | forward, ms | error | |", "|---|---|---|---|---|"]
        for name, found in table.items():
            times = (f"{1e3 * found[what]:.3g}" if what in found else "" for what in ("gradient", "forward"))
            error = f"{found['error']:.1e}" if "error" in found else ""
            lines.append(f"| {name} | {' | '.join(times)} | {error} | {found.get('skipped', '')} |")
            if found.get("error", 0.0) > TOLERANCE:
                missed.append(f"{case}: the gradient of {name} is wrong")
    return "\n".join(lines), missed


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--worker"]:
        return worker(argv[1], argv[2], int(argv[3]), argv[4])
    from validation.bench.card_peers import PEERS

    p = argparse.ArgumentParser(
        prog="adjoint-rd bench --backend cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--peers", default=",".join(PEERS), help="default: all of %(default)s; ours always runs")
    p.add_argument("--quick", action="store_true", help="fewer rounds and steps")
    p.add_argument("--json", type=Path, metavar="OUT", help="write everything measured")
    p.add_argument("--markdown", type=Path, metavar="OUT", help="write the report")
    options = p.parse_args(argv)
    peers = ["ours", *(name for name in options.peers.split(",") if name != "ours")]
    if unknown := [name for name in peers if name not in PEERS]:
        p.error(f"--peers {unknown[0]}: known are {', '.join(PEERS)}")
    from adjoint_rd import BackendError, cuda_device

    try:
        cuda_device.module()
    except BackendError as error:
        print(f"adjoint-rd bench: {error}", file=sys.stderr)
        return 2
    about, figures, tables, failed = card(), {}, {}, []
    try:
        measure(peers, options.quick, figures, tables, failed)
    finally:  # an interrupted run tells what it has
        text, missed = report(about, figures, tables, peers)
        text += "".join(f"\n\nfailed: {each}" for each in failed)
        print(text, flush=True)
        if options.json:
            found = {"about": about, "figures": figures, "tables": tables, "failed": failed}
            options.json.write_text(json.dumps(found, indent=1))
        if options.markdown:
            options.markdown.write_text(text + "\n")
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
