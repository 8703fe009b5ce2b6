"""Training, streams, evaluation and measurements, one run shared by several devices."""

import dataclasses
import re
from functools import cache

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import optsde
from optsde import data, gradients, measure, models, run
from optsde.mesh import run_mesh

STEPS = 12
EXAMPLES = tuple(jnp.asarray(x[:60]) for x in data.digits())
MODEL = models.MLP((6, 10))
LOSSES = models.supervised(MODEL, models.cross_entropy)
PLAN = optsde.Plan(optimizer=optsde.Adam(lr=3e-3), batch_size=20, horizon=STEPS)


@cache
def dynamics(*, streamed=False):
    stream = data.Stream(data.Arrays(*map(np.asarray, EXAMPLES)))
    return optsde.discrete(
        PLAN,
        gradients.epochs(LOSSES, stream if streamed else EXAMPLES),
        lambda key: models.init_params(MODEL, key, EXAMPLES[0]),
    )


def fit(made, horizon, replicas=3, **options):
    """Three replicas on two rows of devices: one of the four places stays empty."""
    keys = jax.random.split(jax.random.key(0), replicas)
    return optsde.fit(made, keys, horizon, every=4, **options)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_on_eight_devices_goes_on_bit_for_bit(tmp_path, streamed):
    """Four devices for each replica; and it is the run of one device each."""
    made = dynamics(streamed=streamed)

    def parameters(folder, horizon=STEPS, shards=4):
        found = fit(made, horizon, shards=shards, journal=tmp_path / folder)
        return found.state.params

    whole = parameters("whole")
    parameters("parts", 5)
    parts = parameters("parts")
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    single = fit(dynamics(), STEPS).state.params
    chex.assert_trees_all_close(whole, single, rtol=0, atol=2e-5)


def test_evaluation_in_ragged_parts():
    """Sixty examples on eight devices, against the mean of their losses."""

    def held_out(shared, state):
        inputs, test = shared
        return run.evaluate(MODEL, models.cross_entropy, state.params, inputs, test)

    probe = measure.probe(held_out, (EXAMPLES[0], EXAMPLES), times=[0])
    probe = probe.named(lambda name: f"test_{name}")
    found = fit(dynamics(), 0, replicas=1, shards=8, probes=[probe])
    params = jax.tree.map(lambda x: x[0], found.state.params)
    expected = LOSSES(params, EXAMPLES).mean()
    np.testing.assert_allclose(
        found.metrics["test_loss"].values, [[expected]], rtol=1e-5
    )


def test_sharpness_against_the_dense_hessian():
    """Of a sign method, which has no preconditioned sharpness to search for."""
    plan = dataclasses.replace(PLAN, optimizer=optsde.Lion(lr=1e-3))
    probe = measure.sharpness_probe(plan, LOSSES, EXAMPLES, 4, tolerance=1e-4)
    found = fit(dynamics(), 0, replicas=1, shards=8, probes=[probe.at([0])])
    params = jax.tree.map(lambda x: x[0], found.state.params)
    flat, tree = jax.flatten_util.ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda x: LOSSES(tree(x), EXAMPLES).mean()))(flat)
    expected = np.linalg.eigvalsh(np.asarray(hessian))[-1]
    sharpness = found.metrics["sharpness"].values
    np.testing.assert_allclose(sharpness, [[expected]], rtol=1e-4)


def test_one_all_reduce_for_a_hessian_product():
    """In groups that each device takes one after the other."""
    params = models.init_params(MODEL, jax.random.key(0), EXAMPLES[0])
    everywhere = PartitionSpec()

    def product(params, v):
        return measure.hessian(gradients.full_batch(LOSSES, EXAMPLES, 2)(), params)(v)

    mapped = jax.shard_map(
        product,
        mesh=run_mesh(1, 8),
        in_specs=everywhere,
        out_specs=everywhere,
        check_vma=False,
    )
    text = jax.jit(mapped).lower(params, params).compile().as_text()
    assert "num_partitions=8" in text
    assert len(re.findall(r"= .* (all-reduce|all-reduce-start)\(", text)) == 1


@pytest.mark.full
def test_a_run_goes_on_with_other_devices(tmp_path, capsys, monkeypatch):
    """Saved on 8, on with 2, on with 1, and back on 8.

    Sums over devices are in another order, so that rounding differs: 120 steps at a
    stable rate keep the loss of the run that stayed on 8 within 1e-5 of its size, and
    every parameter within 2e-5.
    """
    plan = dataclasses.replace(PLAN, optimizer=optsde.SGD(lr=0.05), horizon=120)
    sampler = gradients.epochs(LOSSES, EXAMPLES)
    made = optsde.discrete(
        plan, sampler, lambda key: models.init_params(MODEL, key, EXAMPLES[0])
    )
    devices = jax.devices()

    def to(horizon, count, folder):
        monkeypatch.setattr("optsde.mesh.jax.devices", lambda *_: devices[:count])
        monkeypatch.setattr("optsde.run.loop.jax.device_count", lambda: count)
        shards = min(count, 4)
        return fit(made, horizon, shards=shards, journal=tmp_path / folder)

    whole = to(120, 8, "whole")
    capsys.readouterr()
    for horizon, count in ((32, 8), (60, 2), (88, 1), (120, 8)):
        parts = to(horizon, count, "parts")
        says = capsys.readouterr().err
        assert ("resumed at step" in says) == (horizon > 32)
    assert says == (
        "note: resumed at step 88 (t = 88) of 120, saved on 1 device, going on with 8\n"
    )
    chex.assert_trees_all_close(whole.state.params, parts.state.params, atol=2e-5)
    for name in ("loss", "grad_norm"):
        mine, theirs = whole.metrics[name], parts.metrics[name]
        np.testing.assert_allclose(theirs.values, mine.values, rtol=1e-5)
    one = optsde.run.load_params(tmp_path / "parts")
    assert one[0] == 120
    chex.assert_trees_all_equal(one[1], jax.device_get(parts.state.params))
