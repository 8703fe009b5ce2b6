"""Plans: runs apart from their data, and the one operation on them, rescaling."""

from optsde.plans.explain import explain
from optsde.plans.optax_chain import from_optax, optax_state
from optsde.plans.plan import Plan, rescaled, scale, svag, switch

__all__ = [
    "Plan",
    "explain",
    "from_optax",
    "optax_state",
    "rescaled",
    "scale",
    "svag",
    "switch",
]
