"""The references check each other: NumPy against JAX, both against formulas on paper."""

import numpy as np
import pytest
import reference as ref

SHAPES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}
MIXED = ("dirichlet", "periodic", "neumann")
BOUNDARIES = ("periodic", "neumann", "dirichlet", "mixed")


def of(boundary, dim):
    return MIXED[:dim] if boundary == "mixed" else boundary


def wavy(loss_target):
    """A loss that is not quadratic, so that Hessians and seeds differ from the plain case."""
    return lambda y: (((y - loss_target) ** 2) * (1 + 0.3 * y)).sum()


# ------------------------------------------------------------------------------------------------ against formulas


@pytest.mark.parametrize(
    ("model", "state", "params", "want"),
    [
        # worked out by hand
        ("gray_scott", (0.5, 0.2), {"F": 0.1, "k": 0.3}, (-0.02 + 0.05, 0.02 - 0.08)),
        ("schnakenberg", (0.5, 0.2), {"a": 0.1, "b": 0.9, "gamma": 2.0}, (2 * (0.1 - 0.5 + 0.05), 2 * (0.9 - 0.05))),
        ("allen_cahn", (0.5,), {"r": 2.0}, (2 * (0.5 - 0.125),)),
        (
            "oregonator",
            (0.5, 0.2, 0.4),
            {"e": 2.0, "s": 3.0, "q": 0.1, "f": 1.5},
            (2 * (0.04 - 0.2 + 0.5 - 0.25), 0.3, 3 * (0.3 - 0.04 - 0.2)),
        ),
    ],
)
def test_reactions_equal_a_hand_worked_point(model, state, params, want):
    y = np.array(state)[:, None] * np.ones(3)
    params = params | dict.fromkeys(ref.MODELS[model].diffusivities, 0.7)
    np.testing.assert_allclose(ref.rate(model, y, params), np.array(want)[:, None] * np.ones(3), rtol=1e-14)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_laplacian_scales_its_discrete_eigenvectors(boundary, axis):
    shape, h, k = (5, 6, 7), (0.8, 1.1, 1.7), 2
    n = shape[axis]
    x = np.arange(n) + 0.5
    wave, angle = {
        "periodic": (np.cos(2 * np.pi * k * x / n + 0.3), np.pi * k / n),
        "neumann": (np.cos(np.pi * k * x / n), np.pi * k / (2 * n)),
        "dirichlet": (np.sin(np.pi * k * x / n), np.pi * k / (2 * n)),
    }[boundary]
    y = np.broadcast_to(wave.reshape([-1 if i == axis else 1 for i in range(3)]), (1, *shape))
    each = ["periodic"] * 3  # flat along the other axes
    each[axis] = boundary
    want = -4 / h[axis] ** 2 * np.sin(angle) ** 2 * y
    np.testing.assert_allclose(ref.laplacian(y, h, each, wall=[0.0]), want, atol=1e-14)


def test_a_state_at_its_walls_has_no_laplacian():
    y = np.array([0.3, 0.7])[:, None, None] * np.ones((2, 4, 5))
    assert np.abs(ref.laplacian(y, 1.0, "dirichlet", wall=(0.3, 0.7))).max() < 1e-15
    assert np.abs(ref.laplacian(y, 1.0, "dirichlet", wall=(0.7, 0.3))).max() > 0.1


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("rk4", 4)])
def test_schemes_have_their_order(scheme, order):
    case = ref.draw("gray_scott", (4, 5), of("mixed", 2), scheme)
    physics = case.physics
    finals = [ref.run(**physics | {"dt": 0.8 / n}, steps=n) for n in (4, 8, 16)]
    ratio = np.abs(finals[0] - finals[1]).max() / np.abs(finals[1] - finals[2]).max()
    assert np.log2(ratio) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("model", ref.MODELS)
def test_the_dtype_of_the_state_is_kept(model, dtype):
    case = ref.draw(model, (3, 4), "dirichlet", "rk4", fields=ref.MODELS[model].kinetics)
    final = ref.run(**case.physics | {"y0": case.y0.astype(dtype)}, steps=5)
    assert final.dtype == dtype
    assert ref.relative_error(final, ref.run(**case.physics, steps=5)) < (1e-6 if dtype == np.float32 else 1e-15)


# --------------------------------------------------------------------------------------------------- against JAX


@pytest.mark.parametrize(
    ("model", "dim", "boundary"),
    [("gray_scott", dim, boundary) for dim in SHAPES for boundary in BOUNDARIES]
    + [(model, dim, "mixed") for model in ref.MODELS if model != "gray_scott" for dim in SHAPES],
)
def test_numpy_and_jax_reach_the_same_state(model, dim, boundary):
    pytest.importorskip("jax")
    import reference_jax

    scheme = ("euler", "rk4")[dim % 2]
    case = ref.draw(model, SHAPES[dim], of(boundary, dim), scheme, fields=ref.MODELS[model].kinetics[::2], seed=dim)
    got, want = reference_jax.run(**case.physics, steps=20), ref.run(**case.physics, steps=20)
    assert np.abs(want - case.y0).max() > 1e-2  # the run goes somewhere
    assert ref.relative_error(got, want) < 1e-13


GRADIENTS = [  # model, shape, boundary, scheme, window
    ("gray_scott", (4, 3), "periodic", "euler", None),
    ("gray_scott", (4, 3), "mixed", "rk4", 7),
    ("schnakenberg", (3, 4), "neumann", "euler", 12),
    ("schnakenberg", (6,), "mixed", "rk4", None),
    ("allen_cahn", (2, 3, 4), "mixed", "euler", None),
    ("oregonator", (3, 4), "dirichlet", "euler", 5),
    ("oregonator", (5,), "periodic", "rk4", None),
]


@pytest.mark.parametrize(("model", "shape", "boundary", "scheme", "window"), GRADIENTS)
def test_complex_step_equals_automatic_differentiation(model, shape, boundary, scheme, window):
    pytest.importorskip("jax")
    import reference_jax

    case = ref.draw(model, shape, of(boundary, len(shape)), scheme, fields=ref.MODELS[model].kinetics[1::2], seed=4)
    loss = {
        8: wavy(case.target),
        15: ref.l2(case.target, sigma=0.5),
    }  # a window of 7 starts at step 8, one of 5 after it
    keywords = dict(loss=loss, steps=15, window=window)
    got, want = ref.complex_step(**case.physics, **keywords), reference_jax.value_and_grad(**case.physics, **keywords)
    assert got.value == pytest.approx(want.value, rel=1e-14)
    errors = ref.block_errors(got, want)
    assert set(errors) == {*ref.MODELS[model].parameters, "initial"}
    assert max(errors.values()) < 1e-12, errors


def test_a_wrong_gradient_is_noticed():
    """The control: the whole run's gradient is not the window's, and a loss off by one step is another loss."""
    pytest.importorskip("jax")
    import reference_jax

    case = ref.draw("gray_scott", (4, 3), "periodic")
    loss = {5: ref.l2(case.target), 15: ref.l2(case.target)}
    want = ref.complex_step(**case.physics, loss=loss, steps=15)
    window = reference_jax.value_and_grad(**case.physics, loss=loss, steps=15, window=12)
    shifted = reference_jax.value_and_grad(**case.physics, loss={6: loss[5], 15: loss[15]}, steps=15)
    assert window.value == pytest.approx(want.value, rel=1e-14)
    for wrong in (window, shifted):
        assert min(ref.block_errors(wrong, want).values()) > 1e-3


@pytest.mark.parametrize(("model", "window"), [*((model, 6) for model in ref.MODELS), ("schnakenberg", None)])
def test_tangents_and_hessian_products_equal_differences(model, window):
    """Central differences of the gradient, with the state at the window's start held fixed as an initial state."""
    pytest.importorskip("jax")
    import reference_jax

    steps = 10
    case = ref.draw(model, (4, 3), of("mixed", 2), fields=ref.MODELS[model].kinetics[:1], seed=5)
    loss = wavy(case.target)
    rng = np.random.default_rng(6)
    dparams = {name: rng.standard_normal(np.shape(value)) for name, value in case.params.items()}
    dinitial = rng.standard_normal(case.y0.shape)
    keywords = dict(dparams=dparams, dinitial=dinitial, steps=steps, window=window)
    tangent = reference_jax.tangent(**case.physics, **keywords)
    product = reference_jax.hvp(**case.physics, **keywords, loss=loss)

    late = steps if window is None else window
    start = ref.run(**case.physics, steps=steps - late)
    h = 1e-5

    def moved(sign):
        params = {name: value + sign * h * dparams[name] for name, value in case.params.items()}
        physics = case.physics | {"y0": start + sign * h * dinitial, "params": params}
        return ref.run(**physics, steps=late), reference_jax.value_and_grad(**physics, loss=loss, steps=late)

    (y_up, up), (y_down, down) = moved(+1), moved(-1)
    assert ref.relative_error(tangent, (y_up - y_down) / (2 * h)) < 1e-8
    differences = ref.Gradient(
        product.value,
        {name: (up.params[name] - down.params[name]) / (2 * h) for name in up.params},
        (up.initial - down.initial) / (2 * h),
    )
    errors = ref.block_errors(product, differences)
    assert max(errors.values()) < 1e-7, errors
    assert product.value == pytest.approx(loss(ref.run(**case.physics, steps=steps)), rel=1e-13)


def test_jax_is_left_in_its_default_precision():
    jax = pytest.importorskip("jax")
    import reference_jax

    case = ref.draw("allen_cahn", (4,))
    before = jax.config.jax_enable_x64
    assert reference_jax.run(**case.physics, steps=2).dtype == np.float64
    assert jax.config.jax_enable_x64 == before
