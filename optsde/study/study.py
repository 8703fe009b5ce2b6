"""A study, and how it is run: simulate, keep what is finished, print, judge, draw."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from optsde import hosts
from optsde.analysis import Verdict, plots, verdict_table
from optsde.run import Series, TensorBoard, Trajectory, Wandb, Writer
from optsde.run.loop import DivergedError
from optsde.run.progress import writing_to
from optsde.study import report
from optsde.study.rundir import RunDir
from optsde.study.settings import Settings
from optsde.study.shapes import UsageError


def _nothing(*_: Any) -> tuple[()]:
    return ()


@dataclasses.dataclass(frozen=True)
class Study:
    """A study: one question, its settings, its simulation, and its claims.

    `s` are the settings, `runs` is whatever `simulate` returns.

    name: of the module (`__name__`), whose last part names the study in a config.
    simulate: (s, rundir) -> runs, or (s, rundir, task) -> runs where there is a `task`.
      What `rundir` keeps of an interrupted run is not run again.
    tables: (s, runs) -> texts, which are printed one by one.
    claims: (s, runs) -> verdicts; `s.known_false` is applied to them by `run`.
    figures: for each name of a file, (s, runs, path) draws it; settings in the name
      are filled in, as in "{target}".
    task: s -> task; it is built before anything is written. A config file that
      defines task(config) has that one used in its place.
    fixed_task: why it has not, where the task is part of the question.
    by_accuracy: whether it judges by accuracy, and so needs labels.
    summary: (s, runs) -> further entries of summary.json.
    answer: (s, runs, verdicts) -> a text that is printed after the verdicts.
    dry_run: what --dry_run does, None where the study has none; s -> None, or
      (s, task) -> None with a task of one's own.
    says_costs: whether dry_run says what a run costs on another machine, and so takes
      pod=, flops=, share=, bandwidth= and memory=, see `optsde.run.Accelerator`.
    precision: of matrix products, as jax names it; None leaves the default.
    """

    name: str
    settings: type[Settings]
    simulate: Callable[..., Any]
    _: dataclasses.KW_ONLY
    tables: Callable[[Any, Any], Iterable[str]] = _nothing
    claims: Callable[[Any, Any], Iterable[Verdict]] | None = None
    figures: Mapping[str, Callable[[Any, Any, Path], object]] = dataclasses.field(
        default_factory=dict
    )
    task: Callable[[Any], Any] | None = None
    fixed_task: str = ""
    by_accuracy: bool = False
    summary: Callable[[Any, Any], Mapping[str, Any]] | None = None
    answer: Callable[[Any, Any, list[Verdict]], str] | None = None
    dry_run: Callable[..., None] | None = None
    says_costs: bool = False
    precision: str | None = "highest"

    @property
    def key(self) -> str:
        """The name by which a config names the study."""
        return self.name.rpartition(".")[2]

    @property
    def question(self) -> str:
        """The first line of the module's docstring."""
        return (sys.modules[self.name].__doc__ or self.key).strip().partition("\n")[0]


def run(
    study: Study,
    settings: Settings,
    rundir: RunDir,
    task: Callable[[Any], Any] | None = None,
    style: Mapping[str, Any] | None = None,
    writers: Sequence[str] = (),
) -> list[Verdict]:
    """Runs a study and leaves its directory complete; returns the verdicts.

    Args:
      task: ConfigDict -> task, in place of the study's own.
      style: settings of matplotlib for the figures, besides those of `plots.style`.
      writers: tensorboard or wandb, which take the rows of every run.
    """
    if study.precision is not None:
        jax.config.update("jax_default_matmul_precision", study.precision)
    arguments: list[Any] = [settings, rundir]
    if study.task is not None:
        own = study.task
        arguments.append(task(settings.config()) if task else own(settings))
        if study.by_accuracy:
            _require_labels(study, arguments[-1])
    with rundir.running():
        return _run(study, arguments, style, writers)


def _run(
    study: Study,
    arguments: Sequence[Any],
    style: Mapping[str, Any] | None,
    writers: Sequence[str],
) -> list[Verdict]:
    """Runs a study whose directory is begun; arguments are those of `simulate`."""
    settings, rundir = arguments[:2]
    with writing_to(functools.partial(_writers_of, rundir, writers)):
        runs = study.simulate(*arguments)
    for note in rundir.notes() if hosts.first() else ():
        print(f"note: {note}")
    texts = []
    for text in study.tables(settings, runs):
        print(text)
        texts.append(text)
    verdicts: list[Verdict] = []
    if study.claims is not None:
        verdicts = with_known(study.claims(settings, runs), settings.known_false)
    if verdicts:
        print("", verdict_table(verdicts), "", sep="\n")
    if study.answer is not None:
        texts.append(study.answer(settings, runs, verdicts))
        print(texts[-1])
    if study.figures:
        print(f"figures: {rundir.path / 'figures'}", flush=True)
    if study.figures and hosts.first():
        with plots.style(style):
            for name, draw in study.figures.items():
                path = rundir.figure(name.format_map(settings.plain()))
                for old in path, path.with_suffix(".pdf"):
                    old.unlink(missing_ok=True)
                draw(settings, runs, path)
    extra = {} if study.summary is None else study.summary(settings, runs)
    rundir.finish("done", verdicts, **extra)
    print(f"summary: {rundir.path / 'summary.json'}")
    if hosts.first():
        page = report.write(rundir, study.question, settings, verdicts, texts)
        print(f"report: {page}")
    return verdicts


def _writers_of(
    rundir: RunDir, names: Sequence[str], label: str, blocks: Sequence[str]
) -> list[Writer]:
    """Returns the writers of one run of a study; blocks are those of its replicas."""
    part = re.sub(r"[^\w.=-]+", "_", label)
    makers = {
        "tensorboard": lambda: TensorBoard(rundir.path / "tensorboard" / part, blocks),
        "wandb": lambda: Wandb(rundir.path, rundir.settings, label, blocks),
    }
    return [makers[name]() for name in names]


def _require_labels(study: Study, task: Any) -> None:
    kind = task.test[1].dtype.kind
    if kind not in "iu":
        raise UsageError(
            f"--config.dataset: its targets are numbers to be predicted, and the study "
            f"{study.key} judges by accuracy; svag, scaling and fullbatch's row do not"
        )


def with_known(
    verdicts: Iterable[Verdict], known_false: Iterable[str]
) -> list[Verdict]:
    """Returns the verdicts; those of claims that are known to fail are not expected.

    Names that are no claim of this run are reported on stderr.
    """
    known, judged = set(known_false), list(verdicts)
    if unused := sorted(known - {verdict.claim for verdict in judged}):
        names = ", ".join(unused)
        print(f"note: known_false names no claim of this run: {names}", file=sys.stderr)
    return [
        dataclasses.replace(v, expected=v.expected and v.claim not in known)
        for v in judged
    ]


def refuse_divergence(run: Series | Trajectory, label: str, hint: str) -> None:
    """Ends the study where a run has left the finite numbers."""
    if (span := run.diverged()) is not None:
        first, last = span
        lost, count = run.lost()
        which = f"{len(lost)} of {count} replicas, the first of them {lost[0]}"
        raise DivergedError(
            f"{label} between t = {first:g} and {last:g}, {which}; {hint}", lost
        )


def choose(studies: Iterable[Study], key: str | None) -> Study:
    """Returns the study that a config names; where there is one, it need not."""
    by_key = {study.key: study for study in studies}
    if key is None and len(by_key) == 1:
        return next(iter(by_key.values()))
    if key not in by_key:
        raise UsageError(f"--config.study={key}: needs one of {', '.join(by_key)}")
    return by_key[key]
