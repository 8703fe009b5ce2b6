"""Gradient descent and its variants as pictures: what does each method do differently?

Each preset is one question, one command and one picture, in less than a minute: paths
on small functions, what momentum and second moments do, how lr and β interact, weight
decay against L2, schedules, and the flow that finite steps really follow.
"""

from experiments.descent.functions import listing
from experiments.studies import Package

LECTURE = {  # sizes in points on half a slide, which is plots.HALF_SLIDE inches wide
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "figure.titlesize": 13,
}

PACKAGE = Package("descent", f"{__doc__}\n{listing()}", "trajectories", LECTURE)
main = PACKAGE.launch
