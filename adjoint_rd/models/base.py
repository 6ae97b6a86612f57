"""What a reaction-diffusion model is: names, and the kinetics as scalar functions.

The system is ``y_t = D Lap y + R(y; p)`` with species ``y``, one diffusivity a species and kinetic parameters ``p``.
A model's functions work on one grid point: ``s`` is the tuple of the species' values there, ``p`` the tuple of kinetic
parameters, ``t`` and ``dp`` are tangents of the two and ``a`` is a cotangent of R. They are plain Python: Numba
compiles them into the CPU and CUDA kernels, and NumPy arrays (complex ones too) can be passed for each scalar.

In a function of a model write no bare number next to a value (``1 - u``, ``2 * u``): in float32 it would promote
the arithmetic to float64. Use ``u + u`` or factor it out: ``F - F * u``.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean

Point = tuple[Any, ...]


@dataclass(frozen=True)
class Model:
    """A reaction-diffusion model, its kinetics and their hand-written derivatives.

    Parameters
    ----------
    name : str
        What messages and files call the model.
    species : tuple of str
        The S names of the species, in the order of the state's first axis.
    parameters : tuple of str
        The P names of the kinetic parameters, in the order of ``p``.
    reaction : callable
        ``R(s, p)``, a tuple of S values.
    reaction_j : callable
        ``(s, p, t, dp) -> R_s t + R_p dp``, a tuple of S values.
    reaction_jt : callable
        ``(s, p, a) -> R_s^T a``, a tuple of S values.
    reaction_pt : callable
        ``(s, p, a) -> R_p^T a``, a tuple of P values.
    reaction_jt_t, reaction_pt_t : callable, optional
        ``(s, p, t, dp, a)``: the derivatives of ``R_s^T a`` and ``R_p^T a`` along ``(t, dp)`` with ``a`` held fixed.
        Only Hessian-vector products need them.
    rest : callable
        ``rest(p)``: the spatially uniform state that the model is usually seeded from, a tuple of S floats, where ``p``
        is a dict of floats. Dirichlet walls hold it unless the grid says otherwise, and the stability limits use it.
    box : callable, optional
        ``box(p)``: for each species the range ``(low, high)`` that its value stays in during healthy runs; the `safe`
        limit of `adjoint_rd.stability` is taken over it. None means that the model promises no such range.
    seed : callable, optional
        ``seed(p)``: the state of the perturbed region in initial states, by default 1.1 times `rest` plus 0.1.
    clip : (low, high), optional
        What initial states are clipped to by default, None for no clipping.
    diffusivities : tuple of str, optional
        One name a species, by default ``D`` followed by the species' name.
    equations : str
        The equations in plain text, for messages and help.
    usual : dict, optional
        {kinetic parameter: the largest value that is usual}, for messages about values in percent.

    Raises
    ------
    InputError
        If names repeat or the numbers of names do not fit.
    """

    name: str
    species: tuple[str, ...]
    parameters: tuple[str, ...]
    reaction: Callable[[Point, Point], Point]
    reaction_j: Callable[[Point, Point, Point, Point], Point]
    reaction_jt: Callable[[Point, Point, Point], Point]
    reaction_pt: Callable[[Point, Point, Point], Point]
    rest: Callable[[Mapping[str, float]], tuple[float, ...]]
    reaction_jt_t: Callable[[Point, Point, Point, Point, Point], Point] | None = None
    reaction_pt_t: Callable[[Point, Point, Point, Point, Point], Point] | None = None
    box: Callable[[Mapping[str, float]], tuple[tuple[float, float], ...]] | None = None
    seed: Callable[[Mapping[str, float]], tuple[float, ...]] | None = None
    clip: tuple[float, float] | None = None
    diffusivities: tuple[str, ...] = ()
    equations: str = ""
    usual: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for field in ("species", "parameters", "diffusivities"):
            value = getattr(self, field)
            several = isinstance(value, Iterable) and not isinstance(value, str)
            if not several or not all(isinstance(name, str) for name in value):
                raise InputError(f"Model {self.name!r}: {field}={value!r} must be a tuple of names.")
            object.__setattr__(self, field, tuple(value))
        for field in ("reaction", "reaction_j", "reaction_jt", "reaction_pt", "rest"):
            if not callable(getattr(self, field)):
                raise InputError(f"Model {self.name!r}: {field}={getattr(self, field)!r} must be a function.")
        if not self.species:
            raise InputError(f"Model {self.name!r}: species is empty; a model has at least one.")
        if not self.diffusivities:
            object.__setattr__(self, "diffusivities", tuple(f"D{name}" for name in self.species))
        if len(self.diffusivities) != len(self.species):
            raise InputError(
                f"Model {self.name!r}: {len(self.diffusivities)} diffusivities for {len(self.species)} species; "
                "there is one for each."
            )
        if len(set(self.names)) != len(self.names) or len(set(self.species)) != len(self.species):
            raise InputError(f"Model {self.name!r}: a name appears twice in {self.species + self.names}.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every parameter's name: the diffusivities, then the kinetic parameters."""
        return self.diffusivities + self.parameters

    @property
    def has_second_order(self) -> bool:
        """Whether the model brings what Hessian-vector products need."""
        return self.reaction_jt_t is not None and self.reaction_pt_t is not None

    def check_names(self, given: Mapping[str, Any], argument: str = "params") -> None:
        """Raise an `InputError` unless `given` has exactly this model's parameters."""
        if not isinstance(given, Mapping):
            raise InputError(
                f"{argument}={given!r} must be a dict with the parameters {', '.join(self.names)} of {self.name}."
            )
        missing = [name for name in self.names if name not in given]
        lacking = f" and lacks {', '.join(missing)}" if missing else ""
        for name in given:
            if name not in self.names:
                raise InputError(
                    f"{argument} has {name!r}, which {self.name} does not know{lacking}; its parameters are "
                    f"{', '.join(self.names)}.{did_you_mean(name, missing or self.names)}"
                )
        if missing:
            raise InputError(f"{argument} lacks {', '.join(missing)}; {self.name} needs {', '.join(self.names)}.")

    def percent_hint(self, params: Mapping[str, Any]) -> str:
        """A sentence about the parameters that look as if given in percent, or an empty string."""
        means = _means(params)
        found = [
            f"{name}={means[name]:g} looks like a percentage; did you mean {means[name] / 100:g}?"
            for name, most in self.usual.items()
            if name in means and most < means[name] <= 100 * most
        ]
        return "".join(f" {each}" for each in found)

    def rest_state(self, params: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the rest state for `params`; fields enter by their mean."""
        state = tuple(float(value) for value in self.rest(_means(params)))
        if len(state) != len(self.species):
            raise InputError(f"{self.name}.rest returned {state}; it must return {len(self.species)} values.")
        return state

    def try_functions(self) -> None:
        """Raise an `InputError` if a function fails, or returns another number of values than it must.

        They are called in plain Python where every argument is 1; compiled code would not notice some of this, and what
        it says of the rest is long.
        """
        S, P = (1.0,) * len(self.species), (1.0,) * len(self.parameters)
        cases = {
            "reaction": ((S, P), len(S)),
            "reaction_j": ((S, P, S, P), len(S)),
            "reaction_jt": ((S, P, S), len(S)),
            "reaction_pt": ((S, P, S), len(P)),
            "reaction_jt_t": ((S, P, S, P, S), len(S)),
            "reaction_pt_t": ((S, P, S, P, S), len(P)),
        }
        for name, (arguments, count) in cases.items():
            function = getattr(self, name)
            if function is None:
                continue
            try:
                values = getattr(function, "py_func", function)(*arguments)
            except (ArithmeticError, ValueError):
                continue  # 1 is outside its domain
            except Exception as error:
                raise InputError(
                    f"{self.name}.{name} fails when every argument is 1: {type(error).__name__}: {error}"
                ) from error
            if not isinstance(values, tuple) or len(values) != count:
                raise InputError(f"{self.name}.{name} returned {values!r}; it must return a tuple of {count} values.")

    def seed_state(self, params: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the state of the perturbed region in initial states; fields enter by their mean."""
        if self.seed is None:
            return tuple(1.1 * value + 0.1 for value in self.rest_state(params))
        return tuple(float(value) for value in self.seed(_means(params)))


def _means(params: Mapping[str, Any]) -> dict[str, float]:
    return {name: value if type(value) is float else float(np.mean(value)) for name, value in params.items()}
