"""The intrinsic learning rate of normalized nets, after Li, Lyu and Arora (2020).

Where the loss sees only the direction of w, a step of SGD turns it by the effective lr
η/‖w‖², and noise makes ‖w‖ grow while weight decay shrinks it, at the rate λ_e = ηλ:

    d‖w‖² = −2 λ_e ‖w‖² dt + η² Tr Σ̄/‖w‖² dt,    Tr Σ̄ on the unit sphere

So ‖w‖⁴ goes to η² Tr Σ̄/(2 λ_e), and the effective lr to √(2 λ_e/Tr Σ̄), which λ_e alone
sets. Here with the terms of finite steps: 2 λ_e is λ_e (2 − λ_e), and Tr Σ̄ counts in
addition a share of the mean gradient's Ḡ: for SGD all of it, with momentum β the share
(1−β)/(1+β), and 2β(2β−1) less than that in Nesterov's form. It is the share of
`optsde.optimizers.response`, to first order in Ḡ/Tr Σ̄ (exact but for Nesterov's form),
and for λ_e far below 1 − β.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.gradients import Draw, Oracle, Sampler, signed_mix
from optsde.measure.noise import Levels, gradient_noise
from optsde.measure.probe import Probe, Times, probe
from optsde.optimizers import Optimizer, Rates
from optsde.plans.plan import Plan
from optsde.types import PyTree, Scalar

ALL = "all"  # the invariant leaves as one group
CLOSE = 0.1  # ‖w‖⁴ this near to its equilibrium, relatively, has arrived


class Intrinsic(NamedTuple):
    """The state of one scale-invariant group of parameters, and its equilibrium.

    Signal and noise are those on the unit sphere."""

    norm: jax.Array
    effective_lr: jax.Array
    signal: jax.Array
    noise: jax.Array
    equilibrium_norm: jax.Array
    equilibrium_lr: jax.Array
    steps: jax.Array  # until ‖w‖⁴ is within 10% of equilibrium, were the noise to stay


def intrinsic_rates(optimizer: Optimizer, lr: Scalar | None = None) -> Rates:
    """Returns the optimizer's rates at `lr`, by default its own; refuses without."""
    rates = optimizer.intrinsic_rates(lr)
    if rates is None:
        raise ValueError(
            f"{type(optimizer).__name__} has no intrinsic lr: its steps are not "
            "orthogonal to invariant weights; use SGD, Momentum or HeavyBall"
        )
    return rates


def intrinsic(
    rates: Rates, norm: jax.Array, signal: jax.Array, noise: jax.Array
) -> Intrinsic:
    """Returns the `Intrinsic` of a group with this norm, ‖ḡ‖² and Tr Σ at its point."""
    square = norm**2
    signal, noise = square * signal, square * noise
    push = jnp.maximum(noise + rates.share * signal, 0)
    pull = rates.intrinsic * (2 - rates.intrinsic)
    still = (rates.gain**2 * push / pull) ** 0.25
    away = jnp.abs((norm / still) ** 4 - 1)
    steps = jnp.maximum(jnp.log(away / CLOSE), 0) / (4 * rates.intrinsic)
    effective, last = rates.gain / square, rates.gain / still**2
    return Intrinsic(norm, effective, signal, noise, still, last, steps)


def intrinsic_groups(
    oracle: Oracle,
    params: PyTree,
    draw: Draw,
    rates: Rates,
    invariant: Sequence[str],
    draws: int = 64,
    blocks: int = 16,
) -> dict[str, Intrinsic]:
    """Returns the `Intrinsic` of each invariant leaf by its path, and of all as ALL.

    What is invariant leaf by leaf is so together, whatever the leaves' own norms are.
    """
    levels = gradient_noise(oracle, params, draw, draws, blocks).groups()
    levels = by_path(levels, is_leaf=lambda x: isinstance(x, Levels))
    squares = {name: jnp.sum(x**2) for name, x in by_path(params).items()}
    sums = {
        name: (squares[name], levels[name].signal, levels[name].noise)
        for name in invariant
    }
    sums[ALL] = jax.tree.map(lambda *x: sum(x), *sums.values())
    return {
        name: intrinsic(rates, jnp.sqrt(square), signal, noise)
        for name, (square, signal, noise) in sums.items()
    }


def invariance_probe(
    plan: Plan,
    sampler: Sampler,
    invariant: Sequence[str],
    draws: int = 64,
    blocks: int = 16,
    times: Times = None,
) -> Probe:
    """Returns the probe of effective lr, norms, noise on the sphere and equilibrium.

    Args:
      plan: its present learning rate counts, by its schedule.
      sampler: that of the run.
      invariant: paths of leaves, `intrinsic_report(…).invariant`. Of leaves that are so
        only together, read the metrics of ALL.
      draws: gradients of one measurement.
      blocks: of draws, see `gradient_noise`.
      times: those of the probe.
    """
    if not invariant:
        raise ValueError(
            "invariant names no leaf: intrinsic_report says which there are"
        )
    wanted = ["norm", "effective_lr", "signal", "noise"]
    optimizer = plan.optimizer.single()
    if _has_decay(optimizer):
        wanted += ["equilibrium_norm", "equilibrium_lr"]

    def observe(oracle, state):
        # A schedule may end at 0, where 0/0 would be the equilibrium.
        lr = jnp.maximum(plan.rate(state.time), 1e-6 * optimizer.lr)
        now = intrinsic_rates(optimizer, lr)
        found = intrinsic_groups(
            oracle,
            state.params,
            Draw(state.key, state.step, state.time),
            now,
            invariant,
            draws,
            blocks,
        )
        row = {
            f"{name}/{what}": getattr(group, what)
            for name, group in found.items()
            for what in wanted
        }
        return row | {"intrinsic_lr": jnp.asarray(now.intrinsic)}

    oracle = signed_mix(sampler(plan.batch_size), plan.noise_gain)
    return probe(observe, oracle, times)


def sphere_noise_probe(
    plan: Plan,
    sampler: Sampler,
    draws: int = 64,
    blocks: int = 16,
    times: Times = None,
) -> Probe:
    """Returns the probe of a batch's signal and noise on the unit sphere.

    "signal" is ‖w‖² ‖ḡ‖² and "noise" is ‖w‖² Tr Σ, with all parameters as one vector w,
    which has to be scale invariant as a whole. The gradients are none of the run's own.

    Args:
      plan: its batch size and noise gain count.
      sampler: that of the run.
      draws: gradients of one measurement.
      blocks: of draws, see `gradient_noise`.
      times: those of the probe.
    """

    def observe(oracle, state):
        draw = Draw(state.key, state.step, state.time)
        levels = gradient_noise(oracle, state.params, draw, draws, blocks).total()
        square = optax.tree.norm(state.params, squared=True)
        return {"signal": square * levels.signal, "noise": square * levels.noise}

    oracle = signed_mix(sampler(plan.batch_size), plan.noise_gain)
    return probe(observe, oracle, times)


def by_path(tree: PyTree, is_leaf=None) -> dict[str, Any]:
    """The leaves by names such as Dense_0/kernel."""
    found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in found
    }


def _has_decay(optimizer: Optimizer) -> bool:
    """Tells whether any decay is on, without which there is no equilibrium."""
    decays = optimizer.l2, optimizer.weight_decay, optimizer.absolute_decay
    return not all(isinstance(x, int | float) and x == 0 for x in decays)
