"""Does physics written once cost speed? The library against a Gray-Scott step and adjoint step fused by hand, on one
core.

    python validation/model_once_overhead.py [--sizes 256,512] [--dtype float64] [--rounds 21] [--limit 1.10]

Both run in this process and take turns, 200 steps a call, the library through its public API (`Simulation.run`, and
`Simulation.gradient` with every state stored, as the hand-written one does). `reverse` is gradient minus forward of
the same
turn: loss, seed and calling overhead count against the adjoint step. Ends with 1 if the median of the ratios of turns
is above the limit for forward or gradient, or if the two disagree on the gradient; 2 if the library does not import.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import median

for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from validation.bench import peers  # noqa: E402
from validation.bench.harness import TOLERANCE, cores, error_of  # noqa: E402
from validation.bench.problem import PARAMS, Problem  # noqa: E402

STEPS = 200
TURN = 0.1  # seconds of calls in a turn, at least


def seconds(call, reps):
    """Median time of a call among `reps`, after one that is not timed."""
    call()
    times = []
    for _ in range(reps):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def repetitions(call):
    call()
    start = time.perf_counter()
    call()
    return max(3, min(50, round(TURN / (time.perf_counter() - start))))


def compare(n, dtype, rounds):
    """{what: (hand ns, library ns, median ratio, least, most)} per cell and step, and the largest relative gradient
    error."""
    p = Problem(n, STEPS, dtype)
    cases = []
    for name, variant in (("numba_hand", ""), ("ours", "all")):
        cases.append(peers.load(name).prepare(n, dtype, STEPS, p.initial(), PARAMS, 1, variant=variant))
    hand, ours = (
        {"value": value, "initial": initial, **params} for value, params, initial in (c.gradient() for c in cases)
    )
    error = error_of(ours, {name: np.asarray(x, "float64") for name, x in hand.items()})
    calls = {what: [getattr(case, what) for case in cases] for what in ("forward", "gradient")}
    reps = {what: repetitions(pair[0]) for what, pair in calls.items()}
    turns = {what: [] for what in (*calls, "reverse")}
    for r in range(rounds):
        for what, pair in calls.items():
            order = (0, 1) if r % 2 == 0 else (1, 0)
            times = {i: seconds(pair[i], reps[what]) for i in order}
            turns[what].append((times[0], times[1]))
        forward, gradient = turns["forward"][-1], turns["gradient"][-1]
        turns["reverse"].append(tuple(g - f for g, f in zip(gradient, forward, strict=True)))
    scale = 1e9 / (n * n * STEPS)
    table = {}
    for what, pairs in turns.items():
        ratios = [ours / hand for hand, ours in pairs]
        hand, ours = (median(column) * scale for column in zip(*pairs, strict=True))
        table[what] = (hand, ours, median(ratios), min(ratios), max(ratios))
    return table, error


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", default="256,512")
    p.add_argument("--dtype", default="float64", choices=sorted(TOLERANCE))
    p.add_argument("--rounds", type=int, default=21)
    p.add_argument("--limit", type=float, default=1.10, help="most that the ratio may be (default %(default)s)")
    options = p.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores(1))
    print(
        f"{'':22}{'hand':>9}{'library':>9}{'ratio':>8}  (least-most)   ns per cell and step, {options.dtype}, "
        f"{STEPS} steps"
    )
    failed = []
    for n in (int(x) for x in options.sizes.split(",")):
        try:
            table, error = compare(n, options.dtype, options.rounds)
        except peers.Unavailable as missing:
            print(f"not run: {missing}", file=sys.stderr)
            return 2
        for what, (hand, ours, ratio, least, most) in table.items():
            bad = what != "reverse" and ratio > options.limit
            failed += [f"{what} at {n}^2 costs {ratio:.3f} x the hand-written one (allowed {options.limit:g})"] * bad
            mark = "   ABOVE" * bad
            print(
                f"{n:>5} x {n:<5} {what:<9}{hand:9.3f}{ours:9.3f}{ratio:8.3f}  ({least:.2f}-{most:.2f}){mark}",
                flush=True,
            )
        if not error <= TOLERANCE[options.dtype]:
            failed.append(f"gradients at {n}^2 differ by {error:.1e} relative (allowed {TOLERANCE[options.dtype]:.0e})")
    print("\n".join(f"FAILED: {text}" for text in failed) or f"passed: at most {options.limit:g} x hand-written code")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
