"""Tuned at batch B: what at κB, and will it hold? Three answers, from cheap to sure.

Predict measures signal and noise of the gradient along a base run (`probe_until` of it,
with `probe_seeds` seeds) and says how far the rule will hold, and by how much the loss
will differ; with --config.verify=False nothing else runs. Simulate runs SVAG: where it
does not change with ℓ, the SDE describes the run, and the rule must hold. Verify trains
at κB under the optimizer's own rule and under the rules people use instead, on one
clock, with the same seeds. --dry_run prints the hyperparameters.
"""

from experiments.scaling.verification import study
from optsde.study import Package

PACKAGE = Package("scaling", __doc__, (study,))
main = PACKAGE.main
