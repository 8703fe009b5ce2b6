"""Is a growing batch a falling learning rate, exactly, on a noisy regression?

Gaussian inputs with curvatures h_i, labels with noise: then the second moments of SGD
have a closed form, and no run is needed. With e_i = θ_i − θ*_i and excess loss
½ Σ h_i E e_i², a step of the rate η at batch B is

    E e_i² ← (1 − 2η h_i + η² (1 + 1/B) h_i²) E e_i² + η²/B h_i (Σ h_j E e_j² + σ²).

What falling lr and growing batch differ by must fall in proportion to lr; growth by
another factor must stay apart.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.batches import growing, stages
from optsde.analysis import Verdict, least_above, order, plots, table, within
from optsde.optimizers import SGD
from optsde.study import Integers, RunDir, Study, setting
from optsde.study.settings import Settings as Base

Curves = dict[float, dict[str, np.ndarray]]  # by lr and arm, the excess loss [times]


class Settings(Base):
    dimension: int = setting(8, "of the parameters", at_least=1, at_most=100_000)
    power: float = setting(1.0, "of the curvatures i^-power", at_least=0, at_most=10)
    noise: float = setting(2.0, "standard deviation of the labels", above=0)
    distance: float = setting(1.0, "of each parameter at the start", at_least=0)
    batch_size: int = setting(4, "of the base run", at_least=1)
    lr: float = setting(0.08, "the largest", above=0)
    halvings: int = setting(4, "of lr: smaller ones", at_least=2, at_most=8)
    steps: int = setting(1024, "of the largest lr", at_least=4, multiple_of=4)
    growth: int = setting(2, "of the batch, in place of lr ÷ growth", above=1)
    others: Integers = setting((4,), "factors that should not do", above=1, entries=1)
    evaluations: int = setting(16, "of each run", at_least=8, multiple_of=4)
    tolerance: float = setting(
        0.25, "on the order, which should be 1", above=0, at_most=1
    )
    apart: float = setting(
        5.0, "by which other factors differ", unit="% of excess loss", above=0
    )

    def demands(self):
        yield from super().demands()
        most = self.lr * (1 + np.sum(curvatures(self)))
        yield most < 2, "lr", f"a stable one, below {2 * self.lr / most:.3g}"
        for lr in rates(self):
            try:
                of_lr(self, lr).checked()
            except ValueError as error:
                yield False, "steps", str(error)


def rates(s: Settings) -> list[float]:
    """Returns the learning rates, the largest first."""
    return [s.lr / 2**number for number in range(s.halvings + 1)]


def of_lr(s: Settings, lr: float) -> growing.Settings:
    """Returns the arms' settings at a learning rate: drops at each quarter."""
    horizon = float(s.steps * round(s.lr / lr))
    return growing.Settings(
        optimizer=SGD(lr=lr),
        batch_size=s.batch_size,
        horizon=horizon,
        drops=tuple(horizon * quarter / 4 for quarter in (1, 2, 3)),
        growth=s.growth,
        others=s.others,
        evaluations=s.evaluations,
    )


def curvatures(s: Settings) -> np.ndarray:
    return np.arange(1.0, s.dimension + 1) ** -s.power


def excess(s: Settings, way: stages.Way, arms: growing.Settings) -> np.ndarray:
    """Returns the excess loss at each evaluation, from 0 on."""
    h, found = curvatures(s), []
    second = np.full(s.dimension, s.distance**2)
    found.append(h @ second / 2)
    edges = 0.0, *arms.ends
    for stage, begin, end in zip(way, edges, edges[1:], strict=False):
        lr, batch = float(stage.plan.optimizer.lr), stage.plan.batch_size
        kept = 1 - 2 * lr * h + lr**2 * (1 + 1 / batch) * h**2
        for _ in range(round((end - begin) / arms.every)):
            for _ in range(round(arms.every / stage.plan.dt)):
                fresh = lr**2 / batch * h * (h @ second + s.noise**2)
                second = kept * second + fresh
            found.append(h @ second / 2)
    return np.array(found)


def simulate(s: Settings, rundir: RunDir) -> Curves:
    """Returns the excess loss of all arms at all rates."""
    curves = {}
    for lr in rates(s):
        arms = of_lr(s, lr)
        of_arms = growing.ways(arms)

        def make(arms=arms, of_arms=of_arms):
            return {name: excess(s, way, arms) for name, way in of_arms.items()}

        curves[lr] = rundir.once(f"lr{lr:g}", make)
    return curves


def gap(s: Settings, curves: dict[str, np.ndarray], name: str) -> float:
    """Returns an arm's largest difference from falling lr, after a drop, in %."""
    after = slice(s.evaluations // 4 + 1, None)
    ratio = curves[name][after] / curves[growing.FALLS][after]
    return 100 * float(np.max(np.abs(ratio - 1)))


def tables(s: Settings, curves: Curves) -> Iterator[str]:
    rows = []
    for lr, of_arms in curves.items():
        ways = growing.ways(of_lr(s, lr))
        taken = [stages.steps(ways[n], of_lr(s, lr).ends) for n in compared(s)]
        gaps = [f"{gap(s, of_arms, name):.3g}" for name in compared(s)[1:]]
        last = f"{of_arms[growing.FALLS][-1]:.3g}"
        rows.append([f"{lr:.3g}", last, *taken[:2], *gaps])
    header = ["lr", "last excess loss, lr falls", "steps, lr falls", "batch grows"]
    header += [f"{name}: % from lr falls" for name in compared(s)[1:]]
    yield table(header, rows, "r" * len(header))


def compared(s: Settings) -> list[str]:
    """Returns the names of the arms, the run whose lr falls first."""
    others = [growing.by_other(each) for each in s.others]
    return [growing.FALLS, growing.GROWS, *others, growing.STAYS]


def claims(s: Settings, curves: Curves) -> Iterator[Verdict]:
    gaps = [gap(s, curves[lr], growing.GROWS) for lr in curves]
    slope = order(list(curves), gaps)
    ends = 1 - s.tolerance, 1 + s.tolerance
    yield within("difference_falls_as_lr", slope, *ends, "order, 1 expected")
    for each in s.others:
        name = growing.by_other(each)
        apart = [gap(s, of_arms, name) for of_arms in curves.values()]
        unit = "% of excess loss"
        yield least_above(f"growth_by_{each}_stays_apart", apart, s.apart, unit)


def figure(s: Settings, curves: Curves, path: Path) -> None:
    """Draws the excess loss at the largest rate, and the differences at all."""
    canvas, (left, right) = plots.new_figure(2, width=11, height=4.8)
    colour, arms = plots.colours(compared(s)), of_lr(s, s.lr)
    seen = s.batch_size * arms.every * np.arange(s.evaluations + 1)
    for name in compared(s):
        style = dict(ls="--", lw=2.4) if name == growing.GROWS else dict(lw=1.8)
        of_arm = curves[s.lr][name]
        left.plot(seen, of_arm, label=name, color=colour[name], **style)
    for drop in arms.drops:
        left.axvline(s.batch_size * drop, color="0.6", lw=1, ls=":", zorder=0)
    lrs = np.array(list(curves))
    for name in compared(s)[1:-1]:
        gaps = [gap(s, of_arms, name) for of_arms in curves.values()]
        right.plot(lrs, gaps, "o-", color=colour[name], label=name)
    first = gap(s, curves[s.lr], growing.GROWS)
    right.plot(lrs, first * lrs / s.lr, color="grey", ls=":", label="∝ lr")
    plots.plain_log_axis(right, "x")
    right.set_yscale("log")
    plots.plain_log_axis(left)
    title = f"lr {s.lr:g}, exact; dotted: drops"
    plots.label(left, x="samples seen", y="excess loss", title=title, legend="best")
    y = "largest difference from falling lr, %"
    plots.label(right, x="lr", y=y, title="exact", legend="best")
    right.set_xticks(lrs, [f"{lr:.3g}" for lr in lrs])
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"regression": figure},
)
