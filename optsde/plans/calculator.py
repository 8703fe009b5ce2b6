"""The run at another batch, as the command line and the page answer for it."""

import math
from typing import NamedTuple

from optsde.optimizers import EMA, Optimizer
from optsde.plans.plan import Plan, scale
from optsde.types import Scalar


class Batch(NamedTuple):
    """A global batch, and what it is made of where that was said.

    >>> Batch.parse("8x4x16")
    Batch(total=512, per_device=8, devices=4, accumulation=16)
    >>> Batch.parse("256").total
    256
    """

    total: int
    per_device: int | None = None
    devices: int | None = None
    accumulation: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Batch":
        """Returns the batch of a text; refuses what is none."""
        factors = text.lower().replace("×", "x").replace("*", "x").split("x")
        if len(factors) not in (1, 3) or not all(
            factor.strip().isdecimal() and int(factor) > 0 for factor in factors
        ):
            raise ValueError(
                f"{text!r} is no batch: give the global batch, such as 256, or per "
                "device x devices x accumulation, such as 8x4x8"
            )
        sizes = [int(factor) for factor in factors]
        return cls(math.prod(sizes), *(sizes if len(sizes) == 3 else ()))

    def spread(self, to: "Batch") -> "Batch":
        """Returns `to`, over the devices of this batch where it does not say how.

        >>> Batch.parse("8x4x8").spread(Batch.parse("8192")).accumulation
        256
        """
        if to.per_device is not None or not self.per_device or not self.devices:
            return to
        at_once = self.per_device * self.devices
        if to.total % at_once:
            return to
        return Batch(to.total, self.per_device, self.devices, to.total // at_once)


def scaled(plan: Plan, kappa: float, memory: str | None) -> tuple[Plan, str, str]:
    """Returns the plan at κ, its form of memory, and why that is not the linear one.

    Where no form is asked for and the linear one has no memory left, it is "power".
    """
    if memory is not None:
        return scale(plan, kappa, memory=memory), memory, ""
    try:
        return scale(plan, kappa), "linear", ""
    except ValueError as error:
        after = scale(plan, kappa, memory="power")
        reason = str(error).partition(". Use")[0]
    note = f"Decays are taken to b^κ (memory='power'), since {reason}."
    return after, "power", note


class Answer(NamedTuple):
    """A run at another batch; `run` is what `lines.written` takes besides."""

    before: Plan
    after: Plan
    kappa: float
    memory: str
    note: str
    run: dict[str, Scalar | None]


def answer(
    optimizer: Optimizer,
    batch: Batch,
    to: Batch,
    *,
    steps: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    ema: float | None = None,
    memory: str | None = None,
) -> Answer:
    """Returns the run at the batch to come, from that at the batch now.

    >>> from optsde import Adam
    >>> found = answer(Adam(lr=1e-3), Batch(256), Batch(1024), warmup=500)
    >>> found.after.optimizer.lr, found.run["warmup"]
    (0.002, 125)
    """
    to = batch.spread(to)
    kappa = to.total / batch.total
    if steps is not None and not 0 < steps < math.inf:
        raise ValueError(f"steps={steps:g}: needs a positive number")
    before = Plan(
        optimizer=optimizer,
        batch_size=batch.total,
        horizon=max(kappa, 1) if steps is None else steps,
        clip=clip,
        average=None if ema is None else EMA(ema),
    ).checked()
    if warmup is not None and not (warmup == 0 or 1 <= warmup < math.inf):
        raise ValueError(
            f"warmup={warmup:g}: needs a number of steps; leave out a share of all "
            "steps, which stays as it is"
        )
    if warmup is not None and steps is not None and warmup > steps:
        raise ValueError(f"warmup={warmup:g}: needs at most all steps, {steps:g}")
    after, form, note = scaled(before, kappa, memory)
    average = after.average
    run: dict[str, Scalar | None] = dict(
        clip=after.clip,
        ema=average.decay if isinstance(average, EMA) else None,
        steps=None if steps is None else after.steps,
        warmup=None if warmup is None else math.ceil(warmup / kappa - 1e-9),
        per_device=to.per_device,
        accumulation=to.accumulation,
    )
    return Answer(before, after, kappa, form, note, run)
