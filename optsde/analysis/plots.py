"""Figures in one style: curves with bands, points with intervals, heat maps, spans.

    figure, (left, right) = new_figure(2)
    band(left, times, estimate(losses), label="SGD", colour=COLOURS[0])
    label(left, x="step", y="training loss", legend="upper right")
    save(figure, path)

`style` has all font sizes. A figure that calls matplotlib's own `set_title` or `legend`
is drawn inside of it: `with style(): ...`. Colours survive colour blindness.
"""

import itertools
import re
import string
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from optsde.analysis.spikes import Spike, phases
from optsde.analysis.statistics import Estimate, half_width

# Okabe and Ito's palette, without its yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
SPIKE = COLOURS[5]
HALF_SLIDE = 6.6  # inches; figures of this width are shown at their own size
STYLE: dict[str, Any] = {  # sizes in points
    "font.size": 11,
    "figure.titlesize": 13,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 10,
    "legend.title_fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "pdf.fonttype": 42,
}
Name = TypeVar("Name", bound=Hashable)


# ---- a figure, and what is written on it


def style(changes: Mapping[str, Any] | None = None):
    """Returns a context in which matplotlib has our settings, and these changes."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError(
            "figures are drawn by matplotlib: pip install 'optsde[studies]'"
        ) from None
    return matplotlib.rc_context({**STYLE, **(changes or {})})


def new_figure(columns: int, width: float = 10.0, height: float = 4.2, rows: int = 1):
    """Returns (figure, axes) that need no display; the axes row by row."""
    with style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
    return figure, axes


def label(
    ax,
    x: str = "",
    y: str = "",
    title: str = "",
    *,
    legend: str | None = None,
    legend_title: str = "",
) -> None:
    """Writes what the axes show, in the sizes of `style`.

    Args:
        ax: a panel.
        x: below it.
        y: beside it.
        title: above it.
        legend: where its legend is, as matplotlib calls it ("upper left", "best");
            None: it has none.
        legend_title: above the legend.
    """
    with style():
        ax.set(xlabel=x, ylabel=y)
        ax.set_title(title)
        if legend:
            ax.legend(loc=legend, title=legend_title)


def shared_legend(figure, ax, where: str = "lower", columns: int = 2) -> None:
    """Puts the legend of one panel outside of all, "lower" or "upper"."""
    handles = ax.get_legend_handles_labels()
    with style():
        figure.legend(*handles, loc=f"outside {where} center", ncols=columns)


def colours(names: Iterable[Name]) -> dict[Name, str]:
    """Returns a colour for each name, from the first again after the last.

    >>> colours(["sgd", "adam"])
    {'sgd': '#0072B2', 'adam': '#E69F00'}
    """
    return dict(zip(names, itertools.cycle(COLOURS), strict=False))


def save(figure, path: Path) -> None:
    """Writes the figure; beside a PNG the same as a PDF.

    Panels get letters, and η_crit and λ_max in any text their subscripts.
    """
    from matplotlib.text import Text

    panels = [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]
    with style():
        if len(panels) > 1:
            for ax, letter in zip(panels, string.ascii_lowercase, strict=False):
                _write_corner(ax, f"({letter})")
        for text in figure.findobj(Text):
            text.set_text(subscripted(text.get_text()))
        figure.savefig(path, dpi=150)
        if path.suffix == ".png":
            figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def _write_corner(ax, text: str) -> None:
    """Writes a text above the axis of a panel, left of its title."""
    place = dict(xycoords="axes fraction", textcoords="offset points")
    ax.annotate(text, (0, 1), (-12, 9), ha="right", size=ax.title.get_size(), **place)


def subscripted(text: str) -> str:
    """Returns the text with Greek letters' subscripts as matplotlib sets them.

    >>> subscripted("rate in η_crit")
    'rate in $η_{\\\\mathrm{crit}}$'
    """
    return re.sub(r"([α-ω])_(\w+)", r"$\1_{\\mathrm{\2}}$", text)


# ---- curves and points


def band(ax, x, y: Estimate, *, label: str = "", colour: str, **line) -> None:
    """Draws a curve with Student's 95% interval at each point.

    The axes reach over ± 1 standard error at least. They do not grow with the band,
    which is 13 standard errors wide to each side for two replicas.
    """
    half, limits = half_width(y), ax.dataLim.frozen()
    ax.fill_between(x, y.mean - half, y.mean + half, color=colour, alpha=0.22, lw=0)
    ax.dataLim.set(limits)
    for edge in (y.mean - y.se, y.mean + y.se):
        ax.update_datalim(np.column_stack([x, edge]))
    ax.plot(x, y.mean, color=colour, label=label, **({"lw": 1.8} | line))


def curves(
    ax,
    x,
    values,
    *,
    label: str = "",
    colour: str,
    centre: Callable = np.median,
    **line,
) -> None:
    """Draws the curves of all replicas, thin, and their centre.

    Args:
        ax: a panel.
        x: times.
        values: [replicas, times].
        label: for the legend.
        colour: of all the curves.
        centre: takes the values and `axis=0`, such as `np.median` or `np.mean`.
        **line: matplotlib's settings of the central curve.
    """
    for one in values:
        ax.plot(x, one, color=colour, lw=0.8, alpha=0.4)
    middle = centre(values, axis=0)
    ax.plot(x, middle, color=colour, label=label, **({"lw": 1.8} | line))


def points(
    ax,
    x,
    y: Estimate,
    *,
    label: str = "",
    colour: str,
    marker: str = "o",
    across: bool = False,
    **line,
) -> None:
    """Draws estimates as points with Student's 95% intervals.

    Args:
        ax: a panel.
        x: where each stands; with `across` its place from below.
        y: estimates, an array of them (see `statistics.stack`) or one.
        label: for the legend.
        colour: of points and intervals.
        marker: of the points.
        across: whether the intervals lie along the x axis.
        **line: matplotlib's settings of the line between the points: ls="-" draws one.
    """
    looks = {"ls": "none", "capsize": 3, "ms": 6, "lw": 1.8} | line
    looks |= {"color": colour, "marker": marker, "label": label}
    if across:
        ax.errorbar(y.mean, x, xerr=half_width(y), **looks)
    else:
        ax.errorbar(x, y.mean, half_width(y), **looks)


# ---- areas


def heat_map(ax, x, y, z, **mesh):
    """Draws z[i, j] at (x[j], y[i]) on logarithmic axes; NaN (divergence) is grey.

    Returns what `figure.colorbar` needs.
    """
    ax.set_facecolor("0.75")
    ax.grid(False)
    shown = np.ma.masked_invalid(z)
    image = ax.pcolormesh(_edges(x), _edges(y), shown, **({"cmap": "cividis"} | mesh))
    ax.set(xscale="log", yscale="log")
    return image


def _edges(centres) -> np.ndarray:
    """Returns edges of cells around centres that rise geometrically."""
    logs = np.log(np.asarray(centres, float))
    half = np.diff(logs).mean() / 2
    return np.exp(np.concatenate([logs - half, logs[-1:] + half]))


def spans(
    ax,
    pairs: Iterable[tuple[float, float]],
    *,
    along: str = "x",
    colour: str = "grey",
    alpha: float = 0.15,
) -> None:
    """Shades intervals of an axis behind the curves: windows, tolerances.

    Args:
        ax: a panel.
        pairs: (from, to) of each interval.
        along: the axis whose intervals they are, "x" or "y".
        colour: of the shade.
        alpha: its opacity.
    """
    shade = ax.axvspan if along == "x" else ax.axhspan
    for first, last in pairs:
        shade(first, last, color=colour, alpha=alpha, lw=0, zorder=0)


def mark_spikes(ax, spikes: Sequence[Spike], last: float) -> None:
    """Shades each spike, up to `last` where it has not returned."""
    spans(ax, phases(spikes, last), colour=SPIKE)


# ---- axes


def plain_log_axis(ax, which: str = "y") -> None:
    """Makes an axis logarithmic, marked 0.3, 0.5, 1, 2 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set(**{f"{which}scale": "log"})
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plain_symlog_axis(ax, linear: float) -> None:
    """Makes the y axis logarithmic beyond ± `linear`, marked 0, 1, 2, 5, 10, …"""
    from matplotlib.ticker import FixedLocator

    marks = np.outer(10.0 ** np.arange(-2, 4), (1, 2, 5)).ravel()
    marks = marks[marks >= linear / 5]
    ax.set_yscale("symlog", linthresh=linear)
    ax.yaxis.set_major_locator(FixedLocator([*-marks, 0, *marks]))
    ax.yaxis.set_major_formatter("{x:g}")


def name_rows(ax, names: Sequence[str]) -> None:
    """Names the rows 0, 1, … of a panel, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
