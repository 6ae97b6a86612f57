"""Archives and the replacing of files, where the file system or the content is unusual."""

import json
import os

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import crew, files

KIND, VERSION = "adjoint_rd.test", 1
ARRAYS = dict(a=np.arange(6.0).reshape(2, 3), empty=np.zeros((0, 2)), number=np.float32(3.5), swapped=np.ones(2, ">i4"))


def written(path, **options):
    files.write_archive(path, KIND, VERSION, dict(said=[1, None, "x"]), ARRAYS, **options)
    return path


def test_an_archive_is_read_as_it_was_written(tmp_path):
    header, arrays = files.read_archive(written(tmp_path / "a.npz"), KIND, VERSION)
    assert header["said"] == [1, None, "x"] and header["format"] == KIND
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array)
        assert arrays[name].shape == np.shape(array)


@pytest.mark.parametrize("links", [True, False])
def test_two_generations_are_kept_with_and_without_hard_links(tmp_path, monkeypatch, links):
    def refused(*_):
        raise OSError("no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "a.npz"
    (tmp_path / ".a.npz.second.part").write_bytes(b"left by a killed process")
    for n in range(3):
        files.write_archive(path, KIND, VERSION, dict(n=n), {}, keep_previous=True)
    assert files.read_archive(path, KIND, VERSION)[0]["n"] == 2
    assert files.read_archive(files.previous(path), KIND, VERSION)[0]["n"] == 1
    assert {"a.npz", "a.npz.previous"} <= {each.name for each in tmp_path.iterdir()}


def test_files_are_as_private_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        assert written(tmp_path / "a.npz").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def header_of(said):
    return np.frombuffer(said if isinstance(said, bytes) else json.dumps(said).encode(), np.uint8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (dict(a=np.ones(2)), r"not one of adjoint_rd.test \(it holds a\)"),
        (dict(), r"not one of adjoint_rd.test \(it holds nothing\)"),
        (dict(header=header_of(b"\xff\xfe")), r"not one of adjoint_rd.test"),
        (dict(header=header_of(b"[" * 100_000)), r"not one of adjoint_rd.test"),
        (dict(header=header_of([KIND])), r"not one of adjoint_rd.test"),
        (dict(header=header_of(dict(format="other"))), r"not one of adjoint_rd.test"),
        (dict(header=header_of(dict(format=KIND, version=7))), r"has version 7 .* which reads version 1"),
        (dict(header=header_of(dict(format=KIND, version=1))), r"is incomplete: KeyError\('arrays'\)"),
        (dict(header=header_of(dict(format=KIND, version=1, arrays=dict(a={})))), r"is incomplete"),
        (dict(header=header_of(dict(format=KIND, version=1, arrays=[1]))), r"is incomplete"),
    ],
)
def test_what_is_no_such_archive_is_refused(tmp_path, content, words):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(rd.InputError, match=words):
        files.read_archive(tmp_path / "a.npz", KIND, VERSION)


def test_only_numbers_are_written(tmp_path):
    with pytest.raises(rd.InputError, match="Python objects"):
        files.write_archive(tmp_path / "a.npz", KIND, VERSION, {}, dict(a=np.array([None])))
    assert not list(tmp_path.iterdir())


def test_threads_meet_on_systems_that_do_not_place_them(monkeypatch):
    monkeypatch.setattr(crew, "_libc", None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert crew.available_threads() >= 1
    seen = []
    crew.run_together(seen.append, [(n,) for n in range(3)], np.zeros(16, np.int64))
    assert sorted(seen) == [0, 1, 2]


def test_a_lock_that_was_held_at_a_fork_is_refused_in_the_child(monkeypatch):
    free, held = crew.Lock(), crew.Lock()
    held.__enter__()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with free, free:
        pass
    with pytest.raises(rd.BackendError, match=r"forked while a thread .*get_context\('spawn'\)"):
        held.__enter__()


@pytest.mark.parametrize("count", [None, 20])
def test_what_is_printed_of_results_is_short(count):
    sim = rd.Simulation("gray_scott", rd.Grid((5, 6)), dt=0.5)
    y0 = np.ones((2, 5, 6)) if count is None else np.ones((count, 2, 5, 6))
    params = dict(Du=0.16, Dv=0.08, F=np.full((5, 6), 0.035), k=0.065)
    found = sim.gradient(y0, params, rd.losses.L2(np.zeros((2, 5, 6))), steps=2)
    assert "initial=<array of float64, shape" in repr(found)
    for result in (found, sim.run(y0, params, steps=2), sim.run_to_steady(y0, params, max_steps=2)):
        assert len(repr(result)) < 600
