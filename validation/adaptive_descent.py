"""Descent with a learning rate 100 times too large, from 100 random starts with live patterns: what survives.

    python validation/adaptive_descent.py [--starts 100] [--seconds 200] [--out adaptive_descent.jsonl]

The training problem of examples/reference_experiment.py at 64x64 with full backpropagation through 600 steps: batches
of two fresh starts and two targets, radial log spectrum, against four patterns of the truth of the same age. (With its
warm-up the gradient at the reference start is zero, and every learning rate survives there.) Starts: Du in [0.12,
0.20], Dv/Du in [0.4, 0.6], F in [0.025, 0.055], k in [0.055, 0.066], uniform, kept if std v > 0.02 after the run.
Losses are judged on one fixed evaluation set of four members.

The learning rate, for gradient descent and for Adam each: the largest of 1e-7, 3e-7, 1e-6, ... such that with it and
all smaller ones down to a hundredth of it plain descent survives 12 iterations at the reference start, that is stays
finite and ends lower than it began; times 100. Momentum, Barzilai-Borwein and L-BFGS get that of gradient descent.

Abnormal: not finite, dt above the `certain` limit, or the run diverges. "alarms" counts ends at which, moreover, one of
the guards Multiplier and Range alarms.

Results are kept line by line in --out, so that a run that was cut off goes on; --seconds stops it in good order. Fails
unless `minimize` never returns a point that is not finite, never reports success at an abnormal one, and ends lower
than it began in >= 95 %, for each rule.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.optimize

import adjoint_rd as rd
from adjoint_rd import guards, matching, optimize, pattern_losses

TRUTH = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
REFERENCE = np.array([-2.0, -2.0, 0.0, 0.0])
TRANSFORM = dict(Du="softplus", Dv="softplus", F=("sigmoid", 0.1), k=("sigmoid", 0.1))
ABNORMAL = (rd.AdjointRDError, ArithmeticError)
ITERATIONS, STEPS = 12, 600
METHODS = (
    "rd.minimize, gd", "rd.minimize, momentum", "rd.minimize, adam", "rd.minimize, bb", "rd.minimize, lbfgs",
    "rd.minimize, gd, guards", "rd.minimize, adam, guards", "plain gd, 100 x", "plain gd, 1 x", "plain adam, 100 x",
    "plain adam, 1 x", "SciPy L-BFGS-B",
)  # fmt: skip


def problem():
    sim = rd.Simulation("gray_scott", rd.Grid((64, 64)), dt=1.0, threads=1)

    def start(rng):
        return sim.initial_state("square", rng=rng, size=20, clip=(0, 1))

    targets = matching.steady_targets(sim, TRUTH, start, 4, max_steps=STEPS)
    return rd.PatternMatching(
        sim, start, targets, lambda patterns: pattern_losses.LogSpectrum(patterns, radial=True), window=STEPS,
        warmup=0, batch=2, evaluation=4, free=tuple(TRUTH), transform=TRANSFORM,
    )  # fmt: skip


def draw(rng, problem):
    """A start in the box whose pattern lives."""
    y0 = problem.runs(REFERENCE)[0][1]
    while True:
        Du = rng.uniform(0.12, 0.20)
        params = dict(Du=Du, Dv=Du * rng.uniform(0.4, 0.6), F=rng.uniform(0.025, 0.055), k=rng.uniform(0.055, 0.066))
        try:
            y = problem.sim.run(y0, params, steps=STEPS).final
        except ABNORMAL:
            continue
        if y[1].std() > 0.02:
            return problem.pack(**params)


def plain(problem, rule, x, rate):
    """(last point, whether all values and points were finite) of a rule without any guard."""
    m, q = np.zeros(4), np.zeros(4)
    for n in range(ITERATIONS):
        problem.begin(n)
        try:
            value, gradient = problem(x)
        except ABNORMAL:
            return x, False
        step = gradient
        if rule == "adam":
            m, q = 0.9 * m + 0.1 * gradient, 0.999 * q + 0.001 * gradient**2
            step = (m / (1.0 - 0.9 ** (n + 1))) / (np.sqrt(q / (1.0 - 0.999 ** (n + 1))) + 1e-8)
        x = x - rate * step
        if not (np.isfinite(value) and np.isfinite(x).all()):
            return x, False
    return x, np.isfinite(problem.judge(x))


def survivable(problem, rule):
    """The learning rates of 1e-7, 3e-7, ... with which a rule survives at the reference start, and the largest."""
    rates = [a * 10.0**e for e in range(-7, 4) for a in (1, 3)]
    before = problem.judge(REFERENCE)
    ok = []
    for rate in rates:
        x, finite = plain(problem, rule, REFERENCE, rate)
        ok.append(bool(finite and problem.judge(x) < before))
    largest = max((rate for n, rate in enumerate(rates) if all(ok[max(0, n - 4) : n + 1])), default=rates[0])
    return [rate for rate, good in zip(rates, ok, strict=True) if good], largest


def scipys(problem, x0):
    """L-BFGS-B on one batch, abnormal trials as infinity."""
    problem.begin(0)

    def fun(x):
        try:
            return problem(x)
        except ABNORMAL:
            return np.inf, np.full(4, np.nan)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = scipy.optimize.minimize(fun, x0, jac=True, method="L-BFGS-B", options=dict(maxiter=ITERATIONS))
    return result.x, bool(result.success)


def descend(problem, method, x0, rates):
    """(end, success, refused trials, of these by a guard)."""
    if method == "SciPy L-BFGS-B":
        return (*scipys(problem, x0), 0, 0)
    if method.startswith("plain"):
        rule, factor = method.removeprefix("plain ").split(", ")
        x, _ = plain(problem, rule, x0, rates[rule] * (100.0 if factor == "100 x" else 1.0))
        return x, False, 0, 0
    rule, *guarded = method.removeprefix("rd.minimize, ").split(", ")
    result = optimize.minimize(
        problem, x0, method=rule, learning_rate=100.0 * rates.get(rule, rates["gd"]), stochastic=True,
        judge=problem.judge, judge_every=2, maxiter=ITERATIONS,
        guards=[guards.Limit(), guards.Multiplier(), guards.Range()] if guarded else None, guard_every=50,
    )  # fmt: skip
    refused = [trial.reason for trial in result.trials if not trial.accepted]
    return result.x, bool(result.success), len(refused), sum("guard: " in reason for reason in refused)


def one(problem, method, number, x0, rates):
    began = time.perf_counter()
    x, success, refused, by_guards = descend(problem, method, x0, rates)
    seconds = time.perf_counter() - began
    finite = bool(np.isfinite(x).all())
    after = problem.judge(x) if finite else np.inf
    row = dict(
        method=method, start=number, finite=finite, normal=bool(np.isfinite(after)), success=success, refused=refused,
        by_guards=by_guards, seconds=seconds, before=problem.judge(x0), after=after, alarm=None,
    )  # fmt: skip
    if row["normal"]:
        params = problem.unpack(x)
        row["error"] = max(abs(params[name] / TRUTH[name] - 1.0) for name in TRUTH)
        alarm = guards.first_alarm(problem.runs(x)[:1], [guards.Multiplier(), guards.Range()])
        row["alarm"] = None if alarm is None else str(alarm)
    return row


def rows_of(file):
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]


def table(rows, starts):
    """Print what is there; the methods that fail."""
    print(f"  {'method':26s} {'starts':>6} {'not finite':>10} {'abnormal':>8} {'success there':>13} {'alarms':>6} "
          f"{'lower':>6} {'median loss':>11} {'worst error, median':>19} {'refused':>8} {'by guards':>9} {'s':>5}")
    failed = []
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        if not mine:
            continue
        count = {key: sum(bool(test(row)) for row in mine) for key, test in {
            "not finite": lambda row: not row["finite"], "abnormal": lambda row: not row["normal"],
            "wrong": lambda row: row["success"] and not row["normal"], "alarms": lambda row: row["alarm"],
            "lower": lambda row: row["after"] < row["before"]}.items()}  # fmt: skip
        error = [row["error"] for row in mine if "error" in row]
        print(f"  {method:26s} {len(mine):6d} {count['not finite']:10d} {count['abnormal']:8d} {count['wrong']:13d} "
              f"{count['alarms']:6d} {count['lower']:6d} {np.median([row['after'] for row in mine]):11.4g} "
              f"{np.median(error) if error else np.nan:19.0%} {sum(row['refused'] for row in mine):8d} "
              f"{sum(row['by_guards'] for row in mine):9d} {sum(row['seconds'] for row in mine):5.0f}")
        short = count["not finite"] or count["abnormal"] or count["wrong"] or count["lower"] < 0.95 * len(mine)
        if method.startswith("rd.minimize") and (short or len(mine) < starts):
            failed.append(method)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--out", type=Path, default=Path("adaptive_descent.jsonl"))
    given = parser.parse_args()
    warnings.simplefilter("ignore", rd.StabilityWarning)
    began = time.monotonic()
    setting = problem()
    rows = rows_of(given.out)
    with given.out.open("a") as stream:

        def keep(row):
            rows.append(row)
            stream.write(json.dumps(row) + "\n")
            stream.flush()

        for rule in ("gd", "adam"):
            if not any(row["method"] == f"survival, {rule}" for row in rows):
                good, largest = survivable(setting, rule)
                keep(dict(method=f"survival, {rule}", rates=good, largest=largest))
        tried = {row["method"].removeprefix("survival, "): row for row in rows if "largest" in row}
        rates = {rule: row["largest"] for rule, row in tried.items()}
        for rule, row in tried.items():
            shown = ", ".join(f"{rate:g}" for rate in row["rates"])
            print(f"plain {rule} at the reference start survives at {shown}; taken: {row['largest']:g}, times 100")
        rng = np.random.default_rng(3)
        starts = [draw(rng, setting) for _ in range(given.starts)]
        done = {(row["method"], row.get("start")) for row in rows}
        for number, x0 in enumerate(starts):
            for method in given.methods:
                if (method, number) not in done and time.monotonic() - began < given.seconds:
                    keep(one(setting, method, number, x0, rates))
    truth = setting.judge(setting.pack(**TRUTH))
    losses = [setting.judge(x) for x in starts]
    print(f"{given.starts} starts, median loss {np.median(losses):.4g}, at the truth {truth:.4g}")
    failed = table(rows, given.starts)
    print("FAILED or not finished: " + ", ".join(failed) if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
