"""Figures of a slice: curves on a line, contours on a plane."""

from pathlib import Path

import numpy as np

from experiments.landscape.slices import DATA, Slice
from optsde.analysis.plots import COLOURS, label, new_figure, save, style


def draw_line(cut: Slice, x: str, marks: tuple[float, ...], path: Path) -> None:
    """Draws loss and accuracy on the line, training and held out."""
    figure, axes = new_figure(2)
    panels = (("loss", "loss", 1.0), ("accuracy", "accuracy, %", 100.0))
    for ax, (what, y, unit) in zip(axes, panels, strict=True):
        for (part, name), colour in zip(DATA.items(), COLOURS, strict=False):
            values = unit * cut.values[f"{part}_{what}"]
            ax.plot(cut.distance, values, color=colour, label=name, lw=1.8)
        for mark in marks:
            name = "trained point" if mark == 0 else None
            ax.axvline(mark, color="grey", ls="--", lw=1.2, label=name)
        label(ax, x=x, y=y, legend="best" if what == "loss" else None)
    save(figure, path)


def draw_plane(cut: Slice, units: str, path: Path) -> None:
    """Draws contours of training and held-out loss, the trained point marked."""
    from matplotlib.colors import BoundaryNorm

    distance = cut.distance
    figure, axes = new_figure(2, width=11.0, height=5.0)
    for ax, (part, name) in zip(axes, DATA.items(), strict=True):
        loss = np.ma.masked_invalid(cut.values[f"{part}_loss"].T)  # rows: the y axis
        ax.grid(False)
        levels = contour_levels(loss.compressed())
        if len(levels):
            shades = BoundaryNorm(levels, 256, extend="both")
            fill = dict(cmap="Blues", norm=shades, extend="both")
            ax.contourf(distance, distance, loss, levels, **fill)
            lines = ax.contour(
                distance, distance, loss, levels, colors="black", linewidths=0.7
            )
            with style():
                ax.clabel(lines, levels[::2], fmt="%.2g")
        ax.plot(0, 0, "*", color=COLOURS[5], ms=13, mec="white", label="trained point")
        first, second = (
            f"{which} direction:\n{units}" for which in ("first", "second")
        )
        label(ax, x=first, y=second, title=f"{name} loss", legend="upper right")
        ax.get_legend().set(frame_on=True, alpha=0.9)
        ax.set_aspect("equal")
    save(figure, path)


def contour_levels(loss: np.ndarray) -> np.ndarray:
    """Returns ten levels, by equal factors where the losses span more than 5."""
    low, high = (loss.min(), loss.max()) if loss.size else (0.0, 0.0)
    if low == high:
        return np.zeros(0)
    if low > 0 and high / low > 5:
        return np.geomspace(low, high, 12)[1:-1]
    return np.linspace(low, high, 12)[1:-1]
