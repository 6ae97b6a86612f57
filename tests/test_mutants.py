"""One mutant of each hand-derived function; `validation/mutants.py` tries all of them."""

import subprocess
import sys
from pathlib import Path

VALIDATION = Path(__file__).parent.parent / "validation"


def run(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, cwd=VALIDATION)


def test_no_mutant_gets_past_a_check_that_exercises_it():
    done = run("mutants.py", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 20 mutants fail every check" in done.stdout
    unchanged = [line for line in done.stdout.splitlines() if "as it is" in line]
    assert len(unchanged) == 4
    assert not any("FAILED" in line for line in unchanged)


def test_a_blind_check_is_noticed():
    """The control: the gradient does not use reaction_j, so its Taylor test cannot see a mutant of that."""
    blind = (
        "import sys, mutants; mutants.EXERCISED_BY['reaction_j'] += ('Taylor 2',);"
        "sys.argv = ['mutants.py', '--quick', '--model', 'allen_cahn']; sys.exit(mutants.main())"
    )
    done = run("-c", blind)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "allen_cahn.reaction_j, drop u: gets past Taylor 2" in done.stdout
