"""Weight decay where the loss sees only the direction of w: an SDE on the sphere.

Of SGD, with w̄ = w/‖w‖, λ_e = ηλ and γ = ‖w‖⁴/η², so that γ^-½ is the effective lr
η/‖w‖² (Li, Lyu and Arora 2020; time counts steps; ∇L and Σ, of one batch, are at w̄):

    dw̄ = −γ^-½ (∇L dt + Σ^½ dB) − ½ γ^-1 Tr Σ w̄ dt,    dγ/dt = −4 λ_e γ + 2 Tr Σ

η and λ enter through λ_e and the initial γ alone. Momentum is the same with its rates,
`optsde.measure.intrinsic_rates`, where its memory is short.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.checks import check_count
from optsde.dynamics.diffusion import euler_step
from optsde.dynamics.discrete import Dynamics, initial_point, marks
from optsde.gradients.draw import Draw
from optsde.gradients.law import Law
from optsde.measure.intrinsic import Rates, intrinsic_rates
from optsde.optimizers import ItoSystem
from optsde.optimizers.base import Clock
from optsde.plans.plan import Plan
from optsde.types import PyTree, Scalar


class SphereState(NamedTuple):
    """The state of the SDE on the sphere; `state.time` is in steps of the plan."""

    step: jax.Array  # int32, names the draws
    clock: Clock
    key: jax.Array  # of the whole run; never changes
    direction: PyTree  # of norm 1
    gamma: jax.Array

    @property
    def time(self) -> jax.Array:
        return self.clock.time


def sphere_system(rates: Rates, keep_signal: bool = False) -> ItoSystem:
    """The Itô system of (w̄, γ); its `init` makes γ of w, and w̄ is w/‖w‖.

    `keep_signal` keeps what finite steps add at the base batch: 4 λ_e becomes
    2 λ_e (2 − λ_e), and Tr Σ in γ's equation Tr Σ + a ‖∇L‖².
    """

    def init(params):
        return (optax.tree.norm(params) ** 2 / rates.gain) ** 2

    def drift(t, direction, gamma, mean, variance):
        trace = optax.tree.sum(variance)
        pull, push = 4 * rates.intrinsic, trace
        if keep_signal:
            pull = 2 * rates.intrinsic * (2 - rates.intrinsic)
            push = trace + rates.share * optax.tree.norm(mean, squared=True)
        flow = jax.tree.map(
            lambda g, w: -g / jnp.sqrt(gamma) - 0.5 * trace / gamma * w,
            mean,
            direction,
        )
        return flow, -pull * gamma + 2 * push

    def noise(t, direction, gamma, mean, variance, kick, spare):
        turned = jax.tree.map(lambda k: -k / jnp.sqrt(gamma), kick)
        return turned, jnp.zeros_like(gamma)

    return ItoSystem(init, drift, noise)


def sphere(
    plan: Plan, law: Law, params: PyTree, substeps: int = 4, keep_signal: bool = False
) -> Dynamics:
    """The SDE of a plan on the sphere: Euler–Maruyama steps, brought back to norm 1.

    `law` is that of a batch of `plan.batch_size`, of a loss that sees only directions;
    it is evaluated at norm 1. `params` is the initial w, or a function of the key.
    A drop of lr by f in mid-run is γ → γ/f² and another plan.
    """
    settings = plan.schedule, plan.boost, plan.before, plan.clip, plan.average
    if any(setting is not None for setting in settings) or plan.noise_gain != 1:
        raise ValueError(
            "the SDE on the sphere is that of the optimizer alone: schedule, boost, "
            "before, clip and average must be None, and noise_gain 1"
        )
    if law.jumps:
        raise ValueError("the SDE on the sphere has Tr Σ, which stable noise has not")
    check_count("substeps", substeps)
    system = sphere_system(
        intrinsic_rates(plan.checked().optimizer.single()), keep_signal
    )
    h = 1 / substeps

    def init(key):
        start = initial_point(params, key)
        gamma = jnp.asarray(system.init(start))
        return SphereState(jnp.int32(0), Clock.start(h), key, _unit(start), gamma)

    def step(state: SphereState, source: None) -> tuple[SphereState, tuple]:
        del source
        draw = Draw(state.key, state.step, state.time)
        y = state.direction, state.gamma
        direction, gamma = euler_step(system, law, state.time, y, draw, h)
        clock = state.clock.paced(h).tick()
        new = SphereState(state.step + 1, clock, state.key, _unit(direction), gamma)
        return new, ()

    def about():
        return marks(plan, params) | {"sde": f"{keep_signal=}"}

    return Dynamics(init, step, h, paces=True, about=about)


def gamma_at(t, gamma: Scalar, trace: Scalar, intrinsic_lr: Scalar):
    """γ after time t where Tr Σ stays the same: it relaxes at the rate 4 λ_e."""
    still = trace / (2 * intrinsic_lr)
    return still + (gamma - still) * math.e ** (-4 * intrinsic_lr * t)


def _unit(tree: PyTree) -> PyTree:
    norm = optax.tree.norm(tree)
    return jax.tree.map(lambda x: x / norm, tree)
