"""Fixtures that several files of tests use."""

import pytest

from adjoint_rd import cli


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
