"""The rule at the command line: `python -m optsde explain adamw --batch 256 --to 8192`.

`explain` prints what a rescaling changes and why, and lines to paste in optax, torch
and Hugging Face; `page` writes the same as a page for a browser; without a command
there is a list of the optimizers.
"""

import argparse
import difflib
import gc
import importlib.metadata
import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from optsde.optimizers import REGISTRY, Memory, Optimizer, Power
from optsde.plans import explain
from optsde.plans.calculator import Answer, Batch, answer
from optsde.plans.lines import written
from optsde.plans.readings import FRAMEWORKS, example, readings

_ABOUT = """\
Tuned at one batch size: what to set at another, and why.

  python -m optsde explain OPTIMIZER --batch 256 --to 8192 [--lr 3e-4 …] [--like torch]
  python -m optsde explain OPTIMIZER --help      every setting of an optimizer
  python -m optsde page [FILE]                   the same as a page for a browser
  python -m optsde --version
  python -m experiments.scaling                  whether it holds, measured and tried
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

    >>> from optsde import Adam
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


def _norm(text: str) -> tuple[float, float]:
    """Returns a batch size and |g|², of a text such as 32:1.9."""
    try:
        batch, square = (float(part) for part in text.split(":"))
    except ValueError:
        batch = square = 0.0
    if not all(x > 0 and math.isfinite(x) for x in (batch, square)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no batch:|g|², two positive numbers such as 32:1.9"
        )
    return batch, square


def _batch_of(text: str) -> Batch:
    try:
        return Batch.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    whole = dict(type=_batch_of, metavar="N")
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
    add("--small", type=_norm, metavar="B:G2", help=text)
    add("--large", type=_norm, metavar="B:G2", help="the same at a larger batch")
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
    after = found.after.optimizer.single()
    for framework, title in _TITLES.items():
        lines = written(framework, after, **found.run)
        parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    if small is not None:
        parts.append(_forecast(found, small, large))
    elif found.kappa != 1:
        parts.append(_CAUTION)
    return "\n\n".join(parts)


_UNCHANGED = """\
The global batch stays as it is: change nothing, however many devices or accumulated
micro-batches make it up."""

_TITLES = {"optax": "optax", "torch": "torch", "hf": "Hugging Face"}


def _table(found: Answer, without_steps: bool) -> str:
    rows = explain(found.before, found.after).splitlines()
    return "\n".join(
        row for row in rows if not (without_steps and row.startswith("steps "))
    )


def _forecast(
    found: Answer, small: tuple[float, float], large: tuple[float, float]
) -> str:
    """Returns what signal and noise say of how far the rule holds."""
    from optsde import measure  # takes a second to import

    signal, noise = measure.two_batches(small, large)
    batch, to = found.before.batch_size, found.after.batch_size
    equal = noise / signal
    text = (
        f"Signal |∇f|² is {signal:.3g}, noise Tr Σ of one example {noise:.3g} (two "
        "batches, McCandlish et al. 2018);\n"
        f"they are equal at a batch of {equal:.3g}. "
        f"G/N is {batch / equal:.2g} at batch {batch}, {to / equal:.2g} at {to}."
    )
    try:
        optimizer = found.before.optimizer.representative()
        limit = measure.holds_up_to(optimizer, batch / equal, found.memory)
    except ValueError as error:
        return f"{text}\nNo κ is foreseen: {error}."
    verdict = "beyond" if found.kappa > limit else "within"
    return (
        f"{text}\nFrom this ratio `measure.predict` would say that signal ends the "
        f"rule at κ = {limit:.3g} (batch {batch * limit:.3g}); κ = {found.kappa:g} is "
        f"{verdict} that.\n\n{_FORECAST}"
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


def _to_a_reader() -> None:
    """Runs the command line, and ends quietly where who reads it does, as `head`."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell says of SIGPIPE


if __name__ == "__main__":
    gc.freeze()  # the exit does not look for garbage in all that was imported
    _to_a_reader()
