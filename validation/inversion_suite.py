"""Inversion of steady patterns: tables against the required figures, and whether they are met.

    python validation/inversion_suite.py [--quick] [--size 128] [--draws 5] [--parts 1,2,3,6] [--out inversion.json]

Parts: 1 clean snapshots (and random starts), 2 noise and 8 bits on steady patterns, 3 noise on patterns stopped at 5e-5, holes,
crops, subsampling, offset, gain, 6 refusals. Patterns: 8 presets and 4 random truths, developed once and kept in --cache.
The exit status is 1 if a figure fails. Run it with one BLAS thread on a shared machine; it sets this itself.
"""

# ruff: noqa: E402, E501, B007
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adjoint_rd as rd
from adjoint_rd import models, presets
from adjoint_rd.inverse import invert
from adjoint_rd.inversion import start

NAMES = ("Du", "Dv", "F", "k")
PRESETS = ("reference", "eta", "theta", "lambda", "mu", "well-spots", "well-worms", "rho")


def develop(size, cache, count):
    """[(name, params, snapshot at 5e-5, steady state, its rate)] of living patterns."""
    found = []
    rng = np.random.default_rng(777 + size)
    recipes = [(name, dict(presets.get(name).parameters), dict(presets.get(name).initial), 1) for name in PRESETS]
    while len(found) < count:
        if recipes:
            name, params, initial, seed = recipes.pop(0)
        else:
            Du = rng.uniform(0.12, 0.22)
            F = rng.uniform(0.028, 0.06)
            params = {"Du": Du, "Dv": Du * rng.uniform(0.42, 0.55), "F": F, "k": np.sqrt(F) / 2 - F + rng.uniform(-0.002, 0.006)}
            params = {key: float(value) for key, value in params.items()}
            name, initial, seed = f"random F={F:.4f}", {"kind": "square", "clip": (0.0, 1.0)}, int(rng.integers(1 << 30))
        path = cache / f"{size}-{name.replace(' ', '_')}.npz"
        if not path.exists():
            sim = rd.Simulation("gray_scott", rd.Grid((size, size)), dt=1.0, stability="off", threads=1)
            slow = sim.run_to_steady(sim.initial_state(**initial, rng=seed), params, tol=5e-5, max_steps=150_000)
            steady = sim.run_to_steady(slow.final, params, tol=1e-8, max_steps=200_000)
            np.savez(path, slow=slow.final, steady=steady.final, rates=[slow.rate, steady.rate])
        stored = np.load(path)
        if stored["slow"][1].std() > 0.02 and stored["rates"][0] < 2e-4:
            found.append((name, params, stored["slow"], stored["steady"], stored["rates"]))
    return found


def truth(params):
    return np.array([params[name] for name in NAMES])


def one(data, params, **options):
    """A row: success, relative errors, scores, relative standard errors, seconds."""
    begin = time.perf_counter()
    fit = invert(data, **options)
    seconds = time.perf_counter() - begin
    if not fit.success:
        return {"success": False, "message": fit.message, "seconds": seconds}
    p, q = truth(params), truth(fit.params)
    s = np.array([fit.stderr.get(name, np.nan) for name in NAMES])
    return {
        "success": True,
        "errors": (q / p - 1).tolist(),
        "scores": ((q - p) / s).tolist(),
        "stderr": (s / p).tolist(),
        "seconds": seconds,
        "combinations": {name: list(value) for name, value in fit.combinations.items()},
    }


def show(title, label, row):
    if row["success"]:
        errors = " ".join(f"{100 * e:8.4f}" for e in row["errors"])
        scores = " ".join(f"{z:5.1f}" for z in row["scores"])
        print(f"{title:10s} {label:28s} error % {errors}   z {scores}   {row['seconds']:6.1f} s", flush=True)
    else:
        print(f"{title:10s} {label:28s} refused: {row['message'][:90]}   {row['seconds']:6.1f} s", flush=True)


def summary(rows):
    """Share within 1 % or 3 standard errors, root mean square score, median error, slowest."""
    good = [row for row in rows if row["success"]]
    if not good:
        return {"runs": len(rows), "within": 0.0}
    e, z = (np.array([row[key] for row in good]) for key in ("errors", "scores"))
    inside = np.all((np.abs(e) <= 0.01) | (np.abs(z) <= 3.0), axis=1)
    return {
        "runs": len(rows),
        "refused": len(rows) - len(good),
        "within": float(inside.sum() / len(rows)),
        "within_3_errors": float(np.mean(np.all(np.abs(z) <= 3.0, axis=1)) * len(good) / len(rows)),
        "rms_score": np.sqrt(np.mean(z**2, axis=0)).tolist(),
        "median_error": float(np.median(np.max(np.abs(e), axis=1))),
        "slowest": float(max(row["seconds"] for row in rows)),
    }


def part_1(cases, quick):
    clean = [(name, one(slow[1], params)) for name, params, slow, _, _ in cases]
    for name, row in clean:
        show("clean", name, row)
    rng = np.random.default_rng(0)
    part = start.structure(models.get("gray_scott"), 1, {})
    starts, reached = (20 if quick else 200), 0
    for n in range(starts):
        _, params, slow, _, _ = cases[n % len(cases)]
        problem = start.Residual(models.get("gray_scott"), rd.Grid(slow[1].shape), slow[1], part, {})
        fit = problem.fit({"Du": 0.1 * 10 ** rng.uniform(-1, 1), "F": 0.03 * 10 ** rng.uniform(-1, 1)})
        reached += np.max(np.abs(truth(fit.params) / truth(params) - 1)) < 0.01
    print(f"random starts over two decades: {reached} of {starts} within 1 %")
    begin = time.perf_counter()
    reference = one(cases[0][2][1], cases[0][1])
    seconds = time.perf_counter() - begin
    figures = {
        "reference within 0.01 % (at 128x128)": reference["success"] and max(map(abs, reference["errors"])) <= 1e-4,
        "reference in 1 s": seconds <= 1.0,
        "all random starts": reached == starts,
    }
    return {"clean": clean, "starts": [int(reached), starts]}, figures


def noisy_rows(cases, draws, which, fraction, bits=False):
    rows = []
    for name, params, slow, steady, rates in cases:
        state = slow if which == "slow" else steady
        for draw in range(1 if bits else draws):
            v = state[1]
            if bits:
                v = np.round(255.0 * v) / 255.0
            else:
                v = v + fraction * v.max() * np.random.default_rng([draw, int(1e4 * fraction)]).standard_normal(v.shape)
            row = one(v, params)
            show(f"{which} {'8 bit' if bits else f'{100 * fraction:g} %'}", name, row)
            rows.append(row)
    return rows


def part_2(cases, quick, draws):
    settled = [case for case in cases if case[4][1] < 2e-6] or cases
    table = {
        "1 %": noisy_rows(settled, draws, "steady", 0.01),
        "8 bit": noisy_rows(settled, draws, "steady", 0.0, bits=True),
        "5 %": noisy_rows(settled, 1 if quick else draws, "steady", 0.05),
    }
    found = {key: summary(rows) for key, rows in table.items()}
    figures = {
        "1 %: 95 % within 1 % or 3 standard errors": found["1 %"]["within"] >= 0.95,
        "1 %: scores between 0.8 and 1.25": bool(np.all(np.abs(np.array(found["1 %"].get("rms_score", [9])) - 1.025) <= 0.225)),
        "8 bit: 95 % within 1 % or 3 standard errors": found["8 bit"]["within"] >= 0.95,
        "5 %: within 3 standard errors, median 1.5 %": found["5 %"].get("within_3_errors", 0) >= 0.95
        and found["5 %"]["median_error"] <= 0.015,
        "20 s": max(found[key].get("slowest", 99) for key in found) <= 20.0,
    }
    return {"summary": found, "rows": table}, figures


def part_3(cases, quick, draws):
    rows = noisy_rows(cases, draws, "slow", 0.01)
    found = {"slow 1 %": summary(rows)}
    figures = {
        "not steady, 1 %: 90 % within 1 % or 3 standard errors": found["slow 1 %"]["within"] >= 0.9,
        "not steady: scores between 0.8 and 1.25": bool(
            np.all(np.abs(np.array(found["slow 1 %"].get("rms_score", [9])) - 1.025) <= 0.225)
        ),
    }
    more = {}
    for name, params, _, steady, _ in cases[: 2 if quick else 4]:
        v = steady[1] + 1e-3 * steady[1].max() * np.random.default_rng(1).standard_normal(steady[1].shape)
        n = len(v)
        mask = np.ones(v.shape, dtype=bool)
        mask[n // 4 : n // 2, n // 3 : n // 3 + n // 4] = False
        ratio = params["Du"] / params["Dv"]
        trials = {
            "hole": (v, {"mask": mask}),
            "crop": (v[3:-3, 4:-2], {"boundary": "cropped"}),
            "every second": (v[::2, ::2], {"subsample": 2}),
            "offset": (v + 0.03, {"offset": True}),
            "gain, Du/Dv known": (v / v.max(), {"scale": None, "known": {"Du/Dv": ratio}}),
        }
        for label, (data, options) in trials.items():
            row = one(data, params, **options)
            show(label, name, row)
            more.setdefault(label, []).append(row)
        row = one(v / v.max(), params, scale=None)
        F, s = params["F"], params["F"] + params["k"]
        expected = {"Du/F": params["Du"] / F, "Dv/sqrt(F)": params["Dv"] / F**0.5, "(F+k)/sqrt(F)": s / F**0.5}
        off = {key: row["combinations"][key][0] / value - 1 for key, value in expected.items()} if row["success"] else {}
        print(f"gain       {name:28s} combinations, error %: {({k: round(100 * e, 4) for k, e in off.items()})}")
        more.setdefault("gain", []).append({**row, "off": off})
    for label, each in more.items():
        if label == "gain":
            figures["gain: combinations within 1 %"] = all(r["off"] and max(map(abs, r["off"].values())) < 0.01 for r in each)
        else:
            figures[f"{label}: within 1 %"] = all(r["success"] and max(map(abs, r["errors"])) < 0.01 for r in each)
    return {"summary": found, "rows": rows, "more": more}, figures


def part_6(size, quick):
    rng = np.random.default_rng(6)
    i, j = np.mgrid[:size, :size]
    images = {}
    for n in range(2 if quick else 20):
        m = int(rng.integers(3, size // 6))
        level, swing = rng.uniform(0.1, 0.4), rng.uniform(0.02, 0.15)
        wave = np.sin(2 * np.pi * (m * i + int(rng.integers(0, 3)) * j) / size)
        noise = rng.standard_normal((size, size))
        images[f"uniform {n}"] = np.full((size, size), level) + (0.01 * noise if n % 2 else 0.0)
        images[f"noise {n}"] = rng.random((size, size)) if n % 2 else noise
        images[f"stripes {n}"] = level + swing * wave
        images[f"stripes, noise {n}"] = level + swing * wave + 0.01 * swing * noise
        images[f"square stripes {n}"] = np.round(255 * (level + swing * np.tanh(4 * wave))) / 255
    params = {"Du": 0.5, "Dv": 20.0, "a": 0.1, "b": 0.9, "gamma": 1.0}
    sim = rd.Simulation("schnakenberg", rd.Grid((size, size)), dt=0.01, stability="off", threads=1)
    y = sim.run(sim.initial_state("noise", rng=1, params=params), params, steps=6000).final
    for name, field in zip("uv", y, strict=True):
        images[f"schnakenberg {name}"] = 0.35 * field / field.max()
        images[f"schnakenberg {name}, noise"] = 0.35 * field / field.max() + 0.003 * rng.standard_normal(field.shape)
    wrong = []
    for name, image in images.items():
        fit = invert(image)
        if fit.success:
            wrong.append(name)
        print(f"refusal    {name:28s} {'ACCEPTED ' + str(fit.params) if fit.success else fit.message[:100]}", flush=True)
    print(f"accepted: {len(wrong)} of {len(images)}")
    return {"accepted": wrong, "images": len(images)}, {"no wrong number presented as a success": not wrong}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="64x64, 4 patterns, one draw")
    parser.add_argument("--size", type=int)
    parser.add_argument("--patterns", type=int)
    parser.add_argument("--draws", type=int)
    parser.add_argument("--parts", default="1,2,3,6")
    parser.add_argument("--out", default="inversion_suite.json")
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "adjoint_rd_inversion_cases"))
    given = parser.parse_args()
    size = given.size or (64 if given.quick else 128)
    draws = given.draws or (1 if given.quick else 5)
    cache = Path(given.cache)
    cache.mkdir(parents=True, exist_ok=True)
    parts = given.parts.split(",")
    cases = develop(size, cache, given.patterns or (4 if given.quick else 12)) if set(parts) - {"6"} else []
    results, figures = {"size": size}, {}
    for part in parts:
        run = {
            "1": lambda: part_1(cases, given.quick),
            "2": lambda: part_2(cases, given.quick, draws),
            "3": lambda: part_3(cases, given.quick, draws),
            "6": lambda: part_6(size, given.quick),
        }[part]
        results[part], new = run()
        figures.update(new)
        if "summary" in results[part]:
            print(json.dumps(results[part]["summary"], indent=1))
    results["figures"] = {name: bool(met) for name, met in figures.items()}
    Path(given.out).write_text(json.dumps(results, indent=1), encoding="utf-8")
    print()
    for name, met in figures.items():
        print(f"{'met   ' if met else 'FAILED'}  {name}")
    return 0 if all(figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
