"""Does the SDE describe training? Discrete runs, SVAG(ℓ) and the SDE on one clock.

SVAG approaches the SDE as ℓ grows; a plain run that lies on top of it is described by
the SDE, and then the scaling rule for the batch must hold. Writes a run directory with
the curves, a figure, and verdicts with intervals.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments import weak_error
from experiments.launch import UsageError, launch, refuse_divergence
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    relative,
    table,
    verdict_table,
)
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save
from optsde.dynamics import Dynamics
from optsde.optimizers import by_name


def main() -> None:
    launch("svag", __doc__, "configs/svag.py:digits", check, run)


def check(config: ConfigDict) -> None:
    if "paths" in config:
        weak_error.check(config)
        return
    for name in ("batch_size", "substeps", "curve_every"):
        _require(config[name] >= 1, config, name, "an integer ≥ 1")
    for name in ("seeds", "sde_seeds"):
        _require(config[name] >= 2, config, name, "at least 2, for standard errors")
    _require(config.bound > 0, config, "bound", "a positive number of percent")
    ells, times, batches = config.ells, config.times, config.small_batches
    _require(min(ells) >= 1, config, "ells", "numbers ≥ 1")
    _require(1 in ells, config, "ells", "1 among them: it is the plain run")
    _require(len(set(ells)) == len(ells) > 1, config, "ells", "two or more, distinct")
    rising = all(a < b for a, b in itertools.pairwise((0, *times)))
    _require(bool(times) and rising, config, "times", "positive, rising times")
    _require(min(config.widths, default=1) >= 1, config, "widths", "integers ≥ 1")
    _require(
        all(float(t).is_integer() and t % config.curve_every == 0 for t in times),
        config,
        "times",
        f"multiples of curve_every={config.curve_every}",
    )
    _require(
        min(batches, default=1) >= 1 and len(set(batches)) == len(batches),
        config,
        "small_batches",
        "distinct integers ≥ 1",
    )
    for name, plan in plans(config).items():
        steps = config.curve_every / plan.dt
        _require(
            abs(steps - round(steps)) < 1e-9,
            config,
            "small_batches" if name.startswith("batch") else "ells",
            f"whole steps in curve_every={config.curve_every}",
        )


def _require(holds: bool, config: ConfigDict, name: str, allowed: str) -> None:
    if not holds:
        raise UsageError(f"--config.{name}={config[name]}: needs {allowed}")


def plans(config: ConfigDict) -> dict[str, optsde.Plan]:
    """One plan for each discrete arm, all rescaled from the base run."""
    options = config.optimizer.to_dict()
    name = options.pop("name")
    family = by_name(name)
    fields = [field.name for field in dataclasses.fields(family)]
    if sorted(options) != sorted(fields):
        raise UsageError(
            f"--config.optimizer.name={name}: it has the settings {', '.join(fields)}, "
            "this preset those of another optimizer; see --help for the presets"
        )
    try:
        optimizer = family(**options).checked()
    except ValueError as error:
        raise UsageError(f"--config.optimizer.{error}") from None
    base = optsde.Plan(
        optimizer=optimizer,
        batch_size=config.batch_size,
        horizon=max(config.times),
    )
    arms = {_svag_name(ell): optsde.svag(base, ell) for ell in sorted(config.ells)}
    for batch in config.small_batches:
        arms[f"batch{batch}"] = optsde.scale(base, batch / config.batch_size)
    return arms


def _svag_name(ell: float) -> str:
    return "discrete" if ell == 1 else f"ell{ell:g}"


def run(config: ConfigDict, rundir: RunDir) -> None:
    rundir.note_environment()
    if "paths" in config:
        weak_error.run(config, rundir)
        return
    arms = plans(config)
    base = arms["discrete"]
    finest = arms[_svag_name(max(config.ells))]
    print(optsde.explain(base, finest), end="\n\n", flush=True)

    curves = simulate(config, rundir, arms)
    verdicts = judge(config, curves)
    print("", loss_table(config, curves), "", verdict_table(verdicts), sep="\n")
    figure = rundir.figure("svag")
    draw(config, curves, figure)
    rundir.finish("done", verdicts)
    print(f"\nfigure: {figure}\nsummary: {rundir.path / 'summary.json'}")


def grid(config: ConfigDict) -> np.ndarray:
    return np.arange(0, max(config.times) + 1, config.curve_every)


def simulate(config: ConfigDict, rundir: RunDir, arms) -> dict[str, np.ndarray]:
    """Train loss [seeds, grid] of every arm; what rundir holds is not run again."""
    import jax
    import jax.numpy as jnp

    from optsde import data, gradients, models

    jax.config.update("jax_default_matmul_precision", "highest")
    examples = tuple(map(jnp.asarray, data.digits()))
    model = models.MLP((*config.widths, 10))
    losses = models.supervised(model, models.cross_entropy)
    params = models.init_params(model, jax.random.key(config.init_seed), examples[0])
    sampler = functools.partial(gradients.minibatch, losses, examples)
    base = arms["discrete"]
    sums = gradients.by_layers(model, models.cross_entropy, examples)
    law = gradients.from_data(losses, examples, base.batch_size, sums)

    makers: dict[str, Callable[[], Dynamics]] = {
        name: functools.partial(optsde.discrete, plan, sampler, params)
        for name, plan in arms.items()
    }
    makers["sde"] = lambda: optsde.sde(base, law, params, config.substeps)
    if _adaptive(base):
        makers["sde_signal"] = lambda: optsde.sde(
            base, law, params, config.substeps, keep_signal=True
        )

    done = rundir.curves()
    root = jax.random.key(config.seed)
    for number, (name, make) in enumerate(makers.items()):
        if name in done:
            print(f"{_label(name, config)}: read from {rundir.path}")
            continue
        seeds = config.sde_seeds if name.startswith("sde") else config.seeds
        trajectory = optsde.ensemble(
            make(),
            jax.random.split(jax.random.fold_in(root, number), seeds),
            grid(config).tolist(),
            lambda state: jnp.mean(losses(state.params, examples)),
            progress=optsde.Progress(f"{_label(name, config):34}"),
        )
        hint = "try a smaller --config.optimizer.lr"
        refuse_divergence(trajectory, _label(name, config), hint)
        rundir.add_curves({name: trajectory.values})
        mean = trajectory.values.mean(axis=0).tolist()
        for time, loss in zip(trajectory.times.tolist(), mean, strict=True):
            rundir.log(arm=name, time=time, loss=loss)
    return rundir.curves()


def _adaptive(plan: optsde.Plan) -> bool:
    """Whether the mean gradient enters the preconditioner, so that κ matters."""
    return plan.optimizer.noise_exponent == 2


def _label(name: str, config: ConfigDict) -> str:
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


def _percent(a: Estimate, b: Estimate) -> Estimate:
    """a/b − 1 in percent."""
    x = relative(a, b)
    return Estimate(100 * x.mean, 100 * x.se, x.dof)


def loss_table(config: ConfigDict, curves: dict[str, np.ndarray]) -> str:
    """Train loss ± standard error at a few of the times."""
    times = np.asarray(config.times)
    few = times[np.unique(np.linspace(0, len(times) - 1, 4).round().astype(int))]
    rows = []
    for name, curve in curves.items():
        at = _at(config, curve, few)
        cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(at.mean, at.se, strict=True)]
        rows.append([_label(name, config), *cells])
    header = ["train loss", *(f"t = {t:g}" for t in few)]
    return table(header, rows, "l" + "r" * len(few))


def judge(config: ConfigDict, curves: dict[str, np.ndarray]) -> list[Verdict]:
    """The claims of the papers, with bounds stated in the config."""
    times = np.asarray(config.times)
    base = plans(config)["discrete"]
    at = {name: _at(config, curve, times) for name, curve in curves.items()}
    bound = config.bound
    ells = [_svag_name(ell) for ell in sorted(config.ells)]

    def same(claim: str, a: str, b: str) -> Verdict:
        """At every time; the verdict shows the time that is furthest from holding."""
        x, expected = _percent(at[a], at[b]), claim not in config.known_false
        each = [
            agrees(claim, x.at(i), bound, "% of loss", expected)
            for i in range(len(times))
        ]
        return max(each, key=lambda v: max(abs(v.low), abs(v.high)))

    def higher(claim: str, a: str, b: str, bound: float) -> Verdict:
        x = _percent(at[a], at[b])
        return above(claim, x.at(-1), bound, "% of loss, at the end")

    adaptive = _adaptive(base)
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
        twin = _svag_name(kappa ** (-1 / base.optimizer.noise_exponent))
        if twin in ells:
            verdicts.append(same(f"{name}_matches_{twin}", name, twin))
        if adaptive and kappa <= 0.5:
            claim = f"{name}_gap_below_{2 * kappa:g}_of_discrete"
            slack = _gap_slack(at["discrete"], at["sde"], at[name], 2 * kappa)
            verdicts.append(above(claim, slack.at(-1), 0.0, "% of loss, at the end"))
    return verdicts


def _gap_slack(base: Estimate, sde: Estimate, small: Estimate, share: float):
    """share·(base − sde) − (small − sde), in percent of the SDE's loss."""
    parts = [(share, base), (1 - share, sde), (-1.0, small)]
    mean = sum(w * x.mean for w, x in parts)
    se = np.sqrt(sum((w * x.se) ** 2 for w, x in parts))
    dof = np.minimum.reduce([x.dof * np.ones_like(x.mean) for _, x in parts])
    return Estimate(100 * mean / sde.mean, 100 * se / sde.mean, dof)


def draw(config: ConfigDict, curves: dict[str, np.ndarray], path) -> None:
    """Loss on the common clock, and its distance from the SDE."""
    figure, (left, right) = new_figure(2, height=4.6)
    times = grid(config)
    ells = [_svag_name(ell) for ell in sorted(config.ells)]
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
        label = _label(name, config)
        band(left, times, estimate(curve), label=label, **styles[name])
        if name != "sde":
            x = _percent(estimate(curve[:, 1:]), estimate(curves["sde"][:, 1:]))
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
    title = f"{type(plans(config)['discrete'].optimizer).__name__} on digits"
    left.set_title(f"{title}: one clock, bands 95%", fontsize=12)
    right.set_title(f"grey: ±{config.bound:g}%, stated beforehand", fontsize=12)
    save(figure, path)


if __name__ == "__main__":
    main()
