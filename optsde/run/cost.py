"""What a step costs accelerators that need not be there: products, bytes, seconds.

The step is traced as each of the devices would run it, and its program is read: what it
multiplies, what it sends, and what it holds at a time.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params

from optsde.checks import ABOVE_0, check_number
from optsde.dynamics.discrete import Dynamics
from optsde.mesh import SplitRule
from optsde.run.wire import Exchange, traced

VIEWS = {"broadcast_in_dim", "iota", "reshape", "squeeze", "expand_dims"}
"""Of which no array is made: what reads them is made to read what they are of."""


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A device as a data sheet has it, and the share of it that a net gets.

    flops: its peak, in FLOP/s, in the type that the net multiplies in.
    share: of the peak that a net reaches, with all that a step does beside products.
    bandwidth: bytes/s that it sends to the next one, and receives meanwhile; latency is
    not counted.
    memory: its bytes.
    """

    flops: float
    share: float = 0.4
    bandwidth: float = math.inf
    memory: float = math.inf

    def __post_init__(self):
        check_number("flops", self.flops, "a positive number of FLOP/s", ABOVE_0)
        check_number("share", self.share, "a share in (0, 1]", ABOVE_0, 1)
        for name, unit in (("bandwidth", "bytes/s"), ("memory", "bytes")):
            if getattr(self, name) != math.inf:
                needs = f"a positive number of {unit}"
                check_number(name, getattr(self, name), needs, ABOVE_0)


class Seconds(NamedTuple):
    """How long a step takes: its products, and what goes over the wire."""

    compute: float
    wire: float

    @property
    def wire_dominates(self) -> bool:
        """Whether the wire takes longer than the products."""
        return self.wire > self.compute

    @property
    def overlapped(self) -> float:
        """The time where all is sent while something is multiplied: the shortest."""
        return max(self)

    @property
    def in_turn(self) -> float:
        """The time where nothing is multiplied while something is sent: the longest."""
        return sum(self)


class Cost(NamedTuple):
    """What a step costs each of the devices that share a replica."""

    flops: int  # of matrix products and convolutions
    exchange: Exchange
    state: int  # bytes of parameters, optimizer and average, or of its parts of them
    data: int  # bytes of the examples, or of the window of a stream
    working: int  # bytes that a step needs besides, about; see `most_alive`

    def seconds(self, device: Accelerator) -> Seconds:
        """Returns how long a step takes on such devices."""
        return Seconds(
            self.flops / (device.flops * device.share),
            self.exchange.sent / device.bandwidth,
        )


def cost(dynamics: Dynamics, devices: int, sharded: SplitRule | None = None) -> Cost:
    """Returns what a step costs each of the devices that share a replica.

    No array is made, and the devices need not be there.

    Args:
      dynamics: such as `discrete(plan, sampler, params)`. Its data may be shapes:
        `data.Resident` of `jax.ShapeDtypeStruct`s.
      devices: those that share a replica.
      sharded: how parameters are split over them.
    """
    program = traced(dynamics, devices, sharded)
    jaxpr = program.jaxpr
    state = _bytes(jaxpr.outvars[: program.states])
    return Cost(
        products(jaxpr),
        program.exchange,
        state,
        _bytes([*jaxpr.constvars, *jaxpr.invars]) - state,
        most_alive(jaxpr, of_step=True),
    )


def most_alive(jaxpr: Jaxpr, of_step: bool = False) -> int:
    """Returns about the most bytes that a program has at a time besides its inputs.

    Each operation's result is kept until its last use, in the order of the trace. A
    compiler needs less where it fuses operations, and more where it copies.

    Args:
      jaxpr: of the program.
      of_step: whether its outputs take the place of its inputs.
    """
    end = len(jaxpr.eqns)
    outputs = {x for x in jaxpr.outvars if not isinstance(x, Literal)}
    last = dict.fromkeys(outputs, end)
    made: list[dict[Any, int]] = []  # by each operation: its arrays, and their bytes
    for number, eqn in reversed(list(enumerate(jaxpr.eqns))):
        view = eqn.primitive.name in VIEWS
        kept = max((last.get(x, number) for x in eqn.outvars), default=number)
        for x in eqn.invars:
            if not isinstance(x, Literal):
                last[x] = max(last.get(x, 0), kept if view else number)
        free = outputs if of_step else ()
        none = view and not outputs & set(eqn.outvars)
        made.append(
            {
                x: 0 if none or x in free else _bytes([x])
                for x in eqn.outvars
                if x in last
            }
        )
    most = alive = 0
    ending: list[int] = [0] * (end + 1)
    for number, (eqn, arrays) in enumerate(zip(jaxpr.eqns, made[::-1], strict=True)):
        for x, size in arrays.items():
            ending[last[x]] += size
        more = sum(arrays.values())
        inner = max(map(most_alive, jaxprs_in_params(eqn.params)), default=0)
        loop = eqn.primitive.name in ("scan", "while")  # whose results are made apart
        most = max(most, alive + (more + inner if loop else max(more, inner)))
        alive += more - ending[number]
    return most


def _bytes(variables: Iterable[Any]) -> int:
    avals = [x.aval for x in variables]
    return sum(x.size * x.dtype.itemsize for x in avals if hasattr(x, "dtype"))


def products(jaxpr: Jaxpr) -> int:
    """Returns the FLOPs of a program's matrix products and convolutions.

    A multiplication with what only fills up an image, or lies between the pixels of a
    dilated one, is not counted; XLA's cost analysis counts so too.
    """
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in PRODUCTS:
            total += PRODUCTS[name](eqn)
            continue
        inner = [products(x) for x in jaxprs_in_params(eqn.params)]
        if name == "while" and any(inner):
            raise ValueError(
                "the step has a loop of no fixed length with matrix products in it, "
                "which cannot be counted: use lax.scan or lax.fori_loop"
            )
        of_one = max(inner, default=0) if name == "cond" else sum(inner)
        total += eqn.params.get("length", 1) * of_one  # of a scan
    return total


def _of_dot(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)


def _of_convolution(eqn: Any) -> int:
    p = eqn.params
    image, kernel = (x.aval.shape for x in eqn.invars)
    out, numbers = eqn.outvars[0].aval.shape, p["dimension_numbers"]
    batch, features, *space = numbers.out_spec
    total = 2 * out[batch] * out[features] * kernel[numbers.rhs_spec[1]]
    for axis, place in enumerate(space):
        total *= _taps(
            out[place],
            image[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            p["window_strides"][axis],
            p["padding"][axis][0],
            p["lhs_dilation"][axis],
            p["rhs_dilation"][axis],
        )
    return total


def _taps(
    out: int, size: int, kernel: int, stride: int, pad: int, apart: int, holes: int
) -> int:
    """Returns how many pairs of an output and a tap meet a pixel, along one axis."""
    starts, taps = stride * np.arange(out), holes * np.arange(kernel)
    place = starts[:, None] + taps - pad
    inside = (place >= 0) & (place <= apart * (size - 1)) & (place % apart == 0)
    return int(inside.sum())


PRODUCTS = {"dot_general": _of_dot, "conv_general_dilated": _of_convolution}
