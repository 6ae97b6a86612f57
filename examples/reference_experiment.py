"""The reference experiment: Gray-Scott parameters by gradient descent through truncated windows, against target
patterns.

    python examples/reference_experiment.py --small         # 64x64, under 3 minutes
    python examples/reference_experiment.py                 # 128x128, as in the source; hours
    python examples/reference_experiment.py --iterations 50 --rules adam --losses "log spectrum" L2

128x128, periodic, spacing 1, dt 1. Starts: u = 1 + 0.02 N(0, 1), v = 0.02 N(0, 1), clipped to [0, 1], and a central
20x20 square u = 0.5, v = 0.25. Truth: Du 0.16, Dv 0.08, F 0.035, k 0.065. Du, Dv = softplus(raw), F, k = 0.1
sigmoid(raw), from raw = (-2, -2, 0, 0), that is Du = Dv = 0.1269, F = k = 0.05. Targets: steady patterns from random
starts, cached in the output folder. Each iteration draws a batch of fresh starts and of targets, warms up without
gradient until each member is steady or a limit is reached, then takes `window` steps with gradient. Losses are judged
on one fixed evaluation set.

Source: arXiv 2606.11258. Written to the output folder: RESULTS.md, pictures, targets.npz. What comes out is reported as
it is.
"""

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import adjoint_rd as rd
from adjoint_rd import guards, landscape, landscape_plots, losses, optimize, pattern_losses

TRUTH = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
START = np.array([-2.0, -2.0, 0.0, 0.0])
FREE = ("Du", "Dv", "F", "k")
TRANSFORM = dict(Du="softplus", Dv="softplus", F=("sigmoid", 0.1), k=("sigmoid", 0.1))


@dataclass(frozen=True)
class Size:
    shape: tuple[int, int]
    targets: int
    target_steps: int
    warmup: int
    tol: float
    window: int
    batch: int
    iterations: int
    grid: int  # points along an axis of the landscapes


# The small size stops while patterns still grow; its targets are as old, so that the truth has the lowest loss.
SMALL = Size((64, 64), 4, 3_050, 3_000, 1e-5, 50, 2, 15, 11)
FULL = Size((128, 128), 16, 60_000, 10_000, 1e-6, 200, 4, 200, 25)

LOSSES = {
    "L2": None,  # to one target each: made for each batch
    "log spectrum": lambda targets: pattern_losses.LogSpectrum(targets, radial=True),
    "log spectrum, full": lambda targets: pattern_losses.LogSpectrum(targets),
    "log spectrum, patches": lambda targets: pattern_losses.LogSpectrum(targets, patch=16, window="hann"),
    "autocorrelation": lambda targets: pattern_losses.Autocorrelation(targets),
    "moments": lambda targets: pattern_losses.Moments(targets),
    "histogram": lambda targets: pattern_losses.Histogram(targets, cumulative=True),
    "Gram texture": lambda targets: pattern_losses.GramTexture(targets),
}


def start(sim, rng):
    """A fresh initial state."""
    return sim.initial_state("square", rng=rng, size=20, clip=(0, 1))


class Matching:
    """The mean loss over a batch, as a function of the raw parameters; a new batch in each iteration."""

    def __init__(self, sim, targets, name, size, *, window=None, seed=0):
        self.sim, self.targets, self.name, self.size = sim, targets, name, size
        self.window = None  # the gradient's window; minimize is told by stochastic=True
        self.steps = window or size.window
        self.seed = seed
        self.losses = None if LOSSES[name] is None else LOSSES[name](list(targets))
        self.start = start(sim, 0)
        self.begin(0)

    def _draw(self, key, count):
        rng = np.random.default_rng([self.seed, *key])
        members = []
        for _ in range(count):
            y0 = start(self.sim, rng)
            target = self.targets[rng.integers(len(self.targets))]
            members.append((y0, losses.L2(target, sigma=np.sqrt(target.size)) if self.losses is None else self.losses))
        return members

    def begin(self, iteration):
        """Draw the batch of an iteration, from its number."""
        self.members = self._draw((1, iteration), self.size.batch)

    def unpack(self, x):
        """The parameters at x."""
        return self._objective(self.start, self.members[0][1]).unpack(x)

    def pack(self, params):
        """x of the parameters."""
        return self._objective(self.start, self.members[0][1]).pack(**params)

    def _objective(self, y, loss):
        return rd.Objective(self.sim, y, loss, steps=self.steps, free=FREE, transform=TRANSFORM, on_unstable="raise")

    def _warm(self, y0, params):
        return self.sim.run_to_steady(y0, params, tol=self.size.tol, max_steps=self.size.warmup).final

    def __call__(self, x):
        value, gradient, params = 0.0, np.zeros(4), self.unpack(x)
        for y0, loss in self.members:
            one = self._objective(self._warm(y0, params), loss).value_and_grad(x)
            value, gradient = value + one[0] / len(self.members), gradient + one[1] / len(self.members)
        return value, gradient

    def judge(self, x):
        """The mean loss on the fixed evaluation set; inf where a run diverges."""
        params = self.unpack(x)
        try:
            members = self._draw((2,), self.size.batch)
            ends = [self.sim.run(self._warm(y0, params), params, steps=self.steps).final for y0, _ in members]
        except (rd.StabilityError, rd.DivergenceError, rd.InputError):
            return np.inf
        return float(np.mean([loss.value(y) for y, (_, loss) in zip(ends, members, strict=True)]))


def load_targets(sim, size, path):
    """Steady patterns of the truth from random starts, computed once."""
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            if archive["targets"].shape == (size.targets, *sim.state_shape) and archive["steps"] == size.target_steps:
                return archive["targets"]
    found = [
        sim.run_to_steady(start(sim, 1000 + n), TRUTH, tol=size.tol, max_steps=size.target_steps).final
        for n in range(size.targets)
    ]
    np.savez(path, targets=np.array(found), steps=size.target_steps)
    return np.array(found)


def error(params):
    """The largest relative error of a parameter."""
    return max(abs(params[name] / TRUTH[name] - 1.0) for name in FREE)


def describe(sim, size, params):
    """What the pattern at these parameters is, and what the guards say."""
    y0 = start(sim, 7)
    found = guards.watch(sim, y0, params, steps=size.warmup, every=50, stop=False)
    v = found.final[1]
    kind = "no v left" if v.max() < 1e-3 else "uniform" if v.std() < 1e-3 else f"pattern, std v {v.std():.3f}"
    said = "; ".join(f"{alarm.guard} at step {alarm.step} ({alarm.number:.3g})" for alarm in found.alarms)
    return kind, said or "no alarm"


def descend(matching, method, iterations, out, label):
    """One training run, with its way through parameter space."""
    way = [matching.unpack(START)]
    before = matching.judge(START)
    started = time.time()
    result = optimize.minimize(
        matching,
        START,
        method=method,
        stochastic=True,
        judge=matching.judge,
        judge_every=5,
        maxiter=iterations,
        learning_rate=0.05 if method == "adam" else None,
        max_move=0.5,
        rise=0.1,  # plateaus are crossed only if a trial may be a little higher
        callback=lambda intermediate_result: way.append(matching.unpack(intermediate_result.x)),
        checkpoint=out / f"{label.replace(' ', '_').replace(',', '')}.npz",
        resume=True,
    )
    best = matching.unpack(result.x)
    return {
        "label": label, "result": result, "best": result.fun, "way": way, "before": before, "params": best,
        "error": error(best),
        "refused": sum(not trial.accepted for trial in result.trials), "seconds": time.time() - started,
    }  # fmt: skip


def table(rows, sim, size):
    """Markdown of several descents."""
    lines = [
        "| run | loss at start | best loss | loss at truth | Du | Dv | F | k "
        "| worst error | refused trials | state there | guards | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        p = row["params"]
        kind, said = describe(sim, size, p)
        numbers = " | ".join(
            [f"{row[key]:.4g}" for key in ("before", "best", "truth")] + [f"{p[name]:.4f}" for name in FREE]
        )
        lines.append(
            f"| {row['label']} | {numbers} | {row['error']:.0%} | {row['refused']} | {kind} | {said} "
            f"| {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("reference_experiment"))
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--rules", nargs="*", default=list(optimize.METHODS), choices=optimize.METHODS)
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), choices=LOSSES)
    parser.add_argument("--windows", nargs="*", type=int)
    parser.add_argument("--grid", type=int, help="points along an axis of the landscapes")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", rd.StabilityWarning)
    size = SMALL if given.small else FULL
    iterations = given.iterations or size.iterations
    windows = given.windows or [1, size.window, size.warmup]
    out = given.out
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    sim = rd.Simulation("gray_scott", rd.Grid(size.shape), dt=1.0)
    targets = load_targets(sim, size, out / "targets.npz")
    report = [f"# Reference experiment, {size.shape[0]}x{size.shape[1]}, {iterations} iterations, batch {size.batch}"]

    def say(text):
        print(text, flush=True)
        report.append(text)
        (out / "RESULTS.md").write_text("\n\n".join(report) + "\n")

    # What there is to see at the start and at the truth.
    first = Matching(sim, targets, "log spectrum", size)
    for name, params in (("reference start", first.unpack(START)), ("truth", TRUTH)):
        kind, said = describe(sim, size, params)
        say(f"## At the {name}\n\nAfter {size.warmup} steps: {kind}; guards: {said}.")
        y0 = start(sim, 7)
        flow = guards.gradient_flow(sim, y0, params, losses.L2(targets[0]), steps=size.warmup, points=40)
        say(f"Gradient flow (L2 to one target), {size.warmup} steps:\n\n```\n{flow}\n```")

    def judged(name, window=None):
        matching = Matching(sim, targets, name, size, window=window)
        return matching, matching.judge(matching.pack(TRUTH))

    main_rule = "adam" if "adam" in given.rules else given.rules[0]
    done = {}

    def row(name, rule, window):
        """One descent; each is made once, though two tables may show it."""
        if (name, rule, window) not in done:
            matching = Matching(sim, targets, name, size, window=window)
            if window >= size.warmup:  # full backpropagation: no warm-up
                matching._warm = lambda y0, params: y0
            label = f"{name}, {rule}, window {window}"
            done[name, rule, window] = descend(matching, rule, iterations, out, label) | {
                "truth": matching.judge(matching.pack(TRUTH))
            }
        return done[name, rule, window]

    rows = [row(name, main_rule, size.window) for name in given.losses]
    say("## Each loss\n\n" + table(rows, sim, size))
    shown = [name for name in ("L2", "log spectrum") if name in given.losses]
    for name in shown:
        say(
            f"## Each update rule, {name}\n\n"
            + table([row(name, rule, size.window) for rule in given.rules], sim, size)
        )
        say(
            f"## Windows, {name} (the last: all steps)\n\n"
            + table([row(name, main_rule, w) for w in windows], sim, size)
        )

    # Landscapes that explain it.
    chosen = {name: LOSSES[name](list(targets)) if LOSSES[name] else losses.L2(targets[0]) for name in given.losses}
    y0 = [start(sim, 7)]
    points = given.grid or size.grid
    axes = {"F": np.linspace(0.02, 0.07, points), "k": np.linspace(0.04, 0.07, points)}
    for name, params in (("truth", TRUTH), ("start", first.unpack(START))):
        found = landscape.scan(
            sim,
            y0,
            chosen,
            params,
            axes,
            steps=size.warmup,
            window=size.window,
            path=out / f"landscape_{name}_scan.npz",
        )
        figure = landscape_plots.show(found, truth=TRUTH)
        figure.savefig(out / f"landscape_F_k_at_{name}.png", dpi=80)
        lowest = ", ".join(f"{label} {found.lowest(label)}" for label in chosen)
        say(f"Landscape over F and k with Du, Dv of the {name}: landscape_F_k_at_{name}.png; lowest: {lowest}.")
    histories = {
        each["label"]: {"value": each["result"].history["value"]}
        | {name: [p[name] for p in each["way"]] for name in FREE}
        for each in rows
    }
    landscape_plots.training(histories, truth=TRUTH).savefig(out / "training.png", dpi=80)
    grown = [
        sim.run(start(sim, 7), params, steps=size.warmup, save_every=size.warmup // 40).states
        for params in (TRUTH, first.unpack(START), *(each["params"] for each in rows[:2]))
    ]
    animations.runs(
        dict(zip(("truth", "reference start", *(each["label"] for each in rows[:2])), grown, strict=False)),
        out / "runs.gif",
        scale=2,
    )
    say("training.png: the descents of the first table; runs.gif: what grows at the truth, the start, two ends.")
    say(f"{time.time() - started:.0f} s in all.")


if __name__ == "__main__":
    main()
