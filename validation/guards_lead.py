"""Limits and guards over random Gray-Scott parameters: which are safe, which alarm in time, which alarm for nothing.

    python validation/guards_lead.py [--sets 200] [--seconds 200] [--out guards_lead.jsonl]

The box: Du in [0.08, 0.24], Dv/Du in [0.35, 0.65], F in [0.01, 0.07], k in [0.045, 0.067], uniform; live or not. 64x64,
periodic, spacing 1, explicit Euler, from one noisy square (rng 1, clipped). Blow-up: not finite, |y| > 2 or u < -0.3
within 2000 steps; the true limit dt* by bisection to 0.2 %. Leads are counted to the first value that is not finite and
to that blow-up. Fails unless: no set blows up at or below `safe`, all do above `certain`, median safe/dt* >= 0.7, the
default guards alarm before every blow-up with a median lead >= 20 to the first non-finite value at up to 1.2 dt*, and
<= 2 % of healthy runs alarm. Sets are kept line by line in --out, so that a run that was cut off goes on; --seconds
stops it in good order.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import adjoint_rd as rd
from adjoint_rd import guards

SHAPE, STEPS, MOST_STEPS, CHUNK, EVERY = (64, 64), 2000, 20_000, 50, 5
NAMES = ("Du", "Dv", "F", "k")
HEALTHY, UNSTABLE = (0.5, 0.7, 0.8, 0.9), (1.01, 1.05, 1.2, 1.5)


def simulation(dt):
    return rd.Simulation("gray_scott", rd.Grid(SHAPE), dt=dt, stability="off", threads=1)


START = simulation(1.0).initial_state("square", rng=1, clip=(0, 1))


def draw(rng):
    Du = rng.uniform(0.08, 0.24)
    return dict(Du=Du, Dv=Du * rng.uniform(0.35, 0.65), F=rng.uniform(0.01, 0.07), k=rng.uniform(0.045, 0.067))


def blow_up(params, dt, steps=STEPS):
    """The first step (to 5) at which the run has blown up, or None."""
    sim, y, done = simulation(dt), START, 0
    while done < steps:
        try:
            run = sim.run(y, params, steps=CHUNK, save_every=5)
        except rd.DivergenceError as error:
            return done + error.step
        bad = (np.abs(run.states).max(axis=(1, 2, 3)) > 2) | (run.states[:, 0].min(axis=(1, 2)) < -0.3)
        if bad.any():
            return done + int(run.steps[np.argmax(bad)])
        y, done = run.final, done + CHUNK
    return None


def not_finite(params, dt):
    """The first step whose state is not finite, or None."""
    try:
        simulation(dt).run(START, params, steps=MOST_STEPS)
    except rd.DivergenceError as error:
        return error.step
    return None


def true_limit(params, limits):
    low, high = 0.5 * limits.safe, 1.1 * limits.certain
    if blow_up(params, low) is not None or blow_up(params, high) is None:
        return float("nan")
    while high - low > 0.002 * low:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if blow_up(params, middle) is None else (low, middle)
    return 0.5 * (low + high)


DEFAULT = ("multiplier < -1.25", "range, 0.05")


def watched():
    made = [
        guards.Multiplier(every=2, name=DEFAULT[0]),
        guards.Multiplier(every=2, margin=1e-3, name="multiplier < -1.001"),
        guards.Range(name=DEFAULT[1]),
        guards.Range(margin=1e-3, above=0.05, name="range, 0.001"),
        guards.Flip(name="flip"),
        guards.Checkerboard(name="checkerboard"),
    ]
    return {guard.name: guard for guard in made}


def first_alarms(params, dt, steps):
    """{guard: first step or None}, all on one run."""
    found = guards.watch(
        simulation(dt), START, params, steps=steps, guards=list(watched().values()), every=EVERY, stop=False
    )
    return {name: next((a.step for a in found.alarms if a.guard == name), None) for name in watched()}


def measure(number, params, share):
    """Everything about one parameter set; `share` of dt* is the random time step."""
    limits = simulation(1.0).limits(params)
    true = true_limit(params, limits)
    y = simulation(0.5 * true).run(START, params, steps=3 * STEPS).final
    row = dict(number=number, safe=limits.safe, certain=limits.certain, diffusion=2 / (8 * params["Du"]), true=true)
    row |= dict(live=bool(y[1].std() > 0.02), dt=share * true, blown=blow_up(params, share * true) is not None)
    row["at_safe"] = blow_up(params, limits.safe) is not None
    row["unstable"] = {}
    for factor in UNSTABLE:
        blow = blow_up(params, factor * true)
        if blow is not None:
            alarms = first_alarms(params, factor * true, blow + 40)
            row["unstable"][f"{factor:g}"] = dict(
                blow=blow, broken=not_finite(params, factor * true), alarms=with_default(alarms)
            )
    row["healthy"] = {
        f"{factor:g}": with_default(first_alarms(params, factor * true, STEPS))
        for factor in HEALTHY
        if blow_up(params, factor * true) is None
    }
    return row


BOTH = "both defaults"


def with_default(alarms):
    """And the first alarm of the two guards that are on by default."""
    return {**alarms, BOTH: min((alarms[name] for name in DEFAULT if alarms[name] is not None), default=None)}


def report_limits(rows):
    """Print how the limits did; whether they kept their promises."""
    true, live, dts = (np.array([row[key] for row in rows]) for key in ("true", "live", "dt"))
    blown = np.array([row["blown"] for row in rows])
    print(f"{len(rows)} sets, {live.sum()} with a live pattern")
    for name in ("safe", "diffusion", "certain"):
        ratio = np.array([row[name] for row in rows]) / true
        print(
            f"  {name:12s} over dt*: median {np.median(ratio):.3f}, {ratio.min():.3f} to {ratio.max():.3f}; live ones "
            f"median {np.median(ratio[live]):.3f}; above dt* in {np.sum(ratio > 1)}"
        )
    safe, certain = (np.array([row[name] for row in rows]) for name in ("safe", "certain"))
    below, above = dts <= safe, dts > certain
    at_safe = sum(row["at_safe"] for row in rows)
    print(
        f"  random dt in [0.5, 1.5] dt*: {blown[below].sum()} of {below.sum()} blow up at or below safe, "
        f"{blown[above].sum()} of {above.sum()} above certain; at dt = safe: {at_safe} of {len(rows)}"
    )
    kept = not (np.isnan(true).any() or blown[below].any() or at_safe) and blown[above].all()
    return bool(kept and np.median(safe / true) >= 0.7)


def report_leads(rows):
    """Print how early the guards alarm; the factors at which the default ones fall short."""
    print(
        f"\n  {'dt/dt*':>6} {'blow-ups':>8} {'not finite at':>13}   guard                caught   "
        "lead to NaN (least)   lead to blow-up (least)"
    )
    failures = []
    for factor in UNSTABLE:
        runs = [row["unstable"][f"{factor:g}"] for row in rows if f"{factor:g}" in row["unstable"]]
        broken = [run["broken"] for run in runs if run["broken"] is not None]
        head = f"  {factor:6.2f} {len(runs):4d}/{len(rows)} {np.median(broken) if broken else np.nan:13.0f}"
        for name in [*watched(), BOTH]:
            pairs = [(run["alarms"][name], run["broken"], run["blow"]) for run in runs]
            lead = np.array([b - a for a, b, _ in pairs if a is not None and b is not None])
            early = np.array([b - a for a, _, b in pairs if a is not None])
            caught = sum(a is not None and a < (b or np.inf) for a, b, _ in pairs)
            numbers = [f"{np.median(v):8.0f} ({v.min()})" if len(v) else "-" for v in (lead, early)]
            print(f"{head:31s}   {name:19s} {caught:4d}/{len(runs)}   {numbers[0]:>19s}   {numbers[1]:>22s}")
            head = ""
        if caught < len(runs) or (factor <= 1.2 and np.median(lead) < 20):
            failures.append(f"guards at {factor}")
    return failures


def report_false_alarms(rows):
    """Print the alarms on healthy runs; the factors with too many of the default guards'."""
    print(f"\n  false alarms on healthy runs of {STEPS} steps")
    failures = []
    for factor in HEALTHY:
        runs = [row["healthy"][f"{factor:g}"] for row in rows if f"{factor:g}" in row["healthy"]]
        counts = {name: sum(run[name] is not None for run in runs) for name in [*watched(), BOTH]}
        print(f"  {factor:6.2f} dt*: {len(runs)} healthy; " + ", ".join(f"{k} {n}" for k, n in counts.items()))
        if counts[BOTH] > 0.02 * len(runs):
            failures.append(f"false alarms at {factor}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--out", type=Path, default=Path("guards_lead.jsonl"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    rng = np.random.default_rng(5)
    chosen = [draw(rng) for _ in range(given.sets)]
    shares = rng.uniform(0.5, 1.5, given.sets)
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    rows = {row["number"]: row for row in map(json.loads, lines)}
    with given.out.open("a") as stream:
        for n in range(given.sets):
            if n not in rows and time.monotonic() - started < given.seconds:
                rows[n] = measure(n, chosen[n], shares[n])
                stream.write(json.dumps(rows[n]) + "\n")
                stream.flush()
    found = [rows[n] for n in range(given.sets) if n in rows]
    failures = [] if report_limits(found) else ["limits"]
    failures += report_leads(found) + report_false_alarms(found)
    if len(found) < given.sets:
        failures.append(f"{given.sets - len(found)} sets not measured yet")
    print("\nFAILED: " + ", ".join(failures) if failures else "\npassed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
