"""Does a run with momentum end where plain descent of the same lr ends?

A whole study, as somebody begins who writes a new one. What is not here comes from the
nouns: command line, --help, checks, stored arms, resuming, verdict table, summary.
"""

import jax

from optsde.analysis import agrees, estimate, percent_paired, plots, plus_minus, table
from optsde.gradients import minibatch
from optsde.optimizers import Momentum
from optsde.plans import Plan
from optsde.study import Arm, Numbers, Study, TaskSettings, build_task, setting, train


class Settings(TaskSettings):
    betas: Numbers = setting((0.0, 0.9), "momentum of each arm", at_least=0, below=1)
    lr: float = setting(0.1, "learning rate of each arm", above=0)
    seeds: int = setting(4, "runs of each arm", at_least=2)
    bound: float = setting(20.0, "for equal losses", unit="%", above=0)
    train_size = 64
    options = {"hidden": (8,)}


def arms(s):
    for beta in s.betas:
        momentum = Momentum(lr=s.lr, beta=beta)
        yield Arm(f"β {beta:g}", Plan(optimizer=momentum, batch_size=8, horizon=40))


def simulate(s, rundir, task):
    sampler, probes = minibatch(task.losses, task.train), [task.evaluation(times=10)]
    keys, keep = jax.random.split(jax.random.key(s.seed), s.seeds), rundir.once_all
    return train([*arms(s)], sampler, task.init, keys, keep=keep, probes=probes)


def tables(s, runs):
    rows = [[n, plus_minus(estimate(r.test_loss.last))] for n, r in runs.items()]
    yield table(["arm", "held-out loss"], rows, "lr")


def claims(s, runs):
    first, *others = runs.values()
    for run in others:
        change = percent_paired(run.test_loss.last, first.test_loss.last)
        yield agrees(f"{run.arm.name}_ends_alike", change, s.bound, "% of loss")


def figure(s, runs, path):
    canvas, (ax,) = plots.new_figure(1)
    for (name, run), colour in zip(runs.items(), plots.COLOURS, strict=False):
        times, losses = run.test_loss
        plots.band(ax, times, estimate(losses), label=name, colour=colour)
    plots.label(ax, x="step", y="held-out loss", legend="best")
    plots.save(canvas, path)


parts = dict(tables=tables, claims=claims, figures={"losses": figure})
study = Study(__name__, Settings, simulate, task=build_task, **parts)
