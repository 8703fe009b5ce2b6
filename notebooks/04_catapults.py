# %% [markdown]
# # Why does the loss shoot up at a large learning rate, and why does it come back?
#
# Near a minimum the loss is a bowl, ½ θᵀHθ. Along an eigenvector of H a step of descent
# multiplies θ by 1 − lr·λ, which is more than 1 in size where lr > 2/λ. So 2/λ_max is
# the critical learning rate: above it a bowl throws descent out, for good. A net is no
# bowl. Thrown out of one place, it may land where λ_max is smaller: a *catapult*
# (Lewkowycz et al. 2020).

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optsde
from optsde import analysis, data, gradients, measure, models
from optsde.analysis.plots import COLOURS

optsde.mesh.expose_cpu_cores()
jax.config.update("jax_default_matmul_precision", "highest")

# %% [markdown]
# ## When? A net with one hidden layer on 256 digits
#
# Squared error, all images at each step; softplus, a ReLU without its kink, since it is
# curvature that is measured. First 100 quiet steps; then H is measured, and
# descent goes on from that point at multiples of 2/λ_max.

# %%
pixels, labels = data.digits()
x = jnp.asarray((pixels[:256] - pixels.mean()) / pixels.std())
examples = x, jnp.eye(10)[labels[:256]]
options = {"hidden": (256,), "parametrization": "ntk", "use_bias": False}
options["activation"] = lambda x: jax.nn.softplus(4 * x) / 4
model = models.build("mlp", 10, **options)
losses = models.supervised(model, models.squared_error)
batch = gradients.full_batch(losses, examples)


def train(optimizers, start, steps, state=None):
    """Runs each optimizer from the start, or on from a state, to that time."""

    def dynamics(optimizer):
        plan = optsde.Plan(optimizer=optimizer, batch_size=256, horizon=steps)
        return optsde.discrete(plan, batch, start)

    members = jax.tree.map(lambda *x: jnp.array(x), *optimizers)
    keys = jax.random.split(jax.random.key(0), len(optimizers))
    options = {"members": members, "state": state, "stop_at_divergence": False}
    return optsde.fit(dynamics, keys, steps, every=1.0, **options)


def descent(rates, start, steps):
    return train([optsde.SGD(lr=float(lr)) for lr in rates], start, steps)


def one(tree, i):
    """Returns a replica's part on the host, where any run can begin from it."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[i]), tree)


@jax.jit
def sharpness(params, divisor=None):
    """Returns λ_max of the Hessian H, or of P^-½HP^-½ with that divisor P."""
    product, key = measure.hessian(batch(), params), jax.random.key(0)
    if divisor is not None:
        product = measure.preconditioned(product, divisor)
    start = measure.random_vectors(key, params)
    return measure.top_eigenvalues(product, start, key).values[0]


first = models.init_params(model, jax.random.key(0), x[:1])
warm = descent([0.5 * optsde.SGD().critical_lr(sharpness(first))], first, 100)
params = one(warm.state.params, 0)
top = float(sharpness(params))
critical = optsde.SGD().critical_lr(top)
print(f"λ_max = {top:.3g}, so the critical learning rate is {critical:.3g}")

ratios = np.array([0.8, 1.0, 1.5, 3.0])
runs = descent(ratios * critical, params, 150)
before, after = (run.metrics["loss"].values for run in (warm, runs))
for ratio, loss in zip(ratios, after, strict=True):
    spikes = analysis.find_spikes([*before[0], *loss])
    fate = "no spike"
    if spikes:
        back = "and back" if spikes[-1].end else "and not back"
        fate = f"a spike, up to {loss.max() / loss[0]:.3g} times the loss {back}"
    print(f"at {ratio:g} of it: {fate}")

# %% [markdown]
# ## Why does it come back?
#
# Because the place where it lands is flatter: lr is below critical there.

# %%
ends = [float(sharpness(one(runs.state.params, i))) for i in range(len(ratios))]
for ratio, end in zip(ratios, ends, strict=True):
    fall = f"λ_max ends at {end / top:.2f} of what it was"
    print(f"at {ratio:g}: {fall}, and lr at {ratio * end / top:.2f} of critical")

# %% [markdown]
# ## Was the step too long?
#
# No: *steps* were. By the descent lemma a step of lr along the gradient g changes the
# loss by no more than −lr‖g‖² + ½lr²λ_max‖g‖², so it falls up to 2/λ_max at least. By
# the parabola itself, with gᵀHg for λ_max‖g‖², it falls up to 1/ρ times that, with
# ρ = gᵀHg/(λ_max‖g‖²). Quiet steps have left little of g along the steep direction:
# ρ is small, and one step of many times the critical rate is a good one. But at 1.5
# times, each step doubles what is left there, and some steps later that is all of g.

# %%
oracle, draw = batch(), gradients.Draw(jax.random.key(0), jnp.int32(0))


@jax.jit
def along_the_gradient(params, lengths):
    """Returns the changes of the loss, ‖g‖² and gᵀHg."""
    loss, g = oracle(params, draw)

    def change(lr):
        return oracle(optax.tree.add_scale(params, -lr, g), draw)[0] - loss

    product = measure.hessian(oracle, params)
    square, curvature = (optax.tree.vdot(g, v) for v in (g, product(g)))
    return jax.lax.map(change, lengths), square, curvature


steps = np.geomspace(0.05, 1000, 200)
lengths = steps * critical
results = along_the_gradient(params, lengths)
measured, square, curvature = map(np.asarray, results)
rho = curvature / (top * square)
parabola = -lengths * square + 0.5 * lengths**2 * curvature
bound = -lengths * square + 0.5 * lengths**2 * top * square
longest = steps[np.argmax(measured > 0) - 1]
print(f"ρ = {rho:.2g}: one step lowers the loss up to {longest:.0f} times critical")
print(f"the parabola says {1 / rho:.0f} times, and the lemma promises 1")
kept = (measured <= bound + 1e-6)[steps <= 1].all()
print(f"up to there the bound {'holds' if kept else 'is broken'}")

# %% [markdown]
# ## What does AdaGrad do?
#
# It divides by P = √s, so its critical rate is 2/λ_max(P^-½HP^-½). Large gradients make
# s larger. So it answers a rate of three times the critical one by another P, and need
# not go where it is flat.

# %%
adagrad = optsde.AdaGrad(lr=0.005, s0=0.0)


def measured_of(state):
    """Returns λ_max(H), and AdaGrad's critical rate."""
    params = one(state.params, 0)
    divisor = adagrad.preconditioner(one(state.optimizer.direction, 0), params)
    rate = adagrad.critical_lr(sharpness(params, divisor))
    return np.array([sharpness(params), rate])


calm = train([adagrad], first, 50)
flat, rate = measured_of(calm.state)
fast = dataclasses.replace(adagrad, lr=3 * float(rate))
end = train([fast], first, 250, calm.state)
rises = measured_of(end.state) / [flat, rate]
print(f"AdaGrad at 3 times its critical rate: that becomes {rises[1]:.2g} times itself")
print(f"and λ_max(H) {rises[0]:.2f} times; descent at 3 ended at {ends[-1] / top:.2f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
left, right = axes
for ratio, loss, colour in zip(ratios, after, COLOURS, strict=False):
    left.semilogy(loss / loss[0], color=colour, label=f"{ratio:g}")
left.set(xlabel="step", ylabel="loss over that at the change")
left.legend(title="lr, in 2/λ_max", frameon=False)
right.plot(steps, measured, color=COLOURS[0], label="measured")
right.plot(steps, parabola, color=COLOURS[1], ls="--", label="parabola")
right.plot(steps, bound, color=COLOURS[5], lw=1, label="the lemma's bound")
right.axvline(1, color="grey", ls=":", label="2/λ_max")
right.axhline(0, color="black", lw=0.8)
right.set(ylim=(1.6 * measured.min(), -measured.min()), xscale="log")
right.set(xlabel="length of one step, in 2/λ_max", ylabel="change of the loss")
right.legend(frameon=False)
plt.show()
