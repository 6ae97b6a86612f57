"""Fault trials: processes killed, interrupted, out of disk, and files damaged, with counts of what was lost.

    python validation/faults.py [--trials 100] [--parts kill,interrupt,full,damage] [--log faults.jsonl]

kill        A fit by `adjoint_rd.minimize` with a checkpoint file is killed (SIGKILL) at a random moment and resumed to
            its end by another process. It must end with the numbers of a fit that was left alone, to the last bit, and
            no iteration that had been reported may be lost.
interrupt   Ctrl-C (SIGINT) at a random moment; every third time twice. The fit must come back within 0.5 s with the
            best point so far (a second Ctrl-C may raise instead), and resume to the same numbers.
full        Writing fails after a random number of bytes (RLIMIT_FSIZE), on /dev/full and on a full tmpfs where one can
            be mounted. The file before must stay as it was, nothing may be left beside it, the error must carry the
            best point, and the fit must resume.
damage      A checkpoint or a saved run is truncated, or one bit of it flipped. It must be refused, or give way to the
            generation before it, or (a bit that means nothing) read the same numbers: never others.

Prints one line a part and exits with 1 if anything was lost or silently wrong. With --log, trials that are in the file
are not repeated. Needs a POSIX system.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import adjoint_rd as rd
from adjoint_rd import files

warnings.simplefilter("ignore")
ITERATIONS = 60
ALLOWED_SECONDS = 0.5
INTERRUPTED = 5  # the status of a fit that Ctrl-C ended
METHODS = ("adam", "lbfgs", "bb", "gd", "momentum")


# ------------------------------------------------------------------------------------------------------ fits


def objective(cells=24, steps=20, threads=1):
    sim = rd.Simulation("gray_scott", rd.Grid((cells, cells)), dt=1.0, threads=threads)
    y0 = sim.initial_state("square", rng=0)
    target = sim.run(y0, dict(Du=0.16, Dv=0.08, F=0.035, k=0.065), steps=steps).final
    obj = rd.Objective(sim, y0, rd.losses.L2(target), steps=steps, free=("Du", "Dv", "F", "k"))
    return obj, obj.pack(Du=0.14, Dv=0.07, F=0.04, k=0.06)


def fit(path, number, report=None, **options):
    """The fit of a trial: the method goes round."""
    obj, x0 = objective(**options)
    callback = None if report is None else lambda intermediate_result: report(intermediate_result.nit)
    return rd.minimize(
        obj, x0, method=METHODS[number % len(METHODS)], maxiter=ITERATIONS, tol=0.0, checkpoint=path,
        checkpoint_every=1, resume=True, callback=callback,
    )  # fmt: skip


def identity(result):
    """Everything that two equal fits share, to the last bit."""
    numbers = [result.x, result.jac, result.x_last, *result.history.values()]
    return [result.fun, result.nit, result.nfev, len(result.trials), *(np.asarray(n).tobytes().hex() for n in numbers)]


def in_a_child(function):
    """(process, file): `function(report)` runs in a forked process; what it reports are JSON lines."""
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return process, os.fdopen(read, "rb")
    try:
        os.close(read)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function(lambda *values: os.write(write, (json.dumps(values) + "\n").encode()))
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def reports(file):
    with file:
        return [json.loads(line) for line in file.read().splitlines() if line.endswith(b"]")]


def finish(path, number, **options):
    """The identity of the fit resumed by another process."""
    process, file = in_a_child(lambda report: report(identity(fit(path, number, **options))))
    found = reports(file)
    os.waitpid(process, 0)
    return found[-1][0] if found else None


# ----------------------------------------------------------------------------------------------------- parts


def kill(number, rng, folder):
    path = folder / "fit.npz"
    whole, seconds = reference(number)
    process, file = in_a_child(lambda report: fit(path, number, report))
    time.sleep(rng.uniform(0.0, 1.1 * seconds))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    seen = reports(file)
    reported = seen[-1][0] if seen else 0
    kept = files.read_archive(path, "adjoint_rd.minimize", 2)[0]["state"]["iteration"] if path.exists() else 0
    equal = finish(path, number) == whole
    lost = kept < reported
    return dict(ok=equal and not lost, equal=equal, lost=lost, iteration=kept)


def interrupt(number, rng, folder):
    """Once more, earlier, if the fit was done before the signal came."""
    options = dict(threads=2) if number % 2 else dict(cells=128, steps=40)
    whole, seconds = reference(number, **options)
    for attempt in range(8):
        path = folder / f"fit{attempt}.npz"
        row = interrupted(path, number, options, rng.uniform(0.0, seconds * 0.6**attempt), rng.uniform(0.0, 0.05))
        if row["how"] != "too late":
            break
    row["equal"] = finish(path, number, **options) == whole
    row["ok"] = row.pop("good") and row["equal"] and row["seconds"] <= ALLOWED_SECONDS
    return row


def interrupted(path, number, options, delay, second):
    def run(report):
        report("ready")
        result = fit(path, number, **options)
        report("done", time.time(), result.status, None, None)  # a signal that comes now is too late
        report("done", time.time(), result.status, result.fun, objective(**options)[0](result.x))

    process, file = in_a_child(run)
    file.readline()
    time.sleep(delay)
    sent = time.time()
    os.kill(process, signal.SIGINT)
    if number % 3 == 0:
        time.sleep(second)
        os.kill(process, signal.SIGINT)
    seen = reports(file)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    took = (seen[0][1] if seen else time.time()) - sent
    if seen and seen[-1][2] != INTERRUPTED:
        return dict(good=False, how="too late", seconds=0.0)
    how = {0: "returned", 130: "raised"}.get(code, f"exit {code}")
    if how == "raised" and number % 3 and path.exists():
        how = "raised though there was a point"  # before the first value there is none to give back
    best = not seen or seen[-1][3] == seen[-1][4]
    return dict(good=how in ("returned", "raised") and best, how=how, seconds=took)


def full(number, rng, folder):
    ways = [limited, on_a_full_device, on_a_small_disk]
    return ways[2 if number % 10 == 9 else 1 if number % 10 == 8 else 0](number, rng, folder)


def limited(number, rng, folder):
    """Writing fails with EFBIG after a random number of bytes."""
    path = folder / "fit.npz"
    whole, _ = reference(number)
    kept, size = interrupted_at(path, number, 20)
    limit = int(rng.integers(0, size))

    def run(report):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            fit(path, number)
            report("nothing raised")
        except OSError as error:
            report(type(error).__name__, getattr(error, "result", None) is not None)

    process, file = in_a_child(run)
    seen = reports(file)
    os.waitpid(process, 0)
    return judge(path, number, whole, kept, seen, f"after {limit} bytes")


def on_a_full_device(number, rng, folder):
    """What the command line prints goes to /dev/full: it says so and fails."""
    command = [sys.executable, "-m", "adjoint_rd", "simulate", "--list-presets"]
    with open("/dev/full", "w") as device:
        done = subprocess.run(command, stdout=device, stderr=subprocess.PIPE, text=True, env=environment())
    return dict(ok=done.returncode != 0 and "No space left" in done.stderr, how="/dev/full", equal=True)


def on_a_small_disk(number, rng, folder):
    """Writing fails with ENOSPC on a tmpfs of 64 kB."""
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        return dict(ok=True, how="tmpfs cannot be mounted here", equal=True)
    try:
        path = disk / "fit.npz"
        whole, _ = reference(number)
        kept, _ = interrupted_at(path, number, 20)
        room = os.statvfs(disk)
        (disk / "other").write_bytes(b"x" * max(room.f_bavail * room.f_frsize - int(rng.integers(0, 8192)), 0))

        def run(report):
            try:
                fit(path, number)
                report("nothing raised")
            except (OSError, rd.InputError) as error:
                report(type(error).__name__, True)

        process, file = in_a_child(run)
        seen = reports(file)
        os.waitpid(process, 0)
        (disk / "other").unlink()
        return judge(path, number, whole, kept, seen, "tmpfs")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def interrupted_at(path, number, iteration):
    """A fit that stopped: the bytes of its checkpoint, and their number."""

    def stop(nit):
        if nit == iteration:
            raise StopIteration

    process, file = in_a_child(lambda report: fit(path, number, stop))
    reports(file)
    os.waitpid(process, 0)
    return path.read_bytes(), path.stat().st_size


def judge(path, number, whole, kept, seen, how):
    raised = bool(seen) and seen[-1][0] != "nothing raised"
    intact = path.exists() and (path.read_bytes() == kept or not raised or later(path))
    litter = [each.name for each in path.parent.iterdir() if each.name.endswith(".part")]
    equal = finish(path, number) == whole
    with_result = not raised or seen[-1][1]
    return dict(ok=intact and not litter and equal and with_result, equal=equal, how=how, raised=raised)


def later(path):
    """Whether the file is a whole one of a later iteration, written before the failure."""
    try:
        return files.read_archive(path, "adjoint_rd.minimize", 2)[0]["state"]["iteration"] >= 20
    except rd.InputError:
        return False


def damage(number, rng, folder):
    return (damaged_checkpoint if number % 2 else damaged_run)(number, rng, folder)


def damaged_checkpoint(number, rng, folder):
    path = folder / "fit.npz"
    options = dict(method="lbfgs", tol=0.0, checkpoint=path, checkpoint_every=1)
    whole = rd.minimize(rosenbrock, [-1.2, 1.0], maxiter=12, **options)
    for stale in (path, files.previous(path)):
        stale.unlink()
    rd.minimize(rosenbrock, [-1.2, 1.0], maxiter=6, **options)
    how = spoil(path, number, rng)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = rd.minimize(rosenbrock, [-1.2, 1.0], maxiter=12, resume=True, **options)
    equal = identity(again) == identity(whole)
    noticed = any("Continuing from the generation before it" in str(each.message) for each in caught)
    return dict(ok=equal, equal=equal, how=how, noticed=noticed)


def damaged_run(number, rng, folder):
    path = folder / "run.npz"
    sim = rd.Simulation("gray_scott", rd.Grid((9, 8)), dt=1.0)
    run = sim.run(sim.initial_state("square", rng=0), dict(Du=0.16, Dv=0.08, F=0.035, k=0.065), steps=4, save_every=1)
    run.save(path)
    how = spoil(path, number, rng)
    try:
        found = rd.load(path)
    except rd.InputError:
        return dict(ok=True, equal=True, how=how, noticed=True)
    equal = found.params == run.params and (found.dt, found.spacing, found.model) == (run.dt, run.spacing, run.model)
    equal &= all(
        getattr(found, name).tobytes() == getattr(run, name).tobytes() for name in ("final", "states", "steps")
    )
    return dict(ok=equal, equal=equal, how=how, noticed=False)


def spoil(path, number, rng):
    content = bytearray(path.read_bytes())
    if number % 4 < 2:
        path.write_bytes(content[: int(rng.integers(0, len(content)))])
        return "truncated"
    content[int(rng.integers(0, len(content)))] ^= 1 << int(rng.integers(0, 8))
    path.write_bytes(content)
    return "bit flipped"


def rosenbrock(x):
    a, b = x
    return (1 - a) ** 2 + 100 * (b - a * a) ** 2, np.array([2 * (a - 1) - 400 * a * (b - a * a), 200 * (b - a * a)])


# ------------------------------------------------------------------------------------------------------ table

PARTS = {"kill": kill, "interrupt": interrupt, "full": full, "damage": damage}
_references = {}


def reference(number, **options):
    """(identity, seconds) of the fit that is left alone, with its file."""
    key = (number % len(METHODS), *sorted(options.items()))
    if key not in _references:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            found = finish(Path(folder) / "fit.npz", number, **options)
            _references[key] = found, time.perf_counter() - began
    return _references[key]


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


def done_before(log):
    if log is None or not log.exists():
        return {}
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {(row["part"], row["number"]): row for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100, metavar="N", help="of each part (default 100)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"default {','.join(PARTS)}")
    parser.add_argument("--log", type=Path, metavar="FILE", help="JSON lines; trials in it are not repeated")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so many")
    options = parser.parse_args()
    obj, x0 = objective()  # imports are done and kernels compiled (or read from the disk) before any child is made:
    rd.minimize(obj, x0, maxiter=1)  # extension modules turn a Ctrl-C while they are imported into an ImportError
    before, rows, began = done_before(options.log), [], time.monotonic()
    for part in options.parts.split(","):
        for number in range(options.trials):
            row = before.get((part, number))
            if row is None:
                if time.monotonic() - began > options.seconds:
                    break
                folder = Path(tempfile.mkdtemp(prefix="faults-"))
                try:
                    rng = np.random.default_rng([list(PARTS).index(part), number])
                    row = dict(part=part, number=number, **PARTS[part](number, rng, folder))
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                if options.log:
                    with options.log.open("a") as file:
                        file.write(json.dumps(row) + "\n")
            rows.append(row)
        report(part, [row for row in rows if row["part"] == part])
    return 0 if all(row["ok"] for row in rows) else 1


def report(part, rows):
    if not rows:
        return
    good, equal = sum(row["ok"] for row in rows), sum(row["equal"] for row in rows)
    text = f"{part:10} {good} of {len(rows)} as required; {equal} ended with the same bits"
    if part == "kill":
        at = sorted(row["iteration"] for row in rows)
        text += f"; {sum(row['lost'] for row in rows)} lost an iteration; killed at iteration {at[0]} .. {at[-1]}"
    if part == "interrupt":
        took = sorted(row["seconds"] for row in rows)
        text += f"; back after {took[len(took) // 2]:.3f} s (median), {took[-1]:.3f} s (most)"
    if part == "damage":
        text += f"; {sum(row['noticed'] for row in rows)} noticed, {len(rows) - equal} silently wrong"
    if part != "kill":
        kinds = Counter(row["how"].split(" ")[0] if part == "full" else row["how"] for row in rows)
        text += f" ({', '.join(f'{count} {how}' for how, count in sorted(kinds.items()))})"
    print(text, flush=True)
    for row in rows:
        if not row["ok"]:
            print(f"  FAILED {row}")


if __name__ == "__main__":
    sys.exit(main())
