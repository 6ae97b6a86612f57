"""``adjoint-rd landscape`` and ``adjoint-rd pairwise``: the numbers of the library, files, resuming, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adjoint_rd as rd
from adjoint_rd import landscape, named_losses

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.06)
WORDS = [word for name, value in PARAMS.items() for word in ("--param", f"{name}={value}")]
SMALL = ["landscape", *WORDS, "--shape", 24, 24, "--steps", 30, "--progress", "off"]

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_a_map_is_that_of_the_library(call):
    code, out, _ = call(
        *SMALL, "--axis", "F=0.033:0.037:3", "--axis", "k=0.058,0.06", "--loss", "l2", "log-spectrum", "--starts", 2,
        "--out", "map",
    )  # fmt: skip
    assert code == 0 and "l2: lowest at F=0.035, k=0.06" in out
    said = json.loads(Path("map/landscape.json").read_text())
    assert said["axes"] == {"F": [0.033, 0.035, 0.037], "k": [0.058, 0.06]} and said["truth"] == PARAMS
    sim = rd.Simulation("gray_scott", rd.Grid((24, 24)), dt=1.0)
    starts = [sim.initial_state("square", rng=n) for n in range(2)]
    targets = [sim.run(y0, PARAMS, steps=30).final for y0 in starts]
    losses = {
        "l2": [named_losses.make("l2", [target]) for target in targets],
        "log-spectrum": named_losses.make("log-spectrum", targets),
    }
    found = landscape.scan(sim, starts, losses, PARAMS, said["axes"], steps=30)
    for name in losses:
        assert np.allclose(said["values"][name], found.values[name], rtol=1e-12)
    with Image.open("map/landscape.png") as picture:
        assert min(picture.size) > 200


def test_the_same_command_continues(call, monkeypatch):
    words = [*SMALL, "--axis", "F=0.03:0.04:4", "--out", "here"]
    original, seen = landscape.scan, []

    def interrupted(*args, progress, **options):
        def stop(n):
            seen.append(n)
            if len(seen) % 2 == 0:
                raise KeyboardInterrupt

        return original(*args, progress=stop, **options)

    monkeypatch.setattr(landscape, "scan", interrupted)
    code, _, err = call(*words)
    assert code == 130 and "continues" in err and not Path("here/landscape.json").exists()
    code, _, _ = call(*words)  # the second point of what is left would be the fourth
    assert code == 130 and len(seen) == 4
    monkeypatch.setattr(landscape, "scan", original)
    assert call(*words)[0] == 0 and Path("here/landscape.json").exists()


def test_three_axes_are_animated(call):
    code, out, _ = call(
        *SMALL, "--axis", "Du=0.15,0.16", "--axis", "F=0.03,0.04", "--axis", "k=0.06,0.061", "--no-gradients",
        "--workers", 2,
    )  # fmt: skip
    assert code == 0 and "landscape.gif" in out
    with Image.open("landscape/landscape.gif") as picture:
        assert picture.n_frames == 2


def test_a_file_is_the_target(call):
    assert call("simulate", *WORDS, "--shape", 24, 24, "--steps", 30, "--out", "run")[0] == 0
    code, out, _ = call(*SMALL, "--axis", "F=0.034,0.035,0.036", "--loss", "l2", "--target", "run/run.npz")
    assert code == 0 and "lowest at F=0.035" in out
    said = json.loads(Path("landscape/landscape.json").read_text())
    assert said["truth"] is None and said["values"]["l2"][1] == 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one to three times"),
        (["--axis", "F"], "NAME=FIRST:LAST:COUNT"),
        (["--axis", "F=0.03:0.04"], "NAME=FIRST:LAST:COUNT"),
        (["--axis", "F=1,2", "--axis", "F=3"], "twice"),
        (["--axis", "Fo=0.03,0.04"], "Fo"),
        (["--axis", "F=0.03,0.04", "--loss", "log-spektrum"], "Did you mean 'log-spectrum'"),
        (["--axis", "F=0.03,0.04", "--starts", 0], "--starts 0"),
        (["--axis", "F=0.03,0.04", "--animation", ".avi"], "--animation"),
        (["--axis", "F=0.03,0.04", "--axis", "k=0.06,0.065", "--axis", "Du=0.1,0.2", "--animation", ".mp4"], "ffmpeg"),
        (["--axis", "F=0.03,0.04", "--target", "x.npz", "--target-param", "F=1"], "not both"),
    ],
)
def test_mistakes_are_explained(call, words, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    code, _, err = call(*SMALL, *words)
    assert code == 2 and message in err and err.count("\n") == 1


def test_classes_are_told_apart(call):
    words = ["pairwise", "--presets", "reference", "kappa", "--members", 2, "--shape", 48, 48, "--steps", 400]
    code, out, _ = call(*words, "--loss", "log-spectrum", "moments")
    assert code == 0 and "targets down" in out
    said = json.loads(Path("pairwise/pairwise.json").read_text())
    assert said["classes"] == ["reference", "kappa"]
    matrix = np.array(said["matrices"]["moments"])
    assert matrix[0, 1] > matrix[0, 0] and matrix[1, 0] > matrix[1, 1]
    with np.load("pairwise/patterns.npz") as archive:
        patterns = {name: archive[name] for name in archive.files}
    names, expected = landscape.pairwise(patterns, lambda target: named_losses.make("moments", [target]))
    assert names == said["classes"] and np.allclose(matrix, expected)
    assert Path("pairwise/pairwise_moments.png").exists()
    assert call("pairwise", "--presets", "well-maze")[0] == 2
    assert "well-maze" in call("pairwise", "--presets", "well-maze", "well-mase")[2]
