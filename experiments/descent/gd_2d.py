"""Which flow does descent with finite steps follow?

Two weights a and b fit four points by b·a·x, as in Barrett and Dherin (2021): the
minima are a hyperbola, and where on it a path ends tells the flows apart. The full
batch is compared with the plain flow and with that of f + (η/4)|∇f|²; single examples,
over one epoch, with that of f + (η/4)·mean|∇L_k|² too: all 4! orders without
replacement, all 4⁴ independent draws, so that the means are exact. All in float64.
"""

import itertools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.descent import paths
from experiments.descent.gd_2d_figures import (
    DRAWS,
    FLOWS,
    draw_epochs,
    draw_full_batch,
)
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, order, table, within

X = np.array([-1.5, 0.4, 1.0, 2.0])
Y = np.array([-1.2, 1.0, 0.3, 1.6])
START = np.array([0.15, 1.2])  # a, b
ACCURACY = 1e-12  # of the flows


def check(config: ConfigDict) -> None:
    for name in ("lrs", "epoch_lrs"):
        rates = config[name]
        fine = len(rates) >= 3 and min(rates) > 0 and len(set(rates)) == len(rates)
        require(fine, config, name, "three or more positive rates, all different")
    for name in ("time", "shown"):
        require(config[name] > 0, config, name, "a positive number")
    for lr in (*config.lrs, config.shown):
        steps = config.time / lr
        whole = abs(steps - round(steps)) < 1e-9
        require(whole, config, "time", f"a multiple of shown and of lrs={config.lrs}")


def losses(params, examples):
    """½(b·a·x − y)² of each example."""
    x, y = examples
    a, b = params
    return 0.5 * (b * a * x - y) ** 2


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    import jax

    rates = (*config.lrs, config.shown)
    steps = [round(config.time / lr) for lr in rates]
    size, few = len(X), len(rates)
    sequences = {
        "orders": list(itertools.permutations(range(size))),
        "independent": list(itertools.product(range(size), repeat=size)),
    }
    with jax.enable_x64(True):
        walks = full_batch(rates, steps)
        means = {
            draws: mean_after_an_epoch(config.epoch_lrs, them)
            for draws, them in sequences.items()
        }
        spans = [config.time] * few + [size * lr for lr in config.epoch_lrs]
        flows = flows_of((*rates, *config.epoch_lrs), spans)
    long = {name: flows[name][:few] for name in ("plain", "implicit")}
    short = {name: flow[few:] for name, flow in flows.items()}
    full = apart(long, np.array([walk[-1] for walk in walks]))
    full = {name: errors[:-1] for name, errors in full.items()}  # not at `shown`
    epochs = {draws: apart(short, mean) for draws, mean in means.items()}
    found = {"full": full, **epochs}
    for draws, errors in found.items():
        rundir.add_curves({f"{draws}_{name}": x for name, x in errors.items()})
    print(errors_table("full batch", config.lrs, full))
    for draws, errors in epochs.items():
        print(errors_table(DRAWS[draws].lower(), config.epoch_lrs, errors))
    file = rundir.figure("full_batch")
    draw_full_batch(config, picture_loss, walks[-1], long, full, file)
    draw_epochs(config, epochs, rundir.figure("one_epoch"))
    return judge(config, found)


def mean_loss(params):
    import jax.numpy as jnp

    return jnp.mean(losses(params, (jnp.asarray(X), jnp.asarray(Y))))


def picture_loss(a, b):
    """The same on a grid, by numpy."""
    return np.mean(losses((a[..., None], b[..., None]), (X, Y)), axis=-1)


def modified_losses(lr) -> dict:
    """The losses whose flows are compared."""
    from experiments.descent.modified import implicit, implicit_by_batch

    by_batch = implicit_by_batch(losses, (X, Y), lr)
    implied = implicit(mean_loss, lr)
    return {"plain": mean_loss, "implicit": implied, "by_batch": by_batch}


def descent(oracle, lr, steps: int):
    """All points of plain descent from START; for use inside jit."""
    import jax

    plan = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=steps)
    dynamics = optsde.discrete(plan, lambda batch_size: oracle, START)
    return paths.follow(dynamics, jax.random.key(0), steps)


def full_batch(lrs, steps: list[int]) -> list[np.ndarray]:
    """The path of that many steps at each lr."""
    import jax
    import jax.numpy as jnp

    from optsde import gradients

    oracle = gradients.full_batch(losses, (X, Y), group=None)
    longest = jax.vmap(lambda lr: descent(oracle, lr, max(steps)))
    walks = jax.jit(longest)(jnp.asarray(lrs))
    return [np.asarray(w)[: n + 1] for w, n in zip(walks, steps, strict=True)]


def mean_after_an_epoch(lrs, sequences) -> np.ndarray:
    """Where the mean over all sequences of examples is after the last, at each lr."""
    import jax
    import jax.numpy as jnp

    from optsde.gradients import ExampleOracle

    data = jnp.asarray(X), jnp.asarray(Y)

    def end(lr, sequence):
        oracle = ExampleOracle(
            data=data, losses=losses, choose=lambda d: sequence[d.step][None], size=1
        )
        return descent(oracle, lr, len(X))[-1]

    over_sequences = jax.vmap(end, (None, 0))
    over_rates = jax.vmap(over_sequences, (0, None))
    ends = jax.jit(over_rates)(jnp.asarray(lrs), jnp.asarray(sequences))
    return np.mean(np.asarray(ends), axis=1)


def flows_of(lrs, spans, points: int = 200) -> dict[str, np.ndarray]:
    """Each flow from 0 to the span of each lr, [lr, points, 2]."""
    import jax
    import jax.numpy as jnp

    from experiments.descent.modified import gradient_flow

    @jax.vmap
    def flows(lr, span):
        times = jnp.linspace(0, span, points)
        return {
            name: gradient_flow(loss, jnp.asarray(START), times, ACCURACY)
            for name, loss in modified_losses(lr).items()
        }

    found = jax.jit(flows)(jnp.asarray(lrs), jnp.asarray(spans))
    return {name: np.asarray(found[name]) for name in FLOWS}


def apart(flows: dict[str, np.ndarray], ends: np.ndarray) -> dict[str, np.ndarray]:
    """How far the flows end from where descent did, at each lr."""
    return {
        name: np.linalg.norm(flow[:, -1] - ends, axis=-1)
        for name, flow in flows.items()
    }


def errors_table(what: str, lrs, found: dict[str, np.ndarray]) -> str:
    header = [f"η, {what}", *(f"from {FLOWS[name][3]}" for name in found)]
    rows = [
        [f"{lr:g}", *(f"{errors[i]:.2e}" for errors in found.values())]
        for i, lr in enumerate(lrs)
    ]
    return table(header, rows, "r" * len(header)) + "\n"


ORDERS = {  # of the distance in η
    ("full", "plain"): 1,
    ("full", "implicit"): 2,
    ("orders", "plain"): 2,
    ("orders", "implicit"): 2,
    ("orders", "by_batch"): 3,
    ("independent", "plain"): 2,
    ("independent", "implicit"): 3,
    ("independent", "by_batch"): 2,
}


def judge(config: ConfigDict, found) -> list[Verdict]:
    verdicts = []
    for (draws, flow), power in ORDERS.items():
        lrs = config.lrs if draws == "full" else config.epoch_lrs
        slope = order(lrs, found[draws][flow])
        claim = f"{draws}_from_{flow}_order_{power}"
        verdicts.append(within(claim, slope, power - 0.25, power + 0.25, "power of η"))
    return verdicts
