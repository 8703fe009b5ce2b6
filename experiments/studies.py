"""Packages of studies: each preset names the module that answers its question.

Such a module has check(config), which refuses bad settings, and run(config, rundir),
which leaves figures and returns verdicts.
"""

import importlib
from collections.abc import Mapping
from functools import partial
from types import ModuleType

from ml_collections import ConfigDict

from experiments.launch import launch, require
from experiments.rundir import RunDir
from optsde.analysis import mark_known_false, verdict_table


class Package:
    """`style`: settings of matplotlib that all its figures share."""

    def __init__(self, name: str, doc: str, default: str, style: Mapping | None = None):
        self.name = name
        self.style = dict(style or {})
        path = f"configs/{name}.py:{default}"
        self.launch = partial(launch, name, doc, path, self.check, self.run)

    def study(self, config: ConfigDict) -> ModuleType:
        return importlib.import_module(f"experiments.{self.name}.{config.study}")

    def check(self, config: ConfigDict) -> None:
        if "seed" in config:
            fine = 0 <= config.seed < 2**31
            require(fine, config, "seed", "an integer from 0 to 2³¹ − 1")
        self.study(config).check(config)

    def run(self, config: ConfigDict, rundir: RunDir) -> None:
        import jax
        import matplotlib

        jax.config.update("jax_default_matmul_precision", "highest")
        rundir.begin()
        with matplotlib.rc_context(self.style):
            found = self.study(config).run(config, rundir)
        # Which claims there are depends on settings, so that a name may be of none.
        known = config.get("known_false") or ()
        verdicts = mark_known_false(found, known, complete=False)
        print("", verdict_table(verdicts), "", sep="\n")
        rundir.finish("done", verdicts)
        print(f"figures: {rundir.path / 'figures'}")
        print(f"summary: {rundir.path / 'summary.json'}")
