"""Panels: what figures of several studies show of their runs, in one style."""

from collections.abc import Callable

from optsde.analysis import estimate, plots
from optsde.study.runs import ArmRuns, Runs

DASHES = ("-", "--", "-.", ":", (0, (1, 3)))


def bands(
    ax,
    runs: Runs,
    metric: str,
    *,
    scale: float = 1.0,
    group: Callable[[ArmRuns], str] = lambda run: run.arm.name,
) -> dict[str, str]:
    """Draws a metric of every arm as its mean with Student's 95% interval.

    Arms of one group share a colour and an entry of the legend, and differ in dashes.

    Args:
      ax: a panel.
      runs: of the arms.
      metric: its name.
      scale: factor of its values.
      group: runs of an arm -> name of the group, by default the arm's own.

    Returns:
      The colour of each arm by its name.
    """
    groups = [group(run) for run in runs.values()]
    of = plots.colours(dict.fromkeys(groups))
    for place, (run, mine) in enumerate(zip(runs.values(), groups, strict=True)):
        times, values = run[metric]
        before = groups[:place].count(mine)
        plots.band(
            ax,
            times,
            estimate(scale * values),
            label="" if before else mine,
            colour=of[mine],
            ls=DASHES[before % len(DASHES)],
        )
    return {name: of[mine] for name, mine in zip(runs, groups, strict=True)}
