"""Gradient descent and its variants as pictures: what does each method do differently?

Each preset is one question, one command and one picture, in less than a minute: paths
on small functions, what momentum and second moments do, how lr and β interact, weight
decay against L2, schedules, and the flow that finite steps really follow.
"""

import importlib
from types import ModuleType

from ml_collections import ConfigDict

from experiments.descent.functions import listing
from experiments.launch import launch, require
from experiments.rundir import RunDir
from optsde.analysis import verdict_table

STUDIES = (
    "trajectories",
    "animation",
    "second_moment",
    "overshoot",
    "sensitivity",
    "gd_2d",
    "l2_vs_weight_decay",
    "schedules",
)
LECTURE = {  # sizes in points on half a slide, which is plots.HALF_SLIDE inches wide
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "figure.titlesize": 13,
}


def main() -> None:
    doc = f"{__doc__}\n{listing()}"
    launch("descent", doc, "configs/descent.py:trajectories", check, run)


def check(config: ConfigDict) -> None:
    allowed = f"one of: {', '.join(STUDIES)}, by the preset of that name"
    require(config.study in STUDIES, config, "study", allowed)
    _study(config).check(config)


def run(config: ConfigDict, rundir: RunDir) -> None:
    """Each study has check(config) and run(config, rundir) -> verdicts."""
    import jax
    import matplotlib

    jax.config.update("jax_default_matmul_precision", "highest")
    rundir.begin()
    with matplotlib.rc_context(LECTURE):
        verdicts = _study(config).run(config, rundir)
    print("", verdict_table(verdicts), "", sep="\n")
    rundir.finish("done", verdicts)
    print(f"figures: {rundir.path / 'figures'}")
    print(f"summary: {rundir.path / 'summary.json'}")


def _study(config: ConfigDict) -> ModuleType:
    return importlib.import_module(f"experiments.descent.{config.study}")
