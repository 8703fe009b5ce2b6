"""Verdicts: when each kind of claim holds, and what it shows."""

import numpy as np
import pytest

from optsde.analysis import (
    Estimate,
    Interval,
    Verdict,
    above,
    agrees,
    all_above,
    all_agree,
    below,
    exact,
    interval,
    least_above,
    mark_known_false,
    none,
    share,
    verdict_table,
    within,
    within_factor,
)

NARROW, WIDE = Estimate(0.5, 0.1, 100), Estimate(0.5, 0.4, 100)
LOST = Estimate(np.nan, np.nan, 1)


def test_the_whole_interval_is_needed():
    assert agrees("a", NARROW, 1.0, "%").holds
    assert not agrees("a", WIDE, 1.0, "%").holds
    assert above("a", NARROW, 0.0, "%").holds
    assert not above("a", WIDE, 0.0, "%").holds
    assert below("a", NARROW, 1.0, "%").holds
    assert not below("a", WIDE, 1.0, "%").holds
    assert within("a", Interval(1.0, 0.9, 1.1), 0.75, 1.25, "slope").holds
    assert not within("a", Interval(1.0, 0.5, 1.5), 0.75, 1.25, "slope").holds
    for test in (agrees, above, below):
        assert not test("a", LOST, 1.0, "%").holds


def test_what_they_show():
    low, high = interval(NARROW)[1:]
    assert above("a", NARROW, 0.2, "%") == Verdict(
        "a", 0.5, low, high, 0.2, "%", True, True
    )
    assert above("a", NARROW, 0.0, "%", False, errors=4) == Verdict(
        "a", 0.5, 0.5 - 0.4, 0.5 + 0.4, 0.0, "%, ± 4 s.e.", True, False
    )
    assert not above("a", NARROW, 0.0, "%", errors=5).holds
    assert within("a", Interval(1.0, 0.9, 1.1), 0.5, 2.0, "").bound == 0.75
    assert below("a", exact(1.0), 1.1, "lr").high == 1.0


@pytest.mark.parametrize(
    ("value", "low", "high", "holds"),
    [(4, 8, 16, True), (3.9, 8, 16, False), (32, 8, 16, True), (33, 8, 16, False)],
)
def test_a_prediction_within_a_factor_of_two(value, low, high, holds):
    verdict = within_factor("a", Interval(value, 1.0, 99.0), low, high, "κ")
    assert (verdict.holds, verdict.bound) == (holds, low)
    assert (verdict.low, verdict.high) == (1.0, 99.0)
    assert within_factor("a", Interval(value, 1, 99), low, np.inf, "κ", factor=3).holds


def test_several_estimates_show_the_worst():
    far = Estimate(-0.8, 0.1, 100)
    assert all_agree("a", [NARROW, far, WIDE], 2.0, "%").value == 0.5  # WIDE, to 1.16
    assert all_agree("a", [NARROW, far], 2.0, "%").value == -0.8
    assert all_above("a", [NARROW, WIDE, far], -2.0, "%").value == -0.8
    for test in (all_agree, all_above):
        assert test("a", [NARROW, far], -2.0, "%").holds == (test is all_above)
        lost = test("a", [NARROW, LOST, far], -2.0, "%")
        assert np.isnan(lost.value)
        assert not lost.holds


def test_least_and_most():
    verdict = least_above("a", [[3.0, 1.0], [2.0, 10.0]], 0.5, "x", centre=np.median)
    assert verdict == Verdict(
        "a", 2.5, 1.0, 10.0, 0.5, "x; least and most of 4", True, True
    )
    assert not least_above("a", [3.0, 0.5], 0.5, "x").holds
    assert not least_above("a", [3.0, np.nan], 0.5, "x").holds
    nothing = least_above("a", [], 0.0, "x")
    assert np.isnan(nothing.value)
    assert (nothing.unit, nothing.holds) == ("x; least and most of 0", False)


def test_counts_and_shares_are_exact():
    events = np.zeros((8, 8), bool)
    assert none("a", events) == Verdict("a", 0, 0, 0, 0, "of 64 runs", True, True)
    assert share("a", events, 0.0).holds
    events[3, 2] = True
    assert none("a", events, "nets") == Verdict("a", 1, 1, 1, 0, "of 64 nets", False)
    assert not share("a", events, 0.0).holds
    full = share("a", ~np.zeros(7, bool), 100.0)
    assert full == Verdict("a", 100.0, 100.0, 100.0, 100.0, "% of 7 runs", True)


def test_claims_that_are_known_to_be_false():
    made = [above(name, NARROW, 0.0, "%") for name in ("one_rises", "two_rises")]
    made.append(above("three", NARROW, 0.0, "%", expected=False))
    marked = mark_known_false(made, ("two_rises",))
    assert [v.expected for v in marked] == [True, False, False]
    assert [v.claim for v in marked] == [v.claim for v in made]
    near = "'two_rise', which is no claim; use one of: two_rises, one_rises"
    with pytest.raises(ValueError, match=near):
        mark_known_false(made, ("two_rise",))
    with pytest.raises(ValueError, match="use one of: one_rises, two_rises, three"):
        mark_known_false(made, ("zzz",))
    assert mark_known_false(made, ("zzz",), complete=False) == made


def test_the_table_marks_what_was_not_expected():
    text = verdict_table([above("a", WIDE, 0.0, "%"), agrees("b", NARROW, 1.0, "%")])
    assert "FALSE !" in text
    assert text.splitlines()[-1].endswith("holds")
    known = verdict_table([above("a", WIDE, 0.0, "%", False)])
    assert known.splitlines()[-1].endswith("FALSE")
    assert verdict_table([above("a", NARROW, 0.0, "%", False)]).endswith("holds !")
