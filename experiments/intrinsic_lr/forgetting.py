"""When two ensembles forget their starts, and how far apart they and their runs are.

Distances of functions are the energy distance H of held-out predictions.
"""

from functools import partial

import numpy as np

from experiments.intrinsic_lr import nets
from optsde.analysis import combination, energy_distance, jackknife

FORGETS = {
    "effective_lr": "effective lr",
    "train_loss": "train loss",
    "functions": "functions",
}
paired_distance = partial(energy_distance, paired=True)


def ensembles(s, run, name, look=slice(None)):
    """Returns a metric of the two ensembles, each [seeds, …]."""
    values = run[name][:, look]
    return values[: s.seeds], values[s.seeds :]


def distance(s, run, look):
    """Returns H between the functions of the ensembles at a measurement, in %."""
    return 100 * jackknife(energy_distance, *ensembles(s, run, "functions", look))


def halves(s, run, look):
    """Returns H between two halves of one ensemble, the mean over both, in %."""
    even = 2 * (s.seeds // 2)
    found = [
        jackknife(energy_distance, x[:even:2], x[1:even:2])
        for x in ensembles(s, run, "functions", look)
    ]
    return combination([50.0, 50.0], found)


def further(run):
    """Returns the predictions of all runs in the middle and at the end."""
    return run["predictions"][:, -2], run["predictions"][:, -1]


def moved(early, late):
    """Returns how far runs move, in % of the distance between two runs at the end."""
    from scipy.spatial import distance

    early, late = (x.reshape(len(x), -1) for x in (early, late))
    own = np.linalg.norm(late - early, axis=1).mean()
    return 100 * own / distance.pdist(late).mean()


def apart(metric, one, other):
    """Returns how far two ensembles are apart at each time, in %: H, or |log| of means.

    One and other have members on the first axis and times on the second.
    """
    if metric == "functions":
        looks = range(one.shape[1])
        return 100 * np.array([energy_distance(one[:, i], other[:, i]) for i in looks])
    return 100 * np.abs(np.log(one.mean(axis=0) / other.mean(axis=0)))


def forgetting(s, runs):
    """Returns times of forgetting, see `Mixed`, and p in time in steps ∝ λ_e^p.

    Exponents are by least squares in logs. Seeds and starts are the same at every λ_e,
    so one seed is left out of all at a time.
    """
    rates = np.array(list(runs))
    logs = np.log(rates) - np.log(rates).mean()

    def times(run, metric, members):
        one, other = (x[members] for x in ensembles(s, run, metric))
        curve = apart(metric, one, other)
        levels = s.forgotten, s.share * curve[0]
        return [nets.last_above(run["times"], curve, level) for level in levels]

    def found(members):
        steps = np.array(
            [[times(run, m, members) for run in runs.values()] for m in FORGETS]
        )
        steps = np.moveaxis(steps, 2, 1)
        exponent = np.log(steps) @ logs / np.sum(logs**2)
        return np.append(rates * steps, exponent[..., None], axis=2)

    return jackknife(found, np.arange(s.seeds))
