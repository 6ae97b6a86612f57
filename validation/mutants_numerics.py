"""Mutation test of schemes, grid-point updates and losses: every wrong step in a hand-derived function is caught.

    python validation/mutants_numerics.py [--parts cells,schemes,losses] [--quick]

cells     each additive term of the grid-point functions of `kernels.cells` dropped and negated
schemes   each pass of Euler and RK4 (step, tangent, transpose, second order) left out, each weight negated
losses    each additive term and factor of the derivatives of the losses dropped, negated or inverted

A mutant is killed if a check of `adjoint_rd.validate` fails on one of the set-ups (Euler and RK4, on a grid with
unequal spacings, Dirichlet and Neumann walls; Euler on a periodic one), or, for losses, if value, seed, its tangent
and the misfit no longer agree with central differences of each other. The models' functions have a script of their
own, mutants.py. Runs without Numba's JIT. Exits with 1 if a mutant survives, or if the unchanged code fails. --quick:
every twelfth mutant.
"""

import argparse
import ast
import inspect
import os
import sys
import textwrap
from pathlib import Path

os.environ["NUMBA_DISABLE_JIT"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import adjoint_rd as rd
from adjoint_rd import losses, validate
from adjoint_rd.kernels import cells, specialise
from adjoint_rd.pattern_losses import spectra, statistic, texture, values, weighted
from adjoint_rd.schemes import compiled, euler, rk4

STEPS, DT = 3, 0.1
PARAMS = dict(Du=0.3, Dv=0.2, F=0.3, k=0.5)
WALLS = rd.Grid((3, 4), spacing=(1.1, 0.9), boundary=("dirichlet", "neumann"), wall=(0.7, 0.2))
ALL = [("euler", WALLS), ("rk4", WALLS), ("euler", rd.Grid((4, 3), spacing=0.9))]
CELLS = ("lap", "push_update", "tangent_update", "pull_update", "pull_diffusion", "second_update", "second_diffusion",
         "second_kinetics")  # fmt: skip
PASSES = {
    "euler": (euler, ("push", "tangent", "pull", "second")),
    "rk4": (rk4, ("stages", "tangent_stages", "push", "tangent", "pull", "second")),
}
DERIVATIVES = (
    "seed", "seed_tangent", "misfit_tangent", "_push", "_pull", "_pull_tangent", "_of_power_push", "_of_power_pull",
    "_of_power_pull_tangent", "_power_tangent", "_power_pull", "_transform_pull", "_filter_pull", "_amplitude_pull",
    "_collect_pull",
)  # fmt: skip


# --------------------------------------------------------------------------------------------------- mutants


class _Replace(ast.NodeTransformer):
    def __init__(self, target, new):
        self.target, self.new = target, new

    def visit(self, node):
        return self.new if node is self.target else self.generic_visit(node)


def variants(function, places):
    """(description, syntax tree of the changed function); `places` yields (description, node, new node)."""
    count = len(list(places(parse(function))))
    for n in range(count):
        tree = parse(function)
        what, node, new = list(places(tree))[n]
        yield what, ast.fix_missing_locations(_Replace(node, new).visit(tree))


def parse(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def terms(tree):
    """Each additive term dropped and negated; expressions that are no sum negated."""
    for statement in ast.walk(tree):
        if isinstance(statement, (ast.Return, ast.Assign, ast.AugAssign)):
            for node in ast.walk(statement.value):
                if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
                    for side in (node.left, node.right):
                        yield from both(side)
            call = statement.value if isinstance(statement, ast.Return) else None
            if isinstance(call, ast.Call) and getattr(call.func, "id", None) != "tuple":
                yield f"negate {ast.unparse(statement.value)}", *negated(statement.value)


def both(node):
    yield f"drop {ast.unparse(node)}", node, ast.BinOp(node, ast.Mult(), ast.Constant(0))
    yield f"negate {ast.unparse(node)}", *negated(node)


def negated(node):
    return node, ast.UnaryOp(ast.USub(), node)


def factors(tree):
    """As `terms`, and each product turned into a quotient and the reverse, in returned and assigned expressions."""
    for what, node, new in terms(tree):
        if not what.startswith("negate np.") and not what.startswith("negate fft."):
            yield what, node, new
    for statement in ast.walk(tree):
        if isinstance(statement, (ast.Return, ast.Assign, ast.AugAssign)):
            for node in ast.walk(statement.value):
                if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
                    other = ast.Div() if isinstance(node.op, ast.Mult) else ast.Mult()
                    yield f"invert a factor of {ast.unparse(node)}", node, ast.BinOp(node.left, other, node.right)


def passes(tree):
    """Each pass over the grid left out, each weight negated."""
    for statement in tree.body[0].body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call) or call.func.id == "meet":  # with one thread nobody waits
            continue
        yield f"leave out {ast.unparse(call)}", statement, ast.Pass()
        weight = {"blend": 2, "accumulate": 1, "scale": 1}.get(call.func.id)
        if weight is not None:
            yield f"negate the weight of {ast.unparse(call)}", *negated(call.args[weight])


# ---------------------------------------------------------------------------------------------------- checks


def set_up(scheme, grid):
    """A small run, and an objective in which everything is free."""
    rng = np.random.default_rng(0)
    sim = rd.Simulation("gray_scott", grid, dt=DT, scheme=scheme, threads=1, stability="off")
    y0 = rng.uniform(0.4, 1.2, sim.state_shape)
    loss = rd.losses.L2(rng.uniform(0.0, 0.5, sim.state_shape))
    obj = rd.Objective(sim, y0, loss, steps=STEPS, free=(*sim.model.names, "initial"), transform=None)
    return sim, y0, obj, obj.pack(**PARAMS)


def survives(set_ups):
    """Whether all checks pass on fresh kernels."""
    compiled._time_loop.cache_clear()
    compiled._sweep_kernel.cache_clear()
    for scheme, grid in set_ups:
        sim, y0, obj, x = set_up(scheme, grid)
        checks = (
            lambda sim=sim, y0=y0: validate.dot_product(sim, y0, PARAMS, steps=STEPS),
            lambda obj=obj, x=x: validate.complex_step(obj, x),
            lambda obj=obj, x=x: validate.taylor(obj, x, hessian=True),
        )
        for check in checks:
            try:
                if not check().passed:
                    return False
            except (rd.AdjointRDError, ArithmeticError, TypeError):
                return False
    return True


def with_template(function, tree, set_ups):
    """`survives` with the changed source of one template."""
    real = specialise._parse

    def changed(template):
        return specialise._clone(tree) if template is function else real(template)

    specialise._parse = changed
    try:
        return survives(set_ups)
    finally:
        specialise._parse = real


def some_losses(rng):
    """Losses with nothing equal to one, and the states and directions that they are looked at with."""
    y, target = rng.uniform(0.2, 0.9, (2, 2, 8, 6))
    several = [target, rng.uniform(0.2, 0.9, target.shape)]
    sigma = rng.uniform(0.5, 2.0, target.shape)
    made = [
        losses.L2(target, sigma=sigma),
        losses.L2(target[1], species=1, sigma=0.7),
        losses.Linear(target),
        losses.LogSpectrum(target, sigma=0.7),
        losses.LogSpectrum([each[1] for each in several], radial=True, window="hann", patch=4, sigma=0.7, species=1),
        losses.Autocorrelation(target, max_lag=2, sigma=0.7),
        losses.Moments(several, sigma=0.7),
        losses.Histogram(target, bins=6, sigma=0.7),
        losses.Histogram(target, bins=6, sigma=0.7, cumulative=True),
        losses.GramTexture(target, wavelengths=(3.0, 5.0), orientations=2, sigma=0.7),
        losses.Weighted([losses.L2(target), losses.Moments(target, sigma=0.7)], [0.6, 1.7]),
    ]
    return made, y, rng.standard_normal(y.shape)


def losses_agree():
    """Whether every loss's derivatives agree with central differences."""
    made, y, t = some_losses(np.random.default_rng(0))
    h = 2e-5
    for loss in made:
        try:
            if not close(np.sum(loss.seed(y) * t), (loss.value(y + h * t) - loss.value(y - h * t)) / (2 * h)):
                return False
            if not close(loss.seed_tangent(y, t), (loss.seed(y + h * t) - loss.seed(y - h * t)) / (2 * h)):
                return False
            if hasattr(loss, "misfit"):
                m = loss.misfit(y)
                change = (loss.misfit(y + h * t) - loss.misfit(y - h * t)) / (2 * h)
                if not close(loss.misfit_tangent(y, t), change) or not close(0.5 * m @ m, loss.value(y)):
                    return False
        except (ArithmeticError, ValueError, TypeError, IndexError):
            return False
    return True


def close(one, other):
    return bool(np.all(np.abs(one - other) <= 1e-5 * np.max(np.abs(other)) + 1e-12))


# ---------------------------------------------------------------------------------------------------- parts


def cell_mutants():
    for name in CELLS:
        function = getattr(cells, name)
        for what, tree in variants(function, terms):
            yield f"cells.{name}: {what}", lambda f=function, tree=tree: with_template(f, tree, ALL)


def scheme_mutants():
    for scheme, (module, names) in PASSES.items():
        for name in names:
            function = getattr(module, name)
            for what, tree in variants(function, passes):
                yield f"{scheme}.{name}: {what}", lambda f=function, t=tree, s=scheme: with_template(f, t, [(s, WALLS)])


def loss_mutants():
    for module in (losses, statistic, spectra, values, texture, weighted):
        for owner in [
            each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__
        ]:
            for name in [name for name in DERIVATIVES if name in vars(owner)]:
                for what, tree in variants(vars(owner)[name], factors):
                    yield f"{owner.__name__}.{name}: {what}", lambda o=owner, n=name, t=tree: with_method(o, n, t)


def with_method(owner, name, tree):
    real = vars(owner)[name]
    namespace = dict(real.__globals__)
    exec(compile(tree, f"<mutant of {name}>", "exec"), namespace)
    setattr(owner, name, namespace[name])
    try:
        with np.errstate(all="ignore"):
            return losses_agree()
    finally:
        setattr(owner, name, real)


PARTS = {
    "cells": (cell_mutants, lambda: survives(ALL)),
    "schemes": (scheme_mutants, lambda: survives(ALL)),
    "losses": (loss_mutants, losses_agree),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"default {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="every twelfth mutant")
    options = parser.parse_args()
    bad = 0
    for part in options.parts.split(","):
        mutants, passes_unchanged = PARTS[part]
        if not passes_unchanged():
            print(f"{part}: the unchanged code fails its checks")
            bad += 1
        killed, survivors = 0, []
        for what, tried in list(mutants())[:: 12 if options.quick else 1]:
            if tried():
                survivors.append(what)
                print(f"  survives  {what}", flush=True)
            else:
                killed += 1
        print(f"{part}: {killed} of {killed + len(survivors)} mutants killed", flush=True)
        bad += len(survivors)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
