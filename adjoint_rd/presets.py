"""Named parameter sets with an initial recipe that keeps the pattern alive.

    preset = rd.presets.get("delta")
    sim = rd.Simulation(preset.model, rd.Grid((128, 128), spacing=preset.spacing), dt=preset.dt)
    y0 = sim.initial_state(**preset.initial, rng=0)
    run = sim.run(y0, preset.parameters, steps=preset.steps_to_develop)

All are Gray-Scott, on a periodic grid, in units where a cell of the source's grid is 1 long and its time step is 1:

    Pearson's classes  alpha .. mu, and Munafo's nu, xi, pi, rho, sigma. Physical Du = 2e-5, Dv = 1e-5 and a cell of
                       2.5/256: Du dt/h^2 = 0.2097, Dv dt/h^2 = 0.1049. (xi has spacing = 1.6: a spiral is some 100
                       cells wide otherwise.)
    The Well           six sets. Physical Du = 2e-5, Dv = 1e-5, a cell of 1/64 (128 cells on [-1, 1]) and a second as
                       unit of time: Du dt/h^2 = 0.08192, Dv dt/h^2 = 0.04096. With dt = 10 they are unstable.
    reference          the reference experiment, given with Du = 0.16, Dv = 0.08 on unit cells.

F and k are rates per unit of time, the same numbers as in the source.

What survives was decided by simulation: explicit Euler in float64, five seeds and 100 000 steps at 128x128, twelve
seeds and 20 000 steps at 96x96. At the end of every run max v > 0.1, and in its last 5000 steps the standard deviation
of v over the grid > 0.02. Smaller grids are less safe: at 64x64 alpha, beta, epsilon, iota, lambda, xi, well-gliders,
well-spirals and well-spots fail for some seeds, all others pass.

Points that are often quoted for a class and were left out, tried with several kinds of start:

    alpha  F=0.010 k=0.047   lives at 128x128, but dies at 96x96 for some seeds
    beta   F=0.014 k=0.039, F=0.026 k=0.051   live, but pass through almost uniform moments (std v down to 0.01)
    gamma  F=0.022 k=0.051   comes to rest for most seeds, which gamma should not
    zeta   F=0.022 k=0.061   dies
    xi     F=0.010 k=0.041, F=0.014 k=0.047   die for most or for some seeds
    sigma  F=0.090 k=0.057   becomes uniform for some seeds

These live, but never or not for every seed from one central square: lambda, nu, xi, rho, sigma, well-bubbles. From it,
well-worms stays a small group of spots. Pearson's R and B are the two uniform states, hence no presets.

Sources: J. E. Pearson, Science 261, 189 (1993); R. P. Munafo, "Pearson's Classification (Extended)",
mrob.com/pub/comp/xmorphia/pearson-classes.html; R. Ohana et al., "The Well" (2024), and its generator
github.com/danfortunato/spectral-gray-scott; arXiv 2606.11258.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from .errors import check_choice

__all__ = ["PRESETS", "Preset", "get", "names"]


@dataclass(frozen=True)
class Preset:
    """One parameter set and how to start it.

    Attributes
    ----------
    name : str
    model : str
        Name of the model, for `Simulation`.
    parameters : dict of str to float
        All parameters of the model, diffusivities included.
    spacing, dt : float
        Cell and time step, in the units of `parameters`.
    initial : dict
        `kind` and its options, for `Simulation.initial_state(**initial, rng=...)`; see `adjoint_rd.initial`.
    behaviour : {"steady", "moving"}
        "steady": comes to rest or only creeps; the median over five seeds of max |y_t| after 100 000 steps at 128x128
        is below 5e-4 (measured: 3e-4 at most), though a defect may still move. "moving": above it (gamma 1e-3, all
        others 9e-3 or more).
    steps_to_develop : int
        Steps after which the pattern fills a grid of 128x128: the mean of u and the standard deviation of v, each
        averaged over 2000 steps, have come within a tenth of what they are at 20 000 steps; the slowest of five
        seeds, rounded up to 1000. Steady patterns still rearrange after that.
    description, source : str
    """

    name: str
    model: str
    parameters: dict[str, float]
    spacing: float
    dt: float
    initial: dict[str, Any]
    behaviour: Literal["steady", "moving"]
    steps_to_develop: int
    description: str
    source: str


def get(name: str) -> Preset:
    """The preset of that name; an `InputError` with a suggestion if there is none. Its dicts are yours to change."""
    preset = PRESETS[check_choice("name", name, PRESETS)]
    return replace(preset, parameters=dict(preset.parameters), initial=dict(preset.initial))


def names(behaviour: Literal["steady", "moving"] | None = None) -> tuple[str, ...]:
    """Names of all presets, or of those with that behaviour."""
    if behaviour is None:
        return tuple(PRESETS)
    check_choice("behaviour", behaviour, ("steady", "moving"))
    return tuple(name for name, preset in PRESETS.items() if preset.behaviour == behaviour)


# Starts

_SQUARE = dict(kind="square", clip=(0.0, 1.0))
_SQUARES = dict(kind="squares", count=20, size=10, clip=(0.0, 1.0))
_ISLANDS = dict(kind="random", length=6.0, fraction=0.3, inside=(0.3, 0.4))
_BROKEN_WAVES = dict(kind="random", length=12.0, fraction=0.4, independent=True, inside=(0.2, 0.3))
# The Well lets v reach 1 at the start; explicit Euler with dt = 1 then overshoots to u < 0.
_BUMPS = dict(kind="gaussians", inside=(0.0, 0.6), outside=(1.0, 0.0))


def _holes(u: float, v: float, size: int) -> dict[str, Any]:
    """Squares of the empty state (1, 0) in the uniform state (u, v), u v = F + k, F (1 - u) = u v^2."""
    return dict(kind="squares", count=20, size=size, outside=(u, v), inside=(1.0, 0.0), clip=(0.0, 1.0))


# Parameters

_PEARSON = "J. E. Pearson, Science 261, 189 (1993), type {}; classes mapped by R. P. Munafo, mrob.com/pub/comp/xmorphia"
_MUNAFO = "R. P. Munafo, mrob.com/pub/comp/xmorphia/pearson-classes.html, type {}"
_WELL = "R. Ohana et al., The Well (2024), gray_scott_reaction_diffusion, '{}'"


def _class(name, F, k, initial, behaviour, steps, description, spacing=1.0, source=_PEARSON):
    parameters = dict(Du=0.2097, Dv=0.1049, F=F, k=k)
    return Preset(
        name, "gray_scott", parameters, spacing, 1.0, initial, behaviour, steps, description, source.format(name)
    )


def _well(name, F, k, behaviour, steps, description, initial=_BUMPS):
    parameters = dict(Du=0.08192, Dv=0.04096, F=F, k=k)
    source = _WELL.format(name)
    return Preset(f"well-{name}", "gray_scott", parameters, 1.0, 1.0, initial, behaviour, steps, description, source)


_ALL = (
    _class(
        "alpha",
        0.014,
        0.053,
        dict(_SQUARES, count=10),
        "moving",
        2000,
        "chaos of wavelets and short-lived spirals that vanish where they meet",
    ),
    _class(
        "beta",
        0.018,
        0.045,
        _SQUARES,
        "moving",
        4000,
        "chaos of voids that open in a nearly uniform state and close again",
    ),
    _class(
        "gamma",
        0.026,
        0.055,
        _SQUARES,
        "moving",
        2000,
        "stripes that keep changing at their defects, slowly; at this size some come to rest in the end",
    ),
    _class("delta", 0.030, 0.055, _SQUARES, "steady", 3000, "hexagons of holes: a Turing pattern"),
    _class(
        "epsilon",
        0.018,
        0.055,
        _SQUARES,
        "moving",
        5000,
        "chaos of spots and rings that divide and crowd each other out",
    ),
    _class(
        "zeta", 0.026, 0.059, _SQUARES, "moving", 2000, "spots that keep dividing and dying, more orderly than epsilon"
    ),
    _class("eta", 0.034, 0.063, _SQUARES, "steady", 3000, "worms that break up into spots; takes long to come to rest"),
    _class(
        "theta",
        0.038,
        0.061,
        _SQUARES,
        "steady",
        3000,
        "a branching maze grown from rings; single defects move for very long",
    ),
    _class(
        "iota",
        0.046,
        0.0594,
        _SQUARES,
        "steady",
        15000,
        "clusters of holes in a uniform state; one hole alone fills up",
    ),
    _class(
        "kappa", 0.050, 0.063, _SQUARES, "steady", 4000, "a maze of worms that join and branch; creeps for very long"
    ),
    _class(
        "lambda", 0.034, 0.065, _SQUARES, "steady", 10000, "spots that multiply by division, then order into hexagons"
    ),
    _class(
        "mu", 0.046, 0.065, _SQUARES, "steady", 5000, "worms that grow at their ends and stay apart, with some spots"
    ),
    _class(
        "nu",
        0.054,
        0.067,
        _SQUARES,
        "steady",
        2000,
        "single spots that neither grow nor divide, and drift apart ever more slowly",
        source=_MUNAFO,
    ),
    _class(
        "xi",
        0.014,
        0.043,
        _BROKEN_WAVES,
        "moving",
        3000,
        "spiral waves whose fronts ripple, break and form new ones; on cells 1.6 times as wide, for room",
        spacing=1.6,
        source=_MUNAFO,
    ),
    _class(
        "pi",
        0.062,
        0.061,
        _holes(0.423, 0.291, 8),
        "steady",
        3000,
        "bound groups of holes in a uniform state; stripes and loops from other starts",
        source=_MUNAFO,
    ),
    _class(
        "rho",
        0.090,
        0.059,
        _holes(0.442, 0.337, 10),
        "steady",
        4000,
        "soap bubbles: walls of the uniform state around empty cells, which coarsen slowly",
        source=_MUNAFO,
    ),
    _class(
        "sigma",
        0.110,
        0.0523,
        _ISLANDS,
        "steady",
        15000,
        "soap bubbles: empty walls around cells of the uniform state, which coarsen slowly",
        source=_MUNAFO,
    ),
    Preset(
        "reference",
        "gray_scott",
        dict(Du=0.16, Dv=0.08, F=0.035, k=0.065),
        1.0,
        1.0,
        _SQUARE,
        "steady",
        11000,
        "spots that multiply by division from a central square",
        "arXiv 2606.11258",
    ),
    _well(
        "gliders",
        0.014,
        0.054,
        "moving",
        3000,
        "moving spots and wavelets that divide, collide and die",
        initial=dict(_BUMPS, count=(10, 30)),
    ),
    _well(
        "bubbles",
        0.098,
        0.057,
        "steady",
        2000,
        "walls and blocks of v around emptiness, so sharp that this grid pins and squares them",
    ),
    _well("maze", 0.029, 0.057, "steady", 3000, "a maze of stripes; single defects move for very long"),
    _well("worms", 0.058, 0.065, "steady", 10000, "worms that grow at their ends; at this grid they prefer its axes"),
    _well("spirals", 0.018, 0.051, "moving", 2000, "chaos of small spirals and wavelets"),
    _well("spots", 0.030, 0.062, "steady", 4000, "spots that multiply by division and fill the grid"),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})
