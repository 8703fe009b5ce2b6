"""The digits problem that the benchmarks share: 64-64-10 MLP, Adam, batch 8."""

import jax
import jax.numpy as jnp

import optsde
from optsde import data, gradients, models
from optsde.mesh import expose_cpu_cores

expose_cpu_cores()  # before the first array

LR, B1, B2, EPS, BATCH = 1e-3, 0.9, 0.99, 1e-8, 8
EXAMPLES = tuple(map(jnp.asarray, data.digits()))
MODEL = models.MLP((64, 10))
LOSSES = models.supervised(MODEL, models.cross_entropy)
PARAMS = models.init_params(MODEL, jax.random.key(0), EXAMPLES[0])
SAMPLER = gradients.minibatch(LOSSES, EXAMPLES)


def plan(horizon: float) -> optsde.Plan:
    adam = optsde.Adam(lr=LR, b1=B1, b2=B2, eps=EPS)
    return optsde.Plan(optimizer=adam, batch_size=BATCH, horizon=horizon)
