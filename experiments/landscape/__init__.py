"""How does the loss look around a trained point, and between two of them?

Reads the checkpoints of experiments.fullbatch and evaluates training and held-out loss
on a line or a plane through the trained parameters. Random directions are scaled filter
by filter to the norms of the weights (Li et al. 2018). At each point BatchNorm's
statistics are made anew. Training examples are taken without augmentation.
"""

from experiments.landscape import around, between
from optsde.study import Package

PACKAGE = Package("landscape", __doc__, (around.study, between.study))
main = PACKAGE.main
