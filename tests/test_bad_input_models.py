"""What a user may get wrong in a model: one row a case, with words of the message, never a trace of Numba's."""

import math

import numpy as np
import pytest
from bad_input import refused
from setups import decay

import adjoint_rd as rd


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(species="u"), r"species='u' must be a tuple of names"),
        (dict(species=None), r"species=None must be a tuple of names"),
        (dict(species=()), r"species is empty"),
        (dict(species=("u", "u")), r"a name appears twice"),
        (dict(parameters=("Du",)), r"a name appears twice in .*'Du'"),
        (dict(parameters=(1,)), r"parameters=\(1,\) must be a tuple of names"),
        (dict(diffusivities=("A", "B")), r"2 diffusivities for 1 species"),
        (dict(reaction=None), r"reaction=None must be a function"),
        (dict(rest=(0.0,)), r"rest=\(0.0,\) must be a function"),
    ],
)
def test_a_model_refuses(changes, words):
    refused(words, lambda: decay(**changes))


RATES = {"fast": 2.0}


def not_compilable(s, p):
    return (-RATES["fast"] * s[0] * p[0],)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(reaction=lambda s, p: (s[0], s[0])), r"decay.reaction returned \(1.0, 1.0\); .* a tuple of 1 values"),
        (dict(reaction=lambda s, p: s[0]), r"decay.reaction returned 1.0; it must return a tuple of 1 values"),
        (dict(reaction=lambda s: (s[0],)), r"decay.reaction fails .*: TypeError: .*takes 1 positional argument"),
        (dict(reaction=lambda s, p: (missing * s[0],)), r"decay.reaction fails .*: NameError: .*'missing'"),  # noqa: F821
        (dict(reaction_pt=lambda s, p, a: ()), r"decay.reaction_pt returned \(\)"),
        pytest.param(
            dict(reaction=not_compilable),
            r"the functions of decay cannot be compiled. They may use .* Numba says:",
            marks=pytest.mark.jit,
        ),
        (dict(rest=lambda p: (0.0, 1.0)), r"decay.rest returned \(0.0, 1.0\); it must return 1 values"),
        (dict(box=lambda p: ((0, 1), (0, 1))), r"decay.box returned .*; it must return \(low, high\) for each"),
    ],
)
def test_a_wrong_function_is_named_without_a_trace_of_numba(changes, words):
    run = dict(steps=1)
    refused(
        words,
        lambda: rd.Simulation(decay(**changes), rd.Grid((8,)), dt=0.1).run(np.ones((1, 8)), dict(Du=0.1, r=0.1), **run),
    )


def test_a_model_may_be_undefined_somewhere():
    """The control: what is refused above is the fault and nothing else."""
    rd.Simulation(decay(), rd.Grid((8,)), dt=0.1).run(np.ones((1, 8)), dict(Du=0.1, r=0.1), steps=1)
    model = decay(reaction=lambda s, p: (math.log(s[0] - 1.0) * p[0],))  # outside its domain at 1
    rd.Simulation(model, rd.Grid((8,)), dt=0.1)
