"""Inversion of moving patterns: 41 frames of v, 10 steps apart, with noise of 1 % of the largest v.

    python validation/movie_suite.py [--sizes 64,128] [--states 2] [--draws 5] [--case gamma] [--step own] [--out
    movies.jsonl]

Classes alpha, beta, gamma, epsilon, zeta; for each a number of states (seeds of the initial state, run to 3000 steps)
and for each state a number of draws of the noise. One JSON line a run is appended to --out; runs that are there
already are not repeated, so that the suite can be stopped and resumed. Then the summary over all lines: the share of
runs with every parameter within 1 %, and the root mean square of error / standard error. The exit status is 1 if fewer
than 90 % are within 1 % or, with at least 60 runs, a root mean square is outside 0.8 .. 1.25.

--step own gives `invert` the time step of the run that made the frames; --step found leaves it to `invert`.
--refusals adds frames that are no movie of the model: none may succeed.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adjoint_rd as rd
from adjoint_rd import presets

NAMES = ("Du", "Dv", "F", "k")
CLASSES = ("alpha", "beta", "gamma", "epsilon", "zeta")
FRAMES, EVERY, NOISE, DEVELOP = 41, 10, 0.01, 3000
STEP = {"own": {"dt": 1.0, "scheme": "euler"}, "found": {}}


def frames_of(name, size, seed, cache):
    """(params, states (FRAMES, 2, size, size)) of a class, kept in `cache`; the next seed if the pattern dies."""
    path = cache / f"{name}-{size}-{seed}.npy"
    preset = presets.get(name)
    if not path.exists():
        sim = rd.Simulation("gray_scott", rd.Grid((size, size)), dt=1.0, stability="off", threads=1)
        for attempt in range(10):
            first = sim.initial_state(**preset.initial, rng=seed + 1000 * attempt)
            first = sim.run(first, preset.parameters, steps=DEVELOP).final
            states = sim.run(first, preset.parameters, steps=EVERY * (FRAMES - 1), save_every=EVERY).states
            if min(states[0, 1].std(), states[-1, 1].std()) > 0.02:
                break
        np.save(path, states)
    return preset.parameters, np.load(path)


def one(v, params, times, options):
    begin, busy = time.perf_counter(), time.process_time()
    fit = rd.invert(v, times=times, **options)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    row = {"success": fit.success, "message": fit.message, "seconds": seconds, "processor": busy}
    if fit.success and params is not None:
        truth, found = (np.array([p[name] for name in NAMES]) for p in (params, fit.params))
        stderr = np.array([fit.stderr[name] for name in NAMES])
        row.update(
            errors=(found / truth - 1.0).tolist(),
            scores=((found - truth) / stderr).tolist(),
            stderr=(stderr / truth).tolist(),
        )
    return row


def show(key, row):
    if "errors" in row:
        errors = " ".join(f"{100 * e:7.3f}" for e in row["errors"])
        scores = " ".join(f"{z:5.2f}" for z in row["scores"])
        print(f"{key:28s} error % {errors}   z {scores}   {row['seconds']:5.1f} s", flush=True)
    else:
        word = "SUCCESS" if row["success"] else "refused"
        print(f"{key:28s} {word}: {row['message'][:110]}   {row['seconds']:5.1f} s", flush=True)


def impostors(size, cache):
    """{name: frames of v} that are no movie of the model."""
    rng = np.random.default_rng(8)
    i, j = np.mgrid[:size, :size]
    n = np.arange(FRAMES)[:, None, None]
    _, states = frames_of("gamma", size, 1, cache)
    v = states[:, 1]
    noise = NOISE * v.max() * rng.standard_normal(v.shape)
    wave = 0.2 + 0.15 * np.sin(2 * np.pi * (4 * i + 2 * j) / size - 0.3 * n)
    spots = 0.15 * (2.0 + np.sin(2 * np.pi * 5 * i / size + 0.2 * n) * np.sin(2 * np.pi * 5 * j / size - 0.1 * n))
    cahn = rd.Simulation("allen_cahn", rd.Grid((size, size)), dt=0.1, stability="off", threads=1)
    y = cahn.run(0.1 * rng.standard_normal((1, size, size)), {"Du": 0.5, "r": 1.0}, steps=50).final
    coarsening = 0.2 + 0.1 * cahn.run(y, {"Du": 0.5, "r": 1.0}, steps=10 * (FRAMES - 1), save_every=10).states[:, 0]
    return {
        "noise": rng.random(v.shape),
        "uniform": np.full(v.shape, 0.3),
        "uniform, with noise": 0.3 + noise,
        "frames that do not move": v[:1] + noise,
        "painted waves": wave + noise,
        "painted waves, no noise": wave,
        "painted spots": spots + noise,
        "frames in random order": v[rng.permutation(FRAMES)] + noise,
        "frames backwards": v[::-1] + noise,
        "every frame mirrored by turns": np.where(n % 2 == 1, v[:, ::-1], v) + noise,
        "Allen-Cahn": coarsening + noise,
        "Allen-Cahn, no noise": coarsening,
        "half as bright": 0.5 * v + 0.5 * noise,
        "1.05 as bright": 1.05 * (v + noise),
        "offset 0.05": v + 0.05 + noise,
        "squared": v**2 / v.max() + noise,
        "one frame missing": np.delete(states[:, 1], 20, axis=0) + noise[:-1],
        "blurred in time": 0.5 * (v + np.roll(v, 1, 0))[1:] + noise[1:],
        "drifting camera": np.stack([np.roll(f, m // 2, 1) for m, f in enumerate(v)]) + noise,
    }


def run(out, done, key, make):
    if key not in done:
        done[key] = make()
        with open(out, "a") as file:
            file.write(json.dumps({"key": key, **done[key]}) + "\n")
    show(key, done[key])


def summary(done, suffix):
    passed = True
    for size in sorted({key.split()[1] for key in done if key.split()[0] in CLASSES}, key=int):
        keys = [key for key in done if key.split()[0] in CLASSES and key.split()[1] == size and key.endswith(suffix)]
        rows = {key: done[key] for key in keys}
        if not rows:
            continue
        good = [row for row in rows.values() if row["success"]]
        inside = sum(max(map(abs, row["errors"])) <= 0.01 for row in good)
        rms = np.sqrt(np.mean(np.array([row["scores"] for row in good]) ** 2, axis=0)) if good else np.full(4, np.nan)
        worst = max((max(map(abs, row["errors"])) for row in good), default=np.nan)
        median = np.median([max(map(abs, row["errors"])) for row in good]) if good else np.nan
        seconds = [row["processor"] for row in rows.values()]
        print(
            f"{size}^2, step {suffix}: {inside} of {len(rows)} within 1 % ({len(rows) - len(good)} refused), worst "
            f"{100 * worst:.3f} %, median {100 * median:.3f} %; rms z {np.round(rms, 2)}; "
            f"{np.median(seconds):.1f} s (median), {max(seconds):.1f} s (most) of a processor"
        )
        passed &= inside >= 0.9 * len(rows)
        if len(rows) >= 60:
            passed &= bool(np.all((rms >= 0.8) & (rms <= 1.25)))
    wrong = [key for key, row in done.items() if key.startswith("impostor") and row["success"]]
    count = sum(key.startswith("impostor") for key in done)
    if count:
        print(f"no movies of the model: {count - len(wrong)} of {count} refused", *wrong, sep="\n  ")
        passed &= not wrong
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--states", type=int, default=2)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--case", help="only this class")
    parser.add_argument("--step", choices=STEP, default="own")
    parser.add_argument("--refusals", action="store_true")
    parser.add_argument("--out", default="movies.jsonl")
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "adjoint_rd_movies"))
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many, to be resumed")
    given = parser.parse_args()
    cache = Path(given.cache)
    cache.mkdir(parents=True, exist_ok=True)
    done = {}
    if Path(given.out).exists():
        lines = Path(given.out).read_text().splitlines()
        done = {row.pop("key"): row for row in map(json.loads, lines)}
    begin, times = time.time(), float(EVERY) * np.arange(FRAMES)
    for size in map(int, filter(None, given.sizes.split(","))):
        for draw in range(given.draws):
            for state in range(1, given.states + 1):
                for name in [given.case] if given.case else CLASSES:
                    if time.time() - begin > given.seconds:
                        return 2
                    params, states = frames_of(name, size, state, cache)
                    v = states[:, 1]
                    rng = np.random.default_rng([size, draw, state, CLASSES.index(name)])
                    v = v + NOISE * v.max() * rng.standard_normal(v.shape)
                    key = f"{name} {size} {state} {draw} {given.step}"
                    run(given.out, done, key, lambda v=v, params=params: one(v, params, times, STEP[given.step]))
        if given.refusals:
            for name, v in impostors(size, cache).items():
                if time.time() - begin > given.seconds:
                    return 2
                key = f"impostor {size}: {name} {given.step}"
                run(given.out, done, key, lambda v=v: one(v, None, times[: len(v)], STEP[given.step]))
    return 0 if summary(done, given.step) else 1


if __name__ == "__main__":
    sys.exit(main())
