"""Simulate a pattern, differentiate through the run, recover its parameters from what was seen of it."""

import sys

from scipy.optimize import minimize

import adjoint_rd as rd

cells = int(sys.argv[1]) if len(sys.argv) > 1 else 128

sim = rd.Simulation("gray_scott", rd.Grid((cells, cells), spacing=1.0), dt=1.0)
y0 = sim.initial_state("square", rng=0)
true = dict(Du=0.16, Dv=0.08, F=0.035, k=0.065)
seen = sim.run(y0, true, steps=200, save_every=50)

loss = rd.losses.Trajectory({int(step): rd.losses.L2(y) for step, y in zip(seen.steps, seen.states, strict=True)})
guess = dict(Du=0.14, Dv=0.07, F=0.04, k=0.06)
gradient = sim.gradient(y0, guess, loss, steps=200)
print(f"L = {gradient.value:.6g} at {guess}")
print("dL/dp =", {name: round(slope, 4) for name, slope in gradient.params.items()})

objective = rd.Objective(sim, y0, loss, steps=200, free=("Du", "Dv", "F", "k"))
x0 = objective.pack(**guess)
fit = minimize(objective.value_and_grad, x0, jac=True, method="L-BFGS-B", bounds=objective.bounds, options={"ftol": 0})
for name, value in objective.unpack(fit.x).items():
    print(f"{name} = {value:.8f}, truth {true[name]}, error {value / true[name] - 1:+.1e}")
