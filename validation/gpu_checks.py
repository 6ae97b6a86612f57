"""Everything that is to be checked on a card, in one command; without a card, what can be checked there.

    python validation/gpu_checks.py [--quick] [--out FILE]

On a card, first: the tests marked `gpu` (each contract test on the card, gradients equal to the CPU's to 1e-12, Taylor
orders, the same bits twice), then `adjoint-rd bench --backend cuda` with the limits of issue 7. Anywhere: PTX of every
kernel for four compute capabilities, and the simulator in every set-up. Writes a Markdown block with date, card and
commit, ready for validation/RESULTS.md, and rewrites it after each part, so that a run that is cut off leaves what it
had; ends with 1 if anything failed or was missed. Where there is no git, COMMIT in the environment names the commit.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from adjoint_rd import BackendError, cuda_device  # noqa: E402


def run(title, *command):
    """Run a part, show its output as it comes, return (a line of Markdown on it, whether it succeeded)."""
    print(f"--- {title}", flush=True)
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    start, last = time.perf_counter(), "no output"
    command = [sys.executable, *command]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as part:
        for line in part.stdout:
            print(line, end="", flush=True)
            last = line.strip("=\n ") or last
    verdict = "ok" if part.returncode == 0 else "FAILED"
    return f"- {title}: {verdict}, {time.perf_counter() - start:.0f} s ({last})", part.returncode == 0


def about():
    """(a line on the card, the date and the commit; whether there is a card)."""
    from validation.bench import on_card

    try:
        cuda_device.module()
    except BackendError as error:
        when = f"date {time.strftime('%Y-%m-%d')}, commit {on_card.commit()}"
        return f"{when}\nCUDA: compiled and simulated, not yet run on a card ({error})", False
    return ", ".join(f"{name} {value}" for name, value in on_card.card().items()), True


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="the tests' selection of set-ups, and fewer rounds")
    p.add_argument("--out", type=Path, help="also write the Markdown block here")
    options = p.parse_args(argv)
    if importlib.util.find_spec("numba_cuda") is None:
        p.error(f"numba-cuda is missing: {cuda_device.INSTALL}")
    text, with_card = about()
    quick = ["--quick"] if options.quick else []
    tests = ["-m", "pytest", "tests/test_cuda.py", "-q", "-m"]
    figures = Path(tempfile.mkdtemp()) / "figures.md"
    parts = [
        ("PTX of every kernel, error messages", *tests, "not gpu"),
        ("simulator against the CPU", "tests/cuda_simulator.py", *([] if options.quick else ["--all"])),
    ]
    if with_card:
        speed = ["validation/bench/run.py", "--backend", "cuda", "--markdown", str(figures), *quick]
        parts = [("tests on the card", *tests, "gpu"), ("speed on the card", *speed), *parts]
    fine = []
    for part in parts:
        line, succeeded = run(*part)
        text += f"\n{line}"
        fine.append(succeeded)
        if options.out:
            measured = f"\n\n{figures.read_text()}" if figures.exists() else "\n"
            options.out.write_text(text + measured)
    print(text)
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
