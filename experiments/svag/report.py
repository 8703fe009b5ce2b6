"""What `experiments.svag` shows of its curves: a table, verdicts, a figure."""

import itertools
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

import optsde
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    all_agree,
    combination,
    estimate,
    mark_known_false,
    percent,
    plus_minus,
    table,
)
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save

Curves = dict[str, np.ndarray]  # of each arm, train loss [seeds, grid]


def grid(config: ConfigDict) -> np.ndarray:
    return np.arange(0, max(config.times) + 1, config.curve_every)


def svag_arm(ell: float) -> str:
    return "discrete" if ell == 1 else f"ell{ell:g}"


def is_adaptive(plan: optsde.Plan) -> bool:
    """Whether noise sets the size of the step, so that the mean's share matters."""
    return plan.optimizer.noise_exponent == 2


def arm_label(name: str, config: ConfigDict) -> str:
    if name.startswith("ell"):
        return f"SVAG ℓ = {name.removeprefix('ell')}"
    if name.startswith("batch"):
        return f"discrete, batch {name.removeprefix('batch')} by the rule"
    return {
        "discrete": f"discrete, batch {config.batch_size}",
        "sde": "Itô SDE",
        "sde_signal": "Itô SDE, mean gradient in v",
    }[name]


def _at(config: ConfigDict, curve: np.ndarray, times) -> Estimate:
    return estimate(curve[:, np.searchsorted(grid(config), times)])


def loss_table(config: ConfigDict, curves: Curves) -> str:
    """Train loss ± standard error at a few of the times."""
    times = np.asarray(config.times)
    few = times[np.unique(np.linspace(0, len(times) - 1, 4).round().astype(int))]
    rows = []
    for name, curve in curves.items():
        cells = [plus_minus(x, 4) for x in _at(config, curve, few).each()]
        rows.append([arm_label(name, config), *cells])
    header = ["train loss", *(f"t = {t:g}" for t in few)]
    return table(header, rows, "l" + "r" * len(few))


def judge(config: ConfigDict, curves: Curves, base: optsde.Plan) -> list[Verdict]:
    """The claims of the papers, with bounds stated in the config."""
    times = np.asarray(config.times)
    at = {name: _at(config, curve, times) for name, curve in curves.items()}
    bound = config.bound
    ells = [svag_arm(ell) for ell in sorted(config.ells)]

    def same(claim: str, a: str, b: str) -> Verdict:
        """At every time; the verdict shows the time that is furthest from holding."""
        return all_agree(claim, percent(at[a], at[b]).each(), bound, "% of loss")

    def higher(claim: str, a: str, b: str, bound: float) -> Verdict:
        x = percent(at[a], at[b])
        return above(claim, x.at(-1), bound, "% of loss, at the end")

    adaptive = is_adaptive(base)
    verdicts = [same(f"{ells[-1]}_matches_sde", ells[-1], "sde")]
    verdicts.append(same("discrete_matches_sde", "discrete", "sde"))
    if adaptive:
        verdicts.append(
            same("discrete_matches_sde_with_signal", "discrete", "sde_signal")
        )
        for coarse, fine in itertools.pairwise(ells):
            last = fine == ells[-1] and len(ells) > 2
            claim = f"{coarse}_not_below_{fine}" if last else f"{coarse}_above_{fine}"
            verdicts.append(higher(claim, coarse, fine, -1.0 if last else 0.0))
    for batch in config.small_batches:
        kappa, name = batch / config.batch_size, f"batch{batch}"
        twin = svag_arm(kappa ** (-1 / base.optimizer.noise_exponent))
        if twin in ells:
            verdicts.append(same(f"{name}_matches_{twin}", name, twin))
        if adaptive and kappa <= 0.5:
            claim = f"{name}_gap_below_{2 * kappa:g}_of_discrete"
            slack = _gap_slack(at["discrete"], at["sde"], at[name], 2 * kappa)
            verdicts.append(above(claim, slack.at(-1), 0.0, "% of loss, at the end"))
    # Which claims there are depends on settings, such as the ells.
    return mark_known_false(verdicts, config.known_false, complete=False)


def _gap_slack(base: Estimate, sde: Estimate, small: Estimate, share: float):
    """Returns share·(base − sde) − (small − sde), in percent of the SDE's loss."""
    slack = combination((share, 1 - share, -1.0), (base, sde, small))
    return 100 * slack / sde.mean


def draw(config: ConfigDict, curves: Curves, base: optsde.Plan, path: Path) -> None:
    """Loss on the common clock, and its distance from the SDE."""
    figure, (left, right) = new_figure(2, height=4.6)
    times = grid(config)
    ells = [svag_arm(ell) for ell in sorted(config.ells)]
    colours = dict(zip(ells, itertools.cycle(COLOURS[:-2]), strict=False))
    styles: dict[str, dict] = {
        **{name: dict(colour=colour) for name, colour in colours.items()},
        "sde": dict(colour="black"),
        "sde_signal": dict(colour="black", ls="--", lw=1.4),
    }
    dotted = dict(ls=(0, (1, 1.2)), lw=2.6)
    cycle = itertools.cycle(COLOURS[-2::-1])
    for batch, colour in zip(config.small_batches, cycle, strict=False):
        styles[f"batch{batch}"] = dict(colour=colour, **dotted)
    for name, curve in curves.items():
        label = arm_label(name, config)
        band(left, times, estimate(curve), label=label, **styles[name])
        if name != "sde":
            x = percent(estimate(curve[:, 1:]), estimate(curves["sde"][:, 1:]))
            band(right, times[1:], x, label=label, **styles[name])
    plain_log_axis(left)
    left.set_ylabel("train loss", fontsize=12)
    left.legend(fontsize=9, frameon=False, loc="upper right", borderpad=0)
    right.axhspan(-config.bound, config.bound, color="grey", alpha=0.15, lw=0)
    right.axhline(0, color="black", lw=1.8)
    right.set_ylabel("difference from the SDE, % of loss", fontsize=12)
    for ax in (left, right):
        ax.set_xlabel("time, in steps of the base run", fontsize=12)
        ax.set_xlim(0, times[-1])
    title = f"{type(base.optimizer).__name__} on digits"
    left.set_title(f"{title}: one clock, bands 95%", fontsize=12)
    right.set_title(f"grey: ±{config.bound:g}%, stated beforehand", fontsize=12)
    save(figure, path)
