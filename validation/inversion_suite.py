"""Inversion of steady patterns: one line for each required figure, and whether it is met.

    python validation/inversion_suite.py                        everything (hours), resumable
    python validation/inversion_suite.py --case steady-1 --minutes 4
    python validation/inversion_suite.py --size 64 --quick      few patterns, one draw
    python validation/inversion_suite.py --report               only the lines, from what is in --out

Each fit is one line of JSON in --out; a fit that is already there is not repeated, so a run that was interrupted goes
on where it stopped. 'seconds' is the processor time of one thread after a warm-up, what a fit takes on a quiet machine.
"Within" means: all four parameters within 1 % or within 3 Cramer-Rao standard errors at the truth where those are
larger, for "own" within 3 of the fit's standard errors.
The exit status is 1 if a figure is missed.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import inversion_patterns as developed
import steady_gradient
from inversion_images import impostors

import adjoint_rd as rd
from adjoint_rd import models, presets
from adjoint_rd.inverse import invert
from adjoint_rd.inversion import weak
from adjoint_rd.sparse import System

NAMES = ("Du", "Dv", "F", "k")
RMS = (0.8, 1.25)


# One fit


def one(data, params, **options):
    """The row of a fit: success, relative errors, scores, relative standard errors, processor seconds."""
    begin = time.process_time()
    fit = invert(data, **options)
    seconds = time.process_time() - begin
    row = {"success": fit.success, "message": fit.message, "seconds": seconds}
    if fit.success:
        names = tuple(name for name in fit.params if name in params)
        p = np.array([params[name] for name in names])
        q = np.array([fit.params[name] for name in names])
        s = np.array([fit.stderr.get(name, np.nan) for name in names])
        row |= {
            "errors": (q / p - 1).tolist(),
            "scores": ((q - p) / s).tolist(),
            "stderr": (s / p).tolist(),
            "combinations": {name: list(value) for name, value in fit.combinations.items()},
        }
    return row


def bound(state, params, sigma):
    """Cramer-Rao relative standard errors from v with white noise sigma on a steady state."""
    shape = state.shape[1:]
    seen = np.zeros((2, state[0].size))
    seen[1] = 1.0
    data = weak.Data(seen * state.reshape(2, -1), seen, np.ones(2 * state[0].size))
    problem = weak.Problem(System(models.get("gray_scott"), rd.Grid(shape)), data, NAMES)
    begin = weak.start_fit(params, state.reshape(2, -1))
    fit = problem.fit(begin, sigma, 1e-6, max_iterations=0, evidence=False)
    return np.sqrt(np.diag(fit.covariance)).tolist()


def with_noise(v, fraction, *seed):
    return v + fraction * v.max() * np.random.default_rng([*seed, int(1e4 * fraction)]).standard_normal(v.shape)


def eight_bits(v, white=1.0):
    """`v` rounded to 255 steps from 0 to `white`."""
    return np.round(255.0 * v / white) * white / 255.0


# Cases: generators of (key, function that makes the row)


def clean(given):
    for _, draw, p in developed.patterns(given.size, given.patterns, 1, given.cache, settled=False):
        yield f"{p.name}/{draw}", lambda p=p: one(p.slow[1], p.params)


def starts(given):
    cases = list(developed.patterns(given.size, given.patterns, 1, given.cache, settled=False))
    for n in range(20 if given.quick else 200):
        _, _, p = cases[n % len(cases)]
        rng = np.random.default_rng([n, 4])
        start = {name: c * 10 ** rng.uniform(-1, 1) for name, c in zip(NAMES, (0.1, 0.05, 0.03, 0.05), strict=True)}
        yield f"{p.name}/{n}", lambda p=p, start=start: one(p.slow[1], p.params, start=start)


def _noisy(given, fraction, slow=False, draws=None):
    """`fraction` 0 is rounding to 8 bits. Where too few patterns settle, the first ones again with other noise."""
    draws = draws or given.draws
    cases = list(developed.patterns(given.size, given.patterns, draws, given.cache, settled=not slow))
    for again in range(draws if cases else 0):
        for recipe, draw, p in cases[: max(given.patterns * draws - again * len(cases), 0)]:

            def row(recipe=recipe, draw=draw, p=p, again=again):
                state = p.slow if slow else p.steady
                if fraction == 0:
                    white = 1.0 if again == 0 else float(np.random.default_rng([recipe, draw, again]).uniform(0.9, 1.1))
                    v, sigma = eight_bits(state[1], white), white / 255 / np.sqrt(12)
                else:
                    v, sigma = with_noise(state[1], fraction, draw + 100 * again), fraction * state[1].max()
                rate = p.slow_rate if slow else p.steady_rate
                return {**one(v, p.params, at_rest=not slow), "bound": bound(state, p.params, sigma), "rate": rate}

            yield f"{p.name}/{draw}" + (f"/{again}" if again else ""), row


def steady_1(given):
    yield from _noisy(given, 0.01)


def steady_5(given):
    yield from _noisy(given, 0.05)


def steady_8_bit(given):
    yield from _noisy(given, 0.0)


def slow_1(given):
    yield from _noisy(given, 0.01, slow=True, draws=min(3, given.draws))


def _partial(given, make):
    """0.1 % noise on the steady patterns of the first draw; make(v, params) gives (data, options)."""
    for _, draw, p in developed.patterns(given.size, given.patterns, 1, given.cache, settled=True):
        data, options = make(with_noise(p.steady[1], 1e-3, draw), p.params)
        yield p.name, lambda p=p, data=data, options=options: one(data, p.params, at_rest=True, **options)


def hole(given):
    def make(v, params):
        n = len(v)
        mask = np.ones(v.shape, dtype=bool)
        mask[n // 4 : n // 2, n // 3 : n // 3 + n // 4] = False
        return v, {"mask": mask}

    yield from _partial(given, make)


def crop(given):
    yield from _partial(given, lambda v, params: (v[3:-3, 4:-2], {"boundary": "cropped"}))


def every_second(given):
    yield from _partial(given, lambda v, params: (v[::2, ::2], {"subsample": 2}))


def offset(given):
    yield from _partial(given, lambda v, params: (v + 0.03, {"offset": True}))


def gain_known_ratio(given):
    yield from _partial(
        given, lambda v, params: (v / v.max(), {"scale": None, "known": {"Du/Dv": params["Du"] / params["Dv"]}})
    )


def gain(given):
    for _, draw, p in developed.patterns(given.size, given.patterns, 1, given.cache, settled=True):

        def row(p=p, draw=draw):
            v = with_noise(p.steady[1], 1e-3, draw)
            found = one(v / v.max(), p.params, scale=None, at_rest=True)
            Du, Dv, F, k = (p.params[name] for name in NAMES)
            truth = {"Du/F": Du / F, "Dv/sqrt(F)": Dv / F**0.5, "(F+k)/sqrt(F)": (F + k) / F**0.5}
            if found["success"]:
                reached = [(*found["combinations"][name], value) for name, value in truth.items()]
                found["errors"] = [got / value - 1 for got, _, value in reached]
                found["scores"] = [(got - value) / error for got, error, value in reached]
            return found

        yield p.name, row


def big(given):
    """512 x 512, 4 x 4 copies of a pattern, in a process of its own, for its peak memory."""
    size = 64 if given.quick else 128
    for name in ("well-worms", "reference") if not given.quick else ("well-worms",):
        for kind in ("clean", "noise"):

            def row(name=name, kind=kind):
                options = ["--one", name, kind, "--size", str(size), "--cache", str(given.cache)]
                done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
                return json.loads(done.stdout.splitlines()[-1])

            yield f"{name}/{kind}", row


def one_with_memory(given):
    """What `big` runs: a fit and the peak of resident memory, GiB."""
    name, kind = given.one
    p = developed.pattern(given.size, developed.PRESETS.index(name), 0, given.cache)
    v = np.tile(p.slow[1], (4, 4))
    warm_up(len(v))
    row = one(with_noise(v, 0.01, 0) if kind == "noise" else v, p.params)
    return {**row, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def snapshots(given):
    """Four draws of a recipe at once."""
    by_recipe = {}
    for _, draw, p in developed.patterns(given.size, given.patterns, min(4, given.draws), given.cache, settled=True):
        by_recipe.setdefault(p.name, []).append(with_noise(p.steady[1], 0.01, draw, 9))
        params = p.params
        if len(by_recipe[p.name]) == min(4, given.draws):
            images = np.stack(by_recipe[p.name])
            yield p.name, lambda images=images, params=params: one(images, params, snapshots=True, at_rest=True)


def schnakenberg(given):
    """Another model: u alone, gamma (the unit of time) known, 1 % noise."""
    size = min(given.size, 64)
    for n in range(2 if given.quick else 10):

        def row(n=n):
            rng = np.random.default_rng([n, 5])
            ranges = {"Du": (0.5, 1.2), "Dv": (18.0, 30.0), "a": (0.08, 0.15), "b": (0.85, 0.95)}
            params = {**{name: float(rng.uniform(*pair)) for name, pair in ranges.items()}, "gamma": 1.0}
            sim = rd.Simulation("schnakenberg", rd.Grid((size, size)), dt=0.005, stability="off", threads=1)
            y0 = sim.initial_state("noise", rng=n, params=params)
            u = sim.run_to_steady(y0, params, tol=1e-7, max_steps=300_000).final[0]
            found = one(with_noise(u, 0.01, n), params, model="schnakenberg", species="u", known={"gamma": 1.0})
            for key in ("errors", "scores", "stderr"):
                found[key] = found.get(key, [])[:4]
            return found

        yield str(n), row


def gradient(given):
    for _, _, p in developed.patterns(given.size, given.patterns, 1, given.cache, settled=True):
        if p.steady_rate < 1e-7:
            sim = rd.Simulation("gray_scott", rd.Grid((given.size,) * 2), dt=1.0, stability="off", threads=1)
            yield p.name, lambda p=p, sim=sim: steady_gradient.against_differences(sim, p.steady, p.params)
    yield "unrolled", lambda: steady_gradient.against_unrolled(24 if given.quick else 40)


def refusals(given):
    size = min(given.size, 96)
    for name, image in impostors(size, 4 if given.quick else 17):

        def row(image=image):
            fit = invert(image)
            return {"success": fit.success, "message": fit.message, "params": fit.params}

        yield name, row


# Figures: each from the rows of its case, as (text, met)


def _good(rows):
    return [row for row in rows if row["success"]]


def _largest(rows):
    return max((max(map(abs, row["errors"])) for row in _good(rows)), default=float("inf"))


def _share(rows, test):
    return sum(1 for row in rows if row["success"] and test(row)) / max(len(rows), 1)


def _one_percent(row):
    return max(map(abs, row["errors"])) <= 0.01


def _inside_bound(row):
    return all(abs(e) <= max(0.01, 3 * b) for e, b in zip(row["errors"], row["bound"], strict=True))


def _inside_own(row):
    return all(abs(e) <= max(0.01, 3 * s) for e, s in zip(row["errors"], row["stderr"], strict=True))


def _inside_scores(row):
    return max(map(abs, row["scores"])) <= 3.0


def _rms(rows):
    z = np.array([row["scores"] for row in _good(rows)])
    return np.sqrt(np.mean(z**2, axis=0)) if len(z) else np.full(4, np.inf)


def _times(rows):
    t = sorted(row["seconds"] for row in rows)
    return f"{np.median(t):.1f} s (slowest {t[-1]:.1f})"


def _counts(rows):
    refused = len(rows) - len(_good(rows))
    return f"{len(rows)} runs" + (f", {refused} refused" if refused else "")


def figure_clean(rows, keyed):
    reference = keyed.get("reference/0")
    worst = 100 * max(map(abs, reference["errors"])) if reference and reference["success"] else float("inf")
    seconds = reference["seconds"] if reference else float("inf")
    text = f"reference worst {worst:.4f} % in {seconds:.2f} s; all patterns worst {100 * _largest(rows):.4f} %"
    return text, worst <= 0.01 and seconds <= 1.0


def figure_starts(rows, keyed):
    share = _share(rows, _one_percent)
    return f"{100 * share:.1f} % arrive, worst error {100 * _largest(rows):.3f} %", share == 1.0


def figure_noise(rows, keyed, least=0.95, inside=_inside_bound, most=20.0, rms=True):
    share, z = _share(rows, inside), _rms(rows)
    e = [100 * max(map(abs, row["errors"])) for row in _good(rows)]
    slowest = max(row["seconds"] for row in rows)
    text = (
        f"{100 * share:.1f} % within, median error {np.median(e):.2f} %, worst {max(e):.2f} %, rms score "
        f"{' '.join(f'{x:.2f}' for x in z)}, all scores <= 3 in {100 * _share(rows, _inside_scores):.1f} %, "
        f"{_times(rows)}"
    )
    return text, share >= least and slowest <= most and (not rms or bool(np.all((z >= RMS[0]) & (z <= RMS[1]))))


def figure_slow(rows, keyed):
    return figure_noise(rows, keyed, least=0.9, inside=_inside_own)


def figure_8_bit(rows, keyed):
    text, met = figure_noise(rows, keyed, rms=False)
    z = np.array([row["scores"] for row in _good(rows)])
    share = float(np.mean(np.abs(z) <= 3.0)) if len(z) else 0.0
    return f"{text}; {100 * share:.1f} % of single scores <= 3", met and share >= 0.95


def figure_5(rows, keyed):
    text, _ = figure_noise(rows, keyed, rms=False)
    e = [max(map(abs, row["errors"])) for row in _good(rows)]
    return text, _share(rows, _inside_scores) >= 0.95 and float(np.median(e)) <= 0.015


def figure_percent(rows, keyed):
    text = f"{100 * _share(rows, _one_percent):.1f} % within 1 %, worst {100 * _largest(rows):.2f} %, {_times(rows)}"
    return text, _share(rows, _one_percent) == 1.0


def figure_big(rows, keyed):
    memory = max(row["memory"] for row in rows)
    slowest = max(row["seconds"] for row in rows)
    text = f"worst error {100 * _largest(rows):.3f} %, slowest {slowest:.0f} s, peak memory {memory:.2f} GiB"
    return text, _share(rows, _one_percent) == 1.0 and slowest <= 180 and memory <= 4.0


def figure_own(rows, keyed):
    z = _rms(rows)
    text = (
        f"{100 * _share(rows, _inside_own):.1f} % within 1 % or 3 of its standard errors, worst "
        f"{100 * _largest(rows):.2f} %, rms score {' '.join(f'{x:.2f}' for x in z)}, {_times(rows)}"
    )
    return text, _share(rows, _inside_own) >= 0.95


def figure_gradient(rows, keyed):
    good = [row for key, row in keyed.items() if row["success"] and key != "unrolled"]
    seconds, factoring = (max((row[key] for row in good), default=np.inf) for key in ("seconds", "factoring"))
    text = f"differences: worst {_largest(good):.1e}; {seconds:.3f} s, with factoring {factoring:.2f} s"
    unrolled = keyed.get("unrolled")
    if not (unrolled and unrolled["success"]):
        return f"{text}; unrolled: not compared", False
    share = unrolled["seconds"] / unrolled["unrolled"]
    text += f"; unrolled over {unrolled['steps']} steps: worst {_largest([unrolled]):.1e}, in {100 * share:.2f} % "
    text += "of its time"
    met = max(_largest(good), _largest([unrolled])) <= 1e-6 and seconds <= 0.5 and share <= 0.05
    return text, met


def figure_refusals(rows, keyed):
    wrong = [key for key, row in keyed.items() if row["success"]]
    return f"{len(wrong)} accepted{': ' + ', '.join(wrong) if wrong else ''}", not wrong


CASES = {
    "clean": (clean, figure_clean, "1: one snapshot stopped at 5e-5, reference within 0.01 %, 1 s"),
    "starts": (starts, figure_starts, "1: 200 random starts over two decades, 100 %"),
    "steady-1": (steady_1, figure_noise, "2: 1 % noise, 95 % within, rms score 0.8 .. 1.25, 20 s"),
    "steady-8-bit": (steady_8_bit, figure_8_bit, "2: 8 bit, 95 % within, 95 % of scores <= 3, 20 s"),
    "steady-5": (steady_5, figure_5, "2: 5 % noise, 95 % within 3 standard errors, median error 1.5 %"),
    "big": (big, figure_big, "2: 512 x 512, 180 s, 4 GiB"),
    "slow-1": (slow_1, figure_slow, "3: stopped at 5e-5, 1 % noise, 90 % within (own), rms score 0.8 .. 1.25, 20 s"),
    "hole": (hole, figure_percent, "3: hole of 6 %, 0.1 % noise, 1 %"),
    "crop": (crop, figure_percent, "3: crop, 0.1 % noise, 1 %"),
    "every-second": (every_second, figure_percent, "3: every second pixel, 0.1 % noise, 1 %"),
    "offset": (offset, figure_percent, "3: unknown offset, 0.1 % noise, 1 %"),
    "gain": (gain, figure_percent, "3: unknown gain, combinations, 0.1 % noise, 1 %"),
    "gain-ratio": (gain_known_ratio, figure_percent, "3: unknown gain, Du/Dv known, 0.1 % noise, 1 %"),
    "snapshots": (snapshots, figure_own, "four snapshots of the same parameters, 1 % noise"),
    "schnakenberg": (schnakenberg, figure_own, "another model: Schnakenberg from u, 1 % noise"),
    "gradient": (gradient, figure_gradient, "5: implicit gradient, 1e-6 of differences and unrolled, 0.5 s, 5 %"),
    "refusals": (refusals, figure_refusals, "6: 100 images that are no such pattern, 0 accepted"),
}


def warm_up(size=32):
    """Compile and load what every fit needs; the kernels of large grids are others than those of small ones."""
    i, j = np.mgrid[:32, :32] / 32
    invert(0.2 + 0.1 * np.sin(2 * np.pi * (2 * i + j)) * np.cos(2 * np.pi * (i - 3 * j)))
    sim = rd.Simulation("gray_scott", rd.Grid((size, size)), dt=1.0, stability="off", threads=1)
    params = presets.get("reference").parameters
    sim.run(sim.initial_state("square", rng=0), params, steps=20)


def load(path):
    """{(case, size, key): row} of a file of JSON lines."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = (json.loads(line) for line in lines)
    return {(row["case"], row["size"], row["key"]): row for row in rows}


def run(name, given, done, deadline):
    """Make the missing rows of a case; False if the time ran out."""
    for key, make in CASES[name][0](given):
        if (name, given.size, key) in done:
            continue
        if time.monotonic() > deadline:
            return False
        row = {"case": name, "size": given.size, "key": key, "version": given.version, **make()}
        done[name, given.size, key] = row
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(name, key, describe(row), flush=True)
    return True


def describe(row):
    """A row in short."""
    if not row["success"]:
        return f"refused: {row['message'][:100]}"
    if "errors" not in row:
        return f"ACCEPTED {row['params']}"
    errors = " ".join(f"{100 * e:8.4f}" for e in row["errors"])
    return f"error % {errors}   z {' '.join(f'{z:5.1f}' for z in row['scores'])}   {row['seconds']:6.1f} s"


def report(given, done):
    """Print a line for each case that has rows; whether all are met."""
    fine = True
    for name, (_, figure, title) in CASES.items():
        keyed = {key: row for (case, size, key), row in done.items() if case == name and size == given.size}
        if keyed:
            rows = list(keyed.values())
            text, met = figure(rows, keyed)
            fine &= bool(met)
            print(f"{'met   ' if met else 'MISSED'} {name} | {title} | {_counts(rows)}: {text}")
    return fine


def version():
    """The commit, with a + if files differ from it."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return rd.__version__
    return done.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", default=",".join(CASES), help="comma-separated: " + ", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="4 patterns, one draw, 20 starts")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--patterns", type=int, default=0, help="recipes a draw, by default 12")
    parser.add_argument("--draws", type=int, default=0, help="by default 5")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no fit after so long")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=Path("inversion_suite.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "adjoint_rd_inversion_patterns")
    parser.add_argument("--one", nargs=2, metavar=("PATTERN", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.patterns = given.patterns or (4 if given.quick else 12)
    given.draws = given.draws or (1 if given.quick else 5)
    given.version = version()
    if given.one:
        print(json.dumps(one_with_memory(given)))
        return 0
    names = given.case.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"--case has {', '.join(unknown)}; there are {', '.join(CASES)}")
    done = load(given.out)
    if not given.report:
        warm_up(given.size)
        deadline = time.monotonic() + 60 * given.minutes
        if not all(run(name, given, done, deadline) for name in names):
            print("the time ran out; run again to go on")
    return 0 if report(given, done) else 1


if __name__ == "__main__":
    sys.exit(main())
