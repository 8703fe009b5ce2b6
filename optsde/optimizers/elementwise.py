"""Transforms where parameters are split: elementwise on shards, others on whole leaves.

Where a device has only its shard of a leaf, a sum over the leaf would be one over the
shard. So the program of a transform is read before it is run on shards: each entry that
comes out of a leaf in shards may depend on the same entry of leaves that are split in
the same way, and on numbers that all entries share. On whole leaves it must be the same
program, which else would count the entries of a shard. Where that is not so, as with
norms and factors of a matrix, devices gather the leaves, and each keeps its shard of
what comes out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from optsde.mesh import axes, has_shards, own_shards, whole, whole_shapes
from optsde.types import PyTree

SAME, OWN = "same", "own"  # one number everywhere; a number of its own for each entry
Kind = int | str  # the axis along which an array is split, or one of the two

CALLS = {"closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit", "remat"}
FILLS = {"broadcast_in_dim", "reshape"}  # of one number: it is the same everywhere
PRIMITIVES = """
abs add and atan2 cbrt ceil clamp convert_element_type copy copy_p cos div eq erf
erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt
max min mul ne neg nextafter not or pow reduce_precision rem round rsqrt select_n sign
sin sqrt square stop_gradient sub tan tanh xor
"""
ELEMENTWISE = set(PRIMITIVES.split())


def on_shards(function: Callable, like: Callable[..., PyTree]) -> Callable:
    """Returns the function for arguments of which leaves may be split over devices.

    Args:
      function: of trees and numbers.
      like: of the same arguments, what has the structure and the split of the results.
    """

    def applied(*args):
        if not has_shards(args) or _elementwise(function, args):
            return function(*args)
        return own_shards(function(*whole(args)), like(*args))

    return applied


def _elementwise(function: Callable, args: PyTree) -> bool:
    """Returns whether the function of shards is the shards of the function."""
    jaxpr = jax.make_jaxpr(function)(*whole_shapes(args))
    consts = [_whole(x) for x in jaxpr.jaxpr.constvars]
    inputs = zip(jaxpr.jaxpr.invars, axes(args), strict=True)
    given = [_whole(x) if axis is None else axis for x, axis in inputs]
    found = _kinds(jaxpr.jaxpr, [*consts, *given])
    if found is None:
        return False
    on_parts, out = jax.make_jaxpr(function, return_shape=True)(*args)
    return list(_numbers(jaxpr.jaxpr)) == list(_numbers(on_parts.jaxpr)) and all(
        kind in (axis, SAME) or (axis is None and kind == OWN)
        for kind, axis in zip(found, axes(out), strict=True)
    )


def _numbers(jaxpr: Jaxpr) -> Iterator[tuple]:
    """Yields the primitives of a program, each with the numbers that it is given."""
    for eqn in jaxpr.eqns:
        given = [str(x.val) for x in eqn.invars if isinstance(x, Literal)]
        yield eqn.primitive.name, eqn.params.get("y"), given  # y: an integer power
        if eqn.primitive.name in CALLS:
            yield from _numbers(_called(eqn)[0])


def _called(eqn: Any) -> tuple[Jaxpr, int]:
    """Returns the program that an equation calls, and how many constants it holds."""
    inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
    return getattr(inner, "jaxpr", inner), len(getattr(inner, "consts", ()))


def _kinds(jaxpr: Jaxpr, given: Sequence[Kind]) -> list[Kind] | None:
    """Returns the kinds of a program's results, from those of constants and inputs.

    None where something in it joins entries of a leaf that is split.
    """
    known: dict[Any, Kind] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True)
    )

    def kind(x) -> Kind:
        return _whole(x) if isinstance(x, Literal) else known[x]

    for eqn in jaxpr.eqns:
        kinds, primitive = [kind(x) for x in eqn.invars], eqn.primitive.name
        found: list[Kind] | None
        if primitive in CALLS:
            inner, count = _called(eqn)
            held = [_whole(x) for x in inner.constvars[:count]]
            found = _kinds(inner, [*held, *kinds])
        elif _joins(primitive, kinds):
            found = None
        else:
            found = [_result(primitive, kinds, x) for x in eqn.outvars]
        if found is None:
            return None
        known |= dict(zip(eqn.outvars, found, strict=True))
    return [kind(x) for x in jaxpr.outvars]


def _joins(primitive: str, kinds: Sequence[Kind]) -> bool:
    """Returns whether a primitive makes an entry of several of a split array."""
    along = {kind for kind in kinds if isinstance(kind, int)}
    return bool(along) and (
        primitive not in ELEMENTWISE or len(along) > 1 or OWN in kinds
    )


def _result(primitive: str, kinds: Sequence[Kind], out: Any) -> Kind:
    """Returns the kind of what a primitive makes that joins no entries."""
    for kind in kinds:
        if isinstance(kind, int):
            return kind
    alike = kinds and OWN not in kinds and primitive in ELEMENTWISE | FILLS
    return SAME if alike else _whole(out)


def _whole(x: Any) -> Kind:
    """Returns the kind of an array that every device has whole."""
    return OWN if x.aval.ndim else SAME
