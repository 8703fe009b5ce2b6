"""Gradient descent and its variants as pictures: what does each method do differently?

Each preset is one question, one command and one picture, in less than a minute: paths
on small functions, what momentum and second moments do, how lr and β interact, weight
decay against L2, schedules, and the flow that finite steps really follow.
"""

from experiments.descent import (
    animation,
    full_gradient,
    gd_2d,
    l2_vs_weight_decay,
    label_noise,
    lengths,
    modified_sde,
    overshoot,
    perceptron,
    schedules,
    second_moment,
    sensitivity,
    starts,
    trajectories,
)
from experiments.descent.functions import listing
from optsde.study import Package

STUDIES = (
    trajectories,
    animation,
    second_moment,
    overshoot,
    sensitivity,
    gd_2d,
    modified_sde,
    label_noise,
    full_gradient,
    l2_vs_weight_decay,
    schedules,
    lengths,
    starts,
    perceptron,
)
PACKAGE = Package(
    "descent", f"{__doc__}\n{listing()}", [module.study for module in STUDIES]
)
main = PACKAGE.main
