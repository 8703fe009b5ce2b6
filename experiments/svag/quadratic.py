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
from optsde.analysis import Estimate, Verdict, estimate, log_slope, table, within
from optsde.analysis.plots import (
    colours,
    label,
    new_figure,
    plain_log_axis,
    points,
    save,
)
from optsde.dynamics import Dynamics
from optsde.gradients import diagonal, from_covariance, gaussian
from optsde.problems.quadratic import (
    START,
    quadratic_loss,
    quadratic_std,
    second_order_moments,
)
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
        tuple(FAMILIES), "compared with their SDEs", some_of=FAMILIES, entries=1
    )
    eta: float = setting(
        0.5,
        "largest step size; time is counted in eta²",
        above=0,
        at_most=C1**-0.5,
        needs=f"0 < eta ≤ {C1**-0.5:.3f}",
    )
    halvings: int = setting(2, "smaller steps: eta/2, eta/4, …", at_least=1)
    ells: Integers = setting(
        (1, 2, 4), "of SVAG at eta", at_least=1, entries=2, distinct=True
    )
    paths: int = setting(800_000, "of each run", at_least=1000, needs="at least 1000")
    horizon: float = setting(2.0, "of all runs, in units of 1/eta² steps", above=0)
    substeps: int = setting(
        64, "Euler–Maruyama steps of the SDE in a step of eta", at_least=1
    )
    bound: float = setting(0.25, "on the slope: 1 ± this, in eta² and 1/ell²", above=0)

    def demands(self):
        yield from super().demands()
        steps = self.horizon / self.eta**2
        fine = abs(steps - round(steps)) < 1e-9 and round(steps) >= 1
        yield fine, "horizon", f"a multiple of eta² = {self.eta**2:g}"


def etas(s: Settings) -> list[float]:
    """Returns the step sizes, the largest first."""
    return [s.eta / 2**i for i in range(s.halvings + 1)]


# ---- the runs


class Arm(NamedTuple):
    horizon: float
    dynamics: Dynamics
    observe: Callable


def simulate(s: Settings, rundir: RunDir) -> dict[str, Estimate]:
    """Returns the means of the 7 moments at the horizon of every run."""
    root = jax.random.key(s.seed)
    runs = {}
    for number, (name, arm) in enumerate(arms(s).items()):
        keys = jax.random.split(jax.random.fold_in(root, number), s.paths)
        moments = rundir.once(name, partial(run_arm, rundir, name, arm, keys))
        runs[name] = Estimate(moments["mean"], moments["se"], s.paths - 1)
    return runs


def arms(s: Settings) -> dict[str, Arm]:
    """Returns of every family its SDE, plain runs at each η and SVAG at each ℓ."""
    start = jnp.asarray(START, jnp.float32)

    def covariance(eta):
        return diagonal(lambda theta: SIGMA0 / eta * quadratic_std(theta))

    def discrete(plan, eta):
        return optsde.discrete(plan, gaussian(quadratic_loss, covariance(eta)), start)

    runs: dict[str, Arm] = {}
    for name in s.optimizers:
        family = FAMILIES[name]

        def plan(eta, family=family):
            return optsde.Plan(
                optimizer=family.optimizer(eta),
                batch_size=1,
                horizon=s.horizon / eta**2,
            )

        def add(run, plan, u_scale, dynamics, name=name, family=family):
            if family.warm:
                dynamics = warm_start(dynamics, u_scale)
            observe = observer(u_scale, family.second)
            runs[f"{name}_{run}"] = Arm(plan.horizon, dynamics, observe)

        base, u_scale = plan(s.eta), s.eta**family.power
        law = from_covariance(quadratic_loss, covariance(s.eta))
        add("sde", base, u_scale, optsde.sde(base, law, start, s.substeps))
        for eta in etas(s):
            finer = plan(eta)
            add(f"eta{eta:g}", finer, eta**family.power, discrete(finer, eta))
        for ell in sorted(s.ells):
            run = discrete(optsde.svag(base, ell), s.eta)
            add(f"ell{ell:g}", base, u_scale / ell**family.power, run)
    return runs


def run_arm(
    rundir: RunDir, name: str, arm: Arm, keys: jax.Array
) -> dict[str, np.ndarray]:
    """Returns mean and standard error of the moments of one run."""
    trajectory = optsde.ensemble(
        arm.dynamics,
        keys,
        [arm.horizon],
        arm.observe,
        progress=optsde.Progress(f"{name:20}"),
    )
    refuse_divergence(trajectory, name, "try a smaller --config.eta")
    moments = estimate(trajectory.values[:, 0])
    rundir.log(run=name, moments=moments.mean.tolist(), se=moments.se.tolist())
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


class Error(NamedTuple):
    size: float
    se: float
    se_of_sde: float  # the part of se that all errors of one SDE share


class Fall(NamedTuple):
    """How the errors of one optimizer fall with η² or 1/ℓ²."""

    optimizer: str
    kind: str
    scales: list[float]  # η or ℓ
    errors: list[Error]

    @property
    def steps(self) -> list[float]:
        """The η² or 1/ℓ²."""
        return [x**2 if self.kind == ETA else 1 / x**2 for x in self.scales]

    def estimate(self) -> Estimate:
        """Returns the sizes of the errors."""
        size, se, _ = np.array(self.errors).T
        return Estimate(size, se, np.inf)


def falls(s: Settings, runs: dict[str, Estimate]) -> Iterator[Fall]:
    """Yields the errors of every optimizer against its SDE."""
    for name in s.optimizers:
        sde, ells = runs[f"{name}_sde"], [float(ell) for ell in sorted(s.ells)]
        for kind, run, scales in ((ETA, "eta", etas(s)), (ELL, "ell", ells)):
            errors = [largest(runs[f"{name}_{run}{x:g}"], sde) for x in scales]
            yield Fall(name, kind, scales, errors)


def largest(run: Estimate, sde: Estimate) -> Error:
    """Returns the error of the moment that is furthest from the SDE's."""
    error = run - sde
    worst = int(np.abs(error.mean).argmax())
    return Error(abs(error.mean[worst]), error.se[worst], sde.se[worst])


def tables(s: Settings, runs: dict[str, Estimate]) -> Iterator[str]:
    rows = [
        [x.optimizer, f"{symbol} = {scale:g}", f"{e.size:.4f}", f"{e.se:.4f}"]
        for x in falls(s, runs)
        for symbol in ["η" if x.kind == ETA else "ℓ"]
        for scale, e in zip(x.scales, x.errors, strict=True)
    ]
    header = ["optimizer", "run", "largest error of 7 moments", "± s.e."]
    yield table(header, rows, "llrr")


def claims(s: Settings, runs: dict[str, Estimate]) -> Iterator[Verdict]:
    for x in falls(s, runs):
        power = "eta^2" if x.kind == ETA else "1/ell^2"
        shared = np.array([error.se_of_sde for error in x.errors])
        slope = log_slope(x.steps, x.estimate(), shared)
        low, high = 1 - s.bound, 1 + s.bound
        claim = f"{x.optimizer}_error_falls_as_{power}"
        yield within(claim, slope, low, high, "slope, 1 expected")


def figure(s: Settings, runs: dict[str, Estimate], path: Path) -> None:
    """Draws errors against η² and 1/ℓ², beside lines of slope 1."""
    drawing, axes = new_figure(2, height=4.0)
    colour = colours(s.optimizers)
    titles = {ETA: "plain runs", ELL: "SVAG from the largest step"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        drawn = [fall for fall in falls(s, runs) if fall.kind == kind]
        for fall in drawn:
            name, y = fall.optimizer, fall.estimate()
            points(ax, fall.steps, y, label=name, colour=colour[name], ls="-")
        x, first = np.array(drawn[-1].steps), drawn[-1].errors[0].size
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
