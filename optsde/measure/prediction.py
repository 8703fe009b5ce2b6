"""How far the square-root (or linear) rule holds, from one short run at the base batch.

On a quadratic with noise, along one direction of curvature h, let ρ = lr·h/(2P) at
P = √N and q = G/N of one batch at equilibrium. The loss that noise keeps up is q/ρ in
units of the SDE's, and at κ times the batch ρ becomes κρ. With F, a and s from
`optsde.optimizers.response`, at the decays of that κ,

    q = x F(x),    x = κρ/u,    F(x) = (1 + 2 s a x)/((1 + 2 s x)(1 − a x)).

u = √(1+q) for `adaptive` optimizers, whose P² = G + N counts the signal too, so that
they also go u times slower; u = 1 for others. Without look-ahead (s = 0) that is
q (u − aκρ) = κρ, with a = (1−β)/(1+β), and a = 1 without momentum. So the measured q
gives ρ, and ρ gives the loss F/u and u at every κ. The rule "holds" while both are
within C of the base run; √2 is the factor of Li, Malladi and Arora (2021). For small q
that is then a κ of .29/q for SGD, .71/q for RMSprop, and for Adam 1.41/(q (1+a)).

AdaGrad sums squares for ever, its steps shrink and it has no equilibrium. It is judged
by its speed alone, √((1+q)/(1+κq)) at the q = ΣG/ΣN of all the run so far.

What the rule *cannot* outlast is another matter. A linear memory ends where 1 − β
grows to 1. And weights of a scale-invariant net have their size from an equilibrium of
weight decay with G + N, in the SDE with N alone; so SGD with decay leaves it for sure
where κG/N passes C², at κ = C²(1 + N/G) with C = √2 (Li, Malladi and Arora 2021).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from optsde.analysis.statistics import Estimate, Interval, interval
from optsde.analysis.tables import table
from optsde.checks import check_number
from optsde.measure.noise import Noise, check_kappas
from optsde.measure.tails import Tail
from optsde.optimizers import Groups, Optimizer, Power
from optsde.plans.plan import Plan, check_plan

CLOSE = math.sqrt(2)
FEW_STEPS = 50
RULE_OF_LR = {0.0: "fixed-lr", 0.5: "square-root", 1.0: "linear"}  # by its power of κ
GAUSSIAN = 1.9  # α whose interval reaches this counts as 2


class Bound(NamedTuple):
    """The rule holds up to this κ, as far as this one thing is concerned."""

    name: str
    kappa: float
    low: float
    high: float
    because: str


class Expected(NamedTuple):
    """The equilibrium at κ times the batch, as predicted."""

    kappa: float
    steps: int
    ratio: float  # G/N of one batch
    loss: float  # that noise keeps up, in units of the base run's
    speed: float  # of learning per sample, in units of the base run's


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A prediction of how far a rule holds; `ratio` is the G/N it is judged by."""

    rule: str
    kappa: float
    low: float
    high: float
    because: str
    ratio: Interval
    cannot_hold_beyond: tuple[Bound, ...]
    limits: tuple[Bound, ...]
    expected: tuple[Expected, ...]
    cautions: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            [b.name, f"{b.kappa:.3g}", f"[{b.low:.3g}, {b.high:.3g}]", b.because]
            for b in self.limits
        ]
        bounds = table(["limit", "κ", "interval", "because"], rows, "lrrl")
        rows = [
            [f"{e.kappa:g}", e.steps, *("–" if x != x else f"{x:.2g}" for x in e[2:])]
            for e in self.expected
        ]
        header = ["κ", "steps", "G/N", "noise loss ×", "speed ×"]
        lines = [
            f"{self.rule} rule expected to hold up to κ = {self.kappa:.3g} "
            f"[{self.low:.3g}, {self.high:.3g}], because {self.because}",
            *(
                f"It cannot hold beyond κ = {b.kappa:.3g} [{b.low:.3g}, {b.high:.3g}]: "
                f"{b.because}"
                for b in self.cannot_hold_beyond
            ),
        ]
        return "\n\n".join(
            [bounds, table(header, rows, "rrrrr"), *lines, *self.cautions]
        )


def predict(
    plan: Plan,
    noises: Noise | Sequence[Noise],
    times: Sequence[float] | None = None,
    tails: Tail | Sequence[Tail] | None = None,
    kappas: Sequence[float] = (2, 4, 8, 16, 32, 64),
    memory: str = "linear",
    close: float = CLOSE,
) -> Prediction:
    """Predicts how far the plan's scaling rule holds, and why no further.

    noises: measured along a run of `plan`, one per time: a list, or stacked as
    `ensemble` gives them, [replicas, times]. The second half of the times counts, as
    ΣG/ΣN; with AdaGrad all of it. times: in base steps; without them the measurements
    are taken for evenly spaced.
    tails: of the noise at the base batch; what they say is a caution about the SDE and
    no limit of the rule, see below. close: the factor within which loss and speed
    of learning must stay for the rule to hold.
    """
    check_plan("plan", plan)
    check_kappas(kappas)
    _check_close(close)
    stacked = _stacked(noises)
    half = _half(stacked, times)
    optimizer = plan.optimizer.representative()
    late = _ratio(stacked, 0 if sums_for_ever(optimizer) else half)
    memories = _memory(optimizer, memory)
    limits = [*memories, _signal(optimizer, late, memory, close)]
    least = min(limits, key=lambda bound: bound.kappa)
    q, loss, speed = _expected(optimizer, late.value, np.array(kappas), memory)
    steps = [math.ceil(plan.steps / kappa - 1e-9) for kappa in kappas]
    rows = zip(kappas, steps, q, loss, speed, strict=True)
    return Prediction(
        rule=RULE_OF_LR.get(_power_of_lr(optimizer), "optimizer's own"),
        kappa=least.kappa,
        low=min(bound.low for bound in limits),
        high=min(bound.high for bound in limits),
        because=least.because,
        ratio=late,
        cannot_hold_beyond=(
            *sorted(memories, key=lambda bound: bound.kappa)[:1],
            *_invariant(plan.optimizer, late),
        ),
        limits=tuple(limits),
        expected=tuple(Expected(*row) for row in rows),
        cautions=(
            *_tails(tails),
            *_cautions(plan, stacked, times, half, late, least.kappa),
        ),
    )


def departure(
    optimizer: Optimizer, ratio: float, kappas: np.ndarray, memory: str = "linear"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (G/N, noise-driven loss, speed) at κ, the last two relative to κ = 1.

    ratio: G/N at κ = 1, in equilibrium. Refuses optimizers without a `response`, such
    as sign methods: no closed form says what their momentum leaves of the noise; and
    AdaGrad, which has no equilibrium.
    """
    kappas = np.asarray(kappas, np.float64)
    response = optimizer.response_at(np.append(1.0, kappas), memory)
    if response is None:
        raise ValueError(
            f"{type(optimizer).__name__} has no response to predict by, since its step "
            "is no filter of gradients; use SGD, a momentum, RMSprop or Adam"
        )
    if sums_for_ever(optimizer):
        raise ValueError(
            f"{type(optimizer).__name__} has no equilibrium to depart from, since its "
            "steps shrink for ever; predict() judges it by its speed"
        )
    if ratio <= 0:
        return np.zeros_like(kappas), np.ones_like(kappas), np.ones_like(kappas)
    a = np.broadcast_to(response.alternating, kappas.size + 1)
    s = np.broadcast_to(response.lead, kappas.size + 1)
    u = math.sqrt(1 + ratio) if optimizer.adaptive else 1.0
    # x F(x) = ratio is 2 s a (1 + ratio) x² + slope x = ratio.
    slope = 1 + (a[0] - 2 * s[0]) * ratio
    bend = 8 * s[0] * a[0] * (1 + ratio) * ratio
    rho = 2 * ratio * u / (slope + math.sqrt(slope**2 + bend))
    step = np.append(1.0, kappas) * rho
    if optimizer.adaptive:
        u = _root(step, a, s)
        q = u * u - 1
    else:
        u = np.ones_like(step)
        left = (1 - a * step) * (1 + 2 * s * step)
        ahead = 1 + 2 * s * a * step
        q = np.where(left > 0, step * ahead / np.where(left > 0, left, 1), np.inf)
    loss = q / step
    return q[1:], loss[1:] / loss[0], u[0] / u[1:]


def holds_up_to(
    optimizer: Optimizer, ratio: float, memory: str = "linear", close: float = CLOSE
) -> float:
    """Returns the κ at which signal ends the rule, from G/N at κ = 1.

    It is the limit that `predict` calls "signal", for a ratio that was measured by
    other means. A linear memory may end before; `predict` has that limit besides.

    >>> from optsde import SGD
    >>> round(holds_up_to(SGD(), ratio=0.01))  # .29/ratio, to first order
    30
    """
    check_number("ratio", ratio, "G/N, a finite number")
    _check_close(close)
    kappas = np.geomspace(1, 2**30, 30 * 64 + 1)
    _, loss, speed = _expected(optimizer, ratio, kappas, memory)
    off = (loss > close) | (1 / loss > close) | (1 / speed > close)
    return float(kappas[off.argmax()]) if off.any() else math.inf


def _check_close(close: float) -> None:
    above_1 = float(np.nextafter(1, 2))
    check_number("close", close, "a factor above 1", above_1)


def _expected(optimizer, ratio, kappas, memory):
    """Returns what `departure` does; without an equilibrium, the speed and no loss."""
    if not sums_for_ever(optimizer):
        return departure(optimizer, ratio, kappas, memory)
    q = kappas * max(ratio, 0.0)
    speed = np.sqrt((1 + max(ratio, 0.0)) / (1 + q))
    return q, np.full_like(q, math.nan), speed


def _root(step: np.ndarray, a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns u > 1 of u² − 1 = x F(x), x = step/u, by bisection."""
    low, high = np.maximum(1, a * step), 2 + 2 * step
    for _ in range(60):
        middle = (low + high) / 2
        left = (middle - a * step) * (middle + 2 * s * step)
        above = (middle**2 - 1) * left > step * (middle + 2 * s * a * step)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high


def sums_for_ever(optimizer: Optimizer) -> bool:
    """Tells whether P sums for ever, so that no run comes to an equilibrium."""
    return math.isinf(float(optimizer.preconditioner_memory()))


def _power_of_lr(optimizer: Optimizer) -> float:
    law = optimizer.rule.get("lr")
    return law.exponent if isinstance(law, Power) else math.nan


def _stacked(noises: Noise | Sequence[Noise]) -> Noise:
    """Returns the measurements with leaves [replicas, times, ...]."""
    if not isinstance(noises, Noise):
        if not isinstance(noises, Sequence):
            raise ValueError(
                f"noises is a {type(noises).__name__}: needs what gradient_noise "
                "returns, or a list of it"
            )
        if not noises:
            raise ValueError("noises is empty: measure at one time at least")
        noises = jax.tree.map(lambda *x: np.stack(x), *noises)
    lead = np.ndim(jax.tree.leaves(noises.plain.squares)[0]) - 1
    if lead > 2:
        raise ValueError(
            f"noises has {lead} leading axes; at most two are allowed: "
            "[replicas, times]"
        )
    return jax.tree.map(lambda x: np.expand_dims(x, tuple(range(2 - lead))), noises)


def _half(noise: Noise, times: Sequence[float] | None) -> int:
    """Returns the number of measurements up to half of the time, or half of them."""
    count = jax.tree.leaves(noise.plain.squares)[0].shape[1]
    if times is None:
        return count // 2
    if len(times) != count:
        raise ValueError(f"times has {len(times)} entries, and noises {count}")
    return int(np.searchsorted(times, times[-1] / 2, side="right"))


def _ratio(noise: Noise, first: int) -> Interval:
    """Returns ΣG/ΣN from the first time on, with its spread over replicas if any.

    Both are weighted by 1/P, in which the step is steepest descent.
    """
    late = jax.tree.map(lambda x: x[:, first:], noise)
    pooled = late.total(weighted=True, pool=True)
    each = late.total(weighted=True)
    signal, size = (np.asarray(x, np.float64) for x in (each.signal, each.noise))
    replicas = signal.shape[0]
    ratio = signal.sum() / size.sum()
    if not math.isfinite(ratio):
        raise ValueError(
            f"G/N is {ratio}: the run or the measurement is not finite, or has no noise"
        )
    if replicas == 1:
        return interval(
            Estimate(np.asarray(ratio), np.asarray(pooled.ratio_se), np.inf)
        )
    residual = (signal - ratio * size).sum(1)
    se = math.sqrt(replicas / (replicas - 1) * np.square(residual).sum()) / size.sum()
    return interval(Estimate(np.asarray(ratio), np.asarray(se), replicas - 1))


def _memory(optimizer: Optimizer, form: str) -> list[Bound]:
    if form == "power":
        return []
    bounds = []
    for name in optimizer.decays():
        if getattr(optimizer, name) > 0:
            kappa = 1 / (1 - float(getattr(optimizer, name)))
            why = f"1 − {name} = {1 / kappa:.3g} grows to 1 (memory='power' has no end)"
            bounds.append(Bound(f"memory of {name}", kappa, kappa, kappa, why))
    return bounds


def _invariant(optimizer: Optimizer | Groups, ratio: Interval):
    """Yields the bound of Li, Malladi and Arora where P = 1 and weights decay."""
    rates = optimizer.intrinsic_rates()
    if rates is None or not float(rates.intrinsic) > 0:
        return

    def bound(value: float) -> float:
        return CLOSE**2 * (1 + 1 / value) if value > 0 else math.inf

    kappa, low, high = (bound(x) for x in (ratio.value, ratio.high, ratio.low))
    why = "if the net is scale-invariant: the size of its weights leaves the SDE's"
    yield Bound("size of scale-invariant weights", kappa, low, high, why)


def _signal(optimizer: Optimizer, ratio: Interval, memory: str, close: float) -> Bound:
    def limit(value: float) -> float:
        return holds_up_to(optimizer, value, memory, close)

    kappa, low, high = (limit(x) for x in (ratio.value, ratio.high, ratio.low))
    why = (
        f"G/N = {ratio.value:.2g} at κ = 1 grows with κ, and the noise no longer rules"
    )
    if ratio.value <= 0:
        why = f"no signal was seen in the noise, G/N = {ratio.value:.2g}"
    if ratio.value > 0.5:
        why = f"signal rules already at κ = 1: G/N = {ratio.value:.2g}"
    return Bound("signal", kappa, low, high, why)


def _tails(tails: Tail | Sequence[Tail] | None):
    """Yields the caution about heavy tails, which do not break the rule itself.

    Sums over the same samples are the same at any batch, whatever their law.

    lr·Σg of SGD, and lr·Σg/√Σg² of adaptive methods, are; so heavy tails leave the rule
    alone. They are not the Itô noise of the SDE, nor what SVAG makes of two draws.
    """
    if tails is None:
        return
    tail = min([tails] if isinstance(tails, Tail) else tails, key=lambda t: t.high)
    if tail.high < GAUSSIAN:
        yield (
            f"Noise is heavy-tailed, α = {tail.alpha:.3g} [{tail.low:.3g}, "
            f"{tail.high:.3g}]: the Itô SDE and SVAG need not describe the run. The "
            "rule itself holds for sums over the same samples, whatever their law"
        )


def _cautions(plan, noise: Noise, times, half: int, late: Interval, kappa: float):
    optimizer = plan.optimizer.representative()
    if sums_for_ever(optimizer):
        yield (
            f"{type(optimizer).__name__} has no equilibrium: it is judged by its "
            "speed alone, from G/N over all of the run, and its noise loss is not told"
        )
    if late.value > 0.5:
        yield (
            f"The rule will fail: at κ = 1 already, G/N = {late.value:.2g} is above .5"
        )
    if math.isinf(kappa):
        return
    steps = math.ceil(plan.steps / kappa - 1e-9)
    if steps < FEW_STEPS:
        yield f"Only {steps} steps are left at κ = {kappa:.3g}: the schedule is coarse"
    if not optimizer.adaptive or half < 1:
        return
    levels = noise.total(weighted=True)
    signal, size = np.asarray(levels.signal), np.asarray(levels.noise)
    early = (signal.sum(0) / size.sum(0))[:half]
    slower = np.sqrt((1 + kappa * np.maximum(early, 0)) / (1 + np.maximum(early, 0)))
    if slower.max() > CLOSE:
        last = int(np.flatnonzero(slower > CLOSE)[-1])
        until = "early" if times is None else f"up to t = {times[last]:g}"
        yield (
            f"G/N is as high as {early.max():.2g} {until}: at κ = {kappa:.3g} these "
            f"first steps go up to {slower.max():.2g} times slower and will lag"
        )
