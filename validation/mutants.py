"""Mutation test: every wrong sign and every missing term in a hand-derived function is caught.

    python validation/mutants.py            all mutants, about a minute
    python validation/mutants.py --quick    one mutant for each function of each model

In each hand-derived function of each model (three built in, and the three-species one of the tests), every additive
term is once dropped and once negated: the terms of each returned component, those inside its factors, and the
intermediate results. The checks of `adjoint_rd.validate` that exercise the function must all fail; the unchanged model
must pass them all. Prints the mutants x checks table; the exit code is 1 if a mutant gets past one of its checks.

Runs without Numba's JIT: a mutant on a tiny grid is interpreted in a tenth of a second, and compiled in ten.
"""

import argparse
import ast
import inspect
import os
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

os.environ["NUMBA_DISABLE_JIT"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from three_species import oregonator

import adjoint_rd as rd
from adjoint_rd import models, validate

CELLS, STEPS, DT = 5, 4, 0.1
PARAMETERS = {
    "gray_scott": dict(Du=0.3, Dv=0.2, F=0.3, k=0.5),
    "schnakenberg": dict(Du=0.3, Dv=0.2, a=0.4, b=0.8, gamma=0.9),
    "allen_cahn": dict(Du=0.3, r=0.8),
    "oregonator": dict(Du=0.3, Dv=0.2, Dw=0.4, e=0.9, s=0.8, q=0.3, f=0.7),
}
CHECKS = {
    "pointwise": lambda set_up: validate.model(set_up.sim.model, points=5),
    "dot product": lambda set_up: validate.dot_product(set_up.sim, set_up.y0, set_up.params, steps=STEPS),
    "Taylor 2": lambda set_up: validate.taylor(set_up.obj, set_up.x),
    "difference": lambda set_up: validate.finite_difference(set_up.obj, set_up.x, step_sizes=(1e-3, 1e-4, 1e-5)),
    "complex step": lambda set_up: validate.complex_step(set_up.obj, set_up.x),
    "Taylor 3": lambda set_up: validate.taylor(set_up.obj, set_up.x, hessian=True),
}
FIRST_ORDER = ("pointwise", "dot product", "Taylor 2", "difference", "complex step", "Taylor 3")
EXERCISED_BY = {
    "reaction_j": ("pointwise", "dot product", "Taylor 3"),  # the gradient needs no tangents
    "reaction_jt": FIRST_ORDER,
    "reaction_pt": FIRST_ORDER,
    "reaction_jt_t": ("pointwise", "Taylor 3"),
    "reaction_pt_t": ("pointwise", "Taylor 3"),
}


class SetUp:
    """A small run of a model, and an objective in which everything is free."""

    def __init__(self, model):
        rng = np.random.default_rng(0)
        self.params = PARAMETERS[model.name]
        self.sim = rd.Simulation(model, rd.Grid((CELLS,), boundary="neumann"), dt=DT, threads=1, stability="off")
        self.y0 = rng.uniform(0.4, 1.2, self.sim.state_shape)
        loss = rd.losses.L2(rng.uniform(0.0, 0.5, self.sim.state_shape))
        free = (*model.names, "initial")
        self.obj = rd.Objective(self.sim, self.y0, loss, steps=STEPS, free=free, transform=None)
        self.x = self.obj.pack(**self.params)


# ------------------------------------------------------------------------------------------------- mutation


def mutants(function):
    """(description, mutated function) for every term."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for n, term in enumerate(terms_of(tree.body[0])):
        for kind in ("drop", "negate"):
            mutated = ast.parse(textwrap.dedent(inspect.getsource(function)))
            target = list(terms_of(mutated.body[0]))[n]
            _Replace(target, kind).visit(mutated)
            ast.fix_missing_locations(mutated)
            namespace = dict(function.__globals__)
            exec(compile(mutated, f"<mutant of {function.__name__}>", "exec"), namespace)
            yield f"{kind} {ast.unparse(term)}", namespace[function.__name__]


def terms_of(function):
    """The additive terms: of each returned component, of each intermediate result, and inside their factors."""
    for statement in function.body:
        if isinstance(statement, ast.Return):
            components = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        elif isinstance(statement, ast.Assign) and isinstance(statement.value, (ast.BinOp, ast.UnaryOp)):
            components = [statement.value]
        else:  # docstrings and unpacking
            continue
        for component in components:
            yield from _terms(component)


def _terms(expression):
    if not _is_sum(expression):
        yield expression
    for node in ast.walk(expression):
        if _is_sum(node):
            for side in (node.left, node.right):
                if not _is_sum(side):
                    yield side


def _is_sum(node):
    return isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub))


class _Replace(ast.NodeTransformer):
    def __init__(self, target, kind):
        self.target, self.kind = target, kind

    def visit(self, node):
        if node is not self.target:
            return self.generic_visit(node)
        if self.kind == "negate":
            return ast.UnaryOp(ast.USub(), node)
        return ast.BinOp(node, ast.Sub(), node)  # a zero of the same type


# ---------------------------------------------------------------------------------------------------- table


def verdicts(model, checks):
    """{check: whether it passed}; one that cannot be carried out has failed."""
    set_up, found = SetUp(model), {}
    for check in checks:
        try:
            found[check] = CHECKS[check](set_up).passed
        except (FloatingPointError, ArithmeticError):
            found[check] = False
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one mutant for each function of each model")
    parser.add_argument("--model", choices=PARAMETERS, help="only this model")
    arguments = parser.parse_args()

    columns = "  ".join(f"{check:>12}" for check in CHECKS)
    print(f"{'mutant':<76}  {columns}")
    survivors, caught = [], Counter()
    for model in (*models.MODELS.values(), oregonator):
        if arguments.model not in (None, model.name):
            continue
        found = verdicts(model, CHECKS)
        print(row(f"{model.name}, as it is", found))
        if not all(found.values()):
            survivors.append(f"{model.name} itself fails {[check for check, passed in found.items() if not passed]}")
        for name, checks in EXERCISED_BY.items():
            each = list(mutants(getattr(model, name)))
            for what, function in each[len(each) // 2 :][:1] if arguments.quick else each:
                found = verdicts(replace(model, **{name: function}), checks)
                print(row(f"  {model.name}.{name}: {what}", found), flush=True)
                caught[name] += 1
                missed = [check for check, passed in found.items() if passed]
                if missed:
                    survivors.append(f"{model.name}.{name}, {what}: gets past {', '.join(missed)}")
    print("\nmutants: " + ", ".join(f"{name} {count}" for name, count in caught.items()))
    print("\n".join(survivors) or f"all {caught.total()} mutants fail every check that exercises them")
    return 1 if survivors else 0


def row(title, found):
    words = {True: "passed", False: "FAILED", None: "."}
    return f"{title:<76}  " + "  ".join(f"{words[found.get(check)]:>12}" for check in CHECKS)


if __name__ == "__main__":
    sys.exit(main())
