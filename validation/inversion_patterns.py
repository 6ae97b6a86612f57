"""Gray-Scott patterns of known parameters for the inversion suite, developed once and kept on disk.

A recipe is a preset or a random truth; a draw is another random initial state of the same recipe. Every pattern is
stored twice: stopped when max |y_t| = 5e-5 ("slow") and run on to 1e-8 ("steady", as far as it comes).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import adjoint_rd as rd
from adjoint_rd import presets

PRESETS = ("reference", "eta", "theta", "lambda", "mu", "well-spots", "well-worms", "rho")
RANDOM_TRUTHS = 12
LONGEST = 1_000_000  # steps towards 1e-8
ATTEMPTS = 6  # seeds for one draw before it is given up
SETTLED = 2e-6  # max |y_t| below which a pattern counts as steady


@dataclass(frozen=True)
class Pattern:
    """A developed pattern: `slow` and `steady` are states (2, n, n), the rates their max |y_t|."""

    name: str
    params: dict[str, float]
    slow: np.ndarray
    steady: np.ndarray
    slow_rate: float
    steady_rate: float


def recipes(size):
    """[(name, params, initial)]: presets, then random truths."""
    found = [(name, dict(presets.get(name).parameters), dict(presets.get(name).initial)) for name in PRESETS]
    rng = np.random.default_rng(777 + size)
    for n in range(RANDOM_TRUTHS):
        Du, F = rng.uniform(0.12, 0.22), rng.uniform(0.028, 0.06)
        params = {
            "Du": float(Du),
            "Dv": float(Du * rng.uniform(0.42, 0.55)),
            "F": float(F),
            "k": float(np.sqrt(F) / 2 - F + rng.uniform(-0.002, 0.004)),
        }
        found.append((f"random-{n}", params, {"kind": "square", "clip": (0.0, 1.0)}))
    return found


def pattern(size, recipe, draw, cache: Path):
    """The pattern of a recipe (its number) and a draw, or None if it died or kept moving for every seed tried."""
    name, params, initial = recipes(size)[recipe]
    path = cache / f"{size}-{name}-{draw}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_develop(size, params, initial, 100 * draw + 1))
    stored = np.load(path)
    if not stored["alive"]:
        return None
    return Pattern(name, params, stored["slow"], stored["steady"], *map(float, stored["rates"]))


def patterns(size, count, draws, cache, settled):
    """Yield (recipe's place, draw, pattern): for each draw the first `count` recipes that live, or that settle."""
    for draw in range(draws):
        found = 0
        for recipe in range(len(PRESETS) + RANDOM_TRUTHS):
            one = pattern(size, recipe, draw, cache)
            if found < count and one is not None and (one.steady_rate <= SETTLED or not settled):
                found += 1
                yield recipe, draw, one


def _develop(size, params, initial, first_seed):
    for seed in range(first_seed, first_seed + ATTEMPTS):
        sim = rd.Simulation("gray_scott", rd.Grid((size, size)), dt=1.0, stability="off", threads=1)
        slow = sim.run_to_steady(sim.initial_state(**initial, rng=seed), params, tol=5e-5, max_steps=150_000)
        if slow.final[1].std() < 0.02 or slow.rate > 2e-4:
            continue
        steady = sim.run_to_steady(slow.final, params, tol=1e-8, max_steps=LONGEST)
        return {"alive": True, "slow": slow.final, "steady": steady.final, "rates": [slow.rate, steady.rate]}
    return {"alive": False}
