"""Gradients of Gray-Scott by adjoint_rd and by what else there is: compared first, then timed in interleaved rounds.

    python validation/bench/run.py                      everything (about half an hour)
    python validation/bench/run.py --quick              128^2, five rounds, no scaling (about two minutes)
    python validation/bench/run.py --backend cuda       on an NVIDIA card, see on_card.py
    python validation/bench/run.py --peers c,jax,torch:compile --sizes 128,512 --dtype float32 --threads 1,2

Each peer runs in a process of its own, pinned to as many cores as it is given threads. Ends with 1 if a peer's
gradient was
wrong or the baseline did not run, 2 on bad input. What a table's columns mean is said below it and in report.py.
"""

import argparse
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from validation.bench import harness, memory, peers, report  # noqa: E402
from validation.bench.problem import Problem, default_steps  # noqa: E402

SCALING_SIZES = (128, 256, 512, 1024, 2048)
SCALING_STEPS = (100, 1000, 10_000)


def machine():
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        flags = next((line for line in lines if line.startswith("flags")), "").split()
        cpu += next((f" ({name})" for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
        total = int(Path("/proc/meminfo").read_text().partition("MemTotal:")[2].split()[0]) / 2**20
    except (OSError, IndexError):
        total = memory.available() / 2**30
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"cpu": cpu, "cores": count, "memory_gib": total, "system": system}


def log(text, end="\n"):
    print(text, end=end, file=sys.stderr, flush=True)


def chosen(text):
    """[(peer, variant)] of a list such as "c,jax,torch:compile"; a name alone means all its variants."""
    out = []
    for item in text.split(","):
        name, _, variant = item.strip().partition(":")
        known = peers.load(name).VARIANTS
        if variant and variant not in known:
            raise ValueError(f"{name} has no variant {variant!r}: known are {', '.join(v or '(plain)' for v in known)}")
        out += [(name, v) for v in ([variant] if ":" in item else known)]
    return out


def compare(selection, baseline, problem, threads, options):
    """One table: a dict as written to JSON."""
    log(f"{problem.n} x {problem.n}, {problem.steps} steps, {problem.dtype}, {threads} thread(s)")
    expected = harness.reference(problem, options.timeout, log)
    jobs = [harness.Job(name, problem, threads, variant) for name, variant in selection if (name, variant) != baseline]
    base = harness.Job(baseline[0], problem, threads, baseline[1])
    rows = harness.measure(jobs, base, rounds=options.rounds, expected=expected, timeout=options.timeout, log=log)
    triad = median(rows[0].triad) if rows[0].triad else None
    rows[0].base_gradient, rows[0].base_forward = rows[0].gradient, rows[0].forward
    return {
        "problem": problem.as_dict(), "threads": threads, "baseline": base.label, "triad": triad,
        "rows": [row.as_dict() for row in rows],
    }  # fmt: skip


def scaling(baseline, options):
    """How the baseline's cost grows with size, steps and threads: {axis: rows}. Gradients were compared before."""
    dtype = options.dtypes[0]

    def measured(problems_threads):
        jobs = [harness.Job(baseline[0], problem, threads, baseline[1]) for problem, threads in problems_threads]
        rows = harness.measure(jobs[1:], jobs[0], rounds=options.rounds, timeout=options.timeout, log=log)
        return [row.as_dict() for row in rows]

    log("scaling over size")
    out = {"size": measured([(Problem(n, default_steps(n), dtype), 1) for n in options.scaling_sizes])}
    log("scaling over steps at 256 x 256")
    out["steps"] = measured([(Problem(256, steps, dtype), 1) for steps in options.scaling_steps])
    most = machine()["cores"]
    threads = [t for t in sorted({1, 2, most}) if t <= most]
    for n in options.thread_sizes:
        log(f"scaling over threads at {n} x {n}")
        rows = []  # one measurement for each number of threads: its triad must have as many
        for t in threads:
            rows += measured([(Problem(n, default_steps(n), dtype), t)])
        out[f"threads, {n}"] = rows
    return out


def parser():
    p = argparse.ArgumentParser(
        prog="adjoint-rd bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--backend", choices=("cpu", "cuda"), default="cpu", help="cuda: has options of its own, add --help")
    p.add_argument("--peers", default=",".join(peers.NAMES), help="names, or name:variant; default: all of %(default)s")
    p.add_argument("--sizes", help="grid points per side (default 128,256,512,1024; quick: 128)")
    p.add_argument("--steps", type=int, help="steps of every run (default: by size, 400 at 128^2 to 50 at 1024^2)")
    p.add_argument("--dtype", default="float64", help="float64, float32 or both, separated by a comma")
    p.add_argument("--threads", default="1", help="numbers of threads, e.g. 1,2")
    p.add_argument("--rounds", type=int, help="rounds, 5 at least (default 7; quick: 5)")
    p.add_argument("--quick", action="store_true", help="128^2 only, five rounds, no scaling")
    p.add_argument("--no-scaling", dest="scaling", action="store_false", help="leave the scaling runs out")
    p.add_argument("--scaling-sizes", default=",".join(map(str, SCALING_SIZES)), help="default %(default)s")
    p.add_argument(
        "--scaling-steps", default=",".join(map(str, SCALING_STEPS)), help="steps at 256^2, default %(default)s"
    )
    p.add_argument(
        "--baseline", default="ours", help="what ratios refer to, a peer or peer:variant (default %(default)s)"
    )
    p.add_argument(
        "--timeout", type=float, default=900.0, help="seconds that one answer of a peer may take (default %(default)g)"
    )
    p.add_argument("--json", type=Path, metavar="OUT", help="write everything measured")
    p.add_argument("--plot", type=Path, metavar="OUT", help="write a plot (PNG, PDF or SVG)")
    p.add_argument("--markdown", type=Path, metavar="OUT", help="write the report as Markdown")
    return p


def parse(argv):
    p = parser()
    options = p.parse_args(argv)
    try:
        options.selection = chosen(options.peers)
        options.base = (chosen(options.baseline) or [("ours", "")])[0]
        options.sizes = [int(x) for x in (options.sizes or ("128" if options.quick else "128,256,512,1024")).split(",")]
        options.threads = [int(x) for x in options.threads.split(",")]
        options.dtypes = options.dtype.split(",")
        options.scaling_sizes = [int(x) for x in options.scaling_sizes.split(",")]
        options.scaling_steps = [int(x) for x in options.scaling_steps.split(",")]
    except ValueError as error:
        p.error(str(error))
    options.thread_sizes = [n for n in (256, 512, 1024) if n <= max(options.scaling_sizes)]
    options.rounds = options.rounds or (5 if options.quick else 7)
    options.scaling = options.scaling and not options.quick
    if options.rounds < 5:
        p.error(f"--rounds {options.rounds}: a median of fewer than 5 says little; give 5 or more")
    if any(n < 4 for n in options.sizes):
        p.error("--sizes: grids of 4 x 4 at least")
    if unknown := [d for d in options.dtypes if d not in harness.TOLERANCE]:
        p.error(f"--dtype {unknown[0]}: known are float64 and float32")
    have = machine()["cores"]
    if any(not 1 <= t <= have for t in options.threads):
        p.error(f"--threads {max(options.threads)}: this process may use 1 to {have} cores")
    return options


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    chooser = argparse.ArgumentParser(prog="adjoint-rd bench", add_help=False)
    chooser.add_argument("--backend", choices=("cpu", "cuda"), default="cpu")
    chosen_backend, rest = chooser.parse_known_args(argv)
    if chosen_backend.backend == "cuda":
        from validation.bench import on_card

        return on_card.main(rest)
    options = parse(rest)
    comparisons = [
        compare(options.selection, options.base, Problem(n, options.steps or default_steps(n), dtype), threads, options)
        for dtype in options.dtypes
        for threads in options.threads
        for n in options.sizes
    ]
    results = {
        "date": date.today().isoformat(), "machine": machine(), "rounds": options.rounds, "comparisons": comparisons,
        "versions": {name: v for c in comparisons for row in c["rows"] for name, v in row["versions"].items()},
        "scaling": scaling(options.base, options) if options.scaling else {},
    }  # fmt: skip
    print(report.text(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
        log(f"wrote {options.json}")
    if options.markdown:
        options.markdown.write_text(report.text(results, markdown=True) + "\n")
        log(f"wrote {options.markdown}")
    if options.plot:
        report.plot(results, options.plot)
        log(f"wrote {options.plot}")
    wrong = [
        row
        for c in comparisons
        for row in c["rows"]
        if row["error"] is not None and row["skipped"] and not row["gradient"]
    ]
    dead = [c for c in comparisons if c["rows"][0]["skipped"]]
    return 1 if wrong or dead else 0


if __name__ == "__main__":
    sys.exit(main())
