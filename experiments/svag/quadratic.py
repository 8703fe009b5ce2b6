"""How fast do errors fall on a noisy quadratic, with the step size and with SVAG's ℓ?

An adaptive method at step size η approaches its SDE with an error of order η², SVAG(ℓ)
with 1/ℓ² (Malladi et al. 2022). Means of θ1, θ2, θ1², θ2², θ1 θ2 and of the rescaled
second moments u are compared, by Monte Carlo over many paths. Adam starts with averages
that have begun one unit of time ago: from nothing, its error falls more slowly, as
η² log η.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde.analysis import (
    Estimate,
    Verdict,
    estimate,
    log_slope,
    stack,
    table,
    within,
)
from optsde.analysis.plots import (
    colours,
    label,
    new_figure,
    plain_log_axis,
    points,
    save,
)
from optsde.checks import LARGEST
from optsde.dynamics import Dynamics
from optsde.gradients import Covariance, diagonal, from_covariance, gaussian
from optsde.problems.quadratic import (
    START,
    quadratic_loss,
    quadratic_std,
    second_order_moments,
)
from optsde.run import parts
from optsde.study import (
    Integers,
    Names,
    RunDir,
    Seeded,
    Study,
    refuse_divergence,
    setting,
)

SIGMA0, EPS0, C1, C2 = 1.0, 0.1, 3.0, 1.0  # fixed while η → 0, in time η²
THETA0 = START.astype(np.float32)
ETA, ELL = "η²", "1/ℓ²"  # what errors fall with


class Family(NamedTuple):
    """An optimizer at a step size, and what of its state is compared.

    The field `second` of the state, times (step size)^power, is u. `warm`: the averages
    have begun one unit of time ago.
    """

    optimizer: Callable[[float], optsde.Optimizer]
    second: str = "v"
    power: int = 2
    warm: bool = False


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


FAMILIES = {
    "rmsprop": Family(_rmsprop),
    "adam": Family(_adam, warm=True),
    "adagrad": Family(_adagrad, second="s", power=4),  # a sum over 1/η² steps
}


class Settings(Seeded):
    optimizers: Names = setting(
        tuple(FAMILIES),
        "compared with their SDEs",
        some_of=FAMILIES,
        entries=1,
    )
    eta: float = setting(
        0.5,
        "largest step size; time is counted in eta²",
        above=0,
        at_most=C1**-0.5,
        needs=f"0 < eta ≤ {C1**-0.5:.3f}",
    )
    halvings: int = setting(2, "smaller steps: eta/2, eta/4, …", at_least=1, at_most=12)
    ells: Integers = setting(
        (1, 2, 4), "of SVAG at eta", at_least=1, entries=2, distinct=True
    )
    paths: int = setting(800_000, "of each run", at_least=1000, needs="at least 1000")
    horizon: float = setting(2.0, "of all runs, in units of 1/eta² steps", above=0)
    substeps: int = setting(
        64, "Euler–Maruyama steps of the SDE in a step of eta", at_least=1
    )
    bound: float = setting(
        0.25, "on the slope: 1 ± this, in eta² and 1/ell²", above=0, at_most=100
    )

    def demands(self):
        yield from super().demands()
        steps = self.horizon / self.eta**2
        fine = abs(steps - round(steps)) < 1e-9 and round(steps) >= 1
        yield fine, "horizon", f"a multiple of eta² = {self.eta**2:g}"
        finest = steps * max(max(self.ells) ** 2, 4**self.halvings)
        allowed = f"at most {LARGEST} steps of the finest run"
        yield finest <= LARGEST, "horizon", allowed


def etas(s: Settings) -> list[float]:
    """Returns the step sizes, the largest first."""
    return [s.eta / 2**i for i in range(s.halvings + 1)]


# ---- the runs


class Arm(NamedTuple):
    name: str
    horizon: float
    dynamics: Dynamics
    observe: Callable


def simulate(s: Settings, rundir: RunDir) -> dict[str, Estimate]:
    """Returns the means of the 7 moments at the horizon of every run."""
    root, runs, rows = jax.random.key(s.seed), {}, []
    for number, arm in enumerate(parts([*arms(s)])):
        keys = jax.random.split(jax.random.fold_in(root, number), s.paths)
        moments = rundir.once(arm.name, partial(run_arm, arm, keys))
        mean, se = moments["mean"], moments["se"]
        runs[arm.name] = Estimate(mean, se, s.paths - 1)
        rows.append({"run": arm.name, "moments": mean.tolist(), "se": se.tolist()})
        rundir.write_rows(rows)
    return runs


def arms(s: Settings) -> Iterator[Arm]:
    """Yields of every family its SDE, plain runs at each η and SVAG at each ℓ."""
    for name in s.optimizers:
        base, noise = plan(s, name, s.eta), covariance(s.eta)
        law = from_covariance(quadratic_loss, noise)
        sde = optsde.sde(base, law, THETA0, s.substeps)
        yield arm(name, "sde", base, sde, s.eta)
        for eta in etas(s):
            finer = plan(s, name, eta)
            yield arm(name, f"eta{eta:g}", finer, discrete(finer, covariance(eta)), eta)
        for ell in sorted(s.ells):
            mixed = discrete(optsde.svag(base, ell), noise)
            yield arm(name, f"ell{ell:g}", base, mixed, s.eta / ell)


def plan(s: Settings, name: str, eta: float) -> optsde.Plan:
    """Returns the plan of a family at the step size η, over the same time."""
    optimizer, horizon = FAMILIES[name].optimizer(eta), s.horizon / eta**2
    return optsde.Plan(optimizer=optimizer, batch_size=1, horizon=horizon)


def covariance(eta: float) -> Covariance:
    """Returns the covariance of a gradient, which grows as 1/η²."""
    return diagonal(lambda theta: SIGMA0 / eta * quadratic_std(theta))


def discrete(plan: optsde.Plan, noise: Covariance) -> Dynamics:
    """Returns the discrete run of a plan."""
    return optsde.discrete(plan, gaussian(quadratic_loss, noise), THETA0)


def arm(name: str, run: str, plan: optsde.Plan, dynamics: Dynamics, step: float) -> Arm:
    """Returns an arm of steps of that size, whose second moments give u."""
    family = FAMILIES[name]
    u_scale = step**family.power
    if family.warm:
        dynamics = warm_start(dynamics, u_scale)
    observe = observer(u_scale, family.second)
    return Arm(f"{name}_{run}", plan.horizon, dynamics, observe)


def run_arm(arm: Arm, keys: jax.Array) -> dict[str, np.ndarray]:
    """Returns mean and standard error of the moments of one run."""
    progress = optsde.Progress(f"{arm.name:20}")
    trajectory = optsde.ensemble(
        arm.dynamics, keys, [arm.horizon], arm.observe, progress=progress
    )
    refuse_divergence(trajectory, arm.name, "try a smaller --config.eta")
    moments = estimate(trajectory.values[:, 0])
    return {"mean": moments.mean, "se": moments.se}


def warm_start(dynamics: Dynamics, u_scale: float) -> Dynamics:
    """Returns Adam's dynamics with m = (.5, 0), u = (1, .5), averages since t = −1."""

    def init(key):
        state = dynamics.init(key)
        memory = state.optimizer.direction._replace(
            m=jnp.array([0.5, 0.0]),
            v=jnp.array([1.0, 0.5]) / u_scale,
            m_weight=jnp.float32(1 - np.exp(-C1)),
            v_weight=jnp.float32(1 - np.exp(-C2)),
        )
        return state._replace(optimizer=state.optimizer._replace(direction=memory))

    return dynamics._replace(init=init)


def observer(u_scale: float, second: str = "v") -> Callable:
    """Returns the function of a state for the moments of θ, then u = u_scale·second."""

    def observe(state):
        u = getattr(state.optimizer.direction, second) * u_scale
        return jnp.concatenate([second_order_moments(state.params), u])

    return observe


# ---- what is made of them


class Fall(NamedTuple):
    """The errors of one optimizer, which fall with η² or 1/ℓ²."""

    optimizer: str
    kind: str
    scales: list[float]  # η or ℓ
    steps: list[float]  # η² or 1/ℓ²
    errors: Estimate  # at each scale, of the moment that is furthest from the SDE's
    shared: np.ndarray  # the part of their s.e. that comes from the one SDE


def falls(s: Settings, runs: dict[str, Estimate]) -> Iterator[Fall]:
    """Yields the errors of every optimizer against its SDE."""
    ells = [float(ell) for ell in sorted(s.ells)]
    for name in s.optimizers:
        sde = runs[f"{name}_sde"]
        for kind, run, scales in ((ETA, "eta", etas(s)), (ELL, "ell", ells)):
            gaps = [runs[f"{name}_{run}{scale:g}"] - sde for scale in scales]
            worst = [int(np.abs(gap.mean).argmax()) for gap in gaps]
            errors = stack([gap.at(i) for gap, i in zip(gaps, worst, strict=True)])
            sizes = Estimate(np.abs(errors.mean), errors.se, np.inf)
            steps = [x**2 if kind == ETA else 1 / x**2 for x in scales]
            yield Fall(name, kind, scales, steps, sizes, sde.se[worst])


def tables(s: Settings, runs: dict[str, Estimate]) -> Iterator[str]:
    rows = []
    for fall in falls(s, runs):
        symbol = "η" if fall.kind == ETA else "ℓ"
        for scale, x in zip(fall.scales, fall.errors.each(), strict=True):
            run = f"{symbol} = {scale:g}"
            rows.append([fall.optimizer, run, f"{x.mean:.4f}", f"{x.se:.4f}"])
    header = ["optimizer", "run", "largest error of 7 moments", "± s.e."]
    yield table(header, rows, "llrr")


def claims(s: Settings, runs: dict[str, Estimate]) -> Iterator[Verdict]:
    for fall in falls(s, runs):
        power = "eta^2" if fall.kind == ETA else "1/ell^2"
        claim = f"{fall.optimizer}_error_falls_as_{power}"
        slope = log_slope(fall.steps, fall.errors, fall.shared)
        yield within(claim, slope, 1 - s.bound, 1 + s.bound, "slope, 1 expected")


def figure(s: Settings, runs: dict[str, Estimate], path: Path) -> None:
    """Draws errors against η² and 1/ℓ², beside lines of slope 1."""
    drawing, axes = new_figure(2, height=4.0)
    colour = colours(s.optimizers)
    titles = {ETA: "plain runs", ELL: "SVAG from the largest step"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        drawn = [fall for fall in falls(s, runs) if fall.kind == kind]
        for fall in drawn:
            name = fall.optimizer
            points(ax, fall.steps, fall.errors, label=name, colour=colour[name], ls="-")
        x, first = np.array(drawn[-1].steps), drawn[-1].errors.mean[0]
        ax.plot(x, first * x / x[0], color="grey", ls=":", label="slope 1")
        ax.set(xscale="log")
        plain_log_axis(ax)
        ax.set_xticks(x, [f"1/{1 / value:g}" if value < 1 else "1" for value in x])
        ax.set_xticks([], minor=True)
        text = "largest error of 7 moments"
        label(ax, x=kind, y=text, title=title, legend="best")
    save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"weak_error": figure},
)
