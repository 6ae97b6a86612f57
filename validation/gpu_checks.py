"""Everything that is to be checked on a card, in one command; without a card, what can be checked there.

    python validation/gpu_checks.py [--quick] [--out FILE]

On a card: the tests marked `gpu` (each contract test on the card, gradients equal to the CPU's to 1e-12, Taylor orders,
the same bits twice), then `adjoint-rd bench --backend cuda` with the limits of issue 7. Anywhere: PTX of every kernel
for four compute capabilities, and the simulator in every set-up. Writes a Markdown block with date, card and commit,
ready for validation/RESULTS.md; ends with 1 if anything failed or was missed.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from adjoint_rd import BackendError, cuda_device  # noqa: E402


def run(title, *command):
    """Run a part, show its output, return (its last lines, whether it succeeded)."""
    print(f"--- {title}", flush=True)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, flush=True)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    verdict = "ok" if done.returncode == 0 else "FAILED"
    return f"- {title}: {verdict}, {time.perf_counter() - start:.0f} s ({last.strip('= ')})", done.returncode == 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="the tests' selection of set-ups, and fewer rounds")
    p.add_argument("--out", type=Path, help="also write the Markdown block here")
    options = p.parse_args()
    if importlib.util.find_spec("numba_cuda") is None:
        p.error(f"numba-cuda is missing: {cuda_device.INSTALL}")
    try:
        cuda_device.module()
        missing = None
    except BackendError as error:
        missing = str(error)
    parts = [
        ("PTX of every kernel, error messages", "-m", "pytest", "tests/test_cuda.py", "-q", "-m", "not gpu"),
        ("simulator against the CPU", "tests/cuda_simulator.py", *([] if options.quick else ["--all"])),
    ]
    lines = []
    if missing is None:
        from validation.bench import on_card as bench

        lines.append(", ".join(f"{name} {value}" for name, value in bench.card().items()))
        quick = ["--quick"] if options.quick else []
        parts += [
            ("tests on the card", "-m", "pytest", "tests/test_cuda.py", "-q", "-m", "gpu"),
            ("speed on the card", "validation/bench/run.py", "--backend", "cuda", *quick),
        ]
    else:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        lines.append(f"date {time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}")
        lines.append(f"CUDA: compiled and simulated, not yet run on a card ({missing})")
    results = [run(*part) for part in parts]
    text = "\n".join(lines + [line for line, _ in results]) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0 if all(fine for _, fine in results) else 1


if __name__ == "__main__":
    sys.exit(main())
