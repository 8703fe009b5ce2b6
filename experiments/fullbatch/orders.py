"""Does one recipe end above another, paired by seed?

Rows as in Geiping et al. (ICLR 2022), and the orders that are said of them.
"""

from collections.abc import Mapping

import numpy as np

from experiments.fullbatch import costs, recipe
from optsde.analysis import above, agrees, estimate, family, paired, plus_minus, stack
from optsde.analysis import table as text_table
from optsde.analysis.plots import (
    COLOURS,
    band,
    colours,
    label,
    name_rows,
    new_figure,
    plain_log_axis,
    points,
    save,
    shared_legend,
)
from optsde.run import parts
from optsde.study import Group, Study, setting

WIDE = 5.0  # a ratio of errors that asks for a logarithmic axis


class Order(Group):
    """A claim on two rows."""

    one: str = setting("one", "a row")
    other: str = setting("other", "the row that it is compared with")
    points: float = setting(
        0.0, "that its accuracy is above the other's", at_least=0, at_most=100
    )
    alike: bool = setting(False, "whether they end within these points of each other")

    def demands(self):
        yield from super().demands()
        yield self.points > 0 or not self.alike, "points", "a positive number if alike"


class Settings(recipe.Shared):
    rows: dict[str, recipe.Row] = setting(
        {"one": recipe.Row(), "other": recipe.Row()}, "the recipes"
    )
    orders: dict[str, Order] = setting({"one_above_other": Order()}, "the claims")
    published: dict = setting({}, "accuracy of rows of ResNet-18 on CIFAR-10, %")
    seeds: int = setting(
        12, "runs of each row", at_least=2, needs="at least 2, for standard errors"
    )

    def table(self):
        return self.rows

    def demands(self):
        yield from super().demands()
        known = f"one of the rows {', '.join(self.rows)}"
        for name, order in self.orders.items():
            yield order.one in self.rows, f"orders.{name}.one", known
            fine = order.other in self.rows and order.other != order.one
            yield fine, f"orders.{name}.other", f"{known}, and not the same"
        for name in self.published:
            yield name in self.rows, f"published.{name}", known


def simulate(s, rundir, task):
    return {
        name: recipe.train(s, row, task, rundir, rundir.path / "rows" / name, name)
        for name, row in parts(s.rows.items())
    }


def accuracy(run) -> np.ndarray:
    """Returns the accuracy at the end of a row, in %, [seeds]."""
    return 100 * run.test_accuracy.values[:, -1]


def loss(run) -> np.ndarray:
    """Returns the held-out loss at the end of a row, [seeds]."""
    return run.test_loss.values[:, -1]


def labels(names) -> dict[str, str]:
    """Returns the words of each row."""
    return {name: name.replace("_", " ") for name in names}


def tables(s, runs):
    yield ""
    rows = [
        [
            words,
            s.rows[name].steps,
            f"{s.rows[name].lr:g}",
            plus_minus(estimate(accuracy(runs[name])), 2),
            plus_minus(estimate(loss(runs[name])), 4),
            f"{s.published[name]:.2f}" if name in s.published else "",
        ]
        for name, words in labels(runs).items()
    ]
    header = ["", "steps", "lr", "accuracy %", "loss", "ResNet-18, CIFAR-10 (paper)"]
    yield text_table(header, rows, "lrrrrr")
    yield ""


def claims(s, runs):
    verdicts = []
    for name, order in s.orders.items():
        gap = paired(accuracy(runs[order.one]), accuracy(runs[order.other]))
        claim = agrees if order.alike else above
        verdicts.append(claim(name, gap, order.points, "points"))
    return family("orders", verdicts)


def draw_errors(
    ax, s, runs, words: Mapping[str, str], published: Mapping[str, float]
) -> None:
    """Draws every row's error, with each seed's, beside the source's."""
    errors = {name: 100 - accuracy(runs[name]) for name in words}
    places = np.arange(len(words))
    spread = places[:, None] + np.linspace(-0.2, 0.2, s.seeds)
    points(
        ax,
        places,
        stack(map(estimate, errors.values())),
        label=f"here ({s.dataset}), 95%",
        colour=COLOURS[0],
        across=True,
    )
    dots = dict(ls="none", marker=".", color="grey", ms=4, alpha=0.5)
    ax.plot(np.ravel(list(errors.values())), spread.ravel(), label="each seed", **dots)
    if published:
        cross = dict(ls="none", marker="x", color=COLOURS[1], ms=8, mew=2)
        source = [100 - published.get(name, np.nan) for name in words]
        ax.plot(source, places, label="paper (ResNet-18, CIFAR-10)", **cross)
    name_rows(ax, list(words.values()))


def draw_curves(ax, runs, words: Mapping[str, str]) -> None:
    """Draws held-out losses over the share of each row's steps."""
    for name, colour in colours(words).items():
        times, losses = runs[name].test_loss
        later, share = estimate(losses[:, 1:]), times[1:] / times[-1]
        looks = dict(label=words[name], colour=colour, marker="o", ms=4)
        band(ax, share, later, **looks)
    plain_log_axis(ax)
    title = "from the first evaluation on, bands 95%"
    label(ax, x="share of the row's steps", y="held-out loss", title=title)


def figure(s, runs, path):
    drawing, (left, right) = new_figure(2, width=10, height=4.2)
    words = labels(runs)
    draw_errors(left, s, runs, words, s.published)
    errors = [100 - accuracy(runs[name]).mean() for name in words]
    if 0 < WIDE * min(errors) < max(errors):
        plain_log_axis(left, "x")
    legend = "best" if s.published else None
    title = "at the end: means with 95%, and each seed"
    label(left, x="held-out error, %", title=title, legend=legend)
    draw_curves(right, runs, words)
    shared_legend(drawing, right, columns=min(len(words), 4))
    save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"orders": figure},
    task=recipe.build_task,
    by_accuracy=True,
    dry_run=costs.report,
    says_costs=True,
    precision=None,
)
