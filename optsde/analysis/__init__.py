"""Analysis: from many runs to a number with an interval, a verdict, a table, a figure.

- `statistics`: estimates over replicas, their differences, intervals and tests
- `energy`: how far apart the laws of two samples are, and a test that they are one
- `scores`: how good predictions were, of which only an interval is seen
- `verdicts`: claims with a bound, and whether they hold, alone and among others
- `tables`: text tables, and numbers with their errors as text
- `spikes`: where a series of losses shoots up and comes back
- `plots`: figures in one style; it is imported by its own name, as it needs matplotlib
"""

from optsde.analysis.energy import energy_distance, energy_test
from optsde.analysis.scores import log_score, out_of_sample
from optsde.analysis.spikes import Spike, SpikeDetector, find_spikes, phases
from optsde.analysis.statistics import (
    Equivalence,
    Estimate,
    Interval,
    combination,
    equivalence,
    estimate,
    estimate_finite,
    estimate_or_exact,
    exact,
    half_width,
    interval,
    jackknife,
    log_slope,
    order,
    p_above,
    paired,
    percent,
    percent_each,
    percent_of_mean,
    percent_paired,
    relative,
    stack,
    valley,
)
from optsde.analysis.tables import number, plus_minus, table, with_interval
from optsde.analysis.verdicts import (
    Verdict,
    above,
    agrees,
    all_above,
    all_agree,
    below,
    family,
    least_above,
    mark_known_false,
    none,
    share,
    verdict_table,
    within,
)

__all__ = [
    "Equivalence",
    "Estimate",
    "Interval",
    "Spike",
    "SpikeDetector",
    "Verdict",
    "above",
    "agrees",
    "all_above",
    "all_agree",
    "below",
    "combination",
    "energy_distance",
    "energy_test",
    "equivalence",
    "estimate",
    "estimate_finite",
    "estimate_or_exact",
    "exact",
    "family",
    "find_spikes",
    "half_width",
    "interval",
    "jackknife",
    "least_above",
    "log_score",
    "log_slope",
    "mark_known_false",
    "none",
    "number",
    "order",
    "out_of_sample",
    "p_above",
    "paired",
    "percent",
    "percent_each",
    "percent_of_mean",
    "percent_paired",
    "phases",
    "plus_minus",
    "relative",
    "share",
    "stack",
    "table",
    "valley",
    "verdict_table",
    "with_interval",
    "within",
]
