"""Animations: frames as asked for, GIF without other programs, MP4 by what ffmpeg is given."""

import os
import stat

import numpy as np
import pytest
from PIL import Image

import adjoint_rd as rd
from adjoint_rd import animations, cli, landscape

STATES = np.random.default_rng(0).random((5, 2, 16, 12))


def sizes(path):
    with Image.open(path) as picture:
        return picture.n_frames, picture.size


def test_a_run(tmp_path):
    animations.runs(STATES, tmp_path / "one.gif", scale=3)
    assert sizes(tmp_path / "one.gif") == (5, (36, 48))


def test_a_run_as_simulation_gives_it(tmp_path):
    sim = rd.Simulation("gray_scott", rd.Grid((8, 6)), dt=0.5)
    run = sim.run(np.ones((2, 8, 6)), dict(Du=0.16, Dv=0.08, F=0.035, k=0.065), steps=4, save_every=2)
    animations.runs({"all": run}, tmp_path / "one.gif", scale=1)
    assert sizes(tmp_path / "one.gif")[0] == 3


def test_runs_side_by_side_of_different_length(tmp_path):
    animations.runs({"one": STATES, "other": STATES[:3]}, tmp_path / "two.gif", scale=2)
    assert sizes(tmp_path / "two.gif") == (5, (2 * 24 + 4, 32 + 16))
    with Image.open(tmp_path / "two.gif") as picture:
        last = []
        for n in (2, 4):
            picture.seek(n)
            last.append(np.asarray(picture.convert("RGB")).astype(int))
    assert np.abs(last[0] - last[1])[16:, -24:].max() <= 40  # the shorter one stands still (but for the palette)
    assert np.abs(last[0] - last[1])[16:, :24].max() > 100


def test_the_extremes_have_the_ends_of_the_colour_map(tmp_path):
    states = np.zeros((1, 1, 4, 4))
    states[0, 0, :2] = 1.0
    states[0, 0, 3, 3] = np.nan
    animations.runs(states, tmp_path / "one.gif", scale=1)
    with Image.open(tmp_path / "one.gif") as picture:
        seen = np.asarray(picture.convert("RGB"))
    assert np.abs(seen[0, 0].astype(int) - [253, 231, 36]).max() < 8
    assert np.abs(seen[3, 0].astype(int) - [68, 1, 84]).max() < 8


def test_a_training_history(tmp_path):
    history = {"gd": {"value": [3.0, 2.0, 1.0, 0.5], "F": [0.03, 0.031, 0.033, 0.034]}, "adam": {"value": [3.0, 1.0]}}
    animations.training(history, tmp_path / "training.gif", truth=dict(F=0.035), frames=3)
    assert sizes(tmp_path / "training.gif")[0] == 3


def test_slices_of_a_landscape(tmp_path):
    sim = rd.Simulation("gray_scott", rd.Grid((8, 8)), dt=1.0, threads=1)
    params = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
    y0 = sim.initial_state("square", rng=0)
    loss = rd.losses.L2(0.0 * y0)
    axes = {"Du": [0.1, 0.15], "F": [0.03, 0.04, 0.05], "k": [0.05, 0.06]}
    found = landscape.scan(sim, y0, {"l2": loss}, params, axes, steps=4)
    animations.slices(found, tmp_path / "slices.gif", truth=params)
    assert sizes(tmp_path / "slices.gif")[0] == 2
    flat = landscape.scan(sim, y0, {"l2": loss}, params, {"F": [0.03, 0.04]}, steps=4)
    with pytest.raises(rd.InputError, match="three"):
        animations.slices(flat, tmp_path / "flat.gif")


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for ffmpeg is a shell script")
def test_ffmpeg_is_given_every_pixel(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nfor last; do :; done\necho "$@" > {tmp_path}/arguments\ncat > "$last"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    frames = [np.full((7, 9, 3), n, np.uint8) for n in (10, 20)]
    animations.write(frames, tmp_path / "film.mp4", fps=10.0)
    raw = np.frombuffer((tmp_path / "film.mp4").read_bytes(), np.uint8)
    assert raw.size == 2 * 6 * 8 * 3 and set(raw[:144]) == {10} and set(raw[144:]) == {20}
    assert "-s 8x6 -r 10 " in (tmp_path / "arguments").read_text()
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 3\n")
    with pytest.raises(rd.InputError, match=r"exit code 3.*no such codec"):
        animations.write(frames, tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_size == raw.size  # what was there stays


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(rd.InputError, match="ffmpeg"):
        animations.runs(STATES, tmp_path / "run.mp4")
    with pytest.raises(rd.InputError, match=r"\.gif or"):
        animations.runs(STATES, tmp_path / "run.avi")
    with pytest.raises(rd.InputError, match="at least one"):
        animations.write([], tmp_path / "run.gif")
    with pytest.raises(rd.InputError, match="n >= 1"):
        animations.runs(STATES[0], tmp_path / "run.gif")
    for options, message in (
        (dict(species=7), "species=7"), (dict(colormap="virids"), "Did you mean 'viridis'"), (dict(fps=0), "fps=0"),
        (dict(scale=0), "scale=0"), (dict(limits=(1,)), "limits"),
    ):  # fmt: skip
        with pytest.raises(rd.InputError, match=message):
            animations.runs(STATES, tmp_path / "run.gif", **options)
    with pytest.raises(rd.InputError, match="no folder"):
        animations.runs(STATES, tmp_path / "nowhere" / "run.gif")
    with pytest.raises(rd.InputError, match="differ in shape"):
        animations.write([np.zeros((4, 4, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)], tmp_path / "run.gif")
    with pytest.raises(rd.InputError, match="uint8"):
        animations.write([np.zeros((4, 4, 3))], tmp_path / "run.gif")
    with pytest.raises(rd.InputError, match="histories"):
        animations.training({}, tmp_path / "run.gif")
    assert not list(tmp_path.glob("**/*.gif"))


def test_simulate_animates_what_it_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["simulate", "--preset", "reference", "--shape", "16", "12", "--steps", "20", "--animation"]
    assert cli.main([*words, "--save-every", "5"]) == 0
    assert sizes("simulate_reference/run.gif") == (5, (36, 48))
    assert cli.main(words) == 2 and "--save-every" in capsys.readouterr().err
