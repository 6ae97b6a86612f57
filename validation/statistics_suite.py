"""Parameters from statistics only: random truths and the reference experiment, beside its failure.

    python validation/statistics_suite.py [--cases 64:20 128:6] [--seed 20261125] [--seconds 220] [--out FILE]

A case is a truth from the region of the library, but not in it, its pattern from a random initial state of its own,
run in float64 to max |y_t| = 5e-5, and what `rd.invert_statistics` makes of it. Cases are appended to --out, one line
each, and those that are there are not repeated: run it again to continue. The table is printed, and the exit status is
1 if fewer than 90 % of the cases are within 5 % in all four parameters, or if the errors are not honest: the root mean
square of error / standard error of a parameter outside of 0.7 .. 1.3, or more than 5 % of the cases beyond 3.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adjoint_rd as rd
from adjoint_rd import models
from adjoint_rd.inversion import library
from adjoint_rd.inversion.statistics import invert_statistics
from adjoint_rd.inversion.texture import GROUPS

NAMES = ("Du", "Dv", "F", "k")
SETS = {"all": GROUPS, "spectrum+histogram": ("histogram", "spectrum")}
REFERENCE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


def pattern(params, size, seed, kind):
    """v at max |y_t| = 5e-5, or None."""
    sim = rd.Simulation("gray_scott", rd.Grid((size, size)), dt=1.0, stability="off", threads=1)
    options = {"fraction": float(np.random.default_rng(seed).uniform(0.1, 0.5))} if kind == "random" else {}
    y = sim.initial_state(kind, rng=seed, params=params, **options)
    y = sim.run(y, params, steps=3000).final
    found = sim.run_to_steady(y, params, tol=5e-5, max_steps=40_000)
    v = found.final[1]
    return v if v.std() > 0.02 and found.rate < 3e-4 else None


def truths(size, count, kept, seed):
    """[(label, params, v)]: the reference experiment first, from its square and from a random start; kept in a file."""
    if kept.exists():
        with np.load(kept) as stored:
            found = [
                (str(label), dict(zip(NAMES, p.tolist(), strict=True)), v)
                for label, p, v in zip(stored["labels"], stored["params"], stored["patterns"], strict=True)
            ]
        if len(found) >= count:
            return found[:count]
    found = draw(size, count, seed)
    labels, params, patterns = zip(*found, strict=True)
    np.savez(kept, labels=np.array(labels), params=[[p[n] for n in NAMES] for p in params], patterns=np.array(patterns))
    return found


def draw(size, count, seed):
    found = []
    for kind in ("square", "random"):
        v, start = None, seed % 1000
        while v is None:
            v, start = pattern(REFERENCE, size, start, kind), start + 1
        found.append((f"{size} reference, {kind} start", REFERENCE, v))
    rng = np.random.default_rng(seed + size)
    where = library.region(models.get("gray_scott"), None)
    while len(found) < count:
        params = dict(zip(NAMES, where.point(rng.uniform(0.05, 0.95, 4)).tolist(), strict=True))
        v = pattern(params, size, int(rng.integers(1 << 30)), "random")
        if v is not None:
            found.append((f"{size} random {len(found)}", params, v))
    return found[:count]


def one(params, v, path, groups):
    begin = time.process_time()
    fit = invert_statistics(v, library=path, statistics=groups)
    row = {"success": fit.success, "message": fit.message, "seconds": time.process_time() - begin, "truth": params}
    stages = [(s["stage"], (np.exp(s["log_params"]) / [params[n] for n in NAMES] - 1).tolist()) for s in fit.stages]
    row |= {"stages": stages, "strange": [s.get("strange") for s in fit.stages]}
    if fit.success:
        p, q = (np.array([x[name] for name in NAMES]) for x in (params, fit.params))
        s = np.array([fit.stderr[name] for name in NAMES])
        row |= {"errors": (q / p - 1).tolist(), "scores": ((q - p) / s).tolist(), "stderr": (s / p).tolist()}
    return row


def show(label, row):
    if not row["success"]:
        print(f"{label:50s} refused: {row['message'][:80]}", flush=True)
        return
    errors = " ".join(f"{100 * e:7.2f}" for e in row["errors"])
    scores = " ".join(f"{z:5.1f}" for z in row["scores"])
    print(f"{label:50s} error % {errors}   z {scores}   {row['seconds']:5.0f} s", flush=True)


def summary(rows):
    good = [row for row in rows if row["success"]]
    e, z, s = (np.abs([row[key] for row in good]) for key in ("errors", "scores", "stderr"))
    return {
        "cases": len(rows),
        "refused": len(rows) - len(good),
        "within 5 %": float(np.sum(e.max(axis=1) <= 0.05) / len(rows)),
        "within 1 %": float(np.sum(e.max(axis=1) <= 0.01) / len(rows)),
        "median error %": (100 * np.median(e, axis=0)).round(2).tolist(),
        "median standard error %": (100 * np.median(s, axis=0)).round(2).tolist(),
        "rms z": np.sqrt(np.mean(z**2, axis=0)).round(2).tolist(),
        "beyond 3": float(np.mean(z.max(axis=1) > 3)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=["64:20", "128:6"], metavar="SIZE:COUNT")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seed", type=int, default=20261125, help="of the truths")
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--library", default="statistics_library.npz")
    parser.add_argument("--out", default="statistics.jsonl")
    options = parser.parse_args()
    out, begin = Path(options.out), time.perf_counter()
    done = {}
    if out.exists():
        done = {(row["label"], row["set"]): row for row in map(json.loads, out.read_text().splitlines())}
    for size, count in (map(int, each.split(":")) for each in options.cases):
        for label, params, v in truths(size, count, out.with_suffix(f".{size}.npz"), options.seed):
            for name in options.sets:
                if (label, name) in done or time.perf_counter() - begin > options.seconds:
                    continue
                row = {"label": label, "set": name, **one(params, v, options.library, SETS[name])}
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                done[label, name] = row
                show(f"{label}, {name}", row)
    passed = True
    for size in sorted({label.split()[0] for label, _ in done}, key=int):
        for name in SETS:
            rows = [row for (label, each), row in done.items() if label.split()[0] == size and each == name]
            if any(row["success"] for row in rows):
                figures = summary(rows)
                print(f"{size} x {size}, {name}: {json.dumps(figures)}")
                honest = all(0.7 <= r <= 1.3 for r in figures["rms z"]) and figures["beyond 3"] <= 0.05
                passed &= name != "all" or (figures["within 5 %"] >= 0.9 and honest)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
