"""Do AdaGrad's catapults end, where the learning rate stays bounded?

Minibatches, and cycles that all have one height. The noise of the batches makes s grow,
and with it η_crit = 2/λ_max(P^-½ H P^-½), P = √s + ε, until no peak is above it: so the
poster. Two readings of its s_t bound η_crit from two sides,

    2 min_i P_i/λ_max(H)  ≤  η_crit  ≤  2 ‖P‖/λ_max(H),

the second being AdaGrad's P with one rate for all. H is that of all training images.
"""

import numpy as np

from experiments.catapults import adagrad, cycles, nets
from experiments.catapults.cycles import Arm
from experiments.catapults.descent import Cycle
from optsde import analysis
from optsde.analysis import above, agrees, estimate, estimate_finite, plots, plus_minus
from optsde.measure import probe
from optsde.study import Numbers, Study, setting

CALM, LOW = 0.5, 0.2  # the rate of the arm without peaks, and between the peaks
PREDICTORS = {
    "least": "2 min P/λ_max(H)",
    "critical": "η_crit",
    "norm": "2‖P‖/λ_max(H)",
}


class Settings(adagrad.Settings):
    peaks: Numbers = setting(
        (3.0, 12.0),
        "heights of the cycles",
        unit="η_crit at the start",
        above=LOW,
        rising=True,
        entries=1,
    )
    batch_size: int = setting(32, "images of a step", at_least=1)
    cycles: int = setting(
        32, "cycles of the rate", at_least=4, multiple_of=4, needs="4, 8, 12, …"
    )
    factor: float = setting(
        3.0, "to which a predictor must meet the peak at the last catapult", above=1
    )
    warm_steps = 200
    every = 200


def arms(s) -> dict[str, Arm]:
    """Returns the arm without peaks, and one for each height."""
    made = {"calm": Arm(f"constant {CALM:g}", Cycle(CALM, CALM, 1.0))}
    for peak in s.peaks:
        made[f"{peak:g}"] = Arm(f"peaks of {peak:g}", Cycle(LOW, peak, 1.0))
    return made


def simulate(s, rundir, task):
    """Returns each arm's curves, with the spikes of the loss on all images."""

    def on_all(examples, state):
        return {"loss_on_all": task.losses(state.params, examples).mean()}

    def more(member):
        return [probe(on_all, member.examples, range(s.steps))]

    def make():
        return adagrad.trained(s, task, arms(s), s.batch_size, more)

    arrays = rundir.once("cycles", make)
    return cycles.by_arm(arrays | {"loss": arrays["loss_on_all"]}, arms(s))


# ---- what is read off a run


def sizes(s, run):
    """Returns two sizes of each cycle's spike, [seeds, cycles].

    Its largest loss less that at its start, in units of the first cycle's; and the
    powers of ten between the two.
    """
    loss = run["loss"].reshape(-1, s.cycles, s.period)
    largest, begun = loss.max(axis=-1), loss[..., 0]
    return (largest - begun) / begun[:, :1], np.log10(largest / begun)


def shrinks(s, size):
    """Returns the mean size in the first quarter of the cycles less that in the last"""
    quarter = s.cycles // 4
    return estimate(size[:, :quarter].mean(axis=1) - size[:, -quarter:].mean(axis=1))


def predictors(run):
    """Returns the critical rate and its bounds from both sides, [seeds, times]."""
    least, norm = (2 * run[name] / run["sharpness"] for name in ("least", "norm"))
    return {"least": least, "critical": run["critical"], "norm": norm}


def in_peaks(run, peak):
    """Returns the predictors in units of the cycles' peak."""
    rate = peak * run["critical"][:, :1]
    return {name: values / rate for name, values in predictors(run).items()}


def at_the_last(s, run, values):
    """Returns the values where each seed's last catapult begins; NaN without any."""
    starts = [found[-1].start if found else np.nan for found in run["spikes"]]
    pairs = zip(starts, values, strict=True)
    return np.array([np.interp(start, s.times, x) for start, x in pairs])


def power(s, size):
    """Returns each seed's power of t in √(x² − x₀²), which steady noise makes ½."""
    added = np.log(size[:, 1:] ** 2 - size[:, :1] ** 2)
    return np.polyfit(np.log(s.times[1:]), added.T, 1)[0] / 2


# ---- tables, claims, figure


def tables(s, runs):
    rows = []
    for name, arm in arms(s).items():
        run = runs[name]
        quarter, (seen, relative) = s.cycles // 4, sizes(s, run)
        of_quarters = [
            plus_minus(estimate(size[:, part].mean(axis=1)))
            for size in (seen, relative)
            for part in (slice(quarter), slice(-quarter, None))
        ]
        grown = [x[:, -1] / x[:, 0] for x in predictors(run).values()]
        ends = [plus_minus(estimate(x)) for x in grown]
        rows.append([arm.title, cycles.counts(run["spikes"]), *of_quarters, *ends])
    header = ["learning rate", "catapults of each seed", "rise, first quarter", "last"]
    header += ["powers of ten, first quarter", "last"]
    header += [f"{title}, end/start" for title in PREDICTORS.values()]
    yield ""
    yield analysis.table(header, rows, "lr" + "r" * 7)


def claims(s, runs):
    slack = []
    for run in runs.values():
        least, critical, norm = predictors(run).values()
        slack += [critical / least, norm / critical]
    claim, unit = "critical_rate_is_between_the_bounds", "of the bound"
    rounding = adagrad.ROUNDING
    yield analysis.least_above(claim, np.ravel(slack), 1 - rounding, unit)
    for name in ("least", "norm"):
        root = estimate(power(s, runs["calm"][name]) - 0.5)
        claim = f"what_noise_adds_to_{name}_grows_as_root_t"
        yield agrees(claim, root, 0.1, "power of t, less ½")
    for peak in s.peaks:
        yield from claims_of(s, runs[f"{peak:g}"], peak)


def claims_of(s, run, peak):
    """Yields what is claimed of the cycles of one height."""
    of = f"of_{peak:g}"
    count = estimate([len(found) for found in run["spikes"]])
    yield above(f"catapults_{of}", count, 0.0, "catapults")
    late = [[x.start >= s.steps / 2 for x in found] for found in run["spikes"]]
    yield analysis.none(f"none_in_the_last_half_{of}", [any(x) for x in late])
    seen, relative = sizes(s, run)
    unit = "of the first loss"
    yield above(f"spikes_shrink_{of}", shrinks(s, seen), 0.0, unit)
    claim, unit = f"spikes_shrink_beside_the_loss_{of}", "powers of ten"
    yield above(claim, shrinks(s, relative), 0.0, unit)
    for name, values in in_peaks(run, peak).items():
        apart = estimate_finite(np.log10(at_the_last(s, run, values)))
        claim = f"{name}_meets_the_peak_at_the_last_{of}"
        yield agrees(claim, apart, np.log10(s.factor), unit)
    end = estimate(np.log10(in_peaks(run, peak)["critical"][:, -1]))
    claim = f"critical_rate_ends_near_the_peak_{of}"
    yield agrees(claim, end, np.log10(1.5), unit)


def figure(s, runs, path):
    drawing, axes = plots.new_figure(2, width=11, height=8, rows=2)
    (seen, relative, rates, bounds), colours = axes, plots.colours(runs)
    number = np.arange(1, s.cycles + 1)
    for name, arm in arms(s).items():
        run, look = runs[name], dict(label=arm.title, colour=colours[name])
        for ax, size in zip((seen, relative), sizes(s, run), strict=True):
            plots.curves(ax, number, size, **look)
        unit = run["critical"][:, :1]
        plots.curves(rates, s.times, run["critical"] / unit, **look)
        if name != "calm":
            rates.axhline(arm.cycle.high, color=colours[name], ls=":", lw=1.4)
    last = f"{s.peaks[-1]:g}"
    named = zip(PREDICTORS.items(), plots.COLOURS[3:], strict=False)
    for (name, title), colour in named:
        values = in_peaks(runs[last], s.peaks[-1])[name]
        plots.curves(bounds, s.times, values, label=title, colour=colour)
    bounds.axhline(1, color=colours[last], ls=":", lw=1.4)
    bounds.set(yscale="log")
    seen.set(yscale="symlog")
    plots.plain_log_axis(rates)
    title = "each cycle's spike, as it is seen"
    plots.label(seen, "cycle", "rise, in units of the first loss", title, legend="best")
    title = "the same spike beside the loss that it rises from"
    plots.label(relative, "cycle", "powers of ten", title)
    title = "critical rate, and the peaks (dotted)"
    plots.label(rates, "step", cycles.IN_UNITS, title)
    title = f"three predictors, peaks of {last}"
    y = "in units of the peak (dotted)"
    plots.label(bounds, "step", y, title, legend="best")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"fading": figure},
    task=adagrad.build_task,
    fixed_task=nets.FIXED,
)
