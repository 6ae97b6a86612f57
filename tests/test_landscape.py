"""Landscapes: their numbers are those of single runs, scans resume, and the lines are where eigenvalues cross."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import files, landscape, landscape_plots

TRUE = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)


@pytest.fixture(scope="module")
def setting():
    sim = rd.Simulation("gray_scott", rd.Grid((16, 16)), dt=1.0, threads=1)
    starts = [sim.initial_state("square", rng=n, clip=(0, 1)) for n in range(2)]
    targets = [sim.run(y, TRUE, steps=50).final for y in starts]
    own = [rd.losses.L2(t) for t in targets]
    return sim, starts, {"own": own, "first": own[0]}


AXES = {"F": np.linspace(0.03, 0.04, 3), "k": np.linspace(0.06, 0.07, 4)}


@pytest.mark.parametrize("window", [None, 10])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_each_point_is_the_mean_over_the_starts(setting, window, gradients, workers):
    sim, starts, losses = setting
    found = landscape.scan(
        sim, starts, losses, TRUE, AXES, steps=50, window=window, gradients=gradients, workers=workers
    )
    params = {**TRUE, "F": AXES["F"][2], "k": AXES["k"][1]}
    single = [
        sim.gradient(y, params, loss, steps=50, window=window) for y, loss in zip(starts, losses["own"], strict=True)
    ]
    values = [g.value for g in single]
    assert found.values["own"][2, 1] == pytest.approx(np.mean(values), rel=1e-12)
    assert found.spread["own"][2, 1] == pytest.approx(np.std(values), rel=1e-9)
    assert found.params == dict(Du=0.16, Dv=0.08) and not found.unstable.any()
    if gradients:
        expected = np.mean([[g.params["F"], g.params["k"]] for g in single], axis=0)
        assert found.gradients["own"][2, 1] == pytest.approx(expected, rel=1e-12)
    else:
        assert found.gradients == {}
    assert set(found.lowest("own")) == {"F", "k"}


def test_the_lowest_point_is_the_truth(setting):
    sim, starts, losses = setting
    axes = {"F": np.linspace(0.033, 0.037, 5), "k": np.linspace(0.063, 0.067, 5)}
    found = landscape.scan(sim, starts, {"own": losses["own"]}, TRUE, axes, steps=50, gradients=False)
    assert found.lowest("own") == pytest.approx(dict(F=0.035, k=0.065))
    assert found.values["own"][2, 2] == 0.0


def test_unstable_points_are_holes(setting):
    sim, starts, losses = setting
    found = landscape.scan(sim, starts, losses, TRUE, {"Du": [0.1, 0.3]}, steps=50)
    assert np.isfinite(found.values["own"][0]) and np.isnan(found.values["own"][1])
    assert found.unstable.tolist() == [0, 2]


def test_a_scan_resumes_from_its_file(setting, tmp_path):
    sim, starts, losses = setting
    file, seen = tmp_path / "scan.npz", []

    def stop(n):
        seen.append(n)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        landscape.scan(sim, starts, losses, TRUE, AXES, steps=50, path=file, progress=stop)
    assert np.isfinite(caught.value.result.values["own"]).sum() == 5 and not caught.value.result.unstable.any()
    rest = []
    found = landscape.scan(sim, starts, losses, TRUE, AXES, steps=50, path=file, progress=rest.append)
    assert rest == [5] + [1] * 7
    whole = landscape.scan(sim, starts, losses, TRUE, AXES, steps=50)
    for label in losses:
        assert np.array_equal(found.values[label], whole.values[label])
        assert np.array_equal(found.gradients[label], whole.gradients[label])
    with pytest.raises(rd.CheckpointError, match="other steps"):
        landscape.scan(sim, starts, losses, TRUE, AXES, steps=51, path=file)
    other = {**losses, "first": rd.losses.L2(0.9 * starts[0])}
    with pytest.raises(rd.CheckpointError, match="other losses"):
        landscape.scan(sim, starts, other, TRUE, AXES, steps=50, path=file)
    file.write_bytes(b"nothing")
    rest.clear()
    with pytest.warns(UserWarning, match="Continuing from the generation before it"):
        found = landscape.scan(sim, starts, losses, TRUE, AXES, steps=50, path=file, progress=rest.append)
    assert rest == [5] + [1] * 7 and np.array_equal(found.values["own"], whole.values["own"])
    file.write_bytes(b"nothing")
    files.previous(file).unlink()
    with pytest.raises(rd.CheckpointError, match="not a scan"):
        landscape.scan(sim, starts, losses, TRUE, AXES, steps=50, path=file)


def test_a_finished_scan_is_not_written_again(setting, tmp_path):
    sim, starts, losses = setting
    file = tmp_path / "scan.npz"
    options = dict(steps=5, path=file, gradients=False)
    landscape.scan(sim, starts, losses, TRUE, {"F": [0.03, 0.04]}, **options)
    before = file.stat().st_mtime_ns
    landscape.scan(sim, starts, losses, TRUE, {"F": [0.03, 0.04]}, **options)
    assert file.stat().st_mtime_ns == before and [each.name for each in tmp_path.iterdir()] == ["scan.npz"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(axes={}), "at least one"),
        (dict(axes={"F": [0.03, np.nan]}), "finite"),
        (dict(axes={"F": 0.03}), "1-D"),
        (dict(axes={"f": [0.03]}), "Did you mean 'F'"),
        (dict(axes={"F": ["a"]}), "real numbers"),
        (dict(params=dict(TRUE, k=np.full((16, 16), 0.06)), axes={"F": [0.03]}), "field"),
        (dict(params=dict(TRUE, Du=np.nan)), "finite"),
        (dict(params=3.0), "dict"),
        (dict(losses={}), "at least one"),
        (dict(losses={"a": [rd.losses.L2(np.ones((2, 16, 16)))]}), "1 losses for 2 starts"),
        (dict(losses={"a": rd.losses.L2(np.ones((2, 8, 8)))}), "does not fit"),
        (dict(losses={"a": 1.0}), "has no value"),
        (dict(starts=[]), "starts is empty"),
        (dict(starts=np.ones((3, 16, 16))), "starts"),
        (dict(window=99), "window"),
        (dict(workers=0), "workers"),
        (dict(path=3), "path"),
    ],
)
def test_bad_input_is_refused_before_anything_is_computed(setting, changes, message, monkeypatch):
    sim, starts, losses = setting
    given = dict(starts=starts, losses=losses, params=TRUE, axes=AXES, steps=5) | changes
    monkeypatch.setattr(landscape.Simulation, "gradient", None)
    monkeypatch.setattr(landscape.Simulation, "run", None)
    with pytest.raises(rd.InputError, match=message):
        landscape.scan(sim, **given)


def jacobian(F, k):
    u, v = landscape.blue_state(F, k)
    return np.array([[-(v**2) - F, -2 * u * v], [v**2, 2 * u * v - F - k]])


def growth(F, k, Du=0.0, Dv=0.0):
    """The largest growth rate over wave numbers."""
    J = jacobian(F, k)
    return max(np.linalg.eigvals(J - q * np.diag([Du, Dv])).real.max() for q in np.linspace(0.0, 2.0, 2001))


def test_the_blue_state_is_uniform_and_at_rest():
    sim = rd.Simulation("gray_scott", rd.Grid((4, 4)), dt=1.0)
    u, v = landscape.blue_state(0.04, 0.05)
    rate = sim.rate(np.array([u, v])[:, None, None] * np.ones((2, 4, 4)), dict(TRUE, F=0.04, k=0.05))
    assert np.abs(rate).max() < 1e-15
    assert np.isnan(landscape.blue_state(0.035, 0.065)[1])  # F < 4 (F + k)^2: the truth has no blue state


def test_the_lines_are_where_eigenvalues_cross():
    saddle, hopf, turing = landscape.boundaries(0.16, 0.08)
    for k, F in zip(saddle.k[::50], saddle.F[::50], strict=True):
        assert F == pytest.approx(4 * (F + k) ** 2)
    for k, F in zip(hopf.k[10:-10:40], hopf.F[10:-10:40], strict=True):
        assert np.linalg.eigvals(jacobian(F, k)).real.max() == pytest.approx(0.0, abs=1e-9)
        assert np.abs(np.linalg.eigvals(jacobian(F, k)).imag).max() > 1e-4
        assert (
            np.linalg.eigvals(jacobian(0.99 * F, k)).real.max()
            > 0
            > np.linalg.eigvals(jacobian(1.01 * F, k)).real.max()
        )
    assert len(turing.k) > 200
    for k, F in zip(turing.k[5::20], turing.F[5::20], strict=True):
        assert np.linalg.eigvals(jacobian(F, k)).real.max() < 0.0  # uniform perturbations do not grow
        assert growth(F, k - 5e-5, 0.16, 0.08) < 0.0 < growth(F, k + 5e-5, 0.16, 0.08)
    assert not landscape.boundaries(0.1269, 0.1269)[2].k.size


@pytest.mark.parametrize(
    "axes", [{"F": AXES["F"]}, AXES, {"k": AXES["k"], "F": AXES["F"]}, {"Du": [0.15, 0.16], **AXES}]
)
def test_pictures_of_one_two_and_three_axes(setting, axes, tmp_path):
    sim, starts, losses = setting
    found = landscape.scan(sim, starts, losses, TRUE, axes, steps=10)
    figure = landscape_plots.show(found, truth=TRUE, path=[TRUE, TRUE])
    figure.savefig(tmp_path / "landscape.png")
    assert len(figure.axes) >= 2


def test_classes_are_nearer_to_themselves():
    rng = np.random.default_rng(0)
    classes = {"a": [rng.random((1, 16, 16)) for _ in range(3)], "b": [2 * rng.random((1, 16, 16)) for _ in range(3)]}
    names, matrix = landscape.pairwise(classes, rd.losses.L2)
    assert names == ["a", "b"] and matrix[0, 0] < matrix[0, 1]
    assert np.isnan(landscape.pairwise({"a": classes["a"][:1]}, rd.losses.L2)[1]).all()
    assert landscape_plots.pairwise(names, matrix).axes
