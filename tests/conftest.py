"""Fixtures that several files of tests use; what differs without the JIT."""

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
