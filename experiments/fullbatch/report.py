"""What `experiments.fullbatch` shows: tables, verdicts, figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    estimate_or_exact,
    mark_known_false,
    paired,
    plus_minus,
    table,
)
from optsde.analysis.plots import (
    COLOURS,
    band,
    mark_spikes,
    new_figure,
    plain_log_axis,
    save,
)
from optsde.analysis.spikes import find_spikes

Columns = Mapping[str, list]  # of a metrics.jsonl
Ends = Mapping[str, Columns]  # of each row

LABELS = {
    "sgd": "SGD",
    "fb": "full batch",
    "fb_longer": "longer",
    "fb_clipped": "+ clip",
    "fb_regularized": "+ penalty, lr ×2",
    "fb_strong": "+ smaller blocks",
    "fb_practice": "+ new blocks each step",
    "clipped_at_that_lr": "control: clip at that lr",
    "practice_without_penalty": "control: new blocks, no penalty",
}
PUBLISHED = {
    "sgd": 95.70,
    "fb": 75.42,
    "fb_longer": 87.36,
    "fb_clipped": 93.85,
    "fb_regularized": 95.36,
    "fb_strong": 95.67,
    "fb_practice": 95.91,
}
PAIRS = (  # row, row it is compared with
    ("fb_longer", "fb"),
    ("fb_clipped", "fb_longer"),
    ("fb_regularized", "fb_clipped"),
    ("clipped_at_that_lr", "fb_clipped"),
    ("fb_regularized", "clipped_at_that_lr"),
    ("fb_strong", "fb_regularized"),
    ("fb_practice", "fb_strong"),
    ("fb_practice", "practice_without_penalty"),
    ("fb_strong", "sgd"),
)


def last_row(columns: Columns) -> dict:
    return {name: values[-1] for name, values in columns.items()}


def _end(columns: Columns, name: str) -> np.ndarray:
    """[seeds], at the last step."""
    return np.asarray(columns[name][-1], np.float64).reshape(-1)


def _paired(ends: Ends, a: str, b: str, name: str, unit: float = 1.0) -> Estimate:
    """a − b, seed by seed."""
    return paired(_end(ends[a], name), _end(ends[b], name), unit)


def row_table(ends: Ends, config: ConfigDict) -> str:
    rows = []
    for name in LABELS:
        accuracy = estimate(100 * _end(ends[name], "test_accuracy"))
        loss = estimate(_end(ends[name], "test_loss"))
        rows.append(
            [
                LABELS[name],
                f"{config.rows[name].steps}",
                plus_minus(accuracy, 2),
                plus_minus(loss, 4),
                f"{PUBLISHED[name]:.2f}" if name in PUBLISHED else "",
            ]
        )
    header = ["", "steps", "accuracy %", "loss", "ResNet-18, CIFAR-10 (paper)"]
    return table(header, rows, "lrrrr")


def difference_table(ends: Ends) -> str:
    """What each change does, paired by seed."""
    rows = []
    for a, b in PAIRS:
        accuracy = _paired(ends, a, b, "test_accuracy", 100)
        loss = _paired(ends, a, b, "test_loss")
        gains = _end(ends[a], "test_accuracy") - _end(ends[b], "test_accuracy")
        rows.append(
            [
                f"{LABELS[a]} − ({LABELS[b]})",
                plus_minus(accuracy, 2, sign="+"),
                f"{int((gains > 0).sum())}/{len(gains)}",
                plus_minus(loss, 4, sign="+"),
            ]
        )
    return table(["paired by seed", "points", "wins", "loss"], rows, "lrrr")


def judge(ends: Ends, known_false: Sequence[str]) -> list[Verdict]:
    """The paper's orderings, as far as this size of experiment can resolve them."""

    def points(a, b):
        return _paired(ends, a, b, "test_accuracy", 100)

    def lower(a, b):
        return _paired(ends, b, a, "test_loss")

    claims = [
        above("longer_above_full_batch", points("fb_longer", "fb"), 8, "points"),
        above("clipped_above_longer", points("fb_clipped", "fb_longer"), 0, "points"),
        above("penalty_lowers_loss", lower("fb_regularized", "fb_clipped"), 0, "nats"),
        above(
            "penalty_lowers_loss_at_that_lr",
            lower("fb_regularized", "clipped_at_that_lr"),
            0,
            "nats",
        ),
        above("new_blocks_lower_loss", lower("fb_practice", "fb_strong"), 0, "nats"),
        agrees("strong_is_as_good_as_sgd", points("fb_strong", "sgd"), 1, "points"),
    ]
    return mark_known_false(claims, known_false)


def run_table(columns: Columns) -> str:
    """The rows that were evaluated; means over seeds. Numbers of groups stay out."""
    shown = [i for i, x in enumerate(columns["test_loss"]) if x is not None]
    every = max(1, len(shown) // 10)
    picked = sorted({*shown[::every], shown[-1]})
    names = [n for n in columns if n != "step" and "/" not in n]

    def cell(name, i):
        value = columns[name][i]
        return "" if value is None else f"{np.mean(np.asarray(value, float)):.4g}"

    rows = [[columns["step"][i], *(cell(n, i) for n in names)] for i in picked]
    return table(["step", *names], rows, "r" * (1 + len(names)))


def _curve(columns: Columns, name: str):
    """(steps, values [steps, seeds]) where there are values."""
    kept = [i for i, x in enumerate(columns[name]) if x is not None]
    steps = np.asarray([columns["step"][i] for i in kept])
    values = np.asarray([columns[name][i] for i in kept], np.float64)
    return steps, values.reshape(len(kept), -1)


def draw_run(columns: Columns, path: Path) -> None:
    """Losses and accuracy of one row, and its sharpness where that was asked for."""
    probed = [n for n in columns if n.startswith("preconditioned_sharpness")]
    figure, axes = new_figure(3 if probed else 2, width=13 if probed else 10, height=4)
    shown = (("loss", "training (in blocks)", 0), ("test_loss", "held out", 1))
    for name, label, colour in shown:
        _draw(axes[0], *_curve(columns, name), label, COLOURS[colour])
    if "spike" in columns:
        losses = np.asarray(_curve(columns, "loss")[1], float)
        rows = [s for s in columns["step"] if s > 0]
        for of_seed in losses.T:
            mark_spikes(axes[0], find_spikes(of_seed, rows), rows[-1])
    plain_log_axis(axes[0])
    axes[0].set_ylabel("loss", fontsize=12)
    axes[0].legend(fontsize=11, frameon=False)
    steps, values = _curve(columns, "test_accuracy")
    _draw(axes[1], steps, 100 * values, "held out", COLOURS[1])
    axes[1].set_ylabel("accuracy, %", fontsize=12)
    for name in probed:
        _draw(axes[2], *_curve(columns, name), "largest eigenvalue", COLOURS[0])
        name = name.replace("preconditioned_sharpness", "threshold")
        _draw(axes[2], *_curve(columns, name), "stability threshold", COLOURS[5])
        axes[2].set_ylabel("curvature, as the optimizer sees it", fontsize=12)
        axes[2].legend(fontsize=11, frameon=False)
        plain_log_axis(axes[2])
    for ax in axes:
        ax.set_xlabel("step", fontsize=12)
    save(figure, path)


def _draw(ax, x, values, label: str, colour: str) -> None:
    band(ax, x, estimate_or_exact(values.T), label=label, colour=colour)


def draw_rows(ends: Ends, config: ConfigDict, path: Path) -> None:
    """Every row's accuracy beside the paper's, and the learning curves."""
    figure, axes = new_figure(2, width=11.5, height=4.6)
    names = list(LABELS)
    published = config.dataset != "text"
    for i, name in enumerate(names):
        error = 100 * (1 - _end(ends[name], "test_accuracy"))
        found = estimate(error)
        spread = np.linspace(-0.2, 0.2, len(error))
        axes[0].plot(error, i + spread, ".", color="grey", ms=4, alpha=0.5)
        axes[0].errorbar(
            found.mean, i, xerr=1.96 * found.se, color=COLOURS[0], marker="o", capsize=3
        )
        if name in PUBLISHED and published:
            axes[0].plot(100 - PUBLISHED[name], i, "x", color=COLOURS[1], ms=8, mew=2)
    axes[0].set_yticks(range(len(names)), [LABELS[n] for n in names])
    axes[0].invert_yaxis()
    axes[0].plot([], [], "o", color=COLOURS[0], label=f"here ({config.dataset}), 95%")
    axes[0].plot([], [], ".", color="grey", label="each seed")
    if published:
        label = "paper (ResNet-18, CIFAR-10)"
        axes[0].plot([], [], "x", color=COLOURS[1], mew=2, label=label)
    axes[0].legend(fontsize=10, frameon=False, loc="lower right")
    plain_log_axis(axes[0], "x")
    axes[0].set_xlabel("held-out error, %", fontsize=12)
    shown = [n for n in names if n in PUBLISHED and n != "fb_strong"]
    for name, colour in zip(shown, COLOURS, strict=False):
        steps, values = _curve(ends[name], "test_loss")
        share = steps / steps[-1]
        band(axes[1], share, estimate(values.T), label=LABELS[name], colour=colour)
    plain_log_axis(axes[1])
    axes[1].set_xlabel("share of the row's steps", fontsize=12)
    axes[1].set_ylabel("held-out loss", fontsize=12)
    axes[1].legend(fontsize=10, frameon=False, loc="lower left")
    save(figure, path)
