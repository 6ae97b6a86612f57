"""Parameters from frames that an independent integrator made, with the discretisation error estimated and removed.

``python fit_well_file.py [folder for the figure] [R ...]``: what ``adjoint-rd fit`` does, from Python.
"""

import sys
from pathlib import Path

from adjoint_rd import io, paths, plots
from adjoint_rd.trajectory_fit import fit_trajectory

folder = paths.output_folder(sys.argv[1] if len(sys.argv) > 1 else ".")
refine = [int(R) for R in sys.argv[2:]] or [1, 2, 3]

observation = io.read_observation(Path(__file__).parent / "data" / "gray_scott_maze_etdrk4.hdf5")
print(observation, observation.parameters)

fit = fit_trajectory(observation, "gray_scott", refine=refine, frames=6)
print(fit)
for name, error in fit.errors().items():
    print(f"{name}: estimate {fit.params[name]:.6g}, truth {fit.truth[name]:g}, error {error:+.3f} %")

figure = plots.plot_fit(fit.observed[-1], fit.fitted[-1], names=fit.names, spacing=fit.spacing)
figure.savefig(folder / "fit.png", dpi=100)
