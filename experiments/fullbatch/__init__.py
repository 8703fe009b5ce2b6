"""Can gradient descent on the full batch generalise as well as SGD?

The recipes of Geiping et al. (ICLR 2022) row by row: longer, clipped, penalised, in
smaller blocks. A preset of one row trains it, with checkpoints; a table trains all rows
as ensembles of the same seeds and gives verdicts on the paper's orderings. --dry_run
compiles the step and says what it costs, without data. `orders` compares any rows by
claims of one's own. `batches` has the steps to a training loss at each batch from 1 to
all examples, `sharpness` the curvature where they end. `convex` has a convex function
that the full batch overfits and SGD does not. `growth` prices the steps of a base run,
SVAG and the full batch on any number of accelerators.
"""

from experiments.fullbatch import batches, convex, growth, orders, row, sharpness, table
from optsde.study import Package

STUDIES = row, table, orders, batches, sharpness, convex, growth
PACKAGE = Package("fullbatch", __doc__, [module.study for module in STUDIES])
main = PACKAGE.main
