"""Penalties: what an objective may add to its loss, as a function of the parameters alone.

A penalty has ``value(params)`` and ``gradient(params) -> {name: float or array}``; for Hessian products also
``hessian_product(params, direction) -> {name: ...}``; for least squares ``misfit(params)``, a vector m with
``value = |m|^2 / 2``, and ``misfit_tangent(params, direction)``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import as_real_array
from .errors import InputError, did_you_mean


class Gaussian:
    """Prior knowledge of parameters: ``0.5 * sum(((p - mean) / stderr)**2)``.

    Parameters
    ----------
    mean : dict
        {name: float or array}.
    stderr : dict
        The same names: how well each is known.
    """

    def __init__(self, mean: Mapping[str, Any], stderr: Mapping[str, Any]):
        for argument, given in (("mean", mean), ("stderr", stderr)):
            if not isinstance(given, Mapping):
                raise InputError(f"{argument}={given!r} must be a dict {{name: number or array}}.")
            for name, value in given.items():
                if not np.isfinite(as_real_array(f"{argument}[{name!r}]", value)).all():
                    raise InputError(f"{argument}[{name!r}]={value!r} must be finite.")
        if set(mean) != set(stderr):
            named = [", ".join(map(str, given)) or "none" for given in (mean, stderr)]
            raise InputError(f"mean has {named[0]} and stderr {named[1]}; give both for the same parameters.")
        if not all(np.all(np.asarray(value) > 0) for value in stderr.values()):
            raise InputError(f"stderr={dict(stderr)!r} must be positive.")
        self.mean = dict(mean)
        self.stderr = dict(stderr)

    def _departure(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """p - mean."""
        for name in self.mean:
            if name not in params:
                known = ", ".join(params)
                raise InputError(f"penalty has {name!r}; the parameters are {known}.{did_you_mean(name, params)}")
        return {name: params[name] - np.asarray(self.mean[name]) for name in self.mean}

    def misfit(self, params: Mapping[str, Any]) -> np.ndarray:
        """(p - mean) / stderr as a vector."""
        return np.concatenate([np.ravel(d / self.stderr[name]) for name, d in self._departure(params).items()])

    def misfit_tangent(self, params: Mapping[str, Any], direction: Mapping[str, Any]) -> np.ndarray:
        """dp / stderr as a vector."""
        zero = {name: np.zeros(np.shape(params[name])) for name in self.mean}
        return np.concatenate(
            [np.ravel(np.asarray(direction.get(name, zero[name])) / self.stderr[name]) for name in self.mean]
        )

    def value(self, params: Mapping[str, Any]) -> float:
        """The penalty."""
        m = self.misfit(params)
        return 0.5 * float(m @ m)

    def gradient(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Its derivative."""
        return {name: d / np.square(self.stderr[name]) for name, d in self._departure(params).items()}

    def hessian_product(self, params: Mapping[str, Any], direction: Mapping[str, Any]) -> dict[str, Any]:
        """Its second derivative along a direction."""
        return {name: direction[name] / np.square(self.stderr[name]) for name in self.mean if name in direction}
