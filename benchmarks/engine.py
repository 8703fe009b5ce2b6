"""What does a seed-step of an ensemble cost: against torch, and against a bare sketch?

64 seeds on digits (64-64-10 MLP, Adam, batch 8). The torch loop is the plainest one.
The sketch is a hand-written vmapped scan with the replicas sharded over the CPU cores,
without observations and progress, which the engine has. Compiling is not counted.

    make bench
"""

import io

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import optsde
from benchmarks import problem
from benchmarks.timing import clocked, interleaved, report
from optsde.mesh import run_mesh

SEEDS, STEPS, TORCH_STEPS = 64, 4000, 2000


def sketch():
    """Adam and sampling written out, all in one scan."""
    x, y = problem.EXAMPLES

    def loss(params, index):
        return problem.LOSSES(params, (x[index], y[index])).mean()

    def step(carry, k):
        key, params, m, v = carry
        index = jax.random.randint(
            jax.random.fold_in(key, k), (problem.BATCH,), 0, len(x)
        )
        g = jax.grad(loss)(params, index)
        b1, b2 = problem.B1, problem.B2
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        c1, c2 = 1 - b1 ** (k + 1.0), 1 - b2 ** (k + 1.0)
        params = jax.tree.map(
            lambda p, m, v: (
                p - problem.LR * (m / c1) / (jnp.sqrt(v / c2) + problem.EPS)
            ),
            params,
            m,
            v,
        )
        return (key, params, m, v), None

    def run(key):
        zeros = jax.tree.map(jnp.zeros_like, problem.PARAMS)
        start = key, problem.PARAMS, zeros, zeros
        return jax.lax.scan(step, start, jnp.arange(STEPS))[0][1]

    mesh = run_mesh(SEEDS)
    over = PartitionSpec("replica")
    many = jax.shard_map(
        jax.vmap(run), mesh=mesh, in_specs=over, out_specs=over, check_vma=False
    )
    keys = jax.random.split(jax.random.key(0), SEEDS)
    keys = jax.device_put(keys, NamedSharding(mesh, over))
    compiled = jax.jit(many).lower(keys).compile()
    return lambda: jax.block_until_ready(compiled(keys))


def engine_seconds() -> float:
    """With a loss of the whole training set every 400 steps, and progress."""
    plan = problem.plan(STEPS)
    dynamics = optsde.discrete(plan, problem.SAMPLER, problem.PARAMS)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    times = list(range(400, STEPS + 1, 400))
    return optsde.ensemble(
        dynamics,
        keys,
        times,
        lambda state: problem.LOSSES(state.params, problem.EXAMPLES).mean(),
        progress=optsde.Progress("bench", io.StringIO()),
    ).seconds


def torch_loop():
    """One seed, one step at a time, as in a tutorial."""
    import torch

    x, y = (torch.tensor(jax.device_get(part)) for part in problem.EXAMPLES)
    y = y.long()
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    adam = torch.optim.Adam(
        net.parameters(), problem.LR, (problem.B1, problem.B2), problem.EPS
    )

    def run():
        for _ in range(TORCH_STEPS):
            index = torch.randint(0, len(x), (problem.BATCH,))
            loss = torch.nn.functional.cross_entropy(net(x[index]), y[index])
            adam.zero_grad()
            loss.backward()
            adam.step()

    return run


def main() -> None:
    contenders = {"sketch": clocked(sketch()), "engine": engine_seconds}
    try:
        contenders["torch"] = clocked(torch_loop())
    except ImportError:
        print("torch is not installed: pip install optsde[bench]")
    steps = dict.fromkeys(contenders, SEEDS * STEPS) | {"torch": TORCH_STEPS}
    # The engine times itself, since each call of it compiles.
    taken = interleaved(contenders, rounds=7)
    cost = {name: 1e6 * seconds / steps[name] for name, seconds in taken.items()}
    rows: dict[str, tuple[float, float | None]] = {
        f"{name}, µs per seed-step": (cost[name], None) for name in cost
    }
    rows["engine ÷ sketch"] = (cost["engine"] / cost["sketch"], 1.1)
    if "torch" in cost:
        rows["engine ÷ torch"] = (cost["engine"] / cost["torch"], 1 / 60)
    report("What does a seed-step of an ensemble cost?", rows)


if __name__ == "__main__":
    main()
