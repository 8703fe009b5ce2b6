"""The look of all figures: curves with bands, colours that survive colour blindness."""

from pathlib import Path

import numpy as np

from optsde.analysis.statistics import Estimate

# Okabe and Ito's palette, without its yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
HALF_SLIDE = 6.6  # inches; figures of this width are shown at their own size


def new_figure(columns: int, width: float = 10.0, height: float = 4.2, rows: int = 1):
    """(figure, axes) that need no display; the axes row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.tick_params(labelsize=11, which="both")
    return figure, axes


def band(ax, x, y: Estimate, *, label: str, colour: str, **line) -> None:
    """A curve with its 95% band (1.96 standard errors)."""
    half = 1.96 * np.asarray(y.se)
    ax.fill_between(x, y.mean - half, y.mean + half, color=colour, alpha=0.22, lw=0)
    ax.plot(x, y.mean, color=colour, label=label, **({"lw": 1.8} | line))


def plain_log_axis(ax, which: str = "y") -> None:
    """A logarithmic axis marked 0.3, 0.5, 1, 2 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set(**{f"{which}scale": "log"})
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def heat_map(ax, x, y, z, **mesh):
    """z[i, j] at (x[j], y[i]) on logarithmic axes; NaN, where a run diverged, is grey.

    Returns what `figure.colorbar` needs.
    """
    ax.set_facecolor("0.75")
    ax.grid(False)
    shown = np.ma.masked_invalid(z)
    image = ax.pcolormesh(_edges(x), _edges(y), shown, **({"cmap": "cividis"} | mesh))
    ax.set(xscale="log", yscale="log")
    return image


def _edges(centres) -> np.ndarray:
    """Edges of cells around centres that rise geometrically."""
    logs = np.log(np.asarray(centres, float))
    half = np.diff(logs).mean() / 2
    return np.exp(np.concatenate([logs - half, logs[-1:] + half]))


def save(figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
