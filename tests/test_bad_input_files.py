"""Files, folders and the command line: what is wrong with them is said before anything is computed."""

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bad_input import refused
from PIL import Image

import adjoint_rd as rd
from adjoint_rd import cli, files, io

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 7)).astype(np.uint8)


# Images


def image(mode):
    return lambda path: Image.fromarray(GREY).convert(mode).save(path)


def colour(path):
    Image.fromarray(RNG.integers(0, 256, (6, 7, 3)).astype(np.uint8)).save(path)


def colour_palette(path):
    Image.fromarray(RNG.integers(0, 256, (6, 7, 3)).astype(np.uint8)).convert("P").save(path)


def truncated(path):
    Image.fromarray(RNG.integers(0, 256, (90, 70)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def other_bytes(path):
    path.write_bytes(b"GIF89a is not what follows")


def empty(path):
    path.write_bytes(b"")


def pages_that_differ(path):
    first, other = Image.fromarray(GREY), Image.fromarray(GREY[:3])
    first.save(path, save_all=True, append_images=[other])


def huge(path):  # a few hundred kB that unpack to 40 000 x 40 000 pixels
    Image.new("1", (40_000, 40_000)).save(path)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.png", colour, r"is a colour image \(mode RGB\).*convert\('L'\)"),
        ("a.png", colour_palette, r"is a colour image \(mode P\)"),
        ("a.png", truncated, r"is a damaged or truncated PNG image"),
        ("a.png", other_bytes, r"is not a PNG image, whatever its name says"),
        ("a.gif", other_bytes, r"is (a damaged or truncated|not a) GIF image"),
        ("a.png", empty, r"is not a PNG image"),
        ("a.tif", pages_that_differ, r"has frames of different sizes"),
        ("a.png", huge, r"is too large an image"),
        ("a.tiff", lambda path: None, r"there is no file .*a.tiff"),
        ("a.bmp", image("L"), r"cannot read '.bmp'; use"),
        ("a", other_bytes, r"cannot read 'a file without a suffix'"),
    ],
)
def test_an_image_is_refused(tmp_path, name, write, words):
    write(tmp_path / name)
    refused(words, lambda: io.read_observation(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "write", "frames"),
    [
        ("grey.png", image("L"), 1),
        ("palette.png", image("P"), 1),
        ("bits16.png", lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path), 1),
        ("bits16.tif", lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path), 1),
        (
            "pages.tif",
            lambda path: Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY)]),
            2,
        ),
    ],
)
def test_grey_images_of_every_kind_are_read(tmp_path, name, write, frames):
    write(tmp_path / name)
    found = io.read_observation(tmp_path / name)
    assert found.fields.shape == (frames, 1, 6, 7)
    assert np.allclose(found.fields, GREY / 255.0, atol=1e-4)


# Arrays


def bomb(path):
    """64 kB that unpack to 64 MB, which is more than `MOST_BYTES` is set to below."""
    np.savez_compressed(path, fields=np.zeros((8, 1, 1000, 1000)))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.npz", empty, r"is not a readable .npz file"),
        ("a.npz", bomb, r"unpacks to 0.1 GiB; at most"),
        ("a.npz", lambda path: np.savez(path, fields=np.array([None])), r"is not a readable .npz file .*allow_pickle"),
        ("a.npz", lambda path: zipfile.ZipFile(path, "w").writestr("fields.npy", b"not an array"), r"not a readable"),
        ("a.npz", lambda path: np.savez(path, fields=np.ones((3, 4, 5))), r"say what its axes are with axes="),
        ("a.npz", lambda path: np.savez(path, fields=np.ones((2, 1, 4, 5)) * 1j), r"has dtype complex128"),
        ("a.npy", empty, r"is not a readable .npy file"),
        ("a.npy", lambda path: np.save(path, np.array(["u"])), r"has dtype <U1; it must be real numbers"),
        ("a.npy", lambda path: path.mkdir(), r"is a folder; give the name of a file"),
    ],
)
def test_an_array_is_refused(tmp_path, monkeypatch, name, write, words):
    monkeypatch.setattr(files, "MOST_BYTES", 50_000_000)
    write(tmp_path / name)
    refused(words, lambda: io.read_observation(tmp_path / name))


# HDF5


def well(path, **changes):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        content = {
            "t0_fields/A": RNG.random((1, 3, 6, 8)),
            "dimensions/time": np.arange(3.0),
            "dimensions/x": np.arange(6.0),
            "dimensions/y": np.arange(8.0),
        } | changes
        for name, value in content.items():
            if value is not None:
                file[name] = value
        if "dimensions" in file:
            file["dimensions"].attrs["spatial_dims"] = ["x", "y"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t0_fields/A": None}, r"is not in the layout of The Well: it needs the groups t0_fields and dimensions"),
        ({"t0_fields/A": None, "t0_fields/group/B": 1.0}, r"t0_fields has no field that varies in time"),
        (
            {"t0_fields/A": np.ones((3, 6))},
            r"the field A has shape \(3, 6\); it must be \(trajectories, times, 2 axes\)",
        ),
        ({"t0_fields/A": np.ones((1, 3, 6, 8)) * 1j}, r"the field A has dtype complex128"),
        ({"dimensions/x": None}, r"dimensions lacks x"),
        ({"dimensions/x": np.array([0.0, 1, 2, 3, 4, 9])}, r"dimensions/x is not evenly spaced"),
        ({"dimensions/x": np.ones(6) * 1j}, r"dimensions/x must be an array of real numbers"),
        ({"dimensions/time": None, "dimensions/time/a": 1.0}, r"dimensions/time must be an array of real numbers"),
    ],
)
def test_an_hdf5_file_is_refused(tmp_path, changes, words):
    well(tmp_path / "a.h5", **changes)
    refused(words, lambda: io.read_observation(tmp_path / "a.h5"))


def test_hdf5_arrays_that_unpack_to_too_much_are_not_read(tmp_path, monkeypatch):
    well(tmp_path / "a.h5")
    monkeypatch.setattr(io.observation, "MOST_BYTES", 30)
    refused(r"has \(6,\) values|has \(3,\) values|has \(8,\) values", lambda: io.read_observation(tmp_path / "a.h5"))


def test_an_hdf5_file_that_is_none(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF but not really")
    refused(r"is not a readable HDF5 file", lambda: io.read_observation(tmp_path / "a.hdf5"))


# Runs and checkpoints


def checkpoint_of(path, **changes):
    options = dict(shape=(6, 5), dtype="float64", dt=1.0, steps=3, free=("F", "k"), transform="log") | changes
    sim = rd.Simulation("gray_scott", rd.Grid(options["shape"]), dt=options["dt"], dtype=options["dtype"])
    y0 = np.random.default_rng(1).random(sim.state_shape)
    fixed = {
        name: value for name, value in dict(Du=0.16, Dv=0.08, F=0.03, k=0.06).items() if name not in options["free"]
    }
    obj = rd.Objective(
        sim,
        y0,
        rd.losses.L2(0.9 * y0),
        steps=options["steps"],
        free=options["free"],
        fixed=fixed,
        transform=options["transform"],
    )
    x0 = obj.pack(**{name: 0.05 for name in options["free"]})
    return rd.minimize(obj, x0, maxiter=2, checkpoint=path, resume=True, tol=0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(shape=(7, 5)), r"other settings \(grid '6x5 cells.*' there, '7x5 cells.*' here\). Delete it"),
        (dict(dtype="float32"), r"dtype 'float64' there, 'float32' here"),
        (dict(dt=0.5), r"dt 1.0 there, 0.5 here"),
        (dict(steps=4), r"steps 3 there, 4 here"),
        (dict(free=("F",)), r"free \['F', 'k'\] there, \['F'\] here.*x of shape \(2,\), not \(1,\)"),
        (dict(transform=None), r"transform .*Log.* there, .*Identity.* here"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, changes, words):
    checkpoint_of(tmp_path / "fit.npz")
    refused(words, lambda: checkpoint_of(tmp_path / "fit.npz", **changes), rd.CheckpointError)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    path = tmp_path / "fit.npz"
    header = dict(format="adjoint_rd.minimize", version=99, written_by="adjoint_rd 9.9")
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8))
    words = r"version 99 of the format adjoint_rd.minimize, written by adjoint_rd 9.9; .* reads version 2"
    refused(words, lambda: checkpoint_of(path), rd.CheckpointError)


def never(x):
    raise AssertionError("it computed")


@pytest.mark.parametrize("name", ["file/fit.npz", "file/deep/fit.npz"])
def test_a_folder_that_cannot_be_written_is_found_out_before_computing(tmp_path, name):
    (tmp_path / "file").write_bytes(b"in the way")
    refused(r"cannot write there|File exists", lambda: rd.minimize(never, [1.0], checkpoint=tmp_path / name))


@pytest.fixture
def closed_folder():
    """A folder that this process may not write to; for root, who may write everywhere, it becomes another user."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        folder.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_a_folder_without_permission_is_found_out_before_computing(closed_folder):
    words = r"cannot write there \(Permission denied\)"
    refused(words, lambda: rd.minimize(never, [1.0], checkpoint=closed_folder / "fit.npz"))
    refused("Permission denied", lambda: rd.minimize(never, [1.0], checkpoint=closed_folder / "deep" / "fit.npz"))


# Command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulat"], "'simulat' is not a command; .*Did you mean 'simulate'?"),
        (
            ["simulate", "--presett", "lambda"],
            "'--presett' is not known to adjoint-rd simulate. Did you mean '--preset'?",
        ),
        (["simulate", "--preset", "lamda"], "Did you mean 'lambda'?"),
        (["simulate", "--preset", "lambda", "--param", "G=1"], "--param has 'G', which gray_scott does not know"),
        (["simulate", "--preset", "lambda", "--param", "F=abc"], "'abc' is not a number"),
        (["simulate", "--preset", "lambda", "--param", "F=4"], "F=4 looks like a percentage; did you mean 0.04?"),
        (["simulate", "--preset", "lambda", "--steps", "0"], "--steps 0 must be >= 1"),
        (["simulate", "--preset", "lambda", "--steps", "many"], "invalid int value: 'many'"),
        (["simulate", "--preset", "lambda", "--threads", "0"], "threads=0 must be >= 1"),
        (["simulate", "--preset", "lambda", "--out", "/dev/null/out"], "cannot write into the folder"),
        (["simulate", "--preset", "lambda", "--shape", "8", "2"], "an axis of 2 cells"),
        (["simulate"], "give --preset NAME, or the parameters of gray_scott"),
        (["gradient", "--preset", "lambda"], "give a target"),
        (["gradient", "--preset", "lambda", "--target", "nowhere.npz"], "there is no file nowhere.npz"),
        (["validate", "--preset", "lambda", "--checks", "tailor"], "Did you mean 'taylor'?"),
        (["fit", "nowhere.hdf5"], "there is no file nowhere.hdf5"),
    ],
)
def test_the_command_line_refuses(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == cli.BAD_INPUT
    said = capsys.readouterr().err
    *warned, error = said.splitlines()
    assert error.startswith("adjoint-rd: error: ")
    assert all(line.startswith("adjoint-rd: warning: dt=") for line in warned)
    assert all(part in error for part in words.split(".*"))
    assert not list(tmp_path.iterdir())  # nothing was made
