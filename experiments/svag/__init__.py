"""Does the SDE describe training? Discrete runs, SVAG(ℓ) and the SDE on one clock.

SVAG approaches the SDE as ℓ grows; a plain run that lies on top of it is described by
the SDE, and then the scaling rule for the batch must hold. Writes a run directory with
the curves, a figure, and verdicts with intervals.
"""

from experiments.svag import curves, quadratic
from optsde.study import Package

PACKAGE = Package("svag", __doc__, (curves.study, quadratic.study))
main = PACKAGE.main
