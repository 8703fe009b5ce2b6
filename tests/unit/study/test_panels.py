"""Panels of runs: groups of arms share a colour and an entry of the legend."""

import numpy as np

from optsde.analysis import plots
from optsde.optimizers import SGD
from optsde.plans import Plan
from optsde.run import Series
from optsde.study import panels
from optsde.study.arms import Arm
from optsde.study.runs import ArmRuns, Runs


def runs_of(*lrs):
    times, runs = np.array([0, 10]), {}
    for lr in lrs:
        plan = Plan(optimizer=SGD(lr=lr), batch_size=1, horizon=10)
        losses = lr * np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
        arm = Arm(f"lr {lr:g}", plan)
        runs[arm.name] = ArmRuns(arm, {"loss": Series(times, losses)})
    return Runs(runs)


def test_each_arm_is_a_line_with_its_own_colour():
    _, (ax,) = plots.new_figure(1)
    colours = panels.bands(ax, runs_of(0.1, 0.2), "loss", scale=10)
    assert colours == {"lr 0.1": plots.COLOURS[0], "lr 0.2": plots.COLOURS[1]}
    assert ax.get_legend_handles_labels()[1] == ["lr 0.1", "lr 0.2"]
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), [4, 2])


def test_arms_of_a_group_share_a_colour_and_differ_in_dashes():
    _, (ax,) = plots.new_figure(1)

    def size(run):
        return "small" if run.arm.plan.optimizer.lr < 1 else "large"

    colours = panels.bands(ax, runs_of(0.1, 2.0, 0.2), "loss", group=size)
    assert colours["lr 0.1"] == colours["lr 0.2"] != colours["lr 2"]
    assert ax.get_legend_handles_labels()[1] == ["small", "large"]
    assert [line.get_linestyle() for line in ax.get_lines()] == ["-", "-", "--"]
