"""What does a drop of the learning rate do, at once and in the end?

At once the effective lr drops as much as lr, and the loss falls. Then the norm shrinks
towards its new equilibrium, in a time 1/λ_e′: the effective lr rises again, and with it
the loss and the error. After a drop by f it settles at √(f · N_before/N_after) of what
it was, N being Ḡ + Tr Σ̄: only where the noise stays the same is that √f.
"""

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Weighed
from optsde.analysis import (
    above,
    agrees,
    estimate,
    interval,
    percent_each,
    percent_paired,
    plots,
    table,
    within,
)
from optsde.optimizers import SGD
from optsde.study import Study, setting

# In units of 1/λ_e′ after the drop.
EARLY, LATE, LAST = (0.3, 0.5), (1.0, 2.0), (2.0, np.inf)


class Settings(Weighed):
    lr: float = setting(0.1, "before the drop", above=0)
    decay: float = setting(0.01, "weight decay", above=0)
    factor: float = setting(0.1, "of lr after the drop", above=0, below=1)
    drop_at: int = setting(6000, "step of the drop")
    steps = 36_000
    seeds = 16

    @property
    def unit(self):
        """1/λ_e′, in steps."""
        return 1 / (self.lr * self.factor * self.decay)

    def demands(self):
        yield from super().demands()
        yield self.at_a_measurement("drop_at")
        few = 4 * self.every
        yield self.drop_at >= few, "drop_at", f"at least four measurements, {few} steps"
        long = 2.5 * self.unit
        words = f"at least 2.5/λ_e′ = {long:g} steps after drop_at"
        yield self.steps >= self.drop_at + long, "steps", words
        words = f"at most {0.2 * self.unit:g}, .2/(lr·factor·decay)"
        yield 0.2 * self.unit >= self.every, "every", words


def simulate(s, rundir, task):
    sgd = SGD(lr=s.lr, weight_decay=s.decay)
    arm = s.arm("drop", sgd, changes={s.drop_at: {"lr": s.lr * s.factor}})

    def when(step):
        before = s.drop_at / 2 < step <= s.drop_at
        return before or step > s.drop_at + LAST[0] * s.unit

    noise = nets.noise_probe(s, task, arm, when)
    return nets.train(s, rundir, task, [arm], [noise])


def before(s, run, name):
    """Returns the mean over half of the time before the drop [seeds]."""
    if name == "effective_lr":  # at the drop it is already that of the new lr
        return run[name].between(s.drop_at / 2, s.drop_at - 1)
    return run[name].between(s.drop_at / 2 + 1, s.drop_at)


def after(s, run, name, window):
    """Returns the mean over a window in units of 1/λ_e′ after the drop [seeds]."""
    return run[name].between(*(s.drop_at + x * s.unit for x in window))


def settled(s, run):
    """Returns the last effective lr over the predicted one, − 1, in percent."""
    first = before(s, run, "signal") + before(s, run, "noise")
    last = after(s, run, "signal", LAST) + after(s, run, "noise", LAST)
    ratio = after(s, run, "effective_lr", LAST) / before(s, run, "effective_lr")
    return percent_each(ratio, np.sqrt(s.factor * first / last))


def tables(s, runs):
    run, windows = runs["drop"], (EARLY, LATE, LAST)
    first = before(s, run, "effective_lr")
    lrs = [nets.shown(after(s, run, "effective_lr", w) / first) for w in windows]
    rows = [["effective lr, of before", "1", *lrs]]
    for name in nets.LOSSES:
        means = [before(s, run, name), *(after(s, run, name, w) for w in windows)]
        rows.append([nets.TITLES[name], *(nets.shown(mean, name) for mean in means)])
    spans = [f"{a:g} to {b:g}".replace(" to inf", " on") for a, b in windows]
    yield table(["", "before", *spans], rows, "lrrrr")


def claims(s, runs):
    run = runs["drop"]
    times, lrs = run.effective_lr
    first = int(np.searchsorted(times, s.drop_at)) + 1
    drop = estimate(lrs[:, first] / before(s, run, "effective_lr"))
    low, high = s.factor * 0.95, s.factor * 1.05
    claim = "effective_lr_drops_at_once"
    yield within(claim, interval(drop), low, high, "of before")
    yield agrees("settles_where_the_noise_says", settled(s, run), 2.0, "% of its lr")
    early = {name: after(s, run, name, EARLY) for name in nets.LOSSES}
    for name in nets.LOSSES:
        fall = percent_paired(before(s, run, name), early[name])
        yield above(f"{name}_falls_first", fall, 0.0, "%", errors=4)
    for name in nets.LOSSES:
        rise = percent_paired(after(s, run, name, LATE), early[name])
        yield above(f"{name}_rises_again", rise, 0.0, "%", errors=4)


def figure(s, runs, path):
    run = runs["drop"]
    canvas, (left, right) = plots.new_figure(2)
    times, lrs = run.effective_lr
    time, start = (times - s.drop_at) / s.unit, before(s, run, "effective_lr")
    relative = estimate(lrs / start[:, None])
    plots.band(left, time, relative, label="measured", colour=plots.COLOURS[0])
    last = after(s, run, "effective_lr", LAST).mean() / start.mean()
    level = last / (1 + 0.01 * float(settled(s, run).mean))
    words = "predicted from the noise"
    left.plot([LAST[0], time[-1]], [level] * 2, "k--", lw=2, label=words)
    root = np.sqrt(s.factor)
    left.axhline(root, color="0.5", ls=":", lw=1.5, label=f"√{s.factor:g}")
    for name, colour in zip(
        ("train_loss", "test_loss"), plots.COLOURS[1:], strict=False
    ):
        losses = estimate(run[name].values)
        plots.band(right, time, losses, label=nets.TITLES[name], colour=colour)
    plots.spans(right, (EARLY, LATE))
    for ax in (left, right):
        plots.plain_log_axis(ax)
    right.set_ylim(top=2 * before(s, run, "test_loss").mean())
    x, words = "time since the drop, in 1/λₑ after it", "grey: windows compared"
    y = "effective learning rate, of that before"
    plots.label(left, x=x, y=y, legend="best")
    plots.label(right, x=x, y="loss", legend="best", legend_title=words)
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"decay": figure},
)
