"""Pictures of landscapes, of loss matrices and of descents: matplotlib figures; nothing is shown or saved."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError, check_choice
from .landscape import Landscape, boundaries

__all__ = ["pairwise", "show", "training"]


def show(
    found: Landscape,
    *,
    labels: Sequence[str] | None = None,
    arrows: bool = True,
    lines: bool = True,
    truth: Mapping[str, float] | None = None,
    path: Sequence[Mapping[str, float]] | None = None,
    log: bool = True,
) -> Any:
    """Draw a landscape, several losses side by side.

    Parameters
    ----------
    found : Landscape
        With one axis: curves with the spread, and tangents from the gradients. With two: maps. With three: one row of
        maps for each loss, a column for each value of the first axis.
    labels : sequence of str, optional
        Which losses.
    arrows : bool
        Arrows down the gradient (one length; the map shows how steep it is), or tangents in 1-D.
    lines : bool
        The bifurcation lines of Gray-Scott, if the axes are F and k and Du, Dv are known.
    truth : dict, optional
        A point to mark.
    path : sequence of dict, optional
        The way of a descent.
    log : bool
        Colours (or the axis) by the logarithm of the loss.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    if not isinstance(found, Landscape):
        raise InputError(f"found={found!r} must be a Landscape, as landscape.scan returns.")
    labels = list(found.values) if labels is None else [check_choice("labels", name, found.values) for name in labels]
    names = list(found.axes)
    if len(names) == 1:
        figure, axes = _panels(len(labels), 4.5, 3.5)
        for ax, label in zip(axes, labels, strict=True):
            _curve(ax, found, label, names[0], arrows, truth, log)
        return figure
    if len(names) == 2:
        figure, axes = _panels(len(labels), 4.8, 4.0)
        for ax, label in zip(axes, labels, strict=True):
            gradients = found.gradients.get(label)
            _map(figure, ax, found, found.values[label], gradients, names, arrows, lines, truth, path, log)
            ax.set_title(label)
        return figure
    if len(names) != 3:
        raise InputError(f"a landscape over {len(names)} parameters has no picture here; scan one, two or three.")
    slices = found.axes[names[0]]
    figure = Figure(figsize=(3.2 * len(slices), 3.0 * len(labels)), layout="constrained")
    axes = figure.subplots(len(labels), len(slices), squeeze=False)
    for row, label in zip(axes, labels, strict=True):
        for n, ax in enumerate(row):
            gradients = found.gradients[label][n][..., 1:] if label in found.gradients else None
            known = {**found.params, names[0]: float(slices[n])}
            _map(
                figure, ax, found, found.values[label][n], gradients, names[1:], arrows, lines, truth, path, log, known
            )
            ax.set_title(f"{label}, {names[0]} = {slices[n]:.4g}")
    return figure


def _panels(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure with `count` axes, at most four side by side."""
    from matplotlib.figure import Figure

    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def _curve(ax: Any, found: Landscape, label: str, name: str, arrows: bool, truth: Any, log: bool) -> None:
    x, y, spread = found.axes[name], found.values[label], found.spread[label]
    ax.plot(x, y, "k-", lw=1)
    ax.fill_between(x, y - spread, y + spread, color="0.85", lw=0)
    if arrows and label in found.gradients:
        half = 0.3 * np.gradient(x)
        g = found.gradients[label][:, 0]
        ax.plot([x - half, x + half], [y - half * g, y + half * g], "C1-", lw=1.5)
    if truth and name in truth:
        ax.axvline(truth[name], color="C2", ls="--", lw=1)
    if log and np.nanmin(y) > 0:
        ax.set_yscale("log")
    ax.set(xlabel=name, ylabel="loss", title=label)


def _map(
    figure: Any,
    ax: Any,
    found: Landscape,
    values: np.ndarray,
    gradients: Any,
    names: Sequence[str],
    arrows: bool,
    lines: bool,
    truth: Any,
    path: Any,
    log: bool,
    known: Mapping[str, float] | None = None,
) -> None:
    known = found.params if known is None else known
    row, column = names
    # F up and k to the right, as these maps are always drawn; else the second axis to the right.
    if (row, column) == ("k", "F"):
        row, column, values = "F", "k", values.T
        gradients = None if gradients is None else np.swapaxes(gradients, 0, 1)[..., ::-1]
    y, x = found.axes[row], found.axes[column]
    positive = values[np.isfinite(values) & (values > 0)]
    if log and positive.size:
        shown = np.log10(np.maximum(values, positive.min()))
    else:
        log, shown = False, values
    image = ax.pcolormesh(x, y, shown, shading="nearest", cmap="viridis")
    ax.set_facecolor("0.6")  # no run stayed finite
    figure.colorbar(image, ax=ax, label="log10 loss" if log else "loss")
    if arrows and gradients is not None:
        # Both axes are drawn with the same length: directions are those of the gradient for p over the axis' range.
        gx, gy = -gradients[..., 1] * np.ptp(x), -gradients[..., 0] * np.ptp(y)
        norm = np.hypot(gx, gy)
        with np.errstate(invalid="ignore", divide="ignore"):
            every = tuple(slice(None, None, max(1, n // 16)) for n in norm.shape)
            ux, uy = (gx / norm)[every], (gy / norm)[every]
        ax.quiver(x[every[1]], y[every[0]], ux, uy, color="w", angles="uv", scale=28, width=0.004, alpha=0.8)
    ax.set(xlabel=column, ylabel=row, xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
    if lines and (row, column) == ("F", "k") and {"Du", "Dv"} <= set(known):
        styles = {"saddle-node": ("r", "-"), "Hopf": ("m", "--"), "Turing": ("orange", "-.")}
        for line in boundaries(known["Du"], known["Dv"]):
            color, style = styles[line.name]
            if not line.k.size:
                continue
            ax.plot(line.k, line.F, color=color, linestyle=style, lw=1.4, label=line.name)
        ax.legend(fontsize=7, loc="upper left")
    if path:
        ax.plot([p[column] for p in path], [p[row] for p in path], "w.-", ms=3, lw=0.8)
    if truth and row in truth and column in truth:
        ax.plot(truth[column], truth[row], "r*", ms=10)


def pairwise(names: Sequence[str], matrix: np.ndarray, *, log: bool = True) -> Any:
    """Draw a matrix from `adjoint_rd.landscape.pairwise`."""
    from matplotlib.figure import Figure

    if np.shape(matrix) != (len(names), len(names)):
        raise InputError(f"matrix has shape {np.shape(matrix)}; {len(names)} names need {(len(names),) * 2}.")
    figure = Figure(figsize=(1.5 + 0.45 * len(names), 1.2 + 0.45 * len(names)), layout="constrained")
    ax = figure.subplots()
    with np.errstate(divide="ignore", invalid="ignore"):
        image = ax.imshow(np.log10(matrix) if log else matrix)
    figure.colorbar(image, ax=ax, label="log10 mean loss" if log else "mean loss")
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="patterns", ylabel="targets")
    return figure


def check_histories(histories: Any) -> None:
    """Raise an `InputError` unless `histories` is a dict of dicts with "value"."""
    if not isinstance(histories, Mapping) or not histories:
        raise InputError('histories must be {label: {"value": array, ...}} with at least one entry.')
    for label, history in histories.items():
        if not isinstance(history, Mapping) or "value" not in history:
            raise InputError(f'histories[{label!r}] must be a dict with the losses as "value".')


def training(histories: Mapping[str, Any], *, truth: Mapping[str, float] | None = None) -> Any:
    """Draw losses and parameters of several descents.

    Parameters
    ----------
    histories : dict
        {label: {"value": array, and any parameter's name: array}}.
    truth : dict, optional
        Drawn as lines.
    """
    from matplotlib.figure import Figure

    check_histories(histories)
    names = sorted({name for history in histories.values() for name in history} - {"value"})
    figure = Figure(figsize=(3.2 * (1 + len(names)), 3.0), layout="constrained")
    axes = figure.subplots(1, 1 + len(names), squeeze=False)[0]
    for label, history in histories.items():
        axes[0].plot(history["value"], lw=1, label=label)
        for ax, name in zip(axes[1:], names, strict=True):
            if name in history:
                ax.plot(history[name], lw=1)
    values = np.concatenate([np.ravel(history["value"]) for history in histories.values()])
    if np.isfinite(values).any() and np.nanmin(values) > 0:
        axes[0].set_yscale("log")
    axes[0].set(xlabel="iteration", ylabel="loss")
    axes[0].legend(fontsize=7)
    for ax, name in zip(axes[1:], names, strict=True):
        ax.set(xlabel="iteration", ylabel=name)
        if truth and name in truth:
            ax.axhline(truth[name], color="k", ls="--", lw=0.8)
    return figure
