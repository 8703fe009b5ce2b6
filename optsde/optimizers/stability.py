"""The curvature at which an optimizer's linearised update goes unstable.

Near a minimum a gradient along an eigenvector is h·θ, and too large a step makes θ turn
round and grow. At the threshold it turns round and keeps its size, so that a family has
to say one thing only: how much of a gradient that turns round at each step its update
lets through. The rest follows, and is the same for all.
"""

from typing import Any

from optsde.types import PyTree, Scalar


class Stability:
    """What `Optimizer` says of it, from its lr and its decays."""

    def alternating_gain(self, state: PyTree = None) -> Scalar:
        """P·u/g for a gradient g = ±1, ∓1, … and the direction u, in the long run.

        `state` is the family's own, where bias corrections count; None: long after the
        start, when they have worn off.
        """
        raise TypeError(
            f"{type(self).__name__} does not define alternating_gain(state), which a "
            "stability threshold needs; sign methods and Lion have none, since their "
            "steps do not shrink with the gradient"
        )

    def stability_threshold(self: Any, state: PyTree = None) -> Scalar:
        """The largest curvature at which the linearised update is stable.

        The curvature is an eigenvalue of P^-½ (H + l2) P^-½, with P of `preconditioner`
        held fixed and H the Hessian of the loss: where l2 is set, the update sees that
        of f + l2/2·|θ|². At the threshold θ → −θ, and with the gain a the update reads
        −1 = 1 − lr·(a h + λ) − w, so

            h = (2 − lr·λ − w) / (lr·a).

        Decoupled decays λ and w lower it, by little. A schedule multiplies lr and w.
        """
        decay = self.lr * self.weight_decay + self.absolute_decay
        return (2 - decay) / (self.lr * self.alternating_gain(state))

    def critical_lr(self: Any, sharpness: Scalar, state: PyTree = None) -> Scalar:
        """The lr whose stability threshold is this curvature; all else stays."""
        gain = self.alternating_gain(state)
        return (2 - self.absolute_decay) / (gain * sharpness + self.weight_decay)
