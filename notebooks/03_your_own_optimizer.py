# %% [markdown]
# # What does it take to add an optimizer of one's own?
#
# One class with its update, its rule and its SDE. Take Adam, and a fault that it has.
#
# Adam divides by √v, with v an average of g², that is of Σ + (∇f)². Its rule leaves the
# second term out, so it holds only where noise dominates. What if v counted nothing but
# noise? Average the square of g − m instead, with m the average *before* g came: it has
# the variance (1−b1)/(1+b1) Σ where ∇f changes slowly, and is independent of g, so
#
#     E(g − m)² = 2/(1+b1) Σ,   hence   s ← b2 s + (1−b2) · (1+b1)/2 · (g − m)².
#
# That is AdaBelief (Zhuang et al. 2020) with the old m, and with the factor it needs.
#
# **Rule.** s estimates Σ, and Σ falls as 1/κ: as for Adam, √s falls as 1/√κ. Averages
# keep their memory in samples, ε is compared with √s, and lr grows as √κ.
#
# **SDE.** The same in continuous time: dm = (1−b1)((∇f − m) dt + Σ^½ dW),
# ds = (1−b2)(Σ − s) dt, dθ = −lr · m/(√s + ε) dt. (What the lag of m adds to s vanishes
# with κ.) One may ask lesson 1's question of it; here, only whether it is right.

# %%
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optsde
from optsde import analysis, gradients
from optsde.analysis.plots import COLOURS, plain_log_axis
from optsde.optimizers import Limit, Memory, Optimizer, Power, register
from optsde.optimizers.base import ema
from optsde.optimizers.moments import filled, precondition

optsde.mesh.expose_cpu_cores()


# %%
class CentredState(NamedTuple):
    m: jax.Array  # like params
    s: jax.Array  # like params


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Centred(Optimizer):
    """s ← b2 s + (1−b2)(1+b1)/2 (g−m)²,  m ← b1 m + (1−b1) g,  θ ← θ − lr·m/(√s+ε)."""

    lr: float = 1e-3
    b1: float = 0.9
    b2: float = 0.99
    eps: float = 1e-8
    s0: float = 0.0
    rule = {
        "lr": Power(0.5, "√s shrinks by √κ, which lengthens the step by √κ already"),
        "b1": Memory(),
        "b2": Memory(),
        "eps": Power(-0.5, "ε is compared with √s"),
        "s0": Power(-1, "s is the variance of a batch κ times larger"),
    }
    state_rule = {"s": -1}

    def direction(self):
        def init(params):
            return CentredState(filled(params, 0), filled(params, self.s0))

        def update(g, state, params=None):
            half = (1 + self.b1) / 2
            square = jax.tree.map(lambda g, m: half * (g - m) ** 2, g, state.m)
            m, s = ema(state.m, g, self.b1), ema(state.s, square, self.b2)
            return precondition(m, s, self.eps, 0), CentredState(m, s)

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal=False):
        c1, c2 = 1 - self.b1, 1 - self.b2

        def drift(state, mean, variance):
            dm = jax.tree.map(lambda g, m: c1 * (g - m), mean, state.m)
            ds = jax.tree.map(lambda v, s: c2 * (v - s), variance, state.s)
            return precondition(state.m, state.s, self.eps, 0), CentredState(dm, ds)

        def noise(state, mean, variance, kick, spare):
            dm, zero = jax.tree.map(lambda k: c1 * k, kick), filled(kick, 0)
            return zero, CentredState(dm, zero)

        return Limit(drift, noise)


# %% That is all: `scale`, `explain`, `svag` and `sde` take it as they take Adam.
base = optsde.Plan(optimizer=Centred(), batch_size=256, horizon=10_000)
print(optsde.explain(base, optsde.scale(base, kappa=4)), end="\n\n")

# %% [markdown]
# ## Do the update and the SDE belong together?
#
# SVAG(ℓ) runs the update with the rule at κ = 1/ℓ², so it should approach the SDE at
# the pace of 1/ℓ² or faster. A mistake leaves a distance that stays. To see that, make
# one: without the factor (1+b1)/2, s would tend to 2/(1+b1) · Σ, another SDE.

# %%
own = Centred(lr=0.5, b1=0.5, b2=0.75, eps=0.2, s0=4.0)
toy = optsde.Plan(optimizer=own, batch_size=1, horizon=8)
ones = jnp.ones(64)
noise = gradients.diagonal(lambda x: 2 * jnp.ones_like(x))


def half_square(x):
    return 0.5 * jnp.sum(x**2)


class Forgetful(Centred):
    def limit(self, keep_signal=False):
        right, factor = super().limit(), 2 / (1 + self.b1)
        return right._replace(drift=lambda s, g, v: right.drift(s, g, factor * v))


def mean_loss(dynamics, seed, paths=8_000):
    keys = jax.random.split(jax.random.key(seed), paths)
    out = optsde.ensemble(dynamics, keys, [8], lambda s: half_square(s.params))
    return analysis.estimate(out.values[:, 0])


sampler = gradients.gaussian(half_square, noise)
law = gradients.from_covariance(half_square, noise)
plans = [optsde.svag(toy, ell) for ell in (1, 2**0.5, 2)]
runs = [mean_loss(optsde.discrete(p, sampler, ones), i) for i, p in enumerate(plans)]
steps = [plan.dt for plan in plans]
wrong = dataclasses.replace(toy, optimizer=Forgetful(**dataclasses.asdict(own)))
figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
for seed, (name, plan) in enumerate({"its SDE": toy, "the wrong SDE": wrong}.items()):
    limit = mean_loss(optsde.sde(plan, law, ones, substeps=64), 10 + seed)
    gaps = [run - limit for run in runs]
    size, se = np.array([[abs(gap.mean), gap.se] for gap in gaps]).T
    slope = analysis.log_slope(steps, analysis.Estimate(size, se, np.inf), limit.se)
    pace = "1/ℓ² or faster" if slope.high > 1 else "slower than 1/ℓ²"
    span = f"{slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]"
    print(f"to {name}: slope {span}, {pace}")
    style = {"color": COLOURS[seed], "marker": "o", "label": f"to {name}: slope {span}"}
    ax.errorbar(steps, size, 1.96 * se, capsize=3, **style)
plain_log_axis(ax)
ax.set(xscale="log", xlabel="κ = 1/ℓ²", ylabel="distance from the SDE's mean loss")
ax.set_title("does SVAG(ℓ) approach the SDE? bars 95%")
ax.legend(frameon=False)
plt.show()
