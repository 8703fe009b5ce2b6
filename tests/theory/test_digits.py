"""The front page in small: Adam on digits up to t = 100, 24 seeds, fixed seeds.

Bounds: what agrees is shown to do so within 3% by two one-sided tests at 5%; the
discrete run's 95% interval lies more than 10% above the SDE.

In the quick tier, of 200 images up to t = 40, with ℓ = 4 for 8: what agrees lies within
3% and 3 standard errors, the discrete run more than 4 standard errors above the SDE.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from helpers import sized

import optsde
from optsde import analysis, data, gradients, models


class Size(NamedTuple):
    images: int | None
    time: int
    seeds: int
    ell: int


@pytest.fixture(
    scope="module", params=sized(Size(200, 40, 16, 4), Size(None, 100, 24, 8))
)
def size(request):
    return request.param


@pytest.fixture(scope="module")
def losses_at_end(size):
    """Train loss of each arm, as an Estimate."""
    examples = tuple(jnp.asarray(x[: size.images]) for x in data.digits())
    model = models.MLP((64, 10))
    losses = models.supervised(model, models.cross_entropy)
    params = models.init_params(model, jax.random.key(0), examples[0])
    draw = gradients.minibatch(losses, examples)
    adam = optsde.Adam(lr=1e-3, b1=0.9, b2=0.99)
    base = optsde.Plan(optimizer=adam, batch_size=8, horizon=size.time)
    sums = gradients.by_layers(model, models.cross_entropy, examples)
    law = gradients.from_data(losses, examples, 8, sums)
    arms = {
        "discrete": optsde.discrete(base, draw, params),
        "ell2": optsde.discrete(optsde.svag(base, 2), draw, params),
        "finest": optsde.discrete(optsde.svag(base, size.ell), draw, params),
        "batch2": optsde.discrete(optsde.scale(base, 1 / 4), draw, params),
        "sde": optsde.sde(base, law, params, 4),
        "signal": optsde.sde(base, law, params, 4, keep_signal=True),
    }
    found = {}
    for number, (name, dynamics) in enumerate(arms.items()):
        keys = jax.random.split(jax.random.key(number), size.seeds)
        run = optsde.ensemble(
            dynamics, keys, [size.time], lambda s: losses(s.params, examples).mean()
        )
        found[name] = analysis.estimate(run.values[:, 0])
    return found


@pytest.mark.parametrize(
    ("one", "other"), [("finest", "sde"), ("discrete", "signal"), ("batch2", "ell2")]
)
def test_these_agree(losses_at_end, size, one, other):
    x = analysis.relative(losses_at_end[one], losses_at_end[other])
    if size.images:
        assert abs(x.mean) < 0.03 + 3 * x.se, x
    else:
        assert analysis.equivalence(x, 0.03).holds, x


def test_the_discrete_run_is_above_the_sde(losses_at_end, size):
    x = analysis.relative(losses_at_end["discrete"], losses_at_end["sde"])
    if size.images:
        assert x.mean > 4 * x.se, x
    else:
        assert analysis.interval(x).low > 0.10, x


def test_svag_lies_between(losses_at_end):
    means = [float(losses_at_end[arm].mean) for arm in ("discrete", "ell2", "finest")]
    assert sorted(means, reverse=True) == means
