"""Steady states: Newton, implicit derivatives against finite differences and the unrolled adjoint, the sparse
solvers."""

import numpy as np
import pytest
from scipy import optimize, sparse

import adjoint_rd as rd
from adjoint_rd import steady
from adjoint_rd.sparse import LU, Cholesky, Spectral, System, laplacian, wall_term

SPOTS = {"Du": 0.16, "Dv": 0.08, "F": 0.035, "k": 0.065}


class Invariant:
    """sum(v^3 + u v): unchanged by shifts."""

    def value(self, y):
        return float(np.sum(y[1] ** 3 + y[0] * y[1]))

    def seed(self, y):
        return np.stack([y[1], 3.0 * y[1] ** 2 + y[0]])

    def seed_tangent(self, y, t):
        return np.stack([t[1], 6.0 * y[1] * t[1] + t[0]])


def simulation(boundary, shape=(24, 24)):
    return rd.Simulation("gray_scott", rd.Grid(shape, boundary=boundary), dt=1.0, threads=1)


@pytest.fixture(scope="module", params=["periodic", "neumann"])
def spots(request):
    sim = simulation(request.param)
    y0 = sim.initial_state("square", rng=2, size=8, clip=(0.0, 1.0))
    run = sim.run_to_steady(y0, SPOTS, tol=1e-6, max_steps=60_000)
    assert run.final[1].max() > 0.2, "the pattern died"
    return sim, run.final


def test_newton_reaches_the_steady_state_that_time_stepping_approaches(spots):
    sim, near = spots
    found = steady.find(sim, near, SPOTS, tol=1e-12, modes=None)
    assert found.converged and found.rate < 1e-12
    assert np.max(np.abs(sim.rate(found.state, SPOTS))) < 1e-11
    assert np.max(np.abs(found.state - near)) < 0.2


@pytest.mark.parametrize("modes", ["auto", None])
def test_implicit_gradient_is_that_of_reconverged_states(spots, modes):
    sim, near = spots
    base = steady.find(sim, near, SPOTS, tol=1e-13, modes=modes)
    gradient = base.gradient(Invariant())

    def value(name, shift):
        params = {**SPOTS, name: SPOTS[name] * (1.0 + shift)}
        moved = steady.find(sim, base.state, params, tol=1e-13, modes=base.modes if base.modes.size else None)
        assert moved.converged
        return Invariant().value(moved.state)

    for name in SPOTS:
        coarse, fine = ((value(name, h) - value(name, -h)) / (2.0 * h * SPOTS[name]) for h in (1e-5, 5e-6))
        # The second-order error of central differences is taken out: this state has a soft mode.
        assert gradient.params[name] == pytest.approx((4.0 * fine - coarse) / 3.0, rel=1e-6)


def test_implicit_gradient_is_the_unrolled_adjoint_run_to_convergence():
    sim = simulation("neumann")
    y0 = sim.initial_state("square", rng=2, size=8, clip=(0.0, 1.0))
    near = sim.run_to_steady(y0, SPOTS, tol=1e-6, max_steps=60_000).final
    found = steady.find(sim, near, SPOTS, tol=1e-13)
    slowest = -found.eigenvalues(1)[0].real
    assert slowest > 0, "not a stable state"
    steps = int(min(20.0 / slowest, 60_000))
    unrolled = sim.gradient(found.state, SPOTS, Invariant(), steps=steps)
    implicit = found.gradient(Invariant())
    for name in SPOTS:
        assert implicit.params[name] == pytest.approx(unrolled.params[name], rel=1e-6)


def test_tangent_and_gradient_are_transposes(spots):
    sim, near = spots
    found = steady.find(sim, near, SPOTS)
    direction = {"Du": 0.3, "Dv": -0.2, "F": 0.1, "k": 0.7}
    gradient = found.gradient(Invariant())
    tangent = found.tangent(direction)
    left = float(np.sum(Invariant().seed(found.state) * tangent))
    right = sum(gradient.params[name] * direction[name] for name in SPOTS)
    assert left == pytest.approx(right, rel=1e-9)


def test_gradient_of_a_field_parameter_sums_to_that_of_the_scalar():
    sim = simulation("neumann")
    near = sim.run_to_steady(sim.initial_state("square", rng=2, size=8), SPOTS, tol=1e-6, max_steps=60_000).final
    scalar = steady.find(sim, near, SPOTS).gradient(Invariant())
    field = steady.find(sim, near, {**SPOTS, "k": np.full((24, 24), 0.065)}).gradient(Invariant())
    assert field.params["k"].shape == (24, 24)
    assert np.sum(field.params["k"]) == pytest.approx(scalar.params["k"], rel=1e-8)


def test_taylor_remainder_is_second_order():
    sim = simulation("neumann")
    near = sim.run_to_steady(sim.initial_state("square", rng=2, size=8), SPOTS, tol=1e-6, max_steps=60_000).final
    obj = rd_objective(sim, near, Invariant())
    x = obj.pack(**SPOTS)
    value, gradient = obj.value_and_grad(x)
    d = np.array([1.0, -0.5, 0.3, 0.2])
    steps = 2e-4 * 0.5 ** np.arange(3)
    remainders = [abs(obj.value(x + h * d) - value - h * gradient @ d) for h in steps]
    orders = np.log2(np.array(remainders[:-1]) / remainders[1:])
    assert orders.min() > 1.9
    first = [abs(obj.value(x + h * d) - value + h * gradient @ d) for h in steps]  # control: the wrong sign
    assert np.log2(first[0] / first[1]) < 1.2


def rd_objective(sim, start, loss):
    return steady.SteadyObjective(sim, start, loss, free=("Du", "Dv", "F", "k"))


def test_steady_objective_recovers_parameters_with_scipy():
    sim = simulation("neumann")
    near = sim.run_to_steady(sim.initial_state("square", rng=2, size=8), SPOTS, tol=1e-6, max_steps=60_000).final
    target = steady.find(sim, near, SPOTS, tol=1e-12).state
    obj = rd_objective(sim, target, rd.losses.L2(target[1], species=1))
    x0 = obj.pack(Du=0.1601, Dv=0.08002, F=0.03501, k=0.06501)
    found = optimize.least_squares(obj.misfit, x0, jac=obj.misfit_jacobian, xtol=1e-12, ftol=1e-12, gtol=1e-14)
    for name, value in obj.unpack(found.x).items():
        assert value == pytest.approx(SPOTS[name], rel=1e-6)
    v = np.array([0.1, 0.2, -0.3, 0.4])
    J = obj.misfit_jacobian(x0)
    np.testing.assert_allclose(obj.gauss_newton(x0, v), J.T @ (J @ v), rtol=1e-8)


def test_a_steady_objective_is_validated_as_any_other():
    sim = simulation("neumann")
    near = sim.run_to_steady(sim.initial_state("square", rng=2, size=8), SPOTS, tol=1e-6, max_steps=60_000).final
    obj = rd_objective(sim, near, Invariant())
    x = obj.pack(**SPOTS)
    assert obj.bounds == [(None, None)] * 4
    assert rd.validate.taylor(obj, x).passed  # its longest steps lead to another branch
    checked = rd.validate.finite_difference(obj, x, step_sizes=[1e6, 1e-5, 1e-6, 1e-7], tolerance=1e-5)
    assert checked.passed and np.isnan([curve[0] for curve in checked.errors.values()]).all()
    for call in (lambda: rd.validate.complex_step(obj, x), lambda: rd.validate.taylor(obj, x, hessian=True)):
        with pytest.raises(rd.InputError, match="SteadyObjective has no"):
            call()


def test_a_state_that_is_not_steady_has_no_derivatives(spots):
    sim, near = spots
    found = steady.find(sim, near, SPOTS, max_iterations=0)
    assert not found.converged
    for call in (lambda: found.gradient(Invariant()), lambda: found.tangent({"F": 1.0})):
        with pytest.raises(steady.SteadyError, match=r"not steady: its rate .* is above tol=1e-10"):
            call()
    loose = steady.find(sim, near, SPOTS, max_iterations=0, tol=2.0 * found.rate)
    assert np.isfinite(loose.gradient(Invariant()).value)


def test_krylov_solves_what_the_direct_solver_solves(spots):
    sim, near = spots
    direct = steady.find(sim, near, SPOTS)
    krylov = steady.SteadyState(sim, direct.state, SPOTS, modes=direct.modes, solver="krylov")
    expected, found = direct.gradient(Invariant()), krylov.gradient(Invariant())
    for name in SPOTS:
        assert found.params[name] == pytest.approx(expected.params[name], rel=1e-6)


@pytest.mark.parametrize(
    "boundary", ["periodic", "neumann", "dirichlet", ("periodic", "dirichlet"), ("neumann", "periodic")]
)
def test_transforms_diagonalise_the_laplacian(boundary):
    grid = rd.Grid((12, 9), spacing=(0.5, 0.7), boundary=boundary)
    a = np.random.default_rng(0).standard_normal(grid.shape)
    spectral = Spectral(grid)
    expected = (laplacian(grid) @ a.ravel()).reshape(grid.shape)
    np.testing.assert_allclose(spectral.apply(a, spectral.lam), expected, atol=1e-10)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_the_residual_is_the_rate_of_the_simulation(boundary):
    grid = rd.Grid((10, 12), spacing=(1.0, 1.3), boundary=boundary)
    sim = rd.Simulation("gray_scott", grid, dt=0.5, threads=1)
    y = np.random.default_rng(1).uniform(0.1, 0.6, sim.state_shape)
    found = System(sim.model, grid).residual(y.ravel(), SPOTS)
    np.testing.assert_allclose(found.reshape(y.shape), sim.rate(y, SPOTS), atol=1e-12)


@pytest.mark.parametrize("model", ["gray_scott", "schnakenberg", "allen_cahn"])
def test_jacobians_are_the_derivatives_of_the_residual(model):
    sim = rd.Simulation(model, rd.Grid((7, 8)), dt=1e-3, threads=1)
    rng = np.random.default_rng(3)
    system = System(sim.model, sim.grid)
    params = {name: float(rng.uniform(0.1, 0.5)) for name in sim.model.names}
    y, t = rng.uniform(0.1, 0.9, (2, system.size))
    h = 1e-6
    column = (system.residual(y + h * t, params) - system.residual(y - h * t, params)) / (2 * h)
    np.testing.assert_allclose(system.jacobian(y, params) @ t, column, rtol=1e-6, atol=1e-8)
    slopes = system.parameter_jacobian(y, params, sim.model.names)
    for n, name in enumerate(sim.model.names):
        up, down = ({**params, name: params[name] + s * h} for s in (1, -1))
        np.testing.assert_allclose(
            slopes[:, n], (system.residual(y, up) - system.residual(y, down)) / (2 * h), rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("shape", [(40,), (17, 23), (7, 8, 9)])
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_cholesky_and_lu_solve(shape, boundary):
    grid = rd.Grid(shape, boundary=boundary)
    rng = np.random.default_rng(0)
    blocks = [
        [
            sparse.diags_array(rng.standard_normal(grid.size)) + (laplacian(grid) if i == j else 0 * laplacian(grid))
            for j in range(2)
        ]
        for i in range(2)
    ]
    J = sparse.csr_array(sparse.block_array(blocks))
    A = sparse.csr_array(J.T @ J + 0.1 * sparse.eye_array(J.shape[0]))
    b = rng.standard_normal((J.shape[0], 3))
    factor = Cholesky(grid, A)
    np.testing.assert_allclose(A @ factor.solve(b), b, atol=1e-9)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(A.toarray())[1], rel=1e-10)
    lu = LU(grid, J)
    np.testing.assert_allclose(J @ lu.solve(b[:, 0]), b[:, 0], atol=1e-8)
    np.testing.assert_allclose(J.T @ lu.solve(b[:, 0], transpose=True), b[:, 0], atol=1e-8)
    with pytest.raises(np.linalg.LinAlgError):
        Cholesky(grid, A - 1e3 * sparse.eye_array(A.shape[0]))


def test_walls_add_twice_their_value_over_the_spacing_squared():
    grid = rd.Grid((5, 4), spacing=0.5, boundary=("dirichlet", "periodic"))
    added = wall_term(grid, 3.0).reshape(5, 4)
    np.testing.assert_allclose(added[[0, -1]], 24.0)
    np.testing.assert_allclose(added[1:-1], 0.0)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda sim, y: steady.find(sim, y, SPOTS, tol=-1.0), "tol=-1.0"),
        (lambda sim, y: rd.validate.taylor(steady.find, [0.0]), "must be an Objective"),
        (lambda sim, y: steady.find(sim, y, SPOTS, modes=np.ones((3, 1))), "modes has shape"),
        (lambda sim, y: steady.find(sim, y, SPOTS, solver="magic"), "solver='magic'"),
        (lambda sim, y: steady.SteadyObjective(sim, y, Invariant(), free=("Du", "q")), "'q'"),
        (lambda sim, y: steady.SteadyObjective(sim, y, Invariant(), free=("Du",)), "must be in free or in fixed"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    sim = simulation("periodic")
    with pytest.raises(rd.InputError) as error:
        call(sim, sim.initial_state("uniform"))
    assert words in str(error.value)
