"""Measures jobs against a baseline in rounds: all workers stay alive and take turns, so that drift of the machine hits
all alike.

A job is (peer, variant, problem, threads). Before it is timed its gradient is compared with a reference; a wrong one
is not timed.
Each sample is the median of a few calls in one turn; ratios are taken within a round; a row reports the median of its
rounds.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from validation.bench import memory, peers
from validation.bench.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
TURN = 0.15  # seconds that a turn should last at least
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "TORCHINDUCTOR_COMPILE_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    peer: str
    problem: Problem
    threads: int = 1
    variant: str = ""

    @property
    def label(self):
        return f"{self.peer}:{self.variant}" if self.variant else self.peer

    @property
    def stored_bytes(self):
        """An estimate of what one gradient keeps."""
        p = self.problem
        return peers.load(self.peer).stored(self.variant) * p.words * p.itemsize * p.steps


@dataclass
class Row:
    """What was measured of one job; times in seconds per call, one entry a round."""

    job: Job
    prepare: float = 0.0
    first: float = 0.0
    peak: int = 0
    error: float | None = None
    gradient: list = field(default_factory=list)
    forward: list = field(default_factory=list)
    base_gradient: list = field(default_factory=list)
    base_forward: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    triad: list = field(default_factory=list)
    versions: dict = field(default_factory=dict)
    skipped: str = ""

    def ratio(self, what="gradient"):
        """(median, least, most) of this row's time over the baseline's, pair by pair; None where one has no such
        call."""
        pairs = list(zip(getattr(self, what), getattr(self, "base_" + what), strict=False))
        if not pairs:
            return None
        ratios = [mine / base for mine, base in pairs]
        return median(ratios), min(ratios), max(ratios)

    def per_cell_step(self, what="gradient"):
        """Nanoseconds per cell and step."""
        times, p = getattr(self, what), self.job.problem
        return 1e9 * median(times) / (p.words * p.steps) if times else None

    def as_dict(self):
        out = {name: value for name, value in vars(self).items() if name != "job"}
        p = self.job.problem
        out |= {
            "peer": self.job.peer,
            "variant": self.job.variant,
            "label": self.job.label,
            "threads": self.job.threads,
        }
        out |= {"problem": p.as_dict(), "ratio": self.ratio(), "ratio_forward": self.ratio("forward")}
        out |= {"ns_per_cell_step": self.per_cell_step(), "ns_per_cell_step_forward": self.per_cell_step("forward")}
        return out


class WorkerError(RuntimeError):
    """A worker could not do what was asked; .missing if only because its library is not installed."""

    def __init__(self, text, missing=False):
        super().__init__(text)
        self.missing = missing


class Worker:
    def __init__(self, job, timeout):
        self.job, self.timeout, self.reps, self.expected = job, timeout, {}, {}
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(job.threads))
        if job.peer == "jax":
            eigen = str(job.threads > 1).lower()
            flags = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={job.threads}"
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "validation.bench.worker"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.noise, bufsize=0,
        )  # fmt: skip

    def ask(self, do, **request):
        try:
            self.process.stdin.write((json.dumps({"do": do, **request}) + "\n").encode())
            if not select.select([self.process.stdout], [], [], self.timeout)[0]:
                raise WorkerError(f"no answer within {self.timeout:g} s")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self.noise.seek(0)
            tail = self.noise.read().decode(errors="replace").strip()[-300:]
            raise WorkerError(f"the process ended with code {self.process.wait()}: {tail}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"], reply["missing"])
        return reply

    def prepare(self):
        p, threads = self.job.problem, self.job.threads
        return self.ask(
            "prepare",
            peer=self.job.peer,
            variant=self.job.variant,
            problem=p.as_dict(),
            threads=threads,
            cores=cores(threads),
        )

    def sample(self, what):
        """(seconds per call, wall over CPU time) of one turn."""
        expected = self.expected.get(what)
        if expected is None:
            expected = self.ask("time", what=what, reps=1, warm=True, limit=TURN)["wall"][0]
        reps = max(1, min(50, round(TURN / max(expected, 1e-6))))
        reply = self.ask("time", what=what, reps=reps, warm=expected < 2 * TURN, limit=3 * TURN)
        self.expected[what] = median(reply["wall"])
        wall, cpu = sum(reply["wall"]), sum(reply["cpu"]) / self.job.threads
        return median(reply["wall"]), wall / max(cpu, 1e-9)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.noise.close()


def cores(threads):
    """The cores that a worker may use: the last ones allowed to us (interrupts tend to land on the first)."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))[-threads:]


def reference(problem, timeout, log):
    """{name: array} of the gradient by the NumPy peer in float64, from the same start in the problem's own dtype."""
    job = Job("numpy", problem)
    with tempfile.TemporaryDirectory(prefix="adjoint_rd_bench_") as folder:
        path = Path(folder) / "reference.npz"
        log(f"reference: NumPy float64, {problem.n}^2, {problem.steps} steps")
        _reference_process(job.problem, path, timeout)
        with np.load(path) as file:
            return {name: file[name] for name in file.files}


def _reference_process(problem, path, timeout):
    code = (
        "import sys, json, numpy as np; from validation.bench.problem import Problem, PARAMS;"
        "from validation.bench.peers import numpy_peer; p = Problem(**json.loads(sys.argv[1]));"
        "t = None if p.zero_target else p.target().astype('float64');"
        "c = numpy_peer.prepare(p.n, 'float64', p.steps, p.initial().astype('float64'), PARAMS, 1, target=t, dt=p.dt);"
        "v, g, y = c.gradient(); np.savez(sys.argv[2], value=v, initial=y, **g)"
    )
    command = [sys.executable, "-c", code, json.dumps(problem.as_dict()), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise WorkerError(f"the NumPy reference failed: {done.stderr.strip()[-300:]}")


def error_of(result, expected):
    """Largest relative error over value, each parameter and the initial state (maximum norms)."""
    worst = 0.0
    for name, want in expected.items():
        got = np.asarray(result[name], "float64")
        if got.shape != want.shape or not np.isfinite(got).all():
            return float("inf")
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return worst


def _start(job, expected, timeout, log):
    """A worker ready to be timed with its row so far, or None and the row that says why not."""
    row = Row(job)
    limit = peers.load(job.peer).MAX_THREADS
    if limit is not None and job.threads > limit:
        row.skipped = f"uses {limit} thread{'s' * (limit > 1)} at most"
        return None, row
    worker = Worker(job, timeout)
    try:
        reply = worker.prepare()
        row.prepare, row.versions = reply["seconds"], reply["versions"]
        if "gradient" in reply["has"]:
            with tempfile.TemporaryDirectory(prefix="adjoint_rd_bench_") as folder:
                path = Path(folder) / "gradient.npz"
                answer = worker.ask("first", save=str(path) if expected is not None else None)
                if expected is not None:
                    with np.load(path) as file:
                        row.error = error_of(file, expected)
            row.first, row.peak = answer["seconds"], answer["peak"]
            tolerance = TOLERANCE[job.problem.dtype]
            if row.error is not None and not row.error <= tolerance:
                raise WorkerError(f"its gradient is off by {row.error:.1e} relative (allowed {tolerance:.0e})")
            what = "" if row.error is None else f"gradient error {row.error:.1e}, "
            log(
                f"  {job.label}: {what}prepared in {row.prepare:.1f} s, first call {row.first:.2f} s, "
                f"+{row.peak / 2**20:.0f} MiB"
            )
        worker.has = reply["has"]
    except WorkerError as problem:
        worker.close()
        row.skipped = str(problem)
        log(f"  {job.label}: {row.skipped}")
        return None, row
    return worker, row


def measure(jobs, baseline, *, rounds=7, expected=None, timeout=900.0, log=lambda text: None):
    """Rows of `baseline` (first) and of `jobs`, in the order given. Peers share rounds as far as memory allows."""
    base, base_row = _start(baseline, expected, timeout, log)
    if base is None:
        return [base_row] + [Row(job, skipped="the baseline does not run") for job in jobs]
    triad, _ = _start(Job("triad", baseline.problem, baseline.threads), None, timeout, log)
    rows, group = [base_row], []
    try:
        for job in jobs:
            need = job.stored_bytes + (1 << 29)
            if group and need > 0.8 * memory.available():
                _rounds(base, base_row, triad, group, rounds, log)
                group = _close(group)
            if need > 0.8 * memory.available():
                rows.append(
                    Row(
                        job,
                        skipped=f"would keep about {need / 2**30:.1f} GiB; {memory.available() / 2**30:.1f} are free",
                    )
                )
                continue
            worker, row = _start(job, expected, timeout, log)
            rows.append(row)
            if worker is not None:
                group.append((worker, row))
        if group or not base_row.gradient:
            _rounds(base, base_row, triad, group, rounds, log)
    finally:
        for worker in [base, *([triad] if triad else []), *(w for w, _ in group)]:
            worker.close()
    return rows


def _close(group):
    for worker, _ in group:
        worker.close()
    return []


def _rounds(base, base_row, triad, group, rounds, log):
    for r in range(rounds):
        log(f"  round {r + 1} of {rounds}", end="\r")
        mine = {what: _turn(base, base_row, what) for what in base.has}
        seconds = triad.sample("forward")[0] if triad else None
        shift = r % max(1, len(group))
        for worker, row in group[shift:] + group[:shift]:
            if row.skipped:
                continue
            try:
                for what in worker.has:
                    _turn(worker, row, what)
                    if what in mine:
                        getattr(row, "base_" + what).append(mine[what])
            except WorkerError as problem:
                row.skipped = str(problem)
                log(f"  {row.job.label}: {row.skipped}")
        if triad:
            from validation.bench.triad import BYTES

            for row in [base_row, *(row for _, row in group)]:
                row.triad.append(BYTES / seconds)
    log("")


def _turn(worker, row, what):
    seconds, waiting = worker.sample(what)
    getattr(row, what).append(seconds)
    row.waiting.append(waiting)
    return seconds
