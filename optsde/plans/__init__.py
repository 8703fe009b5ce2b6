"""Plans: runs apart from their data, and the one operation on them, rescaling."""

from optsde.plans.explain import explain
from optsde.plans.plan import Plan, rescaled, scale, svag, switch

__all__ = ["Plan", "explain", "rescaled", "scale", "svag", "switch"]
