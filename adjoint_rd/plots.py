"""Figures: states, fits and histories, drawn with matplotlib.

Each function returns a `matplotlib.figure.Figure` of its own, without pyplot: nothing opens a window, and it works
without a display. Save one with ``figure.savefig("name.png")``; in a notebook it shows itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError

STATE_COLORS = "viridis"
DIFFERENCE_COLORS = "RdBu_r"


def plot_state(
    state: Any,
    *,
    names: Sequence[str] | None = None,
    spacing: Any = None,
    title: str | None = None,
    colormap: str = STATE_COLORS,
) -> Any:
    """Draw the species of a state side by side.

    Parameters
    ----------
    state : array_like (S, *shape)
        In 1-D as curves, in 2-D as images with row 0 at the top, in 3-D as the middle slice of the first axis.
    names : sequence of str, optional
        Of the species.
    spacing : float or sequence of float, optional
        The distance between cells; without it the axes count cells.
    title : str, optional
    colormap : str
        Of matplotlib.

    Returns
    -------
    matplotlib.figure.Figure
    """
    state = _state("state", state)
    names = _names(names, len(state))
    panels, h, note = _flat(state, spacing)
    figure, axes = _figure(1, len(panels), wide=panels.ndim == 2)
    for panel, name, ax in zip(panels, names, axes[0], strict=True):
        if panels.ndim == 2:
            _curve(ax, panel, h)
        else:
            _image(figure, ax, panel, h, colormap)
        ax.set_title(name + note)
    if title:
        figure.suptitle(title)
    return figure


def plot_fit(
    observed: Any,
    fitted: Any,
    *,
    names: Sequence[str] | None = None,
    spacing: Any = None,
    title: str | None = None,
    colormap: str = STATE_COLORS,
) -> Any:
    """Draw observed and fitted states and their difference, one row per species.

    Parameters
    ----------
    observed, fitted : array_like (S, *shape)
        Drawn in the same colours; the difference is ``fitted - observed``.
    names, spacing, title, colormap
        As in `plot_state`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    observed, fitted = _state("observed", observed), _state("fitted", fitted)
    if observed.shape != fitted.shape:
        raise InputError(f"observed has shape {observed.shape} and fitted {fitted.shape}; they must be the same.")
    names = _names(names, len(observed))
    seen, h, note = _flat(observed, spacing)
    found, _, _ = _flat(fitted, spacing)
    line = seen.ndim == 2
    figure, axes = _figure(len(seen), 2 if line else 3, wide=line)
    for y, z, name, row in zip(seen, found, names, axes, strict=True):
        difference = z - y
        rms = float(np.sqrt(np.nanmean(difference**2)))
        if line:
            _curve(row[0], y, h, label="observed")
            _curve(row[0], z, h, label="fitted", linestyle="--")
            row[0].legend()
            _curve(row[1], difference, h)
        else:
            low, high = float(np.nanmin([y, z])), float(np.nanmax([y, z]))
            most = float(np.nanmax(np.abs(difference))) or 1.0
            _image(figure, row[0], y, h, colormap, low, high)
            _image(figure, row[1], z, h, colormap, low, high)
            _image(figure, row[2], difference, h, DIFFERENCE_COLORS, -most, most)
            row[1].set_title(f"{name} fitted{note}")
        row[0].set_title(f"{name} observed{note}" if not line else f"{name}{note}")
        row[-1].set_title(f"{name} fitted - observed, rms {rms:.2g}")
    if title:
        figure.suptitle(title)
    return figure


def plot_history(history: Any, *, label: str = "value", xlabel: str = "evaluation", title: str | None = None) -> Any:
    """Draw numbers against the count of evaluations or iterations.

    Parameters
    ----------
    history : sequence of float, or dict {name: sequence of float}
        Curves; on a logarithmic axis where all are positive.
    label, xlabel : str
        Of the axes.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    curves = history if isinstance(history, Mapping) else {"": history}
    curves = {str(name): np.asarray(values, dtype=np.float64) for name, values in curves.items()}
    if not curves or any(values.ndim != 1 or not values.size for values in curves.values()):
        raise InputError("history must be a sequence of numbers or a dict of such sequences, none of them empty.")
    figure, axes = _figure(1, 1, wide=True)
    ax = axes[0, 0]
    for name, values in curves.items():
        ax.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3, label=name or None)
    if all(np.all(values > 0) for values in curves.values()):
        ax.set_yscale("log")
    if any(curves):
        ax.legend()
    ax.set_xlabel(xlabel)
    ax.set_ylabel(label)
    ax.grid(alpha=0.3)
    if title:
        figure.suptitle(title)
    return figure


def plot_inversion(
    data: Any, fitted: Any, *, spacing: Any = None, line: Any = None, name: str = "v", title: str | None = None
) -> Any:
    """Draw a snapshot, the pattern fitted to it, what is left, and the objectives along a line.

    Parameters
    ----------
    data, fitted : array_like (H, W)
        In the same units; NaN in `data` where it is missing.
    spacing : float or sequence of float, optional
        The distance between cells; without it the axes count cells.
    line : adjoint_rd.inversion.slices.Slice, optional
        Drawn below the images if given.
    name : str
        Of the species.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    data, fitted = np.asarray(data, dtype=np.float64), np.asarray(fitted, dtype=np.float64)
    if data.ndim != 2 or data.shape != fitted.shape:
        raise InputError(f"data has shape {data.shape} and fitted {fitted.shape}; both must be (H, W), the same.")
    _, h, _ = _flat(data[None], spacing)
    figure = Figure(figsize=(10.5, 3.3 if line is None else 6.2), layout="constrained")
    rows = figure.subfigures(*((1, 1) if line is None else (2, 1)), squeeze=False)
    axes = rows[0, 0].subplots(1, 3)
    low, high = float(np.nanmin(data)), float(np.nanmax(data))
    left = data - fitted
    most = float(np.nanquantile(np.abs(left), 0.999)) or 1.0
    for ax, values, label, colors, limits in (
        (axes[0], data, f"data, {name}", STATE_COLORS, (low, high)),
        (axes[1], fitted, "fit", STATE_COLORS, (low, high)),
        (axes[2], left, f"data - fit, rms {np.sqrt(np.nanmean(left**2)):.2g}", DIFFERENCE_COLORS, (-most, most)),
    ):
        _image(rows[0, 0], ax, values, h, colors, *limits)
        ax.set_title(label)
    if line is not None:
        _slices(rows[1, 0].subplots(1, 2), line)
    if title:
        figure.suptitle(title)
    return figure


def _slices(axes: Any, line: Any) -> None:
    """The two objectives of an `inversion.slices.Slice`, each with the start and the fit marked."""
    axes[0].semilogy(line.s, line.equation, color="C0")
    axes[0].set_title("equation residual (Green form)")
    for n, values in enumerate(line.simulation):
        axes[1].plot(line.s, values, color="C3", alpha=1.0 if n == 0 else 0.45, label=f"random initial state {n + 1}")
    axes[1].set_title(f"simulation of {line.steps} steps (backpropagation's loss)")
    axes[1].set_ylim(bottom=0.0)
    axes[1].legend(loc="lower right", fontsize="small")
    for ax in axes:
        ax.axvline(0.0, color="0.6", linestyle=":")
        ax.axvline(1.0, color="0.3", linestyle="--")
        ax.set_xlabel("start (0) to fit (1), along log p")
        ax.set_ylabel("rms misfit / standard deviation")
        ax.grid(alpha=0.3)


def _state(argument: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iufb" or not 2 <= array.ndim <= 4 or 0 in array.shape:
        raise InputError(
            f"{argument} has shape {array.shape} and dtype {array.dtype}; a state is real numbers (species, *shape) "
            "with one to three axes of cells. Put a field without species as field[None]."
        )
    return array.astype(np.float64)


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"species {n}" for n in range(count)]
    if isinstance(names, str) or len(names) != count:
        raise InputError(f"names={names!r} must be {count} names, one per species.")
    return list(names)


def _flat(state: np.ndarray, spacing: Any) -> tuple[np.ndarray, tuple[float, ...] | None, str]:
    """The part that is drawn, the spacing along its axes, and a remark on it."""
    ndim = state.ndim - 1
    try:
        h = None if spacing is None else tuple(float(each) for each in np.broadcast_to(spacing, ndim))
    except ValueError:
        raise InputError(f"spacing={spacing!r} must be one number, or one for each of the {ndim} axes.") from None
    if ndim < 3:
        return state, h, ""
    middle = state.shape[1] // 2
    return state[:, middle], None if h is None else h[1:], f", slice {middle}"


def _figure(rows: int, columns: int, wide: bool) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    size = (5.2, 3.0) if wide else (3.9, 3.4)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _curve(ax: Any, values: np.ndarray, h: tuple[float, ...] | None, **style: Any) -> None:
    ax.plot(np.arange(len(values)) * (h[0] if h else 1.0), values, **style)
    ax.set_xlabel("x" if h else "cell")


def _image(
    figure: Any,
    ax: Any,
    values: np.ndarray,
    h: tuple[float, ...] | None,
    colormap: str,
    low: float | None = None,
    high: float | None = None,
) -> None:
    from matplotlib import colormaps

    from .errors import check_choice

    check_choice("colormap", colormap, tuple(colormaps))
    rows, columns = values.shape
    dy, dx = h or (1.0, 1.0)
    drawn = ax.imshow(
        values, cmap=colormap, vmin=low, vmax=high, extent=(0, columns * dx, rows * dy, 0), interpolation="nearest"
    )
    figure.colorbar(drawn, ax=ax, shrink=0.85)
    ax.locator_params(nbins=4)
