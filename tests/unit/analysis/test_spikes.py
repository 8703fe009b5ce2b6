"""The detector of spikes, on series whose spikes are known."""

import numpy as np
import pytest

from optsde.analysis.spikes import SpikeDetector, find_spikes, phases


def drifting(random, size=1500, noise=0.1):
    """Falls to a twentieth, with multiplicative noise of 10%."""
    clean = 0.05 + 0.95 * np.exp(-np.arange(size) / (size / 5))
    return clean * np.exp(noise * random.standard_normal(size))


def with_spikes(random, count=5):
    """(series, first and last step of each spike): up in 5 steps by 4 to 100, and back
    in 15, at least 100 steps apart."""
    series, spans = drifting(random), []
    for number in range(count):
        start = 60 + 280 * number + random.integers(180)
        height = 4 * 25 ** random.random()
        shape = np.concatenate([np.linspace(0.3, 1, 5), np.linspace(1, 0, 16)[1:]])
        series[start : start + 20] *= height**shape
        spans.append((start, start + 19))
    return series, spans


def test_precision_and_recall():
    """250 spikes in 50 noisy series, seed 0. Bound: 99% each; a detection is right if
    it begins in the first 5 steps of a spike, and no spike may be found twice."""
    random = np.random.default_rng(0)
    found = right = known = 0
    late, peaks = [], []
    for _ in range(50):
        series, spans = with_spikes(random)
        spikes = find_spikes(series)
        known += len(spans)
        found += len(spikes)
        for start, stop in spans:
            mine = [s for s in spikes if start <= s.start < start + 5]
            right += len(mine) == 1
            late += [s.end - stop for s in mine if s.end is not None]
            peaks += [s.peak - start for s in mine]
    assert known == 250
    assert right / found >= 0.99
    assert right / known >= 0.99
    assert len(late) >= 0.99 * known  # all of them return
    assert np.abs(late).max() <= 8
    assert np.abs(np.median(peaks) - 4) <= 1


def test_nothing_is_found_where_the_loss_only_falls():
    t = np.arange(1, 1000.0)
    for series in (1 / t, np.exp(-t / 30), 1000 - t, np.ones(999), 1 / t**3):
        assert find_spikes(series) == []
    assert find_spikes(drifting(np.random.default_rng(1))) == []


def by_definition(series, rise=2.0, fall=1.2, floor=1e-2, window=20):
    """(start, end) of the spikes of a finite series: each is found in the whole series
    without those before it, which are cut out."""
    kept, place = np.asarray(series), np.arange(len(series))
    spans, quiet = [], floor * series[0]
    while len(kept) > window:
        windows = np.lib.stride_tricks.sliding_window_view(kept, window)[:-1]
        level, after = np.median(windows, axis=1), kept[window:]
        starts = np.flatnonzero((after > rise * level) & (after >= quiet))
        if not len(starts):
            break
        first = window + starts[0]
        back = np.flatnonzero(kept[first:] < max(fall * level[starts[0]], quiet))
        stop = first + back[0] if len(back) else None
        spans.append((place[first], None if stop is None else place[stop]))
        if stop is None:
            break
        kept, place = (np.concatenate([x[:first], x[stop:]]) for x in (kept, place))
    return spans


def test_one_at_a_time_is_as_the_whole_series():
    random = np.random.default_rng(2)
    total = 0
    for _ in range(20):
        series = with_spikes(random)[0] * np.exp(0.5 * random.standard_normal(1500))
        expected = by_definition(series)
        total += len(expected)
        detector = SpikeDetector()
        inside = [detector.update(10 * t, loss) for t, loss in enumerate(series)]
        streamed = [(s.start, s.end) for s in detector.spikes]
        assert streamed == [(10 * a, b if b is None else 10 * b) for a, b in expected]
        assert find_spikes(series, 10 * np.arange(1500)) == detector.spikes
        spans = np.zeros(1500, bool)
        for start, stop in phases(detector.spikes, 15_000):
            spans[start // 10 : stop // 10] = True
        np.testing.assert_array_equal(inside, spans)
    assert total > 200  # so noisy that most are noise


def test_spikes_that_do_not_return():
    calm = [1.0] * 25
    (spike,) = find_spikes([*calm, 3.0, 9.0, 5.0])
    assert (spike.start, spike.peak, spike.end, spike.height) == (25, 26, None, 9.0)
    assert phases([spike], last=28) == [(25, 28)]
    (spike,) = find_spikes([*calm, 3.0, 9.0, np.nan, 1.0, 50.0])
    assert (spike.start, spike.peak, spike.end) == (25, 27, None)
    assert spike.diverged
    (spike,) = find_spikes([1.0, 2.0, np.inf, np.nan, 1.0])
    assert (spike.start, spike.height, spike.diverged) == (2, np.inf, True)


def test_the_floor_and_the_first_losses():
    near_zero = [1.0] * 5 + [1e-6] * 40
    assert find_spikes([*near_zero, 9e-3, 1e-6]) == []
    (spike,) = find_spikes([*near_zero, 2e-2, 9e-3, 1e-6])
    assert (spike.start, spike.end) == (45, 46)
    assert find_spikes([*near_zero, 9e-3, 1e-6], floor=0) != []
    assert find_spikes([1.0, 50.0, *[1.0] * 18, 1.0]) == []
    with pytest.raises(ValueError, match=r"needs 1 ≤ fall ≤ rise"):
        SpikeDetector(rise=1.1)
