"""Studies as functions: what a command would print, and the numbers behind it."""

import contextlib
import dataclasses
import io
import tempfile
from pathlib import Path
from typing import Any

import jax

from optsde.analysis import Verdict, verdict_table
from optsde.optimizers import Optimizer
from optsde.plans.plan import Plan
from optsde.run import Task
from optsde.study.rundir import RunDir
from optsde.study.settings import Seeded, Settings
from optsde.study.shapes import UsageError
from optsde.study.study import Study, with_known
from optsde.study.tasks import LabelSettings


@dataclasses.dataclass(frozen=True)
class Result:
    """A study's runs and verdicts; as a text it is what its command prints.

    Attributes:
      settings: of the study.
      runs: whatever the study simulates.
      verdicts: its claims, each with an interval and a bound.
      text: the tables.
    """

    settings: Settings
    runs: Any
    verdicts: list[Verdict]
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text


def call(study: Study, settings: Settings, task: Task) -> Result:
    """Runs a study on a task; nothing of it is stored."""
    settings = settings.checked()
    precision = contextlib.nullcontext()
    if study.precision is not None:
        precision = jax.default_matmul_precision(study.precision)
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, precision:
        rundir = RunDir(Path(folder), study.key, {})
        rundir.begin()
        with contextlib.redirect_stdout(said):
            runs = study.simulate(settings, rundir, task)
    texts = [said.getvalue().strip(), *study.tables(settings, runs)]
    verdicts: list[Verdict] = []
    if study.claims is not None:
        verdicts = with_known(study.claims(settings, runs), settings.known_false)
    if verdicts:
        texts.append(verdict_table(verdicts))
    if study.answer is not None:
        texts.append(study.answer(settings, runs, verdicts))
    text = "\n\n".join(text.strip("\n") for text in texts if text.strip())
    return Result(settings, runs, verdicts, text)


def of_plan(
    plan: Plan,
    given: dict[str, Any],
    names: tuple[str, ...],
    others: tuple[str, ...] = (),
) -> dict:
    """Returns a study's settings, of which those called `names` are the plan's.

    Refused are a plan that is rescaled already, an optimizer of groups, and what plan
    or task say: `names`, `others`, and the settings of built-in tasks.
    """
    if plan.dt != 1 or plan.noise_gain != 1:
        raise UsageError(
            f"plan: has dt={plan.dt:g} and noise_gain={plan.noise_gain:g}; needs the "
            "plan of the base run, which the study rescales itself"
        )
    if not isinstance(plan.optimizer, Optimizer):
        raise UsageError(
            "plan.optimizer: has groups; studies take one optimizer for all parameters"
        )
    built_in = _names(LabelSettings) - _names(Seeded)
    if twice := sorted({*given} & {*names, *others, *built_in}):
        whose = "task" if twice[0] in built_in else "plan or the task"
        raise UsageError(f"{twice[0]}: is the {whose}'s; set it there")
    return given | {name: getattr(plan, name) for name in names}


def _names(settings: type[Settings]) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}
