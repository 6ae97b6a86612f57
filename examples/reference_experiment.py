"""The reference experiment: Gray-Scott parameters by gradient descent through truncated windows, against patterns.

    python examples/reference_experiment.py                 # 64x64, under 3 minutes on two cores
    python examples/reference_experiment.py --full          # 128x128, as in the source: hours
    python examples/reference_experiment.py --full --seconds 200      # a part of it; the same command goes on

Starts: u = 1 + 0.02 N(0, 1), v = 0.02 N(0, 1), clipped to [0, 1], and a central 20x20 square u = 0.5, v = 0.25;
periodic, spacing 1, dt 1. Truth: Du 0.16, Dv 0.08, F 0.035, k 0.065. Du, Dv = softplus(x), F, k = 0.1 sigmoid(x), from
x = (-2, -2, 0, 0), that is Du = Dv = 0.1269, F = k = 0.05. Each iteration draws fresh starts and targets, warms up
without gradient until each member is steady or a limit is reached, then takes `window` steps with gradient. Losses are
judged on one fixed evaluation set.

Source: arXiv 2606.11258. Written to --out: RESULTS.md, pictures, animations, rows.jsonl and checkpoints, from which the
same command goes on. What comes out is reported as it is; examples/reference_experiment.md discusses it.
"""

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import adjoint_rd as rd
from adjoint_rd import animations, guards, landscape, landscape_plots, matching, named_losses, optimize

TRUTH = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
FREE = tuple(TRUTH)
TRANSFORM = dict(Du="softplus", Dv="softplus", F=("sigmoid", 0.1), k=("sigmoid", 0.1))
NEAR = dict(Du=0.16 * 1.1, Dv=0.08 * 0.9, F=0.035 * 1.1, k=0.065 * 0.9)  # 10 % off, each
BOTH = ("l2", "log-spectrum")  # the losses with which rules and windows are compared


@dataclass(frozen=True)
class Size:
    shape: tuple[int, int]
    targets: int
    target_steps: int
    warmup: int
    tol: float
    window: int
    short: int  # a shorter window, to compare
    batch: int
    iterations: int
    points: tuple[int, int]  # along F and k in the landscapes


# The small size stops while patterns still grow; its targets are as old, so that the truth has the lowest loss.
SMALL = Size((64, 64), 4, 2_050, 2_000, 1e-5, 50, 5, 2, 15, (11, 13))
FULL = Size((128, 128), 16, 60_000, 10_000, 1e-6, 200, 20, 4, 100, (21, 25))


class Experiment:
    """What all descents share, and what they have found so far."""

    def __init__(self, size, out, seconds):
        self.size, self.out = size, out
        self.ends = time.monotonic() + seconds
        self.sim = rd.Simulation("gray_scott", rd.Grid(size.shape), dt=1.0)
        self.targets = matching.steady_targets(
            self.sim, TRUTH, self.start, size.targets, tol=size.tol, max_steps=size.target_steps,
            path=out / "targets.npz",
        )  # fmt: skip
        self.file = out / "rows.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.rows = {row["label"]: row for row in map(json.loads, lines)}
        self.reference = self.matching("l2").unpack(np.array([-2.0, -2.0, 0.0, 0.0]))

    def start(self, rng):
        """A fresh initial state."""
        return self.sim.initial_state("square", rng=rng, size=20, clip=(0, 1))

    def matching(self, loss, window=None):
        """The stochastic objective; `window` None is full backpropagation through all steps."""
        size = self.size
        whole = window is None
        return rd.PatternMatching(
            self.sim, self.start, self.targets, lambda patterns: named_losses.make(loss, patterns),
            window=size.warmup + size.window if whole else window, warmup=0 if whole else size.warmup, tol=size.tol,
            batch=size.batch, evaluation=size.batch, compare="each" if loss in named_losses.OF_PLACES else "batch",
            free=FREE, transform=TRANSFORM,
        )  # fmt: skip

    def late(self):
        """Whether the time asked for is over."""
        return time.monotonic() > self.ends

    def descend(self, loss, rule, window, begin="reference"):
        """The row of one descent, from the file if it is there; None if there is no time for it."""
        label = f"{loss}, {rule}, {'all steps' if window is None else f'window {window}'}, from the {begin} start"
        if label in self.rows or self.late():
            return self.rows.get(label)
        problem = self.matching(loss, window)
        x0 = problem.pack(**(NEAR if begin == "near" else self.reference))
        way, began = [problem.unpack(x0)], time.monotonic()

        def follow(intermediate_result):
            way.append(problem.unpack(intermediate_result.x))
            if self.late():
                raise StopIteration

        result = optimize.minimize(
            problem, x0, method=rule, stochastic=True, judge=problem.judge, judge_every=5,
            maxiter=self.size.iterations, learning_rate=0.05 if rule == "adam" else None, max_move=0.5,
            rise=0.1,  # plateaus are crossed only if a trial may be a little higher
            guards=[guards.Limit("safe")], callback=follow, checkpoint=self.out / f"{label.replace(', ', '_')}.npz",
            checkpoint_every=1, resume=True,
        )  # fmt: skip
        if result.status == 4:  # no time left; the checkpoint goes on
            return None
        best = problem.unpack(result.x)
        kind, said = self.describe(best)
        refused = [trial.reason for trial in result.trials if not trial.accepted]
        row = dict(
            label=label, before=problem.judge(x0), best=result.fun, at_truth=problem.judge(problem.pack(**TRUTH)),
            params=best, error=max(abs(best[name] / TRUTH[name] - 1.0) for name in FREE), refused=len(refused),
            by_guards=sum("guard: " in reason for reason in refused), state=kind, guards=said, message=result.message,
            value=result.history["value"].tolist(), way={name: [p[name] for p in way] for name in FREE},
            seconds=time.monotonic() - began, iterations=result.nit,
        )  # fmt: skip
        self.rows[label] = row
        with self.file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        return row

    def describe(self, params):
        """What grows at these parameters, and what the guards say about that run."""
        found = guards.watch(
            self.sim, self.start(np.random.default_rng(7)), params, steps=self.size.warmup, every=50, stop=False
        )
        v = found.final[1]
        kind = "no v left" if v.max() < 1e-3 else "uniform" if v.std() < 1e-3 else f"pattern, std v {v.std():.3f}"
        said = "; ".join(f"{alarm.guard} at step {alarm.step} ({alarm.number:.3g})" for alarm in found.alarms)
        return kind, said or "no alarm"

    def flow(self, params):
        """How far back a gradient is worth something."""
        y0 = self.start(np.random.default_rng(7))
        loss = named_losses.make("l2", [self.targets[0]])
        return guards.gradient_flow(self.sim, y0, params, loss, steps=min(self.size.warmup, 3000), points=40)


def check_same_size(file, size):
    """Refuse to mix the results of different sizes in one folder."""
    said = json.dumps(vars(size))
    if file.exists() and file.read_text() != said:
        raise SystemExit(f"{file.parent} holds results of another size, {file.read_text()}; give another --out.")
    file.write_text(said)


def table(rows):
    """Markdown of several descents; None is one that there was no time for."""
    lines = [
        "| run | loss at start | best | at truth | Du | Dv | F | k | worst error | refused trials (by a guard) "
        "| state there | guards | iterations | s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|---|--:|--:|",
    ]
    for row in rows:
        if row is None:
            lines.append("| not finished |" + " |" * 13)
            continue
        losses = " | ".join(f"{row[key]:.4g}" for key in ("before", "best", "at_truth"))
        found = " | ".join(f"{row['params'][name]:.4f}" for name in FREE)
        lines.append(
            f"| {row['label']} | {losses} | {found} | {row['error']:.0%} | {row['refused']} ({row['by_guards']}) "
            f"| {row['state']} | {row['guards']} | {row['iterations']} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def maps(experiment, names):
    """Landscapes over F and k, at the diffusivities of the truth and of the start; the lowest points."""
    size, out, sim = experiment.size, experiment.out, experiment.sim
    y0 = [experiment.start(np.random.default_rng(7))]
    losses = {name: named_losses.make(name, list(experiment.targets)) for name in names}
    axes = {"F": np.linspace(0.02, 0.07, size.points[0]), "k": np.linspace(0.04, 0.07, size.points[1])}
    steps = size.warmup + size.window
    for at, params in (("truth", TRUTH), ("start", experiment.reference)):
        if experiment.late():
            return
        found = landscape.scan(
            sim, y0, losses, params, axes, steps=steps, window=size.window, path=out / f"scan_{at}.npz", workers=2
        )
        landscape_plots.show(found, truth=TRUTH).savefig(out / f"landscape_{at}.png", dpi=70)
        for name in names:
            where = ", ".join(f"{key} {value:.4f}" for key, value in found.lowest(name).items())
            gradient = np.linalg.norm(found.gradients[name] * list(map(np.ptp, axes.values())), axis=-1)
            flat = np.mean(gradient < 1e-3 * np.nanmax(gradient))
            yield f"- Du, Dv of the {at}, {name}: lowest at {where}; gradient below 1e-3 of its largest on {flat:.0%}"


def pictures(experiment, rows):
    """The descents and what grows where they end."""
    rows = [row for row in rows if row is not None]
    histories = {row["label"].split(",")[0]: {"value": row["value"], **row["way"]} for row in rows}
    landscape_plots.training(histories, truth=TRUTH).savefig(experiment.out / "training.png", dpi=70)
    animations.training(histories, experiment.out / "training.gif", truth=TRUTH, frames=20)
    shown = {"truth": TRUTH, "reference start": experiment.reference}
    shown |= {row["label"].split(",")[0]: row["params"] for row in rows}
    steps = experiment.size.warmup
    grown = {
        label: experiment.sim.run(
            experiment.start(np.random.default_rng(7)), params, steps=steps, save_every=steps // 20
        ).states
        for label, params in list(shown.items())[:6]
    }
    animations.runs(grown, experiment.out / "runs.gif", scale=128 // experiment.size.shape[0])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="128x128, as in the source")
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long; the same command goes on")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--rules", nargs="+", default=list(optimize.METHODS), choices=optimize.METHODS)
    parser.add_argument("--losses", nargs="+", default=list(named_losses.NAMED), choices=named_losses.NAMED)
    given = parser.parse_args(arguments)
    if given.iterations is not None and given.iterations < 1:
        parser.error(f"--iterations {given.iterations} must be >= 1")
    warnings.simplefilter("ignore", rd.StabilityWarning)
    began = time.monotonic()
    size = FULL if given.full else SMALL
    if given.iterations:
        size = Size(**{**vars(size), "iterations": given.iterations})
    out = given.out or Path("reference_experiment_full" if given.full else "reference_experiment")
    out.mkdir(parents=True, exist_ok=True)
    check_same_size(out / "size.json", size)
    experiment = Experiment(size, out, given.seconds)
    shape = "x".join(map(str, size.shape))
    report = [f"# Reference experiment, {shape}, {size.iterations} iterations, batches of {size.batch}"]

    def say(text):
        print(text, flush=True)
        report.append(text)
        (out / "RESULTS.md").write_text("\n\n".join(report) + "\n")

    for name, params in (("reference start", experiment.reference), ("truth", TRUTH)):
        kind, said = experiment.describe(params)
        say(f"## At the {name}\n\nAfter {size.warmup} steps: {kind}; guards: {said}. Gradient flow (L2 to one target):")
        say(f"```\n{experiment.flow(params)}\n```")
    rule = "adam" if "adam" in given.rules else given.rules[0]
    by_loss = [experiment.descend(loss, rule, size.window) for loss in given.losses]
    say("## Each loss\n\n" + table(by_loss))
    for loss in (name for name in BOTH if name in given.losses):
        windows = [experiment.descend(loss, rule, window) for window in (size.short, size.window, None)]
        say(f"## Windows and full backpropagation, {loss}\n\n" + table(windows))
        rules = [experiment.descend(loss, each, size.window) for each in given.rules]
        say(f"## Each update rule, {loss}\n\n" + table(rules))
    near = [experiment.descend(loss, rule, size.window, "near") for loss in given.losses]
    near += [experiment.descend(loss, rule, None, "near") for loss in BOTH if loss in given.losses]
    say("## From 10 % off\n\n" + table(near))
    say("## Landscapes over F and k\n\n" + "\n".join(maps(experiment, given.losses)))
    if any(by_loss) and not experiment.late():
        pictures(experiment, by_loss)
        say("Pictures: landscape_truth.png, landscape_start.png, training.png, training.gif, runs.gif.")
    say(f"{time.monotonic() - began:.0f} s for this call, {sum(r['seconds'] for r in experiment.rows.values()):.0f} s "
        "in descents over all calls.")  # fmt: skip


if __name__ == "__main__":
    main()
