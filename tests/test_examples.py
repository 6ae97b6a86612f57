"""Every example runs, at small size, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = {
    "quickstart.py": "48",
    "fit_well_file.py": ". 1",
    "reference_experiment.py": "--iterations 1 --losses l2 --rules adam --out .",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example, tmp_path):
    if example.name == "fit_well_file.py":
        pytest.importorskip("h5py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error::DeprecationWarning", example, *SMALL.get(example.name, "").split()]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip()
    if example.name == "quickstart.py":
        errors = [abs(float(line.rpartition("error ")[2])) for line in found.stdout.splitlines() if "truth" in line]
        assert len(errors) == 4 and max(errors) < 1e-6
    if example.name == "fit_well_file.py":
        assert (tmp_path / "fit.png").stat().st_size > 10_000
