"""What `experiments.landscape` shows of a slice: numbers, a line, a plane."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from optsde.analysis import table
from optsde.analysis.plots import COLOURS, new_figure, save

DATA = {"train": "training", "held_out": "held out"}
UNITS = "distance in units of the filters' norms"


def is_between(config: ConfigDict) -> bool:
    return "other" in config


def summary(config: ConfigDict, distance: np.ndarray, values) -> dict[str, dict]:
    """For training and held-out loss: its value at the trained point, and extremes."""
    found = {}
    for part in DATA:
        loss = values[f"{part}_loss"]
        if is_between(config):
            numbers = {
                "start": loss[0],
                "end": loss[-1],
                "highest": np.max(loss),
                "barrier": barrier(loss),
            }
        else:
            middle = (len(distance) // 2,) * loss.ndim
            numbers = {
                "centre": loss[middle],
                "lowest": np.min(loss),
                "highest": np.max(loss),
            }
        found[f"{part}_loss"] = {k: _finite(v) for k, v in numbers.items()}
    return found


def barrier(loss: np.ndarray) -> float:
    """How far the line rises above the higher of its two ends."""
    return float(np.max(loss) - max(loss[0], loss[-1]))


def _finite(value) -> float | None:
    return float(value) if np.isfinite(value) else None


def summary_table(found: dict[str, dict]) -> str:
    names = list(found["train_loss"])
    rows = [
        [
            f"{label} loss",
            *(
                "not finite" if (x := found[f"{part}_loss"][n]) is None else f"{x:.4g}"
                for n in names
            ),
        ]
        for part, label in DATA.items()
    ]
    return table(["", *names], rows, "l" + "r" * len(names))


def draw_line(config: ConfigDict, distance: np.ndarray, values, path: Path) -> None:
    """Loss and accuracy on the line, training and held out."""
    figure, axes = new_figure(2)
    panels = (("loss", "loss", 1.0), ("accuracy", "accuracy, %", 100.0))
    for ax, (what, label, unit) in zip(axes, panels, strict=True):
        for (part, name), colour in zip(DATA.items(), COLOURS, strict=False):
            y = unit * values[f"{part}_{what}"]
            ax.plot(distance, y, color=colour, label=name, lw=1.8)
        ax.set_ylabel(label, fontsize=12)
        if is_between(config):
            ax.set_xlabel("share of the way from one run to the other", fontsize=12)
            marks = (0.0, 1.0)
        else:
            ax.set_xlabel(UNITS, fontsize=12)
            marks = (0.0,)
        for mark in marks:
            name = "trained point" if mark == 0 else None
            ax.axvline(mark, color="grey", ls="--", lw=1.2, label=name)
    axes[0].legend(fontsize=11, frameon=False)
    save(figure, path)


def draw_plane(distance: np.ndarray, values, path: Path) -> None:
    """Contours of training and held-out loss, the trained point marked."""
    from matplotlib.colors import BoundaryNorm

    figure, axes = new_figure(2, width=11.0, height=5.0)
    for ax, (part, label) in zip(axes, DATA.items(), strict=True):
        loss = np.ma.masked_invalid(values[f"{part}_loss"].T)  # rows are the y axis
        ax.grid(False)
        levels = contour_levels(loss.compressed())
        if len(levels):
            shades = BoundaryNorm(levels, 256, extend="both")
            style = dict(cmap="Blues", norm=shades, extend="both")
            ax.contourf(distance, distance, loss, levels, **style)
            lines = ax.contour(
                distance, distance, loss, levels, colors="black", linewidths=0.7
            )
            ax.clabel(lines, levels[::2], fmt="%.2g", fontsize=10)
        ax.plot(0, 0, "*", color=COLOURS[5], ms=13, mec="white", label="trained point")
        ax.legend(fontsize=11, loc="upper right", framealpha=0.9)
        ax.set_title(f"{label} loss", fontsize=13)
        ax.set_xlabel(f"first direction:\n{UNITS}", fontsize=11)
        ax.set_ylabel(f"second direction:\n{UNITS}", fontsize=11)
        ax.set_aspect("equal")
    save(figure, path)


def contour_levels(loss: np.ndarray) -> np.ndarray:
    """Ten levels within the losses; by equal factors where they span more than 5."""
    low, high = (loss.min(), loss.max()) if loss.size else (0.0, 0.0)
    if low == high:
        return np.zeros(0)
    if low > 0 and high / low > 5:
        return np.geomspace(low, high, 12)[1:-1]
    return np.linspace(low, high, 12)[1:-1]
