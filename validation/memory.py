"""Peak memory of gradients, against what is predicted; time against keeping every state. Issue 4, "must show" 4.

Each case runs in a process of its own. Peak memory is that of the process (VmHWM) less what it was after a first small
gradient, that is after import and compilation.

    python validation/memory.py [--long]       --long: also 10^5 steps at 512 x 512 (about half an hour on one core)

Exits 1 if a peak is more than 15 % from its prediction, or above the limit.
"""

import argparse
import json
import subprocess
import sys
import time

MB = 1e6


def peak_bytes():
    """The largest resident size so far."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measure(n, steps, checkpoints, repeats):
    """Run in the child: {seconds, peak, predicted, value}."""
    import numpy as np

    import adjoint_rd as rd

    params = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
    small = rd.Simulation("gray_scott", rd.Grid((16, 16)), dt=1.0, threads=1)
    y0 = small.initial_state("square", rng=0)
    small.gradient(y0, params, rd.losses.L2(0 * y0), steps=20, checkpoints=2)
    sim = rd.Simulation("gray_scott", rd.Grid((n, n)), dt=1.0, threads=1)
    before = peak_bytes()
    y0 = sim.initial_state("squares", rng=0)
    loss = rd.losses.L2(np.broadcast_to(0.0, (1, n, n)), species=[1])
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = sim.gradient(y0, params, loss, steps=steps, checkpoints=checkpoints)
        seconds.append(time.perf_counter() - start)
    predicted = sim.predicted_bytes(steps, checkpoints=checkpoints)
    return dict(seconds=min(seconds), peak=peak_bytes() - before, predicted=predicted, value=found.value)


def in_child(*case):
    run = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps(case)], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def main():
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="also 10^5 steps at 512 x 512")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*json.loads(options.case))))
        return 0
    failed = False
    # grid, steps, checkpoints, repeats, limit in bytes
    cases = [(512, 2000, "all", 2, None), (512, 2000, "auto", 2, 400e6), (512, 2000, "disk", 2, 400e6)]
    if options.long:
        cases += [(512, 100_000, "auto", 1, 3e9), (512, 100_000, 112, 1, 1e9)]
    print(f"{'grid':>6}{'steps':>8}{'checkpoints':>13}{'peak MB':>10}{'predicted':>11}{'ratio':>7}{'s':>9}{'/ all':>7}")
    store_all = {}
    for n, steps, checkpoints, repeats, limit in cases:
        found = in_child(n, steps, checkpoints, repeats)
        if checkpoints == "all":
            store_all[steps] = found
        against = found["seconds"] / store_all[steps]["seconds"] if steps in store_all else float("nan")
        ratio = found["peak"] / found["predicted"]
        wrong = not 0.85 <= ratio <= 1.15 or (limit is not None and found["peak"] > limit)
        wrong |= steps in store_all and found["value"] != store_all[steps]["value"]
        failed |= wrong
        print(
            f"{n:>6}{steps:>8}{checkpoints!s:>13}{found['peak'] / MB:>10.0f}{found['predicted'] / MB:>11.0f}"
            f"{ratio:>7.2f}{found['seconds']:>9.2f}{against:>7.2f}{'   WRONG' if wrong else ''}",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
