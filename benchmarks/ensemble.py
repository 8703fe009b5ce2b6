"""What does a seed-step of an ensemble cost: against torch, C++ and a bare sketch?

64 seeds on digits (64-64-10 MLP, Adam, batch 8), on all cores. The torch loop is the
plainest one, of one seed. `torch.func` trains all seeds at once by vmap(grad), with
Adam written out, and compiled. The C++ loop takes one seed after the other on each
core. The sketch is a hand-written vmapped scan over the same cores without observations
and progress, which the engine has. Compiling is not counted.
"""

import os

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import peers, problem
from benchmarks.question import Answer, Row, asked, missing
from benchmarks.timing import clocked, race
from optsde.mesh import run_mesh

SEEDS, STEPS, LOOKS = 64, 4000, 10
TORCH_STEPS, FUNC_STEPS = 2000, 500  # of theirs, which are slower
TINY = dict(SEEDS=4, STEPS=10, TORCH_STEPS=10, FUNC_STEPS=10)
AIMS = {"sketch": 1.1, "torch": 1 / 100, "C++": 1.3}


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
    keys = jax.device_put(problem.keys(SEEDS), NamedSharding(mesh, over))
    compiled = jax.jit(many).lower(keys).compile()
    return lambda: jax.block_until_ready(compiled(keys))


def torch_loop(torch):
    """One seed, one step at a time, as in a tutorial."""
    x, y = peers.torch_examples(torch)
    net = peers.torch_net(torch)
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


def torch_func(torch):
    """All seeds at once; returns (the loop, whether its step is compiled)."""
    x, y = peers.torch_examples(torch)
    net = peers.torch_net(torch)
    start = {
        name: torch.stack([value.detach()] * SEEDS)
        for name, value in net.named_parameters()
    }

    def loss(params, inputs, labels):
        outputs = torch.func.functional_call(net, params, (inputs,))
        return torch.nn.functional.cross_entropy(outputs, labels)

    def step(params, m, v, index, powers):
        grads = torch.func.vmap(torch.func.grad(loss))(params, x[index], y[index])
        b1, b2 = problem.B1, problem.B2
        c1, c2 = 1 - powers[0], 1 - powers[1]
        m = {n: b1 * m[n] + (1 - b1) * g for n, g in grads.items()}
        v = {n: b2 * v[n] + (1 - b2) * g * g for n, g in grads.items()}
        params = {
            n: p - problem.LR * (m[n] / c1) / ((v[n] / c2).sqrt() + problem.EPS)
            for n, p in params.items()
        }
        return params, m, v

    def drawn():
        return torch.randint(0, len(x), (SEEDS, problem.BATCH))

    zeros = {name: torch.zeros_like(value) for name, value in start.items()}
    decays = torch.tensor([problem.B1, problem.B2])
    fast, compiled = peers.compiled(torch, step, start, zeros, zeros, drawn(), decays)

    def run():
        state, powers = (start, zeros, zeros), torch.ones(2)
        for _ in range(FUNC_STEPS):
            powers = powers * decays
            state = fast(*state, drawn(), powers)

    return run, compiled


def ask(seconds: float) -> Answer:
    contenders = {
        "sketch": clocked(sketch()),
        "engine": problem.run_on(SEEDS, STEPS, LOOKS),
    }
    work = dict.fromkeys(contenders, SEEDS * STEPS)
    words = {"engine": "engine", "sketch": "a bare sketch in JAX"}
    notes = []
    if peers.Program.possible():
        program, cores = peers.Program("ensemble.cpp"), len(jax.devices())
        contenders["C++"] = lambda: program(SEEDS, STEPS, cores)[0]
        work["C++"], words["C++"] = SEEDS * STEPS, "a C++ loop over seeds"
    else:
        notes.append("no C++ loop: g++ is not installed")
    if torch := peers.installed("torch"):
        torch.set_num_threads(os.cpu_count() or 1)
        contenders["torch"] = clocked(torch_loop(torch))
        func, compiled = torch_func(torch)
        contenders["func"] = clocked(func)
        work |= {"torch": TORCH_STEPS, "func": SEEDS * FUNC_STEPS}
        words["torch"] = "the plainest torch loop"
        with_compile = " + torch.compile" if compiled else ", not compiled"
        words["func"] = f"torch.func.vmap{with_compile}"
    else:
        notes.append(missing("torch"))
    others = [name for name in contenders if name != "engine"]
    found = race(contenders, [("engine", name) for name in others], seconds)
    rows = [
        Row(
            f"seed-step of the engine ÷ of {words[name]}",
            found.ratio("engine", name, work[name] / work["engine"]),
            aim=AIMS.get(name),
        )
        for name in others
    ]
    rows += [
        Row(f"seed-step, {words[name]}", found.seconds(name, 1e6 / work[name]), "µs")
        for name in contenders
    ]
    return Answer(rows, [*notes, f"{found.rounds} rounds"])


if __name__ == "__main__":
    asked(ask)
