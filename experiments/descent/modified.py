"""The flow that descent with finite steps follows: backward error analysis.

Descent at rate η is nearer to θ' = −∇f̃ than to θ' = −∇f, by one order in η:

- the full batch, at any fixed time: f̃ = f + (η/4)·|∇f|²  (Barrett and Dherin 2021);
- the mean over the orders of an epoch of m batches, each taken once, after that epoch:
  f̃ = f + (η/4m)·Σ_k |∇L_k|²  (Smith, Dherin, Barrett and De 2021);
- the mean over batches drawn independently, after as many steps: f + (η/4)·|∇f|² again.

The last two do not hold at a fixed time, over which the noise moves the mean by O(η).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from optsde.types import PyTree, Scalar

Loss = Callable[[PyTree], jax.Array]


def implicit(loss: Loss, lr: Scalar) -> Loss:
    """Returns f + (lr/4)·|∇f|²."""

    def modified(params):
        value, grads = jax.value_and_grad(loss)(params)
        return value + lr / 4 * optax.tree.norm(grads, squared=True)

    return modified


def implicit_by_batch(
    loss: Callable[[PyTree, PyTree], jax.Array], batches: PyTree, lr: Scalar
) -> Loss:
    """Returns the mean of L_k + (lr/4)·|∇L_k|² over batches, which are stacked."""

    def modified(params):
        def of_one(batch):
            return implicit(lambda p: loss(p, batch), lr)(params)

        return jnp.mean(jax.vmap(of_one)(batches))

    return modified


def gradient_flow(
    loss: Loss, start: PyTree, times: Sequence[float] | jax.Array, accuracy: float
) -> PyTree:
    """Returns the points of θ' = −∇loss at rising times, from `start` at time 0.

    Args:
      loss: of the parameters.
      start: parameters.
      times: steps × lr.
      accuracy: of each step of the solver, relative and absolute.
    """
    import diffrax  # its import takes half a second

    term = diffrax.ODETerm(
        lambda t, params, args: jax.tree.map(jnp.negative, jax.grad(loss)(params))
    )
    times = jnp.asarray(times)
    solution = diffrax.diffeqsolve(
        term,
        diffrax.Dopri8(),
        t0=0.0,
        t1=times[-1],
        dt0=None,
        y0=start,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=accuracy, atol=accuracy),
        max_steps=10_000,
    )
    return solution.ys
