"""The digits problem that the benchmarks share: 64-64-10 MLP, Adam, batch 8."""

import io
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import data, gradients, measure, models, run
from optsde.mesh import enable_compilation_cache, expose_cpu_cores

expose_cpu_cores()  # before the first array
enable_compilation_cache()  # compiling is not counted

LR, B1, B2, EPS, BATCH = 1e-3, 0.9, 0.99, 1e-8, 8
EXAMPLES = tuple(map(jnp.asarray, data.digits()))
MODEL = models.MLP((64, 10))
LOSSES = models.supervised(MODEL, models.cross_entropy)
PARAMS = models.init_params(MODEL, jax.random.key(0), EXAMPLES[0])
SAMPLER = gradients.minibatch(LOSSES, EXAMPLES)


def plan(horizon: float) -> optsde.Plan:
    adam = optsde.Adam(lr=LR, b1=B1, b2=B2, eps=EPS)
    return optsde.Plan(optimizer=adam, batch_size=BATCH, horizon=horizon)


def keys(seeds: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), seeds)


def mean_loss(state) -> jax.Array:
    """Returns the loss of a state on the whole training set."""
    return LOSSES(state.params, EXAMPLES).mean()


def final_losses(seeds: int, steps: int) -> np.ndarray:
    """Returns the loss of each seed after so many steps."""
    dynamics = optsde.discrete(plan(steps), SAMPLER, PARAMS)
    found = optsde.ensemble(dynamics, keys(seeds), [steps], mean_loss)
    return found.values[:, 0]


def run_on(
    seeds: int, steps: int, looks: int, longest: int = 10**8
) -> Callable[[], float]:
    """Returns the function that runs an ensemble on by so many steps.

    It returns the seconds that they take, without compiling.

    Args:
      seeds: of the ensemble.
      steps: of each call.
      looks: how often in a call each seed's loss on the whole training set is taken.
      longest: the horizon.
    """
    dynamics = optsde.discrete(plan(longest), SAMPLER, PARAMS)
    probes = []
    if looks:
        observe = lambda _, state: {"train_loss": mean_loss(state)}  # noqa: E731
        probes.append(measure.probe(observe, times=steps // looks))
    going = run.Run(dynamics, keys(seeds), probes=probes)

    def on() -> float:
        progress = optsde.Progress("bench", io.StringIO())
        return going.to(going.step + steps, progress=progress).seconds

    return on
