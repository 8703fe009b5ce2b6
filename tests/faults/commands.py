"""Malformed command lines of every study: each setting with values that it cannot have.

The sweep is made from the studies' own settings: every one of them is tried with the
values that its type makes malformed, and with the values at its ends. What its declared
range takes is `TAKEN`, with the reason; all else must be refused in one line that names
the setting. Settings which are refused together with others are `COUPLINGS`.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import experiments
from optsde.study.launch import Package, _with_flags

OVER = str(2**31)
VALUES = {
    (int, False): ("nan", "inf", "-1", "0", "1e20", "2.5", "word", "", OVER),
    (int, True): ("nan", "-1", "0", "2.5", "word", "", "2,2", OVER),
    (float, False): ("nan", "inf", "-inf", "-1", "0", "1e20", "word", ""),
    (float, True): ("nan", "inf", "-1", "0", "word", "", "2,2", "1e20"),
    (bool, False): ("2", "word"),
    (str, False): ("no_such_name", ""),
    (str, True): ("no_such_name", ""),
}


class Command(NamedTuple):
    """A command line: a package of studies, a study of it, settings and their texts."""

    package: str
    study: str
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.package}.{self.study} {' '.join(self.settings)}"

    @property
    def key(self) -> str:
        """The setting that is wrong: the last."""
        return self.settings[-1].partition("=")[0]


def packages() -> dict[str, Package]:
    """Returns the packages of studies by name."""
    found = {}
    for each in pkgutil.iter_modules(experiments.__path__):
        if each.ispkg:
            module = importlib.import_module(f"experiments.{each.name}")
            found[each.name] = module.PACKAGE
    return found


PACKAGES = packages()


def swept() -> Iterator[Command]:
    """Yields every setting of every study with every value of its type."""
    for package in PACKAGES.values():
        for study in package.studies:
            for leaf in study.settings().leaves():
                for text in VALUES[leaf.kind.element, leaf.kind.many]:
                    yield Command(package.name, study.key, (f"{leaf.name}={text}",))


TAKEN: dict[str, tuple[str, str]] = {
    "0": (
        "0 is among its values: none of it, all there are, or the first",
        "absolute_decay after alpha b1 b2 batch_size beta checkpoint_every clip "
        "controls_until cosine curvature distance end eps eps_root images init_seed l2 "
        "label_noise lr momentum penalty points power probe_examples rise sde_seeds "
        "seed start steps stride "
        "subset tail_size test_size train_size v0 warmup weight_decay window",
    ),
    "1e20": (
        "float32 holds it: a run at such a rate diverges and says so, and a demand so "
        "high makes its claim fail",
        "absolute_decay adagrad_lr adagrad_unit adam_lr apart base capped_ratio clip "
        "close controls_until cosine curvature cycle_low cycle_peak decay distance "
        "eps eps_root factor factors growth init l2 large_lr large_ratio longest lr "
        "lrs matched_loss noise peaks penalty ratio ratios rise scales shown start "
        "stride target warm_lr weight_decay worse",
    ),
    "2,2": (
        "two layers of one width, a point on the diagonal, the shape of an example, a "
        "round bowl, or two starts of one norm",
        "curvatures hidden scales shape start widths",
    ),
    "": (
        "an empty list means none, or the study's own",
        "ells families hidden known_false memories milestones others probes "
        "small_batches start widths",
    ),
    "no_such_name": (
        "a claim that this run has not is told at its end",
        "known_false",
    ),
}
"""Values that are fine where they look odd: the reason, and the settings."""

LATER = {
    "activation",
    "dataset",
    "model",
    *("options.activation", "options.dtype", "options.form", "options.stem"),
}
"""Settings that are looked up when the task is built."""

COUPLINGS: tuple[tuple[str, str], ...] = (  # a command, words of its line
    ("scaling rule schedule.warmup=1e9", "schedule.warmup|before the horizon, 5120"),
    ("scaling rule schedule.milestones=10,1e9", "schedule.milestones|horizon"),
    ("scaling rule horizon=1e20", "horizon"),
    ("scaling rule kappas=2,2", "kappas=2,2|distinct"),
    ("scaling rule ells=2,2", "ells=2,2|distinct"),
    ("scaling rule rules=rule,rule", "rules=rule,rule|each once"),
    ("scaling rule tail_group=100000", "tail_group=100000|1024"),
    ("scaling rule group=4", "group=4|batch_size=2"),
    ("scaling rule alpha=1.5", "tail_size"),
    ("scaling rule bound=1e20", "bound=1e+20|100"),
    ("scaling rule schedule.cosine=10 schedule.milestones=5", "schedule.cosine"),
    ("scaling rule test_size=99999", "test_size=99999|held-out"),
    ("scaling rule train_size=99999", "train_size=99999"),
    ("scaling rule dataset=no_such_name", "dataset=no_such_name|digits"),
    ("scaling rule dataset=", "dataset=:|digits"),
    ("scaling classes remedies=weighted", "remedies=weighted|'none' among them"),
    ("scaling classes kappas=3", "kappas=3|whole steps"),
    ("scaling rows rare=0.6", "rare=0.6|less than 1 − frequent = 0.5"),
    ("scaling rows options.tied=True", "options.tied=True|False"),
    ("scaling rows warmup=1e9", "warmup=1000000000.0|the horizon, 3072"),
    ("scaling half_life factors=0.5,1.0", "factors=0.5,1|three or more"),
    ("scaling half_life kappas=3", "kappas=3|whole steps"),
    ("scaling optimum factors=0.5,1.0", "factors=0.5,1|three or more"),
    ("scaling optimum kappas=3", "kappas=3|whole steps"),
    ("scaling families families=no_such_name", "families=no_such_name|adam"),
    ("scaling families families=adam,adam", "families=adam,adam|each once"),
    ("scaling families kappas=3", "kappas=3|whole steps"),
    ("scaling families schedule.warmup=2048", "schedule.warmup=2048|before"),
    ("svag curves dataset=no_such_name", "dataset=no_such_name|digits"),
    ("svag curves ells=2,4", "ells=2,4|1 among them"),
    ("svag curves times=55", "times=55|multiples"),
    ("svag curves augment=live", "augment=live|none"),
    ("svag curves test_size=99999", "test_size=99999"),
    ("svag whole kappas=7", "kappas=7|whole steps"),
    ("svag whole sde_seeds=17", "sde_seeds=17|from 2 to seeds=16"),
    ("svag whole sde_seeds=2 augment=live", "sde_seeds|augmented"),
    ("svag whole group=9", "group=9|batch_size=8"),
    ("svag whole schedule.milestones=480", "schedule.milestones|horizon"),
    ("svag quadratic horizon=1e20", "horizon=1e+20|2147483647"),
    ("svag quadratic horizon=0.3", "horizon=0.3|multiple"),
    ("svag quadratic halvings=100000", "halvings=100000|12"),
    ("svag quadratic ells=1,100000", "horizon|2147483647"),
    ("intrinsic_lr sphere length=1e20", "length=1e+20|2147483647"),
    ("intrinsic_lr sphere lrs=1,2", "as many as lrs has"),
    ("intrinsic_lr sphere lrs=9,9,9,9", "lrs|below 0.1"),
    ("intrinsic_lr decay drop_at=101", "drop_at=101|multiple of every"),
    ("intrinsic_lr decay steps=100", "steps|drop_at"),
    ("intrinsic_lr early drop_at=300", "drop_at=300|multiple of every"),
    ("intrinsic_lr early drop_at=17000", "drop_at=17000|before the window"),
    ("intrinsic_lr early large_lr=0.01", "large_lr=0.01|above lr"),
    ("intrinsic_lr early large_lr=9", "large_lr=9.0|below 0.1"),
    ("intrinsic_lr rotation betas=1,1,1,1,1,1,1,1", "betas"),
    ("intrinsic_lr rotation turn_every=8000", "turn_every=8000|later part"),
    ("intrinsic_lr rotation families=sgd", "as many as families has"),
    ("intrinsic_lr mixing length=1e20", "length=1e+20|2147483647"),
    ("intrinsic_lr mixing scales=1,2,3", "scales=1.0,2.0,3.0|two numbers"),
    ("intrinsic_lr mixing first=5", "first=5.0|before length/2"),
    ("intrinsic_lr mixing looks=9999", "looks=9999|steps of their own"),
    ("intrinsic_lr mixing images=9999", "images=9999|held out"),
    ("fullbatch row dataset=digits batch_size=99999", "batch_size=99999|1500"),
    ("fullbatch row warmup=1e20", "warmup=1e+20|1e9"),
    ("fullbatch row shuffle=true batch_size=8", "shuffle|full batch"),
    ("fullbatch row stream=true", "stream|batch_size above 0"),
    ("fullbatch row evaluate_every=15", "evaluate_every=15|log_every=10"),
    ("fullbatch row options.dtype=float64", "options.dtype=float64|bfloat16"),
    ("fullbatch row options.dtype=int32", "options.dtype=int32"),
    ("fullbatch row log_every=-5", "log_every=-5"),
    ("fullbatch row checkpoint_every=-5", "checkpoint_every=-5"),
    ("fullbatch row dataset=digits test_size=99999", "test_size=99999"),
    ("fullbatch row dataset=digits train_size=-1", "train_size=-1"),
    ("fullbatch growth shape=2,2 train_size=100", "model=resnet50"),
    ("fullbatch growth model=no_such_name train_size=100", "no_such_name|mlp"),
    ("fullbatch growth options.form=word train_size=100", "form='word'|direct"),
    ("fullbatch growth horizon=1e9 ell=1000", "ell=1000|2147483647"),
    ("fullbatch batches batches=1,99999", "batches=1,99999|512"),
    ("fullbatch batches seeds=5", "seeds=5|even"),
    ("fullbatch batches augment=live", "augment=live|none"),
    ("fullbatch sharpness batches=1,99999", "batches=1,99999|256"),
    ("fullbatch sharpness augment=live", "augment=live|none"),
    ("fullbatch orders orders.one_above_other.other=one", "other=one|not the same"),
    ("fullbatch orders orders.one_above_other.alike=true", "points=0.0|alike"),
    ("batches growing drops=30,", "drops=30|each 256"),
    ("batches growing growth=7", "growth=7|whole steps"),
    ("batches growing others=4,", "others=4|growth=4"),
    ("batches growing warmup=2000", "warmup=2000|first drop"),
    ("batches growing optimizer.b1=0.5 memory=linear", "growth|b1=0.5"),
    ("batches regression lr=1.5", "lr=1.5|stable"),
    ("batches regression growth=3", "growth"),
    ("batches critical stretch=600", "stretch=600|time"),
    ("batches critical fixed=2,4", "fixed=2,4|1 among"),
    ("batches critical kappas=3,", "kappas=3|whole steps"),
    ("batches critical horizon=3330", "horizon=3330|multiples"),
    ("sweep grid warmup=1e9", "warmup=1000000000.0|600 steps"),
    ("sweep grid seeds=5", "seeds=5|even"),
    ("sweep grid over.lr=0.1,0.1", "over.lr|differ"),
    ("sweep grid over.lr=0.1,-1.0", "over.lr|lr=-1.0"),
    ("sweep grid over.lr=0.1,nan", "over.lr"),
    ("sweep grid evaluations=7", "evaluations=7|divisor"),
    ("sweep timescale sizes=160,330,640,1280", "sizes=160,330,640,1280|multiples"),
    ("sweep timescale lrs=0.01,0.02", "lrs|as many as sizes has"),
    ("sweep timescale lrs=2,1,1,1", "sizes|times lrs"),
    ("sweep timescale timescales=0.1,1,2", "timescales|longer than a step"),
    ("sweep timescale epochs=2147483647", "epochs=2147483647|steps of each run"),
    ("catapults table activation=no_such_name", "activation|no_such_name|relu"),
    ("catapults table kernel_size=9999", "kernel_size=9999|train_size=1500"),
    ("catapults table train_size=1797", "train_size=1797|fewer"),
    ("catapults fading cycles=6", "cycles=6|4, 8, 12"),
    ("catapults fading every=300", "every=300|divisor"),
    ("catapults small_batches batch_sizes=9,3", "batch_sizes|train_size=400"),
    ("catapults small_batches target=digits train_size=1600", "batch_sizes|1600"),
    ("catapults edge options.activation=no_such_name", "no_such_name|relu"),
    ("descent gd_2d time=1e20", "time=1e+20|1e6"),
    ("descent gd_2d shown=1e20", "time|1e6"),
    ("descent gd_2d lrs=0.1,0.1,0.05", "lrs=0.1,0.1,0.05|distinct"),
    ("descent modified_sde time=0.33", "time=0.33|multiple"),
    ("descent modified_sde curvatures=20,1", "curvatures=20.0,1.0|below 1/lr, 10"),
    ("descent full_gradient batches=2,4", "batches=2,4|from 1"),
    ("descent full_gradient dimension=8 sizes=16,999", "sizes=16,999|dimension, 8"),
    ("descent full_gradient halvings=8", "halvings=8|accuracy"),
    ("descent full_gradient noise=9", "noise=9.0|less"),
    ("descent label_noise inputs=1,2,3", "inputs=1.0,2.0,3.0|two numbers"),
    ("descent label_noise start=0.9", "start=0.9|below 1/a_2"),
    ("descent label_noise sgd_lrs=0.1,", "sgd_lrs=0.1|two numbers"),
    ("descent label_noise memory=9999", "memory=9999.0|below 1/lr²"),
    ("descent label_noise adam_time=0.001", "adam_time=0.001|from 24"),
    ("descent lengths lengths=1.5,2", "lengths=1.5,2.0|1 first"),
    ("descent lengths batch_size=0", "batch_size=0"),
    ("descent perceptron factors=0,1", "factors=0.0,1.0|0.25, 1 and 4"),
    ("descent perceptron lr=0.2", "lr=0.2|swing"),
    ("descent perceptron loads=0.001,", "loads=0.001|two examples"),
    ("descent starts model=digitsnet", "model=digitsnet|hidden layer"),
    ("descent starts options.hidden=8,", "options.hidden=8|widths"),
    ("descent starts seeds=3", "seeds=3|at least 4"),
    ("descent trajectories methods=gd,gd", "methods=gd,gd|each once"),
    ("descent trajectories start=1,2,3", "start|2 coordinates"),
    ("landscape around run=/no/such/run", "run=/no/such/run"),
    ("landscape around points=4", "points=4|odd"),
    ("landscape around replica=-1", "replica=-1"),
    ("landscape between other_replica=-1", "other_replica=-1"),
)


def coupled() -> Iterator[tuple[Command, str]]:
    """Yields the commands of `COUPLINGS`, each with its words."""
    for text, words in COUPLINGS:
        package, study, *settings = text.split()
        yield Command(package, study, tuple(settings)), words


def is_taken(command: Command) -> bool:
    """Tells whether the value of a swept setting is fine."""
    text = command.settings[-1].partition("=")[2]
    _, keys = TAKEN.get(text, ("", ""))
    return command.key.rpartition(".")[2] in keys.split() or command.key in LATER


def words_of(command: Command) -> tuple[str, ...]:
    """Returns what the line of a swept setting names; a landscape first needs a run."""
    if command.package == "landscape":
        return ("--config.",)
    return (command.key.rpartition(".")[2],)


def check(command: Command, build: bool = False) -> Any:
    """Checks a command as `main` does before anything is written, and builds its task.

    Returns the settings.
    """
    studies = {study.key: study for study in PACKAGES[command.package].studies}
    study = studies[command.study]
    flags = [f"--config.{setting}" for setting in command.settings]
    settings = _with_flags(study.settings(), ["", *flags], "configs").checked()
    if build and study.task is not None:
        study.task(settings)
    return settings
