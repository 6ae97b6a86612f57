"""Losses: a number from a state, and its derivative (the seed of the adjoint).

A loss has ``value(y)``, ``seed(y) = dL/dy`` and ``seed_tangent(y, t)``, the derivative of the seed along ``t`` (only
Hessian products need it). ``y`` and what is returned have the shape ``(S, *shape)``. Values are summed in float64. A
loss of the squares of a misfit also has ``misfit(y)``, a vector m with ``value = |m|^2 / 2``, and ``misfit_tangent(y,
t) = m_y t``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import as_array, as_real_array, as_species
from .errors import InputError, check_count, shown


class L2:
    """``0.5 * sum(((y - target) / sigma)**2)`` over the observed species and cells.

    Parameters
    ----------
    target : array_like
        ``(S, *shape)``; or ``shape`` if `species` names one.
    species : int or sequence of int, optional
        The indices of the observed species; by default all. With one index the target may lack the first axis.
    sigma : float or array_like
        The standard deviation of the observation, broadcast against the target.
    mask : array_like of bool, optional
        Cells that count, of the grid's shape or of the target's. Elsewhere the target may be NaN.

    Raises
    ------
    InputError
        If the target has a value that is not finite where it counts, or `sigma` is not positive.
    """

    def __init__(self, target: Any, *, species: Any = None, sigma: Any = 1.0, mask: Any = None):
        if np.ma.is_masked(target):
            raise InputError("target is masked; give its data, and mask=~numpy.ma.getmaskarray(target).")
        target = np.array(as_real_array("target", target), dtype=np.float64)
        if not target.size or not target.ndim:
            raise InputError(f"target has shape {target.shape}; it must be an array (S, *shape) of some size.")
        if species is not None:
            single, species = as_species(species)
            if len(set(species)) < len(species):
                raise InputError(f"species={species} names one twice.")
            target = target[None] if single else target
            if len(target) != len(species):
                raise InputError(
                    f"target has {len(target)} species on its first axis, species={species} names {len(species)}."
                )
        sigma = as_array("sigma", sigma)
        shown = f"sigma={sigma.item()!r}" if sigma.ndim == 0 else f"sigma, of shape {sigma.shape},"
        if sigma.dtype.kind not in "iuf":
            raise InputError(f"{shown} must be real numbers, not {sigma.dtype}.")
        if not np.all(sigma > 0) or not np.all(np.isfinite(sigma)):
            raise InputError(f"{shown} must be positive and finite.")
        if mask is not None:
            mask = as_array("mask", mask)
            if mask.dtype.kind not in "biuf":
                raise InputError(f"mask has dtype {mask.dtype}; it must be truth values.")
            mask = mask.astype(bool)
        try:
            weight = np.broadcast_to(1.0 / sigma, target.shape)
            if mask is not None:
                weight = np.where(np.broadcast_to(mask, target.shape), weight, 0.0)
        except ValueError:
            raise InputError(
                f"sigma {sigma.shape} and mask {np.shape(mask)} must broadcast to the target's shape {target.shape}."
            ) from None
        wrong = ~np.isfinite(target) & (weight > 0)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise InputError(
                f"target has {wrong.sum()} values that are not finite, the first at index {first}; mask them out."
            )
        self.target = np.where(weight > 0, target, 0.0)
        self.target.flags.writeable = False  # a copy of it may be on a card
        self.species = species
        uniform = weight.size and weight.min() == weight.max()
        self._weight: Any = float(weight.flat[0]) if uniform else np.array(weight)
        self._shape = target.shape
        self._species_seen = np.arange(len(target)) if species is None else np.array(species)
        self._fitted: tuple[int, ...] | None = None  # the last state shape that was found to fit

    def _observed(self, y: np.ndarray) -> np.ndarray:
        if self.species is not None and max(self.species, default=0) >= len(y):
            raise InputError(f"species={self.species} names more than the state's {len(y)}, which count from 0.")
        seen = y if self.species is None else y[self.species]
        if seen.shape != self._shape:
            raise InputError(
                f"the target's shape {self._shape} does not fit the state's {seen.shape} (species, *shape)."
            )
        return seen

    def _spread(self, y: np.ndarray, observed: np.ndarray) -> np.ndarray:
        if self.species is None:
            return observed
        full = np.zeros(y.shape)
        full[self.species] = observed
        return full

    def as_squares(self, state_shape: tuple[int, ...]) -> tuple[np.ndarray, Any, np.ndarray]:
        """The loss as ``sum((w (y - target))^2) / 2``: for kernels that give value and seed in one pass.

        Parameters
        ----------
        state_shape : tuple of int
            (S, *shape) of the states to come.

        Returns
        -------
        target : ndarray (O, rows, columns)
            Of the O observed species, all axes but the last flattened into rows.
        weight : float, or ndarray like `target`
        species : ndarray of int (O,)
        """
        if state_shape != self._fitted:
            self._observed(np.broadcast_to(0.0, state_shape))  # raises if they do not fit
            self._fitted = state_shape
        target = self.target.reshape(len(self.target), -1, state_shape[-1])
        weight = self._weight if np.ndim(self._weight) == 0 else self._weight.reshape(target.shape)
        return target, weight, self._species_seen

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        # Not m @ m: the threads of a BLAS library keep spinning after it, on the processors that the next steps need.
        # In place: fresh memory costs more than the arithmetic.
        m = self._observed(y) - self.target
        m *= self._weight
        return 0.5 * float(np.sum(np.square(m, out=m)))

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy = (y - target) / sigma^2, zero where nothing is observed."""
        m = self._observed(y) - self.target
        m *= self._weight * self._weight
        return self._spread(y, m)

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """t / sigma^2 where observed."""
        return self._spread(y, self._observed(t) * (self._weight * self._weight))

    def misfit(self, y: np.ndarray) -> np.ndarray:
        """(y - target) / sigma as a vector."""
        return ((self._observed(y) - self.target) * self._weight).ravel()

    def misfit_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """t / sigma as a vector."""
        return (self._observed(t) * self._weight).ravel().astype(np.float64, copy=False)


class Linear:
    """``sum(weights * y)``: its gradient is the adjoint applied to `weights`, its second derivative is zero.

    Parameters
    ----------
    weights : array_like, ``(S, *shape)``
    """

    def __init__(self, weights: Any):
        self.weights = np.array(as_real_array("weights", weights), dtype=np.float64)
        if not np.isfinite(self.weights).all():
            raise InputError(f"weights has {int((~np.isfinite(self.weights)).sum())} values that are not finite.")

    def value(self, y: np.ndarray) -> float:
        """L(y)."""
        return float(np.sum(self.weights * y))

    def seed(self, y: np.ndarray) -> np.ndarray:
        """dL/dy = weights."""
        return self.weights.copy()

    def seed_tangent(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Zero."""
        return np.zeros(y.shape)


class Trajectory:
    """The sum of losses of the states at several steps.

    Parameters
    ----------
    losses : dict
        ``{step: loss}``; step 0 is the initial state.
    """

    def __init__(self, losses: Mapping[int, Any]):
        if not isinstance(losses, Mapping) or not losses:
            raise InputError("Trajectory needs a dict {step: loss} with at least one entry.")
        for step, loss in losses.items():
            check_loss(loss, f"the loss of step {step}")
        self.losses = {check_count("step", step): loss for step, loss in sorted(losses.items())}


def __getattr__(name: str) -> Any:
    # The losses of patterns build on this module; they are found here too.
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pattern_losses

    if name in pattern_losses.__all__:
        return getattr(pattern_losses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_loss(loss: Any, argument: str = "loss") -> None:
    """Raise an `InputError` unless `loss` has ``value`` and ``seed``."""
    if isinstance(loss, type):
        raise InputError(f"{argument}={shown(loss)} is a class; make one of it, such as losses.L2(target).")
    missing = [name for name in ("value", "seed") if not callable(getattr(loss, name, None))]
    if missing:
        hint = f" Did you mean losses.L2({argument})?" if getattr(loss, "ndim", 0) else ""
        raise InputError(
            f"{argument}={shown(loss)} has no {' and no '.join(missing)}; a loss has value(y) and seed(y) = dL/dy, "
            f"see adjoint_rd.losses.{hint}"
        )


def by_step(loss: Any, steps: int) -> dict[int, Any]:
    """Return `loss` as {step: loss}: a plain loss belongs to the final step."""
    if not isinstance(loss, Trajectory):
        check_loss(loss)
        return {steps: loss}
    beyond = [step for step in loss.losses if step > steps]
    if beyond:
        raise InputError(f"loss observes step {beyond[0]}, but the run has steps={steps}.")
    return loss.losses
