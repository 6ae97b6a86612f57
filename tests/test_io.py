"""Files: what is written is read back, what is damaged or foreign is refused, nothing is followed or unpickled."""

import contextlib
import json
import sys

import numpy as np
import pytest
from PIL import Image

import adjoint_rd as rd
from adjoint_rd import io, paths, runs
from adjoint_rd.io import images, observation
from adjoint_rd.runs import Run

RNG = np.random.default_rng(0)


def some_run(**changes):
    states = RNG.random((3, 2, 4, 5))
    content = dict(
        final=states[-1].copy(),
        states=states,
        steps=np.array([0, 10, 20]),
        params=dict(Du=0.1 + 0.2, Dv=1e-17, F=RNG.random((4, 5)), k=0.06),
        dt=0.7,
        spacing=(1.0, 0.5),
        model="gray_scott",
    )
    return Run(**{**content, **changes})


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return (
        np.shape(one) == np.shape(other) and np.asarray(one).dtype == np.asarray(other).dtype and np.all(one == other)
    )


# Runs


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_run_is_loaded_as_it_was_saved(tmp_path, dtype):
    states = RNG.random((3, 2, 4, 5)).astype(dtype)
    run = some_run(states=states, final=states[-1])
    run.save(tmp_path / "run.npz")
    assert same(vars(run), vars(rd.load(str(tmp_path / "run.npz"))))


def test_a_batch_is_loaded_as_it_was_saved(tmp_path):
    states = RNG.random((2, 3, 1, 6))
    params = [dict(Du=1.0, r=0.5), dict(Du=1.0, r=RNG.random(6))]
    run = some_run(states=states, final=states[:, -1], params=params, spacing=(1.0,), model="allen_cahn")
    run.save(tmp_path / "run.npz")
    assert same(vars(run), vars(rd.load(tmp_path / "run.npz")))
    with pytest.raises(rd.InputError, match="batch of 2 runs"):
        io.read_observation(tmp_path / "run.npz")


def test_a_truncated_run_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    some_run().save(path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(rd.InputError, match="truncated"):
            rd.load(path)


def test_a_changed_array_is_noticed(tmp_path):
    path = tmp_path / "run.npz"
    some_run().save(path)
    with np.load(path) as archive:
        content = dict(archive)
    content["states"][1, 0, 0, 0] += 1e-16 + np.spacing(content["states"][1, 0, 0, 0])
    np.savez(path, **content)
    with pytest.raises(rd.InputError, match=r"'states' is not what was written \(its SHA-256 differs\)"):
        rd.load(path)


def test_a_flipped_byte_anywhere_is_noticed(tmp_path):
    path = tmp_path / "run.npz"
    some_run().save(path)
    whole = path.read_bytes()
    expected = rd.load(path)
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with contextlib.suppress(rd.InputError):  # a byte that means nothing may change, but then all is as written
            assert same(vars(expected), vars(rd.load(path)))


def test_another_version_is_named(tmp_path):
    path = tmp_path / "run.npz"
    header = dict(format=runs.FORMAT, version=99, written_by="adjoint_rd 9.9")
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8))
    with pytest.raises(rd.InputError, match=r"version 99 .* written by adjoint_rd 9\.9; .* reads version 1"):
        rd.load(path)


def test_a_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(rd.InputError, match=r"not a run saved by adjoint_rd \(it holds a\)"):
        rd.load(tmp_path / "other.npz")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(tmp_path / "trap.npz", header=np.array([Trap()], dtype=object))
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object))
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    for read, name in [(rd.load, "trap.npz"), (rd.load, "pickle.npz"), (io.read_observation, "trap.npz")]:
        with pytest.raises(rd.InputError, match="not a readable"):
            read(tmp_path / name)
    with pytest.raises(rd.InputError, match="not a readable"):
        io.read_observation(tmp_path / "trap.npy")
    with pytest.raises(rd.InputError, match="Python objects"):
        some_run(params=dict(F=np.array([None]))).save(tmp_path / "run.npz")


def test_a_missing_file_is_suggested(tmp_path):
    some_run().save(tmp_path / "run.npz")
    with pytest.raises(rd.InputError, match=r"there is no file .*rum\.npz\. Did you mean 'run\.npz'\?"):
        rd.load(tmp_path / "rum.npz")
    with pytest.raises(rd.InputError, match="is a folder"):
        rd.load(tmp_path)
    with pytest.raises(rd.InputError, match="must be a string or a path"):
        rd.load(3)


@pytest.mark.parametrize(
    ("name", "message"), [("run.txt", "must end in .npz"), ("nowhere/run.npz", "nowhere does not exist")]
)
def test_a_bad_target_is_refused(tmp_path, name, message):
    with pytest.raises(rd.InputError, match=message):
        some_run().save(tmp_path / name)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    some_run().save(path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        some_run().save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["run.npz"]


def test_json_holds_no_word_that_json_does_not_know(tmp_path):
    paths.write_json(
        tmp_path / "a.json", dict(a=np.float64("nan"), b=np.arange(2), c=(np.bool_(True), None, "x"), d=1e300)
    )
    assert json.loads((tmp_path / "a.json").read_text()) == dict(a=None, b=[0, 1], c=[True, None, "x"], d=1e300)


# Arrays


def test_a_saved_run_is_an_observation(tmp_path):
    run = some_run()
    run.save(tmp_path / "run.npz")
    found = io.read_observation(tmp_path / "run.npz", frames=slice(1, 3))
    assert np.array_equal(found.fields, run.states[1:])
    assert found.names == ("u", "v") and found.spacing == (1.0, 0.5)
    assert np.allclose(found.times, [7.0, 14.0])
    assert found.parameters == dict(Du=0.1 + 0.2, Dv=1e-17, k=0.06)  # F is a field


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((6,), None, (1, 1, 6)),
        ((6, 5), None, (1, 1, 6, 5)),
        ((6, 5), "tx", (6, 1, 5)),
        ((3, 6, 5), "txy", (3, 1, 6, 5)),
        ((3, 6, 5), "sxy", (1, 3, 6, 5)),
        ((3, 6, 5), "xyz", (1, 1, 3, 6, 5)),
        ((3, 2, 6, 5), None, (3, 2, 6, 5)),
        ((3, 2, 6, 5, 4), None, (3, 2, 6, 5, 4)),
    ],
)
def test_axes_of_an_array(tmp_path, shape, axes, expected):
    array = RNG.random(shape).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    found = io.read_observation(tmp_path / "a.npy", axes=axes)
    assert found.fields.shape == expected and found.fields.dtype == np.float64
    assert np.array_equal(found.fields.ravel(), array.ravel())
    assert found.times is None and found.spacing is None


@pytest.mark.parametrize(
    ("axes", "message"),
    [(None, "say what its axes are with axes='txy', 'sxy' or 'xyz'"), ("tsxy", "names 4 axes"), ("tyx", "must be 't'")],
)
def test_ambiguous_axes_are_asked_for(tmp_path, axes, message):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5)))
    with pytest.raises(rd.InputError, match=message):
        io.read_observation(tmp_path / "a.npy", axes=axes)


def test_frames_with_times_spacing_and_parameters(tmp_path):
    fields = RNG.random((4, 2, 5, 6))
    np.savez(tmp_path / "a.npz", fields=fields, times=np.arange(4) * 2.0, spacing=0.5, F=0.03)
    found = io.read_observation(tmp_path / "a.npz", frames=3)
    assert np.array_equal(found.fields, fields[:3])
    assert found.times.tolist() == [0.0, 2.0, 4.0] and found.spacing == (0.5, 0.5) and found.parameters == {"F": 0.03}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dict(a=np.ones((2, 3)), b=np.ones((2, 3))), "name the frames 'fields'"),
        (dict(fields=np.ones((4, 1, 5, 5)), times=np.arange(3)), r"times has shape \(3,\) for 4 frames"),
        (dict(fields=np.ones((4, 1, 5, 5)), spacing=np.ones(3)), "one number, or one per axis"),
        (dict(fields=np.array(["a", "b"])), "must be real numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(rd.InputError, match=message):
        io.read_observation(tmp_path / "a.npz")


def test_too_much_is_not_read(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((100, 1, 10, 10)))
    monkeypatch.setattr(observation, "MOST_BYTES", 8 * 5000)
    with pytest.raises(rd.InputError, match="use frames= to read fewer"):
        io.read_observation(tmp_path / "a.npy")
    assert len(io.read_observation(tmp_path / "a.npy", frames=50).fields) == 50


def test_an_unknown_kind_of_file(tmp_path):
    (tmp_path / "a.tiv").write_bytes(b"")
    with pytest.raises(rd.InputError, match=r"cannot read '\.tiv'.* Did you mean '\.tif'\?"):
        io.read_observation(tmp_path / "a.tiv")


# HDF5


@pytest.fixture
def well(tmp_path):
    """A small file in the layout of The Well: two trajectories of 5 frames."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "well.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs.update(F=0.029, n_trajectories=2, dataset_name="gray_scott")
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        dimensions["time"] = np.arange(5, dtype="f4") * 10
        dimensions["x"], dimensions["y"] = np.linspace(-1, 1, 6, endpoint=False, dtype="f4"), np.arange(8) * 0.5
        fields = file.create_group("t0_fields")
        fields.attrs["field_names"] = ["B", "A"]
        for name in "AB":
            fields[name] = RNG.random((2, 5, 6, 8)).astype("f4")
        fields["mask"] = np.ones((6, 8))
        fields["mask"].attrs["time_varying"] = False
        scalars = file.create_group("scalars")
        scalars["k"], scalars["s"] = [0.057], [1.0, 2.0]
        scalars["s"].attrs["sample_varying"] = True
        for axis, kind in (("x", "PERIODIC"), ("y", "WALL")):
            file.create_group(f"boundary_conditions/{axis}_edge").attrs["bc_type"] = kind
    return path


def test_the_layout_of_the_well(well):
    import h5py

    found = io.read_observation(well, frames=slice(1, None), trajectory=1)
    with h5py.File(well) as file:
        expected = np.stack([file["t0_fields/B"][1, 1:], file["t0_fields/A"][1, 1:]], axis=1)
    assert found.fields.dtype == np.float64 and np.array_equal(found.fields, expected)
    assert found.names == ("B", "A") and found.boundary == ("periodic", "wall")
    assert found.times.tolist() == [10.0, 20.0, 30.0, 40.0]
    assert np.allclose(found.spacing, (1 / 3, 0.5), rtol=1e-6)
    assert found.parameters == dict(F=0.029, k=0.057, s=2.0)
    assert "trajectory 1" in str(found)


def test_a_trajectory_that_is_not_there(well):
    with pytest.raises(rd.InputError, match=r"trajectory=2, but .* has 2, counted from 0"):
        io.read_observation(well, trajectory=2)


def other_file_link(h5py, file, path):
    file["t0_fields/A"] = h5py.ExternalLink("other.hdf5", "/secret")


def soft_link(h5py, file, path):
    file["t0_fields/A"] = h5py.SoftLink("/t0_fields/B")


def external_storage(h5py, file, path):
    file["t0_fields"].create_dataset("A", (2, 5, 6, 8), "f4", external=[(str(path.parent / "raw"), 0, 10**6)])


def virtual_dataset(h5py, file, path):
    layout = h5py.VirtualLayout((2, 5, 6, 8), "f4")
    layout[:] = h5py.VirtualSource(str(path.parent / "other.hdf5"), "secret", (2, 5, 6, 8))
    file["t0_fields"].create_virtual_dataset("A", layout)


def linked_group(h5py, file, path):
    del file["dimensions"]
    file["dimensions"] = h5py.ExternalLink("other.hdf5", "/")


@pytest.mark.parametrize("elsewhere", [other_file_link, soft_link, external_storage, virtual_dataset, linked_group])
def test_what_lies_elsewhere_is_never_followed(well, elsewhere):
    import h5py

    with h5py.File(well.parent / "other.hdf5", "w") as file:
        file["secret"] = np.ones((2, 5, 6, 8), "f4")
    (well.parent / "raw").write_bytes(bytes(4 * 2 * 5 * 6 * 8))
    with h5py.File(well, "a") as file:
        if elsewhere is not linked_group:
            del file["t0_fields/A"]
        elsewhere(h5py, file, well)
    with pytest.raises(rd.InputError, match="Copy the data into the file"):
        io.read_observation(well)


def test_a_damaged_hdf5_file(well):
    well.write_bytes(well.read_bytes()[:2000])
    with pytest.raises(rd.InputError, match="not a readable HDF5 file"):
        io.read_observation(well)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("t0_fields", "not in the layout of The Well"), ("dimensions/x", "lacks x"), ("dimensions/time", "lacks time")],
)
def test_an_hdf5_file_of_another_layout(well, missing, message):
    import h5py

    with h5py.File(well, "a") as file:
        del file[missing]
    with pytest.raises(rd.InputError, match=message):
        io.read_observation(well)


def test_an_uneven_grid_is_refused(well):
    import h5py

    with h5py.File(well, "a") as file:
        file["dimensions/y"][3] = 1.9
    with pytest.raises(rd.InputError, match="dimensions/y is not evenly spaced"):
        io.read_observation(well)


def test_without_h5py_the_extra_is_named(well, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(rd.BackendError, match=r"pip install 'adjoint-rd\[io\]'"):
        io.read_observation(well)


# Images


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 65535)])
def test_grey_images(tmp_path, kind, dtype, most):
    values = RNG.integers(0, most + 1, (5, 7)).astype(dtype)
    Image.fromarray(values).save(tmp_path / f"a.{kind}")
    found = io.read_observation(tmp_path / f"a.{kind}")
    assert np.array_equal(found.fields, values[None, None] / most)


@pytest.mark.parametrize("kind", ["tif", "gif"])
def test_images_of_several_frames(tmp_path, kind):
    values = RNG.integers(0, 256, (4, 5, 7)).astype(np.uint8)
    first, *others = [Image.fromarray(each) for each in values]
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others)
    found = io.read_observation(tmp_path / f"a.{kind}", frames=slice(1, 3))
    assert np.array_equal(found.fields, values[1:3, None] / 255)


def test_a_float_image(tmp_path):
    values = RNG.random((5, 7)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(io.read_observation(tmp_path / "a.tif").fields[0, 0], values)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_grey_stored_as_colour_is_grey(tmp_path, mode):
    values = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(io.read_observation(tmp_path / "a.png").fields[0, 0], values / 255)


def test_colours_are_refused_with_the_remedy(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(rd.InputError, match=r"colour image \(mode RGB\).*convert\('L'\)"):
        io.read_observation(tmp_path / "a.png")
    Image.fromarray(np.full((5, 7, 4), 100, np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(rd.InputError, match="transparent pixels"):
        io.read_observation(tmp_path / "b.png")


def test_damaged_images(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (50, 70)).astype(np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(rd.InputError, match="damaged or truncated PNG"):
        io.read_observation(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(whole)
    with pytest.raises(rd.InputError, match="not a TIFF image, whatever its name says"):
        io.read_observation(tmp_path / "b.tif")


def test_an_image_that_unpacks_to_too_much(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((50, 70), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(rd.InputError, match="too large an image"):
        io.read_observation(tmp_path / "a.png")


def test_a_grey_image_is_read_back(tmp_path):
    values = RNG.integers(0, 256, (5, 7)) / 255
    io.write_image(tmp_path / "a.png", values, colormap="grey", limits=(0, 1))
    assert np.array_equal(io.read_observation(tmp_path / "a.png").fields[0, 0], values)


def test_a_state_is_drawn_species_by_species(tmp_path):
    state = np.stack([np.linspace(0, 1, 30).reshape(5, 6), np.linspace(7, 3, 30).reshape(5, 6)])
    io.write_image(tmp_path / "a.png", state, zoom=2)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert pixels.dtype == np.uint8 and pixels.shape == (10, 2 * 12 + images.GAP, 3)
    low, high = pixels[0, 0], pixels[-1, 11]  # each species has its own scale
    assert np.array_equal(pixels[0, 12 + images.GAP], high) and np.array_equal(pixels[-1, -1], low)
    assert np.all(pixels[:, 12 : 12 + images.GAP] == 255)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.ones(5), {}, "real numbers"),
        (np.ones((2, 3, 4, 5)), {}, "Take a slice of a 3-D state"),
        (np.ones((4, 5)), dict(colormap="viridiss"), "Did you mean 'viridis'"),
        (np.ones((4, 5)), dict(limits=(1, 1)), "low < high"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, array, options, message):
    with pytest.raises(rd.InputError, match=message):
        io.write_image(tmp_path / "a.png", array, **options)


def test_values_that_are_not_finite_are_drawn_all_the_same(tmp_path):
    io.write_image(tmp_path / "a.png", np.array([[0.0, np.nan], [np.inf, 1.0]]))
    io.write_image(tmp_path / "b.png", np.full((2, 2), np.nan))
