"""Does a full-batch run train itself to the edge of its own stability?

Gradient descent makes the loss sharper as it goes, until the largest eigenvalue of the
Hessian meets the curvature at which the step is unstable, and there it stays (Cohen et
al. 2021). For preconditioned methods the same is said of P^-½ H P^-½ (Cohen et al.
2022). Each optimizer trains the same net from initial weights small enough to be flat.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.launch import UsageError, require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, agrees, estimate, plus_minus, table
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save
from optsde.optimizers import Optimizer, by_name

TITLES = {
    "gd": "gradient descent",
    "momentum": "heavy-ball momentum",
    "rmsprop": "RMSprop",
    "adam": "Adam",
}
COLUMNS = (
    "loss",
    "sharpness",
    "preconditioned_sharpness",
    "threshold",
    "sharpness_residual",
)

Curves = dict[str, dict[str, np.ndarray]]  # of each arm, columns [seeds, rows]


def check(config: ConfigDict) -> None:
    require(config.seeds >= 2, config, "seeds", "at least 2, for standard errors")
    whole = config.every >= 1 and config.steps % config.every == 0
    require(whole, config, "every", f"a divisor of steps={config.steps}")
    enough = config.steps >= 3 * config.every
    require(enough, config, "steps", "at least 3 measurements")
    require(2 <= config.train_size <= 1797, config, "train_size", "2 to 1797 images")
    widths = len(config.hidden) > 0 and min(config.hidden) >= 1
    require(widths, config, "hidden", "widths of the hidden layers, such as 48,48")
    require(config.init > 0, config, "init", "a positive factor")
    require(config.lanczos >= 2, config, "lanczos", "at least 2 products")
    if unknown := sorted(set(config.optimizers) - set(TITLES)):
        allowed = ", ".join(TITLES)
        raise UsageError(f"--config.optimizers.{unknown[0]}: needs one of {allowed}")
    for arm in config.optimizers:
        optimizer_of(config, arm)


def optimizer_of(config: ConfigDict, arm: str) -> Optimizer:
    """The arm's optimizer, which must have a stability threshold."""
    options = config.optimizers[arm].to_dict()
    try:
        optimizer = by_name(options.pop("name"))(**options).checked()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--config.optimizers.{arm}: {error}") from None
    if optimizer.stability_threshold() is None:
        name = type(optimizer).__name__
        raise UsageError(
            f"--config.optimizers.{arm}: {name} does not have a stability threshold; "
            "sign methods and Lion have none"
        )
    return optimizer


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = {
        arm: train_arm(config, arm, rundir.path / "arms" / arm)
        for arm in TITLES
        if arm in config.optimizers
    }
    print("", edge_table(curves), sep="\n")
    draw(config, curves, rundir.figure("edge"))
    return judge(config, curves)


def train_arm(config: ConfigDict, arm: str, place: Path) -> dict[str, np.ndarray]:
    """Train all seeds of an optimizer, or go on with them, and measure as they go."""
    import jax

    from optsde import measure
    from optsde.dynamics import Engine
    from optsde.gradients import full_batch
    from optsde.run import writers as metrics

    log = place / "metrics.jsonl"
    held = metrics.read(log)
    if held and held["step"][-1] == config.steps:
        print(f"{arm}: read from {place}")
        return columns_of(held)
    place.mkdir(parents=True, exist_ok=True)
    losses, data, init = problem(config)
    plan = optsde.Plan(
        optimizer=optimizer_of(config, arm),
        batch_size=config.train_size,
        horizon=config.steps,
    )
    dynamics = optsde.discrete(plan, lambda _: full_batch(losses, data, None), init)
    shards = max(1, jax.device_count() // config.seeds)
    engine = Engine(dynamics, config.seeds, shards=shards, with_info=True)
    run.fit(
        engine,
        jax.random.split(jax.random.key(config.seed), config.seeds),
        plan.steps,
        probes=[measure.sharpness_probe(plan, losses, data, dimension=config.lanczos)],
        probe_every=config.every,
        log_every=config.every,
        writers=[run.JsonLines(log)],
        checkpoints=run.Checkpoints(place / "checkpoints"),
        checkpoint_every=config.every * max(1, config.steps // config.every // 4),
        progress=optsde.Progress(f"{TITLES[arm]:20}"),
    )
    return columns_of(metrics.read(log))


def problem(config: ConfigDict):
    """(losses, (images, one-hot targets), initial point): tanh layers on digits."""
    import jax
    import jax.numpy as jnp

    from optsde import data, models
    from optsde.data.dataset import split

    (images, labels), _ = split(data.digits(), config.train_size, config.seed)
    examples = jnp.asarray(images), jax.nn.one_hot(labels, 10)
    model = models.build("mlp", 10, hidden=tuple(config.hidden), activation="tanh")

    def init(key):
        params = models.init_params(model, key, examples[0])
        return jax.tree.map(lambda x: config.init * x, params)

    return models.supervised(model, models.squared_error), examples, init


def columns_of(rows: dict[str, list]) -> dict[str, np.ndarray]:
    """[seeds, rows] from step `every` on: at step 0 there is no P yet."""
    steps = {"step": np.array(rows["step"][1:])}
    return steps | {name: np.array(rows[name][1:]).T for name in COLUMNS}


def ratio(found: dict[str, np.ndarray]) -> np.ndarray:
    """[seeds, rows]: (preconditioned) sharpness in units of its threshold."""
    return found["preconditioned_sharpness"] / found["threshold"]


def last_third(found: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    """[seeds]: the mean of values [seeds, rows] over it."""
    late = found["step"] > 2 / 3 * found["step"][-1]
    return values[:, late].mean(1)


def judge(config: ConfigDict, curves: Curves) -> list[Verdict]:
    """Does it rise, and is it then where it is said to be?"""
    verdicts = []
    for arm, found in curves.items():
        seen, unit = ratio(found), "% of the threshold"
        end, start = last_third(found, seen), seen[:, 0]
        away, rise = estimate(100 * (end - 1)), estimate(100 * (end - start))
        verdicts.append(agrees(f"{arm}_stays_at_threshold", away, config.bound, unit))
        verdicts.append(above(f"{arm}_rises_to_it", rise, config.rise, unit))
    return verdicts


def edge_table(curves: Curves) -> str:
    rows = []
    for arm, found in curves.items():
        sharpness = found["sharpness"]
        cells = [
            f"{last_third(found, found['threshold']).mean():.4g}",
            plus_minus(estimate(last_third(found, ratio(found))), 3),
            plus_minus(estimate(sharpness[:, 0]), 1),
            plus_minus(estimate(last_third(found, sharpness)), 1),
            f"{found['sharpness_residual'].max():.1g}",
            plus_minus(estimate(found["loss"][:, -1]), 4),
        ]
        rows.append([TITLES[arm], *cells])
    header = ["last third of the run", "threshold", "sharpness/threshold"]
    header += ["λmax(H) at first", "and late", "largest residual", "final loss"]
    return table(header, rows, "lrrrrrr")


def draw(config: ConfigDict, curves: Curves, path: Path) -> None:
    figure, (ratios, sharpness, losses) = new_figure(3, width=12, height=4.4)
    for (arm, found), colour in zip(curves.items(), COLOURS, strict=False):
        steps, style = found["step"], dict(label=TITLES[arm], colour=colour)
        band(ratios, steps, estimate(ratio(found)), **style)
        band(sharpness, steps, estimate(found["sharpness"]), **style)
        band(losses, steps, estimate(found["loss"]), **style)
    ratios.axhline(1, color="black", ls="--", lw=1.4, label="stability threshold")
    ratios.axvspan(2 / 3 * config.steps, config.steps, color="grey", alpha=0.12, lw=0)
    ratios.set_title("sharpness that the optimizer sees", fontsize=13)
    ratios.set_ylabel("in units of its stability threshold", fontsize=12)
    ratios.set_ylim(0, 1.25)
    ratios.legend(fontsize=11, frameon=False, loc="lower right")
    sharpness.set_title("sharpness of the loss", fontsize=13)
    sharpness.set_ylabel("largest eigenvalue of the Hessian", fontsize=12)
    sharpness.set_ylim(bottom=0)
    losses.set_title(f"95% bands over {config.seeds} seeds", fontsize=13)
    losses.set_ylabel("training loss", fontsize=12)
    plain_log_axis(losses)
    for ax in (ratios, sharpness, losses):
        ax.set_xticks([0, config.steps // 3, 2 * config.steps // 3, config.steps])
        ax.set_xlabel("step", fontsize=12)
    save(figure, path)
