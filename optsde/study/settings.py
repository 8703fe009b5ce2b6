"""Settings of a study: type, default, unit, range and meaning of each in one place.

The ConfigDict of a preset, the checks, one-line errors and `--help` come from them.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import (
    Any,
    ClassVar,
    Self,
    dataclass_transform,
    get_type_hints,
)

import jax
from ml_collections import ConfigDict

from optsde.study.shapes import (
    Leaf,
    Shape,
    UsageError,
    require,
    shape_of,
    unknown_setting,
)
from optsde.study.values import Range

Numbers = tuple[float, ...]
Integers = tuple[int, ...]
Names = tuple[str, ...]
Demand = tuple[bool, str, str]  # whether it holds, the setting's name, what is allowed


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    zero: str = "",
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    multiple_of: int | None = None,
    one_of: Any = None,
    some_of: Any = None,
    like: str | None = None,
    entries: int = 0,
    rising: bool = False,
    distinct: bool = False,
    finite: bool = True,
    needs: str = "",
) -> Any:
    """Declares a setting of a `Group`: its default, its meaning and its range.

    Args:
      default: of the annotated type: int, float, bool, str, a tuple of them, an
        `Optimizer`, a `Group`, a dict of free options, or dict[str, …] of groups.
      meaning: a few words for `--help`.
      unit: of the value, for `--help`.
      zero: what 0, or an empty tuple, stands for, such as "the function's own".
      above, at_least, below, at_most, multiple_of: bounds of the value, or of every
        element of a tuple.
      one_of: the values there are. some_of: those that elements may have.
      like: the name of another tuple, of the same length.
      entries: the fewest elements of a tuple.
      rising, distinct: demands on the elements of a tuple.
      finite: refuse infinities. NaN is always refused.
      needs: the words of the error, in place of those made from the bounds.
    """
    allowed = Range(
        meaning=meaning,
        unit=unit,
        zero=zero,
        above=above,
        at_least=at_least,
        below=below,
        at_most=at_most,
        multiple_of=multiple_of,
        one_of=None if one_of is None else tuple(one_of),
        some_of=None if some_of is None else tuple(some_of),
        like=like,
        entries=entries,
        rising=rising,
        distinct=distinct,
        finite=finite,
        needs=needs,
    )
    return _field(default, {"range": allowed})


def seed_setting(default: int = 0, meaning: str = "of all that is random") -> Any:
    """Declares a seed, which is an integer from 0 to 2³¹ − 1."""
    allowed = "an integer from 0 to 2³¹ − 1"
    return setting(default, meaning, at_least=0, below=2**31, needs=allowed)


def _field(default: Any, metadata: Mapping) -> Any:
    return dataclasses.field(
        default_factory=functools.partial(copy.deepcopy, default), metadata=metadata
    )


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together; a subclass is a frozen dataclass by itself.

    >>> class Schedule(Group):
    ...     warmup: float = setting(0.0, "length of the warm-up", at_least=0)
    ...     cosine: float = setting(300.0, "length of the cosine", above=0)
    >>> Schedule(warmup=-1).checked()
    Traceback (most recent call last):
        ...
    optsde.study.shapes.UsageError: --config.warmup=-1.0: needs a number ≥ 0

    A subclass gives an inherited setting another default by `warmup = 40.0`.
    """

    _shapes: ClassVar[dict[str, Shape]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        inherited = {
            field.name: field
            for base in reversed(cls.__mro__[1:])
            for field in (dataclasses.fields(base) if issubclass(base, Group) else ())
        }
        annotations = dict(inspect.get_annotations(cls))
        for name, value in list(vars(cls).items()):
            if name in inherited and not isinstance(value, dataclasses.Field):
                annotations.setdefault(name, inherited[name].type)
                setattr(cls, name, _field(value, inherited[name].metadata))
        cls.__annotations__ = annotations
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        for field in dataclasses.fields(cls):
            if "range" not in field.metadata:
                raise TypeError(f"{field.name}: needs setting(default, meaning)")
        hints = get_type_hints(cls)
        cls._shapes = {
            field.name: shape_of(hints[field.name], field.metadata["range"])
            for field in dataclasses.fields(cls)
        }

    def __post_init__(self) -> None:
        for name, shape in self._shapes.items():
            value = shape.read(name, getattr(self, name))
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, config: Mapping | ConfigDict, prefix: str = "") -> Self:
        """Returns the settings of a config; those it does not name have their default.

        Refuses names that there are not, and values of another type.
        """
        given = dict(config.items())
        for name in given:
            if name not in cls._shapes:
                raise UsageError(unknown_setting(prefix + name, cls._shapes, prefix))
        values = {n: cls._shapes[n].read(prefix + n, x) for n, x in given.items()}
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """Returns numbers, names and tuples, in dicts that are nested as the groups."""
        return {n: shape.plain(getattr(self, n)) for n, shape in self._shapes.items()}

    def config(self) -> ConfigDict:
        """Returns the settings as a locked ConfigDict."""
        return ConfigDict(self.plain()).lock()

    def leaves(self, prefix: str = "") -> Iterator[Leaf]:
        """Yields every value that can be set on a command line."""
        for name, shape in self._shapes.items():
            yield from shape.leaves(prefix + name, getattr(self, name))

    def tables(self) -> dict[str, dict[str, "Group"]]:
        """Returns the tables of groups by their names, where they have entries."""
        return {
            name: getattr(self, name)
            for name, shape in self._shapes.items()
            if shape.of_groups and getattr(self, name)
        }

    def in_table(self, name: str) -> bool:
        """Tells whether a dotted name is that of a setting in a table of groups."""
        return name.partition(".")[0] in self.tables()

    @classmethod
    def free(cls) -> tuple[str, ...]:
        """Returns the names of the groups of options that are not declared."""
        return tuple(name for name, shape in cls._shapes.items() if shape.free)

    def demands(self) -> Iterator[Demand]:
        """Yields what ranges of single settings cannot say: (holds, name, allowed).

        A subclass begins with `yield from super().demands()`. They are read one after
        the other until one does not hold, so that each may rely on those before it.
        """
        yield from ()

    def checked(self, prefix: str = "") -> Self:
        """Returns itself, if every range and demand holds; else raises UsageError."""
        for name, shape in self._shapes.items():
            shape.check(prefix + name, getattr(self, name))
        for name, shape in self._shapes.items():
            if (like := shape.range.like) is not None:
                fine = len(getattr(self, name)) == len(getattr(self, like))
                allowed = f"as many as {like} has, {len(getattr(self, like))}"
                require(fine, prefix + name, getattr(self, name), allowed)
        for holds, name, allowed in self.demands():
            if not holds:
                values = {leaf.name: leaf.value for leaf in self.leaves()}
                require(holds, prefix + name, values[name], allowed)
        return self


class Settings(Group):
    """The settings of a study, which is the module that the class stands in."""

    known_false: Names = setting((), "claims that are not expected to hold here")

    @classmethod
    def study(cls) -> str:
        """Returns the name by which a config names the study."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def of(cls, config: Mapping | ConfigDict, prefix: str = "") -> Self:
        given = {name: value for name, value in config.items() if name != "study"}
        return super().of(given, prefix)

    def config(self) -> ConfigDict:
        return ConfigDict({"study": self.study(), **self.plain()}).lock()


class Seeded(Settings):
    """Settings of a study in which something is random."""

    seed: int = seed_setting()


class Seeds(Seeded):
    """Settings of a study that runs each arm with several seeds."""

    seeds: int = setting(
        16, "runs of each arm", at_least=2, needs="at least 2, for standard errors"
    )

    def keys(self) -> jax.Array:
        """Returns the key of each run of an arm."""
        return jax.random.split(jax.random.key(self.seed), self.seeds)
