"""``adjoint-rd pattern`` and ``adjoint-rd fit`` on one frame: from a picture to parameters, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adjoint_rd as rd
from adjoint_rd import inverse, io, models
from adjoint_rd.commands import snapshot
from adjoint_rd.inversion import slices

TRUTH = {"Du": 0.16, "Dv": 0.08, "F": 0.04, "k": 0.06}
COMBINATIONS = {"Du/F": 4.0, "Dv/sqrt(F)": 0.4, "(F+k)/sqrt(F)": 0.5}
SETUP = [word for name, value in TRUTH.items() for word in ("--param", f"{name}={value}")]
RNG = np.random.default_rng(3)


pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture(scope="module")
def v():
    """A pattern of worms on 64 x 64 cells."""
    sim = rd.Simulation("gray_scott", rd.Grid((64, 64)), dt=1.0, threads=1)
    y0 = sim.initial_state("random", rng=1)
    return sim.run_to_steady(y0, TRUTH, tol=1e-5, max_steps=150_000).final[1]


def grey(name, array):
    Image.fromarray(np.rint(255 * array).astype(np.uint8)).save(name)


def height(name):
    with Image.open(name) as picture:
        return picture.size[1]


def error_percent(params):
    return max(abs(params[name] / value - 1) for name, value in TRUTH.items()) * 100


# The main job


def test_a_pattern_becomes_a_picture_and_the_picture_all_four_parameters(call):
    words = ["--shape", 64, 64, "--initial", "random", "--seed", 1, "--out", "target.png"]
    code, out, err = call("pattern", *SETUP, *words, "--tol", 1e-5)
    assert (code, err) == (0, "") and "wrote target.png" in out
    sim = rd.Simulation("gray_scott", rd.Grid((64, 64)), dt=1.0)
    expected = sim.run_to_steady(sim.initial_state("random", rng=1), TRUTH, tol=1e-5).final[1]
    with Image.open("target.png") as picture:
        assert picture.mode == "L" and np.array_equal(np.asarray(picture), np.rint(255 * expected))
        assert json.loads(picture.text[io.images.TEXT_KEY]) == {"species": "v", "scale": 1.0, "spacing": [1.0, 1.0]}

    code, out, err = call("fit", "target.png", "--out", "here")
    assert (code, err) == (0, "") and "Success: Fitted Du, Dv, F, k" in out and "standard error" in out
    assert sorted(path.name for path in Path("here").iterdir()) == ["fit.json", "fit.png"]
    found = json.loads(Path("here/fit.json").read_text())
    for name, value in TRUTH.items():
        off = abs(found["params"][name] - value)
        assert off < max(0.01 * value, 3 * found["stderr"][name]), name
        assert 0 < found["stderr"][name] < 0.02 * value
    assert found["success"] and found["noise"] == pytest.approx(1 / 255 / 12**0.5, rel=0.2)
    assert height("here/fit.png") > 700  # with the landscape


def test_an_array_is_fitted_as_it_is(call, v):
    np.save("v.npy", v)
    code, out, _ = call("fit", "v.npy", "--spacing", 0.5, "--no-landscape")
    found = json.loads(Path("fit_v/fit.json").read_text())
    assert code == 0 and "spacing 0.5, periodic, scale 1" in out
    expected = {name: value * (0.25 if name in ("Du", "Dv") else 1.0) for name, value in TRUTH.items()}
    assert found["params"] == pytest.approx(expected, rel=1e-4)
    assert height("fit_v/fit.png") < 500


def test_all_species_of_a_saved_run(call):
    sim = rd.Simulation("gray_scott", rd.Grid((48, 48)), dt=1.0)
    y0 = sim.run_to_steady(sim.initial_state("random", rng=2), TRUTH, tol=2e-5, max_steps=50_000).final
    sim.run(y0, TRUTH, steps=2, save_every=1).save("run.npz")
    code, out, _ = call("fit", "run.npz", "--frame", 2)
    assert code == 0 and "of 2 species (u, v)" in out
    assert error_percent(json.loads(Path("fit_run/fit.json").read_text())["params"]) < 0.1


def test_a_known_parameter_is_kept(call, v):
    np.save("v.npy", v)
    code, out, _ = call("fit", "v.npy", "--fixed", "F=0.04", "--frame", 0)
    found = json.loads(Path("fit_v/fit.json").read_text())
    assert code == 0 and "(known)" in out and found["names"] == ["Du", "Dv", "k"]
    assert found["params"]["F"] == 0.04 and error_percent(found["params"]) < 0.1


def test_sixteen_bits_say_more_than_eight(call, v):
    Image.fromarray(np.rint(65535 * v).astype(np.uint16)).save("v.png")
    code, _, _ = call("fit", "v.png", "--scale", 1, "--no-landscape")
    assert code == 0 and error_percent(json.loads(Path("fit_v/fit.json").read_text())["params"]) < 0.3


# Unknown gain


def test_without_a_scale_only_combinations_are_reported(call, v):
    Image.fromarray(np.rint(65535 * v / v.max()).astype(np.uint16)).save("v.png")
    code, out, _ = call("fit", "v.png", "--no-landscape")
    found = json.loads(Path("fit_v/fit.json").read_text())
    assert code == 0 and "gain unknown" in out and "not determined" in out
    assert set(found["stderr"].values()) == {None}
    for name, value in COMBINATIONS.items():
        assert found["combinations"][name]["value"] == pytest.approx(value, rel=0.01)
        assert 0 < found["combinations"][name]["stderr"] < 0.02 * value


def test_one_more_fact_restores_all_four(call, v):
    np.save("v.npy", 3.7 * v)
    code, _, _ = call("fit", "v.npy", "--gain", "unknown", "--fixed", "Du/Dv=2", "--no-landscape")
    found = json.loads(Path("fit_v/fit.json").read_text())
    assert code == 0 and error_percent(found["params"]) < 0.1
    assert found["gain"] == pytest.approx(3.7, rel=1e-3)


# Why it works


def test_the_residual_is_least_at_the_fit_and_the_simulation_is_a_simulation(v):
    found = slices.line(v, TRUTH, models.get("gray_scott"), rd.Grid(v.shape), observed=1, points=11, steps=50, starts=1)
    assert found.s[np.argmin(found.equation)] == 1.0 and found.start == slices.REFERENCE
    falling = np.diff(found.equation) < 0
    assert np.array_equal(falling, found.s[1:] <= 1.0)  # one valley
    n = int(np.argmin(np.abs(found.s - 0.5)))
    middle = {name: (found.start[name] * value) ** 0.5 for name, value in TRUTH.items()}
    sim = rd.Simulation("gray_scott", rd.Grid(v.shape), dt=1.0, stability="off")
    final = sim.run(sim.initial_state("random", rng=1000, params=middle), middle, steps=50).final[1]
    assert found.s[n] == 0.5
    assert found.simulation[0, n] == pytest.approx(np.sqrt(np.mean((final - v) ** 2)) / v.std(), rel=1e-4)


# Refusals


def test_noise_is_refused_in_words_and_by_the_exit_code(call):
    np.save("noise.npy", RNG.uniform(0, 1, (48, 48)))
    code, out, err = call("fit", "noise.npy")
    assert code == 1 and "Refused: The image is noise" in out and "the fit was refused" in err
    found = json.loads(Path("fit_noise/fit.json").read_text())
    assert found["success"] is False and set(found["params"].values()) == {None}
    assert not Path("fit_noise/fit.png").exists()


def test_a_dead_pattern_is_no_target(call):
    code, out, _ = call("pattern", *SETUP, "--shape", 24, 24, "--initial", "noise", "--out", "dead.png")
    assert code == 1 and "no pattern: v is uniform" in out
    code, out, _ = call("pattern", "--shape", 24, 24, "--max-steps", 300, "--out", "young.png")
    assert code == 1 and "still moving after 300 steps" in out


def test_the_folder_is_tried_before_the_computation(call, v, monkeypatch):
    np.save("v.npy", v)

    def never(*_, **__):
        raise AssertionError("computed before the folder was tried")

    monkeypatch.setattr(inverse, "invert", never)
    monkeypatch.setattr(rd.Simulation, "run_to_steady", never)
    for words in (("fit", "v.npy", "--out", "/proc/nowhere"), ("pattern", "--out", "/proc/nowhere/target.png")):
        code, _, err = call(*words)
        assert code == 2 and "cannot write into the folder /proc/nowhere" in err


def test_ctrl_c_says_what_is_missing(call, v, monkeypatch):
    np.save("v.npy", v)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(inverse, "invert", interrupted)
    code, _, err = call("fit", "v.npy")
    assert code == 130 and "nothing was written" in err


def test_pictures_that_cannot_be_fitted(call, v):
    colour = np.repeat(np.rint(255 * v).astype(np.uint8)[..., None], 3, axis=2)
    colour[0, 0] = (255, 0, 0)
    Image.fromarray(colour).save("colour.png")
    Image.fromarray(colour).quantize(16).save("palette.png")
    grey("whole.png", v)
    Path("half.png").write_bytes(Path("whole.png").read_bytes()[:1500])
    pages = [Image.fromarray(np.rint(255 * v * x).astype(np.uint8)) for x in (1.0, 0.5)]
    pages[0].save("pages.tif", save_all=True, append_images=pages[1:])
    for words, message in [
        (["colour.png"], "colour image (mode RGB)"),
        (["palette.png"], "colour image (mode P)"),
        (["half.png"], "damaged or truncated PNG image"),
        (["whole.pgn"], "Did you mean 'whole.png'?"),
        (["pages.tif"], "pages.tif has 2 frames; say which one to fit: --frame N, 0 .. 1"),
        (["pages.tif", "--frame", 2], "--frame 2: pages.tif has 2, 0 .. 1"),
        (["whole.png", "--gian", "known"], "Did you mean '--gain'?"),
        (["whole.png", "--gain", "known"], "does not say the value of white; give --scale X"),
        (["whole.png", "--gain", "unknown", "--scale", 1], "give one of them"),
        (["whole.png", "--refine", 2], "--refine is for the frames of a run; whole.png has 1 frame"),
        (["whole.png", "--boundary", "dirichlet"], "for one frame it is one of periodic, neumann, cropped"),
        (["whole.png", "--scale", 1, "--noise", 0.1, 0.2], "one noise level"),
        (["whole.png", "--scale", 1, "--species", "w"], "species has 'w'"),
        (["whole.png", "--scale", 1, "--species", "u", "v"], "has 1 species"),
        (["whole.png", "--scale", 1, "--fixed", "G=1"], "known has 'G'"),
    ]:
        code, _, err = call("fit", *words)
        assert code == 2 and "Traceback" not in err, words
        assert err.splitlines()[-1].startswith("adjoint-rd: error: ") and message in err, (words, err)


def test_options_of_one_frame_are_refused_for_many(call):
    np.save("frames.npy", RNG.uniform(0, 1, (3, 2, 16, 12)))
    code, _, err = call("fit", "frames.npy", "--gain", "unknown")
    assert code == 2 and "--gain is for one frame; frames.npy has 3 frames" in err


# What a picture says


def test_scale_and_spacing_travel_with_the_picture():
    values = np.linspace(0, 3.2, 30).reshape(5, 6)
    io.write_pattern("a.png", values, species="u", scale=4.0, spacing=(0.5, 0.25))
    seen = io.read_observation("a.png")
    assert (seen.scale, seen.spacing, seen.names) == (4.0, (0.5, 0.25), ("u",))
    assert np.max(np.abs(seen.scale * seen.fields[0, 0] - values)) <= 0.5 * 4 / 255 + 1e-12
    for bad, message in [
        (dict(values=values, scale=3.0), "give a larger scale"),
        (dict(values=-values, scale=4.0), "outside of 0 .. scale=4"),
        (dict(values=values[0]), "real numbers"),
        (dict(values=values, scale=0.0), "scale=0.0 must be a positive number"),
        (dict(values=values * np.nan), "outside of 0 .. scale=1"),
    ]:
        with pytest.raises(rd.InputError, match=message):
            io.write_pattern("b.png", **bad)


def test_a_damaged_text_chunk_is_named():
    from PIL import PngImagePlugin

    for text in ("{", '{"scale": -1, "spacing": [1, 1], "species": "v"}', '{"scale": 1}'):
        info = PngImagePlugin.PngInfo()
        info.add_text(io.images.TEXT_KEY, text)
        Image.fromarray(np.zeros((5, 6), np.uint8)).save("a.png", pnginfo=info)
        with pytest.raises(rd.InputError, match=r"text chunk 'adjoint_rd\.pattern' is damaged"):
            io.read_observation("a.png")


def test_the_table_shows_what_is_not_determined():
    nan = float("nan")
    shown = inverse.Inversion(
        {"Du": 0.1, "F": nan, "k": 0.06}, {"Du": 0.001, "F": nan}, np.eye(2), ("Du", "F"), np.zeros(1), True, "", []
    )
    rows = [line.split() for line in snapshot.table(shown).splitlines()]
    assert rows[1:] == [["Du", "0.1", "0.001", "1"], ["F", "-", "not", "determined"], ["k", "0.06", "(known)"]]
