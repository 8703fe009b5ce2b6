"""Does the SDE describe training? Discrete runs, SVAG(ℓ) and the SDE on one clock.

SVAG approaches the SDE as ℓ grows; a plain run that lies on top of it is described by
the SDE, and then the scaling rule for the batch must hold. Writes a run directory with
the curves, a figure, and verdicts with intervals.
"""

from experiments.svag import curves, quadratic, whole
from optsde.plans import Plan
from optsde.run import Task
from optsde.study import Package, Result
from optsde.study.results import call

PACKAGE = Package("svag", __doc__, (curves.study, quadratic.study, whole.study))
main = PACKAGE.main


def run(task: Task, plan: Plan, **settings) -> Result:
    """Returns what the command says of a task and the plan of its plain run.

    `print` it for the tables; `.runs` has the train loss of each arm, [seeds, times],
    and `.verdicts` are the claims.

        svag.run(task, plan, ells=(1, 2, 4), times=(50, 100), seeds=16)

    Args:
      settings: those of `python -m experiments.svag --help` that no plan has.
    """
    return call(curves.study, curves.of_plan(plan, **settings), task)
