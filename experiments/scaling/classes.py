"""Does the rule hold on rare classes, and what do the remedies for imbalance change?

Adam's v averages squared gradients, so that classes have a part in it as they have in
the noise. With q_c the chance of class c in a draw, w_c its weight in the loss, ḡ_c the
mean of its gradients and S_c that of their squared norms, a batch of B has

    ḡ = Σ q_c w_c ḡ_c,   v = N + ‖ḡ‖² in sum,   N = (Σ q_c w_c² S_c − ‖ḡ‖²)/B.

Drawing all classes equally often and weighting them by 1/q_c have one and the same ḡ,
but weighting the larger N: a rare class comes seldom, and then with a large weight.
Under each remedy, and with a larger batch, runs by the rule at κ are compared with the
run at κ = 1 of the same remedy, on held-out images of rare and of common classes.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.scaling import groups
from experiments.scaling.groups import named, pair
from optsde.analysis import (
    Verdict,
    above,
    agrees,
    estimate,
    family,
    interval,
    percent_of_mean,
    plus_minus,
    stack,
    table,
    with_interval,
)
from optsde.analysis.plots import (
    colours,
    label,
    new_figure,
    plain_symlog_axis,
    points,
    save,
    shared_legend,
    spans,
)
from optsde.data import Stream
from optsde.gradients import Sampler, minibatch
from optsde.measure.probe import Probe, probe
from optsde.run import Task
from optsde.study import (
    Arm,
    Names,
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

REMEDIES = {
    "none": "as the data are",
    "oversampled": "all classes drawn equally often",
    "weighted": "classes weighted equally",
    "larger": "a larger batch",
}
FEW = 3  # classes that are called rare, and as many common
GROUPS = ("rare", "common")


class Settings(groups.Settings):
    remedies: Names = setting(tuple(REMEDIES), "for imbalance", some_of=REMEDIES)
    larger: int = setting(4, "times the batch of the remedy of that name", above=1)
    imbalance = 0.02
    seeds = 48

    def demands(self):
        yield from super().demands()
        yield "none" in self.remedies, "remedies", "'none' among them"


def arms(s: Settings, remedy: str) -> Iterator[Arm]:
    """Yields the base run of a remedy, and the rule at each κ."""
    base = s.base_plan()
    if remedy == "larger":
        base = dataclasses.replace(base, batch_size=s.batch_size * s.larger)
    return groups.arms(remedy, base, s.kappas)


# ---- draws and weights


def chances(counts: np.ndarray, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns q and w of each class: its chance in a draw, and its weight."""
    share, equal = counts / counts.sum(), np.full(len(counts), 1 / len(counts))
    if remedy == "oversampled":
        return equal, np.ones(len(counts))
    if remedy == "weighted":
        return share, equal / share
    return share, np.ones(len(counts))


def labels_of(task: Task) -> np.ndarray:
    """Returns the classes of the training examples."""
    if isinstance(task.train, Stream):
        raise UsageError(
            "task(config): train is a Stream, and gradients by class need its examples "
            "on the device"
        )
    return np.asarray(task.train[1])


def sampler_of(task: Task, remedy: str) -> Sampler:
    """Returns independent draws under a remedy."""
    labels = labels_of(task)
    counts = np.bincount(labels)
    if remedy == "oversampled":
        each = (np.flatnonzero(labels == c) for c in range(len(counts)))
        index = np.concatenate([np.resize(mine, counts.max()) for mine in each])
        return minibatch(
            task.losses,
            task.train,
            among=jnp.asarray(index),
            augment=task.augment,
        )
    weights = jnp.asarray(chances(counts, remedy)[1])

    def weighted(params, examples, *others):
        losses = task.losses(params, examples, *others)
        return weights[examples[1]].astype(losses.dtype) * losses

    return minibatch(weighted, task.train, augment=task.augment)


def signal_and_noise(
    q: np.ndarray, w: np.ndarray, squares: np.ndarray, products: np.ndarray, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ‖ḡ‖² and N of a batch, from S_c and the products ⟨ḡ_c, ḡ_d⟩."""
    signal = np.einsum("...cd,c,d->...", products, q * w, q * w)
    return signal, (squares @ (q * w**2) - signal) / batch


# ---- the runs


class Outcome(NamedTuple):
    counts: np.ndarray  # training examples of each class
    runs: Runs


def simulate(s: Settings, rundir: RunDir, task: Task) -> Outcome:
    """Returns the losses of all arms, and S_c and ⟨ḡ_c, ḡ_d⟩ along the first."""
    counts = np.bincount(labels_of(task))
    fine = bool(counts.all()) and len(counts) >= 2 * FEW
    allowed = f"a share that leaves examples of every class, of {2 * FEW} or more"
    require(fine, "imbalance", s.imbalance, allowed)
    allowed = "a net without BatchNorm: gradients are those of one example"
    require(not task.examples_interact, "model", s.model, allowed)
    keys = jax.random.split(jax.random.key(s.seed), s.seeds)
    judged, measured = by_group(s, task), of_classes(s, task)

    def probes(arm):
        return [judged, measured] if arm.name == named("none") else [judged]

    runs = Runs({})
    for remedy in s.remedies:
        runs |= train(
            [*arms(s, remedy)],
            sampler_of(task, remedy),
            task.init,
            keys,
            keep=rundir.once_all,
            probes=probes,
        )
    for name, run in runs.items():
        refuse_divergence(run.rare, name, "try a smaller --config.optimizer.lr")
    return Outcome(counts, runs)


def by_group(s: Settings, task: Task) -> Probe:
    """Returns the probe of the held-out losses of rare and of common classes."""
    last = np.asarray(task.test[1]).max()

    def observe(examples, state):
        losses, classes = task.losses(state.params, examples), examples[1]
        return {
            "rare": jnp.mean(losses, where=classes > last - FEW),
            "common": jnp.mean(losses, where=classes < FEW),
        }

    return probe(observe, task.test, s.every)


def of_classes(s: Settings, task: Task) -> Probe:
    """Returns the probe of S_c, as squares [C], and of ⟨ḡ_c, ḡ_d⟩, as products."""
    counts = np.bincount(labels_of(task))

    def observe(examples, state):
        def add(sums, example):
            one = jax.tree.map(lambda x: x[None], example)
            grads = jax.grad(lambda p: task.losses(p, one)[0])(state.params)
            grad, _ = ravel_pytree(grads)
            means, squares = sums
            c = example[1]
            return (means.at[c].add(grad), squares.at[c].add(grad @ grad)), None

        size = sum(x.size for x in jax.tree.leaves(state.params))
        start = jnp.zeros((len(counts), size)), jnp.zeros(len(counts))
        (means, squares), _ = jax.lax.scan(add, start, examples)
        means = means / counts[:, None].astype(means.dtype)
        squares = squares / counts.astype(squares.dtype)
        return {"squares": squares, "products": means @ means.T}

    return probe(observe, task.train, s.horizon / 2)


# ---- what is made of them


def levels(s: Settings, outcome: Outcome, remedy: str) -> tuple[np.ndarray, ...]:
    """Returns ‖ḡ‖², N [seeds] and each class's share of v [seeds, C], at the end."""
    run = outcome.runs[named("none")]
    q, w = chances(outcome.counts, remedy)
    batch = s.batch_size * (s.larger if remedy == "larger" else 1)
    squares = run.squares.last
    signal, noise = signal_and_noise(q, w, squares, run.products.last, batch)
    parts = squares * q * w**2
    return signal, noise, parts / parts.sum(axis=1, keepdims=True)


def tables(s: Settings, outcome: Outcome) -> Iterator[str]:
    counts, runs = outcome
    header = ["where the first run ends", "noise N", "‖ḡ‖²/N", "rare, % of draws"]
    rows = []
    for remedy in s.remedies:
        signal, noise, shares = levels(s, outcome, remedy)
        q, _ = chances(counts, remedy)
        cells = [
            plus_minus(estimate(x), significant=3) for x in (noise, signal / noise)
        ]
        cells += [f"{100 * q[-FEW:].sum():.1f}"]
        cells += [plus_minus(estimate(100 * shares[:, -FEW:].sum(axis=1)), 1)]
        rows.append([REMEDIES[remedy], *cells])
    yield table([*header, "% of v"], rows, "lrrrr")
    header = ["held-out loss, % from κ = 1", "κ"]
    header += [f"{group} classes" for group in GROUPS]
    rows = []
    for remedy in s.remedies:
        losses = [pair(s, runs, remedy, 1, group).near for group in GROUPS]
        cells = [plus_minus(estimate(x), 3) for x in losses]
        rows.append([REMEDIES[remedy], "1, the loss", *cells])
        for kappa in s.kappas:
            pairs = [pair(s, runs, remedy, kappa, group) for group in GROUPS]
            gaps = [interval(each.off()) for each in pairs]
            cells = [with_interval(x, 1, sign="+") for x in gaps]
            rows.append(["", f"{kappa:g}", *cells])
    yield table(header, rows, "lrrr")


def claims(s: Settings, outcome: Outcome) -> Iterator[Verdict]:
    counts, runs = outcome
    share = 100 * counts[-FEW:].sum() / counts.sum()
    found = {remedy: levels(s, outcome, remedy) for remedy in s.remedies}
    rare = 100 * found["none"][2][:, -FEW:].sum(axis=1)
    yield above("rare_have_more_of_v", estimate(rare - share), 0.0, "% of v")
    if {"weighted", "oversampled"} <= found.keys():
        noises = (found[x][1] for x in ("weighted", "oversampled"))
        gain = percent_of_mean(*noises)
        yield above("weights_are_noisier_than_draws", gain, 0.0, "% of the noise")
    yield from family(
        "rule",
        [
            agrees(
                f"{remedy}_{group}_hold_at_{kappa:g}",
                pair(s, runs, remedy, kappa, group).off(),
                s.bound,
                "% of loss",
            )
            for remedy in s.remedies
            for group in GROUPS
            for kappa in s.kappas
        ],
    )
    yield from family("further", comparisons(s, runs))


def comparisons(s: Settings, runs: Runs) -> Iterator[Verdict]:
    """Yields that rare classes are further off, and that remedies bring them nearer."""
    for kappa in s.kappas:
        rare = pair(s, runs, "none", kappa, "rare")
        gain = rare.further_off_than(pair(s, runs, "none", kappa, "common"))
        claim = f"rare_further_off_than_common_at_{kappa:g}"
        yield above(claim, gain, 0.0, "points of % of loss")
        for remedy in ("oversampled", "weighted"):
            if remedy in s.remedies:
                gain = rare.further_off_than(pair(s, runs, remedy, kappa, "rare"))
                claim = f"{remedy}_bring_rare_nearer_at_{kappa:g}"
                yield above(claim, gain, 0.0, "points of % of loss")
        if "larger" in s.remedies:
            gain = pair(s, runs, "larger", kappa, "rare").further_off_than(rare)
            claim = f"larger_batch_rare_further_off_at_{kappa:g}"
            yield above(claim, gain, 0.0, "points of % of loss")


def figure(s: Settings, outcome: Outcome, path: Path) -> None:
    """Draws each class's share of draws and of v, and the loss against κ."""
    counts, runs = outcome
    drawing, (left, right) = new_figure(2, height=4.8)
    colour = colours(s.remedies)
    classes = np.arange(len(counts))
    share = 100 * counts / counts.sum()
    left.plot(classes, share, color="black", ls="--", label="share of the images")
    for remedy in set(s.remedies) - {"larger"}:  # which has the shares of none
        shares = levels(s, outcome, remedy)[2]
        points(left, classes, estimate(100 * shares), colour=colour[remedy], ls="-")
    left.set_yscale("log")
    left.set_xticks(classes)
    label(left, x="class, the commonest first", y="share of v, %", legend="best")
    for number, remedy in enumerate(s.remedies):
        for group, dashes, side in zip(GROUPS, ("-", ":"), (0, 0.5), strict=True):
            pairs = [pair(s, runs, remedy, kappa, group) for kappa in s.kappas]
            gaps = stack([each.off() for each in pairs])
            x = np.array(s.kappas) * 1.06 ** (number + side - len(s.remedies) / 2)
            text = f"{group} classes, {REMEDIES[remedy]}"
            style = dict(colour=colour[remedy], ls=dashes, ms=4, label=text)
            points(right, x, gaps, **style)
    spans(right, [(-s.bound, s.bound)], along="y")
    right.set_xscale("log", base=2)
    right.set_xticks(s.kappas, [f"{kappa:g}" for kappa in s.kappas])
    plain_symlog_axis(right, linear=2 * s.bound)
    label(
        right,
        x="κ, batch in units of the base batch",
        y="held-out loss, % from κ = 1",
        title=f"grey: ±{s.bound:g}%, bars 95%",
    )
    shared_legend(drawing, right, columns=2)
    save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"classes": figure},
    task=build_task,
    by_accuracy=True,
)
