"""What does a drop of the learning rate do, at once and in the end?

At once the effective lr drops as much as lr, and the loss falls. Then the norm shrinks
towards its new equilibrium, in a time 1/λ_e′: the effective lr rises again, and with it
the loss and the error. After a drop by f it settles at √(f · N_before/N_after) of what
it was, N being Ḡ + Tr Σ̄: only where the noise stays the same is that √f.
"""

import numpy as np
from ml_collections import ConfigDict

from experiments.intrinsic_lr import runs
from experiments.intrinsic_lr.equilibrium import shown
from experiments.intrinsic_lr.runs import JUDGED, Arm, Curves, sgd
from experiments.intrinsic_lr.setting import build, check_multiple, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    interval,
    percent_each,
    percent_paired,
    table,
    within,
)
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save

# In units of 1/λ_e′ after the drop.
EARLY, LATE, LAST = (0.3, 0.5), (1.0, 2.0), (2.0, np.inf)
WORDS = dict(zip(JUDGED, ("train loss", "train error", "held-out loss",
                          "held-out error"), strict=True))  # fmt: skip


def check(config: ConfigDict) -> None:
    check_run(config)
    check_multiple(config, "drop_at")
    looks = f"at least four looks, {4 * config.every} steps"
    require(config.drop_at >= 4 * config.every, config, "drop_at", looks)
    require(config.lr > 0 and config.decay > 0, config, "lr", "it and decay above 0")
    require(0 < config.factor < 1, config, "factor", "a number between 0 and 1")
    unit = 1 / (config.lr * config.factor * config.decay)
    require(
        config.steps >= config.drop_at + 2.5 * unit,
        config,
        "steps",
        f"at least 2.5/λ_e′ = {2.5 * unit:g} steps after drop_at",
    )
    require(0.2 * unit >= config.every, config, "every", f"at most {0.2 * unit:g}")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting = build(config)
    lr = config.lr
    arm = Arm(
        "drop", sgd(lr, config.decay), drops=((config.drop_at, lr * config.factor),)
    )
    runs.report(config, setting, arm)
    unit = 1 / (lr * config.factor * config.decay)

    def weighed(step):
        before = config.drop_at / 2 < step <= config.drop_at
        return before or step > config.drop_at + LAST[0] * unit

    curves = runs.train_arms(config, setting, rundir, [arm], weighed)["drop"]
    found = Windows(config, arm, curves, unit)
    print(found.table())
    found.draw(rundir.figure("decay"))
    return found.verdicts()


class Windows:
    """Averages of a run over the times that the claims are about."""

    def __init__(self, config: ConfigDict, arm: Arm, curves: Curves, unit: float):
        self.config, self.arm, self.curves, self.unit = config, arm, curves, unit
        self.at = config.drop_at
        self.series = curves | {"effective_lr": runs.effective_lr(arm, curves)}

    def before(self, name: str) -> np.ndarray:
        """[seeds]: over the half of the time before the drop."""
        series = self.series[name]
        if name == "effective_lr":  # the look at the drop already has the new lr
            return runs.mean_over(self.curves, series, self.at / 2, self.at - 1)
        return runs.mean_over(self.curves, series, self.at / 2 + 1, self.at)

    def after(self, name: str, window: tuple[float, float]) -> np.ndarray:
        """[seeds]: over a window in units of 1/λ_e′ after the drop."""
        first, last = (self.at + x * self.unit for x in window)
        return runs.mean_over(self.curves, self.series[name], first, last)

    def settled(self) -> Estimate:
        """Effective lr at the end over √(f N_before/N_after) of that before, − 1, %."""
        push = [
            self.before("signal") + self.before("noise"),
            self.after("signal", LAST) + self.after("noise", LAST),
        ]
        ratio = self.after("effective_lr", LAST) / self.before("effective_lr")
        expected = np.sqrt(self.config.factor * push[0] / push[1])
        return percent_each(ratio, expected)

    def verdicts(self) -> list[Verdict]:
        config = self.config
        lrs = self.series["effective_lr"]
        first = int(np.searchsorted(self.curves["step"], self.at)) + 1
        drop = estimate(lrs[:, first] / self.before("effective_lr"))
        low, high = config.factor * 0.95, config.factor * 1.05
        made = [
            within(
                "effective_lr_drops_at_once", interval(drop), low, high, "of before"
            ),
            agrees("settles_where_the_noise_says", self.settled(), 2.0, "% of its lr"),
        ]
        for name in JUDGED:
            fall = percent_paired(self.before(name), self.after(name, EARLY))
            made.append(above(f"{name}_falls_first", fall, 0.0, "%", errors=4))
        for name in JUDGED:
            rise = percent_paired(self.after(name, LATE), self.after(name, EARLY))
            made.append(above(f"{name}_rises_again", rise, 0.0, "%", errors=4))
        return made

    def table(self) -> str:
        windows = [EARLY, LATE, LAST]
        rows = []
        before = self.before("effective_lr")
        cells = [self.after("effective_lr", w) / before for w in windows]
        rows.append(["effective lr, of before", "1", *map(shown, cells)])
        for name, words in WORDS.items():
            seen = [self.before(name), *(self.after(name, w) for w in windows)]
            scale = 100 if name.endswith("error") else 1
            words = words + (" %" if scale == 100 else "")
            rows.append([words, *(shown(scale * x) for x in seen)])
        header = ["", "before", *(f"{a:g} to {b:g}" for a, b in windows)]
        return table([x.replace(" to inf", " on") for x in header], rows, "lrrrr")

    def draw(self, path) -> None:
        figure, (left, right) = new_figure(2)
        time = (self.curves["step"] - self.at) / self.unit
        lrs = self.series["effective_lr"] / self.before("effective_lr")[:, None]
        band(left, time, estimate(lrs), label="measured", colour=COLOURS[0])
        level = self.after("effective_lr", LAST).mean() / (
            self.before("effective_lr").mean() * (1 + 0.01 * float(self.settled().mean))
        )
        left.plot([LAST[0], time[-1]], [level] * 2, "--", color="black", lw=2,
                  label="predicted from the noise")  # fmt: skip
        root = np.sqrt(self.config.factor)
        left.axhline(
            root, color="0.5", ls=":", lw=1.5, label=f"√{self.config.factor:g}"
        )
        plain_log_axis(left)
        left.set(ylabel="effective learning rate, of that before")
        left.legend(fontsize=10)
        for name, colour in zip(("train_loss", "test_loss"), COLOURS[1:], strict=False):
            band(right, time, estimate(self.series[name]), label=WORDS[name],
                 colour=colour)  # fmt: skip
        plain_log_axis(right)
        for a, b in (EARLY, LATE):
            right.axvspan(a, b, color="0.9", zorder=0)
        right.set(ylabel="loss")
        right.set_ylim(top=2 * self.before("test_loss").mean())
        right.legend(fontsize=10, title="grey: windows compared")
        for ax in (left, right):
            ax.set(xlabel="time since the drop, in 1/λₑ after it")
        save(figure, path)
