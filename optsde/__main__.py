"""The rule at the command line: `python -m optsde explain adamw --batch 256 --to 8192`.

`explain` prints what a rescaling changes and why, and lines to paste in optax, torch
and Hugging Face; `page` writes the same as a page for a browser; without a command
there is a list of the optimizers.
"""

import argparse
import difflib
import importlib.metadata
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from optsde.optimizers import EMA, REGISTRY, Memory, Optimizer, Power
from optsde.plans import Plan, explain, scale
from optsde.plans.lines import written
from optsde.plans.readings import FRAMEWORKS, example, readings
from optsde.types import Scalar

_ABOUT = """\
Tuned at one batch size: what to set at another, and why.

  python -m optsde explain OPTIMIZER --batch 256 --to 8192 [--lr 3e-4 …] [--like torch]
  python -m optsde explain OPTIMIZER --help      every setting of an optimizer
  python -m optsde page [FILE]                   the same as a page for a browser
  python -m optsde --version
"""

_BATCH = """\
The batch is the global one: examples per device × devices × accumulated micro-batches,
averaged and not summed. Where a change of devices or of accumulation leaves this
product alone, change nothing."""

_CAUTION = """\
This keeps the run while noise dominates each gradient, at the larger batch too. To find
out, add --small 32:1.9 --large 256:.41, that is batch:|gradient|² of a part of a batch
and of the whole, each a mean over many steps."""

_FORECAST = """\
A caution: as a forecast of κ this ratio is not shown to be better than a constant guess
(docs/scaling.md). Where an optimizer divides by √v, so does the library's own ratio,
and these norms do not. What it predicts is the difference in loss, from a run of its
own: `python -m experiments.scaling`."""


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
        factors = text.lower().replace("×", "x").replace("*", "x").split("x")
        if len(factors) not in (1, 3) or not all(
            factor.strip().isdecimal() and int(factor) > 0 for factor in factors
        ):
            raise argparse.ArgumentTypeError(
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


class Norm(NamedTuple):
    """The mean of |g|² over gradients of one batch size.

    >>> Norm.parse("32:1.9")
    Norm(batch=32.0, square=1.9)
    """

    batch: float
    square: float

    @classmethod
    def parse(cls, text: str) -> "Norm":
        try:
            norm = cls(*(float(part) for part in text.split(":")))
        except (TypeError, ValueError):
            norm = cls(0, 0)
        if not all(x > 0 and math.isfinite(x) for x in norm):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no batch:|g|², two positive numbers such as 32:1.9"
            )
        return norm


class Levels(NamedTuple):
    """Signal |∇f|² and noise Tr Σ of one example."""

    signal: float
    noise: float


def two_batches(small: Norm, large: Norm) -> Levels:
    """Returns signal and noise from |g|² at two batch sizes, as E|g|² = G + N/B.

    The estimator is that of McCandlish et al. (2018, appendix A); unbiased, but noisy
    from a single step, so that both norms should be means over many.

    >>> two_batches(Norm(1, 5.0), Norm(4, 2.0))
    Levels(signal=1.0, noise=4.0)
    """
    if not small.batch < large.batch:
        raise ValueError(
            f"--small {small.batch:g}, --large {large.batch:g}: the large batch must "
            "be larger than the small one"
        )
    noise = (small.square - large.square) / (1 / small.batch - 1 / large.batch)
    if noise <= 0:
        raise ValueError(
            f"|g|² is {small.square:g} at {small.batch:g} and {large.square:g} at "
            f"{large.batch:g}, and noise would be negative: a mean over more examples "
            "cannot be longer. Take means of gradients (no sums), before clipping, "
            "over the same steps"
        )
    signal = small.square - noise / small.batch
    if signal <= 0:
        raise ValueError(
            f"|g|² falls from {small.square:g} to {large.square:g}, faster than "
            f"1/batch, and signal would be {signal:.2g}: none is seen beside the "
            "noise. Take means over more steps, or a larger --large"
        )
    return Levels(signal, noise)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; a mistake in what was given is one line, and exit code 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        print(_overview())
    elif command == "--version":
        print(_version())
    elif command == "explain":
        _refusing("explain", _explain, given[1:])
    elif command == "page":
        _refusing("page", _page, given[1:])
    else:
        _stop("", f"{command!r} is no command; one of: explain, page, --version")


def _stop(command: str, message: str) -> NoReturn:
    print(f"{f'optsde {command}'.strip()}: {message}", file=sys.stderr)
    sys.exit(2)


def _refusing(name: str, command: Callable[[list[str]], None], given: list[str]):
    try:
        command(given)
    except ValueError as error:
        _stop(name, str(error))
    except ArithmeticError:
        _stop(name, "no number comes out of these settings: give less extreme ones")


def _version() -> str:
    try:
        return f"optsde {importlib.metadata.version('optsde')}"
    except importlib.metadata.PackageNotFoundError:
        return "optsde, not installed: run from its source"


def _overview() -> str:
    width = max(len(name) for name in REGISTRY)
    families = (
        f"  {name:{width}}  {rule_of(family)}" for name, family in REGISTRY.items()
    )
    return "\n".join(
        [_ABOUT, "Optimizers, and what κ times the batch asks:", *families]
    )


def rule_of(family: type[Optimizer]) -> str:
    """Returns a family's rule in one line.

    >>> rule_of(Adam)
    'lr·√κ, 1 − b1 → κ(1 − b1), 1 − b2 → κ(1 − b2), eps·κ^-0.5, eps_root·κ^-1'
    """
    before = example(family)
    after = before.rescaled(0.5)
    laws = (
        _law(name, law, getattr(before, name), getattr(after, name), 0.5)
        for name, law in family.rule.items()
    )
    return ", ".join(laws)


def _law(name: str, law: Power | Memory, old: float, new: float, kappa: float) -> str:
    """Returns one hyperparameter's law; where it is no table, the reason for it."""
    if isinstance(law, Memory):
        if math.isclose(1 - new, kappa * (1 - old)):
            return f"1 − {name} → κ(1 − {name})"
        return f"{name}^κ" if math.isclose(new, old**kappa) else f"{name} ({law.why})"
    if not math.isclose(new, old * kappa**law.exponent):
        return f"{name} ({law.why})"
    factors = {0: " stays", 0.5: "·√κ", 1: "·κ", 2: "·κ²"}
    return name + factors.get(law.exponent, f"·κ^{law.exponent:g}")


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _pair(name: str, texts: list[str]) -> tuple[float, ...]:
    parts = " ".join(texts).strip("()[]").replace(",", " ").split()
    try:
        first, second = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"{name}={' '.join(texts)}: needs two numbers") from None
    return first, second


# What Hugging Face calls the settings of a run.
_RUN_NAMES = {
    "hf": dict(clip="max_grad_norm", warmup="warmup_steps", steps="max_steps"),
}


def _parser(name: str, reading: Callable[..., Optimizer], like: str) -> _Parser:
    """Returns the parser for one optimizer in the words of one framework."""
    parser = _Parser(
        prog=f"optsde explain {name}",
        allow_abbrev=False,
        usage="%(prog)s --batch B --to κB [settings]",
        description=_BATCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    words = _RUN_NAMES.get(like, {})
    whole = dict(type=Batch.parse, metavar="N")
    add("--batch", **whole, help="the global batch now: 256, or 8x4x8 (see above)")
    add("--to", **whole, required=True, help="the global batch to come, likewise")
    if like == "hf":
        add("--per_device_train_batch_size", type=int, metavar="N")
        add("--gradient_accumulation_steps", type=int, default=1, metavar="N")
        add("--devices", type=int, default=1, metavar="N")
    for own, text in (
        ("steps", "steps of the run now"),
        ("warmup", "steps of warm-up now"),
        ("clip", "largest global norm of the gradient"),
    ):
        default = 1.0 if like == "hf" and own == "clip" else None
        names = {f"--{own}", f"--{words.get(own, own)}"}
        add(*sorted(names), dest=own, type=_number, default=default, help=text)
    add("--ema", type=_number, metavar="DECAY", help="decay of an average of weights")
    add(
        "--memory",
        choices=("linear", "power"),
        help="how decays follow: 1 − b → κ(1 − b), or b → b^κ; by default the first, "
        "and the second where the first has no memory left",
    )
    text = "batch:mean |gradient|², to see whether the rule will hold"
    add("--small", type=Norm.parse, metavar="B:G2", help=text)
    add("--large", type=Norm.parse, metavar="B:G2", help="the same at a larger batch")
    add("--like", choices=FRAMEWORKS, default="optsde", help="whose names and defaults")
    own = parser.add_argument_group(f"settings of {name}, with their defaults")
    for field in inspect.signature(reading).parameters.values():
        required = field.default is field.empty
        default = None if required else field.default
        option: dict[str, Any] = dict(type=_number, metavar="X")
        if isinstance(default, bool):
            option = dict(type=_flag, nargs="?", const=True, metavar="BOOL")
        elif isinstance(default, tuple):
            option = dict(nargs="+", metavar="X")
        shown = "needed" if required else str(default)
        own.add_argument(
            f"--{field.name}",
            default=default,
            required=required,
            help=shown,
            **option,
        )
    return parser


def _underscored(given: list[str]) -> list[str]:
    """Returns options as --weight_decay, however they were written."""

    def one(text: str) -> str:
        name, equals, value = text.partition("=")
        return "--" + name[2:].replace("-", "_") + equals + value

    return [one(x) if x.startswith("--") else x for x in given]


def _explain(given: list[str]) -> None:
    given = _underscored(given)
    like, rest = _like().parse_known_args(given)
    known = readings(like.like)
    allowed = ", ".join(known)
    if not rest or rest[0].startswith("-"):
        raise ValueError(f"name an optimizer first; one of: {allowed}")
    name = rest[0].lower()
    if name not in known:
        raise ValueError(f"optimizer {name!r} is not known; one of: {allowed}")
    reading = known[name]
    parser = _parser(name, reading, like.like)
    options, unknown = parser.parse_known_args(rest[1:])
    if unknown:
        option = unknown[0].partition("=")[0]
        raise ValueError(f"{name} has no {option}{_hint(option, parser, name)}")
    settings = {}
    for field in inspect.signature(reading).parameters:
        value = getattr(options, field)
        settings[field] = _pair(field, value) if isinstance(value, list) else value
    optimizer = reading(**settings)
    print(_answered(optimizer, _batch(options, like.like), options))
    without_decay = not any(x.startswith("--weight_decay") for x in given)
    if name == "adamw" and like.like == "optsde" and without_decay:
        print(
            "\nweight_decay was not given and is 0 here; with --like torch, optax or "
            "hf their defaults are taken."
        )


def _like() -> _Parser:
    parser = _Parser(prog="optsde explain", add_help=False, allow_abbrev=False)
    parser.add_argument("--like", choices=FRAMEWORKS, default="optsde")
    return parser


def _hint(option: str, parser: _Parser, name: str) -> str:
    """Returns what to give in place of an option that does not exist."""
    for framework in FRAMEWORKS:
        reading = readings(framework).get(name)
        if reading and option[2:] in inspect.signature(reading).parameters:
            return f": it is a name of {framework}'s, so add --like {framework}"
    known = [x for x in parser._option_string_actions if x.startswith("--")]
    near = difflib.get_close_matches(option, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return f"{meant} It has: {' '.join(known)}"


def _batch(options: argparse.Namespace, like: str) -> Batch:
    """Returns the batch now, which Hugging Face says in parts."""
    per_device = getattr(options, "per_device_train_batch_size", None)
    if options.batch is not None and per_device is not None:
        raise ValueError("--batch and --per_device_train_batch_size: give one of them")
    if options.batch is not None:
        return options.batch
    if per_device is None:
        also = ", or --per_device_train_batch_size" if like == "hf" else ""
        raise ValueError(f"--batch is needed, the global batch now{also}")
    sizes = per_device, options.devices, options.gradient_accumulation_steps
    return Batch.parse("x".join(str(size) for size in sizes))


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


def _answered(optimizer: Optimizer, batch: Batch, options: argparse.Namespace) -> str:
    """Returns what the command prints: table, lines to paste, whether it will hold."""
    small, large = options.small, options.large
    if (small is None) != (large is None):
        raise ValueError("--small and --large: give both, or neither")
    asked = ("steps", "warmup", "clip", "ema", "memory")
    given = {name: getattr(options, name) for name in asked}
    found = answer(optimizer, batch, options.to, **given)
    parts = [_UNCHANGED]
    if found.kappa != 1:
        parts = [_table(found, without_steps=options.steps is None)]
        times = "All times of the schedule are divided by κ, as the steps are."
        if options.warmup is not None:
            times += f" Warm-up: {options.warmup:g} → {found.run['warmup']} steps."
        parts.append(times)
    if found.note:
        parts.append(found.note)
    for framework, title in _TITLES.items():
        lines = written(framework, found.after.optimizer, **found.run)
        parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    forecast = _CAUTION
    if small is not None:
        forecast = _forecast(found, two_batches(small, large))
    return "\n\n".join([*parts, forecast])


_UNCHANGED = """\
The global batch stays as it is: change nothing, however many devices or accumulated
micro-batches make it up."""

_TITLES = {"optax": "optax", "torch": "torch", "hf": "Hugging Face"}


def _table(found: Answer, without_steps: bool) -> str:
    rows = explain(found.before, found.after).splitlines()
    return "\n".join(
        row for row in rows if not (without_steps and row.startswith("steps "))
    )


def _forecast(found: Answer, levels: Levels) -> str:
    """Returns what signal and noise say of how far the rule holds."""
    from optsde.measure.prediction import holds_up_to  # takes a second to import

    batch, to = found.before.batch_size, found.after.batch_size
    equal = levels.noise / levels.signal
    text = (
        f"Signal |∇f|² is {levels.signal:.3g}, noise Tr Σ of one example "
        f"{levels.noise:.3g} (two batches, McCandlish et al. 2018);\n"
        f"they are equal at a batch of {equal:.3g}. "
        f"G/N is {batch / equal:.2g} at batch {batch}, {to / equal:.2g} at {to}."
    )
    try:
        limit = holds_up_to(found.before.optimizer, batch / equal, found.memory)
    except ValueError as error:
        return f"{text}\nNo κ is foreseen: {error}."
    verdict = "beyond" if found.kappa > limit else "within"
    end = f"up to κ = {limit:.3g} (batch {batch * limit:.3g})"
    if math.isinf(limit):
        end = "at any κ"
    return (
        f"{text}\nFrom this ratio `measure.predict` would say: the rule holds {end}; "
        f"κ = {found.kappa:g} is {verdict} that.\n\n{_FORECAST}"
    )


def _page(given: list[str]) -> None:
    from optsde.plans.page import page

    parser = _Parser(prog="optsde page", allow_abbrev=False)
    parser.add_argument("file", nargs="?", default="rule.html", help="%(default)s")
    path = Path(parser.parse_args(given).file)
    try:
        path.write_text(page(), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
    print(f"{path}: open it in a browser")


if __name__ == "__main__":
    main()
