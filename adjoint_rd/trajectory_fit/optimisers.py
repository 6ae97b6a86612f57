"""Optimisers of a trajectory fit: (obj, x0, note) -> x, success, message; note(x, value) for each evaluation."""

from collections.abc import Callable

import numpy as np

from ..objective import Objective

REACH = 20.0  # a parameter that is fitted as exp(x) may change by a factor exp(20)


def by_adjoint(
    obj: Objective, x0: np.ndarray, note: Callable[[np.ndarray, float], None]
) -> tuple[np.ndarray, bool, str]:
    """L-BFGS-B in z, x = x0 + T z, such that the Gauss-Newton step at x0 has length 1 and the Hessian there is 1."""
    from scipy.optimize import minimize

    m, jacobian = obj.misfit(x0), obj.misfit_jacobian(x0)
    eigenvalues, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    root = vectors / np.sqrt(np.maximum(eigenvalues, 1e-10 * eigenvalues[-1] or 1.0))
    length = float(np.linalg.norm(root.T @ (jacobian.T @ m)))
    if length == 0.0:
        return x0, True, "the start is a minimum"
    T = length * root
    # No trial may overflow: the bounds of z keep every |x - x0| within reach.
    bounded = [not obj.transforms[name].accepts(-1.0) for name in obj.free]
    reach = np.where(bounded, REACH, 1e3 * np.maximum(1.0, np.abs(x0)))
    most = np.min(reach[:, None] / np.maximum(np.abs(T), np.finfo(float).tiny), axis=0) / x0.size
    options = dict(ftol=1e-11, gtol=1e-7, maxiter=200)

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        x = x0 + T @ z
        value, gradient = obj.value_and_grad(x)
        note(x, value)
        return value / length**2, T.T @ gradient / length**2

    box = np.stack([-most, most], axis=1)
    found = minimize(function, np.zeros(x0.size), jac=True, method="L-BFGS-B", bounds=box, options=options)
    return x0 + T @ found.x, bool(found.success), str(found.message)


def by_least_squares(
    obj: Objective, x0: np.ndarray, note: Callable[[np.ndarray, float], None]
) -> tuple[np.ndarray, bool, str]:
    """SciPy's least_squares (trust region) with the tangents' Jacobian."""
    from scipy.optimize import least_squares

    def function(x: np.ndarray) -> np.ndarray:
        m = obj.misfit(x)
        note(x, 0.5 * float(m @ m))
        return m

    found = least_squares(function, x0, jac=obj.misfit_jacobian, x_scale="jac", max_nfev=200)
    return found.x, bool(found.success), str(found.message)


OPTIMISERS = {"adjoint": by_adjoint, "least_squares": by_least_squares}
