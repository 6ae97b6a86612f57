"""Ratios of our own timings, each taken in one run: gradient over forward, threads, batches, start-up, linearity.

    python validation/speed.py [ratio threads batch startup linear]        (all by default)

Timings are medians of interleaved rounds. The limits are those of issue 4; exits 1 if one is missed.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import adjoint_rd as rd

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
MISSED = []


def report(name, value, limit, at_most=True):
    """Print one line, and remember it if the limit is missed."""
    fine = value <= limit if at_most else value >= limit
    print(
        f"  {name:<52}{value:9.3f}   {'<=' if at_most else '>='} {limit:g}   {'ok' if fine else 'MISSED'}", flush=True
    )
    if not fine:
        MISSED.append(name)


def rounds(functions, count=9):
    """{name: seconds of each round}, the functions taking turns after one warm-up each."""
    for function in functions.values():
        function()
    seconds = {name: [] for name in functions}
    for _ in range(count):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio_of(seconds, one, other):
    """The median over rounds of one / other."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def setting(shape, dtype="float64", threads=1):
    sim = rd.Simulation("gray_scott", rd.Grid(shape), dt=0.9, dtype=dtype, threads=threads, stability="off")
    y0 = sim.initial_state("squares", rng=0, count=max(3, int(np.prod(shape)) // 2000))
    return sim, y0, rd.losses.L2(np.zeros(y0.shape))


def ratio():
    """Gradient (all parameters and the initial state, every state kept) over a forward run of the same steps."""
    print("gradient / forward run, one thread")
    for dtype in ("float64", "float32"):
        for shape, steps in (
            ((128, 128), 400),
            ((512, 512), 40),
            ((1024, 1024), 10),
            ((64, 64, 64), 20),
            ((65536,), 100),
        ):
            sim, y0, loss = setting(shape, dtype)
            seconds = rounds(
                {
                    "forward": lambda: sim.run(y0, PARAMS, steps=steps),
                    "gradient": lambda: sim.gradient(y0, PARAMS, loss, steps=steps, checkpoints="all"),
                }
            )
            report(f"{dtype} {'x'.join(map(str, shape))}", ratio_of(seconds, "gradient", "forward"), 3.5)


def threads():
    """Two threads over one."""
    print("two threads / one, speed-up of a gradient")
    for n, steps, limit in ((256, 200, 1.7), (512, 60, 1.7), (1024, 20, None)):
        one, two = setting((n, n), threads=1), setting((n, n), threads=2)
        a, b, c = (np.zeros(8_000_000) for _ in range(3))
        functions = {
            "one": lambda: one[0].gradient(one[1], PARAMS, one[2], steps=steps, checkpoints="all"),
            "two": lambda: two[0].gradient(two[1], PARAMS, two[2], steps=steps, checkpoints="all"),
        }
        if limit is None:
            functions["triad one"] = lambda: _triad(a, b, c, 1)
            functions["triad two"] = lambda: _triad(a, b, c, 2)
        seconds = rounds(functions)
        if limit is None:
            limit = 0.85 * ratio_of(seconds, "triad one", "triad two")
        report(f"{n}x{n}", ratio_of(seconds, "one", "two"), limit, at_most=False)


def _triad(a, b, c, count):
    from concurrent.futures import ThreadPoolExecutor

    def part(k):
        where = slice(len(a) * k // count, len(a) * (k + 1) // count)
        np.multiply(c[where], 3.0, out=a[where])
        np.add(a[where], b[where], out=a[where])

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(part, range(count)))


def batch():
    """Cost of a member in a batch of 32, against one alone; one thread."""
    print("batch of 32 at 128x128, per member / one alone, one thread")
    for dtype in ("float64", "float32"):
        sim, y0, loss = setting((128, 128), dtype)
        states = np.stack([np.roll(y0, n, axis=1) for n in range(32)])
        seconds = rounds(
            {
                "one": lambda: [sim.gradient(y, PARAMS, loss, steps=100, checkpoints="all") for y in states],
                "batch": lambda: sim.gradient(states, PARAMS, loss, steps=100, checkpoints="all"),
            },
            5,
        )
        report(dtype, ratio_of(seconds, "batch", "one"), 1.1)


START = """
import time; start = time.perf_counter()
import adjoint_rd as rd, numpy as np
sim = rd.Simulation("gray_scott", rd.Grid((64, 64)), dt=0.9)
y0 = sim.initial_state("square", rng=0)
sim.gradient(y0, dict(Du=0.16, Dv=0.08, F=0.035, k=0.065), rd.losses.L2(0 * y0), steps=10)
print(time.perf_counter() - start)
"""


def startup():
    """From `import adjoint_rd` to the first gradient, and the overhead of a call."""
    print("seconds from import to the first gradient")
    cold, warm = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            for found in (cold, warm, warm):
                run = subprocess.run(
                    [sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=True
                )
                found.append(float(run.stdout))
    report("cold cache", statistics.median(cold), 6.0)
    report("warm cache", statistics.median(warm), 1.0)
    print("microseconds of value_and_grad, 8x8, 1 step")
    _, y0, loss = setting((8, 8))
    sim = rd.Simulation("gray_scott", rd.Grid((8, 8)), dt=0.9)  # with its checks
    obj = rd.Objective(sim, y0, loss, steps=1, free=("Du", "Dv", "F", "k"))
    x = obj.pack(Du=0.14, Dv=0.07, F=0.04, k=0.06)
    found = []
    for n in range(3000):
        at = x + 1e-7 * n
        start = time.perf_counter()
        obj.value_and_grad(at)
        found.append(1e6 * (time.perf_counter() - start))
    report("median of 3000", statistics.median(found), 100)


def linear():
    """Time per cell and step over grid size, and over steps."""
    print("nanoseconds per cell and step of a gradient, largest / smallest")
    costs = {}
    for n in (256, 512, 1024, 2048):
        sim, y0, loss = setting((n, n))
        steps = max(40, 20_000_000 // n**2)  # enough that what a call costs once does not count
        seconds = rounds({"gradient": lambda: sim.gradient(y0, PARAMS, loss, steps=steps, checkpoints="all")}, 5)
        costs[n] = statistics.median(seconds["gradient"]) / n**2 / steps * 1e9
    print("   ", ", ".join(f"{n}: {cost:.2f}" for n, cost in costs.items()))
    report("256x256 to 2048x2048, every state kept", max(costs.values()) / min(costs.values()), 1.5)
    sim, y0, loss = setting((256, 256))
    costs = {}
    for steps in (100, 1000, 10_000, 100_000):
        count = min(steps, max(int(0.9 * steps**0.5), 1))
        seconds = rounds(
            {"gradient": lambda: sim.gradient(y0, PARAMS, loss, steps=steps, checkpoints=count)},
            {100: 9, 1000: 5, 10_000: 2, 100_000: 1}[steps],
        )
        costs[steps] = statistics.median(seconds["gradient"]) / 256**2 / steps * 1e9
    print("   ", ", ".join(f"{steps}: {cost:.2f}" for steps, cost in costs.items()))
    report("100 to 100 000 steps at 256x256, checkpointed", max(costs.values()) / min(costs.values()), 1.5)


PARTS = dict(ratio=ratio, threads=threads, batch=batch, startup=startup, linear=linear)

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    for name in chosen:
        PARTS[name]()
    print(f"missed: {', '.join(MISSED)}" if MISSED else "all within their limits")
    sys.exit(bool(MISSED))
