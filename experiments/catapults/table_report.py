"""What the table shows: results with their errors, verdicts, and the figure."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.catapults.table_numbers import (
    Columns,
    accuracy,
    diverged,
    gains_of,
    norm_ratio,
    spikes,
)
from experiments.catapults.table_runs import INITS, ROWS
from optsde.analysis import (
    Verdict,
    above,
    agrees,
    estimate_finite,
    interval,
    plus_minus,
    table,
)
from optsde.analysis.plots import COLOURS, new_figure, save

STARTS = {"random": "random initial function", "zero": "zero initial function"}


def results(config: ConfigDict, columns: Columns, init: str) -> str:
    """A line for each row; errors are standard errors over seeds."""
    gains = gains_of(config, columns, init)
    lines = []
    for row in ROWS:
        train = columns[row]["train_loss"][INITS.index(init), :, -1]
        cells = [
            ROWS[row].title(config),
            plus_minus(estimate_finite(train), 3),
            plus_minus(estimate_finite(accuracy(columns, row, init)), 2),
            _beyond(gains.final[row], row),
            _beyond(gains.matched[row], row),
            f"{np.isfinite(gains.matched[row]).sum()}/{config.seeds}",
            plus_minus(estimate_finite(norm_ratio(columns, row, init)), 2),
            plus_minus(estimate_finite(spikes(columns, row, init)), 1),
            diverged(columns, row, init),
        ]
        lines.append(cells)
    header = [f"from a {STARTS[init]}", "train loss", "test acc. %", "− SGD's"]
    header += [f"− SGD's at loss {config.matched_loss:g}", "got there"]
    header += ["‖K‖/‖K₀‖", "spikes", "diverged"]
    return table(header, lines, "lrrrrrrrr")


def _beyond(gain: np.ndarray, row: str) -> str:
    enough = row != "sgd" and np.isfinite(gain).sum() >= 2
    return plus_minus(estimate_finite(gain), 2, sign="+") if enough else "–"


def judge(config: ConfigDict, columns: Columns) -> list[Verdict]:
    """The claims; `sgd_worst` and the like stand for the row that fits least."""
    verdicts = [x for init in INITS for x in _judge(config, columns, init)]
    random, zero = (
        gains_of(config, columns, init).final["sgd_cycle"] for init in INITS
    )
    claim = "sgd_gains_more_from_random_than_from_zero"
    expected = claim not in config.known_false
    return [
        *verdicts,
        above(claim, estimate_finite(random - zero), 0, "points", expected),
    ]


def _judge(config: ConfigDict, columns: Columns, init: str) -> list[Verdict]:
    final, matched = gains_of(config, columns, init)
    others = [row for row in ROWS if row != "sgd"]
    ratios = {row: norm_ratio(columns, row, init) for row in ROWS}
    counts = {row: spikes(columns, row, init) for row in ROWS}
    # (claim, test, of each seed, bound, unit)
    claims = [
        ("sgd_cycle_spikes", above, counts["sgd_cycle"], 1, "spikes"),
        ("adagrad_cycle_spikes", above, counts["adagrad_cycle"], 1, "spikes"),
        (
            "catapults_halve_the_kernel",
            above,
            np.log2(ratios["sgd"] / ratios["sgd_cycle"]),
            1,
            "halvings of ‖K‖",
        ),
        ("catapults_raise_sgd", above, final["sgd_cycle"], 0, "points"),
        (
            "a_large_rate_does_as_well",
            agrees,
            final["sgd_cycle"] - final["sgd_large"],
            config.bound,
            "points",
        ),
        (
            "catapults_worsen_adagrad",
            above,
            final["adagrad"] - final["adagrad_cycle"],
            0,
            "points",
        ),
        ("adam_above_sgd", above, final["adam"], 0, "points"),
        ("sgd_worst", above, _least([final[row] for row in others]), 0, "points"),
        (
            "adam_best",
            above,
            _least([final["adam"] - final[row] for row in ROWS if row != "adam"]),
            0,
            "points",
        ),
        (
            "no_separation_at_equal_loss",
            agrees,
            _widest([matched[row] for row in others]),
            config.bound,
            "points",
        ),
    ]
    return [
        test(
            f"{claim}_{init}",
            estimate_finite(values),
            bound,
            unit,
            f"{claim}_{init}" not in config.known_false,
        )
        for claim, test, values, bound, unit in claims
    ]


def _least(values: list[np.ndarray]) -> np.ndarray:
    """Those whose interval reaches lowest: all are above a bound where these are."""

    def low(x):
        return np.nan_to_num(interval(estimate_finite(x)).low, nan=-np.inf)

    return min(values, key=low)


def _widest(values: list[np.ndarray]) -> np.ndarray:
    """Those whose interval reaches furthest from 0: all are within bounds if these."""

    def reach(x):
        _, low, high = interval(estimate_finite(x), level=0.9)
        return np.nan_to_num(max(-low, high), nan=np.inf)

    return max(values, key=reach)


def draw(config: ConfigDict, columns: Columns, path: Path) -> None:
    """Gains over SGD at equal steps and at equal loss, and what became of ‖K‖."""
    figure, axes = new_figure(3, width=12.0, height=4.6)
    rows = list(ROWS)
    for number, init in enumerate(INITS):
        gains = gains_of(config, columns, init)
        style = dict(fmt="os"[number], color=COLOURS[5 * number], capsize=3, ms=7)
        style |= dict(label=f"from a {STARTS[init]}")
        ratios = {row: norm_ratio(columns, row, init) for row in rows}
        for ax, values in zip(axes, (*gains, ratios), strict=True):
            shown = [row for row in rows if ax is axes[2] or row != "sgd"]
            spans = [interval(estimate_finite(values[row])) for row in shown]
            middle = np.array([x.value for x in spans])
            places = [rows.index(row) + 0.28 * number - 0.14 for row in shown]
            ax.errorbar(middle, places, xerr=middle - [x.low for x in spans], **style)
    names = (
        f"accuracy beyond SGD's (points)\nafter {config.steps} steps",
        "accuracy beyond SGD's (points)\n"
        f"where the training loss is {config.matched_loss:g}",
        f"‖K‖ over that at the start\nafter {config.steps} steps",
    )
    for ax, name in zip(axes, names, strict=True):
        ax.set_xlabel(name, fontsize=12)
        labels = [ROWS[row].title(config) for row in rows] if ax is axes[0] else []
        ax.set_yticks(range(len(rows)), labels or [""] * len(rows))
        ax.set_ylim(len(rows) - 0.5, -0.5)
    for ax in axes[:2]:
        ax.axvline(0, color="#444444", lw=1)
    axes[2].set_xlim(0)
    lows, highs = zip(*(ax.get_xlim() for ax in axes[:2]), strict=True)
    for ax in axes[:2]:
        ax.set_xlim(min(lows), max(highs))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title=f"means over {config.seeds} seeds, 95% intervals",
        loc="outside upper center",
        ncols=2,
        fontsize=12,
        title_fontsize=11,
        frameon=False,
    )
    save(figure, path)
