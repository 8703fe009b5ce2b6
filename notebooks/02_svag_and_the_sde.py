# %% [markdown]
# # What does SVAG converge to, how fast, and why not integrate the SDE itself?
#
# Many small steps with much noise make a random walk in continuous time: the SDE. If it
# describes a run, the scaling rule must hold, since the rule leaves the SDE alone. For
# a network the SDE is dear: each of its steps asks for ∇f over *all* data, and noise
# with the data's covariance Σ. SVAG(ℓ) gets there with minibatches: the rule at
# κ = 1/ℓ², with the larger noise made by a signed mix of two draws,
#
#     g = ½(1 + √(2ℓ²−1)) g₁ + ½(1 − √(2ℓ²−1)) g₂:   mean ∇f, variance ℓ²Σ.
#
# The mix has about 3/(2ℓ) of the skewness of a draw: its noise becomes more Gaussian as
# ℓ grows. A *smaller batch* has the same κ and variance, but is no less skewed.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import optsde
from optsde import analysis, data, gradients, models
from optsde.analysis.plots import COLOURS, band, plain_log_axis
from optsde.problems.quadratic import START, quadratic_loss, quadratic_std

optsde.mesh.expose_cpu_cores()

# %% [markdown]
# ## How fast? A quadratic whose SDE is cheap
#
# RMSprop in two dimensions. The noise is exponential, skewness 2 at each batch, and
# grows with θ. How far is the mean of θ₁ from the SDE's after 8 steps of the base run?

# %%
PATHS, ELLS = 50_000, (1, 2, 4)
start = jnp.asarray(START, jnp.float32)
noise = gradients.diagonal(lambda theta: 8 * quadratic_std(theta))  # of one example
rmsprop = optsde.RMSprop(
    lr=0.5, beta=0.75, eps=0.2, v0=4.0, bias_correction=False, lagged=True
)
base = optsde.Plan(optimizer=rmsprop, batch_size=16, horizon=8)


def mean(dynamics, seed):
    keys = jax.random.split(jax.random.key(seed), PATHS)
    out = optsde.ensemble(dynamics, keys, [base.horizon], lambda s: s.params[0])
    return analysis.estimate(out.values[:, 0])


draws = {"sample": lambda *args: jax.random.exponential(*args) - 1}
sampler = gradients.gaussian(quadratic_loss, noise, **draws)
law = gradients.from_covariance(quadratic_loss, noise, base.batch_size)
limit = mean(optsde.sde(base, law, start, substeps=64), 0)
steps = 1 / np.square(ELLS)
ways = {
    "SVAG(ℓ)": [optsde.svag(base, ell) for ell in ELLS],
    "batch 16/ℓ²": [optsde.scale(base, kappa) for kappa in steps],
}
figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
for (name, plans), colour in zip(ways.items(), COLOURS, strict=False):
    runs = [optsde.discrete(plan, sampler, start) for plan in plans]
    gaps = [mean(x, 1 + i) - limit for i, x in enumerate(runs)]
    size, se = np.array([[abs(gap.mean), gap.se] for gap in gaps]).T
    slope = analysis.log_slope(steps, analysis.Estimate(size, se, np.inf), limit.se)
    span = f"{slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]"
    print(f"{name:11} goes from {size[0]:.3f} to {size[-1]:.3f}, slope in 1/ℓ² {span}")
    style = {"color": colour, "marker": "o", "capsize": 3}
    ax.errorbar(steps, size, 1.96 * se, label=f"{name}, slope {span}", **style)
ax.plot(steps, size[0] * steps, color="grey", ls=":", label="slope 1, SVAG's theory")
ax.plot(steps, size[0] * steps**0.5, color="grey", ls="--", label="slope ½, skewness")
plain_log_axis(ax)
ax.set(xscale="log", xlabel="κ = 1/ℓ²", ylabel="|E θ₁ − SDE's|, bars 95%")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Why not the SDE itself? A network on digits
#
# Adam at batch 8. The SDE's noise is that of the data: one Brownian motion for each of
# the 1,797 images weights its gradient. SVAG(1) is the run itself.

# %%
examples = tuple(map(jnp.asarray, data.digits()))
model = models.MLP((64, 10))
losses = models.supervised(model, models.cross_entropy)
params = models.init_params(model, jax.random.key(0), examples[0])
batches = gradients.minibatch(losses, examples)
adam = optsde.Adam(lr=1e-3, b1=0.9, b2=0.99)
base = optsde.Plan(optimizer=adam, batch_size=8, horizon=64)
times = [8, 16, 24, 32, 40, 48, 56, 64]


def curve(name, dynamics, used, seed):
    keys = jax.random.split(jax.random.key(seed), 16)
    out = optsde.ensemble(dynamics, keys, times, lambda s: losses(s.params, examples))
    pace = f"{1e3 * out.seconds / base.horizon / len(keys):.2f} ms"
    print(f"{name} takes {used} examples and {pace} for a base step")
    return analysis.estimate(out.values.mean(-1))


sums = gradients.by_layers(model, models.cross_entropy, examples)
law = gradients.from_data(losses, examples, base.batch_size, sums)
limit = curve("the SDE", optsde.sde(base, law, params, 2), 2 * len(examples[0]), 0)
figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
ax.axhline(0, color="black", label="SDE")
for ell, colour in zip(ELLS, COLOURS, strict=False):
    name, used = f"SVAG({ell})", 8 * ell**2 * (1 if ell == 1 else 2)
    run = optsde.discrete(optsde.svag(base, ell), batches, params)
    x = analysis.relative(curve(name, run, used, ell), limit)
    end = analysis.interval(x.at(-1))
    apart = "apart from it" if end.low > 0 or end.high < 0 else "not told apart"
    span = f"{end.value:+.1%} [{end.low:+.1%}, {end.high:+.1%}]"
    print(f"    and ends {span} from the SDE's loss: {apart}")
    band(ax, times, x, label=name, colour=colour)
ax.set(xlabel="time, in steps of the base run", ylabel="train loss over the SDE's, − 1")
ax.set_title("Adam on digits; bands 95%, 16 seeds")
ax.legend(frameon=False)
plt.show()
