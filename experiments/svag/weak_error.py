"""The noisy quadratic of `experiments.svag`: how fast do the errors fall?

An adaptive method at step size η approaches its SDE with an error of order η², SVAG(ℓ)
with 1/ℓ². Means of θ1, θ2, θ1², θ2², θ1 θ2 and of the rescaled second moments u are
compared, by Monte Carlo over many paths. Adam starts with averages that have begun one
unit of time ago: from nothing, its error falls more slowly, as η² log η.
"""

import functools
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.launch import UsageError, refuse_divergence
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    estimate,
    log_slope,
    table,
    verdict_table,
    within,
)
from optsde.analysis.plots import COLOURS, new_figure, save
from optsde.dynamics import Dynamics
from optsde.optimizers.base import OptimizerState

_SYMBOL = {"eta": "η", "ell": "ℓ"}
SIGMA0, EPS0, C1, C2 = 1.0, 0.1, 3.0, 1.0  # fixed while η → 0, in time η²


def check(config: ConfigDict) -> None:
    known = sorted(FAMILIES)
    for name in config.optimizers:
        if name not in FAMILIES:
            raise UsageError(f"--config.optimizers={name}: one of {', '.join(known)}")
    if not (config.eta > 0 and config.eta**2 * C1 <= 1):
        raise UsageError(f"--config.eta={config.eta}: needs 0 < eta ≤ {C1**-0.5:.3f}")
    for name, least in (("halvings", 1), ("paths", 1000), ("substeps", 1)):
        if config[name] < least:
            raise UsageError(f"--config.{name}={config[name]}: needs at least {least}")
    if len(set(config.ells)) != len(config.ells) or len(config.ells) < 2:
        raise UsageError(f"--config.ells={config.ells}: needs at least two, distinct")
    if min(config.ells) < 1:
        raise UsageError(f"--config.ells={config.ells}: needs numbers ≥ 1")
    if not config.bound > 0:
        raise UsageError(f"--config.bound={config.bound}: needs a positive number")
    steps = config.horizon / config.eta**2
    if abs(steps - round(steps)) > 1e-9 or round(steps) < 1:
        raise UsageError(
            f"--config.horizon={config.horizon}: needs a multiple of eta² = "
            f"{config.eta**2:g}"
        )


def _rmsprop(eta: float) -> optsde.RMSprop:
    return optsde.RMSprop(  # the analysed form
        lr=eta,
        beta=1 - C2 * eta**2,
        eps=EPS0 / eta,
        v0=(SIGMA0 / eta) ** 2,
        bias_correction=False,
        lagged=True,
    )


def _adam(eta: float) -> optsde.Adam:
    b1, b2 = 1 - C1 * eta**2, 1 - C2 * eta**2
    return optsde.Adam(lr=eta, b1=b1, b2=b2, eps=EPS0 / eta)


def _adagrad(eta: float) -> optsde.AdaGrad:
    sigma = SIGMA0 / eta
    return optsde.AdaGrad(lr=1.0, eps=EPS0 * sigma**2, s0=0.5 * sigma**4)


def warm_start(dynamics: Dynamics, u_scale: float) -> Dynamics:
    """Adam with m = (.5, 0), u = (1, .5) and weights of averages begun at t = −1."""
    import jax.numpy as jnp

    def init(key):
        state = dynamics.init(key)
        memory = direction_state(state)._replace(
            m=jnp.array([0.5, 0.0]),
            v=jnp.array([1.0, 0.5]) / u_scale,
            m_weight=jnp.float32(1 - np.exp(-C1)),
            v_weight=jnp.float32(1 - np.exp(-C2)),
        )
        if isinstance(state.optimizer, OptimizerState):
            memory = state.optimizer._replace(direction=memory)
        return state._replace(optimizer=memory)

    return dynamics._replace(init=init)


def direction_state(state):
    """The family's own state, in a discrete run or in an SDE."""
    memory = state.optimizer
    return memory.direction if isinstance(memory, OptimizerState) else memory


def observer(u_scale: float):
    """Moments of θ, then u: v or the sum of squares, times its scale."""
    import jax.numpy as jnp

    from optsde.problems.quadratic import second_order_moments

    def observe(state):
        memory = direction_state(state)
        second = memory.s if hasattr(memory, "s") else memory.v
        return jnp.concatenate([second_order_moments(state.params), second * u_scale])

    return observe


FAMILIES = {"rmsprop": _rmsprop, "adam": _adam, "adagrad": _adagrad}


def run(config: ConfigDict, rundir: RunDir) -> None:
    etas = [config.eta / 2**i for i in range(config.halvings + 1)]
    curves = simulate(config, rundir, etas)
    rows, verdicts, points = [], [], {}
    for name in config.optimizers:
        sde = curves[f"{name}_sde"]
        for kind, scales in (("eta", etas), ("ell", sorted(config.ells))):
            runs = [curves[f"{name}_{kind}{scale:g}"] for scale in scales]
            errors = [largest(run, sde) for run in runs]
            points[name, kind] = scales, errors
            rows += [
                [name, f"{_SYMBOL[kind]} = {s:g}", f"{e.size:.4f}", f"{e.se:.4f}"]
                for s, e in zip(scales, errors, strict=True)
            ]
            verdicts.append(_slope_verdict(config, name, kind, scales, errors))
    header = ["optimizer", "run", "largest error of 7 moments", "± s.e."]
    print(table(header, rows, "llrr"), verdict_table(verdicts), sep="\n\n")
    figure = rundir.figure("weak_error")
    draw(points, figure)
    rundir.finish("done", verdicts)
    print(f"\nfigure: {figure}\nsummary: {rundir.path / 'summary.json'}")


class _Error(NamedTuple):
    size: float
    se: float
    se_of_sde: float  # the part of se that all errors of one SDE share


def largest(run: Estimate, sde: Estimate) -> _Error:
    """The moment that is furthest from the SDE's."""
    error = run - sde
    worst = int(np.abs(error.mean).argmax())
    return _Error(abs(error.mean[worst]), error.se[worst], sde.se[worst])


def _slope_verdict(config, name, kind, scales, errors: list[_Error]) -> Verdict:
    steps = np.square(scales) if kind == "eta" else 1 / np.square(scales)
    size, se, common = np.array(errors).T
    claim = f"{name}_error_falls_as_{'eta^2' if kind == 'eta' else '1/ell^2'}"
    slope = log_slope(steps, Estimate(size, se, np.inf), common)
    return within(claim, slope, 1 - config.bound, 1 + config.bound, "slope, 1 expected")


class _Arm(NamedTuple):
    horizon: float
    u_scale: float  # from the state to u
    dynamics: Dynamics


def simulate(config: ConfigDict, rundir: RunDir, etas) -> dict[str, Estimate]:
    """Means of the 7 moments at the horizon of every run."""
    import jax
    import jax.numpy as jnp

    from optsde.gradients import diagonal, from_covariance, gaussian
    from optsde.problems import quadratic as synthetic

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

    arms: dict[str, _Arm] = {}

    def add(family, run, plan, u_scale, dynamics):
        warm = warm_start(dynamics, u_scale) if family == "adam" else dynamics
        arms[f"{family}_{run}"] = _Arm(plan.horizon, u_scale, warm)

    for family in config.optimizers:
        power = 4 if family == "adagrad" else 2  # its s is a sum over 1/η² steps
        base, u_scale = plan(family, config.eta), config.eta**power
        add(family, "sde", base, u_scale, sde(base, config.eta))
        for eta in etas:
            finer = plan(family, eta)
            add(family, f"eta{eta:g}", finer, eta**power, discrete(finer, eta))
        for ell in sorted(config.ells):
            run = discrete(optsde.svag(base, ell), config.eta)
            add(family, f"ell{ell:g}", base, u_scale / ell**power, run)

    done = rundir.curves()
    root = jax.random.key(config.seed)
    for number, (name, arm) in enumerate(arms.items()):
        if name in done:
            continue
        trajectory = optsde.ensemble(
            arm.dynamics,
            jax.random.split(jax.random.fold_in(root, number), config.paths),
            [arm.horizon],
            observer(arm.u_scale),
            progress=optsde.Progress(f"{name:20}"),
        )
        refuse_divergence(trajectory, name, "try a smaller --config.eta")
        found = estimate(trajectory.values[:, 0])
        rundir.add_curves({name: np.stack([found.mean, found.se])})
        rundir.log(run=name, moments=found.mean.tolist(), se=found.se.tolist())
    return {
        name: Estimate(mean, se, config.paths - 1)
        for name, (mean, se) in rundir.curves().items()
    }


def draw(points: dict, path) -> None:
    figure, axes = new_figure(2, height=4.0)
    titles = {"eta": "plain runs", "ell": "SVAG from the largest step"}
    labels = {"eta": "η²", "ell": "1/ℓ²"}
    for ax, kind in zip(axes, titles, strict=True):
        names = [name for name, k in points if k == kind]
        for name, colour in zip(names, COLOURS, strict=False):
            scales, errors = points[name, kind]
            x = np.square(scales) if kind == "eta" else 1 / np.square(scales)
            y = np.array([e.size for e in errors])
            half = 1.96 * np.array([e.se for e in errors])
            ax.errorbar(x, y, half, color=colour, marker="o", capsize=3, label=name)
        ax.plot(x, y[0] * x / x[0], color="grey", ls=":", label="slope 1")
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(x, [f"1/{1 / value:g}" if value < 1 else "1" for value in x])
        ax.set_xticks([], minor=True)
        ax.set_title(titles[kind], fontsize=12)
        ax.set_xlabel(labels[kind], fontsize=12)
        ax.set_ylabel("largest error of 7 moments", fontsize=12)
        ax.legend(fontsize=10, frameon=False)
    save(figure, path)
