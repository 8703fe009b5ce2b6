"""explain(a, b): what a rescaling changed, by which power of κ, and why."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from optsde.analysis.tables import table
from optsde.optimizers import EMA, SWA, Memory, Optimizer
from optsde.plans.plan import Plan, check_plan, rescaled
from optsde.types import Scalar

_SHRINKING = {
    "l2": "part of the gradient, which is averaged and not added up",
    "weight_decay": "the weights forget per sample as before: lr·λ ∝ κ",
    "absolute_decay": "the weights forget per sample as before",
}


class _Row(NamedTuple):
    name: str
    before: Scalar
    after: Scalar
    rule: Scalar
    why: str


def explain(before: Plan, after: Plan) -> str:
    """A table of the differences between a plan and its rescaled version.

    Each row says by which power of κ a setting changed and why the SDE's rule asks for
    that. Where the second plan departs from the rule, the row says what the rule sets.

    >>> from optsde import SGD, Plan, scale
    >>> plan = Plan(optimizer=SGD(lr=0.1), batch_size=64, horizon=100)
    >>> print(explain(plan, scale(plan, 4)))
    κ = 4: one step of the second plan is 4 of the first
                before  after  factor  why
    ──────────  ──────  ─────  ──────  ──────────────────────────────────
    batch size      64    256  κ       the larger batch makes less noise
    steps          100     25  κ^-1    same samples, same schedule
    lr             0.1    0.4  κ       κ times fewer steps must go as far
    """
    check_plan("before", before)
    check_plan("after", after)
    kappa = after.dt / before.dt
    if any(np.ndim(leaf) for leaf in jax.tree.leaves((before, after))):
        raise ValueError("explain compares single plans: take one of the stacked ones")
    kinds = [
        {name: type(part).__name__ for name, part in plan.optimizer.by_group().items()}
        for plan in (before, after)
    ]
    if kinds[0] != kinds[1]:
        one, other = (
            ", ".join(f"{name} {kind}".strip() for name, kind in kind.items())
            for kind in kinds
        )
        raise ValueError(
            f"explain compares two plans of one optimizer, not {one} and {other}"
        )
    rows = []
    for row in _rows(before, after, kappa):
        if kappa == 1 and row.before == row.after:
            continue
        ratio = _ratio(row.after, row.before)
        why = row.why
        if row.name == "clip" and row.after == row.before:
            why = "left alone, right only where the mean makes up the gradient's norm"
        elif abs(_ratio(row.after, row.rule) - 1) > 1e-6:
            why = f"a departure: the rule sets {_number(row.rule)}"
        factor = _power(ratio, kappa)
        rows.append([row.name, _number(row.before), _number(row.after), factor, why])
    inverse = round(1 / kappa)
    exact = kappa < 1 and math.isclose(inverse * kappa, 1)
    shown = f"1/{inverse}" if exact else f"{kappa:g}"
    if before.boost is not after.boost:
        why = "the signal's share of v, which shrinks less than √κ says"
        rows.append(["lr over time", "1", "b(t)", "", why])
    for name, old, new in _unruled(before, after):
        rows.append(
            [name, old, new, "", "a departure: no rule adds, removes or replaces this"]
        )
    head = f"κ = {shown}: one step of the second plan is {shown} of the first"
    return head + "\n" + table(["", "before", "after", "factor", "why"], rows, "lrrll")


def _rows(before: Plan, after: Plan, kappa: float) -> list[_Row]:
    rows = []

    def add(name: str, values: Sequence[Scalar], why: str) -> None:
        """The values are those before, after, and by the rule."""
        old, new, rule = values
        rows.append(_Row(name, old, new, rule, why))

    gain = kappa * after.noise_gain / before.noise_gain
    if after.batch_size != before.batch_size:
        rule = before.batch_size * gain
        why = "the larger batch makes less noise"
        if rule < before.batch_size:
            why = "the smaller batch makes more noise"
        add("batch size", (before.batch_size, after.batch_size, rule), why)
    if after.noise_gain != before.noise_gain:
        rule = before.noise_gain * after.batch_size / before.batch_size / kappa
        why = "variance that the signed mix of two draws supplies"
        add("noise gain", (before.noise_gain, after.noise_gain, rule), why)
    why = "same samples, same schedule"
    if after.steps * after.dt > after.horizon + 1e-9:
        why += f" ({after.horizon / after.dt:g}, rounded up)"
    add("steps", (before.steps, after.steps, after.steps), why)

    expected = rescaled(before, kappa, _memory_form(before, after, kappa), "noise")
    rows += _of_optimizers(before, after, expected)
    clips = [p.clip for p in (before, after, expected) if p.clip is not None]
    if len(clips) == 3:
        add("clip", clips, "where noise makes up the gradient's norm")
    averages = [p.average for p in (before, after, expected)]
    decays = [1 - a.decay for a in averages if isinstance(a, EMA)]
    if len(decays) == 3:
        add("1 − EMA decay", decays, "the average keeps its memory in samples")
    return rows


def _of_optimizers(before: Plan, after: Plan, expected: Plan) -> list[_Row]:
    """Returns the rows of hyperparameters, by group where groups differ in them."""
    groups = list(before.optimizer.by_group())
    triples = zip(
        *(plan.optimizer.by_group().values() for plan in (before, after, expected)),
        strict=True,
    )
    found = [{row.name: row for row in _of_optimizer(*triple)} for triple in triples]
    rows = []
    for name in dict.fromkeys(name for each in found for name in each):
        own = [each.get(name) for each in found]
        alike = own.count(own[0]) == len(own)
        for group, row in zip([""] if alike else groups, own, strict=False):
            if row is not None:
                rows.append(row._replace(name=f"{name} ({group})" if group else name))
    return rows


def _of_optimizer(a: Optimizer, b: Optimizer, rule: Optimizer) -> Iterator[_Row]:
    """Yields the rows of an optimizer before, after, and by the rule."""
    for name, law in a.rule.items():
        old, new, ruled = (getattr(x, name) for x in (a, b, rule))
        if isinstance(law, Memory):
            yield _Row(f"1 − {name}", 1 - old, 1 - new, 1 - ruled, law.why)
        elif (old, new) != (0, 0):
            yield _Row(name, old, new, ruled, law.why)
    for name, why in _SHRINKING.items():
        old, new, ruled = (getattr(x, name) for x in (a, b, rule))
        if (old, new) != (0, 0):
            yield _Row(name, old, new, ruled, why)


def _unruled(before: Plan, after: Plan) -> list[tuple[str, str, str]]:
    """Returns rows of what was changed although no rule changes it."""

    def settings(plan: Plan) -> dict[str, str]:
        flags = {
            f"{name} ({group})" if group else name: value
            for group, part in plan.optimizer.by_group().items()
            for name, value in vars(part).items()
            if isinstance(value, bool)
        }
        clip = "none" if plan.clip is None else "some"
        average = plan.average
        kind = repr(average) if isinstance(average, SWA) else type(average).__name__
        known = dict(horizon=plan.horizon, clip=clip, average=kind, **flags)
        return {k: str(v) for k, v in known.items()}

    a, b = settings(before), settings(after)
    rows = [(name, a[name], b[name]) for name in a if a[name] != b[name]]
    if before.schedule is not after.schedule:
        rows.append(("schedule", "one", "another"))
    return rows


def _memory_form(before: Plan, after: Plan, kappa: float) -> str:
    """Returns the form of the rule to compare with: that of `after`, if it has one."""
    parts = (plan.optimizer.by_group().values() for plan in (before, after))
    power = any(_by_powers(a, b, kappa) for a, b in zip(*parts, strict=True))
    return "power" if power else "linear"


def _by_powers(a: Optimizer, b: Optimizer, kappa: float) -> bool:
    """Tells whether decays became powers, or cannot follow κ otherwise."""
    decays = a.decays()
    if not decays:
        return False
    power = a.rescaled(kappa, "power")
    followed = all(
        math.isclose(getattr(b, n), getattr(power, n), rel_tol=1e-6) for n in decays
    )
    return followed or any(kappa * (1 - getattr(a, name)) > 1 for name in decays)


def _ratio(a: Scalar, b: Scalar) -> float:
    return float(a) / float(b) if b else float("inf") if a else 1.0


def _power(ratio: float, kappa: float) -> str:
    """The ratio as a power of κ, or as a number where it is none."""
    if math.isclose(ratio, 1, rel_tol=1e-9):
        return "1"
    if ratio <= 0 or math.isinf(ratio) or kappa == 1:
        return f"{ratio:.4g}"
    exponent = math.log(ratio) / math.log(kappa)
    near = round(2 * exponent) / 2
    if abs(exponent - near) > 5e-3:
        return f"{ratio:.4g}"
    return "κ" if near == 1 else "√κ" if near == 0.5 else f"κ^{near:g}"


def _number(value: Scalar) -> str:
    number = float(value)
    return f"{number:.0f}" if number == round(number) < 1e9 else f"{number:g}"
