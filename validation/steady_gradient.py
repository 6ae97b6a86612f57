"""The implicit gradient of a steady state against differences of re-converged states and the unrolled adjoint."""

import time

import numpy as np

import adjoint_rd as rd
from adjoint_rd import steady

SPOTS = {"Du": 0.16, "Dv": 0.08, "F": 0.035, "k": 0.065}
DECAY = 20.0  # of the slowest mode, in the unrolled run


class Invariant:
    """sum(v^3 + u v): unchanged by shifts."""

    def value(self, y):
        return float(np.sum(y[1] ** 3 + y[0] * y[1]))

    def seed(self, y):
        return np.stack([y[1], 3.0 * y[1] ** 2 + y[0]])

    def seed_tangent(self, y, t):
        return np.stack([t[1], 6.0 * y[1] * t[1] + t[0]])


def against_differences(sim, near, params):
    """The row for a state: errors of each dL/dp, seconds of a gradient without and with the factoring."""
    loss = Invariant()
    base = steady.find(sim, near, params, tol=1e-13)
    if not base.converged:
        return {"success": False, "message": f"Newton reached {base.rate:.1e} only", "seconds": 0.0}
    begin = time.process_time()
    gradient = base.gradient(loss)
    factoring = time.process_time() - begin
    begin = time.process_time()
    base.gradient(loss)
    once = time.process_time() - begin

    def value(name, shift):
        moved = {**params, name: params[name] * (1.0 + shift)}
        return loss.value(steady.find(sim, base.state, moved, tol=1e-13, modes=base.modes).state)

    errors = []
    for name, p in params.items():
        coarse, fine = ((value(name, h) - value(name, -h)) / (2.0 * h * p) for h in (1e-5, 5e-6))
        errors.append(gradient.params[name] / ((4.0 * fine - coarse) / 3.0) - 1.0)  # second order taken out
    return {"success": True, "errors": errors, "scores": [], "seconds": once, "factoring": factoring}


def against_unrolled(size):
    """The row for spots between Neumann walls: errors, seconds of the implicit, factored anew, and unrolled one."""
    sim = rd.Simulation("gray_scott", rd.Grid((size, size), boundary="neumann"), dt=1.0, threads=1)
    y0 = sim.initial_state("square", rng=2, size=8, clip=(0.0, 1.0))
    near = sim.run_to_steady(y0, SPOTS, tol=1e-8, max_steps=400_000).final
    found = steady.find(sim, near, SPOTS, tol=1e-13)
    slowest = -found.eigenvalues(1)[0].real
    if not found.converged or slowest <= 0:
        return {"success": False, "message": f"rate {found.rate:.1e}, slowest mode {slowest:.1e}", "seconds": 0.0}
    steps = int(DECAY / slowest)
    begin = time.process_time()
    unrolled = sim.gradient(found.state, SPOTS, Invariant(), steps=steps)
    long = time.process_time() - begin
    begin = time.process_time()
    implicit = steady.SteadyState(sim, found.state, SPOTS).gradient(Invariant())
    short = time.process_time() - begin
    return {
        "success": True,
        "errors": [implicit.params[name] / unrolled.params[name] - 1.0 for name in SPOTS],
        "scores": [],
        "seconds": short,
        "unrolled": long,
        "steps": steps,
    }
