"""What `experiments.scaling` shows: differences from the base run, verdicts, figure."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.scaling.plans import RULES, Arm
from optsde.analysis import (
    Estimate,
    Interval,
    Verdict,
    above,
    agrees,
    estimate,
    estimate_or_exact,
    interval,
    jackknife,
    mark_known_false,
    plus_minus,
    table,
    with_interval,
    within_factor,
)
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save

JUDGED_UNTIL = 8  # largest κ at which the rule must lie nearer than each control


# Of each arm, held-out loss and accuracy [seeds, evaluations]; NaN after divergence.
Columns = dict[tuple[str, str], dict[str, np.ndarray]]


def split_columns(columns: dict[str, list], group: list[Arm], seeds: int) -> Columns:
    """The columns of metrics of a group, one arm after the other."""
    out: Columns = {}
    for number, arm in enumerate(group):
        mine = slice(number * seeds, (number + 1) * seeds)
        out[arm.group, arm.rule] = {
            name: np.array(columns[f"test_{name}"], float)[:, mine].T
            for name in ("loss", "accuracy")
        }
    return out


def to_json(prediction) -> dict:
    names = ("rule", "kappa", "low", "high", "because", "cannot_hold_beyond")
    return {name: getattr(prediction, name) for name in names}


def noise_table(noises: Any, times: list[float], batch_size: int) -> str:
    """Signal and noise of one batch along the run, with errors over seeds."""
    import jax

    plain, share = noises.total(), np.asarray(noises.dominated()).mean(0)
    rows = []
    for number, time in enumerate(times):
        here = jax.tree.map(lambda x, i=number: x[:, i : i + 1], noises)
        ratios = [here.total(weighted, pool=True).ratio for weighted in (False, True)]
        cells = [_spread(x[:, number]) for x in (plain.signal, plain.noise)]
        cells += [f"{float(ratio):.3g}" for ratio in ratios]
        cells.append(f"{batch_size / float(ratios[0]):.3g}" if ratios[0] > 0 else "–")
        shares = [f"{100 * x:.0f}" for x in share[number]]
        rows.append([f"{time:g}", *cells, " ".join(shares)])
    kappas = ", ".join(f"{kappa:g}" for kappa in noises.kappas)
    header = ["t", "signal ‖ḡ‖²", "noise Tr Σ", "G/N", "in 1/P", "noise scale"]
    header.append(f"% of coordinates ruled by noise, κ = {kappas}")
    return table(header, rows, "rrrrrrr")


def group_table(noises: Any) -> str:
    """The same for each group of parameters, over the second half of the times."""
    import jax

    half = jax.tree.leaves(noises.plain.squares)[0].shape[1] // 2
    late = jax.tree.map(lambda x: np.asarray(x)[:, half:], noises)

    def is_level(x):
        return hasattr(x, "signal")

    plain, weighted = (late.groups(w) for w in (False, True))
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(plain, is_leaf=is_level),
        jax.tree.leaves(weighted, is_leaf=is_level),
        strict=True,
    )
    rows = []
    for (path, level), other in pairs:
        name = "/".join(str(key.key) for key in path)
        cells = [_spread(np.mean(x, axis=1)) for x in (level.signal, level.noise)]
        ratio = np.sum(other.signal) / np.sum(other.noise)
        rows.append([name, *cells, f"{ratio:.3g}"])
    header = ["parameters", "signal ‖ḡ‖²", "noise Tr Σ", "G/N in 1/P"]
    return table(header, rows, "lrrr")


def _spread(values) -> str:
    return plus_minus(estimate_or_exact(values), significant=3)


def _late(column: np.ndarray) -> slice:
    """The second half of the evaluations; number 0 is the initial point."""
    last = column.shape[1]
    return slice((last - 1) // 2 + 1, last)


def difference(columns: Columns, arm: tuple[str, str], name: str) -> Estimate:
    """From the base run, over the second half of the arm's evaluations, paired."""
    mine, base = columns[arm][name], columns["base", "base"][name]
    late = _late(mine)
    change = np.mean(mine[:, late] - base[:, late], axis=1)
    unit = np.mean(base[:, late]) if name == "loss" else 1.0
    return estimate(100 * change / unit)


def distance_gain(columns: Columns, control: tuple[str, str], arm: tuple[str, str]):
    """How much further the control's mean curve lies from the base run's, in % of loss.

    The distance of two curves is the mean of |difference| over the evaluations; its
    error comes from leaving out one seed at a time.
    """

    def gain(control, arm, base):
        far, near = (np.abs((x - base).mean(0)).mean() for x in (control, arm))
        return 100 * (far - near) / base.mean()

    arms = (control, arm, ("base", "base"))
    return jackknife(gain, *(columns[a]["loss"][:, 1:] for a in arms))


def judge(config: ConfigDict, columns: Columns, prediction) -> list[Verdict]:
    """Does the rule hold at each κ, is it the nearest, was it foreseen?"""
    verdicts = []
    for ell in config.ells:
        x = difference(columns, (f"svag{ell:g}", "svag"), "loss")
        claim = f"svag{ell:g}_matches_base"
        verdicts.append(agrees(claim, x, config.bound, "% of loss"))
    for kappa in config.kappas:
        x = difference(columns, (f"kappa{kappa:g}", "rule"), "loss")
        claim, foreseen = f"rule_holds_at_{kappa:g}", kappa <= prediction.kappa
        verdicts.append(agrees(claim, x, config.bound, "% of loss", foreseen))
    for kappa, rule in itertools.product(config.kappas, config.rules):
        group = f"kappa{kappa:g}"
        if rule == "rule" or kappa > min(JUDGED_UNTIL, config.controls_until):
            continue
        if not np.isfinite(columns[group, rule]["loss"]).all():
            continue  # diverged: the table says so
        x = distance_gain(columns, (group, rule), (group, "rule"))
        claim = f"nearer_than_{rule}_at_{kappa:g}"
        verdicts.append(above(claim, x, 0.0, "% of loss"))
    verdicts.append(_foreseen(config, verdicts, prediction))
    # Which claims there are depends on settings, and on which arms diverge.
    return mark_known_false(verdicts, config.known_false, complete=False)


def largest(config: ConfigDict, verdicts: list[Verdict]) -> tuple[float, float]:
    """(the largest κ up to which the rule holds, the first at which it does not)."""
    held = {v.claim: v.holds for v in verdicts}
    up_to = 1.0
    for kappa in sorted(config.kappas):
        if not held[f"rule_holds_at_{kappa:g}"]:
            return up_to, kappa
        up_to = kappa
    return up_to, np.inf


def _foreseen(config: ConfigDict, verdicts: list[Verdict], prediction) -> Verdict:
    """Within a factor 2: not below half of what held, not above twice what did not."""
    held, failed = largest(config, verdicts)
    i = Interval(prediction.kappa, prediction.low, prediction.high)
    unit = "κ; bound: the largest that held"
    return within_factor("prediction_within_a_factor_2", i, held, failed, unit)


def answer(config: ConfigDict, verdicts: list[Verdict], prediction) -> str:
    """In words: predicted, and seen."""
    held, failed = largest(config, verdicts)
    seen = f"held up to κ = {held:g}" if held > 1 else "did not hold at any κ tried"
    if np.isfinite(failed):
        seen += f", and was not shown to within ±{config.bound:g}% at κ = {failed:g}"
    return (
        f"predicted: up to κ = {prediction.kappa:.3g} [{prediction.low:.3g}, "
        f"{prediction.high:.3g}]; seen: the {prediction.rule} rule {seen}"
    )


def difference_table(config: ConfigDict, columns: Columns) -> str:
    rows = []
    for (group, rule), found in columns.items():
        name = RULES.get(rule, "")
        if group == "base":
            loss, accuracy = (
                estimate(found[n][:, _late(found[n])].mean(1))
                for n in ("loss", "accuracy")
            )
            cells = [plus_minus(loss, 4), plus_minus(100 * accuracy, 2)]
        elif not np.isfinite(found["loss"]).all():
            cells = ["diverged", ""]
        else:
            cells = []
            for n in ("loss", "accuracy"):
                i = interval(difference(columns, (group, rule), n))
                cells.append(with_interval(i, 2, sign="+"))
        title = {"base": "base"}.get(group) or group.replace("kappa", "κ = ").replace(
            "svag", "SVAG ℓ = "
        )
        rows.append([title, name, *cells])
    header = ["", "", "held-out loss, % from base", "accuracy, points from base"]
    return table(header, rows, "llrr")


def draw(config: ConfigDict, columns: Columns, prediction: Any, path: Path) -> None:
    """Curves at one κ, and the difference from the base run at every κ."""
    figure, (left, right) = new_figure(2, width=11, height=4.6)
    judged = [k for k in config.kappas if k <= min(JUDGED_UNTIL, config.controls_until)]
    shown = max(judged, default=min(config.kappas))
    times = np.linspace(0, config.horizon, config.evaluations + 1)[1:]
    colours = dict(zip(config.rules, itertools.cycle(COLOURS), strict=False))

    def curve(arm, label, **style):
        loss = columns[arm]["loss"][:, 1:] if arm in columns else np.array([np.nan])
        if np.isfinite(loss).all():
            band(left, times[: loss.shape[1]], estimate(loss), label=label, **style)

    for rule in config.rules:
        style = dict(colour=colours[rule], lw=2.2 if rule == "rule" else 1.6)
        curve((f"kappa{shown:g}", rule), RULES[rule], **style)
    for ell, dashes in zip(config.ells, ("--", ":", "-."), strict=False):
        curve((f"svag{ell:g}", "svag"), f"SVAG ℓ = {ell:g}", colour="grey", ls=dashes)
    curve(("base", "base"), f"base, batch {config.batch_size}", colour="black")
    left.set_title(f"batch × {shown:g}, bands 95%", fontsize=12)
    left.set_xlabel("time, in steps of the base run", fontsize=12)
    left.set_ylabel("held-out loss", fontsize=12)
    left.legend(fontsize=9, frameon=False)
    plain_log_axis(left)

    kappas = np.array(sorted(config.kappas), float)
    for number, rule in enumerate(config.rules):
        offset = 1.03 ** (number - (len(config.rules) - 1) / 2)
        ran = [k for k in kappas if (f"kappa{k:g}", rule) in columns]
        if not ran:
            continue
        points = [difference(columns, (f"kappa{k:g}", rule), "loss") for k in ran]
        spans = [interval(p) for p in points]
        value = np.array([s.value for s in spans])
        error = [value - [s.low for s in spans], [s.high for s in spans] - value]
        style = dict(color=colours[rule], capsize=3, marker="o", ms=4)
        right.errorbar(np.array(ran) * offset, value, error, **style, label=RULES[rule])
    right.axhspan(-config.bound, config.bound, color="grey", alpha=0.15, lw=0)
    edge = kappas[-1] * 2
    span = (min(prediction.low, edge), min(prediction.high, edge))
    right.axvspan(*span, color=COLOURS[0], alpha=0.10, lw=0)
    if prediction.kappa < edge:
        style = dict(color=COLOURS[0], ls="--", lw=1.2)
        right.axvline(prediction.kappa, label="predicted limit", **style)
    right.set_xscale("log", base=2)
    right.set_yscale("symlog", linthresh=2 * config.bound)
    right.set_xlim(kappas[0] / 1.3, edge / 1.4)
    right.set_xticks(kappas, [f"{k:g}" for k in kappas])
    right.set_xlabel("κ, batch in units of the base batch", fontsize=12)
    right.set_ylabel("held-out loss, % from the base run", fontsize=12)
    right.set_title(f"grey: ±{config.bound:g}%, bars 95%", fontsize=12)
    right.legend(fontsize=9, frameon=False)
    save(figure, path)
