"""Tuned at batch B: what at κB, and will it hold? Three answers, from cheap to sure.

Predict measures signal and noise of the gradient along a base run (`probe_until` of it,
with `probe_seeds` seeds) and says how far the rule will hold, and by how much the loss
will differ; with --config.verify=False nothing else runs. Simulate runs SVAG: where it
does not change with ℓ, the SDE describes the run, and the rule must hold. Verify trains
at κB under the optimizer's own rule and under the rules people use instead, on one
clock, with the same seeds. --dry_run prints the hyperparameters.
"""

from experiments.scaling import classes, families, half_life, optimum, rows, rule
from experiments.scaling.verification import study
from optsde.plans import Plan
from optsde.run import Task
from optsde.study import Package, Result
from optsde.study.results import call

PACKAGE = Package(
    "scaling",
    __doc__,
    (study, classes.study, rows.study, half_life.study, optimum.study, families.study),
)
main = PACKAGE.main


def run(task: Task, plan: Plan, **settings) -> Result:
    """Returns what the command says of a task and the plan of its base run.

    `print` it for the tables; `.runs.foreseen` is the prediction and `.verdicts` are
    the claims.

        scaling.run(task, plan, kappas=(2, 4, 8), seeds=16, verify=False)

    Args:
      settings: those of `python -m experiments.scaling --help` that no plan has.
    """
    return call(study, rule.of_plan(plan, **settings), task)
