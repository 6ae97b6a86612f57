"""SciPy recovers Gray-Scott parameters with our objective: L-BFGS-B and least_squares at their tightest tolerances.

    python validation/scipy_recovery.py [--grid 128] [--steps 200]

Truth (Du, Dv, F, k) = (0.16, 0.08, 0.035, 0.065), start (0.14, 0.07, 0.04, 0.06), known initial state, u and v observed
at four times. Before that, every entry of the gradient against the best of a row of central differences. Ends with 1 if
an optimizer ends further than 1e-6 (relative) from the truth, or the best central difference is off by more than 1e-8.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares, minimize

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

import adjoint_rd as rd  # noqa: E402

TRUTH = {"Du": 0.16, "Dv": 0.08, "F": 0.035, "k": 0.065}
START = {"Du": 0.14, "Dv": 0.07, "F": 0.04, "k": 0.06}
RECOVERED, DIFFERENCE = 1e-6, 1e-8  # largest relative errors that pass
STEP_SIZES = 10.0 ** np.arange(-2.0, -7.0, -0.25)


def objective(n, steps):
    sim = rd.Simulation("gray_scott", rd.Grid((n, n)), dt=1.0)
    y0 = sim.initial_state("square", rng=0, clip=(0, 1))
    run = sim.run(y0, TRUTH, steps=steps, save_every=steps // 4)
    frames = {int(s): rd.losses.L2(y) for s, y in zip(run.steps[1:], run.states[1:], strict=True)}
    return rd.Objective(sim, y0, rd.losses.Trajectory(frames), steps=steps, free=tuple(TRUTH))


def difference_errors(obj, x):
    """Per free parameter: relative error of the best of the central differences with relative steps STEP_SIZES."""
    gradient = obj.grad(x)
    errors = []
    for i, exact in enumerate(gradient):
        direction = np.zeros_like(x)
        direction[i] = x[i]

        def central(h, direction=direction):
            return (obj.value(x + h * direction) - obj.value(x - h * direction)) / (2 * h)

        errors.append(float(min(abs(central(h) / x[i] / exact - 1) for h in STEP_SIZES)))
    return errors


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--grid", type=int, default=128)
    p.add_argument("--steps", type=int, default=200)
    options = p.parse_args(argv)
    obj = objective(options.grid, options.steps)
    x0 = obj.pack(**START)
    failed = []

    print("relative error of the best central difference:")
    for name, error in zip(TRUTH, difference_errors(obj, x0), strict=True):
        print(f"  dJ/d{name:<3} {error:.1e}")
        failed += [f"central difference of {name}: {error:.1e}"] * (error > DIFFERENCE)

    tight = {"ftol": 1e-30, "gtol": 1e-14, "maxiter": 500, "maxfun": 2000}
    methods = {
        "minimize L-BFGS-B": lambda: minimize(
            obj.value_and_grad, x0, jac=True, method="L-BFGS-B", bounds=obj.bounds, options=tight
        ),
        "least_squares": lambda: least_squares(
            obj.misfit, x0, jac=obj.misfit_jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-15
        ),
        "minimize trust-ncg": lambda: minimize(
            obj, x0, jac=obj.grad, hessp=obj.hessp, method="trust-ncg", options={"gtol": 1e-10}
        ),
    }
    print("worst relative error of the four parameters:")
    for name, solve in methods.items():
        begin = time.perf_counter()
        result = solve()
        seconds = time.perf_counter() - begin
        found = obj.unpack(result.x)
        error = max(abs(found[p] / truth - 1) for p, truth in TRUTH.items())
        print(f"  {name:<19} {error:.1e}   {result.nfev} evaluations, {seconds:.1f} s   ({result.message})")
        failed += [f"{name}: {error:.1e}"] * (not float(error) <= RECOVERED)
    print("\n".join(f"FAILED: {text}" for text in failed) or "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
