"""Does the rule hold for rare tokens, in the rows of an embedding?

In an embedding that is not the last layer too, the row of a token has a gradient only
in batches in which the token is read. A row that is read once within the memories of β
moves by, in the end,

    lr (1 − b1)/√(1 − b2) · Σ_j (b1/√b2)^j = lr (1 − b1)/(√(1 − b2) (1 − b1/√b2)),

whatever the size of the gradient, and the rule keeps this up to κ(1 − b). A row that is
read in every batch has a mean gradient with a share in v, which grows with κ. Frequent,
middling and rare tokens are told apart by their counts in the text; runs by the rule at
κ are compared with the run at κ = 1: by the held-out loss where such a token was read,
and by how far their rows have moved.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.scaling import groups
from experiments.scaling.groups import arms, named, pair
from optsde import measure, schedules
from optsde.analysis import (
    Verdict,
    above,
    agrees,
    estimate,
    family,
    interval,
    jackknife,
    plots,
    plus_minus,
    stack,
    table,
    with_interval,
)
from optsde.data import Stream
from optsde.gradients import Draw, FunctionOracle, Sampler
from optsde.measure.probe import Probe, probe
from optsde.run import Task
from optsde.study import (
    RunDir,
    Runs,
    Study,
    UsageError,
    refuse_divergence,
    require,
    setting,
    train,
)
from optsde.study.tasks import build_task
from optsde.types import PyTree

GROUPS = ("frequent", "middling", "rare")
METRICS = {"loss": "% of loss", "moved": "% of the squared distance"}
RULE = "rule"


class Settings(groups.Settings):
    frequent: float = setting(
        0.5, "share of the text that frequent tokens make up", above=0, below=1
    )
    rare: float = setting(
        0.05, "share of the text that rare tokens make up", above=0, below=1
    )
    warmup: float = setting(160.0, "a linear ramp of lr, in base steps", at_least=0)
    draws: int = setting(
        256, "gradients of one measurement of the noise", at_least=32, multiple_of=16
    )
    bound: float = setting(
        3.0,
        "for equal losses, and equal squared distances",
        unit="%",
        above=0,
        at_most=100,
    )
    optimizer = optsde.Adam(lr=7e-4, b1=0.975, b2=0.995)
    horizon = 3072.0
    kappas = (4, 8, 16, 32)
    dataset = "text"
    model = "transformer"
    options = dict(dtype="float32", depth=1, width=64, heads=2, length=32, tied=False)
    train_size = 45_000
    test_size = 512
    seeds = 12

    def base_plan(self) -> optsde.Plan:
        plan = super().base_plan()
        if not self.warmup:
            return plan
        return dataclasses.replace(plan, schedule=schedules.warmup(self.warmup))

    def demands(self):
        fine = self.warmup < self.horizon
        yield fine, "warmup", f"less than the horizon, {self.horizon:g}"
        yield from super().demands()
        fine = self.frequent + self.rare < 1
        yield fine, "rare", f"less than 1 − frequent = {1 - self.frequent:g}"
        fine = self.options.get("tied") is False
        yield fine, "options.tied", "False: rows of which reading alone is the gradient"
        yield self.augment == "none", "augment", "none: tokens are read as they are"


# ---- tokens and their rows


class Tokens(NamedTuple):
    """The tokens of each group, and the share of the text that they make up."""

    of: dict[str, np.ndarray]
    shares: dict[str, float]


def embedding(params: PyTree) -> jax.Array:
    """Returns the rows of the tokens' embedding, or those of its gradient."""
    return params["tokens"]


def tokens_of(s: Settings, task: Task) -> Tokens:
    """Returns the groups of the tokens of the training text, the commonest first."""
    if isinstance(task.train, Stream):
        raise UsageError(
            "task(config): train is a Stream, and tokens are counted on the device"
        )
    params = jax.eval_shape(task.init, jax.random.key(0))
    fine = isinstance(params, dict) and {"tokens", "output"} <= params.keys()
    allowed = "transformer: a net with an embedding 'tokens' and a last layer 'output'"
    require(fine, "model", s.model, allowed)
    counts = np.bincount(np.asarray(task.train[0]).ravel())
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    share = counts[order] / counts.sum()
    before = np.cumsum(share) - share
    rare = before >= 1 - s.rare
    frequent = ~rare & (before < s.frequent)
    chosen = dict(zip(GROUPS, (frequent, ~rare & ~frequent, rare), strict=True))
    for name, mine in chosen.items():
        allowed = f"shares that leave {name} tokens"
        require(bool(mine.any()), "rare", s.rare, allowed)
    return Tokens(
        {name: order[mine] for name, mine in chosen.items()},
        {name: float(share[mine].sum()) for name, mine in chosen.items()},
    )


# ---- the runs


class Outcome(NamedTuple):
    tokens: Tokens
    runs: Runs


def simulate(s: Settings, rundir: RunDir, task: Task) -> Outcome:
    """Returns each group's loss and movement, and signal and noise of the first run."""
    tokens = tokens_of(s, task)
    sampler = groups.sampler(s, task)
    judged, measured = by_group(s, task, tokens), of_rows(s, sampler, tokens)

    def probes(arm):
        return [judged, measured] if arm.name == named(RULE) else [judged]

    runs = train(
        [*arms(RULE, s.base_plan(), s.kappas)],
        sampler,
        task.init,
        s.keys(),
        keep=rundir.once_all,
        probes=probes,
    )
    for name, run in runs.items():
        refuse_divergence(run.rare_loss, name, "try a smaller --config.optimizer.lr")
    return Outcome(tokens, runs)


def by_group(s: Settings, task: Task, tokens: Tokens) -> Probe:
    """Returns the probe of the loss where tokens of a group are read, and of ‖Δ‖²."""
    count = 1 + max(mine.max() for mine in tokens.of.values())

    def observe(examples, state, start):
        (inputs, targets), rows = examples, embedding(state.params)
        found = {}
        for name, mine in tokens.of.items():
            among = jnp.asarray(np.isin(np.arange(count), mine))[inputs]
            wanted = jnp.where(among, targets, -1)
            sizes = jnp.sum(wanted >= 0, axis=1)
            losses = task.losses(state.params, (inputs, wanted))
            found[f"{name}_loss"] = jnp.sum(losses * sizes) / jnp.sum(sizes)
            found[f"{name}_moved"] = jnp.sum((rows[mine] - start[mine]) ** 2)
        return found, start

    return Probe(
        observe, lambda state: embedding(state.params), task.test, times=s.every
    )


def of_rows(s: Settings, sampler: Sampler, tokens: Tokens) -> Probe:
    """Returns the probe of each group's signal and noise, of v, and of the descent.

    The descent is Σ ḡ²/√v, and slowed that with the v which a batch of κ would have.
    """
    plan = s.base_plan()

    def split(params: PyTree) -> dict[str, jax.Array]:
        rows = embedding(params)
        return {name: rows[mine] for name, mine in tokens.of.items()}

    def observe(oracle, state) -> dict[str, Any]:
        def of_groups(source, rows, draw):
            del source, rows  # the gradient is that at the state's parameters
            loss, grads = oracle(state.params, draw)
            return loss, split(grads)

        noise = measure.gradient_noise(
            FunctionOracle(of_groups),
            split(state.params),
            Draw(state.key, state.step, state.time),
            s.draws,
            kappas=tuple(float(kappa) for kappa in s.kappas),
        )
        levels = noise.groups()
        root = plan.optimizer.preconditioner(state.optimizer.direction, state.params)
        found = {
            "signal": {name: levels[name].signal for name in GROUPS},
            "noise": {name: levels[name].noise for name in GROUPS},
            "v": {name: jnp.sum(x**2) for name, x in split(root).items()},
            "descent": noise.descent.base,
            "slowed": noise.descent.slowed,
        }
        return {
            metric: jnp.stack([each[name] for name in GROUPS])
            for metric, each in found.items()
        }

    times = s.horizon / 2, s.horizon
    return probe(observe, sampler(plan.batch_size), times)


# ---- what is made of them


def base_values(outcome: Outcome, *metrics: str) -> list[np.ndarray]:
    """Returns metrics of the first run, each seed's mean over both times."""
    run = outcome.runs[named(RULE)]
    return [run[metric].values.mean(axis=1) for metric in metrics]


def ratios(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns ‖ḡ‖²/N of each group's rows, of the means over seeds."""
    return signal.mean(0) / noise.mean(0)


def speeds(descent: np.ndarray, slowed: np.ndarray) -> np.ndarray:
    """Returns the foreseen speed [groups, κ], in % of that at κ = 1."""
    return 100 * slowed.mean(0) / descent.mean(0)[:, None]


def shares_of_v(outcome: Outcome) -> np.ndarray:
    """Returns the % of the embedding's v that each group has, [seeds, groups]."""
    (v,) = base_values(outcome, "v")
    return 100 * v / v.sum(axis=1, keepdims=True)


def tables(s: Settings, outcome: Outcome) -> Iterator[str]:
    tokens, runs = outcome
    shares = estimate(shares_of_v(outcome))
    found = jackknife(ratios, *base_values(outcome, "signal", "noise"))
    foreseen = jackknife(speeds, *base_values(outcome, "descent", "slowed"))
    rows = []
    for number, name in enumerate(GROUPS):
        cells = [f"{len(tokens.of[name])}", f"{100 * tokens.shares[name]:.1f}"]
        cells += [plus_minus(shares.at(number), 1)]
        cells += [with_interval(interval(found.at(number)), 4)]
        cells += [with_interval(interval(x), 1) for x in foreseen.at(number).each()]
        rows.append([name, *cells])
    header = ["rows", "tokens", "% of text", "% of v", "‖ḡ‖²/N"]
    header += [f"speed at κ = {kappa:g}, %" for kappa in s.kappas]
    yield table(header, rows, "l" + "r" * (len(header) - 1))
    rows = []
    for metric, unit in METRICS.items():
        for name in GROUPS:
            pairs = [pair(s, runs, RULE, k, f"{name}_{metric}") for k in s.kappas]
            cells = [plus_minus(estimate(pairs[0].near), 3)]
            cells += [with_interval(interval(x.off()), 1, sign="+") for x in pairs]
            rows.append([f"{name}, {unit}", *cells])
    header = ["from κ = 1", "at κ = 1", *(f"κ = {kappa:g}" for kappa in s.kappas)]
    yield table(header, rows, "l" + "r" * (len(header) - 1))


def claims(s: Settings, outcome: Outcome) -> Iterator[Verdict]:
    tokens, runs = outcome
    more = estimate(shares_of_v(outcome)[:, -1] - 100 * tokens.shares["rare"])
    yield above("rare_have_more_of_v", more, 0.0, "% of v above their % of the text")

    def noisier(*parts):
        found = ratios(*parts)
        return found[0] - found[-1]

    less = jackknife(noisier, *base_values(outcome, "signal", "noise"))
    yield above("rare_have_less_signal", less, 0.0, "of ‖ḡ‖²/N, frequent less rare")
    last = int(np.argmax(s.kappas))

    def faster(*parts):
        found = speeds(*parts)[:, last]
        return found[-1] - found[0]

    gain = jackknife(faster, *base_values(outcome, "descent", "slowed"))
    claim = f"frequent_foreseen_to_lag_more_at_{s.kappas[last]:g}"
    yield above(claim, gain, 0.0, "% of the speed, rare less frequent")
    for metric, unit in METRICS.items():
        yield from family(
            f"rule_{metric}",
            [
                agrees(
                    f"{name}_{metric}_holds_at_{kappa:g}",
                    pair(s, runs, RULE, kappa, f"{name}_{metric}").off(),
                    s.bound,
                    unit,
                )
                for name in GROUPS
                for kappa in s.kappas
            ],
        )
    for metric, unit in METRICS.items():
        yield from family(f"further_{metric}", comparisons(s, runs, metric, unit))


def comparisons(s: Settings, runs: Runs, metric: str, unit: str) -> Iterator[Verdict]:
    """Yields that rare tokens are further off than frequent ones."""
    for kappa in s.kappas:
        rare, frequent = (
            pair(s, runs, RULE, kappa, f"{name}_{metric}")
            for name in ("rare", "frequent")
        )
        claim = f"rare_{metric}_further_off_at_{kappa:g}"
        yield above(claim, rare.further_off_than(frequent), 0.0, f"points of {unit}")


def answer(s: Settings, outcome: Outcome, verdicts: list[Verdict]) -> str:
    """Returns for each group up to which κ the rule was shown to hold."""
    holds = {verdict.claim: verdict.holds for verdict in verdicts}
    words = []
    for name in GROUPS:
        for metric in METRICS:
            up_to = 1
            for kappa in sorted(s.kappas):
                if not holds[f"{name}_{metric}_holds_at_{kappa:g}"]:
                    break
                up_to = kappa
            words.append(f"{name} {metric} κ = {up_to:g}")
    return f"shown to within ±{s.bound:g}% up to: {', '.join(words)}"


def figure(s: Settings, outcome: Outcome, path: Path) -> None:
    """Draws the speed that is foreseen, loss and movement of each group, against κ."""
    drawing, axes = plots.new_figure(3, width=13, height=4.6)
    colour, x = plots.colours(GROUPS), np.array(s.kappas)
    foreseen = jackknife(speeds, *base_values(outcome, "descent", "slowed"))
    titles = {
        name: f"{name}: {len(mine)} tokens, {100 * outcome.tokens.shares[name]:.0f}%"
        for name, mine in outcome.tokens.of.items()
    }
    for number, name in enumerate(GROUPS):
        style = dict(colour=colour[name], ls="-", ms=4, label=titles[name])
        beside = 1.05 ** (number - 1)
        plots.points(axes[0], x * beside, foreseen.at(number), **style)
        for ax, metric in zip(axes[1:], METRICS, strict=True):
            pairs = [pair(s, outcome.runs, RULE, k, f"{name}_{metric}") for k in x]
            plots.points(ax, x * beside, stack([p.off() for p in pairs]), **style)
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [f"{kappa:g}" for kappa in x])
        ax.minorticks_off()
    for ax in axes[1:]:
        plots.spans(ax, [(-s.bound, s.bound)], along="y")
        plots.plain_symlog_axis(ax, linear=2 * s.bound)
    label = "κ, batch in units of the base batch"
    y = "foreseen speed, % of κ = 1"
    plots.label(axes[0], x=label, y=y, title="from the noise at κ = 1")
    y = "held-out loss, % from κ = 1"
    title = f"where they are read; grey: ±{s.bound:g}%"
    plots.label(axes[1], x=label, y=y, title=title)
    y = "squared distance, % from κ = 1"
    plots.label(axes[2], x=label, y=y, title="how far rows have moved; bars 95%")
    plots.shared_legend(drawing, axes[0], columns=3)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"rows": figure},
    task=build_task,
)
