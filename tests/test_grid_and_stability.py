"""The grid and its Laplacian, and the limits on dt against runs that do or do not blow up."""

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import reference as ref
import setups

import adjoint_rd as rd
from adjoint_rd import schemes

# ------------------------------------------------------------------------------------------------------ grid


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(shape=(2, 8)), r"an axis of 2 cells; the star needs at least 3"),
        (dict(shape=(4, 4, 4, 4)), r"4 axes; grids have 1, 2 or 3"),
        (dict(shape=()), r"0 axes"),
        (dict(shape=(8.0, 8)), r"must be a tuple of whole numbers, such as \(128, 128\)"),
        (dict(shape=(True, 8)), r"whole numbers"),
        (dict(shape="88"), r"whole numbers"),
        (dict(shape=None), r"whole numbers"),
        (dict(shape=(-5, 8)), r"at least 3"),
        (dict(shape=(8, 8), spacing=0.0), r"spacing=0.0 must be a positive finite length"),
        (dict(shape=(8, 8), spacing=-1), r"positive"),
        (dict(shape=(8, 8), spacing=float("nan")), r"positive"),
        (dict(shape=(8, 8), spacing=(1.0, float("inf"))), r"spacing=inf"),
        (dict(shape=(8, 8), spacing=(1.0, 1.0, 1.0)), r"3 entries; give one, or one for each of the 2 axes"),
        (dict(shape=(8, 8), spacing="wide"), r"spacing='wide'"),
        (dict(shape=(8, 8), spacing=1j), r"spacing=1j"),
        (dict(shape=(8, 8), boundary="periodc"), r"Did you mean 'periodic'\?"),
        (dict(shape=(8, 8), boundary=("neumann",)), r"1 entries"),
        (dict(shape=(8, 8), boundary=("neumann", 3)), r"boundary=3 is not known"),
        (dict(shape=(8, 8), wall=(1.0, 0.0)), r"no axis of boundary=.* is 'dirichlet'"),
        (dict(shape=(8, 8), boundary="dirichlet", wall=(1.0, float("nan"))), r"must be finite"),
        (dict(shape=(8, 8), boundary="dirichlet", wall="rest"), r"one number per species"),
    ],
)
def test_a_wrong_grid_is_refused_in_words(arguments, words):
    with pytest.raises(rd.InputError, match=words):
        rd.Grid(**arguments)


def test_a_grid_takes_numbers_lists_and_arrays():
    grid = rd.Grid(np.array([4, 6]), spacing=[1, 0.5], boundary=["periodic", "dirichlet"], wall=np.array([1, 0]))
    assert grid == rd.Grid((4, 6), spacing=(1.0, 0.5), boundary=("periodic", "dirichlet"), wall=(1.0, 0.0))
    assert (grid.ndim, grid.size, grid.cell_volume) == (2, 24, 0.5)
    assert rd.Grid(5).shape == (5,)
    assert str(grid) == "4x6 cells, spacing 1x0.5, periodic/dirichlet"


def test_there_must_be_one_wall_value_for_each_species():
    grid = rd.Grid((8, 8), boundary="dirichlet", wall=(1.0, 0.0, 0.0))
    with pytest.raises(rd.InputError, match="3 values; gray_scott has the 2 species u, v"):
        rd.Simulation("gray_scott", grid, dt=0.1)


# ------------------------------------------------------------------------------------------------- Laplacian


def nothing(s, p):
    (u,) = s
    return (u - u,)


diffusion = rd.Model(
    name="diffusion",
    species=("u",),
    parameters=(),
    reaction=nothing,
    reaction_j=lambda s, p, t, dp: (t[0] - t[0],),
    reaction_jt=lambda s, p, a: (a[0] - a[0],),
    reaction_pt=lambda s, p, a: (),
    rest=lambda p: (0.0,),
    box=lambda p: ((0.0, 1.0),),
)


def dense_laplacian(grid):
    """Column by column from `Simulation.rate`, with walls at 0."""
    sim = rd.Simulation(diffusion, grid, dt=1.0, stability="off")
    units = np.eye(grid.size).reshape(grid.size, 1, *grid.shape)
    return np.stack([sim.rate(unit, dict(Du=1.0)).ravel() for unit in units], axis=1)


LAPLACIANS = [  # shape, spacing, boundary
    ((8,), 0.7, "periodic"),
    ((7,), 0.7, "periodic"),
    ((8,), 1.3, "neumann"),
    ((3,), 1.3, "dirichlet"),
    ((5, 4), 1.1, "neumann"),
    ((4, 5), (0.8, 1.2), ("dirichlet", "periodic")),
    ((3, 4, 5), (0.8, 1.2, 1.0), ("dirichlet", "periodic", "neumann")),
]


@pytest.mark.parametrize(("shape", "spacing", "boundary"), LAPLACIANS, ids=setups.word)
def test_the_laplacian_is_symmetric_and_its_largest_eigenvalue_known(shape, spacing, boundary):
    grid = rd.Grid(shape, spacing=spacing, boundary=boundary)
    matrix = dense_laplacian(grid)
    unit = np.zeros((1, *shape))
    unit.flat[3 % grid.size] = 1.0
    want = ref.laplacian(unit, spacing, boundary, wall=[0.0]).ravel()
    assert ref.relative_error(matrix[:, 3 % grid.size], want) < 1e-14
    assert np.abs(matrix - matrix.T).max() < 1e-13 * np.abs(matrix).max()
    assert -np.linalg.eigvalsh(matrix).min() == pytest.approx(grid.largest_wavenumber_squared, rel=1e-12)
    if "dirichlet" not in grid.boundary:
        assert np.abs(matrix.sum(axis=0)).max() < 1e-13  # nothing leaves through the edges


def test_a_state_at_its_walls_does_not_diffuse():
    grid = rd.Grid((4, 5), spacing=(0.8, 1.2), boundary=("dirichlet", "periodic"), wall=0.3)
    sim = rd.Simulation(diffusion, grid, dt=1.0, stability="off")
    assert np.abs(sim.rate(np.full((1, 4, 5), 0.3), dict(Du=1.0))).max() < 1e-15
    assert np.abs(sim.rate(np.full((1, 4, 5), 0.4), dict(Du=1.0))).max() > 0.1


# ------------------------------------------------------------------------------------------------- stability

KNOWN = {  # rest states that do not grow by themselves
    "gray_scott": dict(Du=0.16, Dv=0.08, F=0.035, k=0.065),
    "schnakenberg": dict(Du=0.2, Dv=0.3, a=0.2, b=1.0, gamma=1.0),
    "allen_cahn": dict(Du=0.2, r=1.0),
}


def checkerboard(shape):
    return (-1.0) ** np.indices(shape).sum(axis=0)


def largest(sim, y0, params, steps, origin=0.0):
    """The largest distance from `origin` at the end; infinite if the run diverges."""
    try:
        return np.abs(sim.run(y0, params, steps=steps).final - origin).max()
    except rd.DivergenceError:
        return np.inf


@pytest.mark.parametrize(("model", "scheme"), [("schnakenberg", "rk4"), *((model, "euler") for model in KNOWN)])
def test_the_highest_mode_of_the_rest_state_grows_above_certain_and_decays_below(model, scheme):
    params, grid = KNOWN[model], rd.Grid((8,), spacing=0.8)
    certain = rd.Simulation(model, grid, dt=1e-3, scheme=scheme).limits(params).certain
    rest = np.array(rd.models.get(model).rest_state(params))[:, None] * np.ones(8)
    wave = 1e-7 * checkerboard((8,))
    size = {}
    for factor in (0.98, 1.02):
        sim = rd.Simulation(model, grid, dt=factor * certain, scheme=scheme, stability="off")
        # Not longer: with complex eigenvalues, as Schnakenberg's, even the uniform mode may grow below the limit.
        size[factor] = largest(sim, rest + wave, params, 60, rest)
    assert size[0.98] < 0.5e-7
    assert size[1.02] > 2e-7


def ends(sim, params, seeds=3, steps=400):
    """The largest values at the end of runs from random states in the box of the model."""
    box = np.array(sim.model.box(params))
    low, high = (box[:, end].reshape(-1, *(1,) * sim.grid.ndim) for end in (0, 1))
    found = []
    for seed in range(seeds):
        y0 = low + (high - low) * np.random.default_rng(seed).random(sim.state_shape)
        found.append(largest(sim, y0, params, steps))
    return found


@pytest.mark.parametrize(("scheme", "spacing"), [("euler", (1.0, 1.0)), ("euler", (0.7, 1.1)), ("rk4", (1.0, 1.0))])
def test_runs_from_the_box_blow_up_above_certain_and_not_below_safe(scheme, spacing):
    params, grid = KNOWN["gray_scott"], rd.Grid((8, 10), spacing=spacing)
    limits = rd.Simulation("gray_scott", grid, dt=1e-3, scheme=scheme).limits(params)
    assert limits.safe < limits.certain
    above = rd.Simulation("gray_scott", grid, dt=1.05 * limits.certain, scheme=scheme, stability="off")
    assert min(ends(above, params)) > 1e3
    below = rd.Simulation("gray_scott", grid, dt=0.99 * limits.safe, scheme=scheme, stability="error")
    assert max(ends(below, params)) < 1.1


def test_safe_bounds_a_bistable_model_too():
    grid = rd.Grid((8, 10))
    limits = rd.Simulation("allen_cahn", grid, dt=1e-3).limits(KNOWN["allen_cahn"])
    below = rd.Simulation("allen_cahn", grid, dt=0.99 * limits.safe, stability="error")
    assert max(ends(below, KNOWN["allen_cahn"])) < 1.5


def test_limits_of_gray_scott_are_those_on_paper():
    params = KNOWN["gray_scott"]
    grids = [((10,), 1.0, 4.0), ((8, 8), 1.0, 8.0), ((8, 8), (1.0, 0.5), 20.0), ((4, 4, 4), 0.5, 48.0)]
    for shape, spacing, K in grids:
        grid = rd.Grid(shape, spacing=spacing)
        found = rd.Simulation("gray_scott", grid, dt=1e-3).limits(params)
        assert found.certain == pytest.approx(2.0 / (K * 0.16 + 0.035), rel=1e-12)
        assert found.safe == pytest.approx(2.0 / (K * 0.16 + 0.035 + 0.36), rel=1e-12)
        better = rd.Simulation("gray_scott", grid, dt=1e-3, scheme="rk4").limits(params)
        assert better.certain / found.certain == pytest.approx(2.785293563405282 / 2.0, rel=1e-12)


def test_fields_count_with_their_extremes():
    grid = rd.Grid((8, 8))
    sim = rd.Simulation("gray_scott", grid, dt=1e-3)
    F = np.linspace(0.01, 0.5, 64).reshape(8, 8)
    found = sim.limits(KNOWN["gray_scott"] | {"F": F})
    low, high = (sim.limits(KNOWN["gray_scott"] | {"F": each}) for each in (0.01, 0.5))
    assert found.safe == high.safe < low.safe
    assert found.certain == low.certain > high.certain


@pytest.mark.parametrize("name", ["euler", "rk4"])
def test_the_real_stability_interval_is_where_modes_begin_to_grow(name):
    scheme = schemes.get(name)
    inside = np.linspace(-scheme.REAL_STABILITY_INTERVAL, 0.0, 1001)
    assert np.abs(scheme.amplification(inside)).max() <= 1.0 + 1e-12
    assert abs(scheme.amplification(-1.001 * scheme.REAL_STABILITY_INTERVAL)) > 1.0


@pytest.fixture
def at():
    """A small Gray-Scott run at a time step between or beyond the limits."""
    params = KNOWN["gray_scott"]

    def run(which, stability, model="gray_scott"):
        grid = rd.Grid((8, 10))
        limits = rd.Simulation(model, grid, dt=1e-3).limits(params)
        between = 0.5 * (limits.safe + limits.certain)
        dt = {"below": 0.99 * limits.safe, "between": between, "above": 1.01 * limits.certain}[which]
        sim = rd.Simulation(model, grid, dt=dt, stability=stability)
        y0 = np.stack([np.ones((8, 10)), np.zeros((8, 10))])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                sim.run(y0, params, steps=1)
                sim.gradient(y0, params, rd.losses.L2(y0), steps=1)
        assert all(each.category is rd.StabilityWarning for each in caught)
        return [str(each.message) for each in caught]

    return run


@pytest.mark.parametrize(
    ("which", "stability", "outcome"),
    [
        ("below", None, "silent"),
        ("below", "error", "silent"),
        ("between", None, "warning"),
        ("between", "error", "error"),
        ("between", "warn", "warning"),
        ("between", "off", "silent"),
        ("above", None, "error"),
        ("above", "error", "error"),
        ("above", "warn", "warning"),
        ("above", "off", "silent"),
    ],
)
def test_what_happens_at_a_limit_is_the_users_choice(at, which, stability, outcome):
    name = {"between": "safe", "above": "certain"}.get(which)
    if outcome == "error":
        with pytest.raises(rd.StabilityError, match=rf"dt=.* exceeds .*'{name}' limit of euler in 2-D.*Use dt <= "):
            at(which, stability)
        return
    messages = at(which, stability)
    assert len(messages) == (outcome == "warning")  # once, not at every run
    assert all(f"'{name}' limit" in message for message in messages)


def test_pearsons_diffusivities_run_with_a_warning_by_default():
    sim = rd.Simulation("gray_scott", rd.Grid((8, 10)), dt=1.0)
    y0 = sim.initial_state("square", rng=0)
    params = dict(Du=0.2097, Dv=0.1049, F=0.04, k=0.06)
    with pytest.warns(rd.StabilityWarning, match=r"blow-up is possible.*Du dt/h\^2 = 0.21, Dv dt/h\^2 = 0.105"):
        final = sim.run(y0, params, steps=50).final
    assert np.all((final >= 0) & (final <= 1))


def test_the_message_speaks_of_the_users_units():
    sim = rd.Simulation("gray_scott", rd.Grid((8, 10), spacing=0.02), dt=1.0)
    params = dict(Du=2e-4, Dv=1e-4, F=0.04, k=0.06)
    with pytest.raises(rd.StabilityError, match=r"dt=1 exceeds 0\.49.*Du dt/h\^2 = 0\.5, Dv dt/h\^2 = 0\.25.*rk4"):
        sim.run(np.ones((2, 8, 10)), params, steps=1)


def test_a_model_without_a_box_promises_no_safe_limit():
    boxless = replace(rd.models.gray_scott, box=None)
    sim = rd.Simulation(boxless, rd.Grid((8, 10)), dt=1.0, stability="error")
    found = sim.limits(KNOWN["gray_scott"])
    assert np.isnan(found.safe)
    assert found.certain == pytest.approx(2.0 / (8 * 0.16 + 0.035))
    sim.check_stability(sim.check_params(KNOWN["gray_scott"]))


def test_a_rest_state_that_depends_on_parameters_cannot_be_the_wall():
    grid = rd.Grid((8,), boundary="dirichlet")
    with pytest.raises(rd.InputError, match=r"give Grid\(\.\.\., wall=\.\.\.\)"):
        rd.Simulation("schnakenberg", grid, dt=0.1)
    assert rd.Simulation("gray_scott", grid, dt=0.1).wall == (1.0, 0.0)


def test_the_corners_of_the_box_are_all_tried():
    """The safe limit is the smallest over the corners, whichever species and corner it is."""
    params, grid = KNOWN["schnakenberg"], rd.Grid((8,))
    found = rd.Simulation("schnakenberg", grid, dt=1e-3).limits(params)
    K, rates = grid.largest_wavenumber_squared, []
    u_end, v_end = 3 * 1.2, 3 * 1.0 / 1.2**2
    for u, v in [*product((0.0, u_end), (0.0, v_end)), (u_end / 2, v_end / 2)]:
        rates += [K * 0.2 + max(1.0 - 2 * u * v, 0.0), K * 0.3 + u * u]
    assert found.safe == pytest.approx(2.0 / max(rates), rel=1e-12)
