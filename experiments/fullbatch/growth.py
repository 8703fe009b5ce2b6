"""Where does the wire begin to dominate? Steps on many accelerators, on paper.

The step of a base run, of SVAG and of the full batch is traced for each number of
devices, and priced by what a data sheet says of them. Nothing is run, no array is made.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.errors import FlaxError

import optsde
from experiments.fullbatch.costs import duration
from optsde import gradients, models
from optsde.analysis import table
from optsde.analysis.plots import COLOURS, label, new_figure, save, shared_legend
from optsde.checks import LARGEST
from optsde.data import Resident, Stream
from optsde.mesh import largest_axis
from optsde.run import Accelerator, Cost, Task, cost, parts
from optsde.study import Integers, RunDir, Study, UsageError, require, setting
from optsde.study.settings import Settings as Base

GIGA = 1e9


class Settings(Base):
    shape: Integers = setting(
        (224, 224, 3), "of an example: pixels, or tokens", at_least=1, entries=1
    )
    classes: int = setting(1000, "of images, or words that tokens are", at_least=1)
    train_size: int = setting(
        0, "examples to train on", zero="those of one's own task", at_least=0
    )
    model: str = setting("resnet50", "name of the net, see optsde.models.build")
    options: dict = setting(
        dict(dtype="bfloat16", stem="7x7", form="direct"),
        "of the net, see optsde.models.build",
    )
    optimizer: optsde.Optimizer = setting(
        optsde.HeavyBall(lr=3.2, beta=0.9, nesterov=True), "of the base run"
    )
    batch_size: int = setting(8192, "of the base run", at_least=1)
    horizon: float = setting(
        14_100.0, "steps of the base run", above=0, at_most=LARGEST
    )
    ell: float = setting(4.0, "of SVAG", at_least=1, at_most=1024)
    full_batch_steps: int = setting(3000, "steps of the full batch", at_least=1)
    group: int = setting(32, "examples in one call of the net", at_least=1)
    at_once: int = setting(1, "such groups in one pass of a device", at_least=1)
    sharded: bool = setting(False, "split parameters and optimizer over the devices")
    devices: Integers = setting(
        (8, 64, 512, 4096), "accelerators", above=0, entries=1, rising=True
    )
    flops: float = setting(
        989e12, "peak of each", unit="FLOP/s", at_least=1, at_most=1e18
    )
    share: float = setting(0.4, "of the peak that is reached", above=0, at_most=1)
    bandwidth: float = setting(
        50e9, "that each sends", unit="bytes/s", at_least=1, at_most=1e15
    )
    memory: float = setting(80e9, "of each", unit="bytes", at_least=1, at_most=1e15)

    def demands(self):
        yield from super().demands()
        steps = self.horizon * self.ell**self.optimizer.noise_exponent
        yield steps <= LARGEST, "ell", f"at most {LARGEST} steps, not {steps:.3g}"

    @property
    def device(self) -> Accelerator:
        """The accelerator."""
        return Accelerator(self.flops, self.share, self.bandwidth, self.memory)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to train: its steps, and what one costs each of N devices."""

    words: str
    steps: int
    groups: int  # of a step: no more devices have work
    costs: dict[int, Cost]


def build_task(s: Settings) -> Task:
    """Returns the net on two examples of the data's shape."""
    require(s.train_size > 0, "train_size", 0, "how many examples there would be")
    shape, text = s.shape, s.model == "transformer"
    inputs = np.zeros((2, *shape), np.int32 if text else np.uint8)
    targets = inputs if text else np.zeros(2, np.int32)
    loss = models.token_cross_entropy if text else models.cross_entropy
    scaled = dict(prepare=lambda x: x if text else x / 255.0)
    try:
        model = models.build(s.model, s.classes, **s.options)
        return Task(model, loss, (inputs, targets), (inputs, targets), **scaled)
    except (FlaxError, ValueError, TypeError) as error:
        raise UsageError(f"--config.model={s.model}: {error}") from None


def simulate(s: Settings, rundir: RunDir, task: Task) -> dict[str, Way]:
    """Returns what a step costs on each number of devices, for each way to train."""
    if isinstance(task.train, Stream):
        raise UsageError("task: its train is a Stream: needs arrays, or some of them")
    size = s.train_size or task.size
    shapes = [jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for x in task.train]
    losses = models.supervised(task.model, task.loss, task.prepare)
    losses = jax.jit(losses)  # which is then traced once for all ways
    base = optsde.Plan(
        optimizer=s.optimizer, batch_size=s.batch_size, horizon=s.horizon
    ).checked()
    whole = dataclasses.replace(base, batch_size=size, horizon=s.full_batch_steps)
    options = dict(group=s.group, at_once=s.at_once, augment=task.augment)
    some = gradients.minibatch(losses, Resident(tuple(shapes)), **options)
    every = gradients.full_batch(losses, Resident(tuple(shapes)), **options)
    plans = {
        "base": (f"base, batch {s.batch_size:,}", base, some),
        "svag": (f"SVAG, ℓ = {s.ell:g}", optsde.svag(base, s.ell), some),
        "full": (f"full batch, {size:,}", whole, every),
    }
    rule = largest_axis if s.sharded else None

    def way(words, plan, sampler):
        dynamics = optsde.discrete(plan, sampler, task.init)
        draws = 2 if plan.noise_gain > 1 else 1
        groups = draws * -(-plan.batch_size // s.group)
        priced = {n: cost(dynamics, n, rule) for n in s.devices}
        return Way(words, plan.steps, groups, priced)

    return {name: way(*plan) for name, plan in parts(plans.items())}


def tables(s: Settings, ways: dict[str, Way]) -> Iterator[str]:
    """Yields the costs of each way on each number of devices."""
    device = s.device
    header = ["", "devices", "TFLOP a device", "MB sent", "products s", "wire s"]
    header += ["step s, overlapped", "in turn", "steps", "run, overlapped", "in turn"]
    header += ["GB a device ≈", "data GB"]
    rows = []
    for way in ways.values():
        for count, each in way.costs.items():
            step, held = each.seconds(device), each.state + each.working
            fits = "" if held <= s.memory else "! "
            rows.append(
                [
                    way.words,
                    f"{count:,}",
                    f"{each.flops / 1e12:.3g}",
                    f"{each.exchange.sent / 1e6:,.3g}",
                    f"{step.compute:.3g}",
                    f"{step.wire:.3g}",
                    f"{step.overlapped:.3g}",
                    f"{step.in_turn:.3g}",
                    f"{way.steps:,}",
                    duration(way.steps * step.overlapped),
                    duration(way.steps * step.in_turn),
                    f"{fits}{held / GIGA:.3g}",
                    f"{each.data / GIGA:.3g}",
                ]
            )
    yield ""
    yield table(header, rows, "l" + "r" * 12)
    yield (
        f"\neach: {s.flops:.3g} FLOP/s, of which a net reaches {s.share:g}, "
        f"{s.bandwidth:.3g} bytes/s, {s.memory / GIGA:g} GB; ! may not fit, even "
        "without data"
    )
    for way in ways.values():
        yield f"{way.words}: {dominated(way, device)}"
        if way.groups < max(s.devices):
            words = f"no more than {way.groups:,} devices have work"
            yield f"{way.words}: {words}, which is in groups of {s.group}"


def dominated(way: Way, device: Accelerator) -> str:
    """Returns from how many devices on the wire takes longer than the products."""
    over = [n for n, x in way.costs.items() if x.seconds(device).wire_dominates]
    where = f"from {over[0]:,} devices on, of those asked" if over else "nowhere here"
    return f"the wire takes longer than the products {where}"


def summary(s: Settings, ways: dict[str, Way]) -> dict[str, Any]:
    return {
        name: {
            "steps": way.steps,
            "of each device": {
                count: {
                    "flops": each.flops,
                    "sent": each.exchange.sent,
                    "state": each.state,
                    "data": each.data,
                    "working": each.working,
                    **each.seconds(s.device)._asdict(),
                }
                for count, each in way.costs.items()
            },
        }
        for name, way in ways.items()
    }


def figure(s: Settings, ways: dict[str, Way], path: Path) -> None:
    """Draws a step's time against the number of devices, for each way."""
    drawing, panels = new_figure(3, width=12, height=4.4)
    for ax, way, colour in zip(panels, ways.values(), COLOURS, strict=False):
        counts = list(way.costs)
        times = [each.seconds(s.device) for each in way.costs.values()]
        overlapped = [x.overlapped for x in times]
        in_turn = [x.in_turn for x in times]
        words = "step, overlapped to in turn"
        ax.fill_between(counts, overlapped, in_turn, color=colour, alpha=0.3)
        ax.plot([], [], color="grey", lw=8, alpha=0.4, label=words)
        for kind, dashes in (("compute", "-"), ("wire", ":")):
            values = [getattr(x, kind) for x in times]
            name = "products" if kind == "compute" else "wire"
            ax.plot(counts, values, dashes, color=colour, marker="o", ms=4)
            ax.plot([], [], dashes, color="grey", label=name)
        ax.set_xscale("log", base=2)
        ax.set_xticks(counts, [f"{n:,}" for n in counts])
        ax.minorticks_off()
        ax.set_yscale("log")
        label(ax, x="accelerators", y="seconds a step", title=way.words)
    low, high = (f(ax.get_ylim()[i] for ax in panels) for i, f in ((0, min), (1, max)))
    for ax in panels:
        ax.set_ylim(low, high)
    shared_legend(drawing, panels[0], columns=3)
    save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    figures={"growth": figure},
    task=build_task,
    summary=summary,
    precision=None,
)
