"""What does each schedule look like, and what does it do at equal budget?

Momentum on digits, the same number of steps for every schedule. Each may choose its
peak learning rate among a few, on one half of the seeds; the other half judges.
"""

import functools
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.descent import digits
from experiments.launch import require
from experiments.rundir import RunDir
from optsde import schedules
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    estimate,
    interval,
    percent_of_mean,
    plus_minus,
    table,
    with_interval,
)
from optsde.analysis.plots import COLOURS, HALF_SLIDE, new_figure, save
from optsde.plans.schedules import Schedule


def all_schedules(horizon: float) -> dict[str, Schedule]:
    """Each kind at settings in use, with a peak of 1 (growing cycles: in the last)."""
    s = schedules
    cycle, warm = horizon / 4, horizon / 10
    return {
        "constant": s.constant(),
        "linear": s.linear(horizon),
        "steps": s.milestones((0.5 * horizon, 0.75 * horizon)),
        "cosine": s.cosine(horizon),
        "warm-up": s.warmup(warm),
        "exponential warm-up": s.exponential_warmup(warm),
        "warm-up, cosine": s.warmup_cosine(warm, horizon),
        "one cycle": s.one_cycle(horizon),
        "cyclic": s.cyclic(cycle),
        "exponential cyclic": s.exponential_cyclic(cycle, high=1.5**-3),
        "restarts": s.restarts(horizon / 7, stretch=2.0),
    }


def check(config: ConfigDict) -> None:
    digits.check(config)
    fine = bool(config.lrs) and min(config.lrs) > 0
    require(fine, config, "lrs", "one or more positive rates")
    require(0 <= config.beta < 1, config, "beta", "a decay in [0, 1)")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    task = digits.build_task(config)
    kinds = all_schedules(float(config.steps))
    train = functools.partial(train_all, config, task, kinds)
    found = digits.finished(rundir, "held_out", train)
    chosen = choose(config, found, kinds)
    print(outcome(chosen))
    draw(config, kinds, chosen, rundir.figure("schedules"))
    return judge(config, chosen)


def train_all(config: ConfigDict, task, kinds) -> dict[str, np.ndarray]:
    """Held-out loss and accuracy, [schedules, lrs, seeds]; one ensemble."""
    import jax.numpy as jnp

    which, lr = np.meshgrid(np.arange(len(kinds)), config.lrs, indexing="ij")
    members = {
        "schedule": jnp.asarray(which.ravel()),
        "lr": jnp.asarray(lr.ravel(), jnp.float32),
    }

    def plan_of(member):
        def schedule(t):
            multipliers = [jnp.asarray(kind(t)) for kind in kinds.values()]
            return jnp.stack(multipliers)[member["schedule"]]

        return optsde.Plan(
            optimizer=optsde.HeavyBall(lr=member["lr"], beta=config.beta),
            batch_size=config.batch_size,
            horizon=config.steps,
            schedule=schedule,
        )

    found = digits.held_out(config, task, plan_of, members)
    shape = (*which.shape, config.seeds)
    return {name: x.reshape(shape) for name, x in found.items()}


class Chosen(NamedTuple):
    """A schedule at its best peak rate, on the seeds that had no part in the choice."""

    lr: float
    loss: np.ndarray  # [seeds]
    accuracy: np.ndarray

    def gain(self, base: "Chosen") -> Estimate:
        """How far its loss lies below another's, in %, paired by seed."""
        return -percent_of_mean(self.loss, base.loss)


def choose(config: ConfigDict, found, kinds) -> dict[str, Chosen]:
    chosen = {}
    for i, name in enumerate(kinds):
        number = digits.best(found["loss"][i])
        judged = {n: digits.judged(x[i])[number] for n, x in found.items()}
        chosen[name] = Chosen(config.lrs[number], **judged)
    return chosen


def outcome(chosen: dict[str, Chosen]) -> str:
    rows = []
    for name, mine in chosen.items():
        gain = interval(mine.gain(chosen["constant"]))
        cells = [
            f"{mine.lr:g}",
            plus_minus(estimate(mine.loss), 4),
            with_interval(gain, 1, sign="+"),
            plus_minus(estimate(100 * mine.accuracy), 2),
        ]
        rows.append([name, *cells])
    header = ["schedule", "best peak lr", "held-out loss"]
    header += ["% below constant", "accuracy %"]
    return table(header, rows, "lrrrr")


def judge(config: ConfigDict, chosen: dict[str, Chosen]) -> list[Verdict]:
    """Each schedule against the constant rate."""
    verdicts = []
    for name, mine in chosen.items():
        if name != "constant":
            claim = f"{name}_beats_constant".replace(", ", "_").replace(" ", "_")
            expected = claim not in config.known_false
            x = mine.gain(chosen["constant"])
            verdicts.append(above(claim, x, 0.0, "% of loss", expected))
    return verdicts


def draw(config: ConfigDict, kinds, chosen: dict[str, Chosen], path) -> None:
    """The shape of each schedule, and beside it what it gains."""
    figure, axes = new_figure(2, HALF_SLIDE, 6.4)
    left, right = axes
    times = np.linspace(0, config.steps, 2000, endpoint=False)
    rows = -np.arange(len(kinds))
    for row, (name, schedule) in zip(rows, kinds.items(), strict=True):
        shape = np.broadcast_to(np.asarray(schedule(times)), times.shape)
        left.fill_between(times, row, row + 0.72 * shape, color=COLOURS[0], alpha=0.25)
        left.plot(times, row + 0.72 * shape, color=COLOURS[0], lw=1.4)
        i = interval(chosen[name].gain(chosen["constant"]))
        error = [[i.value - i.low], [i.high - i.value]]
        style = dict(color=COLOURS[5], marker="o", ms=6, capsize=4, lw=1.8)
        right.errorbar(i.value, row + 0.36, xerr=error, **style)
    left.set_yticks(rows + 0.36, kinds)
    left.set(xlabel="step", ylim=(rows[-1] - 0.2, 1), title="Learning rate")
    left.grid(False)
    right.axvline(0, color="0.4", lw=1)
    right.set_yticks(rows + 0.36, [])
    right.set(ylim=left.get_ylim(), title="Held-out loss")
    right.set_xlabel("% below the constant rate")
    figure.suptitle("Same steps, each schedule at its own best peak")
    save(figure, path)
