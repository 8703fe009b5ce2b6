"""What do learning rate and weight decay do to a net whose layers are normalized?

Its loss sees only the directions of its weights. Then the product λ_e = lr·decay, the
intrinsic learning rate, sets all that lasts: the norm goes to an equilibrium where the
effective learning rate lr/‖w‖² is √(2 λ_e/Tr Σ̄) (Li, Lyu and Arora 2020). Each preset
is one question, with a figure, and verdicts with intervals.
"""

from experiments.intrinsic_lr import (
    decay,
    early,
    equilibrium,
    full_batch,
    mixing,
    momentum,
    only_the_last,
    rotation,
    same_product,
    sphere,
    swa,
)
from optsde.study import Package

PACKAGE = Package(
    "intrinsic_lr",
    __doc__,
    (
        sphere.study,
        equilibrium.study,
        same_product.study,
        decay.study,
        only_the_last.study,
        early.study,
        swa.study,
        mixing.study,
        full_batch.study,
        momentum.study,
        rotation.study,
    ),
)
main = PACKAGE.main
