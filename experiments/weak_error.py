"""The noisy quadratic of `experiments.svag`: how fast do the errors fall?

An adaptive method at step size η approaches its SDE with an error of order η², SVAG(ℓ)
with 1/ℓ². The moments of θ are compared, by Monte Carlo over many paths.
"""

import functools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.launch import UsageError
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    difference,
    estimate,
    log_slope,
    table,
    verdict_table,
    within,
)
from optsde.analysis.plots import COLOURS, new_figure, save

SIGMA0, EPS0, C1, C2 = 1.0, 0.1, 3.0, 1.0  # fixed while η → 0, in time η²


def check(config: ConfigDict) -> None:
    known = sorted(FAMILIES)
    for name in config.optimizers:
        if name not in FAMILIES:
            raise UsageError(f"--config.optimizers={name}: one of {', '.join(known)}")
    if not 0 < config.eta**2 * C1 <= 1:
        raise UsageError(f"--config.eta={config.eta}: needs 0 < eta ≤ {C1**-0.5:.3f}")
    for name, least in (("halvings", 1), ("paths", 1000), ("substeps", 1)):
        if config[name] < least:
            raise UsageError(f"--config.{name}={config[name]}: needs at least {least}")
    if len(config.ells) < 2 or min(config.ells) < 1:
        raise UsageError(f"--config.ells={config.ells}: needs at least two, each ≥ 1")
    steps = config.horizon / config.eta**2
    if abs(steps - round(steps)) > 1e-9:
        raise UsageError(
            f"--config.horizon={config.horizon}: needs a multiple of eta² = "
            f"{config.eta**2:g}"
        )


def _rmsprop(eta: float) -> optsde.RMSprop:
    return optsde.RMSprop(
        lr=eta,
        beta=1 - C2 * eta**2,
        eps=EPS0 / eta,
        v0=(SIGMA0 / eta) ** 2,
        bias_correction=False,
    )


def _adam(eta: float) -> optsde.Adam:
    b1, b2 = 1 - C1 * eta**2, 1 - C2 * eta**2
    return optsde.Adam(lr=eta, b1=b1, b2=b2, eps=EPS0 / eta)


def _adagrad(eta: float) -> optsde.AdaGrad:
    sigma = SIGMA0 / eta
    return optsde.AdaGrad(lr=1.0, eps=EPS0 * sigma**2, s0=0.5 * sigma**4)


FAMILIES = {"rmsprop": _rmsprop, "adam": _adam, "adagrad": _adagrad}


def run(config: ConfigDict, rundir: RunDir) -> None:
    etas = [config.eta / 2**i for i in range(config.halvings + 1)]
    curves = simulate(config, rundir, etas)
    rows, verdicts, points = [], [], {}
    for name in config.optimizers:
        sde = estimate(curves[f"{name}_sde"])
        for kind, scales in (("eta", etas), ("ell", sorted(config.ells))):
            errors = [
                largest(difference(estimate(curves[f"{name}_{kind}{scale:g}"]), sde))
                for scale in scales
            ]
            points[name, kind] = scales, errors
            rows += [
                [name, f"{_SYMBOL[kind]} = {s:g}", f"{e.mean:.4f}", f"{e.se:.4f}"]
                for s, e in zip(scales, errors, strict=True)
            ]
            verdicts.append(_slope_verdict(config, name, kind, scales, errors))
    header = ["optimizer", "run", "largest error of 5 moments", "± s.e."]
    print(table(header, rows, "llrr"), verdict_table(verdicts), sep="\n\n")
    figure = rundir.figure("weak_error")
    draw(points, figure)
    rundir.finish("done", verdicts)
    print(f"\nfigure: {figure}\nsummary: {rundir.path / 'summary.json'}")


_SYMBOL = {"eta": "η", "ell": "ℓ"}


def largest(error: Estimate) -> Estimate:
    """The moment with the largest error."""
    worst = int(np.abs(error.mean).argmax())
    found = error.at(worst)
    return found._replace(mean=np.abs(found.mean))


def _slope_verdict(config, name, kind, scales, errors) -> Verdict:
    steps = np.square(scales) if kind == "eta" else 1 / np.square(scales)
    joined = Estimate(*(np.array(part, float) for part in zip(*errors, strict=True)))
    claim = f"{name}_error_falls_as_{'eta^2' if kind == 'eta' else '1/ell^2'}"
    slope = log_slope(steps, joined)
    return within(claim, slope, 1 - config.bound, 1 + config.bound, "slope, 1 expected")


def simulate(config: ConfigDict, rundir: RunDir, etas) -> dict[str, np.ndarray]:
    """Moments [paths, 5] at the horizon of every run."""
    import jax
    import jax.numpy as jnp

    from optsde.data import synthetic
    from optsde.gradients import diagonal, from_covariance, gaussian

    start = jnp.asarray(synthetic.START, jnp.float32)

    def covariance(eta):
        return diagonal(lambda theta: SIGMA0 / eta * synthetic.quadratic_std(theta))

    def plan(name, eta):
        horizon = config.horizon / eta**2
        optimizer = FAMILIES[name](eta)
        return optsde.Plan(optimizer=optimizer, batch_size=1, horizon=horizon)

    def discrete(plan, eta):
        sampler = functools.partial(gaussian, synthetic.quadratic_loss, covariance(eta))
        return optsde.discrete(plan, sampler, start)

    def sde(plan, eta):
        law = from_covariance(synthetic.quadratic_loss, covariance(eta))
        return optsde.sde(plan, law, start, config.substeps)

    makers = {}
    for name in config.optimizers:
        base = plan(name, config.eta)
        makers[f"{name}_sde"] = base, functools.partial(sde, base, config.eta)
        for eta in etas:
            finer = plan(name, eta)
            makers[f"{name}_eta{eta:g}"] = (
                finer,
                functools.partial(discrete, finer, eta),
            )
        for ell in sorted(config.ells):
            finer = optsde.svag(base, ell)
            make = functools.partial(discrete, finer, config.eta)
            makers[f"{name}_ell{ell:g}"] = finer, make

    done = rundir.curves()
    root = jax.random.key(config.seed)
    for number, (name, (finer, make)) in enumerate(makers.items()):
        if name in done:
            continue
        values = optsde.ensemble(
            make(),
            jax.random.split(jax.random.fold_in(root, number), config.paths),
            [finer.horizon],
            lambda state: synthetic.second_order_moments(state.params),
            progress=optsde.Progress(f"{name:20}"),
        ).values[:, 0]
        rundir.add_curves({name: values})
        rundir.log(run=name, moments=values.mean(axis=0).tolist())
    return rundir.curves()


def draw(points: dict, path) -> None:
    figure, axes = new_figure(2, height=4.0)
    titles = {"eta": "plain runs", "ell": "SVAG from the largest step"}
    labels = {"eta": "η²", "ell": "1/ℓ²"}
    for ax, kind in zip(axes, titles, strict=True):
        names = [name for name, k in points if k == kind]
        for name, colour in zip(names, COLOURS, strict=False):
            scales, errors = points[name, kind]
            x = np.square(scales) if kind == "eta" else 1 / np.square(scales)
            y = np.array([e.mean for e in errors])
            half = 1.96 * np.array([e.se for e in errors])
            ax.errorbar(x, y, half, color=colour, marker="o", capsize=3, label=name)
        ax.plot(x, y[0] * x / x[0], color="grey", ls=":", label="slope 1")
        ax.set(xscale="log", yscale="log")
        ax.set_title(titles[kind], fontsize=12)
        ax.set_xlabel(labels[kind], fontsize=12)
        ax.set_ylabel("largest error of 5 moments of θ", fontsize=12)
        ax.legend(fontsize=10, frameon=False)
    save(figure, path)
