# %% [markdown]
# # I tuned Adam at batch 256. What do I set at 8192, and how far can I go?
#
# First on paper, from the tuned settings alone. Then on a small real problem: measure
# the noise of the base run, predict how far the rule holds, and only then try it.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import optsde
from optsde import analysis, data, gradients, measure, models
from optsde.analysis.plots import COLOURS, plain_log_axis

optsde.mesh.expose_cpu_cores()
adam = optsde.Adam(lr=3e-4, b1=0.9, b2=0.999, weight_decay=0.1)
tuned = optsde.Plan(optimizer=adam, batch_size=256, horizon=10_000, clip=1.0)
try:
    optsde.scale(tuned, kappa=32)
except ValueError as error:
    print("refused:", error, end="\n\n")

# %% [markdown]
# What an average should keep is its memory *in samples*. `memory="power"` takes β to
# β^κ, which is 1 − κ(1 − β) where that is near 1, and exists for every κ.

# %%
print(optsde.explain(tuned, optsde.scale(tuned, kappa=32, memory="power")))

# %% [markdown]
# **Why √κ?** Where noise dominates, √v is the noise of a batch, and a step goes
# lr · (signal + noise)/noise far. In κ steps the signal moves the weights by
# κ · lr · signal/noise, in one large step by lr' · signal/(noise/√κ): the same for
# lr' = √κ · lr. The noise agrees too: κ steps add up to √κ · lr, one step makes lr'.
#
# ## How far? Ask the base run
#
# That left the signal out of v. Its share there grows with κ, so signal/noise of *one*
# small batch should tell where the rule ends. Two problems: the digits, and the digits
# with 60% of the labels drawn at random: less to learn, so noise should rule for
# longer. On those, lr = 0.004 was the best at batch 2 of a grid in factors of 2.

# %%
pixels, labels = map(jnp.asarray, data.digits())
rng = np.random.default_rng(0)
replaced = rng.random(len(labels)) < 0.6
mislabelled = jnp.where(replaced, rng.integers(0, 10, len(labels)), labels)
problems = {"60% random labels": mislabelled, "clean labels": labels}
model = models.MLP((64, 10))
losses = models.supervised(model, models.cross_entropy)
start = models.init_params(model, jax.random.key(0), pixels[:1])
adam = optsde.Adam(lr=4e-3, b1=0.9, b2=0.99)
base = optsde.Plan(optimizer=adam, batch_size=2, horizon=384)
kappas, CLOSE = (4, 8, 16, 32), 0.1  # the rule "holds" to within 10%

predicted, at = {}, [96, 192, 288, 384]
for name, seen in problems.items():
    sampler = gradients.minibatch(losses, (pixels, seen))
    probe = measure.noise_probe(base, sampler, draws=256, times=at)
    keys = jax.random.split(jax.random.key(0), 8)
    dynamics = optsde.discrete(base, sampler, start)
    run = optsde.fit(dynamics, keys, base.horizon, probes=[probe])
    options = {"times": at, "kappas": kappas, "memory": "power", "close": 1 + CLOSE}
    noise = run.metrics["noise"].values
    predicted[name] = measure.predict(base, noise, **options)
    print(f"\n{name}\n\n{predicted[name]}")

# %% [markdown]
# ## Now the large batches
#
# Seen is the loss on the true labels at the end. The rule holds if two one-sided tests
# at 5% put that within 10% of batch 2's, and fails if its 95% interval lies beyond.
# (Predicted are the loss in equilibrium and the speed of learning, both to 10%: close
# to that, not the same.) At κ = 8, a run with nothing changed too.


# %%
def losses_at_end(plan, seed, seeds=48):
    def dynamics(seen):
        sampler = gradients.minibatch(losses, (pixels, seen))
        return optsde.discrete(plan, sampler, start)

    out = optsde.ensemble(
        dynamics,
        jax.random.split(jax.random.key(seed), seeds * len(problems)),
        [base.horizon],
        lambda state: losses(state.params, (pixels, labels)).mean(),
        members=jnp.repeat(jnp.stack(list(problems.values())), seeds, axis=0),
    )
    return [analysis.estimate(x) for x in np.split(out.values[:, 0], len(problems))]


plans = {f"κ = {k}": optsde.scale(base, k, memory="power") for k in kappas}
plans["κ = 8, all as before"] = optsde.scale(base, 8, "fixed")
at_base = losses_at_end(base, 1)
runs = {n: losses_at_end(plan, 2 + i) for i, (n, plan) in enumerate(plans.items())}
rows, worst = [], []
figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.axhspan(1 - CLOSE, 1 + CLOSE, color="grey", alpha=0.2, lw=0)
for i, (problem, p) in enumerate(predicted.items()):
    gaps = []
    for name, ends in runs.items():
        kappa, x = plans[name].dt, analysis.relative(ends[i], at_base[i])
        value, low, high = analysis.interval(x)
        gaps.append([value, low, high])
        seen = "fails" if low > CLOSE or high < -CLOSE else "open"
        seen = "holds" if analysis.equivalence(x, CLOSE).holds else seen
        said = "fails" if kappa > p.high else "holds" if kappa < p.low else "open"
        span = f"{value:+.1%} [{low:+.1%}, {high:+.1%}]"
        rows.append([problem, name, span, seen, "" if "," in name else said])
    value, low, high = 1 + np.array(gaps[: len(kappas)]).T
    worst += [low[-1], high[-1]]
    style = {"color": COLOURS[i], "marker": "o", "capsize": 3, "label": problem}
    ax.errorbar(kappas, value, [value - low, high - value], **style)
    ax.axvspan(p.low, p.high, color=COLOURS[i], alpha=0.15, lw=0)
header = ["", "", "loss against batch 2 [95%]", "seen", "predicted"]
print(f"\n{analysis.table(header, rows, 'llrll')}\n")
right = [row[3] == row[4] for row in rows if row[4] and "open" not in row]
print(f"Of {len(right)} that both prediction and runs decide, {sum(right)} agree.")
sooner = "fails" if worst[2] > worst[1] else "is not seen to fail"
print(f"With clean labels the rule {sooner} sooner.")
plain_log_axis(ax)
ax.set_xscale("log", base=2)
ax.xaxis.set_major_formatter("{x:g}")
ax.set(xlabel="κ", ylabel="loss at the end, batch 2κ over batch 2")
ax.set_title("bars: seen, 95%; columns: where it was predicted to leave 10% (grey)")
ax.legend(frameon=False)
plt.show()
