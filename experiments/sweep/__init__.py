"""Which hyperparameters end lowest, and is the best told apart from the others?"""

from experiments.sweep import grid, timescale
from optsde.study import Package

PACKAGE = Package("sweep", __doc__ or "", [grid.study, timescale.study])
main = PACKAGE.main
