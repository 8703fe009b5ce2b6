"""Malformed command lines of every study: each setting with values that it cannot have.

The sweep is made from the studies' own settings: every one of them is tried with the
values that its type makes malformed, and with the values at its ends. What its declared
range takes is `TAKEN`, with the reason; all else must be refused in one line that names
the setting. Settings which are refused together with others are `COUPLINGS`.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import NamedTuple

import experiments
from optsde.study.launch import Package

OVER = str(2**31)
VALUES = {
    (int, False): ("nan", "inf", "-1", "0", "1e20", "2.5", "word", "", OVER),
    (int, True): ("nan", "-1", "0", "2.5", "word", "", "2,2", OVER),
    (float, False): ("nan", "inf", "-inf", "-1", "0", "1e20", "word", ""),
    (float, True): ("nan", "inf", "-1", "0", "word", "", "2,2", "1e20"),
    (bool, False): ("2", "word"),
    (str, False): ("no_such_name", ""),
    (str, True): ("no_such_name", ""),
}


class Command(NamedTuple):
    """A command line: a package of studies, a study of it, settings and their texts."""

    package: str
    study: str
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.package}.{self.study} {' '.join(self.settings)}"

    @property
    def key(self) -> str:
        """The setting that is wrong: the last."""
        return self.settings[-1].partition("=")[0]


def packages() -> dict[str, Package]:
    """Returns the packages of studies by name."""
    found = {}
    for each in pkgutil.iter_modules(experiments.__path__):
        if each.ispkg:
            module = importlib.import_module(f"experiments.{each.name}")
            found[each.name] = module.PACKAGE
    return found


PACKAGES = packages()


def swept() -> Iterator[Command]:
    """Yields every setting of every study with every value of its type."""
    for package in PACKAGES.values():
        for study in package.studies:
            for leaf in study.settings().leaves():
                for text in VALUES[leaf.kind.element, leaf.kind.many]:
                    yield Command(package.name, study.key, (f"{leaf.name}={text}",))
