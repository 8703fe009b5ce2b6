"""Have nets at equilibrium mixed? In function space they have, among parameters not.

Runs from one initial point with different batches. Weight decay forgets all of w_t but
e^-10 in a time of 10/λ_e; yet w_t and w_{t + 10/λ_e} point in similar directions, and
the mean over that time (SWA, with BatchNorm's statistics made anew) is far better than
any net on the way. The predictions of two runs, averaged over the same time, agree.
"""

import numpy as np
from ml_collections import ConfigDict

from experiments.intrinsic_lr import runs, swa_run
from experiments.intrinsic_lr.equilibrium import arms_of, shown
from experiments.intrinsic_lr.runs import JUDGED, Curves
from experiments.intrinsic_lr.setting import build, check_arms, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    above,
    estimate,
    interval,
    percent_each,
    percent_paired,
    table,
)
from optsde.analysis.plots import COLOURS, band, new_figure, save

NETS = {
    "single": "single net",
    "two_runs": "two runs averaged",
    "two_times": "two times averaged",
    "average": "SWA",
}


def check(config: ConfigDict) -> None:
    check_run(config)
    check_arms(config, "lrs", "decays")
    even = config.seeds >= 4 and config.seeds % 2 == 0
    require(even, config, "seeds", "an even number from 4 on: runs go in pairs")
    require(config.memories > 0, config, "memories", "a number above 0")
    for lr, decay in zip(config.lrs, config.decays, strict=True):
        length = config.memories / (lr * decay)
        require(
            2 * config.every < length < 0.8 * config.steps,
            config,
            "memories",
            f"memories/λ_e, {length:g} steps, in the last 80% of the run",
        )


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting, arms = build(config), arms_of(config)
    runs.report(config, setting, arms[0])
    if not all(f"{arm.name}/turned" in rundir.curves() for arm in arms):
        rundir.add_curves(swa_run.measured(config, setting, arms))
    held = rundir.curves()
    found = {
        arm.name: {
            name.removeprefix(f"{arm.name}/"): value
            for name, value in held.items()
            if name.startswith(f"{arm.name}/")
        }
        for arm in arms
    }
    print(losses_table(found))
    draw(config, found, rundir.figure("swa"))
    return [v for name, values in found.items() for v in judge(name, values)]


def judge(name: str, found: Curves) -> list[Verdict]:
    single, swa = (found[f"{net}/test_error"] for net in ("single", "average"))
    fewer = -percent_each(swa, single)
    by_pair = found["two_times/test_loss"].reshape(-1, 2).mean(axis=1)
    gain = percent_paired(found["two_runs/test_loss"], by_pair)
    closer = -percent_each(found["apart_averaged"], found["apart_single"])
    return [
        above(f"swa_halves_the_error_at_{name}", fewer, 50.0, "% fewer errors"),
        above(f"still_aligned_at_{name}", estimate(found["turned"][:, -1]), 0.7, "cos"),
        above(f"two_times_average_better_at_{name}", gain, 0.0, "% of loss"),
        above(f"predictions_mix_at_{name}", closer, 50.0, "% nearer than single nets'"),
    ]


def losses_table(found: dict[str, Curves]) -> str:
    rows = []
    for name, values in found.items():
        for net, words in NETS.items():
            scales = [100 if x.endswith("error") else 1 for x in JUDGED]
            cells = [
                shown(scale * values[f"{net}/{x}"])
                for scale, x in zip(scales, JUDGED, strict=True)
            ]
            rows.append([name, words, *cells])
    header = ["λ_e", "net", "train loss", "train error %", "held-out loss"]
    lines = [table([*header, "held-out error %"], rows, "llrrrr")]
    for name, values in found.items():
        single, mean = (shown(values[f"apart_{x}"]) for x in ("single", "averaged"))
        lines.append(
            f"λ_e = {name}: total variation between predictions of two runs {single}, "
            f"averaged over the time {mean}"
        )
    return "\n".join(lines)


def draw(config: ConfigDict, found: dict[str, Curves], path) -> None:
    figure, (left, right) = new_figure(2)
    for number, ((name, values), colour) in enumerate(
        zip(found.items(), COLOURS, strict=False)
    ):
        errors = [estimate(100 * values[f"{net}/test_error"]) for net in NETS]
        left.errorbar(
            np.arange(len(NETS)) + 0.1 * number,
            [float(e.mean) for e in errors],
            [interval(e).high - float(e.mean) for e in errors],
            fmt="os^D"[number % 4],
            color=colour,
            capsize=3,
            label=f"λₑ = {name}",
        )
        time = float(name) * values["time"]
        band(right, time, estimate(values["turned"]), label=f"λₑ = {name}",
             colour=colour)  # fmt: skip
    places = np.linspace(0, config.memories, 200)
    right.plot(places, np.exp(-places), "--", color="0.4",
               label="what weight decay leaves")  # fmt: skip
    words = [x.replace(" ", "\n") for x in NETS.values()]
    left.set_xticks(range(len(NETS)), words)
    left.set_xlim(-0.4, len(NETS) - 0.4)
    left.set_ylim(bottom=0)
    left.set(ylabel="held-out error, %")
    left.legend(fontsize=10)
    right.set_ylim(0, 1.02)
    right.set(xlabel="time in 1/λₑ", ylabel="cosine with the weights at time 0")
    right.legend(fontsize=10)
    save(figure, path)
