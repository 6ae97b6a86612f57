"""All set-ups at once, interpreted: see `every_setup.py`."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_states_tangents_transposes_and_hessians_hold_in_every_setup():
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    done = subprocess.run(
        [sys.executable, str(HERE / "every_setup.py")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worst errors" in done.stdout
