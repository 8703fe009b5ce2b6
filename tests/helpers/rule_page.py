"""Questions for the page, and Python's answers to them."""

import dataclasses
from typing import Any

import numpy as np

from optsde.optimizers import REGISTRY
from optsde.plans.calculator import Batch, answer
from optsde.plans.explain import _rows
from optsde.plans.lines import written
from optsde.plans.readings import example

RUN = ("steps", "warmup", "clip", "ema")


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Returns this many random questions about each registered optimizer.

    About half have smaller batches to come, settings that do not go together, or some
    that are out of bounds.
    """
    rng = np.random.default_rng(seed)
    return [_question(rng, name) for name in REGISTRY for _ in range(count)]


def _question(rng: np.random.Generator, name: str) -> dict[str, Any]:
    base = example(REGISTRY[name])
    settings: dict[str, Any] = {}
    for field, value in vars(base).items():
        if isinstance(value, bool):
            settings[field] = bool(rng.integers(2))
        elif field in base.decays():
            settings[field] = float(1 - 10 ** rng.uniform(-4, 0))
        elif field == "lr" or rng.random() < 0.3:
            settings[field] = float(10 ** rng.uniform(-6, 0))
        else:
            settings[field] = float(value)
    if rng.random() < 0.15:
        field = rng.choice([k for k, v in settings.items() if not isinstance(v, bool)])
        settings[str(field)] = float(rng.choice([-1.0, 0.0, 1.0, 2.0]))
    batches = ["1", "32", "256", "8x4x2", "7", "1024", "8192"]
    now, to = rng.choice(batches, 2, replace=False)
    run = dict(steps=1000.0, warmup=100.0, clip=1.0, ema=0.99)
    if rng.random() < 0.1:
        key = str(rng.choice(RUN))
        run[key] = float(rng.choice([-1.0, 0.0, 0.03, 1.0]))
    for key in RUN:
        if rng.random() < 0.5:
            run[key] = None
    memory = str(rng.choice(["auto", "power"]))
    return dict(
        optimizer=name, batch=str(now), to=str(to), memory=memory, **settings, **run
    )


def expected(question: dict[str, Any]) -> dict[str, Any] | None:
    """Returns Python's answer, or None where it refuses."""
    base = example(REGISTRY[question["optimizer"]])
    optimizer = dataclasses.replace(base, **{k: question[k] for k in vars(base)})
    memory = None if question["memory"] == "auto" else "power"
    run = {key: question[key] for key in RUN}
    batch, to = Batch.parse(question["batch"]), Batch.parse(question["to"])
    try:
        found = answer(optimizer, batch, to, memory=memory, **run)
    except (ValueError, ArithmeticError):
        return None
    rows = [
        (row.name, float(row.before), float(row.after), row.why.partition(" (")[0])
        for row in _rows(found.before, found.after, found.kappa)
        if row.name != "steps" or question["steps"] is not None
    ]
    lines = {
        framework: written(framework, found.after.optimizer, **found.run)
        for framework in ("optax", "torch", "hf")
    }
    return dict(rows=rows, lines=lines, memory=found.memory)


def compare(asked: list[dict[str, Any]], answers: list[dict[str, Any]]) -> int:
    """Asserts that the page's answers are Python's; returns how many were refusals."""
    refusals = 0
    for question, seen in zip(asked, answers, strict=True):
        told = expected(question)
        assert (told is None) == ("refused" in seen), (question, told, seen)
        if told is None:
            refusals += 1
            continue
        names = [row[0] for row in told["rows"]]
        assert [row["name"] for row in seen["rows"]] == names, question
        for (name, before, after, why), row in zip(
            told["rows"], seen["rows"], strict=True
        ):
            np.testing.assert_allclose(
                [row["before"], row["after"]],
                [before, after],
                rtol=1e-9,
                err_msg=f"{name} of {question}",
            )
            assert row["why"] == why, question
        assert seen["lines"] == told["lines"], question
    return refusals
