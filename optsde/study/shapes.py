"""What a setting consists of: one value, a group, an optimizer, or a table of these.

A shape reads a value from a config and writes it there, names the parts of it that a
command line can set, and checks its range.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from ml_collections import ConfigDict

from optsde.optimizers import Optimizer, by_name
from optsde.study.values import Kind, Range, kind_of, shown, too_large

HYPERPARAMETERS = {
    "lr": "learning rate; a positive number",
    "l2": "decay added to the gradient, as torch's weight_decay of SGD and Adam",
    "weight_decay": "decoupled decay, multiplied by lr, as AdamW's",
    "absolute_decay": "decoupled decay, not multiplied by lr",
    "b1": "decay of the average of gradients; a number in [0, 1)",
    "b2": "decay of the average of squares; a number in [0, 1)",
    "b3": "decay of the older average of gradients; a number in [0, 1)",
    "alpha": "weight of the older average; a number ≥ 0",
    "beta": "decay of its average; a number in [0, 1)",
    "eps": "added to the root of the squares; a number ≥ 0",
    "eps_root": "added inside that root; a number ≥ 0",
    "inner_decay": "decay inside of the norm that is divided out, as LAMB's",
    "correction": "weight of a gradient's change since the last; a number ≥ 0",
    "pace": "1 − b2 in step k is pace·k^−0.8, at most 1; a number ≥ 0",
    "s0": "sum of squares at the start; a number ≥ 0",
    "v0": "average of squares at the start; a number ≥ 0",
    "micros": "micro-batches of a batch, each squared by itself; a positive number",
    "nesterov": "look ahead by a step of momentum",
    "match_rms": "steps as long as Adam's in each entry, whatever the shape",
    "relative": "steps in units of the root mean square of each parameter",
    "exact": "orthogonal factors by singular values, not Newton and Schulz",
    "bias_correction": "divide the average by its weight",
    "lagged": "divide by the average before this gradient",
}


class UsageError(Exception):
    """The user's input cannot be run; the message says what can."""


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Refuses a setting unless it holds, and says what is allowed."""
    if not holds:
        raise UsageError(f"--config.{name}={shown(value)}: needs {allowed}")


def unknown_setting(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Returns one line: which name is unknown, which is near it, which there are."""
    allowed = [prefix + known for known in names]
    near = difflib.get_close_matches(name, allowed, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"--config.{name}: no such setting; {hint}allowed: {', '.join(allowed)}"


class Leaf(NamedTuple):
    """A value among settings, by its dotted name."""

    name: str
    value: Any
    kind: Kind
    help: str

    @property
    def needed(self) -> str:
        """The words of an error about the value's type."""
        default = shown(self.value) or "an empty one"
        return f"needs {self.kind.noun}, such as the default {default}"


@dataclasses.dataclass(frozen=True)
class Shape:
    """A kind of value, of which there is one."""

    range: Range
    kind: Kind | None = None

    @property
    def free(self) -> bool:
        """Whether it takes values under names that are not declared."""
        return False

    @property
    def of_groups(self) -> bool:
        """Whether it is a table whose entries are groups."""
        return False

    def read(self, path: str, value: Any) -> Any:
        return _read(path, value, self.kind)

    def plain(self, value: Any) -> Any:
        return value

    def leaves(self, path: str, value: Any) -> Iterator[Leaf]:
        kind = self.kind or kind_of(value)
        free = self.kind is None
        words = self.range.meaning if free else self.range.explained(value, kind)
        yield Leaf(path, value, kind, words)

    def check(self, path: str, value: Any) -> None:
        allowed = self.range.allowed(self.kind or kind_of(value))
        if self.range.zero and not isinstance(value, tuple):
            allowed += f", where 0 means {self.range.zero}"
        require(self.range.holds(value), path, value, allowed)
        require(not (most := too_large(value)), path, value, most)


@dataclasses.dataclass(frozen=True)
class Nested(Shape):
    """A group of settings."""

    group: Any = None

    def read(self, path: str, value: Any) -> Any:
        if isinstance(value, self.group):
            return value
        return self.group.of(_mapping(path, value), f"{path}.")

    def plain(self, value: Any) -> dict:
        return value.plain()

    def leaves(self, path: str, value: Any) -> Iterator[Leaf]:
        return value.leaves(f"{path}.")

    def check(self, path: str, value: Any) -> None:
        value.checked(f"{path}.")


@dataclasses.dataclass(frozen=True)
class Family(Shape):
    """An optimizer; in a config its name and its hyperparameters."""

    def read(self, path: str, value: Any) -> Optimizer:
        if isinstance(value, Optimizer):
            return value
        options = dict(_mapping(path, value).items())
        name = options.pop("name", "")
        try:
            family = by_name(name)
        except ValueError as error:
            raise UsageError(f"--config.{path}.name={name}: {error}") from None
        fields = [field.name for field in dataclasses.fields(family)]
        if sorted(options) != sorted(fields):
            raise UsageError(
                f"--config.{path}.name={name}: it has the settings "
                f"{', '.join(fields)}, this preset those of another optimizer; see "
                "--help for the presets"
            )
        kinds = {
            field.name: _hyperparameter(field) for field in dataclasses.fields(family)
        }
        return family(
            **{n: _read(f"{path}.{n}", x, kinds[n]) for n, x in options.items()}
        )

    def plain(self, value: Any) -> dict:
        name = type(value).__name__.lower()
        return {"name": name, **dataclasses.asdict(value)}

    def leaves(self, path: str, value: Any) -> Iterator[Leaf]:
        name = type(value).__name__.lower()
        yield Leaf(f"{path}.name", name, Kind(str), self.range.meaning)
        for field in dataclasses.fields(value):
            number = getattr(value, field.name)
            words = HYPERPARAMETERS.get(field.name, "")
            yield Leaf(f"{path}.{field.name}", number, _hyperparameter(field), words)

    def check(self, path: str, value: Any) -> None:
        try:
            value.checked()
        except ValueError as error:
            raise UsageError(f"--config.{path}.{error}") from None


@dataclasses.dataclass(frozen=True)
class Table(Shape):
    """Names and for each an entry, in alphabetical order, as a ConfigDict has them."""

    entry: Shape | None = None  # None: free options

    @property
    def free(self) -> bool:
        return self.entry is None

    @property
    def of_groups(self) -> bool:
        return isinstance(self.entry, Nested)

    def read(self, path: str, value: Any) -> dict:
        items = sorted(_mapping(path, value).items(), key=lambda item: item[0])
        return {n: self._entry(x).read(f"{path}.{n}", x) for n, x in items}

    def plain(self, value: Any) -> dict:
        return {n: self._entry(x).plain(x) for n, x in value.items()}

    def leaves(self, path: str, value: Any) -> Iterator[Leaf]:
        for name, entry in value.items():
            yield from self._entry(entry).leaves(f"{path}.{name}", entry)

    def check(self, path: str, value: Any) -> None:
        for name, entry in value.items():
            self._entry(entry).check(f"{path}.{name}", entry)

    def _entry(self, value: Any) -> Shape:
        if self.entry is not None:
            return self.entry
        return self if isinstance(value, dict | ConfigDict) else Shape(self.range)


def shape_of(annotation: Any, allowed: Range) -> Shape:
    """The shape that an annotation describes."""
    if annotation in (int, float, bool, str):
        return Shape(allowed, Kind(annotation))
    if annotation is dict:
        return Table(allowed)
    if annotation is Optimizer:
        return Family(allowed)
    if get_origin(annotation) is tuple:
        return Shape(allowed, Kind(get_args(annotation)[0], many=True))
    if get_origin(annotation) is dict:
        return Table(allowed, entry=shape_of(get_args(annotation)[1], allowed))
    return Nested(allowed, group=annotation)


def _hyperparameter(field: dataclasses.Field) -> Kind:
    """The kind of an optimizer's field: flags are bools, all else is a number."""
    return Kind(bool if field.type in (bool, "bool") else float)


def _read(path: str, value: Any, kind: Kind | None) -> Any:
    try:
        return (kind or kind_of(value)).read(value)
    except ValueError as error:
        needed = f"--config.{path}={shown(value)}: needs {error}"
        raise UsageError(needed) from None


def _mapping(path: str, value: Any) -> Mapping | ConfigDict:
    if not isinstance(value, Mapping | ConfigDict):
        raise UsageError(f"--config.{path}={shown(value)}: needs a group of settings")
    return value
