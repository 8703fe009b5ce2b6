"""May the batch change in mid-run, and how large may it be at each time?

A batch that grows by κ, with hyperparameters and the optimizer's state rescaled at that
time (`optsde.switch`), goes on with the same SDE. So it may take the place of a
learning rate that falls, and follow the noise scale along a run.
"""

from experiments.batches import branching, growing, regression
from optsde.study import Package

PACKAGE = Package(
    "batches", __doc__, (growing.study, regression.study, branching.study)
)
main = PACKAGE.main
