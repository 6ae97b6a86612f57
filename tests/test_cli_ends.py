"""How a command ends when something is in its way: the exit code, and one line of what happened."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adjoint_rd as rd
from adjoint_rd import validate
from adjoint_rd.commands import simulate
from adjoint_rd.commands.output import BAD_INPUT, BROKEN_PIPE, FAILED, INTERRUPTED

pytestmark = pytest.mark.usefixtures("empty_folder")
SMALL = ["--preset", "lambda", "--shape", "12", "12", "--steps", "20"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError("8 GB of 4 GB"), BAD_INPUT, "adjoint-rd: error: not enough memory: 8 GB of 4 GB"),
        (
            OSError(28, "No space left on device"),
            BAD_INPUT,
            "adjoint-rd: error: [Errno 28] No space left on device",
        ),
        (KeyboardInterrupt(), INTERRUPTED, "adjoint-rd: interrupted before there was anything to keep"),
    ],
)
def test_what_stops_a_command_is_said_in_one_line(call, monkeypatch, error, code, words):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(simulate, "Setup", fails)
    assert call("simulate", *SMALL) == (code, "", words + "\n")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_stops_reading_ends_the_command_quietly():
    command = [sys.executable, "-m", "adjoint_rd", "simulate", "--list-presets"]
    root = str(Path(rd.__file__).parent.parent)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, text=True
        )
    assert done.returncode == BROKEN_PIPE and done.stderr == ""


def test_warnings_of_others_are_left_as_they_are(call, monkeypatch):
    def run(*args, **kwargs):
        warnings.warn("of NumPy", RuntimeWarning, stacklevel=1)
        raise rd.InputError("enough")

    monkeypatch.setattr(simulate, "Setup", run)
    with pytest.warns(RuntimeWarning, match="of NumPy"):
        assert call("simulate", *SMALL)[0] == BAD_INPUT


# pattern


def test_a_pattern_that_still_moves_is_written_and_said_to(call):
    code, out, _ = call("pattern", "--shape", "16", "16", "--max-steps", "3", "--out", "a.png")
    assert code == FAILED and "still moving after 3 steps" in out
    with Image.open("a.png") as image:
        assert image.size == (16, 16)


def test_a_pattern_that_died_is_said_to_be_none(call):
    code, out, _ = call(
        "pattern", "--shape", "12", "12", "--param", "F=0.05", "--param", "k=0.2", "--param", "Du=0.1", "--param",
        "Dv=0.05", "--dt", "1", "--out", "a.png",
    )  # fmt: skip
    assert code == FAILED and "no pattern: v is uniform" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.jpg"], "--out a.jpg must end in .png."),
        (["--shape", "64", "--out", "a.png"], "--shape 64: an image needs two axes."),
    ],
)
def test_a_pattern_that_is_no_image_is_refused(call, words, message):
    code, _, error = call("pattern", *words)
    assert code == BAD_INPUT and message in error and not os.listdir()


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_an_interrupted_pattern_writes_nothing(call, monkeypatch):
    monkeypatch.setattr(rd.Simulation, "run_to_steady", interrupt)
    code, _, error = call("pattern", "--shape", "12", "12", "--out", "a.png")
    assert code == INTERRUPTED and "nothing was written" in error and not os.listdir()


# validate, pairwise, simulate


def test_interrupted_checks_keep_those_that_are_done(call, monkeypatch):
    monkeypatch.setattr(validate, "dot_product", interrupt)
    code, out, error = call("validate", *SMALL, "--checks", "model", "dot-product", "--out", "checks")
    assert code == INTERRUPTED and "model: pass" in out and "after 1 of 2 checks" in error
    assert '"dot-product"' not in Path("checks/validate.json").read_text()


def test_interrupted_classes_write_nothing(call, monkeypatch):
    monkeypatch.setattr(rd.Simulation, "run", interrupt)
    code, _, error = call("pairwise", "--presets", "lambda", "kappa", "--shape", "16", "16")
    assert code == INTERRUPTED and "after 0 of 2 classes; nothing is written" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save-every", "-3"], "--save-every -3 must be >= 1."),
        (["--animation", ".gif"], "--animation needs --save-every N, and a grid of two axes."),
        (["--initial-file", "a.npy", "--initial", "square"], "give --initial-file, or --initial with its options"),
    ],
)
def test_options_that_do_not_go_together_are_refused(call, words, message):
    np.save("a.npy", np.ones((2, 12, 12)))
    code, _, error = call("simulate", *SMALL, *words)
    assert code == BAD_INPUT and message in error and os.listdir() == ["a.npy"]
