"""The response of an optimizer: what its momentum passes on of the gradients.

With its divisor P fixed, an optimizer that takes no signs is a linear filter,

    u_t = P⁻¹ Σ_k c_k g_{t−k}.

Where it has one memory of the past, with decay β, the filter is
u_t = β u_{t−1} + P⁻¹(p g_t − r g_{t−1}), and three numbers say all that is needed:

    friction  1/Σ_k c_k = (1 − β)/(p − r)                 1 for averages
    a         Σ_k (−1)^k c_k / Σ_k c_k = friction·(p + r)/(1 + β)
    s         friction·r/(1 − β)                          0 without look-ahead

so that g = 1, 1, 1, … ends in P u = 1/friction and g = 1, −1, 1, … in ±a/friction, and
u leads the plain average by s steps. An average has a = (1−β)/(1+β) and s = 0,
Nesterov's form of it a = 1 − 2β²/(1+β) and s = β, gradient descent a = 1 and s = 0.

*Stability.* Near a minimum the gradient along an eigenvector is h·θ. Too large a step
makes θ change its sign and grow; at the threshold it changes its sign and keeps its
size, so that the gradient alternates: lr·h·a/friction = 2P.

*Noise.* On f = ½hθ² with gradients hθ + ξ, E ξ² = N, θ is an ARMA(2, 1) process. In its
stationary state, with x = lr·h/(2P·friction) and G = E (hθ)²,

    G/N = x F(x),    F(x) = (1 + 2 s a x)/((1 + 2 s x)(1 − a x)).

F = 1 is the SDE; the rest is what finite steps add. F ends at the threshold a x = 1,
and F = 1 + (a − 2s(1 − a)) x to first order, or

    G/x = N + share·G,    share = a − 2s(1 − a):

noise alone, and that share of the mean gradient, drive the process away.
"""

from typing import NamedTuple

from optsde.types import Scalar


class Response(NamedTuple):
    """Three numbers of the filter from gradients to the direction, multiplied by P.

    >>> beta = 0.9
    >>> average = Response(alternating=(1 - beta) / (1 + beta))
    >>> nesterov = Response(1 - 2 * beta**2 / (1 + beta), lead=beta)
    >>> print(round(average.share, 3), round(nesterov.share, 3))
    0.053 -1.387
    """

    alternating: Scalar = 1.0  # a, of gradients ±1, ∓1, …, in units of the steady one
    lead: Scalar = 0.0  # s, in steps before the average with the same memory
    friction: Scalar = 1.0  # a constant gradient g ends in P u = g/friction

    @property
    def share(self) -> Scalar:
        """The share a − 2s(1 − a) of E‖∇f‖² that counts as noise of finite steps."""
        return self.alternating - 2 * self.lead * (1 - self.alternating)


class Rates(NamedTuple):
    """Rates of w ← (1 − λ_e) w − gain·g, once momentum has passed on all of g."""

    gain: Scalar  # η, and η/(1−β) for the heavy ball
    intrinsic: Scalar  # λ_e; 0 without weight decay
    share: Scalar  # of the mean gradient's square, in what lengthens w; `Response`
