"""The arms of `experiments.scaling`: each rule at each κ, and SVAG at each ℓ."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import jax

import optsde
from experiments.schedule import ScheduleSettings
from optsde import gradients
from optsde.gradients import Sampler
from optsde.optimizers import Optimizer
from optsde.plans.plan import has_signal_rule
from optsde.run import Task
from optsde.study import (
    Integers,
    Names,
    Seeds,
    UsageError,
    require,
    results,
    setting,
)
from optsde.study.arms import Arm
from optsde.study.probes import ProbeSettings
from optsde.study.tasks import LabelSettings
from optsde.types import Schedule

RULES = {
    "rule": "the rule",
    "signal": "the rule, lr by the signal's share",
    "signal_by_leaf": "the rule, lr by the signal's share in each leaf",
    "invariant": "lr × κ, v of micro-batches",
    "linear": "lr × κ, all else alone",
    "sqrt_lr_only": "lr × √κ, all else alone",
    "fixed": "nothing changed",
    "rule_but_lr_linear": "the rule, but lr × κ",
    "rule_but_lr_root": "the rule, but lr × √κ",
    "rule_but_lr_fixed": "the rule, but lr alone",
    "rule_but_betas_fixed": "the rule, but β alone",
    "rule_but_eps_fixed": "the rule, but ε alone",
    "rule_but_decay_fixed": "the rule, but λ alone",
}
SIGNAL = "signal", "signal_by_leaf"  # rules with a boost from measurements
WAYS_OUT = *SIGNAL, "invariant"  # where the signal rules; no controls of the rule
JUDGED_UNTIL = 8  # largest κ at which the rule must lie nearer than each control


class Settings(LabelSettings, ProbeSettings, Seeds):
    optimizer: Optimizer = setting(optsde.Adam(lr=1.4e-3), "of the base run")
    batch_size: int = setting(2, "of the base run", at_least=1)
    horizon: float = setting(5120.0, "length of the run, in base steps", above=0)
    schedule: ScheduleSettings = setting(ScheduleSettings(), "of lr, in base steps")
    clip: float = setting(0.0, "largest norm of a gradient", zero="any", at_least=0)
    group: int = setting(
        1, "examples in a pass, which share BatchNorm's statistics; 1: all", at_least=1
    )
    alpha: float = setting(
        0.0,
        "index of stable noise added to gradients; 0: none",
        at_least=0,
        at_most=2,
        needs="0 (off) or up to 2 (Gaussian)",
    )
    tail_size: float = setting(0.0, "its scale at the base batch", at_least=0)
    kappas: Integers = setting(
        (2, 4, 8, 16, 32, 64),
        "batches, in base batches",
        above=1,
        entries=1,
        distinct=True,
    )
    rules: Names = setting(
        ("rule", "linear", "sqrt_lr_only", "fixed"),
        "tried at each κ",
        some_of=RULES,
    )
    memory: str = setting(
        "power", "decays become β**κ; linear: 1 − κ(1 − β)", one_of=("linear", "power")
    )
    controls_until: float = setting(64.0, "largest κ of the other rules", at_least=0)
    ells: Integers = setting(
        (2, 4), "ℓ of each run of SVAG", zero="no SVAG", above=1, distinct=True
    )
    svag_until: float = setting(
        0.25, "share of the run that SVAG takes", above=0, at_most=1
    )
    evaluations: int = setting(8, "evaluations of each run", at_least=1)
    probe_seeds: int = setting(16, "for the prediction; 1: not of how much", at_least=1)
    probe_until: float = setting(
        1.0,
        "share of the run, for the prediction; below 1: not of how much",
        above=0,
        at_most=1,
    )
    draws: int = setting(
        256, "gradients of one measurement", at_least=32, multiple_of=16
    )
    close: float = setting(
        1.2, "factor of noise-driven loss and speed, for the prediction", above=1
    )
    tail_group: int = setting(
        16,
        "batches in a term, of which sums are formed",
        at_least=1,
        at_most=1024,  # the index takes 256 gradients for each
    )
    seeds: int = setting(
        64, "runs of each arm", at_least=3, needs="at least 3, for intervals"
    )
    bound: float = setting(
        5.0,
        "for 'the same as the base run'",
        unit="% of loss",
        above=0,
        at_most=100,
    )
    verify: bool = setting(True, "or only predict")

    @property
    def every(self) -> float:
        """Base steps from one evaluation to the next."""
        return self.horizon / self.evaluations

    def base_plan(self) -> optsde.Plan:
        """Returns the plan of the base run."""
        return optsde.Plan(
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            horizon=self.horizon,
            schedule=self.schedule.build(),
            clip=self.clip or None,
        ).checked()

    def demands(self):
        yield from super().demands()
        fine = self.group <= self.batch_size
        yield fine, "group", f"at most batch_size={self.batch_size}"
        yield from self.schedule.within(self.horizon)
        fine = (self.alpha > 0) == (self.tail_size > 0)
        yield fine, "tail_size", "a positive number with alpha, 0 without"
        fine = self.optimizer.response() is not None
        yield fine, "optimizer.name", "a preconditioner to weigh noise by"
        yield "rule" in self.rules, "rules", "'rule' among them"
        for rule in set(SIGNAL) & set(self.rules):
            fine = has_signal_rule(self.optimizer)
            yield fine, "rules", f"no {rule!r} where the optimizer averages no g²"
        fine = "invariant" not in self.rules or type(self.optimizer) is optsde.Adam
        yield fine, "rules", "no 'invariant' where the optimizer is not Adam"
        for arm in arms(self):
            steps = self.every / arm.plan.dt
            fine = abs(steps - round(steps)) < 1e-9 and round(steps) >= 1
            allowed = f"whole steps in horizon/evaluations = {self.every:g} base steps"
            yield fine, "ells" if arm.ell else "kappas", allowed
        for name in ("svag_until", "probe_until"):
            count = getattr(self, name) * self.evaluations
            fine = abs(count - round(count)) < 1e-9 and round(count) >= 1
            yield fine, name, f"a whole number of the {self.evaluations} evaluations"


@dataclasses.dataclass(frozen=True)
class RuleArm(Arm):
    """The base run, SVAG(ℓ), or a rule at κ; all have the same seeds and clock."""

    rule: str = ""
    kappa: float = 0.0
    ell: float = 0.0

    @property
    def group(self) -> str:
        """The folder of the arms that run as one ensemble."""
        folder = self.name.partition("/")[0]
        return f"{folder}_{self.rule}" if self.rule in WAYS_OUT else folder

    @property
    def title(self) -> str:
        if self.ell:
            return f"SVAG ℓ = {self.ell:g}"
        return f"κ = {self.kappa:g}" if self.kappa else "base"


def at_kappa(kappa: float, rule: str = "rule") -> str:
    """Returns the name of the arm of a rule at κ."""
    return f"kappa{kappa:g}/{rule}"


def at_ell(ell: float) -> str:
    """Returns the name of the arm of SVAG(ℓ)."""
    return f"svag{ell:g}"


def judged(s: Settings) -> list[int]:
    """Returns the κ at which the rule must lie nearer than each control."""
    return [k for k in s.kappas if k <= min(JUDGED_UNTIL, s.controls_until)]


def of_plan(plan: optsde.Plan, **settings) -> Settings:
    """Returns the settings of a study whose base run is this plan."""
    names, others = ("optimizer", "batch_size", "horizon"), ("schedule", "clip")
    if plan.average is not None:
        raise UsageError(
            f"plan.average={plan.average}: the study compares the weights themselves; "
            "needs None: dataclasses.replace(plan, average=None)"
        )

    class OfPlan(Settings):
        def base_plan(self):
            return plan.checked()

    return OfPlan(**results.of_plan(plan, settings, names, others))


def arms(
    s: Settings, boosts: Mapping[tuple[str, float], Schedule] | None = None
) -> Iterator[RuleArm]:
    """Yields the base run, SVAG at each ℓ, and every rule at each κ.

    Signal rules are among them where `boosts`, their boosts by rule and κ, are known.
    """
    boosts = boosts or {}
    base = s.base_plan()
    yield RuleArm("base", base)
    for ell in s.ells:
        plan = optsde.svag(base, ell, memory=s.memory)
        plan = dataclasses.replace(plan, horizon=s.horizon * s.svag_until)
        yield RuleArm(at_ell(ell), plan, ell=ell)
    for kappa, rule in itertools.product(s.kappas, s.rules):
        late = kappa > s.controls_until and rule not in ("rule", *WAYS_OUT)
        boost = boosts.get((rule, kappa))
        if late or (rule in SIGNAL and boost is None):
            continue
        try:
            plan = by_rule(base, kappa, rule, s.memory, boost)
        except ValueError as error:
            message = f"--config.kappas: {kappa:g} among them: {error}"
            raise UsageError(message) from None
        yield RuleArm(at_kappa(kappa, rule), plan, rule=rule, kappa=kappa)


def by_rule(
    base: optsde.Plan,
    kappa: float,
    rule: str,
    memory: str,
    boost: Schedule | None = None,
) -> optsde.Plan:
    """Returns the plan at κ under one of the rules of `RULES`.

    Adam is the invariant Adam of one micro-batch, so that the base run is that of both.
    """
    if rule in ("linear", "sqrt_lr_only", "fixed"):
        return optsde.scale(base, kappa, rule)
    if rule in SIGNAL:
        return optsde.scale(base, kappa, "signal", memory=memory, boost=boost)
    if rule == "invariant":
        same = optsde.InvariantAdam(**vars(base.optimizer))
        base = dataclasses.replace(base, optimizer=same)
        return optsde.scale(base, kappa, memory=memory)
    plan = optsde.scale(base, kappa, memory=memory)
    old, new = base.optimizer.single(), plan.optimizer.single()
    names = [field.name for field in dataclasses.fields(old)]
    changes = {
        "rule": {},
        "rule_but_lr_linear": {"lr": old.lr * kappa},
        "rule_but_lr_root": {"lr": old.lr * kappa**0.5},
        "rule_but_lr_fixed": {"lr": old.lr},
        "rule_but_betas_fixed": {n: getattr(old, n) for n in old.decays()},
        "rule_but_eps_fixed": {n: getattr(old, n) for n in names if "eps" in n},
        "rule_but_decay_fixed": {"weight_decay": old.weight_decay},
    }[rule]
    return dataclasses.replace(plan, optimizer=dataclasses.replace(new, **changes))


def sampler_of(s: Settings, task: Task) -> Sampler:
    """Returns batches of independent draws, with heavy tails where `alpha` asks."""
    fine = s.group > 1 or not task.examples_interact
    allowed = "the size of ghost groups, for BatchNorm's would else grow with the batch"
    require(fine, "group", s.group, allowed)
    group = None if s.group == 1 else s.group
    sampler = gradients.minibatch(
        task.losses, task.train, group=group, augment=task.augment
    )
    if not s.alpha:
        return sampler

    def heavy_tailed(batch_size: int):
        larger = batch_size / s.batch_size
        size = s.tail_size * larger ** (1 / s.alpha - 1)
        return gradients.heavy_tailed(sampler(batch_size), s.alpha, size)

    return heavy_tailed


def keys_of(s: Settings, count: int) -> jax.Array:
    """Returns the same keys for every arm, so that differences are paired."""
    return jax.random.split(jax.random.key(s.seed), count)
