"""`Simulation.gradient` against PETSc's TSAdjoint, a discrete adjoint written by other people.

    python validation/petsc_oracle.py

Gray-Scott, 2-D, periodic, forward Euler, L = 0.5 sum((y - target)^2) of the final state. Compared: L, dL/d(Du, Dv, F,
k), dL/dy0.

PETSc runs in a process of its own, under Debian's Python (petsc4py is built for that one), and gets from here nothing
but numbers in an npz file: its right-hand side, sparse Jacobian and parameter Jacobian are written below in NumPy, in
`petsc_gradient`, and that process sees neither adjoint_rd nor the virtual environment (`python3 -I`).

Exit code 0: every error <= 1e-12 of its block's maximum, and the control (F moved by 1e-9 of itself) fails that limit;
1: not so, or PETSc broke; 0 with "skipped: ..." where there is no petsc4py. `--against jax` puts the automatic
differentiation of tests/reference_jax.py in adjoint_rd's place, which checks this oracle itself.
"""

import argparse
import glob
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LIMIT = 1e-12
NAMES = ("Du", "Dv", "F", "k")
SETUPS = {  # shape, steps, dt; rectangles and unequal spacings catch swapped axes
    "8x8, 20 steps": dict(
        shape=(8, 8), spacing=(1.0, 1.0), steps=20, dt=0.5, params=(0.16, 0.08, 0.035, 0.065), seed=1
    ),
    "16x12, 100 steps": dict(
        shape=(16, 12), spacing=(0.9, 1.2), steps=100, dt=0.25, params=(0.21, 0.1, 0.03, 0.058), seed=2
    ),
    "5x9, 1 step": dict(shape=(5, 9), spacing=(1.3, 0.8), steps=1, dt=0.3, params=(0.12, 0.2, 0.04, 0.06), seed=3),
}
INSTALL = "install it with: apt-get update && apt-get install -y python3-petsc4py-real (Debian, Ubuntu)"
NO_PETSC = 77  # the child's exit code when petsc4py does not import


# ---------------------------------------------------------------- the PETSc process: petsc4py and NumPy only


def petsc_gradient(source, out):
    """Reads the set-up from `source`, writes value, params (4,) and initial (2, n, m) to `out`."""
    if sys.prefix == "/usr":  # Debian keeps petsc4py beside PETSc, off its Python's path
        sys.path += sorted(glob.glob("/usr/lib/petscdir/petsc*/*-real/lib/python3/dist-packages"), reverse=True)
    try:
        import petsc4py

        petsc4py.init(["petsc_oracle"])
        from petsc4py import PETSc
    except ImportError as error:
        print(error, file=sys.stderr)
        return NO_PETSC
    if PETSc.ScalarType is not np.float64:
        print(f"petsc4py of scalar type {PETSc.ScalarType.__name__}; the real one is needed", file=sys.stderr)
        return NO_PETSC

    given = np.load(source)
    y0, target, steps, dt = given["y0"], given["target"], int(given["steps"]), float(given["dt"])
    Du, Dv, F, k = (float(x) for x in given["params"])
    hx, hy = (float(h) for h in given["spacing"])
    _, n, m = y0.shape
    if min(n, m) < 3:
        raise ValueError(f"shape {n, m}: this Jacobian needs 3 cells or more along each axis")
    cells = np.arange(n * m).reshape(n, m)
    north, south, west, east = (np.roll(cells, s, ax).ravel() for ax in (0, 1) for s in (1, -1))
    cell = cells.ravel()
    u_of, v_of = cell, cell + n * m  # places in the flat state

    def lap(w):
        return (w[north] - 2 * w + w[south]) / hx**2 + (w[west] - 2 * w + w[east]) / hy**2

    def split(vector):
        return vector.getArray(readonly=True).reshape(2, n * m)

    def rhs(ts, t, y, f):
        u, v = split(y)
        f.setArray(np.concatenate([Du * lap(u) - u * v * v + F * (1 - u), Dv * lap(v) + u * v * v - (F + k) * v]))

    def rhs_jacobian(ts, t, y, J, P):
        u, v = split(y)
        each = np.ones((n * m, 1))
        star = np.array([1 / hx**2, 1 / hx**2, 1 / hy**2, 1 / hy**2])
        rows_u = np.column_stack([-Du * star.sum() - v * v - F, each * Du * star, -2 * u * v])
        rows_v = np.column_stack([-Dv * star.sum() + 2 * u * v - (F + k), each * Dv * star, v * v])
        P.zeroEntries()
        P.setValuesCSR(row_starts, columns, np.concatenate([rows_u, rows_v]).ravel())
        P.assemble()
        if J != P:
            J.assemble()
        return True

    def rhs_jacobian_p(ts, t, y, P):
        u, v = split(y)
        zero = np.zeros(n * m)
        by_u = np.stack([lap(u), zero, 1 - u, zero], axis=1)
        by_v = np.stack([zero, lap(v), -v, -v], axis=1)
        every_row = np.arange(2 * n * m, dtype=PETSc.IntType)
        P.setValues(every_row, np.arange(4, dtype=PETSc.IntType), np.concatenate([by_u, by_v]))
        P.assemble()
        return True

    columns_u = np.stack([u_of, north, south, west, east, v_of], axis=1)
    columns_v = np.stack([v_of, *(beside + n * m for beside in (north, south, west, east)), u_of], axis=1)
    columns = np.concatenate([columns_u, columns_v]).ravel().astype(PETSc.IntType)
    row_starts = (6 * np.arange(2 * n * m + 1)).astype(PETSc.IntType)

    size, comm = 2 * n * m, PETSc.COMM_SELF
    J = PETSc.Mat().createAIJ(size, nnz=6, comm=comm)
    Jp = PETSc.Mat().createDense((size, 4), comm=comm)
    Jp.setUp()
    y = PETSc.Vec().createWithArray(y0.ravel().copy(), comm=comm)
    for option in ("ts_type rk", "ts_rk_type 1fe", "ts_adapt_type none", "ts_trajectory_type memory"):
        PETSc.Options().setValue(*option.split())

    ts = PETSc.TS().create(comm=comm)
    ts.setProblemType(PETSc.TS.ProblemType.NONLINEAR)
    ts.setRHSFunction(rhs, y.duplicate())
    ts.setRHSJacobian(rhs_jacobian, J)
    ts.setRHSJacobianP(rhs_jacobian_p, Jp)
    ts.setTime(0.0)
    ts.setTimeStep(dt)
    ts.setMaxSteps(steps)
    ts.setMaxTime(1e30)  # the number of steps ends the run, and no last step is cut to a time
    ts.setExactFinalTime(PETSc.TS.ExactFinalTime.STEPOVER)
    ts.setSaveTrajectory()
    ts.setFromOptions()
    ts.solve(y)
    if ts.getStepNumber() != steps or ts.getType() != "rk":
        raise RuntimeError(f"PETSc took {ts.getStepNumber()} steps of type {ts.getType()}, not {steps} of rk")

    misfit = y.getArray(readonly=True).copy() - target.ravel()
    adjoint = PETSc.Vec().createWithArray(misfit.copy(), comm=comm)
    by_params = PETSc.Vec().createWithArray(np.zeros(4), comm=comm)
    ts.setCostGradients([adjoint], [by_params])
    ts.adjointSolve()
    np.savez(
        out,
        value=0.5 * misfit @ misfit,
        params=by_params.getArray(readonly=True),
        initial=adjoint.getArray(readonly=True).reshape(y0.shape),
        version=".".join(str(i) for i in PETSc.Sys.getVersion()),
    )
    return 0


# ---------------------------------------------------------------------------------------------------- this process


def set_up(shape, spacing, steps, dt, params, seed):
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(0.3, 1.0, shape), rng.uniform(0.0, 0.5, shape)
    y0 = np.stack([u, v])
    target = y0 + 0.2 * rng.standard_normal(y0.shape)
    return dict(y0=y0, target=target, spacing=np.array(spacing), steps=steps, dt=dt, params=np.array(params))


def gradient_of_adjoint_rd(y0, target, spacing, steps, dt, params):
    import adjoint_rd as rd

    grid = rd.Grid(y0.shape[1:], spacing=tuple(float(h) for h in spacing), boundary="periodic")
    sim = rd.Simulation("gray_scott", grid, dt=dt, scheme="euler", dtype="float64")
    return sim.gradient(y0, dict(zip(NAMES, params.tolist(), strict=True)), rd.losses.L2(target), steps=steps)


def gradient_of_jax(y0, target, spacing, steps, dt, params):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from reference import l2
    from reference_jax import value_and_grad

    params = dict(zip(NAMES, params.tolist(), strict=True))
    return value_and_grad(
        "gray_scott", y0, params, l2(target), steps=steps, dt=dt, spacing=spacing, boundary="periodic"
    )


def blocks_of(gradient):
    blocks = {"value": gradient.value} | {name: gradient.params[name] for name in NAMES} | {"initial": gradient.initial}
    return {name: np.asarray(block, dtype=float) for name, block in blocks.items()}


def relative(got, want):
    """max |got - want| / max |want|"""
    if got.shape != want.shape:
        raise ValueError(f"shape {got.shape} against PETSc's {want.shape}")
    return float(np.abs(got - want).max() / np.abs(want).max())


def ask_petsc(python, given):
    """PETSc's gradient of a set-up, as blocks, with its version; or the reason why there is none (a string)."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = f"{folder}/given.npz", f"{folder}/out.npz"
        np.savez(source, **given)
        command = [python, "-I", str(Path(__file__).resolve()), "--petsc", source, out]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
        except FileNotFoundError:
            return f"there is no {python}"
        words = done.stderr.strip()
        if done.returncode == NO_PETSC or "No module named 'numpy'" in words:
            return f"{python} has no petsc4py ({words.splitlines()[-1]})"
        if done.returncode != 0:
            raise RuntimeError(f"PETSc's process ended with {done.returncode}:\n{done.stdout}{words}")
        result = np.load(out)
        named = dict(zip(NAMES, result["params"], strict=True))
        blocks = {"value": result["value"], **named, "initial": result["initial"]}
        return {name: np.asarray(block) for name, block in blocks.items()}, str(result["version"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="/usr/bin/python3", help="the one with petsc4py (default: %(default)s)")
    parser.add_argument("--against", choices=("adjoint_rd", "jax"), default="adjoint_rd", help="whose gradient")
    parser.add_argument("--petsc", nargs=2, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.petsc:
        return petsc_gradient(*asked.petsc)

    gradient = {"adjoint_rd": gradient_of_adjoint_rd, "jax": gradient_of_jax}[asked.against]
    failures = 0
    for index, (title, words) in enumerate(SETUPS.items()):
        given = set_up(**words)
        try:
            answer = ask_petsc(asked.python, given)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        if isinstance(answer, str):
            print(f"skipped: {answer}; {INSTALL}")
            return 0
        want, version = answer
        if index == 0:
            print(f"{asked.against}'s gradient against TSAdjoint of PETSc {version} (rk, 1fe), Gray-Scott 2-D periodic")
            print(f"{'set-up':18} {'block':8} {'max |want|':>11} {'max error / max |want|':>23}")
        got = blocks_of(gradient(**given))
        for name in want:
            error = relative(got[name], want[name])
            failed = not error <= LIMIT  # NaN fails
            failures += failed
            print(f"{title:18} {name:8} {np.abs(want[name]).max():11.4e} {error:23.1e}{'  FAILED' if failed else ''}")
        moved = given | {"params": given["params"] * (1, 1, 1 + 1e-9, 1)}
        got = blocks_of(gradient(**moved))
        control = max(relative(got[name], want[name]) for name in want)
        failed = not control > LIMIT
        failures += failed
        verdict = "  FAILED" if failed else "  (must exceed the limit)"
        print(f"{title:18} {'control':8} {'F + 1e-9 F':>11} {control:23.1e}{verdict}")
    print(f"{'passed' if not failures else 'FAILED'}: limit {LIMIT:g}, {failures} above it")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
