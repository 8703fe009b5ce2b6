"""What the sources say, and the presets whose verdicts answer: the questions of the ledger.

`python -m experiments.claims` reads them; docs/claims.md is made of them.
"""

from typing import NamedTuple


class Question(NamedTuple):
    """A sentence of a source, and the claims of a preset that test it.

    claims: patterns of their names, as a shell's, apart by blanks. known: whether the
    answer was published before. absent: why there is no answer, where there is none.
    """

    says: str
    preset: str  # as "svag:digits"
    claims: str
    known: bool = False
    absent: str = ""


class Source(NamedTuple):
    """A paper: its authors and year, its title and where it is, what it says."""

    name: str
    where: str
    questions: tuple[Question, ...]


SOURCES: tuple[Source, ...] = ()
