"""What a user may get wrong in inversions, steady states and landscapes: one row a case, with words of the message."""

import numpy as np
import pytest
from bad_input import HOLED, PARAMS, SHAPE, SIM, Y0, refused, simulation

import adjoint_rd as rd
from adjoint_rd import landscape, landscape_plots, matching, penalties, steady

IMAGE = np.random.default_rng(1).random((20, 20))
BOTH = np.stack([IMAGE, IMAGE])
FRAMES = np.random.default_rng(2).random((6, 20, 20))
TIMES = np.arange(6.0)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (IMAGE, dict(scale=None, model="schnakenberg"), r"scale=None \(unknown gain\) is for v of gray_scott alone"),
        (BOTH, dict(species=("u", "v"), offset=True), r"offset=True is for one observed species"),
        (BOTH, dict(species=("v", "v")), r"species=\('v', 'v'\) must name each observed species once"),
        (IMAGE, dict(known={"Du": "a"}), r"known\['Du'\]='a' must be a finite number"),
        (IMAGE, dict(known={"Dv": 0.1, "F": 0.1}, scale=None), r"with scale=None give one known fact at most"),
        (IMAGE, dict(bounds={"F": (0, 1)}, scale=None), r"bounds need a scale"),
        (IMAGE, dict(bounds={"F": (0, 1)}, known={"F": 0.1}), r"bounds has 'F', which is in known"),
        (IMAGE, dict(start={"f": 0.1}), r"start has 'f', which gray_scott does not know. Did you mean 'F'\?"),
        (IMAGE, dict(subsample=0), r"subsample=0 must be >= 1"),
        (IMAGE, dict(known={"Du": 0.1, "Dv": 0.05, "F": 0.03, "k": 0.06}), r"known has all parameters of gray_scott"),
        (FRAMES[[0, 1, 0]], dict(snapshots=True), r"the same snapshot twice \(0 and 2\)"),
        (FRAMES, dict(snapshots=True, scale=None), r"snapshots=True needs two snapshots or more .* scale=None"),
    ],
)
def test_the_inversion_of_a_snapshot_refuses(data, options, words):
    refused(words, lambda: rd.invert(data, **options))


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (FRAMES, dict(scale=0.0), r"scale=0.0 must be other than zero"),
        (FRAMES, dict(scale="a"), r"scale='a' must be a finite number"),
        (FRAMES, dict(species=()), r"species=\(\) must name each observed species once"),
        (FRAMES, dict(model="brusselator"), r"model='brusselator' is not known"),
        (FRAMES[:3], dict(times=TIMES[:3]), r"data has 3 frames; a movie needs at least 5"),
        (FRAMES[:, :5, :5], {}, r"frames of shape \(5, 5\) are too few cells; at least 400 are needed"),
        (FRAMES * 1j, {}, r"data has dtype complex128; it must be real numbers"),
        (np.where(FRAMES > 0.9, np.inf, FRAMES), {}, r"data has infinite values"),
        (np.where(FRAMES > 0.2, np.nan, FRAMES), {}, r"less than 30 % of the cells of a frame count"),
        (FRAMES[:, 0, 0], {}, r"data has shape \(6,\); with times it must be \(frames, \*grid\)"),
        (FRAMES, dict(species=("u", "v")), r"with the 2 species between: \(frames, 2, \*grid\)"),
        (FRAMES, dict(times="soon"), r"times has dtype <U4; it must be real numbers"),
        (FRAMES, dict(times=TIMES[:5]), r"times has shape \(5,\) for 6 frames"),
        (FRAMES, dict(times=TIMES[::-1]), r"times must be finite and increase"),
        (FRAMES, dict(times=TIMES**np.pi), r"must be multiples of some simple fraction"),
        (FRAMES, dict(start={"F": -1.0}), r"start\['F'\]=-1.0 must be positive"),
        (FRAMES, dict(noise=-1.0), r"noise=-1.0 must be a finite number >= 0"),
        (FRAMES, dict(dt=0.3), r"dt=0.3 must be positive and divide 1"),
        (FRAMES, dict(scheme="rk5"), r"scheme='rk5' is not known"),
        (FRAMES, dict(refine=2, boundary="neumann"), r"refine=2 interpolates by Fourier series"),
        (FRAMES, dict(refine=(2, 3)), r"refine=\(2, 3\) must be multiples of the least"),
        (FRAMES, dict(subsample=2), r"offset=, subsample=, .*are for snapshots"),
    ],
)
def test_the_inversion_of_a_movie_refuses(data, options, words):
    refused(words, lambda: rd.invert(data, **{"times": TIMES, **options}))


def test_an_inversion_tells_its_stages_and_refuses_noise_in_words():
    lines = []
    mask = np.ones(IMAGE.shape, bool)
    fit = rd.invert(FRAMES, times=TIMES, mask=mask, progress=lines.append)
    assert not fit.success and "noise" in fit.message and lines[0].startswith("clean up: noise ")
    again = rd.invert(IMAGE, mask=mask, progress=lines.append)
    assert not again.success and "noise" in again.message and lines[1].startswith("clean up: noise ")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: steady.find(SIM, Y0, PARAMS, tol=0.0), r"tol=0.0 must be a finite number > 0"),
        (lambda: steady.SteadyObjective(None, Y0, rd.losses.L2(Y0), free=("F",)), r"sim=None must be an adjoint_rd"),
        (lambda: steady.SteadyObjective(SIM, Y0, rd.losses.L2(Y0), free=(np.array([]),)), r"free has array"),
        (lambda: steady_objective().pack(G=1.0), r"pack needs exactly F; it got G"),
        (lambda: steady_objective().pack(F=-1.0), r"pack got F=-1.0; it must be > 0"),
        (lambda: steady_objective().value([0.1, 0.2]), r"x=.* must be 1 finite numbers, for F"),
        (lambda: steady_objective().grad([np.nan]), r"x=.* must be 1 finite numbers"),
        (lambda: at_rest().tangent({"f": 1.0}), r"direction has 'f', which gray_scott does not know"),
        (lambda: at_rest().gauss_newton(Wrong(), {"F": 1.0}), r"has no seed_tangent"),
        (lambda: at_rest().gradient(Wrong()), r"the loss returned a seed of shape \(2,\); it must be \(2, 5, 6\)"),
    ],
)
def test_steady_states_refuse(call, words):
    refused(words, call)


class Wrong:
    def value(self, y):
        return 0.0

    def seed(self, y):
        return np.zeros(2)


def at_rest():
    """The uniform state u = 1, v = 0."""
    return steady.find(SIM, np.stack([np.ones(SHAPE), np.zeros(SHAPE)]), PARAMS, modes=None)


def steady_objective():
    fixed = {name: value for name, value in PARAMS.items() if name != "F"}
    return steady.SteadyObjective(SIM, at_rest().state, rd.losses.L2(Y0), free=("F",), fixed=fixed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(axes={}), r"axes=\{\}"),
        (dict(axes={"F": [[0.1]]}), r"axes\['F'\]=\[\[0.1\]\] must be a 1-D array of finite numbers"),
        (dict(axes={"G": [0.1]}), r"params and axes has 'G'"),
        (dict(losses={"own": [rd.losses.L2(Y0)] * 2}), r"losses\['own'\] has 2 losses for 1 starts"),
        (dict(losses={"own": 5}), r"losses\['own'\]=5 has no value and no seed"),
        (dict(starts=HOLED), r"not finite"),
        (dict(workers=0), r"workers=0 must be >= 1"),
        (dict(window=4), r"window=4 is longer than the run"),
    ],
)
def test_a_landscape_refuses(change, words):
    given = dict(starts=Y0, losses={"own": rd.losses.L2(Y0)}, params=PARAMS, axes={"F": [0.03]}, steps=3) | change
    refused(words, lambda: landscape.scan(SIM, **given))


def test_a_landscape_without_a_finite_value_has_no_lowest_point_and_no_more_than_three_axes_no_picture():
    wild = simulation(stability="off", dt=100.0)
    axes = {name: [value] for name, value in PARAMS.items()}
    found = landscape.scan(wild, Y0, {"own": rd.losses.L2(Y0)}, PARAMS, axes, steps=30, gradients=False)
    refused(r"no run of the landscape 'own' stayed finite", lambda: found.lowest("own"))
    refused(r"a landscape over 4 parameters has no picture here", lambda: landscape_plots.show(found))


@pytest.mark.parametrize(
    ("mean", "stderr", "words"),
    [
        (5, {}, r"mean=5 must be a dict"),
        ({"F": np.nan}, {"F": 1.0}, r"mean\['F'\]=nan must be finite"),
        ({"F": 1.0}, {"k": 1.0}, r"mean has F and stderr k; give both for the same parameters"),
        ({"F": 1.0}, {"F": 0.0}, r"stderr=.* must be positive"),
    ],
)
def test_prior_knowledge_is_refused(mean, stderr, words):
    refused(words, lambda: penalties.Gaussian(mean, stderr))


def test_prior_knowledge_of_an_unknown_parameter_is_refused():
    prior = penalties.Gaussian({"f": 0.03}, {"f": 0.1})
    for function in (prior.misfit, prior.value, prior.gradient):
        refused(r"penalty has 'f'; the parameters are Du, Dv, F, k. Did you mean 'F'", lambda: function(PARAMS))  # noqa: B023


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(targets=[]), r"targets must be one pattern .* and is empty"),
        (dict(free=("F", "initial")), r"free has 'initial'; the initial states are drawn here"),
        (dict(batch=0), r"batch=0 must be >= 1"),
        (dict(compare="all"), r"compare='all' is not known"),
    ],
)
def test_matching_refuses(change, words):
    given = dict(start=lambda rng: Y0, targets=[Y0], make_loss=lambda t: rd.losses.L2(t[0]), window=3, free=("F",))
    fixed = {name: value for name, value in PARAMS.items() if name != "F"}
    refused(words, lambda: matching.PatternMatching(SIM, **{**given, "fixed": fixed, **change}))
