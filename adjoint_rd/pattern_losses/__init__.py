"""Losses of statistics of a pattern: what they compare does not depend on where the spots sit.

Each has features phi(z) of an image z (one species of a state), and

    L(y) = 0.5 * sum over species and features of ((phi(y_s) - phi*) / sigma)^2

with phi* the features of the target pattern, or their mean over several. With w = (phi - phi*) / sigma^2 the seed is
``phi_z^T w`` and its tangent ``phi_z^T (phi_z t / sigma^2) + (phi_z^T)_t w``: each class gives, one above the other,

    _features(z)             phi
    _push(z, t)              phi_z t
    _pull(z, w)              phi_z^T w
    _pull_tangent(z, t, w)   the derivative of ``phi_z^T w`` along t, w held fixed

    LogSpectrum      log(P + floor), P the power spectrum, full or averaged over rings
    Autocorrelation  mean of z(x) z(x + lag)
    Moments          mean, variance, and higher central moments
    Histogram        shares of values in smooth bins, or the smoothed distribution function
    GramTexture      means and products of the local amplitudes in a bank of Gabor filters
    Weighted         a weighted sum of any losses

All but `LogSpectrum` with a window function or with patches (stride > 1) are invariant under periodic shifts, up to
rounding. Features are smooth in z everywhere, uniform states included. The floor and all scales are taken from the
targets, so that they are constants. The losses also have `misfit` and `misfit_tangent`, for least squares.
"""

from .spectra import Autocorrelation, LogSpectrum
from .texture import GramTexture
from .values import Histogram, Moments
from .weighted import Weighted

__all__ = ["Autocorrelation", "GramTexture", "Histogram", "LogSpectrum", "Moments", "Weighted"]
