"""Limits and guards over random Gray-Scott parameters: which are safe, which alarm in time, which alarm for nothing.

    python validation/guards_lead.py [--sets 200]

The box: Du in [0.08, 0.24], Dv/Du in [0.35, 0.65], F in [0.01, 0.07], k in [0.045, 0.067], uniform; live or not. 64x64,
periodic, spacing 1, explicit Euler, from one noisy square (rng 1, clipped). Blow-up: not finite, |y| > 2 or u < -0.3
within 2000 steps; the true limit dt* by bisection to 0.2 %. Leads are counted to the first value that is not finite and
to that blow-up. Fails unless: no set blows up at or below `safe`, all do above `certain`, median safe/dt* >= 0.7, the
default guards alarm before every blow-up with a median lead >= 20 to the first non-finite value at up to 1.2 dt*, and
<= 2 % of healthy runs alarm.
"""

import argparse
import sys
import time
import warnings

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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=200)
    sets = parser.parse_args().sets
    warnings.simplefilter("ignore")
    started = time.time()
    rng = np.random.default_rng(5)
    chosen = [draw(rng) for _ in range(sets)]
    limits = [simulation(1.0).limits(params) for params in chosen]
    true = np.array([true_limit(*pair) for pair in zip(chosen, limits, strict=True)])
    safe, certain = np.array([each.safe for each in limits]), np.array([each.certain for each in limits])
    live = []
    for params, dt in zip(chosen, true, strict=True):
        y = simulation(0.5 * dt).run(START, params, steps=3 * STEPS).final
        live.append(y[1].std() > 0.02)
    live = np.array(live)
    diffusion_only = np.array([2 / (8 * params["Du"]) for params in chosen])
    print(f"{sets} sets, {live.sum()} with a live pattern; {time.time() - started:.0f} s")
    for name, limit in (("safe", safe), ("2/(8 D/h^2)", diffusion_only), ("certain", certain)):
        ratio = limit / true
        print(
            f"  {name:12s} over dt*: median {np.median(ratio):.3f}, {ratio.min():.3f} to {ratio.max():.3f}; live ones "
            f"median {np.median(ratio[live]):.3f}; above dt* in {np.sum(ratio > 1)}"
        )
    dts = rng.uniform(0.5, 1.5, sets) * true
    blown = np.array([blow_up(params, dt) is not None for params, dt in zip(chosen, dts, strict=True)])
    at_safe = sum(blow_up(params, limit) is not None for params, limit in zip(chosen, safe, strict=True))
    below, above = dts <= safe, dts > certain
    print(
        f"  random dt in [0.5, 1.5] dt*: {blown[below].sum()} of {below.sum()} blow up at or below safe, "
        f"{blown[above].sum()} of {above.sum()} above certain; at dt = safe: {at_safe} of {sets}"
    )
    failures = []
    if np.isnan(true).any() or blown[below].any() or at_safe or not blown[above].all() or np.median(safe / true) < 0.7:
        failures.append("limits")

    names = [*watched(), "both defaults"]
    print(
        f"\n  {'dt/dt*':>6} {'blow-ups':>8} {'not finite at':>13}   guard                caught   "
        "lead to NaN (least)   lead to blow-up (least)"
    )
    for factor in UNSTABLE:
        rows = []
        for params, dt in zip(chosen, factor * true, strict=True):
            blow = blow_up(params, dt)
            if blow is not None:
                alarms = first_alarms(params, dt, blow + 40)
                default = [alarms[name] for name in DEFAULT if alarms[name] is not None]
                rows.append((blow, not_finite(params, dt), {**alarms, names[-1]: min(default, default=None)}))
        broken = [row[1] for row in rows if row[1] is not None]
        for n, name in enumerate(names):
            lead = np.array([row[1] - row[2][name] for row in rows if row[1] is not None and row[2][name] is not None])
            early = np.array([row[0] - row[2][name] for row in rows if row[2][name] is not None])
            caught = sum(row[2][name] is not None and row[2][name] < (row[1] or np.inf) for row in rows)
            head = (
                f"  {factor:6.2f} {len(rows):4d}/{sets} {np.median(broken) if broken else np.nan:13.0f}"
                if n == 0
                else " " * 31
            )
            numbers = [f"{np.median(v):8.0f} ({v.min()})" if len(v) else "-" for v in (lead, early)]
            print(f"{head}   {name:19s} {caught:4d}/{len(rows)}   {numbers[0]:>19s}   {numbers[1]:>22s}", flush=True)
        if caught < len(rows) or (factor <= 1.2 and np.median(lead) < 20):
            failures.append(f"guards at {factor}")

    print("\n  false alarms on healthy runs of", STEPS, "steps")
    for factor in HEALTHY:
        counts, healthy = dict.fromkeys(names, 0), 0
        for params, dt in zip(chosen, factor * true, strict=True):
            if blow_up(params, dt) is None:
                healthy += 1
                alarms = first_alarms(params, dt, STEPS)
                for name in watched():
                    counts[name] += alarms[name] is not None
                counts[names[-1]] += any(alarms[name] is not None for name in DEFAULT)
        print(
            f"  {factor:6.2f} dt*: {healthy} healthy; " + ", ".join(f"{name} {counts[name]}" for name in names),
            flush=True,
        )
        if counts[names[-1]] > 0.02 * healthy:
            failures.append(f"false alarms at {factor}")
    print(f"\n{time.time() - started:.0f} s;", "FAILED: " + ", ".join(failures) if failures else "passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
