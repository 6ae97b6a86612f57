"""Update rules: an update d from the gradients so far; g is the gradient, a the learning rate.

    gd        d = -a g
    momentum  m <- b m + g,  d = -a m                                                     Polyak 1964
    adam      d = -a m / (sqrt(q) + eps) with decayed means m of g and q of g^2           Kingma and Ba 2015
    bb        d = -g (s.s / s.y) or -g (s.y / y.y), in turn                               Barzilai and Borwein 1988
    lbfgs     d = -H g, H from the last pairs (s, y) by the two-loop recursion            Nocedal and Wright 7.4

Each is ``rule(options, state) -> (d, memory)``; the arrays in memory are never changed in place.
"""

from collections.abc import Callable

import numpy as np

from .state import Options, State

__all__ = ["METHODS", "RULES"]


def _gd(options: Options, state: State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return -state.rate * state.gradient, {}


def _momentum(options: Options, state: State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    m = options.momentum * state.memory.get("m", 0.0) + state.gradient
    return -state.rate * m, {"m": m}


def _adam(options: Options, state: State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    first, second = options.betas
    g = state.gradient
    n = state.memory.get("n", np.zeros(())) + 1.0
    m = first * state.memory.get("m", 0.0) + (1.0 - first) * g
    q = second * state.memory.get("q", 0.0) + (1.0 - second) * g * g
    d = -state.rate * (m / (1.0 - first**n)) / (np.sqrt(q / (1.0 - second**n)) + options.epsilon)
    return d, {"n": n, "m": m, "q": q}


def _bb(options: Options, state: State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    length = state.rate
    if "x" in state.memory:
        s, y = state.x - state.memory["x"], state.gradient - state.memory["g"]
        sy = float(s @ y)
        length = float(state.memory["length"])
        if sy > 0.0:
            length = float(s @ s) / sy if state.iteration % 2 else sy / float(y @ y)
    return -length * state.gradient, {"x": state.x, "g": state.gradient, "length": np.asarray(length)}


def _lbfgs(options: Options, state: State) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    n = state.x.size
    S = state.memory.get("s", np.zeros((0, n)))
    Y = state.memory.get("y", np.zeros((0, n)))
    if "x" in state.memory:
        s, y = state.x - state.memory["x"], state.gradient - state.memory["g"]
        # A pair without curvature would spoil H; at a step that moved nothing both are zero.
        if float(s @ y) > 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y)):
            S, Y = np.vstack([S, s])[-options.memory :], np.vstack([Y, y])[-options.memory :]
    memory = {"s": S, "y": Y, "x": state.x, "g": state.gradient}
    if not len(S):
        return -state.rate * state.gradient, memory
    d = -state.gradient
    products = np.sum(S * Y, axis=1)
    along = np.empty(len(S))
    for i in range(len(S) - 1, -1, -1):
        along[i] = S[i] @ d / products[i]
        d = d - along[i] * Y[i]
    d = d * (products[-1] / float(Y[-1] @ Y[-1]))
    for i in range(len(S)):
        d = d + (along[i] - Y[i] @ d / products[i]) * S[i]
    return d, memory


Rule = Callable[[Options, State], tuple[np.ndarray, dict[str, np.ndarray]]]
RULES: dict[str, Rule] = {"gd": _gd, "momentum": _momentum, "adam": _adam, "bb": _bb, "lbfgs": _lbfgs}
METHODS = tuple(RULES)
