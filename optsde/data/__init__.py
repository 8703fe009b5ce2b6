"""Data that is always at hand."""

from optsde.data.digits import digits

__all__ = ["digits"]
