"""Some mutants of hand-derived functions; `validation/mutants.py` and `validation/mutants_numerics.py` try all."""

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


def test_no_mutant_of_schemes_grid_points_or_losses_survives():
    done = run("mutants_numerics.py", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    killed = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in killed] == ["cells:", "schemes:", "losses:"]
    assert all(words[1] == words[3] and int(words[1]) >= 8 for words in killed)  # "cells: 10 of 10 mutants killed"


def test_code_that_fails_its_own_checks_is_noticed():
    """The control: with a wrong seed the unchanged code does not pass, and mutants prove nothing."""
    wrong = (
        "import sys, mutants_numerics as m; m.losses.L2.seed = lambda self, y: 0 * y;"
        "sys.argv = ['mutants_numerics.py', '--quick', '--parts', 'losses']; sys.exit(m.main())"
    )
    done = run("-c", wrong)
    assert done.returncode == 1 and "losses: the unchanged code fails its checks" in done.stdout
