"""What happens when the learning rate passes its critical value, and what is gained?

Above η_crit = 2/λ_max the loss shoots up; often it comes back, at a flatter place: a
catapult (Lewkowycz et al. 2020; Zhu et al. 2023). Each preset is one question, with a
figure, and verdicts with intervals; claims of the papers that fail here are listed too.
"""

import importlib
from types import ModuleType

from ml_collections import ConfigDict

from experiments.launch import launch
from experiments.rundir import RunDir
from optsde.analysis import verdict_table


def main() -> None:
    launch("catapults", __doc__, "configs/catapults.py:cyclic", check, run)


def check(config: ConfigDict) -> None:
    _study(config).check(config)


def run(config: ConfigDict, rundir: RunDir) -> None:
    """Each study has check(config) and run(config, rundir) -> verdicts."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    rundir.begin()
    verdicts = _study(config).run(config, rundir)
    print("", verdict_table(verdicts), "", sep="\n")
    rundir.finish("done", verdicts)
    print(f"figures: {rundir.path / 'figures'}")
    print(f"summary: {rundir.path / 'summary.json'}")


def _study(config: ConfigDict) -> ModuleType:
    return importlib.import_module(f"experiments.catapults.{config.study}")
