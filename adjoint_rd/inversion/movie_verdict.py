"""When to refuse a movie, and what to say.

Each test returns a reason in words, or None if all is well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import verdict

MOST_CHI2 = 1.05  # of all frames, if the noise was measured or given
MOST_FRAME_CHI2 = 1.3  # of the worst frame
MOST_CORRELATION = 0.02  # between the misfits of neighbouring cells
NOT_CONVERGED = "matching did not converge (params: where it stopped); give a nearer start=, or fewer frames."
MOST_LEFT = 0.05  # of the pattern's standard deviation, for frames without noise


def nothing_to_fit(movie: Any, images: np.ndarray, spectra: Any, sigma: np.ndarray) -> str | None:
    """Whether the frames show no pattern, or none that moves."""
    for c in range(images.shape[1]):
        for which in (0, -1):
            reason = verdict.no_pattern(images[which, c], spectra[which][c], 1)
            if reason:
                return reason.replace("the image", "a frame")
    change = images - images.mean(axis=0)
    cells = change[0, 0].size
    freedom = cells * (len(images) - 1)
    moved = np.sum(change**2, axis=(0, *range(2, change.ndim))) / freedom / sigma**2
    allowed = 1.1 + 6.0 * np.sqrt(2.0 / freedom)
    if np.all(moved <= allowed):
        return (
            "the frames do not move beyond their noise, so a movie tells no more than one snapshot. Use "
            "invert(frames.mean(axis=0)) without times."
        )
    return None


def implausible(movie: Any, matched: Any) -> str | None:
    """Whether the parameters are outside of what a pattern on this grid can have."""
    reason = verdict.implausible(matched.window.params(matched.fit.x), movie.model, movie.grid)
    return f"matching leads to {reason}; the frames are no movie of {movie.model.name}." if reason else None


def misfit(movie: Any, matched: Any, floored: bool) -> str | None:
    """Whether the best run leaves more than noise: in all, in one frame, or correlated between neighbours."""
    window, fit = matched.window, matched.fit
    m = fit.misfit
    name = movie.model.name
    if floored:
        spread = float(np.std(movie.frames[movie.seen]))
        left = float(np.sqrt(fit.chi2) / np.max(window.weights)) / max(spread, 1e-300)
        if left > MOST_LEFT:
            return f"no run of {name} matches the frames: {100 * left:.1f} % of their spread is left."
        return None
    cells = np.count_nonzero(window.weights.reshape(len(m), -1), axis=1)
    by_frame = np.sum(m.reshape(len(m), -1) ** 2, axis=1) / np.maximum(cells, 1)
    worst = int(np.argmax(by_frame))
    spread = np.sqrt(2.0 * len(m) / window.count)
    if fit.chi2 > MOST_CHI2 or by_frame[worst] > MOST_FRAME_CHI2 + 5.0 * spread:
        return (
            f"no run of {name} matches the frames: the misfit is {np.sqrt(fit.chi2):.3f} times the noise and "
            f"{np.sqrt(by_frame[worst]):.2f} times in frame {worst}. They are no movie of it, or the times, "
            "the spacing, scale= or noise= is wrong."
        )
    correlation = max(
        float(np.sum(m * np.roll(m, 1, axis)) / np.sum(m**2)) for axis in range(2, m.ndim)
    )
    if correlation > MOST_CORRELATION + 5.0 / np.sqrt(window.count):
        return (
            f"no run of {name} matches the frames: the misfits of neighbouring cells correlate ({correlation:.2f}), so "
            "something other than white noise is left."
        )
    return None


def praise(movie: Any, matched: Any, relative: np.ndarray, noise: float) -> str:
    """What to say about a success."""
    window, fit, step, correction = matched.window, matched.fit, matched.step, matched.correction
    worst = int(np.argmax(relative))
    names = movie.free
    parts = [
        f"Fitted {', '.join(names)} to {len(movie.frames)} frames; the largest standard error is "
        f"{100 * relative[worst]:.2g} % ({names[worst]})."
    ]
    if relative[worst] > 0.01:
        loose = [name for name, error in zip(names, relative, strict=True) if error > 0.01]
        parts.append(f"The data do not determine {', '.join(loose)} to 1 %.")
    scheme = {"euler": "Explicit Euler", "rk4": "RK4"}[window.sim.scheme_name]
    parts.append(f"{scheme} with dt {window.sim.dt:.4g}; noise {noise:.2g}, misfit {fit.chi2**0.5:.3f} of it.")
    if step is not None:
        parts.append(f"The frames' own time step, estimated: {step.estimate:.3g} +- {step.deviation:.2g}.")
        if not step.agrees:
            parts.append("No scheme tried agrees: the discretisation adds to the errors; give dt= or refine=.")
    if correction is not None:
        shares = ", ".join(f"{name} {100 * m:.2g} %" for name, m in zip(names, correction.moved, strict=True))
        parts.append(
            f"Corrected for the error of the grid by R={', '.join(map(str, correction.refine))}, which moved "
            f"{shares}" + ("." if correction.settled else "; this had not settled: give finer ones in refine=.")
        )
    else:
        parts.append("The standard errors know nothing of the error of the grid; refine=(1, 2, 3) corrects for it.")
    return " ".join(parts)
