"""Do the rows of Geiping et al. stand in the paper's order, paired by seed?

The published numbers are those of ResNet-18 on CIFAR-10.
"""

from experiments.fullbatch import costs, recipe
from experiments.fullbatch.orders import (
    accuracy,
    draw_curves,
    draw_errors,
    loss,
    simulate,
)
from optsde.analysis import above, agrees, estimate, paired, plus_minus
from optsde.analysis import table as text_table
from optsde.analysis.plots import (
    label,
    new_figure,
    plain_log_axis,
    save,
    shared_legend,
)
from optsde.study import Study, require, setting

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


class Settings(recipe.Shared):
    rows: dict[str, recipe.Row] = setting(
        {name: recipe.Row() for name in LABELS}, "the recipes"
    )
    seeds: int = setting(
        12, "runs of each row", at_least=2, needs="at least 2, for standard errors"
    )

    def table(self):
        return self.rows

    def demands(self):
        yield from super().demands()
        fine = self.rows.keys() >= LABELS.keys()
        require(fine, "rows", tuple(self.rows), f"the rows {', '.join(LABELS)}")


def tables(s, runs):
    yield ""
    rows = [
        [
            words,
            s.rows[name].steps,
            plus_minus(estimate(accuracy(runs[name])), 2),
            plus_minus(estimate(loss(runs[name])), 4),
            f"{PUBLISHED[name]:.2f}" if name in PUBLISHED else "",
        ]
        for name, words in LABELS.items()
    ]
    header = ["", "steps", "accuracy %", "loss", "ResNet-18, CIFAR-10 (paper)"]
    yield text_table(header, rows, "lrrrr")
    yield ""
    rows = []
    for one, other in PAIRS:
        a, b = runs[one], runs[other]
        wins = int((accuracy(a) > accuracy(b)).sum())
        rows.append(
            [
                f"{LABELS[one]} − ({LABELS[other]})",
                plus_minus(paired(accuracy(a), accuracy(b)), 2, sign="+"),
                f"{wins}/{s.seeds}",
                plus_minus(paired(loss(a), loss(b)), 4, sign="+"),
            ]
        )
    yield text_table(["paired by seed", "points", "wins", "loss"], rows, "lrrr")


def claims(s, runs):
    """Yields the paper's orderings, as far as so small an experiment resolves them."""

    def gain(a, b):
        return paired(accuracy(runs[a]), accuracy(runs[b]))

    def drop(a, b):
        return paired(loss(runs[b]), loss(runs[a]))

    yield above("longer_above_full_batch", gain("fb_longer", "fb"), 8, "points")
    yield above("clipped_above_longer", gain("fb_clipped", "fb_longer"), 0, "points")
    yield above("penalty_lowers_loss", drop("fb_regularized", "fb_clipped"), 0, "nats")
    at_that_lr = drop("fb_regularized", "clipped_at_that_lr")
    yield above("penalty_lowers_loss_at_that_lr", at_that_lr, 0, "nats")
    yield above("new_blocks_lower_loss", drop("fb_practice", "fb_strong"), 0, "nats")
    yield agrees("strong_is_as_good_as_sgd", gain("fb_strong", "sgd"), 1, "points")


def figure(s, runs, path):
    """Draws every row's error beside the paper's, and the learning curves."""
    drawing, (left, right) = new_figure(2, width=11.5, height=4.6)
    published = {} if s.dataset == "text" else PUBLISHED
    draw_errors(left, s, runs, LABELS, published)
    plain_log_axis(left, "x")
    label(left, x="held-out error, %", legend="lower right")
    shown = {name: LABELS[name] for name in PUBLISHED if name != "fb_strong"}
    draw_curves(right, runs, shown)
    shared_legend(drawing, right, columns=len(shown))
    save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"table": figure},
    task=recipe.build_task,
    by_accuracy=True,
    dry_run=costs.report,
    says_costs=True,
    precision=None,
)
