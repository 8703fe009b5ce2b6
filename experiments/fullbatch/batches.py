"""How many steps does a training loss take at each batch, from 1 to all examples?

Shallue et al. (2019) find one curve everywhere, if lr is tuned at each batch: steps
halve as the batch doubles (perfect scaling), then fall by less and less, and at last
not at all; with momentum they go on halving for longer. Half of the seeds choose the lr
of each optimizer at each batch, and the other half judge. Besides, lr and decays follow
the rule from the best lr at the smallest batch, without being tuned again.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from optsde.analysis import (
    Estimate,
    Interval,
    above,
    agrees,
    below,
    estimate,
    family,
    half_width,
    interval,
    jackknife,
    paired,
    plots,
    stack,
    table,
    with_interval,
)
from optsde.gradients import Sampler, full_batch, minibatch
from optsde.optimizers import SGD, Adam, HeavyBall, Optimizer
from optsde.plans import Plan, scale
from optsde.run import Task, parts
from optsde.study import (
    Arm,
    Integers,
    Numbers,
    Seeds,
    Study,
    TaskSettings,
    UsageError,
    require,
    setting,
    tasks,
    train,
)

CLOSE = 0.32  # of log₂: a quarter more, or a fifth fewer steps
TWICE = 1.0
SLOPE, MORE = "d log steps/d log batch", "log₂ of steps more"
EXAMPLES = "log₂ of examples more"
PER_OCTAVE = 16  # measurements in each doubling of the steps


class Settings(TaskSettings, Seeds):
    options = {"hidden": (32,), "dtype": "float32"}
    train_size = 512
    optimizers: dict[str, Optimizer] = setting(
        {
            "sgd": SGD(lr=0.1),
            "momentum": HeavyBall(lr=0.01, beta=0.9),
            "adam": Adam(lr=0.004),
        },
        "those compared, with an lr that `factors` multiply",
    )
    factors: Numbers = setting(
        (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
        "of each lr, tried at each batch",
        above=0,
        rising=True,
        entries=1,
    )
    batches: Integers = setting(
        (1, 4, 16, 64, 256, 512),
        "examples in a step",
        at_least=1,
        rising=True,
        entries=2,
    )
    target: float = setting(0.1, "training loss at which a run has arrived", above=0)
    samples: int = setting(4096, "seen by a run at most, and besides", at_least=1)
    least: int = setting(150, "steps that are taken at any batch", at_least=1)

    def demands(self):
        yield from super().demands()
        yield self.seeds % 2 == 0 and self.seeds >= 4, "seeds", "an even number ≥ 4"
        yield self.augment == "none", "augment", "none: the loss must not change"

    def limit(self, batch: int) -> int:
        """Returns the steps of a run."""
        return self.samples // batch + self.least

    def measured(self, batch: int) -> np.ndarray:
        """Returns the steps at which a run's training loss is measured."""
        last = self.limit(batch)
        count = int(PER_OCTAVE * np.log2(last)) + 2
        return np.unique(np.geomspace(1, last, count).round())


# ---- runs


def build_task(s) -> Task:
    """Returns the task of settings with `batches`, which may not be more than all."""
    task = tasks.build_task(s)
    allowed = f"at most the {task.size} training examples"
    require(s.batches[-1] <= task.size, "batches", s.batches, allowed)
    return task


def tuned(s: Settings, name: str, batch: int) -> Iterator[Arm]:
    """Yields an arm for every lr that is tried."""
    for factor in s.factors:
        optimizer = s.optimizers[name].times_lr(factor)
        plan = Plan(optimizer=optimizer, batch_size=batch, horizon=s.limit(batch))
        yield Arm(f"{name}, batch {batch}, lr × {factor:g}", plan)


def ruled(s: Settings, name: str, batch: int, best: float) -> Arm:
    """Returns the arm of the rule, from the smallest batch at its best factor of lr."""
    first = s.batches[0]
    kappa = batch / first
    optimizer = s.optimizers[name].times_lr(best)
    base = Plan(optimizer=optimizer, batch_size=first, horizon=s.limit(batch) * kappa)
    return Arm(
        f"{name}, batch {batch}, by the rule", scale(base, kappa, memory="power")
    )


def sampler_of(task: Task, batch: int) -> Sampler:
    """Returns that of independent draws; all examples are the full batch itself."""
    if batch == task.size:
        return full_batch(task.losses, task.train, group=None, augment=task.augment)
    return minibatch(task.losses, task.train, augment=task.augment)


def simulate(s: Settings, rundir, task: Task):
    """Returns log₂ of the steps to the target, by optimizer.

    tuned: [batches, factors, seeds], infinite where a run has not arrived; ruled:
    [batches but the first, seeds].
    """

    def arrive(arms, batch):
        time = s.measured(batch) * arms[0].plan.dt
        runs = train(
            arms,
            sampler_of(task, batch),
            task.init,
            s.keys(),
            keep=rundir.once_all,
            probes=[task.train_loss(times=time.tolist())],
            label=f"{arms[0].name.rpartition(',')[0]}, {len(arms)} × {s.seeds} seeds",
            stop_at_divergence=False,
        )
        steps = s.measured(batch)
        return [
            arrival(steps, run.train_loss.values, s.target) for run in runs.values()
        ]

    found = {}
    for name in parts(s.optimizers):
        grid = np.array([arrive([*tuned(s, name, b)], b) for b in parts(s.batches)])
        factor = s.factors[chosen(s, name, grid)[0]]
        rule = [arrive([ruled(s, name, b, factor)], b)[0] for b in parts(s.batches[1:])]
        found[name] = {"tuned": grid, "ruled": np.array(rule)}
    return found


def arrival(steps, losses, target: float) -> np.ndarray:
    """Returns log₂ of the steps at which each replica's loss first is the target.

    Infinite where it never is.
    """
    return np.log2(at_target(losses, target, np.broadcast_to(steps, losses.shape)))


def at_target(losses, target: float, values) -> np.ndarray:
    """Returns positive values, [replicas, times], where the loss first is the target.

    Between two measurements log value is a line in log loss. Infinite where the loss
    never is that low.
    """
    reached = losses <= target
    at, rows = reached.argmax(axis=1), np.arange(len(losses))
    before = np.maximum(at - 1, 0)
    high, low = np.log(losses[rows, before]), np.log(losses[rows, at])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(at > 0, (high - np.log(target)) / (high - low), 1.0)
    first, last = np.log(values[rows, before]), np.log(values[rows, at])
    return np.where(reached.any(axis=1), np.exp(first + share * (last - first)), np.inf)


# ---- what they say


def chosen(s: Settings, name: str, grid: np.ndarray) -> np.ndarray:
    """Returns which factor is best at each batch, by the first half of the seeds."""
    means = grid[..., : s.seeds // 2].mean(axis=-1)
    for batch, each in zip(s.batches, means, strict=True):
        if not np.isfinite(each).any():
            raise UsageError(
                f"--config.target={s.target:g}: no lr of {name} at batch {batch} "
                "arrives there on every seed that chooses; set a higher target, more "
                "samples or other factors"
            )
    return means.argmin(axis=-1)


def judged(s: Settings, name: str, found) -> tuple[np.ndarray, np.ndarray]:
    """Returns log₂ steps of the seeds that judge, [seeds, batches]: tuned and ruled.

    A run that has not arrived counts as if it did with its last step.
    """
    most = np.log2([s.limit(batch) for batch in s.batches])
    best = chosen(s, name, found["tuned"])
    grid = found["tuned"][np.arange(len(best)), best, s.seeds // 2 :].T
    rule = found["ruled"][:, s.seeds // 2 :].T
    rule = np.concatenate([grid[:, :1], rule], axis=1)
    return np.minimum(grid, most), np.minimum(rule, most)


def leaves(batches, log_steps: np.ndarray) -> float:
    """Returns log₂ of the batch that needs twice the samples of the first one.

    Infinite where none does. Of steps ∝ 1 + c/B it is c beside a small first batch.
    """
    batch = np.log2(np.asarray(batches, float))
    more = log_steps.mean(axis=0) + batch
    more = more - more[0]
    beyond = more >= TWICE
    if not beyond.any():
        return np.inf
    i = int(beyond.argmax())
    share = (TWICE - more[i - 1]) / (more[i] - more[i - 1])
    return float(batch[i - 1] + share * (batch[i] - batch[i - 1]))


def slopes(s: Settings, log_steps: np.ndarray) -> np.ndarray:
    """Returns d log steps/d log batch between neighbours, [seeds, batches − 1]."""
    return np.diff(log_steps, axis=1) / np.diff(np.log2(s.batches))


def tables(s: Settings, runs) -> Iterator[str]:
    for name, found in runs.items():
        log_steps, rule = judged(s, name, found)
        best = chosen(s, name, found["tuned"])
        rows = []
        for i, batch in enumerate(s.batches):
            end = len(s.factors) > 2 and best[i] in (0, len(s.factors) - 1)
            lr = f"{s.optimizers[name].lr * s.factors[best[i]]:g}"
            steps = powers_of_2(estimate(log_steps[:, i]))
            row = [batch, lr + " (end of the list)" * end, with_interval(steps)]
            row.append(f"{batch * steps.value:.3g}")
            if i:
                more = powers_of_2(paired(rule[:, i], log_steps[:, i]))
                lost = np.count_nonzero(~np.isfinite(found["ruled"][i - 1]))
                row += [with_interval(more), f"{lost} of {s.seeds}"]
            rows.append(row + [""] * (6 - len(row)))
        header = [f"batch, {name}", "best lr", "steps", "examples"]
        header += ["by the rule, times", "never there"]
        yield table(header, rows, "rrrrrr") + "\n"
    rows = []
    for name, found in runs.items():
        twice = jackknife(partial(leaves, s.batches), judged(s, name, found)[0])
        rows.append([name, with_interval(powers_of_2(twice))])
    yield table(["", "batch that needs twice the samples"], rows, "lr")


def powers_of_2(x: Estimate) -> Interval:
    """Returns the interval of 2**x, of one number."""
    return Interval(*(2.0**end for end in interval(x)))


def claims(s: Settings, runs):
    """Yields Shallue et al.'s statements, and what becomes of the rule."""
    logs = {name: judged(s, name, found) for name, found in runs.items()}
    slope = {name: slopes(s, log_steps) for name, (log_steps, _) in logs.items()}
    second, last = s.batches[1], s.batches[-1]
    perfect, floor, large, costs, near, breaks = [], [], [], [], [], []
    for name, (log_steps, rule) in logs.items():
        from_perfect, end = (
            estimate(slope[name][:, 0] + 1),
            estimate(slope[name][:, -1]),
        )
        more = stack([paired(rule[:, i], log_steps[:, i]) for i in (1, -1)]).each()
        dearer = estimate(
            log_steps[:, -1] - log_steps[:, 0] + np.log2(last / s.batches[0])
        )
        claim = f"{name}_scales_perfectly_to_{second}"
        perfect.append(agrees(claim, from_perfect, 0.15, f"{SLOPE} + 1"))
        floor.append(above(f"{name}_has_a_floor", end, -0.25, SLOPE))
        large.append(below(f"{name}_not_slower_at_{last}", end, 0.1, SLOPE))
        costs.append(above(f"{name}_takes_more_at_{last}", dearer, TWICE, EXAMPLES))
        near.append(below(f"{name}_rule_serves_at_{second}", more[0], CLOSE, MORE))
        breaks.append(above(f"{name}_rule_breaks_at_{last}", more[1], TWICE, MORE))
    yield from family("perfect at first", perfect)
    yield from family("a floor at last", floor)
    yield from family("no batch is too large", large)
    yield from family("examples at the last batch", costs)
    yield from family("the rule near its base", near)
    yield from family("the rule at the full batch", breaks)
    if {"sgd", "momentum"} <= logs.keys():
        sgd, momentum = logs["sgd"][0], logs["momentum"][0]
        gap = paired(momentum[:, 0], sgd[:, 0])
        yield agrees("momentum_is_sgd_at_the_smallest", gap, CLOSE, MORE)
        further = jackknife(partial(further_by, s.batches), momentum, sgd)
        yield above("momentum_scales_further", further, 0, "log₂ of the batch")


def further_by(batches, one, other) -> float:
    """Returns log₂ of how many times larger the batch at which `one` leaves is."""
    return leaves(batches, one) - leaves(batches, other)


# ---- a picture


def figure(s: Settings, runs, path) -> None:
    """Draws the steps at each batch, and what the rule takes in place of a tuned lr."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.3)
    batches = np.array(s.batches)
    for name, colour in plots.colours(runs).items():
        log_steps, rule = judged(s, name, runs[name])
        draw(left, batches, log_steps, colour, name)
        draw(right, batches, rule - log_steps, colour, name)
        lost = np.isinf(runs[name]["ruled"][:, s.seeds // 2 :]).any(axis=1)
        most = 2 ** (rule - log_steps).mean(axis=0)[1:][lost]
        right.plot(batches[1:][lost], most, "o", color=colour, mfc="white", ms=4)
        perfect = 2 ** log_steps[:, 0].mean() * batches[0] / batches
        left.plot(batches, perfect, color=colour, lw=0.7, ls=":")
    right.axhline(1, color="0.5", lw=0.8)
    apart = np.append(np.diff(np.log2(batches)) > 1, True)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(batches[apart], batches[apart])
        ax.minorticks_off()
    left.set_yscale("log")
    plots.plain_log_axis(right)
    title, y = "lr tuned at each batch", f"steps to a training loss of {s.target:g}"
    plots.label(left, x="batch", y=y, title=title)
    title = "by the rule (open: at least)"
    plots.label(right, x="batch", y="steps, in those of a tuned lr", title=title)
    plots.shared_legend(drawing, left, columns=len(runs))
    plots.save(drawing, path)


def draw(ax, batches, logs: np.ndarray, colour: str, name: str) -> None:
    """Draws 2**mean of the logs of all seeds, with the band of its 95% interval."""
    x = estimate(logs)
    low, high = x.mean - half_width(x), x.mean + half_width(x)
    ax.fill_between(batches, 2**low, 2**high, color=colour, alpha=0.22, lw=0)
    ax.plot(batches, 2**x.mean, "o-", color=colour, ms=4, label=name)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"batches": figure},
    task=build_task,
)
