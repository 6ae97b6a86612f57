"""Convergence orders, measured: 2 in space, 1 (Euler) and 4 (RK4) in time, for the state and for the gradient.

Gray-Scott in one dimension on [0, 1], smooth initial state, loss ``0.5 integral v^2`` (each cell weighted by its
volume, so that its value and gradient converge). In space the grid is refined threefold, so that cell centres
coincide; successive differences give the order without an exact solution. In time the reference is RK4 with a much
smaller step. A decaying cosine of a linear model, whose state and gradient are known in closed form, checks what all
this converges to.

    python validation/convergence.py

Exits 1 if an order is more than 0.1 off, or the closed form is missed.
"""

import sys

import numpy as np

import adjoint_rd as rd

PARAMS = dict(Du=2e-3, Dv=1e-3, F=0.04, k=0.06)
END_TIME = 4.0


def initial(n, boundary):
    x = (np.arange(n) + 0.5) / n
    wave = np.cos(2 * np.pi * x) if boundary != "dirichlet" else np.sin(np.pi * x) ** 2
    v = 0.25 + 0.2 * wave if boundary != "dirichlet" else 0.4 * wave
    return np.stack([1.0 - v, v])


def solve(n, dt, scheme, boundary):
    """(final state, {name: value, gradient entries})."""
    grid = rd.Grid((n,), spacing=1.0 / n, boundary=boundary)
    sim = rd.Simulation("gray_scott", grid, dt=dt, scheme=scheme, stability="off")
    loss = rd.losses.L2(np.zeros((1, n)), species=[1], sigma=grid.cell_volume**-0.5)
    steps = round(END_TIME / dt)
    y0 = initial(n, boundary)
    found = sim.gradient(y0, PARAMS, loss, steps=steps)
    numbers = {"value": found.value, **{f"dJ/d{name}": found.params[name] for name in PARAMS}}
    return sim.run(y0, PARAMS, steps=steps).final, found.initial / grid.cell_volume, numbers


def space(boundary):
    """Orders from grids of 15, 45, 135 cells (RK4, dt far below its limit: the time error does not show)."""
    sizes, dt = (15, 45, 135), 0.01
    states, seeds, numbers = zip(*(solve(n, dt, "rk4", boundary) for n in sizes), strict=True)
    coarse, fine = states[1][:, 1::3] - states[0], states[2][:, 1::3] - states[1]
    orders = {"state": _order(coarse, fine[:, 1::3], 3)}
    coarse, fine = seeds[1][:, 1::3] - seeds[0], seeds[2][:, 1::3] - seeds[1]
    orders["dJ/dy0"] = _order(coarse, fine[:, 1::3], 3)
    for name in numbers[0]:
        orders[name] = _order(numbers[1][name] - numbers[0][name], numbers[2][name] - numbers[1][name], 3)
    return orders


def time(scheme):
    n, steps = 30, {"euler": (0.02, 0.01), "rk4": (0.2, 0.1)}[scheme]
    exact_state, exact_seed, exact = solve(n, 0.0125, "rk4", "periodic")
    errors = []
    for dt in steps:
        state, seed, numbers = solve(n, dt, scheme, "periodic")
        errors.append((state - exact_state, seed - exact_seed, {k: numbers[k] - exact[k] for k in exact}))
    orders = {
        "state": _order(errors[0][0], errors[1][0], 2),
        "dJ/dy0": _order(errors[0][1], errors[1][1], 2),
    }
    orders.update({k: _order(errors[0][2][k], errors[1][2][k], 2) for k in exact})
    return orders


def closed_form():
    """y_t = D y_xx - r y from cos(2 pi x): y = exp(-(4 pi^2 D + r) t) cos(2 pi x). The relative errors on 400 cells."""
    linear = rd.Model(
        name="linear decay",
        species=("y",),
        diffusivities=("D",),
        parameters=("r",),
        reaction=lambda s, p: (-p[0] * s[0],),
        reaction_j=lambda s, p, t, dp: (-p[0] * t[0] - dp[0] * s[0],),
        reaction_jt=lambda s, p, a: (-p[0] * a[0],),
        reaction_pt=lambda s, p, a: (-s[0] * a[0],),
        rest=lambda p: (0.0,),
    )
    n, D, r, T = 400, 0.01, 0.3, 1.0
    grid = rd.Grid((n,), spacing=1.0 / n)
    sim = rd.Simulation(linear, grid, dt=T / 4000, scheme="rk4")
    x = (np.arange(n) + 0.5) / n
    loss = rd.losses.L2(np.zeros((1, n)), sigma=grid.cell_volume**-0.5)
    found = sim.gradient(np.cos(2 * np.pi * x)[None], dict(D=D, r=r), loss, steps=4000)
    value = 0.25 * np.exp(-2 * (4 * np.pi**2 * D + r) * T)
    exact = {"value": value, "dJ/dD": -8 * np.pi**2 * T * value, "dJ/dr": -2 * T * value}
    measured = {"value": found.value, "dJ/dD": found.params["D"], "dJ/dr": found.params["r"]}
    return {name: abs(measured[name] / exact[name] - 1) for name in exact}


def _order(coarse, fine, ratio):
    return float(np.log(np.max(np.abs(coarse)) / np.max(np.abs(fine))) / np.log(ratio))


def main():
    """Print the table; return the exit status."""
    failed = False
    tables = [(f"space, {b}", 2, space(b)) for b in ("periodic", "neumann", "dirichlet")]
    tables += [("time, euler", 1, time("euler")), ("time, rk4", 4, time("rk4"))]
    names = list(tables[0][2])
    print(f"{'order of':<18}{'expected':>9} " + "".join(f"{name:>10}" for name in names))
    for title, expected, orders in tables:
        wrong = [name for name in names if not abs(orders[name] - expected) <= 0.1]
        failed |= bool(wrong)
        line = "".join(f"{orders[name]:10.3f}" for name in names)
        print(f"{title:<18}{expected:>9} {line}" + (f"   WRONG: {', '.join(wrong)}" if wrong else ""))
    errors = closed_form()
    limit = 1e-3  # h^2 k^2 / 12 times the exponent
    failed |= max(errors.values()) > limit
    print(
        "closed form, relative errors: " + ", ".join(f"{k} {e:.1e}" for k, e in errors.items()) + f" (limit {limit:g})"
    )
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
