"""What the losses of pattern statistics share: species, targets, sigma, and how features become a loss."""

from typing import Any

import numpy as np

from ..arrays import as_real_array, as_species
from ..errors import InputError, check_choice, shown


class Statistic:
    """A loss of features phi; see `adjoint_rd.pattern_losses` for what a subclass gives."""

    def __init__(self, target: Any, species: Any, sigma: Any):
        self.species, targets = _check_targets(target, species)
        self._prepare([z for pattern in targets for z in pattern])
        found = np.array([[self._features(z) for z in pattern] for pattern in targets])
        self.target = found.mean(axis=0)
        self.sigma = _check_sigma(sigma, found)
        self._inverse = np.broadcast_to(1.0 / self.sigma, self.target.shape)

    def _prepare(self, images: list[np.ndarray]) -> None:
        """Take scales from the targets' images."""

    def _images(self, y: np.ndarray) -> list[np.ndarray]:
        seen = list(range(len(y))) if self.species is None else self.species
        if len(seen) != len(self.target) or max(seen) >= len(y):
            raise InputError(f"the target has {len(self.target)} species ({self.species}), the state {len(y)}.")
        return [np.asarray(y[s], dtype=np.float64) for s in seen]

    def _spread(self, y: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
        full = np.zeros(y.shape)
        for n, part in enumerate(parts):
            full[n if self.species is None else self.species[n]] = part
        return full

    def features(self, y: np.ndarray) -> np.ndarray:
        """phi of each observed species, (species, features)."""
        found = [self._features(z) for z in self._images(y)]
        if found[0].shape != self.target.shape[1:]:
            raise InputError(
                f"the state's images {y.shape[1:]} give {found[0].size} features, the target's {self.target.shape[1]}; "
                "use a target of the grid's shape."
            )
        return np.array(found)

    def misfit(self, y: np.ndarray) -> np.ndarray:
        """(phi - phi*) / sigma as a vector."""
        return ((self.features(y) - self.target) * self._inverse).ravel()

    def misfit_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """phi_z t / sigma as a vector."""
        pairs = zip(self._images(y), self._images(t), strict=True)
        return (np.array([self._push(z, s) for z, s in pairs]) * self._inverse).ravel()

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        m = self.misfit(y)
        return 0.5 * float(m @ m)

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy = phi_z^T (phi - phi*) / sigma^2, zero for other species."""
        w = (self.features(y) - self.target) * self._inverse**2
        return self._spread(y, [self._pull(z, each) for z, each in zip(self._images(y), w, strict=True)])

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The derivative of the seed along t."""
        parts = []
        w = (self.features(y) - self.target) * self._inverse**2
        for n, (z, s) in enumerate(zip(self._images(y), self._images(t), strict=True)):
            w_t = self._push(z, s) * self._inverse[n] ** 2
            parts.append(self._pull(z, w_t) + self._pull_tangent(z, s, w[n]))
        return self._spread(y, parts)


def _check_targets(target: Any, species: Any) -> tuple[list[int] | None, list[np.ndarray]]:
    """The species as a list, and each target as (species, *shape) in float64."""
    several = target if isinstance(target, (list, tuple)) else [target]
    if not several:
        raise InputError("target is an empty list; give at least one pattern.")
    single, listed = (False, None) if species is None else as_species(species)
    if listed is not None and len(set(listed)) < max(len(listed), 1):
        raise InputError(f"species={species!r} must name each observed species once.")
    checked = []
    for pattern in several:
        array = as_real_array("target", pattern)
        array = np.array(array[None] if single else array, dtype=np.float64)
        if array.ndim < 2 or (listed is not None and len(array) != len(listed)):
            raise InputError(
                f"a target of shape {np.shape(pattern)} does not fit species={species!r}; a pattern is (S, *shape), or "
                "shape if species is one index, and several patterns are a list or tuple."
            )
        if not np.isfinite(array).all():
            raise InputError("target has values that are not finite; these losses need a whole pattern.")
        if checked and len(array) != len(checked[0]):
            raise InputError(f"the targets have {len(checked[0])} and {len(array)} species.")
        checked.append(array)
    return listed, checked


def _check_sigma(sigma: Any, found: np.ndarray) -> Any:
    """`sigma` as an array; "targets" from the features found, (targets, species, features)."""
    if isinstance(sigma, str):
        check_choice("sigma", sigma, ("targets",))
        if len(found) < 2:
            raise InputError("sigma='targets' needs at least two targets.")
        spread = found.std(axis=0, ddof=1)
        return np.maximum(spread, 1e-2 * spread.max() or 1.0)
    array = np.array(as_real_array("sigma", sigma), dtype=np.float64)
    if not np.all(np.isfinite(array)) or not np.all(array > 0):
        raise InputError(f"sigma={shown(sigma)} must be positive and finite.")
    try:
        np.broadcast_to(array, found.shape[1:])
    except ValueError:
        raise InputError(f"sigma has shape {array.shape}; the features have {found.shape[1:]}.") from None
    return array
