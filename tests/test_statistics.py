"""Statistics of a pattern, the library, the regression, and parameters from statistics alone."""

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import models
from adjoint_rd.inversion import library, texture
from adjoint_rd.inversion.regression import LINEAR, KernelRidge
from adjoint_rd.inversion.statistics import _Search, invert_statistics

GRAY_SCOTT = models.get("gray_scott")
BOUNDS = {"Du": (0.13, 0.19), "Dv": (0.065, 0.095), "F": (0.034, 0.042), "k": (0.0595, 0.0635)}
RNG = np.random.default_rng(11)


def blobs(centres, radius, shape=(48, 48)):
    """1 within `radius` of any centre, 0 elsewhere."""
    i, j = np.indices(shape)
    return np.max([np.hypot(i - a, j - b) <= radius for a, b in centres], axis=0).astype(float)


# Statistics


@pytest.mark.parametrize(
    "move",
    [lambda v: np.roll(v, (5, -9), (0, 1)), lambda v: v[::-1], lambda v: v.T, np.rot90],
    ids=["shift", "mirror", "transpose", "quarter turn"],
)
def test_they_do_not_change_when_the_pattern_is_moved(move):
    v = np.abs(RNG.standard_normal((40, 40))).cumsum(axis=0) % 1.0
    before, after = texture.features(v), texture.features(move(v))
    assert list(before) == list(after)
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-9, atol=1e-9)


def test_a_cosine_has_its_own_wavenumber_and_amplitude():
    x = np.arange(60)
    k = 2 * np.pi * 5 / 60
    v = 0.3 + 0.1 * np.cos(k * x)[:, None] * np.ones(60)
    found = texture.features(v)
    assert np.exp(found["k mean"]) == pytest.approx(k) and np.exp(found["k 4"]) == pytest.approx(k, rel=1e-6)
    assert np.exp(found["mean"]) == pytest.approx(0.3) and np.exp(found["std"]) == pytest.approx(0.1 / 2**0.5)
    assert found["kurtosis"] == pytest.approx(1.5)
    # Lap v = -2 (1 - cos k) (v - mean) for every band of v
    lowest = np.sort(v, axis=None)[: v.size // 4].mean() - 0.3
    assert found["Lap at 0"] * 0.1 / 2**0.5 == pytest.approx(-2 * (1 - np.cos(k)) * lowest, rel=1e-6)


def test_shapes_are_counted():
    two = blobs([(10, 10), (30, 33)], 6)
    ring = blobs([(20, 20)], 14) - blobs([(20, 20)], 7)
    for v, euler in ((two, 2), (ring, 0), (1 - blobs([(3, 3)], 2), -1)):  # the plane without a hole closes to a torus
        assert texture.features(v)["Euler 0.5"] * v.size / 200 == pytest.approx(euler)
    rows, columns = np.any(two, axis=1).sum(), np.any(two, axis=0).sum()  # of convex blobs: edges = 2 (height + width)
    assert (np.exp(texture.features(two)["length 0.5"]) - 1e-3) * two.size == pytest.approx(2 * (rows + columns))


def test_groups_are_parts_of_the_whole():
    v = RNG.uniform(0, 1, (36, 40))
    whole = texture.features(v)
    parts = {}
    for group in texture.GROUPS:
        parts |= texture.features(v, (group,))
    assert parts == whole


# Regression


def test_left_out_errors_are_those_of_leaving_out():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((40, 3))
    Y = np.stack([np.sin(X[:, 0]) + 0.1 * rng.standard_normal(40), X @ [1.0, 2.0, -1.0]], axis=1)
    fit = KernelRidge(X, Y)
    z, y = fit.standardise(X), (Y - fit.target_mean) / fit.target_spread
    square = np.sum((z[:, None] - z) ** 2, axis=2)
    for c in range(2):
        K = np.exp(-square / (fit.scales[c] * fit.unit)) + LINEAR * z @ z.T / 3
        for i in (0, 7, 39):
            rest = np.arange(40) != i
            alpha = np.linalg.solve(K[np.ix_(rest, rest)] + fit.ridges[c] * np.eye(39), y[rest, c])
            error = (y[i, c] - K[i, rest] @ alpha) * fit.target_spread[c]
            assert fit.left_out[i, c] == pytest.approx(error, rel=1e-6, abs=1e-9)
            # variances are differences of nearly equal numbers, down to 1e-5 of them
            inverse = np.linalg.inv(K[np.ix_(rest, rest)] + fit.ridges[c] * np.eye(39))
            variance = K[i, i] + fit.ridges[c] - K[i, rest] @ inverse @ K[i, rest]
            assert fit.left_out_spread[i, c] == pytest.approx(variance**0.5 * fit.target_spread[c], rel=1e-4)
            own = K[i] @ np.linalg.inv(K + fit.ridges[c] * np.eye(40)) @ K[i]
            inside = (K[i, i] + fit.ridges[c] - own) ** 0.5 * fit.target_spread[c]
            assert fit.spread_of(X[i])[0, c] == pytest.approx(inside, rel=1e-4)
    assert np.max(np.abs(fit(X)[:, 1] - Y[:, 1])) < 0.05
    assert fit.strangeness(X[3]) < 1.0 < fit.strangeness(np.array([30.0, -30.0, 30.0]))


# Library


def test_the_region_of_gray_scott_follows_the_saddle_node():
    where = library.region(GRAY_SCOTT, None)
    corner = where.point(np.zeros(4))
    np.testing.assert_allclose(corner, [0.08, 0.08 * 0.35, 0.022, np.sqrt(0.022) / 2 - 0.022 - 0.004])
    middle = library.region(GRAY_SCOTT, BOUNDS).point(np.full(4, 0.5))
    np.testing.assert_allclose(middle, [np.sqrt(a * b) for a, b in BOUNDS.values()])


def test_an_interrupted_library_is_continued(tmp_path, monkeypatch):
    where = library.region(GRAY_SCOTT, BOUNDS)
    calls = []

    def pattern(self, params, rng):
        calls.append(params["F"])
        if len(calls) == 30:
            raise KeyboardInterrupt
        return None if len(calls) % 3 == 0 else np.full((64, 64), params["F"], np.float32)

    monkeypatch.setattr(library.Simulator, "pattern", pattern)
    with pytest.raises(KeyboardInterrupt):
        library.build(where, (64, 64), 100, tmp_path / "a.npz", None)
    assert len(library.build(where, (64, 64), 10, tmp_path / "a.npz", None).params) == 10 and len(calls) == 30
    whole = library.build(where, (64, 64), 100, tmp_path / "a.npz", None)
    assert calls[29] == calls[30] and len(set(calls)) == len(calls) - 1  # the interrupted one again, no other
    np.testing.assert_allclose(whole.patterns[:, 0, 0], whole.params[:, 2], rtol=1e-6)
    with pytest.raises(rd.InputError, match="Give another path"):
        library.build(library.region(GRAY_SCOTT, None), (64, 64), 100, tmp_path / "a.npz", None)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:5000])
    with pytest.raises(rd.InputError, match="truncated"):
        library.build(where, (64, 64), 100, tmp_path / "a.npz", None)


# The whole


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A library of 100 patterns within BOUNDS."""
    path = tmp_path_factory.mktemp("library") / "small.npz"
    library.build(library.region(GRAY_SCOTT, BOUNDS), (64, 64), 100, path, None)
    return dict(bounds=BOUNDS, library=path, library_size=100, rounds=1, runs=40, repeats=8)


def test_parameters_from_statistics_alone(small):
    truth = {"Du": 0.16, "Dv": 0.08, "F": 0.038, "k": 0.0615}
    sim = rd.Simulation("gray_scott", rd.Grid((64, 64)), dt=1.0, threads=1)
    v = sim.run_to_steady(sim.initial_state("squares", count=12, rng=4), truth, tol=5e-5, max_steps=40_000).final[1]
    lines = []
    fit = invert_statistics(v, **small, workers=2, progress=lines.append)
    assert fit.success and fit.simulations == 48 and len(lines) == 3
    for name, value in truth.items():
        assert fit.params[name] == pytest.approx(value, abs=4 * fit.stderr[name]), name
        assert fit.params[name] == pytest.approx(value, rel=0.1) and fit.stderr[name] < 0.1 * value
    units = {"Du": 9.0, "Dv": 9.0, "F": 1.0, "k": 1.0}  # of the same pattern at another place, in other units
    bounds = {name: (units[name] * low, units[name] * high) for name, (low, high) in BOUNDS.items()}
    moved = invert_statistics(np.rot90(np.roll(v, 17, 1)), **{**small, "bounds": bounds}, spacing=3.0)
    for name, unit in units.items():
        assert moved.params[name] / unit == pytest.approx(fit.params[name], abs=1.5 * fit.stderr[name])


def test_simulations_do_not_depend_on_the_number_of_threads():
    points = np.log([[0.16, 0.08, 0.038, 0.0615], [0.15, 0.08, 0.04, 0.061], [0.17, 0.08, 0.02, 0.09]])
    found = []
    for workers in (1, 2):
        where = library.region(GRAY_SCOTT, BOUNDS)
        search = _Search(where, np.ones((1, 32, 32)), ("histogram",), 0.01, np.random.default_rng(5), print)
        simulators = [library.Simulator(GRAY_SCOTT, (32, 32), 0.2) for _ in range(workers)]
        found.append(search._simulate(simulators, points))
    assert len(found[0][0]) == 2  # the third dies
    assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])


def test_what_is_no_such_pattern_is_refused(small):
    for data, reason in [
        (np.full((64, 64), 0.2), "uniform"),
        (RNG.uniform(0, 0.4, (64, 64)), "far from all simulations"),
        (0.2 + 0.1 * np.cos(np.arange(64) * np.pi / 8)[:, None] * np.ones(64), "far from all simulations"),
    ]:
        fit = invert_statistics(data, **small, noise=0.0)
        assert not fit.success and reason in fit.message and np.isnan(fit.params["F"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(data=np.ones(5)), r"must be real numbers \(H, W\)"),
        (dict(data=np.ones((20, 64))), "at least 32 x 32"),
        (dict(data=np.full((64, 64), np.nan)), "not finite"),
        (dict(spacing=0.0), "spacing=0.0"),
        (dict(statistics=("spektrum",)), "Did you mean 'spectrum'"),
        (dict(noise=-1.0), "noise=-1.0"),
        (dict(bounds={"Du": (1, 2)}), "it must have Du, Dv, F, k"),
        (dict(bounds={**BOUNDS, "k": (0.06, 0.05)}), "0 < low < high"),
        (dict(model="schnakenberg"), "bounds is needed for schnakenberg"),
        (dict(library="a.txt"), r"must end in \.npz"),
        (dict(runs=3), "runs=3"),
    ],
)
def test_bad_arguments_are_explained(options, message):
    with pytest.raises(rd.InputError, match=message):
        invert_statistics(**{"data": np.ones((64, 64)), **options})
