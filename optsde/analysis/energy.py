"""The energy distance of two samples, and the test of one law that it makes.

Of independent X, X' of one law and Y, Y' of another

    H = (2 E|X − Y| − E|X − X'| − E|Y − Y'|) / (2 E|X − Y|)

is between 0 and 1, and 0 only where the laws are one (Székely and Rizzo 2013, who call
it the coefficient of inhomogeneity). |·| is Euclid's norm, so the members of a sample
may be vectors of any length, such as all predictions of a net. For means that are apart
by δ in a law of total variance V, where δ² ≪ V, it is about δ²/(4V).
"""

import numpy as np

from optsde.checks import check_count


def energy_distance(x, y, paired: bool = False) -> float:
    """Returns H of two samples of the same size.

    Means are over distinct members, so that samples of one law have 0 on average, and
    H may come out below it. Its error is that of `jackknife(energy_distance, x, y)`,
    which is too wide rather than too narrow where the laws are one.

    Args:
      x: members on the first axis, at least 2.
      y: as many.
      paired: whether x[i] and y[i] depend on one another, as measurements of one run at
        two times do. They are then not compared with each other.

    >>> x, y = [[0.0], [1.0], [2.0]], [[10.0], [11.0], [12.0]]
    >>> round(energy_distance(x, y), 3)
    0.867
    """
    return _share(*_distances(x, y), paired)


def energy_test(
    x, y, paired: bool = False, permutations: int = 999, seed: int = 0
) -> float:
    """Returns the p-value of the claim that two samples are of one law.

    It is the share of permutations, this one among them, in which H is as large as it
    is here. Labels are permuted among all members; where they are paired, within pairs.
    A large p is no evidence that the laws are one: for that see H and its interval.

    >>> rng = np.random.default_rng(0)
    >>> energy_test(rng.normal(size=(9, 2)), 3 + rng.normal(size=(9, 2)))
    0.001
    """
    check_count("permutations", permutations)
    distances, count = _distances(x, y)
    rng, rows = np.random.default_rng(seed), np.arange(2 * count)
    here, as_large = _share(distances, count, paired), 1
    for _ in range(permutations):
        if paired:
            swapped = np.where(rng.random(count) < 0.5, count, 0)
            order = np.concatenate([rows[:count] + swapped, rows[count:] - swapped])
        else:
            order = rng.permutation(rows)
        # Equal but for rounding is as large.
        other = _share(distances[np.ix_(order, order)], count, paired)
        as_large += bool(other >= here - 1e-12)
    return as_large / (permutations + 1)


def _distances(x, y) -> tuple[np.ndarray, int]:
    """Returns all distances of the pooled members, x first, and the size of x."""
    from scipy.spatial import distance  # its import takes a tenth of a second

    x, y = (np.asarray(sample, np.float64) for sample in (x, y))
    if x.shape != y.shape or not x.ndim or len(x) < 2:
        raise ValueError(
            f"samples of shape {list(x.shape)} and {list(y.shape)}: needs two of the "
            "same shape, of at least 2 members on the first axis"
        )
    pooled = np.concatenate([x, y]).reshape(2 * len(x), -1)
    if not np.isfinite(pooled).all():
        raise ValueError("a sample has numbers that are not finite")
    return distance.cdist(pooled, pooled), len(x)


def _share(distances: np.ndarray, count: int, paired: bool) -> float:
    """Returns H of the first `count` members and the rest, from all distances."""
    pairs = count * (count - 1)
    within = distances[:count, :count].sum() + distances[count:, count:].sum()
    between = distances[:count, count:]
    others = between.sum() - np.trace(between)
    cross = others / pairs if paired else between.mean()
    return float(1 - within / pairs / (2 * cross)) if cross > 0 else 0.0
