"""Parameters from frames: a run that starts at the first frame is fitted to the later ones.

    J(x) = 0.5 sum_i |(y(t_i; p(x)) - frame_i) / sigma|^2,    y(t_0) = frame_0

minimised by SciPy's L-BFGS-B with the adjoint's gradient (or by its least_squares with the tangents' Jacobian). The
star Laplacian on the grid of the frames biases the diffusivities by ``O(h^2)``; so the fit is repeated on grids R
times finer, which start at the first frame interpolated by Fourier series (periodic grids) and are compared in every
R-th cell. The steps per frame grow as R^2, hence the error of explicit Euler in time is ``O(h^2)`` too, and two values
of R give an extrapolation and an error (Richardson):

    p = p_f + (p_f - p_c) / ((R_f / R_c)^2 - 1)

The first frame is taken as exact: noise in it is not modelled. All species must have been observed. Refinement is for
frames of the continuous equations: measured, or computed with a far smaller error than that of the frames' own grid.
"""

from .checks import known_parameters
from .fit import fit_trajectory
from .refinement import Subsampled, interpolate
from .result import Progress, RefinementFit, TrajectoryFit

__all__ = (
    "Progress",
    "RefinementFit",
    "Subsampled",
    "TrajectoryFit",
    "fit_trajectory",
    "interpolate",
    "known_parameters",
)
