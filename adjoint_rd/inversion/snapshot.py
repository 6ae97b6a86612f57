"""A snapshot to invert: the checked arguments of `adjoint_rd.invert`, the grids, and the log of the stages."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from .. import models
from ..arrays import as_array, as_dict, as_names, as_numbers, as_real_array
from ..errors import InputError, check_choice, check_count, check_number, did_you_mean
from ..grid import Grid
from ..models import Model
from ..sparse import System
from . import cleanup

LEAST_LAYERS = 8  # of a volume along its first axis: fewer are snapshots or species, not a grid


class Snapshot:
    """The data and options of one inversion.

    Attributes
    ----------
    model : Model
    species : tuple of int
        The observed ones.
    values, seen : ndarray (observed, *grid.shape)
        In the model's units; zero where not seen.
    grid : Grid
        Of the equations; with `subsample` it is finer than the data.
    system : System
    hole, edge : ndarray of bool (*grid.shape)
        Where the equation is not assumed to hold: missing data, and the rim of a cropped image.
    free : tuple of str
        The parameters to find.
    known, ratios, bounds, start : dict
    scale : float
        Model's units over the data's; if `scale_unknown` one that makes the largest value 0.4.
    noise : float or None
        In the model's units.
    stages : list of dict
    """

    def __init__(
        self, data: Any, model: Any, spacing: Any, start: Any, noise: Any, mask: Any, scale: Any, species: Any,
        boundary: Any, known: Any, offset: Any, subsample: Any, bounds: Any, at_rest: Any, progress: Any,
    ):  # fmt: skip
        self.model: Model = models.get(model)
        self.species = self._check_species(species)
        values, seen = self._check_data(data, mask, isinstance(species, str) or species is None)
        check_choice("boundary", boundary, ("periodic", "neumann", "cropped"))
        subsample = check_count("subsample", subsample, 1)
        if scale is not None and check_number("scale", scale) == 0.0:
            raise InputError(f"scale={scale!r} must be other than zero, or None if it is unknown.")
        if noise is not None:
            check_number("noise", noise, least=0.0)
        self.scale_unknown = scale is None
        if self.scale_unknown and (self.model.name != "gray_scott" or self.species != (1,)):
            raise InputError("scale=None (unknown gain) is for v of gray_scott alone; give scale= a number.")
        if self.scale_unknown and offset:
            raise InputError(
                "offset=True with scale=None: gain and offset cannot both be unknown; give scale= a number."
            )
        peak = float(np.max(np.abs(values[seen]), initial=0.0))
        self.scale = (0.4 / peak if peak else 1.0) if scale is None else float(scale)
        self.offset_unknown = bool(offset)
        if self.offset_unknown and len(self.species) > 1:
            raise InputError("offset=True is for one observed species.")
        self.at_rest = bool(at_rest)
        self.known, self.ratios = self._check_known(known)
        self.bounds = self._check_bounds(bounds)
        self.start = self._check_start(start)
        self.noise = None if noise is None else float(noise) * abs(self.scale)
        self.progress = progress or (lambda line: None)
        self.stages: list[dict[str, Any]] = []
        shape = tuple(n * subsample for n in values.shape[1:])
        if subsample > 1 and boundary != "periodic":
            shape = tuple((n - 1) * subsample + 1 for n in values.shape[1:])
        self.subsample = subsample
        self.boundary = boundary
        self.grid = Grid(shape, spacing=spacing, boundary="periodic" if boundary == "periodic" else "neumann")
        if self.grid.size < 400:
            raise InputError(f"data of shape {values.shape[1:]} are too few cells; at least 400 are needed.")
        self.values = values * self.scale
        self.seen = seen
        if subsample > 1:
            every = (slice(None),) + (slice(None, None, subsample),) * self.grid.ndim
            self.values = np.zeros((len(values), *shape))
            self.seen = np.zeros((len(values), *shape), dtype=bool)
            self.values[every], self.seen[every] = values * self.scale, seen
        # Holes of the data (but not the points between subsampled ones) are holes of the equations.
        hole = ~seen.all(axis=0)
        for axis in range(hole.ndim):
            hole = np.repeat(hole, subsample, axis=axis)
        self.hole = hole[tuple(slice(0, n) for n in shape)]
        self.edge = np.zeros(shape, dtype=bool)
        if boundary == "cropped":
            for axis in range(len(shape)):
                for end in (0, -1):
                    self.edge[(slice(None),) * axis + (end,)] = True
        self.free = tuple(name for name in self.model.names if name not in self.known)
        if not self.free:
            raise InputError(f"known has all parameters of {self.model.name}: nothing is left to fit.")
        self.system = System(self.model, self.grid)

    def _check_species(self, species: Any) -> tuple[int, ...]:
        names = self.model.species
        given = as_names("species", names[-1] if species is None else species)
        for name in given:
            if not isinstance(name, str) or name not in names:
                raise InputError(
                    f"species has {name!r}; {self.model.name} has {', '.join(names)}.{did_you_mean(str(name), names)}"
                )
        if len(set(given)) < len(given) or not given:
            raise InputError(f"species={species!r} must name each observed species once.")
        return tuple(names.index(name) for name in given)

    def _check_data(self, data: Any, mask: Any, single: bool) -> tuple[np.ndarray, np.ndarray]:
        array = as_real_array("data", data)
        hidden = np.ma.getmaskarray(data) if np.ma.isMaskedArray(data) else np.zeros(array.shape, dtype=bool)
        array = np.array(array, dtype=np.float64)
        if single:
            array, hidden = array[None], hidden[None]
        if array.shape[0] != len(self.species) or not 2 <= array.ndim <= 4:
            raise InputError(
                f"data has shape {np.shape(data)}; it must be a grid of 1 to 3 axes"
                + ("." if single else f" after a first axis of the {len(self.species)} species.")
            )
        if array.ndim == 4 and array.shape[1] < LEAST_LAYERS:
            raise InputError(
                f"data of shape {np.shape(data)} would be a volume of {array.shape[1]} layers. For snapshots give "
                f"snapshots=True, for frames times=, for all species species={self.model.species!r}."
            )
        if np.any(np.isinf(array)):
            raise InputError("data has infinite values; mark missing ones as NaN or in mask.")
        seen = ~np.isnan(array) & ~hidden
        if mask is not None:
            mask = as_array("mask", mask)
            if mask.dtype != bool or mask.shape != array.shape[1:]:
                raise InputError(
                    f"mask has dtype {mask.dtype} and shape {mask.shape}; it must be bool of shape {array.shape[1:]}, "
                    "True where the data count."
                )
            seen &= mask
        if seen.mean() < 0.3:
            raise InputError(f"only {100 * seen.mean():.0f} % of the data count; at least 30 % are needed.")
        return np.where(seen, array, 0.0), seen

    def _check_known(self, known: Any) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
        """Known parameters, and known ratios by the names of both."""
        names = self.model.names
        found, ratios = {}, {}
        for name, value in as_dict("known", known).items():
            number = check_number(f"known[{name!r}]", value)
            parts = tuple(str(name).split("/"))
            if number <= 0 and (len(parts) > 1 or name in self.model.diffusivities):
                raise InputError(f"known[{name!r}]={value!r} must be positive, as a diffusivity or ratio.")
            if name in names:
                found[name] = number
            elif len(parts) == 2 and parts[0] != parts[1] and set(parts) <= set(names):
                ratios[parts] = number
            else:
                raise InputError(
                    f"known has {name!r}; {self.model.name} has {', '.join(names)}, and their ratios, like "
                    f"'{names[0]}/{names[1]}'.{did_you_mean(str(name), names)}"
                )
        if self.scale_unknown:
            self.gain_fact = {**found, **{"/".join(pair): value for pair, value in ratios.items()}}
            if len(self.gain_fact) > 1 or not set(self.gain_fact) <= {"Du", "Dv", "F", "Du/Dv"}:
                raise InputError("with scale=None give one known fact at most: Du, Dv, F or Du/Dv.")
            return {}, {}
        for pair in ratios:
            both = [name for name in pair if name in found]
            if both:
                raise InputError(f"known has {'/'.join(pair)!r} and {both[0]!r}; give the values of both instead.")
        return found, ratios

    def _check_bounds(self, bounds: Any) -> dict[str, tuple[float, float]]:
        found = {}
        for name, pair in as_dict("bounds", bounds).items():
            if name not in self.model.names or name in self.known:
                what = "which is in known" if name in self.known else f"which {self.model.name} does not know"
                raise InputError(f"bounds has {name!r}, {what}.{did_you_mean(str(name), self.model.names)}")
            ends = as_numbers(f"bounds[{name!r}]", pair)
            if len(ends) != 2 or not ends[0] < ends[1] or ends[1] <= 0:
                raise InputError(f"bounds[{name!r}]={pair!r} must be (low, high) with low < high and high > 0.")
            found[name] = ends
        if found and self.scale_unknown:
            raise InputError("bounds need a scale; with scale=None give one known fact instead.")
        return found

    def _check_start(self, start: Any) -> dict[str, float]:
        start = as_dict("start", start)
        for name in start:
            if name not in self.model.names:
                raise InputError(
                    f"start has {name!r}, which {self.model.name} does not know.{did_you_mean(name, self.model.names)}"
                )
        return {name: check_number(f"start[{name!r}]", value, above=0.0) for name, value in start.items()}

    def log(self, name: str, **entries: Any) -> None:
        """Note a stage."""
        self.stages.append({"stage": name, **entries})
        shown = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entries.items() if k != "params"
        )
        params = ", ".join(f"{k} {v:.5g}" for k, v in entries.get("params", {}).items())
        self.progress(f"{name}: {shown}{'; ' + params if params else ''}")

    def sampled(self) -> np.ndarray:
        """The first observed species at the data's points, holes filled in."""
        every = (slice(None, None, self.subsample),) * self.grid.ndim
        return cleanup.fill(self.values[0][every], self.seen[0][every], self.sampled_grid())

    def sampled_grid(self) -> Grid:
        """The grid of the data's points, of spacing 1."""
        every = (slice(None, None, self.subsample),) * self.grid.ndim
        return Grid(self.values[0][every].shape, boundary=self.grid.boundary)

    def interpolated(self) -> np.ndarray:
        """Quintic splines through the data's points, on the grid of the equations."""
        small = self.sampled()
        axes = [np.arange(n) / self.subsample for n in self.grid.shape]
        mode = "grid-wrap" if self.boundary == "periodic" else "mirror"
        return ndimage.map_coordinates(small, np.meshgrid(*axes, indexing="ij"), order=5, mode=mode)
