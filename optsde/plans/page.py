"""The rule as one page for a browser, made of the registry.

Rules are traced by jax and written as JavaScript, and so are the arguments of the lines
to paste; reasons are those of `explain`; what a setting may be is found by asking
`checked()`. So a new family is on the page as soon as it is registered.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from optsde.optimizers import EMA, REGISTRY, SGD, Optimizer
from optsde.plans.explain import _rows
from optsde.plans.javascript import function
from optsde.plans.lines import (
    NONE,
    RUN,
    Argument,
    Call,
    Line,
    Spelling,
    absent,
    lines,
    spellings,
)
from optsde.plans.plan import Plan, rescaled
from optsde.plans.readings import called, example


def page() -> str:
    """Returns the page as HTML, complete in itself."""
    data = {
        "optimizers": {name: _family(family) for name, family in REGISTRY.items()},
        "limits": _limits_of_run(),
        "none": NONE,
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return template.replace("/* DATA */", f"const DATA = {_javascript(data)};")


class _Code(str):
    """An expression of JavaScript, which is written as it is."""


def _family(family: type[Optimizer]) -> dict[str, Any]:
    base = example(family)
    flags = [name for name, value in vars(base).items() if isinstance(value, bool)]
    first, _, _ = (family.__doc__ or "").strip().partition("\n")
    return {
        "name": family.__name__,
        "about": first,
        "called": called(family),
        "fields": _decays_last(base),
        "flags": flags,
        "decays": list(family.decays()),
        "rule": {form: _rule(base, flags, form) for form in ("linear", "power")},
        "limits": dict(_limits_by_flags(base, flags)),
        "ordered": list(_ordered(base)),
        "rows": _reasons(base),
        "absent": {framework: absent(framework, family) for framework in NONE},
        "lines": {
            framework: [
                _spelling(framework, spelling, base)
                for spelling in spellings(framework, family)
            ]
            for framework in ("optax", "torch", "hf")
        },
    }


def _decays_last(base: Optimizer) -> dict[str, Any]:
    """Returns the hyperparameters in the order in which people have them."""
    shared = [f.name for f in dataclasses.fields(Optimizer) if f.name != "lr"]
    own = {name: value for name, value in vars(base).items() if name not in shared}
    return own | {name: getattr(base, name) for name in shared}


def _rule(base: Optimizer, flags: list[str], memory: str) -> _Code:
    """Returns the rule as a function of kappa, the hyperparameters, clip and ema."""
    numbers = {k: float(v) for k, v in vars(base).items() if k not in flags}
    given = {**numbers, "kappa": 4.0, "clip": 1.0, "ema": 0.5}

    def written(optimizer: Optimizer) -> str:
        def run(s):
            own = {name: s[name] for name in numbers}
            plan = Plan(
                optimizer=dataclasses.replace(optimizer, **own),
                batch_size=1,
                horizon=1,
                clip=s["clip"],
                average=EMA(s["ema"]),
            )
            new = rescaled(plan, s["kappa"], memory, "noise")
            after = {name: getattr(new.optimizer, name) for name in numbers}
            assert isinstance(new.average, EMA)
            return {**after, "clip": new.clip, "ema": new.average.decay}

        return function(run, given)

    text = written(base)
    for name in flags:
        other = dataclasses.replace(base, **{name: not getattr(base, name)})
        if written(other) != text:
            raise NotImplementedError(
                f"the rule of {type(base).__name__} depends on {name}, and the page "
                "has one rule for each family: make it two families"
            )
    return _Code(text)


def _limits_by_flags(
    base: Optimizer, flags: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what each hyperparameter may be, by the flags that are set."""
    numbers = [name for name in vars(base) if name not in flags]
    for values in itertools.product((False, True), repeat=len(flags)):
        chosen = dataclasses.replace(base, **dict(zip(flags, values, strict=True)))
        start = _passing(chosen, numbers)
        found = {name: _limits(_changed(start, name)) for name in numbers}
        yield ",".join(f for f in flags if getattr(chosen, f)), found


def _changed(optimizer: Optimizer, name: str) -> Callable[[float], Optimizer]:
    return lambda x: dataclasses.replace(optimizer, **{name: x}).checked()


def _passing(optimizer: Optimizer, numbers: list[str]) -> Optimizer:
    """Returns an optimizer with these flags that passes its checks."""
    tried = (
        optimizer,
        *(dataclasses.replace(optimizer, **{name: 1.0}) for name in numbers),
    )
    for candidate in tried:
        if _refusal(candidate.checked) is None:
            return candidate
    raise NotImplementedError(
        f"{optimizer} passes its checks with no single setting at 1: give it defaults "
        "that pass"
    )


def _limits(check: Callable[[float], Any]) -> dict[str, Any]:
    """Returns the interval of allowed numbers, one of those that are known here."""
    refusals = [_refusal(lambda x=x: check(x)) for x in (-1.0, 0.0, 0.5, 1.0, 2.0)]
    fine = tuple(refusal is None for refusal in refusals)
    known: dict[tuple[bool, ...], dict[str, Any]] = {
        (False, True, True, True, True): dict(low=0),
        (False, False, True, True, True): dict(above=0),
        (False, True, True, False, False): dict(low=0, below=1),
        (False, True, False, False, False): dict(low=0, high=0),
        (False, False, False, True, True): dict(low=1),
        (True, True, True, True, True): {},
    }
    if fine not in known:
        raise NotImplementedError(
            f"of −1, 0, ½, 1 and 2 {fine} pass: the page has no such interval"
        )
    reasons = [refusal.partition(": ")[2] for refusal in refusals if refusal]
    return {**known[fine], "needs": reasons[-1] if reasons else ""}


def _limits_of_run() -> dict[str, Any]:
    """Returns what the other settings of a run may be."""
    plan = Plan(optimizer=SGD(), batch_size=1, horizon=1)

    def of(change: Callable[[float], dict[str, Any]]) -> dict[str, Any]:
        return _limits(lambda x: dataclasses.replace(plan, **change(x)).checked())

    return {
        "clip": of(lambda x: dict(clip=x)),
        "steps": of(lambda x: dict(horizon=x)),
        "ema": of(lambda x: dict(average=EMA(x))),
    }


def _ordered(base: Optimizer) -> Iterator[dict[str, str]]:
    """Yields pairs of decays of which one may not be the larger where κ < 1."""
    for small, large in itertools.permutations(type(base).decays(), 2):
        wrong = dataclasses.replace(base, **{small: 0.9, large: 0.5})
        right = dataclasses.replace(base, **{small: 0.5, large: 0.9})
        refusal = _refusal(lambda o=wrong: o.rescaled(0.5))
        if refusal and _refusal(lambda o=right: o.rescaled(0.5)) is None:
            why = refusal.partition(": ")[2].replace("kappa=0.5", "κ")
            yield dict(small=small, large=large, why=why)


def _refusal(action: Callable[[], Any]) -> str | None:
    try:
        action()
    except ValueError as error:
        return str(error)
    return None


def _reasons(base: Optimizer) -> list[dict[str, Any]]:
    """Returns the rows of `explain`, with the reasons at larger and smaller batches."""
    flags = {k: v for k, v in vars(base).items() if isinstance(v, bool)}
    numbers = {name: 0.5 for name in vars(base) if name not in flags}
    before = Plan(
        optimizer=dataclasses.replace(base, **numbers),
        batch_size=64,
        horizon=64,
        clip=1.0,
        average=EMA(0.5),
    )

    def at(kappa: float) -> list[Any]:
        after = rescaled(before, kappa, memory="power", clip="noise")
        after = dataclasses.replace(after, batch_size=round(64 * kappa))
        return list(_rows(before, after, kappa))

    larger, smaller = at(4.0), at(0.25)
    keys = {"batch size": "batch", "EMA decay": "ema"}
    rows = []
    for up, down in zip(larger, smaller, strict=True):
        name = up.name.removeprefix("1 − ")
        rows.append(
            dict(
                name=up.name,
                key=keys.get(name, name),
                complement=name != up.name,
                why=up.why,
                why_smaller=down.why,
            )
        )
    return rows


def _spelling(framework: str, spelling: Spelling, base: Optimizer) -> dict[str, Any]:
    settings = {
        name: value if isinstance(value, bool) else float(value)
        for name, value in vars(base).items()
    }
    run = dict.fromkeys(RUN, 1) | dict(clip=1.0, ema=0.5)
    settings |= run
    return {
        "zero": list(spelling.zero),
        "flags": dict(spelling.flags),
        "lines": [_line(line, settings) for line in lines(framework, spelling)],
    }


def _line(line: Line, settings: dict[str, Any]) -> dict[str, Any]:
    calls = [_call(call, settings) for call in line.calls]
    return {**line._asdict(), "calls": calls}


def _call(call: Call, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        **call._asdict(),
        "arguments": [_argument(x, settings) for x in call.arguments],
        "when": None if call.when is None else _of(call.when, settings),
    }


def _argument(argument: Argument, settings: dict[str, Any]) -> dict[str, Any]:
    value = argument.value(SimpleNamespace(**settings))
    return {
        **argument._asdict(),
        "value": _of(argument.value, settings),
        "whole": isinstance(value, int) and not isinstance(value, bool),
    }


def _of(value: Callable[[Any], Any], settings: dict[str, Any]) -> _Code:
    return _Code(function(lambda s: value(SimpleNamespace(**s)), settings))


def _javascript(tree: Any, indent: str = "") -> str:
    """Returns nested dicts and lists as JavaScript, on one line where they are short.

    Entries of dicts that are None or empty are left out.
    """
    if isinstance(tree, _Code):
        return tree.replace("\n", "\n" + indent)
    if not isinstance(tree, dict | list):
        return json.dumps(tree, ensure_ascii=False)
    deeper = indent + "  "
    if isinstance(tree, list):
        (start, end), items = "[]", [_javascript(v, deeper) for v in tree]
    else:
        start, end = "{}"
        items = [
            f"{json.dumps(k)}: {_javascript(v, deeper)}"
            for k, v in tree.items()
            if v not in (None, "", [], {}) or isinstance(v, bool)
        ]
    line = start + ", ".join(items) + end
    if len(line) <= 80 and "\n" not in line:
        return line
    return start + "\n" + "".join(f"{deeper}{item},\n" for item in items) + indent + end
