"""What do learning rate and weight decay do to a net whose layers are normalized?

Its loss sees only the directions of its weights. Then the product λ_e = lr·decay, the
intrinsic learning rate, sets all that lasts: the norm goes to an equilibrium where the
effective learning rate lr/‖w‖² is √(2 λ_e/Tr Σ̄) (Li, Lyu and Arora 2020). Each preset
is one question, with a figure, and verdicts with intervals.
"""

import importlib
from types import ModuleType

from ml_collections import ConfigDict

from experiments.launch import launch
from experiments.rundir import RunDir
from optsde.analysis import verdict_table


def main() -> None:
    launch("intrinsic_lr", __doc__, "configs/intrinsic_lr.py:equilibrium", check, run)


def check(config: ConfigDict) -> None:
    _study(config).check(config)


def run(config: ConfigDict, rundir: RunDir) -> None:
    """Each study has check(config) and run(config, rundir) -> verdicts."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    verdicts = _study(config).run(config, rundir)
    print("", verdict_table(verdicts), "", sep="\n")
    rundir.finish("done", verdicts)
    print(f"figures: {rundir.path / 'figures'}")
    print(f"summary: {rundir.path / 'summary.json'}")


def _study(config: ConfigDict) -> ModuleType:
    return importlib.import_module(f"experiments.intrinsic_lr.{config.study}")
