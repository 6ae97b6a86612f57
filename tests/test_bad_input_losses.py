"""What a user may get wrong in directions and losses: one row a case, with words of the message."""

import math

import numpy as np
import pytest
from bad_input import HOLED, LOSS, MASKED, PARAMS, RAGGED, SHAPE, SIM, Y0, WithGradient, refused, simulation

import adjoint_rd as rd


class LossOf:
    """A loss that returns what it is told to."""

    def __init__(self, value=1.0, seed=None):
        self.given = value, seed

    def value(self, y):
        return self.given[0]

    def seed(self, y):
        return np.zeros_like(y) if self.given[1] is None else self.given[1]


@pytest.mark.parametrize(
    ("direction", "words"),
    [
        (dict(f=1.0), r"direction has 'f'.*Did you mean 'F'\?"),
        (dict(F="a"), r"direction\['F'\] has dtype <U1"),
        (dict(F=1j), r"direction\['F'\] has dtype complex128"),
        (dict(F=True), r"direction\['F'\] has dtype bool"),
        (dict(F=math.nan), r"direction\['F'\] has 1 values that are not finite"),
        (dict(F=np.ones(SHAPE)), r"direction\['F'\] has shape \(5, 6\), the parameter has \(\)"),
        ("F", r"direction='F' must be a dict"),
        ([1.0], r"direction=\[1.0\] must be a dict"),
    ],
)
def test_a_direction_is_refused(direction, words):
    refused(words, lambda: SIM.tangent(Y0, PARAMS, steps=1, direction=direction))
    refused(words, lambda: SIM.hessian_product(Y0, PARAMS, LOSS, steps=1, direction=direction))


def test_a_direction_in_the_initial_state_is_checked_like_one():
    refused(r"initial has shape \(5, 6\)", lambda: SIM.tangent(Y0, PARAMS, steps=1, initial=Y0[0]))
    refused(r"initial has dtype complex128", lambda: SIM.tangent(Y0, PARAMS, steps=1, initial=1j * Y0))


def test_steps_of_tangents_must_ascend():
    refused(r"marks=\[3, 2\] must be ascending", lambda: SIM.tangents_at(Y0, PARAMS, [3, 2]))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (None, r"loss=None has no value and no seed"),
        (lambda y: 0.0, r"has no value and no seed; a loss has value\(y\) and seed\(y\) = dL/dy"),
        (rd.losses.L2, r"is a class; make one of it"),
        (rd.losses.Trajectory({9: LOSS}), r"loss observes step 9, but the run has steps=3"),
        (rd.losses.L2(Y0[0]), r"the target's shape \(5, 6\) does not fit the state's \(2, 5, 6\)"),
        (rd.losses.L2(Y0[0], species=7), r"species=\[7\] names more than the state's 2"),
        (LossOf(np.ones(3)), r"the loss at step 3 returned array\(.*\); value\(y\) must return one number"),
        (LossOf(None), r"returned None"),
        (LossOf(1j), r"returned 1j"),
        (LossOf(seed=np.ones((2, 3))), r"returned a seed of shape \(2, 3\) .* real numbers of shape \(2, 5, 6\)"),
        (LossOf(seed=1j * Y0), r"dtype complex128; it must be real numbers"),
    ],
)
def test_a_loss_is_refused(loss, words):
    refused(words, lambda: SIM.gradient(Y0, PARAMS, loss, steps=3))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (LossOf(math.nan), r"the loss at step 3 returned nan for a finite state, 0\.\d+ \.\. \d\.\d+"),
        (LossOf(-math.inf), r"the loss at step 3 returned -inf"),
        (LossOf(seed=HOLED), r"returned a seed that is not finite at [uv]\[\d, \d\], for a finite state"),
        (rd.losses.L2(Y0, sigma=1e-160), r"the loss overflows float64, though the states are finite"),
    ],
)
def test_a_loss_that_is_not_finite_is_named(loss, words):
    refused(words, lambda: SIM.gradient(Y0, PARAMS, loss, steps=3), rd.DivergenceError)


def test_a_loss_with_a_wrong_tangent_of_its_seed_is_refused():
    loss = LossOf(seed=Y0)
    loss.seed_tangent = lambda y, t: np.zeros(3)
    words = r"seed_tangent returned shape \(3,\); it must be \(2, 5, 6\)"
    refused(words, lambda: SIM.hessian_product(Y0, PARAMS, loss, steps=1, direction=dict(F=1.0)))


def test_derivatives_that_overflow_are_never_returned():
    sim = simulation(stability="off", dtype="float32", dt=1.0)
    rest, wild = np.stack([np.ones(SHAPE), np.zeros(SHAPE)]), PARAMS | dict(k=-30.0)
    assert np.isfinite(sim.run(rest, wild, steps=60).final).all()  # v stays zero, its derivatives do not
    words = "overflows float32, though the states are finite.*Use fewer steps, a window"
    refused(words, lambda: sim.tangent(rest, wild, steps=60, initial=Y0), rd.DivergenceError)
    loss = rd.losses.Linear(np.ones_like(Y0))
    refused(words, lambda: sim.gradient(rest, wild, loss, steps=60), rd.DivergenceError)
    refused(words, lambda: sim.hessian_product(rest, wild, loss, steps=60, initial=Y0), rd.DivergenceError)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("a", r"weights has dtype <U1"),
        (HOLED, r"weights has \d+ values that are not finite"),
        (WithGradient(), r"weights is a WithGradient"),
    ],
)
def test_a_linear_loss_refuses(weights, words):
    refused(words, lambda: rd.losses.Linear(weights))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(target=1j * Y0), r"target has dtype complex128"),
        (dict(target="a"), r"target has dtype <U1"),
        (dict(target=RAGGED), r"target is no array: its rows differ in length"),
        (dict(target=WithGradient()), r"target is a WithGradient that NumPy cannot read"),
        (dict(target=HOLED), r"target has .* not finite, the first at index .*; mask them out"),
        (dict(target=MASKED), r"target is masked; give its data, and mask=~numpy.ma.getmaskarray\(target\)"),
        (dict(target=Y0, species=[0, 0]), r"species=\[0, 0\] names one twice"),
        (dict(target=Y0, species=[0]), r"target has 2 species on its first axis, species=\[0\] names 1"),
        (dict(target=Y0[0], species="u"), r"species='u' must be indices, not names"),
        (dict(target=Y0[0], species=-1), r"species=-1 must be >= 0"),
        (dict(target=Y0, sigma=0.0), r"sigma=.* must be positive"),
        (dict(target=Y0, sigma=-HOLED), r"sigma, of shape \(2, 5, 6\), must be positive"),
        (dict(target=Y0, sigma="a"), r"sigma=.* must be real numbers"),
        (dict(target=Y0, sigma=np.ones(4)), r"sigma \(4,\) and mask \(\) must broadcast to the target's shape"),
        (dict(target=Y0, mask=np.ones((3, 3))), r"mask \(3, 3\) must broadcast"),
    ],
)
def test_a_least_squares_loss_refuses(options, words):
    with pytest.raises(rd.InputError, match=words):
        rd.losses.L2(**options)


@pytest.mark.parametrize("given", [{}, None, [(1, LOSS)], {-1: LOSS}, {1.5: LOSS}, {True: LOSS}, {2: 5}])
def test_a_trajectory_refuses_what_is_no_dict_of_steps_and_losses(given):
    with pytest.raises(rd.InputError, match=r"dict \{step: loss\}|step=|the loss of step 2=5 has no value"):
        rd.losses.Trajectory(given)


def test_an_array_for_a_loss_is_not_written_out():
    words = r"<array of float64, shape \(2, 5, 6\)>.*Did you mean losses.L2"
    refused(words, lambda: SIM.gradient(Y0, PARAMS, Y0, steps=1))


def test_species_by_name():
    refused("must be indices, not names", lambda: rd.losses.L2(Y0[1], species="v"))
    refused("must be indices, not names", lambda: rd.losses.Moments(Y0[1], species=["v"]))
