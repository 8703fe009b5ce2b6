"""The arms of `experiments.scaling`: a plan for each rule, κ and ℓ of a config."""

import dataclasses
import itertools

from ml_collections import ConfigDict

import optsde
from experiments import probes, tasks
from experiments.launch import UsageError, optimizer_of, require
from optsde import schedules
from optsde.optimizers import Memory

RULES = {
    "rule": "the rule",
    "linear": "lr × κ, all else alone",
    "sqrt_lr_only": "lr × √κ, all else alone",
    "fixed": "nothing changed",
    "rule_but_lr_linear": "the rule, but lr × κ",
    "rule_but_lr_fixed": "the rule, but lr alone",
    "rule_but_betas_fixed": "the rule, but β alone",
    "rule_but_eps_fixed": "the rule, but ε alone",
    "rule_but_decay_fixed": "the rule, but λ alone",
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of training; all arms have the same seeds and the same clock."""

    rule: str
    plan: optsde.Plan
    kappa: float = 0.0
    ell: float = 0.0

    @property
    def group(self) -> str:
        """Of arms that share batch, steps and noise: they run as one ensemble."""
        if self.ell:
            return f"svag{self.ell:g}"
        return f"kappa{self.kappa:g}" if self.kappa else "base"

    @property
    def label(self) -> str:
        if self.ell:
            return f"SVAG ℓ = {self.ell:g}"
        if not self.kappa:
            return f"base, batch {self.plan.batch_size}"
        return f"κ = {self.kappa:g}, {RULES[self.rule]}"


def check(config: ConfigDict) -> None:
    """Refuse settings that cannot be run, before anything is compiled or written."""
    for name in ("batch_size", "evaluations", "group", "statistics"):
        require(config[name] >= 1, config, name, "an integer ≥ 1")
    require(config.seeds >= 3, config, "seeds", "at least 3, for intervals")
    require(config.probe_seeds >= 1, config, "probe_seeds", "at least 1")
    require(config.tail_group >= 1, config, "tail_group", "an integer ≥ 1")
    fine = config.draws >= 32 and config.draws % 16 == 0
    require(fine, config, "draws", "a multiple of 16 from 32 on")
    fine = config.group <= config.batch_size
    require(fine, config, "group", f"at most batch_size={config.batch_size}")
    fine = (config.alpha > 0) == (config.tail_size > 0)
    require(fine, config, "tail_size", "a positive number with alpha, 0 without")
    text = config.model == "transformer"
    fine = config.augment in (("none", "masked") if text else ("none", "live"))
    require(fine, config, "augment", "none, or live for images, masked for text")
    both = config.schedule.cosine and config.schedule.milestones
    require(not both, config, "schedule", "cosine or milestones, not both")
    known = base_plan(config).optimizer.response() is not None
    require(
        known,
        config.optimizer,
        "name",
        "a preconditioner to weigh noise by",
        "optimizer.",
    )
    require(config.bound > 0, config, "bound", "a positive number of percent")
    require(config.close > 1, config, "close", "a factor above 1")
    require(0 <= config.alpha <= 2, config, "alpha", "0 (off) or up to 2 (Gaussian)")
    require(0 < config.imbalance <= 1, config, "imbalance", "a share in (0, 1]")
    require(0 <= config.label_noise < 1, config, "label_noise", "a share in [0, 1)")
    require(config.memory in ("linear", "power"), config, "memory", "linear or power")
    allowed = ", ".join(RULES)
    for rule in config.rules:
        require(rule in RULES, config, "rules", f"some of: {allowed}")
    require("rule" in config.rules, config, "rules", "'rule' among them")
    kappas = config.kappas
    require(bool(kappas) and min(kappas) > 1, config, "kappas", "numbers above 1")
    require(min(config.ells, default=2) > 1, config, "ells", "numbers above 1")
    require(
        0 < config.svag_until <= 1 and 0 < config.probe_until <= 1,
        config,
        "svag_until",
        "it and probe_until to be shares of the run in (0, 1]",
    )
    every = config.horizon / config.evaluations
    for arm in arms(config):
        steps = every / arm.plan.dt
        require(
            abs(steps - round(steps)) < 1e-9 and round(steps) >= 1,
            config,
            "ells" if arm.ell else "kappas",
            f"whole steps in horizon/evaluations = {every:g} base steps",
        )
    for name in ("svag_until", "probe_until"):
        looks = config[name] * config.evaluations
        require(
            abs(looks - round(looks)) < 1e-9 and round(looks) >= 1,
            config,
            name,
            f"a whole number of the {config.evaluations} evaluations",
        )
    tasks.build_model(config, 10)
    probes.check(config)


def base_plan(config: ConfigDict) -> optsde.Plan:
    schedule = schedules.constant()
    after = config.schedule
    if after.cosine:
        schedule = schedules.cosine(after.cosine)
    elif after.milestones:
        schedule = schedules.milestones([t - after.warmup for t in after.milestones])
    if after.warmup:
        ramp = schedules.exponential_warmup if after.exponential else schedules.warmup
        schedule = ramp(after.warmup, after=schedule)
    return optsde.Plan(
        optimizer=optimizer_of(config),
        batch_size=config.batch_size,
        horizon=config.horizon,
        schedule=schedule,
        clip=config.clip or None,
    ).checked()


def arms(config: ConfigDict) -> list[Arm]:
    """The base run, SVAG at each ℓ, and every rule at each κ."""
    base = base_plan(config)
    made = [Arm("base", base)]
    for ell in config.ells:
        plan = optsde.svag(base, ell, memory=config.memory)
        until = config.horizon * config.svag_until
        made.append(Arm("svag", dataclasses.replace(plan, horizon=until), ell=ell))
    for kappa, rule in itertools.product(config.kappas, config.rules):
        if rule != "rule" and kappa > config.controls_until:
            continue
        try:
            plan = _by_rule(base, kappa, rule, config.memory)
        except ValueError as error:
            raise UsageError(
                f"--config.kappas: {kappa:g} among them: {error}"
            ) from None
        made.append(Arm(rule, plan, kappa=kappa))
    return made


def _by_rule(base: optsde.Plan, kappa: float, rule: str, memory: str) -> optsde.Plan:
    """The plan at κ under one of the rules of `RULES`."""
    if rule in ("linear", "sqrt_lr_only", "fixed"):
        return optsde.scale(base, kappa, rule)
    plan = optsde.scale(base, kappa, memory=memory)
    old, new = base.optimizer, plan.optimizer
    names = [field.name for field in dataclasses.fields(old)]
    decays = [n for n in names if isinstance(old.rule.get(n), Memory)]
    changes = {
        "rule": {},
        "rule_but_lr_linear": {"lr": old.lr * kappa},
        "rule_but_lr_fixed": {"lr": old.lr},
        "rule_but_betas_fixed": {n: getattr(old, n) for n in decays},
        "rule_but_eps_fixed": {n: getattr(old, n) for n in names if "eps" in n},
        "rule_but_decay_fixed": {"weight_decay": old.weight_decay},
    }[rule]
    return dataclasses.replace(plan, optimizer=dataclasses.replace(new, **changes))


def grouped(made: list[Arm]) -> list[list[Arm]]:
    """Arms of one step and batch, which run as one ensemble."""
    groups: dict[tuple, list[Arm]] = {}
    for arm in made:
        groups.setdefault((arm.kappa, arm.ell), []).append(arm)
    return list(groups.values())
