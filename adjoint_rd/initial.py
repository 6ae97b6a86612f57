"""Initial states: arrays (S, *shape) in float64, built from two states of the model.

    outside   the state far away, by default the model's rest state;  Gray-Scott: (u, v) = (1, 0)
    inside    the state of the disturbance, by default the model's seed; Gray-Scott: (0.5, 0.25)

Every kind mixes the two, cell by cell; lengths are in cells, whatever the spacing of the grid.

    uniform    outside everywhere, exactly
    noise      outside + noise everywhere
    square     a central square (interval, cube) of inside on noisy outside: the usual start
    squares    several squares at random places
    disk       a central disk (interval, ball)
    stripe     a band across the grid, through its centre
    random     islands: a smooth random field cut at a level
    gaussians  a random number of Gaussian bumps, as in The Well

The noise is `noise * N(0, 1)`, drawn for each cell and species. "square" with its defaults and `clip=(0, 1)` is the
start of the reference experiment (arXiv 2606.11258) and, but for the noise, that of Pearson, Science 261, 189 (1993).

A kind is a plain function `kind(shape, rest, seed, rng, *, options)` that takes a checked shape and states and a NumPy
Generator; `make` checks what it is given and calls one by name. The same `rng` gives the same state.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from .arrays import as_generator
from .errors import InputError, as_real, check_choice, did_you_mean

__all__ = ["KINDS", "disk", "gaussians", "make", "noise", "random", "square", "squares", "stripe", "uniform"]


def make(
    kind: str,
    shape: Sequence[int],
    rest: Sequence[float],
    seed: Sequence[float],
    rng: int | np.random.Generator | None = None,
    *,
    inside: Sequence[float] | None = None,
    outside: Sequence[float] | None = None,
    clip: tuple | None = None,
    **options,
) -> np.ndarray:
    """An initial state of the named kind.

    Parameters
    ----------
    kind : str
        A name in `KINDS`.
    shape : tuple of int
        Cells per axis; one, two or three axes.
    rest, seed : tuple of S floats
        The model's state far away and in the disturbance (`seed` is a state, not a random number).
    rng : int, None or numpy.random.Generator
        Source of the random numbers; an int always gives the same state, None another one each time.
    inside, outside : tuple of S floats, optional
        Used in place of `seed` and `rest`.
    clip : (low, high), optional
        Bounds for the finished state. Each is a number or None (open), or S of these, one per species. Without `clip`,
        noise can make a concentration slightly negative; Gray-Scott wants (0, 1).
    **options
        The options of the kind; see its function.

    Returns
    -------
    numpy.ndarray
        float64, shape (S, *shape), C-contiguous.

    Raises
    ------
    InputError
        For an unknown kind or option, or a value that does not fit.
    """
    function = KINDS[check_choice("kind", kind, KINDS)]
    known = [*_options_of(function), *_COMMON]
    for name in options:
        if name not in known:
            raise InputError(
                f"initial state {kind!r} has no option {name!r}; it has {', '.join(known)}.{did_you_mean(name, known)}"
            )
    shape = _check_shape(shape)
    rest = _check_state("outside" if outside is not None else "rest", rest if outside is None else outside)
    seed = _check_state("inside" if inside is not None else "seed", seed if inside is None else inside)
    if len(rest) != len(seed):
        raise InputError(
            f"The states outside {rest} and inside {seed} have {len(rest)} and {len(seed)} species; they must match."
        )
    bounds = _check_clip(clip, len(rest), len(shape))

    y = function(shape, rest, seed, as_generator(rng), **options)
    if bounds is not None:
        np.clip(y, *bounds, out=y)
    return y


def uniform(shape, rest, seed, rng):
    """`rest` in every cell, exactly. No options, no random numbers."""
    return _fill(shape, rest)


def noise(shape, rest, seed, rng, *, noise=0.02):
    """`rest` with noise everywhere, no disturbance.

    Parameters
    ----------
    noise : float or S floats, default 0.02
        Standard deviation, in the units of the state; one number, or one per species.
    """
    return _noisy(shape, rest, rng, noise)


def square(shape, rest, seed, rng, *, size=None, noise=0.02):
    """A central square (interval in 1-D, cube in 3-D) of `seed` on noisy `rest`; no noise inside.

    Parameters
    ----------
    size : int, optional
        Side in cells; by default 20, or a quarter of the shortest axis if that is less.
    noise : float or S floats, default 0.02
        Standard deviation of the noise outside.
    """
    size = _check_cells("size", size, default=20, share=4, shape=shape)
    y = _noisy(shape, rest, rng, noise)
    _set_box(y, [(n - size) // 2 for n in shape], size, seed)
    return y


def squares(shape, rest, seed, rng, *, count=8, size=None, noise=0.02):
    """Squares of `seed` at random places (they may overlap, and do not reach over the edge) on noisy `rest`.

    Parameters
    ----------
    count : int, default 8
        How many squares.
    size : int, optional
        Side in cells; by default 10, or an eighth of the shortest axis if that is less.
    noise : float or S floats, default 0.02
        Standard deviation of the noise outside.
    """
    count = _check_integer("count", count, minimum=1)
    size = _check_cells("size", size, default=10, share=8, shape=shape)
    y = _noisy(shape, rest, rng, noise)
    for _ in range(count):
        _set_box(y, [int(rng.integers(n - size + 1)) for n in shape], size, seed)
    return y


def disk(shape, rest, seed, rng, *, radius=None, noise=0.02):
    """A central disk (interval in 1-D, ball in 3-D) of `seed` on noisy `rest`; no noise inside.

    Parameters
    ----------
    radius : float, optional
        Radius in cells; by default 10, or an eighth of the shortest axis if that is less.
    noise : float or S floats, default 0.02
        Standard deviation of the noise outside.
    """
    if radius is None:
        radius = max(1.0, min(10.0, min(shape) / 8))
    else:
        radius = _check_number(
            "radius", radius, above=0.0, most=min(shape) / 2, unit="cells (half of the shortest axis)"
        )
    y = _noisy(shape, rest, rng, noise)
    squared = sum(((np.arange(n) - (n - 1) / 2) ** 2).reshape(_along(i, shape)) for i, n in enumerate(shape))
    y[:, squared <= radius**2] = np.reshape(seed, (-1, 1))
    return y


def stripe(shape, rest, seed, rng, *, width=None, axis=0, noise=0.02):
    """A band of `seed` through the centre, across the whole grid, on noisy `rest`; no noise inside.

    Parameters
    ----------
    width : int, optional
        Cells across the band; by default 20, or a quarter of that axis if that is less.
    axis : int, default 0
        The axis across which the band is `width` cells wide.
    noise : float or S floats, default 0.02
        Standard deviation of the noise outside.
    """
    axis = _check_integer("axis", axis, minimum=-len(shape), maximum=len(shape) - 1) % len(shape)
    width = _check_cells("width", width, default=20, share=4, shape=shape[axis : axis + 1])
    y = _noisy(shape, rest, rng, noise)
    start = (shape[axis] - width) // 2
    band = (slice(None),) * axis + (slice(start, start + width),)
    y[(slice(None), *band)] = np.reshape(seed, (-1,) + (1,) * len(shape))
    return y


def random(shape, rest, seed, rng, *, length=None, fraction=0.3, softness=0.1, independent=False, noise=0.0):
    """Islands of `seed` in `rest`, random in place and form: white noise, smoothed, cut where `fraction` is left.

    The mix is `1 / (1 + exp(-(z - level) / softness))` with z the smoothed field at unit variance. Islands continue
    over the edges (the smoothing is periodic).

    Parameters
    ----------
    length : float, optional
        Standard deviation of the Gaussian that smooths, in cells; by default 6, or an eighth of the longest axis if
        that is less. Islands are some three to six times as wide.
    fraction : float, default 0.3
        Share of the cells inside, strictly between 0 and 1.
    softness : float, default 0.1
        Width of the islands' edges, in standard deviations of the smooth field; 0 makes them sharp, like labels.
    independent : bool, default False
        Draw a field for each species instead of one for all. Excitable models then get broken waves, hence spirals.
    noise : float or S floats, default 0
        Standard deviation of the noise that is added everywhere.
    """
    length = min(6.0, max(shape) / 8) if length is None else length
    length = _check_number("length", length, above=0.0, most=max(shape), unit="cells")
    fraction = _check_number("fraction", fraction, above=0.0, below=1.0)
    softness = _check_number("softness", softness, least=0.0)
    independent = _check_flag("independent", independent)
    species = len(rest)
    mix = np.empty((species, *shape))
    for s in range(species if independent else 1):
        z = _smooth(rng.standard_normal(shape), length)
        z -= np.quantile(z, 1.0 - fraction)
        with np.errstate(over="ignore"):
            mix[s] = z > 0.0 if softness == 0.0 else 1.0 / (1.0 + np.exp(-z / softness))
    if not independent:
        mix[1:] = mix[0]
    return _add_noise(_blend(mix, rest, seed), rng, noise)


def gaussians(
    shape, rest, seed, rng, *, count=(10, 100), amplitude=(1.0, 3.0), width=(2.6, 3.7), independent=True, noise=0.0
):
    """Gaussian bumps at random places, summed, scaled to [0, 1] and used as the mix of `rest` (0) and `seed` (1).

    With `inside=(0, 1)`, `outside=(1, 0)` this is the "random clusters of Gaussians" of The Well's Gray-Scott set. The
    bumps continue over the edges.

    Parameters
    ----------
    count : int or (low, high), default (10, 100)
        How many bumps; from a pair, a random whole number between the two, both included.
    amplitude : float or (low, high), default (1, 3)
        Height of a bump before scaling; from a pair, uniform between the two.
    width : float or (low, high), default (2.6, 3.7)
        Standard deviation of a bump in cells; from a pair, uniform between the two.
    independent : bool, default True
        Other bumps for each species, as in The Well; False uses the same for all.
    noise : float or S floats, default 0
        Standard deviation of the noise that is added everywhere.
    """
    count = tuple(_check_integer("count", n, minimum=1) for n in _pair("count", count))
    amplitude = tuple(_check_number("amplitude", a, above=0.0) for a in _pair("amplitude", amplitude))
    width = tuple(_check_number("width", w, above=0.0, unit="cells") for w in _pair("width", width))
    independent = _check_flag("independent", independent)
    species = len(rest)
    mix = np.empty((species, *shape))
    for s in range(species if independent else 1):
        mix[s] = _bumps(shape, rng, int(rng.integers(count[0], count[1] + 1)), amplitude, width)
    if not independent:
        mix[1:] = mix[0]
    return _add_noise(_blend(mix, rest, seed), rng, noise)


KINDS: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType(
    {f.__name__: f for f in (square, squares, disk, stripe, noise, uniform, random, gaussians)}
)
_COMMON = ("inside", "outside", "clip")


# Building blocks


def _fill(shape, state):
    y = np.empty((len(state), *shape))
    y[...] = np.reshape(state, (-1,) + (1,) * len(shape))
    return y


def _noisy(shape, rest, rng, noise):
    return _add_noise(_fill(shape, rest), rng, noise)


def _add_noise(y, rng, noise):
    sigma = np.atleast_1d(np.array(_check_noise(noise, len(y)), dtype=float))
    if sigma.any():
        y += np.reshape(sigma, (-1,) + (1,) * (y.ndim - 1)) * rng.standard_normal(y.shape)
    return y


def _set_box(y, start, size, state):
    box = tuple(slice(a, a + size) for a in start)
    y[(slice(None), *box)] = np.reshape(state, (-1,) + (1,) * len(start))


def _blend(mix, rest, seed):
    """rest + mix (seed - rest), exact where mix is 0 or 1."""
    column = (-1,) + (1,) * (mix.ndim - 1)
    return (1.0 - mix) * np.reshape(rest, column) + mix * np.reshape(seed, column)


def _smooth(z, length):
    """Periodic convolution of z with a Gaussian of standard deviation `length` cells, then mean 0 and variance 1."""
    squared = sum(
        ((np.fft.rfftfreq if i == z.ndim - 1 else np.fft.fftfreq)(n) ** 2).reshape(_along(i, z.shape))
        for i, n in enumerate(z.shape)
    )
    z = np.fft.irfftn(np.fft.rfftn(z) * np.exp(-2.0 * (math.pi * length) ** 2 * squared), s=z.shape, axes=range(z.ndim))
    z = z - z.mean()
    spread = z.std()
    return z / spread if spread > 0.0 else z


def _bumps(shape, rng, count, amplitude, width):
    """Sum of `count` periodic Gaussians, scaled to [0, 1]."""
    total = np.zeros(shape)
    for _ in range(count):
        height, sigma = rng.uniform(*amplitude), rng.uniform(*width)
        squared = 0.0
        for i, n in enumerate(shape):
            distance = np.abs(np.arange(n) - n * rng.random())
            squared = squared + (np.minimum(distance, n - distance) ** 2).reshape(_along(i, shape))
        total += height * np.exp(-squared / (2.0 * sigma**2))
    total -= total.min()
    most = total.max()
    return total / most if most > 0.0 else total


def _along(axis, shape):
    return tuple(-1 if i == axis else 1 for i in range(len(shape)))


# Checks


def _options_of(function) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _check_shape(shape):
    given = shape
    shape = (shape,) if isinstance(shape, numbers.Integral) else shape
    try:
        shape = tuple(_check_integer("shape", n, minimum=1) for n in shape)
    except (TypeError, InputError):
        raise InputError(
            f"shape={given!r} is not a grid. Give one to three whole numbers >= 1, such as (128, 128)."
        ) from None
    if not 1 <= len(shape) <= 3:
        raise InputError(f"shape={given!r} has {len(shape)} axes. Give one, two or three.")
    return shape


def _check_state(name, state):
    try:
        values = tuple(float(v) for v in state)
    except (TypeError, ValueError, OverflowError):
        values = ()
    if not values or not all(math.isfinite(v) for v in values):
        raise InputError(f"{name}={state!r} is not a state. Give one finite number per species, such as (1.0, 0.0).")
    return values


def _check_clip(clip, species, axes):
    if clip is None:
        return None
    try:
        low, high = clip
        bounds = []
        for bound, open_end in ((low, -math.inf), (high, math.inf)):
            bound = [bound] if bound is None or np.ndim(bound) == 0 else bound
            bound = np.array([open_end if b is None else b for b in bound], dtype=float)
            bounds.append(np.broadcast_to(bound, (species,)).reshape((species,) + (1,) * axes))
        fits = bool((bounds[0] <= bounds[1]).all())
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise InputError(
            f"clip={clip!r} is not a range. Give (low, high) with low <= high, each a number, None or {species} "
            "of these; or clip=None."
        )
    return bounds


def _check_noise(noise, species):
    try:
        sigma = np.array(noise, dtype=float)
        fits = sigma.shape in ((), (species,)) and bool(np.isfinite(sigma).all()) and bool((sigma >= 0.0).all())
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise InputError(
            f"noise={noise!r} is not a standard deviation. Give a number >= 0, or {species}, one per species."
        )
    return sigma


def _check_integer(name, value, minimum, maximum=None):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not whole or value < minimum or (maximum is not None and value > maximum):
        span = f">= {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise InputError(f"{name}={value!r} is not possible. Give a whole number {span}.")
    return int(value)


def _check_cells(name, value, default, share, shape):
    """A length in cells that fits into the shortest axis of `shape`; `default`, or 1/share of that axis, when None."""
    shortest = min(shape)
    if value is None:
        return max(1, min(default, shortest // share))
    return _check_integer(name, value, minimum=1, maximum=shortest)


def _check_number(name, value, least=None, above=None, below=None, most=None, unit=""):
    try:
        real = math.isfinite(as_real(value))
    except (TypeError, OverflowError):
        real = False
    limits = [(least, ">=", lambda v, b: v >= b), (above, ">", lambda v, b: v > b)]
    limits += [(below, "<", lambda v, b: v < b), (most, "<=", lambda v, b: v <= b)]
    limits = [limit for limit in limits if limit[0] is not None]
    if not real or not all(holds(value, bound) for bound, _, holds in limits):
        span = " and ".join(f"{sign} {bound:g}" for bound, sign, _ in limits)
        raise InputError(f"{name}={value!r} is not possible. Give a number {span}{' ' + unit if unit else ''}.")
    return float(value)


def _check_flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name}={value!r} is not possible. Give True or False.")
    return bool(value)


def _pair(name, value):
    """(low, high) from a number or a pair."""
    if isinstance(value, numbers.Real):
        return value, value
    try:
        low, high = value
        ordered = low <= high
    except (TypeError, ValueError, OverflowError):
        ordered = False
    if not ordered:
        raise InputError(f"{name}={value!r} is not a range. Give a number, or (low, high) with low <= high.")
    return low, high
