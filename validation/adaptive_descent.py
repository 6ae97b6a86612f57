"""Descent with a learning rate 100 times too large, from 100 random starts with live patterns: what survives.

    python validation/adaptive_descent.py [--starts 100]

The training problem of examples/reference_experiment.py at 64x64: batches of two fresh starts, 900 steps of warm-up, a
window of 600, radial log spectrum, against four patterns of the truth of the same age. Starts: Du in [0.12, 0.20],
Dv/Du in [0.4, 0.6], F in [0.025, 0.055], k in [0.055, 0.066], uniform, kept if std v > 0.02 after the warm-up. The
learning rate: the largest of 1e-7, 3e-7, 1e-6, ... at which plain descent survives 20 iterations at the reference
start, times 100. Losses are judged on one fixed evaluation set. Fails unless `minimize` never returns a point that is
not finite, never reports success at an abnormal one, and ends lower than it began in >= 95 %, for each rule shown.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.optimize

import adjoint_rd as rd
from adjoint_rd import optimize

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import reference_experiment as reference

SIZE = reference.Size((64, 64), 4, 1_500, 900, 1e-5, 600, 2, 20, 0)
ABNORMAL = (rd.AdjointRDError, ArithmeticError)


def draw(rng, matching):
    """A start in the box whose pattern lives."""
    while True:
        Du = rng.uniform(0.12, 0.20)
        params = dict(Du=Du, Dv=Du * rng.uniform(0.4, 0.6), F=rng.uniform(0.025, 0.055), k=rng.uniform(0.055, 0.066))
        try:
            y = matching._warm(matching.start, params)
        except ABNORMAL:
            continue
        if y[1].std() > 0.02:
            return matching.pack(params)


def plain(matching, x, rate, iterations):
    """(last point, whether it got through) of gradient descent without any guard."""
    for n in range(iterations):
        matching.begin(n)
        try:
            value, gradient = matching(x)
        except ABNORMAL:
            return x, False
        x = x - rate * gradient
        if not (np.isfinite(value) and np.isfinite(x).all()):
            return x, False
    return x, np.isfinite(matching.judge(x))


def scipys(matching, x0, iterations):
    """L-BFGS-B on one batch, abnormal trials as infinity."""
    matching.begin(0)

    def fun(x):
        try:
            return matching(x)
        except ABNORMAL:
            return np.inf, np.full(4, np.nan)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = scipy.optimize.minimize(fun, x0, jac=True, method="L-BFGS-B", options=dict(maxiter=iterations))
    return result.x, bool(result.success)


def normal(matching, x):
    """Whether a run at x is stable and finite."""
    return bool(np.isfinite(x).all() and np.isfinite(matching.judge(x)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--rules", nargs="*", default=["gd", "adam", "lbfgs"])
    given = parser.parse_args()
    warnings.simplefilter("ignore", rd.StabilityWarning)
    started = time.time()
    sim = rd.Simulation("gray_scott", rd.Grid(SIZE.shape), dt=1.0, threads=1)
    grown = [
        sim.run(reference.start(sim, 1000 + n), reference.TRUTH, steps=SIZE.target_steps) for n in range(SIZE.targets)
    ]
    targets = np.array([run.final for run in grown])
    matching = reference.Matching(sim, targets, "log spectrum", SIZE)
    rates = [a * 10.0**e for e in range(-7, 1) for a in (1, 3)]
    survived = [rate for rate in rates if plain(matching, reference.START, rate, given.iterations)[1]]
    print("plain descent at the reference start survives at", ", ".join(f"{rate:g}" for rate in survived))
    rate = 100.0 * max(survived, default=rates[0])
    rng = np.random.default_rng(3)
    starts = [draw(rng, matching) for _ in range(given.starts)]
    before = np.array([matching.judge(x) for x in starts])
    print(f"learning rate {rate:g}; {given.starts} starts, median loss {np.median(before):.4g}, at the truth "
          f"{matching.judge(matching.pack(reference.TRUTH)):.4g}; {time.time() - started:.0f} s")  # fmt: skip
    print(f"  {'method':24s} {'not finite':>10} {'abnormal':>8} {'success there':>13} {'lower':>9} {'median loss':>11} "
          f"{'worst error, median':>19} {'refused trials':>14} {'s':>5}")  # fmt: skip
    failed = []

    def report(label, ends, seconds, refused, must):
        points = [x for x, _ in ends]
        finite = np.array([np.isfinite(x).all() for x in points])
        fine = np.array([normal(matching, x) if ok else False for x, ok in zip(points, finite, strict=True)])
        wrong = sum(success and not ok for (_, success), ok in zip(ends, fine, strict=True))
        after = np.array([matching.judge(x) if ok else np.inf for x, ok in zip(points, fine, strict=True)])
        lower = int(np.sum(after < before))
        error = [reference.error(matching.unpack(x)) for x, ok in zip(points, fine, strict=True) if ok]
        print(f"  {label:24s} {np.sum(~finite):10d} {np.sum(~fine):8d} {wrong:13d} {lower:5d}/{len(ends)} "
              f"{np.median(after):11.4g} {np.median(error) if error else np.nan:18.0%}  {refused:14d} {seconds:5.0f}",
              flush=True)  # fmt: skip
        if must and (not fine.all() or wrong or lower < 0.95 * len(ends)):
            failed.append(label)

    for rule in given.rules:
        clock, ends, refused = time.time(), [], 0
        for x0 in starts:
            result = optimize.minimize(
                matching, x0, method=rule, learning_rate=rate, stochastic=True, judge=matching.judge, judge_every=2,
                maxiter=given.iterations,
            )  # fmt: skip
            refused += sum(not trial.accepted for trial in result.trials)
            ends.append((result.x, result.success))
        report(f"rd.minimize, {rule}", ends, time.time() - clock, refused, True)
    for factor in (100.0, 1.0):
        clock = time.time()
        ends = [plain(matching, x0, rate * factor / 100.0, given.iterations) for x0 in starts]
        report(f"plain descent, {rate * factor / 100.0:g}", ends, time.time() - clock, 0, False)
    clock = time.time()
    ends = [scipys(matching, x0, given.iterations) for x0 in starts]
    report("SciPy L-BFGS-B", ends, time.time() - clock, 0, False)
    print(f"{time.time() - started:.0f} s;", "FAILED: " + ", ".join(failed) if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
