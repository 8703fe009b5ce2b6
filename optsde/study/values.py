"""Values of settings: how they are written, and which of them are allowed."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from optsde.checks import LARGEST, WIDEST

NOUNS = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "truth values"),
    str: ("a name", "names"),
}
COUNTS = {0: "", 1: "one or more ", 2: "two or more "}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A type of value: one int, float, bool or str, or a tuple of them."""

    element: type
    many: bool = False

    @property
    def noun(self) -> str:
        one, several = NOUNS[self.element]
        return f"a list of {several}" if self.many else one

    def parse(self, text: str) -> Any:
        """Reads a value as it is typed on a command line; ValueError if it is none."""
        if not self.many:
            return self._parse_element(text)
        parts = text.strip().strip("()[]").split(",")
        return tuple(self._parse_element(part) for part in parts if part.strip())

    def read(self, value: Any) -> Any:
        """Returns the value in this type; ValueError if it has another.

        >>> Kind(float, many=True).read([1, 0.5])
        (1.0, 0.5)
        """
        if not self.many:
            return self._read_element(value)
        if not isinstance(value, list | tuple):
            raise ValueError(self.noun)
        return tuple(self._read_element(x) for x in value)

    def _parse_element(self, text: str) -> Any:
        word = text.strip().strip("'\"")
        if self.element is bool:
            if word.lower() not in ("true", "false"):
                raise ValueError(self.noun)
            return word.lower() == "true"
        return self.element(word)

    def _read_element(self, value: Any) -> Any:
        accepted = (int, float) if self.element is float else self.element
        is_bool = isinstance(value, bool)
        if not isinstance(value, accepted) or is_bool != (self.element is bool):
            raise ValueError(self.noun)
        return self.element(value)


def kind_of(value: Any) -> Kind:
    """Returns the kind of a value whose type nobody has declared.

    >>> kind_of((64, 64))
    Kind(element=<class 'int'>, many=True)
    """
    many = isinstance(value, list | tuple)
    element = type(next(iter(value), "")) if many else type(value)
    if element not in NOUNS:
        raise ValueError("an integer, a number, true or false, a name, or a list")
    return Kind(element, many)


def kind_of_text(text: str) -> Kind:
    """Returns the kind of a value as it is typed for an option without a default.

    >>> kind_of_text("8,8"), kind_of_text("group")
    (Kind(element=<class 'int'>, many=True), Kind(element=<class 'str'>, many=False))
    """
    many = "," in text
    if text.lower() in ("true", "false"):
        return Kind(bool)
    for element in (int, float):
        kind = Kind(element, many)
        try:
            kind.parse(text)
        except ValueError:
            continue
        return kind
    return Kind(str, many)


def too_large(value: Any) -> str:
    """Returns what is allowed in place of numbers that a device cannot hold, else "".

    >>> too_large(2**31), too_large((1, 2))
    ('integers of at most 2147483647', '')
    """
    given = value if isinstance(value, tuple) else (value,)
    sizes = [abs(x) for x in given if isinstance(x, int | float)]
    if any(isinstance(x, int) and x > LARGEST for x in sizes):
        return f"integers of at most {LARGEST}"
    if any(isinstance(x, float) and WIDEST < x < math.inf for x in sizes):
        return f"numbers of at most {WIDEST:.4g}, as float32 holds them"
    return ""


def shown(value: Any) -> str:
    """Returns a value as it is typed on a command line.

    >>> shown((1, 2.5)), shown(False)
    ('1,2.5', 'False')
    """
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The values of a setting that are allowed, and what they mean.

    `zero` is what 0, or an empty tuple, stands for, where it stands for something else.
    Bounds are those of every element of a tuple. `needs`: the words of an error in
    place of those that follow from the rest.
    """

    meaning: str
    unit: str = ""
    zero: str = ""
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    multiple_of: int | None = None
    one_of: Sequence[Any] | None = None
    some_of: Sequence[Any] | None = None
    like: str | None = None
    entries: int = 0
    rising: bool = False
    distinct: bool = False
    finite: bool = True
    needs: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a value, of the right type, is allowed; `like` is left aside."""
        if not isinstance(value, tuple):
            return self._element_holds(value)
        return (
            len(value) >= self.entries
            and all(map(self._element_holds, value))
            and not (self._each_once and len(set(value)) < len(value))
            and not (self.rising and any(a >= b for a, b in itertools.pairwise(value)))
        )

    @property
    def _each_once(self) -> bool:
        return self.distinct or self.some_of is not None

    def _element_holds(self, x: Any) -> bool:
        if isinstance(x, float) and (math.isnan(x) or (self.finite and math.isinf(x))):
            return False
        choices = self.one_of if self.some_of is None else self.some_of
        return (
            (choices is None or x in choices)
            and (self.above is None or x > self.above)
            and (self.at_least is None or x >= self.at_least)
            and (self.below is None or x < self.below)
            and (self.at_most is None or x <= self.at_most)
            and (self.multiple_of is None or x % self.multiple_of == 0)
        )

    def explained(self, value: Any, kind: Kind) -> str:
        """Returns the words of `--help` beside a value: meaning, unit and range.

        >>> lr = Range(meaning="learning rate", zero="the family's", at_least=0)
        >>> lr.explained(0.0, Kind(float))
        "learning rate; 0, as here, means the family's; a number ≥ 0"
        >>> lr.explained(0.1, Kind(float))
        "learning rate; 0 means the family's; a number ≥ 0"
        """
        none = "none" if kind.many else "0"
        here = "" if value else ", as here,"
        zero = f"{none}{here} means {self.zero}" if self.zero else ""
        meaning = f"{self.meaning}, {self.unit}".removesuffix(", ")
        return "; ".join(filter(None, [meaning, zero, self.allowed(kind)]))

    def allowed(self, kind: Kind) -> str:
        """Returns what is allowed, as it follows *needs* in an error.

        >>> Range(meaning="times", above=0, rising=True).allowed(Kind(float, True))
        'rising positive numbers'
        """
        if self.needs:
            return self.needs
        if self.one_of is not None:
            return "one of " + ", ".join(map(str, self.one_of))
        if self.some_of is not None:
            return f"some of {', '.join(map(str, self.some_of))}, each once"
        positive = self.above == 0 and self.below is None and self.at_most is None
        words = [
            "rising " if self.rising else "distinct " if self.distinct else "",
            "positive " if positive else "",
            NOUNS[kind.element][kind.many].removeprefix("an ").removeprefix("a "),
            "" if positive else self._bounds(),
            f", multiples of {self.multiple_of}" if self.multiple_of else "",
        ]
        text = "".join(words)
        if kind.many:
            return COUNTS.get(self.entries, f"at least {self.entries} ") + text
        if self.multiple_of:
            text = text.replace("multiples", "a multiple")
        if kind.element is bool:
            return text
        return f"an {text}" if text[0] in "aeio" else f"a {text}"

    def _bounds(self) -> str:
        low = self.above if self.at_least is None else self.at_least
        high = self.below if self.at_most is None else self.at_most
        if low is not None and high is not None:
            left = "(" if self.at_least is None else "["
            right = ")" if self.at_most is None else "]"
            return f" in {left}{low:g}, {high:g}{right}"
        if low is not None:
            return f" above {low:g}" if self.at_least is None else f" ≥ {low:g}"
        if high is not None:
            return f" below {high:g}" if self.at_most is None else f" ≤ {high:g}"
        return ""
