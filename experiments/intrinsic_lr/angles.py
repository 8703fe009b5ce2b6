"""Angles by which layers turn in a step: measured, and in closed form.

Weights that decay at λ_e a step and take steps along an average of noise, with memory
β, are an autoregression of order two. Its correlation from one step to the next is

    cos θ = (1 − λ_e + β)/(1 + (1 − λ_e) β)     λ_e = lr·decay, decoupled
    cos θ = 1 − lr·l2/(1 + β)                   l2 in the gradient of a heavy ball

so θ is about √(2 λ_e (1−β)/(1+β)) or √(2 lr·l2/(1+β)).
"""

import jax
import jax.numpy as jnp
import numpy as np

from optsde.measure import Probe
from optsde.optimizers import SGD, Adam, HeavyBall
from optsde.run import Series


def decoupled(lr, decay, beta):
    """Returns cos θ where the weights decay apart from the gradient.

    >>> round(decoupled(0.1, 0.1, 0.0), 12)
    0.99
    """
    kept = 1 - lr * decay
    return (kept + beta) / (1 + kept * beta)


def coupled(lr, decay, beta):
    """Returns cos θ of a heavy ball with l2 in its gradient.

    >>> round(coupled(0.1, 0.1, 0.0), 12)
    0.99
    """
    return 1 - lr * decay / (1 + beta)


def unknown(lr, decay, beta):
    """Returns NaN: l2 in Adam's gradient is divided as the gradient is."""
    return np.nan


def adam(lr, beta, **decay):
    """Returns Adam, whose ε no step feels, and a gradient of 0 makes no step."""
    return Adam(lr=lr, b1=beta, b2=0.99, eps=1e-30, **decay)


# The optimizer of lr, decay and β, and the cosine that it has at equilibrium.
FAMILIES = {
    "sgd": (lambda lr, decay, beta: SGD(lr=lr, weight_decay=decay), decoupled),
    "heavy_ball": (
        lambda lr, decay, beta: HeavyBall(lr=lr, beta=beta, l2=decay),
        coupled,
    ),
    "adamw": (lambda lr, decay, beta: adam(lr, beta, weight_decay=decay), decoupled),
    "adam_l2": (lambda lr, decay, beta: adam(lr, beta, l2=decay), unknown),
}


# ---- measured


def turns(s):
    """Returns the probe of the angle of each leaf to what it was last time.

    It is taken twice each time, a step apart; the second is the angle of a step.
    """

    def observe(source, state, before):
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True)
        # The chord keeps digits of small angles, which their cosine has lost.
        chords = [jnp.linalg.norm(_unit(x) - _unit(y)) for x, y in pairs]
        return {"turn": 2 * jnp.arcsin(jnp.stack(chords) / 2)}, state.params

    at = sorted([*s.turning(), *(step + 1 for step in s.turning())])
    return Probe(observe, lambda state: state.params, times=at, finite=True)


def _unit(x):
    return x / jnp.linalg.norm(x.ravel())


def angle(run):
    """Returns the angles of single steps, [seeds, times, layers]."""
    times, turns = run.turn
    return Series(times[1::2], turns[:, 1::2])
