"""What happens when the learning rate passes its critical value, and what is gained?

Above η_crit = 2/λ_max the loss shoots up; often it comes back, at a flatter place: a
catapult (Lewkowycz et al. 2020; Zhu et al. 2023). Each preset is one question, with a
figure, and verdicts with intervals; claims of the papers that fail here are listed too.
"""

from experiments.catapults import (
    adagrad,
    batch,
    batch_edge,
    cyclic,
    edge,
    fading,
    lemma,
    ntk,
    pulses,
    small_batches,
    table,
    threshold,
    toy,
)
from optsde.study import Package

STUDIES = (
    cyclic,
    threshold,
    lemma,
    batch,
    small_batches,
    ntk,
    adagrad,
    fading,
    pulses,
    toy,
    edge,
    batch_edge,
    table,
)
PACKAGE = Package("catapults", __doc__, [module.study for module in STUDIES])
main = PACKAGE.main
