"""Anything given to the public functions: they return finite numbers or raise one of the library's own errors.

The environment variable FUZZ_EXAMPLES is the number of examples for each function, 80 if it is not set.
"""

import contextlib
import os
import string
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adjoint_rd as rd
from adjoint_rd import initial, io, landscape, penalties, presets, steady, transforms

PARAMS = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
SHAPE = (4, 6)
Y0 = np.random.default_rng(0).random((2, *SHAPE))
SIM = rd.Simulation("gray_scott", rd.Grid(SHAPE), dt=0.5)
LOSS = rd.losses.L2(0.9 * Y0)
OBJ = rd.Objective(SIM, Y0, LOSS, steps=3, free=("F", "k"), fixed=dict(Du=0.16, Dv=0.08))
X0 = OBJ.pack(F=0.04, k=0.06)
UNIFORM = np.full((20, 20), 0.3)  # refused as no pattern, once its arguments are checked
INVERSION = dict(
    spacing=1.0, start=None, noise=None, mask=None, scale=1.0, species=None, boundary="periodic", known=None
)

WORDS = (
    "gray_scott",
    "euler",
    "rk4",
    "float64",
    "auto",
    "all",
    "disk",
    "periodic",
    "log",
    "F",
    "Du",
    "initial",
    "square",
)
numbers = st.one_of(
    st.integers(-3, 12),
    st.floats(),
    st.floats(0.0, 1.0),
    st.complex_numbers(),
    st.booleans(),
    st.sampled_from([np.float32(0.5), np.int8(3), np.float16("nan"), np.bool_(True), np.complex64(1j), np.array(0.3)]),
    st.sampled_from([1e-308, 1e308, -0.0, 10**400, np.ma.masked]),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(string.printable, max_size=8), st.binary(max_size=4))


@st.composite
def arrays(draw):
    """Arrays of every kind, never of the grid's own shape (fields have kernels of their own)."""
    shape = draw(
        st.sampled_from([(), (0,), (1,), (2,), (4,), (2, 4), (6, 4), (1, 4, 6), (2, 4, 6), (3, 4, 6), (2, 2, 4, 6)])
    )
    dtype = draw(st.sampled_from(["f8", "f4", "f2", ">f8", "i4", "u1", "?", "c16", "O", "U3", "M8[s]", "S2"]))
    array = np.resize(np.arange(24.0) / 24.0, shape)
    array = array.astype("i8").astype(dtype) if dtype.startswith("M8") else array.astype(dtype)
    if array.dtype.kind in "fc" and array.size and draw(st.booleans()):
        array.flat[-1] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e300 if array.dtype.itemsize > 4 else 1e3]))
    if array.dtype.kind == "f" and draw(st.booleans()):
        array = np.ma.masked_array(array, mask=draw(st.booleans()))
    return array


things = st.recursive(
    st.one_of(st.none(), numbers, texts, arrays(), st.sampled_from([LOSS, SIM, OBJ, object(), len, rd.losses.L2, Y0])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.sampled_from([*PARAMS, "initial", "f"]), st.integers(0, 3)), inner, max_size=4),
    ),
    max_leaves=4,
)
fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "80")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def finite(value):
    """Whether there is no NaN and no infinity in what a function returned."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, float):
        return bool(np.isfinite(value))
    return finite(vars(value)) if isinstance(value, (rd.Run, rd.Gradient, rd.Tangent, rd.SteadyRun)) else True


MAY_BE_NAN = ("standard_errors",)  # of what the data do not determine
TARGETS = {
    "Grid": (rd.Grid, dict(shape=SHAPE, spacing=1.0, boundary="neumann", wall=None)),
    "Simulation": (
        rd.Simulation,
        dict(model="gray_scott", grid=SIM.grid, dt=0.5, scheme="euler", dtype="float64", stability=None, threads=None),
    ),
    "run": (SIM.run, dict(y0=Y0, params=PARAMS, steps=2, save_every=None)),
    "rate": (SIM.rate, dict(y=Y0, params=PARAMS)),
    "run_to_steady": (SIM.run_to_steady, dict(y0=Y0, params=PARAMS, tol=1e-3, max_steps=20)),
    "initial_state": (SIM.initial_state, dict(kind="square", rng=0, params=None, noise=0.1, size=2)),
    "initial.make": (
        initial.make,
        dict(kind="noise", shape=SHAPE, rest=(1.0, 0.0), seed=(0.5, 0.25), rng=0, noise=0.1),
    ),
    "gradient": (
        SIM.gradient,
        dict(y0=Y0, params=PARAMS, loss=LOSS, steps=3, window=None, checkpoints="auto"),
    ),
    "tangent": (SIM.tangent, dict(y0=Y0, params=PARAMS, steps=2, direction=dict(F=1.0), initial=None)),
    "hessian_product": (
        SIM.hessian_product,
        dict(y0=Y0, params=PARAMS, loss=LOSS, steps=2, direction=dict(F=1.0), initial=None, window=None),
    ),
    "check_stability": (SIM.limits, dict(params=PARAMS)),
    "predicted_bytes": (SIM.predicted_bytes, dict(steps=5, window=None, checkpoints="auto")),
    "L2": (rd.losses.L2, dict(target=Y0, species=None, sigma=1.0, mask=None)),
    "Linear": (rd.losses.Linear, dict(weights=Y0)),
    "Trajectory": (rd.losses.Trajectory, dict(losses={2: LOSS})),
    "LogSpectrum": (
        rd.losses.LogSpectrum,
        dict(target=Y0, species=None, mean="remove", radial=True, window=None, patch=None, floor=1e-3, sigma=1.0),
    ),
    "Autocorrelation": (rd.losses.Autocorrelation, dict(target=Y0, species=0, max_lag=2, mean="remove", sigma=1.0)),
    "Moments": (rd.losses.Moments, dict(target=Y0, species=None, orders=(1, 2), sigma=1.0)),
    "Histogram": (
        rd.losses.Histogram,
        dict(target=Y0, species=None, bins=4, range=(0.0, 1.0), width=None, cumulative=False, sigma=1.0),
    ),
    "Weighted": (rd.losses.Weighted, dict(losses=[LOSS], weights=[1.0])),
    "Objective": (
        rd.Objective,
        dict(
            sim=SIM,
            y0=Y0,
            loss=LOSS,
            steps=3,
            free=("F",),
            fixed=dict(Du=0.16, Dv=0.08, k=0.06),
            transform="log",
            window=None,
            penalty=None,
            on_unstable="continue",
            checkpoints="auto",
        ),
    ),
    "pack": (OBJ.pack, dict(F=0.03, k=0.06)),
    "unpack": (OBJ.unpack, dict(x=X0)),
    "value_and_grad": (OBJ.value_and_grad, dict(x=X0)),
    "hessp": (OBJ.hessp, dict(x=X0, v=X0)),
    "misfit": (OBJ.misfit, dict(x=X0)),
    "misfit_jacobian": (OBJ.misfit_jacobian, dict(x=X0)),
    "minimize": (
        rd.minimize,
        dict(
            fun=OBJ,
            x0=X0,
            method="lbfgs",
            maxiter=2,
            tol=1e-8,
            bounds=None,
            learning_rate=None,
            checkpoint_every=1,
            max_scale=None,
            max_move=1.0,
            recent=None,
            memory=3,
            momentum=0.9,
            betas=(0.9, 0.99),
            epsilon=1e-8,
        ),
    ),
    "Gaussian": (penalties.Gaussian, dict(mean=dict(F=0.03), stderr=dict(F=0.1))),
    "transform": (transforms.get, dict(transform="log", argument="transform")),
    "preset": (presets.get, dict(name="lambda")),
    "standard_errors": (rd.standard_errors, dict(obj=OBJ, x=X0)),
    "steady.find": (
        partial(steady.find, SIM),
        dict(y_start=Y0, params=PARAMS, tol=1e-3, max_iterations=3, steps=0, modes=None, solver="direct"),
    ),
    "SteadyObjective": (
        partial(steady.SteadyObjective, SIM),
        dict(
            y_start=Y0,
            loss=LOSS,
            free=("F",),
            fixed=dict(Du=0.16, Dv=0.08, k=0.06),
            transform="log",
            tol=1e-3,
            max_iterations=3,
            modes=None,
            solver="auto",
        ),
    ),
    "landscape.scan": (
        partial(landscape.scan, SIM),
        dict(
            starts=Y0,
            losses={"own": LOSS},
            params=PARAMS,
            axes={"F": [0.03]},
            steps=2,
            window=None,
            gradients=True,
            workers=1,
        ),
    ),
    "invert": (
        rd.invert,
        dict(
            INVERSION,
            data=UNIFORM,
            model="gray_scott",
            offset=False,
            subsample=1,
            bounds=None,
            at_rest=False,
            snapshots=False,
        ),
    ),
    "invert a movie": (
        rd.invert,
        dict(INVERSION, data=np.stack([UNIFORM] * 5), times=np.arange(5.0), dt=None, scheme=None, refine=1),
    ),
    "invert_statistics": (  # the library's name is refused, once all else is checked
        rd.invert_statistics,
        dict(
            data=np.resize(UNIFORM, (32, 32)),
            model="gray_scott",
            spacing=1.0,
            bounds=None,
            statistics=("histogram",),
            noise=None,
            rounds=1,
            runs=40,
            repeats=8,
            rng=0,
            workers=1,
            library="a.txt",
        ),
    ),
    "dot_product": (partial(rd.validate.dot_product, SIM), dict(y0=Y0, params=PARAMS, steps=2, rng=0, tolerance=None)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_one_argument_of_a_call_is_anything(name):
    function, usual = TARGETS[name]

    @fuzzed
    @given(st.sampled_from([*usual]), things)
    def called(argument, thing):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(rd.AdjointRDError):
                found = function(**{**usual, argument: thing})
                assert name in MAY_BE_NAN or finite(found), found

    called()


@fuzzed
@given(
    st.sampled_from([".npz", ".npy", ".png", ".tif", ".gif", ".h5"]),
    st.sampled_from(
        [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"GIF89a", b"\x89HDF\r\n\x1a\n"]
    ),
    st.binary(max_size=200),
)
def test_files_of_random_bytes_are_refused(tmp_path_factory, suffix, head, tail):
    path = tmp_path_factory.mktemp("fuzz") / f"a{suffix}"
    path.write_bytes(head + tail)
    for read in (io.read_observation, rd.load):
        with contextlib.suppress(rd.AdjointRDError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, before it gives up
            assert finite(read(path).__dict__)


@fuzzed
@given(st.data())
def test_a_saved_run_with_changed_bytes_is_refused_or_as_written(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    run = SIM.run(Y0, PARAMS, steps=2)
    run.save(folder / "run.npz")
    content = bytearray((folder / "run.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "run.npz").write_bytes(content)
    with contextlib.suppress(rd.AdjointRDError):
        found = rd.load(folder / "run.npz")
        assert np.array_equal(found.states, run.states) and found.params == run.params
