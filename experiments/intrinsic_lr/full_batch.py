"""Is gradient descent with weight decay on a normalized net close to gradient flow?

It is not, however small lr is: without noise nothing holds the norm up, it shrinks at
the rate λ_e, and λ_max of the Hessian grows as 1/‖w‖² until lr·λ_max passes 2. Then the
loss shoots up, the large gradient lengthens the weights, and all begins anew. Without
weight decay the loss only falls.
"""

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.intrinsic_lr import runs
from experiments.intrinsic_lr.equilibrium import shown
from experiments.intrinsic_lr.runs import Arm, Curves, sgd
from experiments.intrinsic_lr.setting import Setting, build, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, agrees, estimate, table
from optsde.analysis.plots import COLOURS, new_figure, save

SPIKE = dict(rise=10.0, fall=1.2, floor=1e-3, window=50)
BEFORE = 200  # steps before a spike in which lr·λ_max is looked for,
LEAVING = 25  # but for these: the loss rises already, and λ_max with it


def check(config: ConfigDict) -> None:
    check_run(config)
    require(config.lr > 0 and config.decay > 0, config, "lr", "it and decay above 0")
    require(config.steps >= 1000, config, "steps", "at least 1000")
    most = BEFORE - LEAVING
    require(config.every <= most, config, "every", f"at most {most}")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting = build(config)
    arms = [
        Arm("decay", sgd(config.lr, config.decay)),
        Arm("none", sgd(config.lr, 0.0)),
    ]
    if not all(f"{arm.name}/loss" in rundir.curves() for arm in arms):
        rundir.add_curves(_measured(config, _whole(setting), arms))
    held = rundir.curves()
    found = {
        arm.name: {n: held[f"{arm.name}/{n}"] for n in ("loss", "edge", "square")}
        for arm in arms
    }
    print(spikes_table(config, found))
    draw(config, found, rundir.figure("full_batch"))
    return judge(config, found)


def _whole(setting: Setting) -> Setting:
    """The same with the gradient of all training examples at each step."""
    from optsde import gradients

    task = setting.task
    oracle = gradients.full_batch(task.losses, task.train, group=None)
    return setting._replace(sampler=lambda batch_size: oracle)


def _measured(config: ConfigDict, setting: Setting, arms: list[Arm]):
    """The loss of every step; lr·λ_max and ‖w‖² each `every` steps."""
    import jax
    import jax.numpy as jnp
    import optax

    from optsde import measure
    from optsde.dynamics import Engine

    def dynamics(member):
        plan = optsde.Plan(
            optimizer=member, batch_size=setting.task.size, horizon=config.steps
        )
        return optsde.discrete(plan, setting.sampler, setting.task.init)

    members, _ = runs.members_of(arms, config.seeds, 0)
    replicas = len(arms) * config.seeds
    engine = Engine(dynamics, replicas, members=members, with_info=True)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    state = engine.init(jnp.tile(keys, len(arms)))

    def sharpness(oracle, state, vectors):
        product = measure.hessian(oracle, state.params)
        key = jax.random.fold_in(state.key, state.step)
        pairs = measure.top_eigenvalues(
            product, vectors, key, tolerance=0.05, dimension=6, restarts=3
        )
        square = optax.tree.norm(state.params, squared=True)
        return config.lr * pairs.values[0], square, pairs.vectors

    sharp = engine.each(sharpness, setting.sampler(setting.task.size))
    begin = engine.each(lambda s: measure.random_vectors(s.key, s.params))
    vectors = begin(state)
    losses, edges, squares = [], [], []
    progress = optsde.Progress(f"{config.study:14}")
    progress.begin(0)
    for step in range(config.steps):
        if step % config.every == 0:
            edge, square, vectors = sharp(state, vectors)
            edges.append(edge)
            squares.append(square)
            jax.block_until_ready(edge)
            progress.update(step, config.steps)
        state, total = engine.advance(state, engine.no_info(state), 1)
        losses.append(total.loss)
    progress.update(config.steps, config.steps)
    out = {}
    for name, rows in ("loss", losses), ("edge", edges), ("square", squares):
        series = np.stack([np.asarray(x) for x in rows], axis=1)
        for number, arm in enumerate(arms):
            mine = slice(number * config.seeds, (number + 1) * config.seeds)
            out[f"{arm.name}/{name}"] = series[mine]
    return out


def spikes_of(curves: Curves) -> list[list]:
    """The spikes of each seed."""
    from optsde.analysis.spikes import find_spikes

    return [find_spikes(loss, **SPIKE) for loss in curves["loss"]]


def edge_before(config: ConfigDict, curves: Curves) -> np.ndarray:
    """lr·λ_max at its largest in the steps before a spike: of each run that has any,
    the mean over its spikes, which are not independent of each other.
    """
    steps = config.every * np.arange(curves["edge"].shape[1])
    found = []
    for edge, spikes in zip(curves["edge"], spikes_of(curves), strict=True):
        since = [spike.start - steps for spike in spikes]
        near = [(x >= LEAVING) & (x <= BEFORE) for x in since]
        if spikes:
            found.append(np.mean([edge[looks].max() for looks in near]))
    return np.array(found)


def shrinking(config: ConfigDict, curves: Curves) -> np.ndarray:
    """[seeds]: −d log‖w‖²/dt in the second half of the time to the first spike.

    NaN where that comes too early to tell.
    """
    rates = []
    for square, spikes in zip(curves["square"], spikes_of(curves), strict=True):
        last = (spikes[0].start if spikes else config.steps) - BEFORE
        begin, end = last // 2 // config.every, last // config.every
        if end <= max(begin, 0):
            rates.append(np.nan)
            continue
        fall = np.log(square[begin] / square[end])
        rates.append(fall / (config.every * (end - begin)))
    return np.array(rates)


def judge(config: ConfigDict, found: dict[str, Curves]) -> list[Verdict]:
    counts = {n: np.array([len(s) for s in spikes_of(c)]) for n, c in found.items()}
    upward = {n: _upward(c) for n, c in found.items()}
    edges = edge_before(config, found["decay"])
    edges = estimate(edges if len(edges) > 1 else [np.nan, np.nan])  # nothing to judge
    expected = -2 * np.log1p(-config.lr * config.decay)
    rate = estimate(100 * (shrinking(config, found["decay"]) / expected - 1))
    return [
        above("decay_makes_spikes", estimate(counts["decay"]), 0.5, "spikes a run"),
        agrees("none_without_decay", estimate(counts["none"]), 0.5, "spikes a run"),
        agrees(
            "no_step_up_without_decay", estimate(upward["none"]), 0.5, "steps a run"
        ),
        above("steps_go_up_with_decay", estimate(upward["decay"]), 0.5, "steps a run"),
        above("lr_times_sharpness_before_a_spike", edges, 1.8, "lr·λ_max"),
        agrees("norm_shrinks_at_twice_the_intrinsic_lr", rate, 2.0, "% of 2λ_e"),
    ]


def _upward(curves: Curves) -> np.ndarray:
    """[seeds]: steps by which the loss rose by more than rounding."""
    loss = curves["loss"]
    return (np.diff(loss) > 1e-6 + 1e-4 * loss[:, :-1]).sum(axis=1)


def spikes_table(config: ConfigDict, found: dict[str, Curves]) -> str:
    rows = []
    for name, curves in found.items():
        spikes = spikes_of(curves)
        firsts = [s[0].start for s in spikes if s]
        span = f"{min(firsts)} to {max(firsts)}" if firsts else "–"
        counts = [len(s) for s in spikes]
        edges = edge_before(config, curves)
        middle = f"{np.median(edges):.3g}" if len(edges) else "–"
        words = f"{config.decay:g}" if name == "decay" else "0"
        late = curves["edge"][:, -1]
        rows.append([words, f"{min(counts)} to {max(counts)}", span, middle,
                     shown(late), _upward(curves).tolist()])  # fmt: skip
    header = ["decay", "spikes", "first at step", "lr·λ_max before", "at the end"]
    return table([*header, "steps up, each seed"], rows, "rrrrrr")


def draw(config: ConfigDict, found: dict[str, Curves], path) -> None:
    figure, (left, right) = new_figure(2)
    words = {"decay": f"decay {config.decay:g}", "none": "no decay"}
    looks = config.every * np.arange(found["decay"]["edge"].shape[1])
    for (name, curves), colour in zip(found.items(), COLOURS, strict=False):
        for seed in range(min(2, len(curves["loss"]))):
            style = dict(color=colour, lw=1.2, ls=("-", ":")[seed])
            label = f"{words[name]}, seed {seed}"
            left.plot(curves["loss"][seed], label=label, **style)
            right.plot(looks, curves["edge"][seed], **style)
    left.set(yscale="log", xlabel="step", ylabel="train loss, full batch")
    left.set_ylim(top=1e3)  # above the spikes, for the legend
    left.legend(fontsize=9, ncols=2, loc="upper center")
    right.axhline(2, color="black", lw=1)
    right.text(0, 2.05, "stability limit", fontsize=10, va="bottom")
    right.set_ylim(0, 4)
    right.set(xlabel="step", ylabel="lr × largest eigenvalue of the Hessian")
    save(figure, path)
