"""Every model x dimension x boundary x scheme, in plain Python: the kernels' templates run without the JIT.

Compiling a set-up takes seconds, interpreting it on a tiny grid milliseconds; so all of them are checked here, and a
few of them compiled, in `test_gradient.py` and `test_tangent_and_hessian.py`. It is a script because Numba reads
NUMBA_DISABLE_JIT once, when it is imported: `test_every_setup.py` runs it.

    state       the reference's run
    tangent     the reference's run with complex steps: J t = Im y(p + i h dp, y0 + i h dy0) / h
    transpose   <J^T a, t> = <a, J t>, relative to |J^T a| |t|
    hessian     central differences of the gradient, whose own error is about 1e-8
    symmetry    <s, H t> = <t, H s>

Before that comes the control: each hand-written function of a model is negated once, and the checks that see it must
fail.
"""

import os
import sys
from dataclasses import replace

os.environ["NUMBA_DISABLE_JIT"] = "1"

import numpy as np
import reference as ref
import setups

import adjoint_rd as rd

SHAPES = {1: (5,), 2: (3, 4), 3: (3, 3, 4)}
LIMITS = {"state": 1e-13, "tangent": 1e-13, "transpose": 1e-13, "hessian": 1e-6, "symmetry": 1e-12}
STEPS = 3
SEEN_BY = {  # a negated function fails these checks, and no other
    "reaction_j": {"tangent", "transpose", "hessian", "symmetry"},
    "reaction_jt": {"transpose", "hessian", "symmetry"},
    "reaction_pt": {"transpose", "hessian", "symmetry"},
    "reaction_jt_t": {"hessian", "symmetry"},
    "reaction_pt_t": {"hessian", "symmetry"},
}


def failures(case, model=None):
    """{check: error} of those that fail, and the errors of all."""
    found = errors(case, model)
    return {check: error for check, error in found.items() if not error <= LIMITS[check]}, found


def negated(function):
    return lambda *arguments: tuple(-value for value in function(*arguments))


def errors(case, model=None):
    sim = setups.simulation(case, model=model, threads=1)
    t, s = setups.directions(case, 1), setups.directions(case, 2)
    run = dict(steps=STEPS)
    found = {"state": ref.relative_error(sim.run(case.y0, case.params, **run).final, ref.run(**case.physics, **run))}

    h = 1e-30
    moved = case.physics | {
        "y0": case.y0 + 1j * h * t[1],
        "params": {name: value + 1j * h * t[0][name] for name, value in case.params.items()},
    }
    tangent = sim.tangent(case.y0, case.params, direction=t[0], initial=t[1], **run).tangent
    found["tangent"] = ref.relative_error(tangent, ref.run(**moved, **run).imag / h)

    a = np.random.default_rng(3).standard_normal(case.y0.shape)
    pulled = sim.gradient(case.y0, case.params, rd.losses.Linear(a), **run)
    pulled = pulled.params, pulled.initial
    scale = np.sqrt(setups.dot(pulled, pulled) * setups.dot(t, t))
    found["transpose"] = abs(setups.dot(pulled, t) - np.sum(a * tangent)) / scale

    loss = rd.losses.Trajectory({1: rd.losses.L2(case.target), STEPS: setups.Wavy(case.target)})

    def product(of):
        both = sim.hessian_product(case.y0, case.params, loss, direction=of[0], initial=of[1], **run)
        return both.params, both.initial

    def gradient(h):
        params = {name: value + h * t[0][name] for name, value in case.params.items()}
        both = sim.gradient(case.y0 + h * t[1], params, loss, **run)
        return both.params, both.initial

    Ht, Hs = product(t), product(s)
    up, down = gradient(1e-5), gradient(-1e-5)
    difference = {name: (up[0][name] - down[0][name]) / 2e-5 for name in Ht[0]}, (up[1] - down[1]) / 2e-5
    parts = [(Ht[0][name], difference[0][name]) for name in Ht[0]] + [(Ht[1], difference[1])]
    found["hessian"] = max(ref.relative_error(got, want) for got, want in parts)
    scale = np.sqrt(setups.dot(Ht, Ht) * setups.dot(s, s))
    found["symmetry"] = abs(setups.dot(s, Ht) - setups.dot(t, Hs)) / scale
    return found


def control():
    """The negated functions that the wrong checks see."""
    case = setups.draw("oregonator", (5,), "neumann", fields=("q",))
    wrong = []
    for name, checks in SEEN_BY.items():
        model = replace(setups.oregonator, **{name: negated(getattr(setups.oregonator, name))})
        bad, _ = failures(case, model)
        if set(bad) != checks:
            wrong.append(f"control: negating {name} fails {sorted(bad)} instead of {sorted(checks)}")
    return wrong


def main():
    wrong, worst = control(), dict.fromkeys(LIMITS, 0.0)
    for model, kinetics in ((name, ref.MODELS[name].kinetics) for name in setups.MODELS):
        for dim, shape in SHAPES.items():
            for n, boundary in enumerate(("periodic", "neumann", "dirichlet", "mixed")):
                for m, scheme in enumerate(("euler", "rk4")):
                    which = dim + n + m  # by turns: no parameter a field, some, all; equal and unequal spacings
                    fields = (), kinetics[::2], kinetics
                    case = setups.draw(model, shape, boundary, scheme, fields[which % 3], which, bool(which % 2))
                    bad, found = failures(case)
                    worst = {check: max(worst[check], found[check]) for check in worst}
                    if bad:
                        wrong.append(f"{model} {dim}-D {boundary} {scheme}: {bad}")
    print("worst errors:", ", ".join(f"{check} {error:.1e}" for check, error in worst.items()))
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
