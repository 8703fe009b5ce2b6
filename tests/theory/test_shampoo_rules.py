"""Shampoo and SOAP on the matrix quadratic: their SDEs, and their κ-tables."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.quadratic import largest_error
from test_matrix_rules import CURVATURE, W0, errors, loss, moments, plan, run_all
from test_matrix_rules import scaled as scaled_plan

import optsde
from optsde.analysis import estimate
from optsde.gradients import from_covariance, gaussian
from optsde.gradients.covariance import Covariance
from optsde.optimizers import Limit
from optsde.optimizers.factors import independent

ROWS = np.array([[6.0, 0, 0, 0], [5, 3, 0, 0], [-4, 2, 4, 0], [3, -3, 2, 2]])
COLUMNS = np.array([[1.0, 0, 0], [0.9, 0.5, 0], [-0.5, 0.6, 0.4]])
MIXED = Covariance(  # of A Z Bᵀ: entries of one row or column vary together
    spread=lambda w, z: ROWS.astype(w.dtype) @ z @ COLUMNS.T.astype(w.dtype),
    variance=lambda w: (ROWS**2 @ np.ones_like(W0) @ COLUMNS.T**2).astype(w.dtype),
)
THETA = jnp.asarray(W0, jnp.float32)


def test_factors_take_up_the_covariance_of_entries():
    """E L = (1 − e^{−c t})·Tr(BBᵀ)·AAᵀ and E R likewise, of noise A Z Bᵀ at t = 4.

    Bound, stated beforehand: 4 standard errors, and 2% of the largest entry for steps
    of 1/16.
    """
    base = plan(optsde.Shampoo(lr=1e-9, b2=0.8), 4)
    law = from_covariance(lambda w: 0.0 * jnp.sum(w), MIXED)
    dynamics = optsde.sde(base, law, THETA, 16)
    keys = jax.random.split(jax.random.key(0), 400)
    observe = lambda state: state.optimizer.direction.factors  # noqa: E731
    found = optsde.ensemble(dynamics, keys, [4], observe).values
    filled = 1 - np.exp(-0.2 * 4)
    left, right = ROWS @ ROWS.T, COLUMNS @ COLUMNS.T
    expected = filled * np.trace(right) * left, filled * np.trace(left) * right
    for values, exact in zip(found, expected, strict=True):
        one = estimate(values[:, 0])
        assert np.all(np.abs(one.mean - exact) < 4 * one.se + 0.02 * exact.max())


class Diagonal(optsde.Shampoo):
    """A control: factors of entries that are taken for independent."""

    def limit(self, keep_signal=False):
        drift, noise, _ = super().limit(keep_signal)

        def without(state, mean, variance):
            u, flow = drift(state, mean, variance)
            added = jax.tree.map(lambda x: (1 - self.b2) * x, independent(variance))
            factors = jax.tree.map(jnp.add, flow.factors, added)
            return u, flow._replace(factors=factors)

        return Limit(without, noise)


FAMILIES = {
    "shampoo": optsde.Shampoo(lr=0.05, b1=0.8, b2=0.9),
    "soap": optsde.SOAP(lr=0.05, b1=0.8, b2=0.9),
}


@pytest.mark.full
@pytest.mark.parametrize("name", FAMILIES)
def test_svag_approaches_the_sde(name):
    """SVAG(4) from empty averages, under noise whose entries vary together, t = 24."""
    base, paths = plan(FAMILIES[name], 24), 2_000
    keys = jax.random.split(jax.random.key(0), paths)

    def found(dynamics):
        return estimate(optsde.ensemble(dynamics, keys, [24], moments).values[:, 0])

    law = from_covariance(loss, MIXED, batch_size=4)
    limit = found(optsde.sde(base, law, THETA, 16))
    runs = {
        ell: found(optsde.discrete(optsde.svag(base, ell), gaussian(loss, MIXED), THETA))
        for ell in (1, 4)
    }
    start = np.concatenate([W0.ravel(), W0.ravel() ** 2])
    print("moved", np.abs(limit.mean - start).max(), limit.se.max())
    for ell, run in runs.items():
        print(ell, largest_error(run, limit))
    if name == "shampoo":
        apart = found(optsde.sde(plan(Diagonal(lr=0.05, b1=0.8, b2=0.9), 24), law, THETA, 16))
        print("diagonal", largest_error(apart, limit))
    print("half", largest_error(found(optsde.sde(base, law, THETA, 8)), limit))
    print("signal", largest_error(found(optsde.sde(base, law, THETA, 16, True)), limit))
