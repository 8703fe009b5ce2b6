"""Is gradient descent with weight decay on a normalized net close to gradient flow?

It is not, however small lr is: without noise nothing holds the norm up, it shrinks at
the rate λ_e, and λ_max of the Hessian grows as 1/‖w‖² until lr·λ_max passes 2. Then the
loss shoots up, the large gradient lengthens the weights, and all begins anew. Without
weight decay the loss only falls.
"""

import jax
import numpy as np
import optax

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Nets
from optsde import gradients, measure
from optsde.analysis import above, agrees, estimate, find_spikes, plots, table
from optsde.measure import Probe
from optsde.optimizers import SGD
from optsde.plans import Plan
from optsde.study import Study, setting
from optsde.study.arms import Arm, train

SPIKE = dict(rise=10.0, fall=1.2, floor=1e-3, window=50)
BEFORE = 200  # steps before a spike in which lr·λ_max is looked for,
LEAVING = 25  # but for these: the loss rises already, and λ_max with it


class Settings(Nets):
    lr: float = setting(0.1, "learning rate", above=0)
    decay: float = setting(0.01, "weight decay of one arm; the other has none", above=0)
    train_size = 256
    judged = 256
    statistics = 256
    augment = "none"
    steps = 7500
    every = 25
    seeds = 4

    def demands(self):
        yield from super().demands()
        yield self.steps >= 1000, "steps", "at least 1000"
        most = BEFORE - LEAVING
        yield self.every <= most, "every", f"at most {most}"


def simulate(s, rundir, task):
    """Measures the loss of every step, and lr·λ_max and ‖w‖² each `every` steps."""
    sampler = gradients.full_batch(task.losses, nets.examples_of(s, task), group=None)
    oracle = sampler()
    arms = [
        Arm(
            name,
            Plan(
                optimizer=SGD(lr=s.lr, weight_decay=decay),
                batch_size=oracle.size,
                horizon=s.steps,
            ),
        )
        for name, decay in (("decay", s.decay), ("none", 0.0))
    ]

    def observe(oracle, state, vectors):
        product = measure.hessian(oracle, state.params)
        key = jax.random.fold_in(state.key, state.step)
        pairs = measure.top_eigenvalues(
            product, vectors, key, tolerance=0.05, dimension=6, restarts=3
        )
        square = optax.tree.norm(state.params, squared=True)
        return {"edge": s.lr * pairs.values[0], "square_norm": square}, pairs.vectors

    edge = Probe(
        observe,
        init=lambda state: measure.random_vectors(state.key, state.params),
        source=oracle,
        times=range(0, s.steps, s.every),
    )
    return train(
        arms,
        sampler,
        task.init,
        s.keys(),
        keep=rundir.once_all,
        probes=[edge],
        every=1,
        label=s.study(),
    )


def spikes_of(run):
    """Returns the spikes of each seed."""
    return [find_spikes(loss, **SPIKE) for loss in run.loss.values]


def edge_before(run):
    """Returns lr·λ_max at its largest in the steps before a spike.

    Of each seed that has any, the mean over its spikes, which are not independent.
    """
    times, edges = run.edge
    means = []
    for edge, spikes in zip(edges, spikes_of(run), strict=True):
        since = [spike.start - times for spike in spikes]
        near = [(x >= LEAVING) & (x <= BEFORE) for x in since]
        if spikes:
            means.append(np.mean([edge[inside].max() for inside in near]))
    return np.array(means)


def shrinking(s, run):
    """Returns −d log‖w‖²/dt in the second half of the time to the first spike [seeds].

    It is NaN where that comes too early to tell.
    """
    rates = []
    for square, spikes in zip(run.square_norm.values, spikes_of(run), strict=True):
        last = (spikes[0].start if spikes else s.steps) - BEFORE
        begin, end = last // 2 // s.every, last // s.every
        if end <= max(begin, 0):
            rates.append(np.nan)
            continue
        fall = np.log(square[begin] / square[end])
        rates.append(fall / (s.every * (end - begin)))
    return np.array(rates)


def upward(run):
    """Returns the steps by which the loss rose by more than rounding [seeds]."""
    loss = run.loss.values
    return (np.diff(loss) > 1e-6 + 1e-4 * loss[:, :-1]).sum(axis=1)


def tables(s, runs):
    rows = []
    for decay, run in zip((s.decay, 0), runs.values(), strict=True):
        spikes, edges = spikes_of(run), edge_before(run)
        firsts = [each[0].start for each in spikes if each]
        counts = [len(each) for each in spikes]
        rows.append(
            [
                f"{decay:g}",
                f"{min(counts)} to {max(counts)}",
                f"{min(firsts)} to {max(firsts)}" if firsts else "–",
                f"{np.median(edges):.3g}" if len(edges) else "–",
                nets.shown(run.edge.values[:, -1]),
                upward(run).tolist(),
            ]
        )
    header = ["decay", "spikes", "first at step", "lr·λ_max before", "at the end"]
    yield table([*header, "steps up, each seed"], rows, "rrrrrr")


def claims(s, runs):
    decay, none = runs["decay"], runs["none"]
    with_decay, without = (
        estimate([len(spikes) for spikes in spikes_of(run)]) for run in (decay, none)
    )
    yield above("decay_makes_spikes", with_decay, 0.5, "spikes a run")
    yield agrees("none_without_decay", without, 0.5, "spikes a run")
    steps = "steps a run"
    yield agrees("no_step_up_without_decay", estimate(upward(none)), 0.5, steps)
    yield above("steps_go_up_with_decay", estimate(upward(decay)), 0.5, steps)
    edges = edge_before(decay)
    edges = estimate(edges if len(edges) > 1 else [np.nan, np.nan])  # nothing to judge
    yield above("lr_times_sharpness_before_a_spike", edges, 1.8, "lr·λ_max")
    expected = -2 * np.log1p(-s.lr * s.decay)
    rate = estimate(100 * (shrinking(s, decay) / expected - 1))
    yield agrees("norm_shrinks_at_twice_the_intrinsic_lr", rate, 2.0, "% of 2λ_e")


def figure(s, runs, path):
    canvas, (left, right) = plots.new_figure(2)
    words = {"decay": f"decay {s.decay:g}", "none": "no decay"}
    for (name, run), colour in zip(runs.items(), plots.COLOURS, strict=False):
        for seed in range(min(2, s.seeds)):
            style = dict(color=colour, lw=1.2, ls=("-", ":")[seed])
            label = f"{words[name]}, seed {seed}"
            left.plot(run.loss.values[seed], label=label, **style)
            right.plot(run.edge.times, run.edge.values[seed], **style)
    left.set_yscale("log")
    left.set_ylim(top=1e3)  # above the spikes, for the legend
    right.axhline(2, color="black", lw=1)
    right.text(0, 2.05, "stability limit", va="bottom")
    right.set_ylim(0, 4)
    plots.label(left, x="step", y="train loss, full batch", legend="upper center")
    plots.label(right, x="step", y="lr × largest eigenvalue of the Hessian")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"full_batch": figure},
)
