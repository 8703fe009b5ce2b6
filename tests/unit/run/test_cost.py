"""What a step costs on paper, against closed forms and what XLA counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import gradients, models
from optsde.data import Arrays, Resident, Stream
from optsde.mesh import largest_axis
from optsde.run import Accelerator, cost
from optsde.run.cost import most_alive, products


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def program(function, *shapes):
    return jax.make_jaxpr(function)(*shapes).jaxpr


def run_of(model, loss, inputs, targets, batch_size, plan=None, **options):
    """A run on examples that are shapes alone."""
    plan = plan or optsde.Plan(
        optimizer=optsde.Adam(lr=1e-3), batch_size=batch_size, horizon=10
    )
    first = jnp.zeros((1, *inputs.shape[1:]), inputs.dtype)
    sampler = gradients.minibatch(
        models.supervised(model, loss), Resident((inputs, targets)), **options
    )
    return optsde.discrete(
        plan, sampler, lambda key: models.init_params(model, key, first)
    )


def mlp(batch_size=32, plan=None, rows=10**9, **options):
    data = shape(rows, 64), shape(rows, dtype=jnp.int32)
    net = models.build("mlp", 10, hidden=(128,))
    return run_of(net, models.cross_entropy, *data, batch_size, plan, **options)


WEIGHTS = 64 * 128 + 128 * 10
OF_EXAMPLE = 2 * (2 * 64 * 128 + 3 * 128 * 10)  # the inputs have no derivative


@pytest.mark.parametrize("devices", [1, 4, 32])
def test_a_dense_net(devices):
    """Of 10⁹ examples, which nobody makes; one state is parameters and two moments."""
    of_each = cost(mlp(), devices)
    assert of_each.flops == 32 // devices * OF_EXAMPLE
    assert 0 <= of_each.data - 10**9 * 4 * (64 + 1) < 512  # and places of examples
    numbers = 3 * (WEIGHTS + 128 + 10)
    assert 0 <= of_each.state - 4 * numbers < 64  # and the clock


def test_passes_and_draws_and_idle_devices():
    plan = optsde.Plan(optimizer=optsde.Adam(lr=1e-3), batch_size=32, horizon=10)
    base = cost(mlp(plan=plan, group=4), 4)
    assert base.flops == 8 * OF_EXAMPLE
    double = cost(mlp(plan=optsde.svag(plan, 3), group=4), 4)
    assert (double.flops, double.exchange) == (2 * base.flops, base.exchange)
    assert cost(mlp(group=4), 1000).flops == 4 * OF_EXAMPLE


def test_split_parameters_take_less_and_send_more():
    whole, split = (cost(mlp(group=1), 8, rule) for rule in (None, largest_axis))
    assert whole.state - split.state == 3 * 4 * 64 * 128 * 7 // 8
    assert split.flops == whole.flops
    assert split.exchange.sent > whole.exchange.sent


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_as_xla_counts_them(size, stride):
    """Forward, and both derivatives, of which one is dilated."""
    layer = models.Conv(5, size, stride, form="direct")
    kernel = shape(size, size, 3, 5)

    def apply(x, kernel):
        return layer.apply({"params": {"kernel": kernel}}, x)

    def derivatives(x, kernel, seed):
        of_x = jax.linear_transpose(lambda x: apply(x, kernel), x)
        of_kernel = jax.linear_transpose(lambda kernel: apply(x, kernel), kernel)
        return of_x(seed), of_kernel(seed)

    x = shape(2, 13, 10, 3)
    given = x, kernel, jax.eval_shape(apply, x, kernel)
    forward = jax.jit(apply).lower(x, kernel).cost_analysis()["flops"]
    assert products(program(apply, x, kernel)) == forward
    backward = jax.jit(derivatives).lower(*given).cost_analysis()["flops"]
    assert products(program(derivatives, *given)) == backward == 2 * forward


def test_a_transformer():
    """Three times 2·parameters·tokens and the products of attention."""
    words, width, depth, length, rows = 100, 32, 3, 16, 4
    net = models.build(
        "transformer", words, width=width, depth=depth, heads=2, length=length
    )
    tokens = shape(50, length, dtype=jnp.int32)
    run = run_of(net, models.token_cross_entropy, tokens, tokens, 2 * rows)
    tokens = rows * length
    dense = tokens * (12 * depth * width**2 + words * width)
    attention = 2 * depth * tokens * length * width
    assert cost(run, 2).flops == 3 * 2 * (dense + attention)


def test_resnet_50_has_the_published_numbers():
    """25.56 M parameters; 4.09 G multiply-adds forward, of which 4% meet the rim."""
    net = models.build("resnet50", 1000, stem="7x7", form="direct")
    image = shape(1, 224, 224, 3)
    params = jax.eval_shape(
        lambda x: models.init_params(net, jax.random.key(0), x), image
    )
    assert sum(x.size for x in jax.tree.leaves(params)) == 25_557_032
    apply = models.net_of(net).apply
    assert 0.95 < products(program(apply, params, image)) / (2 * 4.089e9) < 1
    with pytest.raises(ValueError, match="stem='5x5' is none of 3x3, 7x7"):
        models.build("resnet18", 10, stem="5x5").init(
            jax.random.key(0), np.zeros((1, 32, 32, 3))
        )


def test_loops_and_branches():
    x = shape(4, 4)

    def several(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: y @ y, x)

    def either(x):
        return jax.lax.cond(x.sum() > 0, lambda y: y @ y @ y, lambda y: y @ y, x)

    assert products(program(several, x)) == 5 * 2 * 4**3
    assert products(program(either, x)) == 2 * 2 * 4**3

    def until(x):
        return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x)

    with pytest.raises(ValueError, match="a loop of no fixed length with matrix"):
        products(program(until, x))


def test_what_is_alive_at_a_time():
    """Two arrays of a chain; a broadcast is none; a loop has its own besides."""
    n = 4 * 100

    def chain(x):
        return jnp.sin(jnp.cos(jnp.exp(x))).sum()

    assert most_alive(program(chain, shape(100))) == 2 * n

    def spread(x):
        return jnp.exp(jnp.broadcast_to(x, (100,)))

    assert most_alive(program(spread, shape())) == n

    def loop(x):
        return jax.lax.scan(lambda y, _: (jnp.sin(jnp.cos(y)), None), x, length=3)[0]

    assert most_alive(program(loop, shape(100))) == 3 * n
    assert most_alive(program(chain, shape(100)), of_step=True) == 2 * n


@pytest.mark.full
@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_memory_is_about_what_is_compiled(kind):
    """From .7 to 3 times that: XLA fuses what the estimate keeps, and copies a bit."""
    if kind == "mlp":
        run = mlp(batch_size=256, rows=300)
    else:
        net = models.build(kind, 100, width=32, depth=1, heads=2, length=32)
        tokens = shape(300, 32, dtype=jnp.int32)
        run = run_of(net, models.token_cross_entropy, tokens, tokens, 16)
    of_each = cost(run, 1)
    state = jax.eval_shape(run.init, jax.random.key(0))
    step = jax.jit(run.step, donate_argnums=0).lower(state, run.source).compile()
    memory = step.memory_analysis()
    inputs = of_each.state + of_each.data
    np.testing.assert_allclose(memory.argument_size_in_bytes, inputs, atol=2048)
    assert 0.7 < of_each.working / memory.temp_size_in_bytes < 3


def test_seconds_of_an_accelerator():
    device = Accelerator(flops=1e12, share=0.5, bandwidth=1e6)
    step = cost(mlp(), 4)
    seconds = step.seconds(device)
    assert seconds.compute == step.flops / 5e11
    assert seconds.wire == step.exchange.sent / 1e6
    assert seconds.overlapped == seconds.wire
    assert seconds.in_turn == seconds.compute + seconds.wire
    assert seconds.wire_dominates
    assert step.seconds(Accelerator(flops=1e12)).wire == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(flops=0), "flops=0: needs a positive number of FLOP/s"),
        (dict(flops=1e12, share=1.5), r"share=1.5: needs a share in \(0, 1\]"),
        (dict(flops=1e12, bandwidth=-1), "bandwidth=-1: needs a positive number of by"),
        (dict(flops=1e12, memory=math.nan), "memory=nan: needs a positive number of b"),
    ],
)
def test_what_is_no_accelerator(given, says):
    with pytest.raises(ValueError, match=says):
        Accelerator(**given)


def test_a_stream_is_refused():
    arrays = np.zeros((8, 64), np.float32), np.zeros(8, np.int32)
    net = models.build("mlp", 10, hidden=(8,))
    losses = models.supervised(net, models.cross_entropy)
    sampler = gradients.minibatch(losses, Stream(Arrays(*arrays)), group=2)
    plan = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=4, horizon=10)
    with pytest.raises(ValueError, match=r"give the sampler a data\.Resident"):
        cost(optsde.discrete(plan, sampler, {"w": jnp.zeros(3)}), 2)
