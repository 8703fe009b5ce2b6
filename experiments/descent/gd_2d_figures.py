"""The pictures of gd_2d: paths beside flows, and distances against the rate."""

import numpy as np
from ml_collections import ConfigDict

from optsde.analysis import order
from optsde.analysis.plots import COLOURS, HALF_SLIDE, new_figure, save

FLOWS = {  # colour, marker, line, words
    "plain": (COLOURS[6], "o", "-", "plain flow"),
    "implicit": (COLOURS[0], "s", "--", "with (η/4)|∇f|²"),
    "by_batch": (COLOURS[5], "^", ":", "with (η/4) mean|∇Lₖ|²"),
}
DRAWS = {"orders": "Without replacement", "independent": "Independent draws"}


def draw_full_batch(config: ConfigDict, loss, walk, flows, full, path) -> None:
    """Paths at the rate `shown`, and the distances at the others."""
    figure, (left, right) = new_figure(2, HALF_SLIDE, 3.9)
    drawn = np.concatenate([walk, *(found[-1] for found in flows.values())])
    corners = np.stack([drawn.min(axis=0), drawn.max(axis=0)])
    low, high = corners + 0.15 * np.ptp(corners, axis=0) * np.array([[-1], [1]])
    a, b = np.meshgrid(*np.linspace(low, high, 120).T)
    height = loss(a, b)
    levels = height.min() + np.ptp(height) * np.geomspace(0.002, 1, 12)
    left.contour(a, b, height, levels, colors="0.6", linewidths=0.6)
    for name, found in flows.items():
        colour, _, line, label = FLOWS[name]
        left.plot(*found[-1].T, color=colour, ls=line, lw=1.8, label=label)
    dots = dict(color=COLOURS[1], marker="o", ls="none", ms=5, mec="black", mew=0.5)
    left.plot(*walk.T, **dots, label=f"descent, η = {config.shown:g}")
    left.set(xlabel="a", ylabel="b", title="Steps follow the modified flow")
    for name, errors in full.items():
        errors_line(right, name, config.lrs, errors)
    finish_errors(right, config.lrs, "… to the order η²")
    right.set_ylabel("distance at the end")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    save(figure, path)


def draw_epochs(config: ConfigDict, epochs, path) -> None:
    figure, axes = new_figure(2, HALF_SLIDE, 4.1)
    for ax, (draws, found) in zip(axes, epochs.items(), strict=True):
        for name, errors in found.items():
            errors_line(ax, name, config.epoch_lrs, errors)
        finish_errors(ax, config.epoch_lrs, DRAWS[draws])
    axes[0].set_ylabel("distance of the mean\nafter one epoch")
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits.min(), 1.6 * limits.max())
    figure.suptitle("Shuffling adds a penalty on each batch, drawing does not")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    save(figure, path)


def errors_line(ax, name: str, lrs, errors) -> None:
    """Distances at each rate, with their order written at the largest."""
    colour, marker, line, label = FLOWS[name]
    slope = order(lrs, errors).value
    ax.plot(lrs, errors, color=colour, marker=marker, ls=line, lw=1.8, label=label)
    last = int(np.argmax(lrs))
    ax.annotate(
        f"$\\eta^{{{slope:.1f}}}$",
        (lrs[last], errors[last]),
        xytext=(7, 2 if name == "plain" else -9),
        textcoords="offset points",
        color=colour,
        fontsize=13,
    )


def finish_errors(ax, lrs, title: str) -> None:
    ax.set(xlabel="learning rate η", xscale="log", yscale="log", title=title)
    rising = sorted(lrs)
    ax.set_xlim(rising[0] / 1.25, rising[-1] * 1.9)
    ax.set_xticks(rising[1::2], [f"{lr:g}" for lr in rising[1::2]])
    ax.set_xticks([], minor=True)
