"""Long runs: a fit again and again for half an hour with flat memory, and a run of a million steps.

    python validation/soak.py [--minutes 30] [--steps 1000000]

fits      Fits by `adjoint_rd.minimize` (all methods in turn, checkpoint files, Hessian products, disk checkpoints, a
          run saved and loaded) for so many minutes. Memory (resident set) must not grow: the least-squares slope over
          the second half may be at most 1 MB an hour more than three standard errors, and open files and threads must
          be as many as after the first 60 fits.
long run  A run of so many steps in one call, and the same in a hundred pieces with each piece saved to disk and loaded:
          equal to the last bit, no NaN, memory flat.

Prints a line a minute, the memory at the start (after the first 60 fits) and at the end, PASSED or FAILED for each
part, and exits with 1 if a figure is missed.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
import warnings
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import adjoint_rd as rd
from adjoint_rd.optimize import METHODS

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
MOST_MB_PER_HOUR = 1.0
MOST_GROWTH_MB = 5.0  # of the long run
PIECES = 100


def resident_mb():
    """Memory of this process that is in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files():
    return len(os.listdir("/proc/self/fd"))


def one_round(number, folder):
    """A fit and what goes with it; the value that it reached."""
    shape = [(32, 32), (48, 24), (300,), (8, 9, 10)][number % 4]
    sim = rd.Simulation("gray_scott", rd.Grid(shape), dt=1.0, threads=1 + number % 2)
    y0 = sim.initial_state("square", rng=number)
    run = sim.run(y0, PARAMS, steps=30, save_every=10)
    run.save(folder / "run.npz")
    target = rd.load(folder / "run.npz").final
    checkpoints = ("auto", "disk", 3)[number % 3]
    obj = rd.Objective(sim, y0, rd.losses.L2(target), steps=30, free=("Du", "Dv", "F", "k"), checkpoints=checkpoints)
    x0 = obj.pack(Du=0.14, Dv=0.07, F=0.04, k=0.06)
    method = METHODS[number % len(METHODS)]
    found = rd.minimize(obj, x0, method=method, maxiter=25, checkpoint=folder / "fit.npz", checkpoint_every=5)
    obj.hessp(found.x, x0)
    if not found.fun < obj(x0):
        raise SystemExit(f"round {number}: {method} did not descend: {found.message}")
    return found.fun


def fits(minutes):
    """MB an hour, its standard error, rounds, MB at the start and the end, whether files and threads stayed as many."""
    with tempfile.TemporaryDirectory() as name:
        folder, began, said, times, sizes, number = Path(name), time.monotonic(), 0.0, [], [], 0
        while number < 60 or time.monotonic() - began < 60.0 * minutes:
            one_round(number, folder)
            number += 1
            if number == 60:  # every combination has been there
                files, threads = open_files(), threading.active_count()
            times.append((time.monotonic() - began) / 3600.0)
            sizes.append(resident_mb())
            if times[-1] - said > 1 / 60:
                said = times[-1]
                print(f"  {60 * said:6.1f} min  {number} fits, {sizes[-1]:.1f} MB", flush=True)
        kept = (open_files(), threading.active_count()) == (files, threads)
    half = len(times) // 2
    t, m = np.array(times[half:]), np.array(sizes[half:])
    design = np.stack([t - t.mean(), np.ones_like(t)], axis=1)
    (slope, _), residual, *_ = np.linalg.lstsq(design, m, rcond=None)
    scatter = float(residual[0]) / max(len(t) - 2, 1) if residual.size else 0.0
    error = np.sqrt(scatter / float(np.sum((t - t.mean()) ** 2)))
    return float(slope), float(error), number, (sizes[59], sizes[-1]), kept


def long_run(steps):
    """(whether one call and pieces through files agree, MB at the start and the end, seconds)."""
    sim = rd.Simulation("gray_scott", rd.Grid((32, 32)), dt=1.0)
    y0 = sim.initial_state("square", rng=0)
    sim.run(y0, PARAMS, steps=1000)
    before, began = resident_mb(), time.perf_counter()
    whole = sim.run(y0, PARAMS, steps=steps).final
    with tempfile.TemporaryDirectory() as name:
        state, path = y0, Path(name) / "piece.npz"
        ends = np.linspace(0, steps, PIECES + 1).astype(int)
        for first, last in pairwise(ends):
            sim.run(state, PARAMS, steps=int(last - first)).save(path)
            state = rd.load(path).final
    equal = bool(np.isfinite(whole).all()) and np.array_equal(whole, state)
    return equal, (before, resident_mb()), time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of fits (default 30)")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the long run (default 1000000)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rd.StabilityWarning)
    equal, (start, end), seconds = long_run(options.steps)
    long_good = equal and end - start < MOST_GROWTH_MB
    same = "equal" if equal else "NOT EQUAL"
    print(
        f"long run: {options.steps} steps, {same} in one call and in {PIECES} saved pieces; "
        f"memory {start:.1f} MB at the start, {end:.1f} MB at the end; {seconds:.0f} s: {verdict(long_good)}",
        flush=True,
    )
    slope, error, rounds, (start, end), kept = fits(options.minutes)
    fits_good = kept and slope <= MOST_MB_PER_HOUR + 3.0 * error
    print(
        f"fits: {rounds} in {options.minutes:g} min; memory {start:.1f} MB after 60 fits, {end:.1f} MB at the end, "
        f"{slope:+.2f} +- {error:.2f} MB an hour in the second half; "
        f"files and threads {'as many as before' if kept else 'MORE THAN BEFORE'}: {verdict(fits_good)}"
    )
    return 0 if long_good and fits_good else 1


def verdict(good):
    return "PASSED" if good else "FAILED"


if __name__ == "__main__":
    sys.exit(main())
