"""Analysis: from many runs to a number with an interval, a verdict, a figure."""

from optsde.analysis.spikes import Spike, SpikeDetector, find_spikes, phases
from optsde.analysis.statistics import (
    Equivalence,
    Estimate,
    Interval,
    difference,
    equivalence,
    estimate,
    estimate_finite,
    interval,
    log_slope,
    relative,
)
from optsde.analysis.tables import plus_minus, table
from optsde.analysis.verdicts import Verdict, above, agrees, verdict_table, within

__all__ = [
    "Equivalence",
    "Estimate",
    "Interval",
    "Spike",
    "SpikeDetector",
    "Verdict",
    "above",
    "agrees",
    "difference",
    "equivalence",
    "estimate",
    "estimate_finite",
    "find_spikes",
    "interval",
    "log_slope",
    "phases",
    "plus_minus",
    "relative",
    "table",
    "verdict_table",
    "within",
]
