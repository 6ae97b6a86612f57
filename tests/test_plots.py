"""Figures: drawn without pyplot, for states of one to three dimensions."""

import sys

import numpy as np
import pytest

import adjoint_rd as rd
from adjoint_rd import plots

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("shape", "spacing"), [((2, 30), None), ((3, 12, 9), (0.5, 0.3)), ((1, 5, 6, 7), 0.5)])
def test_states_and_fits_of_every_dimension(tmp_path, monkeypatch, shape, spacing):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    state = RNG.random(shape)
    names = [f"s{c}" for c in range(shape[0])]
    figure = plots.plot_state(state, names=names, spacing=spacing, title="a title")
    titles = [ax.get_title() for ax in figure.axes]
    assert all(any(title.startswith(name) for title in titles) for name in names)
    figure.savefig(tmp_path / "state.png", dpi=50)
    figure = plots.plot_fit(state, state + 0.1, names=names, spacing=spacing)
    assert sum("rms 0.1" in ax.get_title() for ax in figure.axes) == shape[0]
    figure.savefig(tmp_path / "fit.png", dpi=50)


def test_the_difference_is_drawn_around_zero():
    figure = plots.plot_fit(np.zeros((1, 4, 4)), RNG.random((1, 4, 4)))
    low, high = figure.axes[2].images[0].get_clim()
    assert low == -high


def test_history():
    figure = plots.plot_history({"R=1": [1.0, 0.1], "R=2": [0.5]})
    assert figure.axes[0].get_yscale() == "log" and len(figure.axes[0].lines) == 2
    assert plots.plot_history([1.0, -1.0]).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.plot_state(np.ones(5)), r"field\[None\]"),
        (lambda: plots.plot_state(np.ones((2, 5)), names=["u"]), "must be 2 names"),
        (lambda: plots.plot_state(np.ones((2, 5, 5)), spacing=(1, 2, 3)), "one for each of the 2 axes"),
        (lambda: plots.plot_state(np.ones((2, 5, 5)), colormap="virids"), "Did you mean 'viridis'"),
        (lambda: plots.plot_fit(np.ones((2, 5)), np.ones((2, 6))), "must be the same"),
        (lambda: plots.plot_history([]), "none of them empty"),
    ],
)
def test_what_cannot_be_drawn(call, message):
    with pytest.raises(rd.InputError, match=message):
        call()
