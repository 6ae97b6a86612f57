"""Fixtures that several files of tests use; what differs without the JIT.

The kernels and all around them interpreted, with coverage of their lines, in a few minutes::

    cd tests && NUMBA_DISABLE_JIT=1 python -m pytest test_kernels.py test_batch.py test_reference.py test_gradient.py \\
        test_tangent_and_hessian.py test_checkpoint.py test_grid_and_stability.py test_validate.py test_bad_input*.py
"""

import pytest
from numba import config as numba_config

from adjoint_rd import cli

INTERPRETED = bool(numba_config.DISABLE_JIT)


def pytest_configure(config):
    if INTERPRETED:  # numbers overflow with a warning then
        config.addinivalue_line("filterwarnings", "ignore:(overflow|invalid value) encountered:RuntimeWarning")


def pytest_collection_modifyitems(items):
    if INTERPRETED:
        for item in items:
            if item.get_closest_marker("jit"):
                item.add_marker(pytest.mark.skip(reason="about compiled code; NUMBA_DISABLE_JIT is set"))


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The working directory is an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """Run the command line; (exit code, standard output, standard error)."""

    def run(*words):
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run
