"""What the options describe: a model, a simulation, an initial state, a target."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from .arguments import named_values, one_or_many


class Setup:
    """The model, parameters, simulation and initial state that the options describe."""

    def __init__(self, args: argparse.Namespace):
        from .. import presets
        from ..grid import Grid
        from ..simulation import Simulation

        self.preset = presets.get(args.preset) if args.preset else None
        if self.preset and args.model and args.model != self.preset.model:
            raise InputError(
                f"--preset {args.preset} is of the model {self.preset.model}, and --model says {args.model}; give "
                "one of them."
            )
        model = model_of(args.model or (self.preset.model if self.preset else "gray_scott"))
        given = named_values(args.param, "--param")
        params = {**(self.preset.parameters if self.preset else {}), **given}
        spacing = one_or_many(args.spacing) if args.spacing else self.preset.spacing if self.preset else 1.0
        dt = args.dt if args.dt is not None else self.preset.dt if self.preset else 1.0
        grid = Grid(tuple(args.shape or args.default_shape), spacing=spacing, boundary=one_or_many(args.boundary))
        self.sim = Simulation(
            model, grid, dt=dt, scheme=args.scheme, dtype=args.dtype, stability=args.stability, threads=args.threads
        )
        if not params:
            example = " ".join(f"--param {name}=..." for name in self.sim.model.names)
            raise InputError(f"give --preset NAME, or the parameters of {self.sim.model.name}: {example}")
        self.params = self.sim.check_params(params, "--param")
        self.sim.check_stability(self.params)
        self.y0 = self.initial(args, args.seed)

    def initial(self, args: argparse.Namespace, seed: int) -> Any:
        """The initial state of the options, with the noise of that seed."""
        if args.initial_file:
            if args.initial or args.initial_option:
                raise InputError("give --initial-file, or --initial with its options, not both.")
            return self.sim.check_state(last_frame(args.initial_file, self.sim.grid.ndim), "--initial-file")
        options = dict(self.preset.initial) if self.preset and not args.initial else {}
        kind = args.initial or options.pop("kind", "square")
        options.update(named_values(args.initial_option, "--initial-option"))
        return self.sim.initial_state(kind, rng=seed, params=self.params, **options)

    def describe(self) -> str:
        """Model, parameters, grid and scheme in two lines."""
        sim = self.sim
        values = ", ".join(f"{name}={value:g}" for name, value in self.params.items())
        return f"{sim.model.name}: {values}\n{sim.grid}, dt {sim.dt:g}, {sim.scheme_name}, {sim.dtype.name}"


def model_of(name: str) -> Any:
    """A built-in model's name, or the Model in FILE.py:NAME."""
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        return name
    from importlib import util

    from ..models import Model

    path = Path(file).resolve()
    if not path.is_file():
        raise InputError(f"--model {name}: there is no file {file}.")
    spec = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not isinstance(found, Model):
        known = [key for key, value in vars(module).items() if isinstance(value, Model)]
        raise InputError(
            f"--model {name}: {attribute!r} is not an adjoint_rd.Model; the file has {', '.join(known) or 'none'}."
        )
    return found


def species_indices(given: Sequence[str] | None, names: Sequence[str]) -> list[int]:
    """The indices of the species of ``--species``; all without it."""
    for name in given or ():
        if name not in names:
            raise InputError(f"--species has {name!r}; the species are {', '.join(names)}.{did_you_mean(name, names)}")
    return [names.index(name) for name in given] if given else list(range(len(names)))


def last_frame(path: str, ndim: int) -> Any:
    """The last frame (S, *shape) of a file; an array in it may lack time, or time and species."""
    from .. import io
    from ..io.array_files import SPATIAL

    spatial = SPATIAL[:ndim]
    for axes in (f"ts{spatial}", f"s{spatial}", spatial):
        try:
            return io.read_observation(path, axes=axes).fields[-1]
        except InputError as found:
            error = found
            if "axes" not in str(error):
                break
    raise error


def target_state(frame: Any, sim: Any, observed: list[int], path: str) -> Any:
    """The observed species of a frame that has all of them, or only them."""
    shape, count = sim.grid.shape, len(sim.model.species)
    if frame.shape[1:] != shape or len(frame) not in (count, len(observed)):
        raise InputError(
            f"--target {path}: its last frame has shape {frame.shape} (species, cells); needed is "
            f"{(len(observed), *shape)}. "
            "Set --shape and --species to fit."
        )
    return frame[observed] if len(frame) == count else frame


def check_colormap(name: str) -> None:
    """Refuse a colour map that is neither grey nor known to matplotlib."""
    from matplotlib import colormaps

    if name not in ("grey", "gray") and name not in colormaps:
        raise InputError(f"--colormap {name!r} is not known to matplotlib.{did_you_mean(name, ['grey', *colormaps])}")
