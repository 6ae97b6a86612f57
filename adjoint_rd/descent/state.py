"""What a descent is made of: its options, and the state of an iteration, which is never changed in place."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Trial:
    """One trial: its iteration, scale and value, whether it was accepted, and why not."""

    iteration: int
    scale: float
    value: float
    accepted: bool
    reason: str


@dataclass(frozen=True)
class Options:
    """The arguments of `adjoint_rd.minimize` that a checkpoint must agree with."""

    method: str
    learning_rate: float | None
    momentum: float
    betas: tuple[float, float]
    epsilon: float
    memory: int
    shrink: float
    backtrack: float
    grow: float
    jump: float
    max_shrinks: int
    max_jumps: int
    max_skips: int
    patience: int
    min_scale: float
    max_scale: float
    max_move: float
    rise: float
    recent: int
    tol: float
    stochastic: bool


@dataclass(frozen=True)
class Best:
    """The best point so far; its value is that of the judge, if there is one."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    iteration: int


@dataclass(frozen=True)
class State:
    """All that the next iteration depends on."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    best: Best
    iteration: int = 0
    scale: float = 1.0
    successes: int = 0
    skips: int = 0
    rate: float = 1.0
    nfev: int = 0
    trials: int = 0
    memory: dict[str, np.ndarray] = field(default_factory=dict)
    recent: tuple[float, ...] = ()
