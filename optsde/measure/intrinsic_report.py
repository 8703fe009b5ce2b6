"""Which parameters of a net are scale invariant, and what a plan makes of them."""

import dataclasses
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from optsde.analysis.tables import table
from optsde.gradients import Draw, Sampler, signed_mix
from optsde.measure.intrinsic import (
    ALL,
    Intrinsic,
    Rates,
    by_path,
    intrinsic_groups,
    intrinsic_rates,
)
from optsde.measure.invariance import (
    TOLERANCE,
    Invariance,
    Kind,
    invariance,
    joint_invariance,
)
from optsde.plans.plan import Plan
from optsde.types import PyTree


@dataclasses.dataclass(frozen=True)
class IntrinsicReport:
    """A report of scale-invariant parameters; prints as a table and warnings."""

    kinds: dict[str, Kind]
    norms: dict[str, float]
    sizes: dict[str, int]
    groups: dict[str, Intrinsic]
    rates: Rates
    warnings: tuple[str, ...]

    @property
    def invariant(self) -> tuple[str, ...]:
        """Paths of the invariant leaves: as a whole, by channels, or all together."""
        return _of_kind(self.kinds, *_INVARIANT)

    def __str__(self) -> str:
        rows = []
        for name in [*self.kinds, *([ALL] if self.groups else [])]:
            if name in self.groups:
                group = self.groups[name]
                numbers = group.norm, group.effective_lr, group.signal, group.noise
                later = group.equilibrium_norm, group.equilibrium_lr, group.steps
                cells = [f"{float(x):.3g}" for x in (*numbers, *later)]
            else:
                cells = [f"{self.norms[name]:.3g}", *["–"] * 6]
            size = self.sizes.get(name, "")
            rows.append([name, size, self.kinds.get(name, ""), *cells])
        header = ["parameters", "size", "invariant", "‖w‖", "effective lr", "Ḡ", "Tr Σ̄"]
        header += ["‖w‖ to come", "its lr", "in steps"]
        lines = [table(header, rows, "lrlrrrrrrr")]
        lines.append(f"intrinsic lr {float(self.rates.intrinsic):.3g} a step")
        return "\n".join([*lines, *self.warnings])


def intrinsic_report(
    plan: Plan,
    sampler: Sampler,
    params: PyTree,
    draw: Draw,
    draws: int = 128,
    blocks: int = 16,
    tolerance: float = TOLERANCE,
) -> IntrinsicReport:
    """Reports which leaves are scale invariant, and where the plan drives each.

    Hyperparameters must be numbers. For a run's state: `draw` is Draw(state.key,
    state.step, state.time), and its time is where the plan's schedule stands.
    """
    oracle = signed_mix(sampler(plan.batch_size), plan.noise_gain)
    now = intrinsic_rates(plan.optimizer.single(), float(plan.rate(draw.time)))
    tests = jax.jit(partial(invariance, oracle))(params, draw)
    tests = by_path(tests, is_leaf=lambda x: isinstance(x, Invariance))
    kinds = {name: test.kind(tolerance) for name, test in tests.items()}
    if Kind.NONE in kinds.values():
        joint = jax.jit(partial(joint_invariance, oracle))(params, draw)
        if joint.kind(tolerance) is not Kind.NONE:
            was = kinds.items()
            kinds = {n: Kind.TOGETHER if k is Kind.NONE else k for n, k in was}
    invariant = _of_kind(kinds, *_INVARIANT)
    measured = jax.jit(
        lambda params, draw: intrinsic_groups(
            oracle, params, draw, now, invariant, draws, blocks
        )
    )
    leaves = by_path(params)
    groups = measured(params, draw) if invariant else {}
    for name in _of_kind(kinds, Kind.TOGETHER):  # by itself it goes nowhere
        del groups[name]
    return IntrinsicReport(
        kinds=kinds,
        norms={name: float(jnp.linalg.norm(x)) for name, x in leaves.items()},
        sizes={name: x.size for name, x in leaves.items()},
        groups=groups,
        rates=now,
        warnings=tuple(_warnings(plan, now, kinds)),
    )


_INVARIANT = Kind.WHOLE, Kind.CHANNELS, Kind.TOGETHER


def _of_kind(kinds: dict[str, Kind], *wanted: Kind) -> tuple[str, ...]:
    return tuple(name for name, kind in kinds.items() if kind in wanted)


def _warnings(plan: Plan, now: Rates, kinds: dict[str, Kind]) -> Iterator[str]:
    if unused := _of_kind(kinds, Kind.UNUSED):
        yield f"warning: the loss does not depend on {', '.join(unused)}"
    sized = _of_kind(kinds, Kind.NONE)
    if not _of_kind(kinds, *_INVARIANT):
        yield "warning: nothing here is scale invariant, and no lr is effective"
    if now.intrinsic == 0:
        yield "warning: without weight decay ‖w‖ only grows; there is no equilibrium"
    elif sized:
        yield (
            f"warning: weight decay also acts on {', '.join(sized)}, whose size the "
            "loss sees: there it changes the function and sets no effective lr"
        )
    if plan.clip is not None:
        yield "warning: these are the rates of steps that the clip leaves alone"
