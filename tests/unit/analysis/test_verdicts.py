"""Verdicts: when each kind of claim holds, and what it shows."""

import itertools

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
    equivalence,
    exact,
    family,
    interval,
    least_above,
    mark_known_false,
    none,
    p_above,
    share,
    verdict_table,
    within,
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
    p = 2 * p_above(NARROW, 0.2)
    assert above("a", NARROW, 0.2, "%") == Verdict(
        "a", 0.5, low, high, 0.2, "%", True, True, p
    )
    assert above("a", NARROW, 0.0, "%", False, errors=4) == Verdict(
        "a", 0.5, 0.5 - 0.4, 0.5 + 0.4, 0.0, "%, ± 4 s.e.", True, False
    )
    assert not above("a", NARROW, 0.0, "%", errors=5).holds
    assert within("a", Interval(1.0, 0.9, 1.1), 0.5, 2.0, "").bound == 0.75
    assert below("a", exact(1.0), 1.1, "lr").high == 1.0


def test_several_estimates_show_the_worst():
    far = Estimate(-0.8, 0.1, 100)
    assert all_agree("a", [NARROW, far, WIDE], 2.0, "%").value == 0.5  # WIDE, to 1.16
    assert all_agree("a", [NARROW, far], 2.0, "%").value == -0.8
    assert all_above("a", [NARROW, WIDE, far], -2.0, "%").value == -0.8
    for test in (all_agree, all_above):
        assert test("a", [NARROW, far], 0.5, "%").fails
        lost = test("a", [NARROW, LOST, far], 0.5, "%")
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
    assert none("a", events, "nets") == Verdict(
        "a", 1, 1, 1, 0, "of 64 nets", False, fails=True
    )
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


def test_p_is_where_the_interval_reaches_the_bound():
    """And it is below .05 where the claim holds."""
    for x in (NARROW, WIDE, Estimate(0.5, 0.25, 8), Estimate(0.5, 0.25, np.inf)):
        up, down = above("a", x, 0.2, "%"), below("a", x, 0.9, "%")
        np.testing.assert_allclose(interval(x, 1 - up.p).low, 0.2)
        np.testing.assert_allclose(interval(x, 1 - down.p).high, 0.9)
        same = agrees("a", x, 0.9, "%")
        np.testing.assert_allclose(equivalence(x, 0.9, same.p).high, 0.9)
        for verdict in (up, down, same):
            assert verdict.holds == (verdict.p < 0.05)
    assert above("a", NARROW, 0.6, "%").p == 1
    assert above("a", exact(1.0), 0.9, "%").p == 0
    assert above("a", exact(1.0), 1.0, "%").p == 1
    for test in (above, below, agrees):
        assert test("a", LOST, 1.0, "%").p == 1
    assert above("a", NARROW, 0.0, "%", errors=4).p is None
    assert share("a", [True], 100.0).p is None


def test_p_of_several_estimates_is_that_of_the_least_sure():
    few = Estimate(1.3, 0.4, 2)  # reaches below 0, and less far below with more runs
    worst = all_above("a", [NARROW, few, WIDE], 0.0, "%")
    assert worst.p == above("a", WIDE, 0.0, "%").p > above("a", few, 0.0, "%").p
    assert worst.low == interval(few).low
    same = all_agree("a", [NARROW, WIDE], 2.0, "%")
    assert same.p == agrees("a", WIDE, 2.0, "%").p


def test_a_family_is_bonferronis_closed_test():
    """A claim holds where Bonferroni's test rejects every set of claims with it in."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        estimates = [Estimate(x, 1.0, 9) for x in 3 * rng.normal(size=5)]
        alone = [above(f"{i}", x, 0.0, "%") for i, x in enumerate(estimates)]
        together = family("five", alone)
        p = np.array([v.p for v in alone])
        sets = [
            np.array(chosen)
            for size in range(1, 6)
            for chosen in itertools.combinations(range(5), size)
        ]
        for i, verdict in enumerate(together):
            closed = max(len(s) * p[s].min() for s in sets if i in s)
            np.testing.assert_allclose(verdict.corrected, min(closed, 1.0))
            assert verdict.holds == (verdict.corrected < 0.05)
            assert (verdict.claim, verdict.p) == (f"{i}", p[i])
            assert verdict.low == alone[i].low


def test_families_of_none_and_of_one():
    assert family("none", []) == []
    (one,) = family("one", [above("a", NARROW, 0.0, "%")])
    assert one.corrected == one.p
    with pytest.raises(ValueError, match="a is in one: a family takes, once, what"):
        family("two", [one])
    with pytest.raises(ValueError, match="b has no p-value: a family takes"):
        family("two", [none("b", [False])])


def test_the_table_says_what_a_family_changes():
    alone = [above("a", NARROW, 0.0, "%"), above("b", WIDE, 0.0, "%")]
    unsure = above("c", Estimate(0.21, 0.1, 100), 0.0, "%")
    assert unsure.holds
    text = verdict_table([*family("letters", [*alone, unsure]), unsure])
    header, _, first, _, third, last, note = text.splitlines()
    assert header.split()[-3:] == ["unit", "p", "verdict"]
    assert first.split()[-2:] == ["7.4e-06", "holds"]
    assert third.split()[-2:] == ["0.076", "open"]
    assert last.split()[-2:] == ["%", "holds"]
    assert note == (
        "letters: 3 claims, with Holm's p and the interval of one; 1 hold, and 2 would "
        "alone"
    )


LEFT, RIGHT = Estimate(-0.8, 0.1, 100), Estimate(1.8, 0.1, 100)


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (agrees("a", NARROW, 1.0, "%"), "holds"),
        (agrees("a", WIDE, 1.0, "%"), "open"),
        (agrees("a", RIGHT, 1.0, "%"), "fails"),
        (agrees("a", -RIGHT, 1.0, "%"), "fails"),
        (agrees("a", LOST, 1.0, "%"), "open"),
        (above("a", NARROW, 0.0, "%"), "holds"),
        (above("a", WIDE, 0.0, "%"), "open"),
        (above("a", LEFT, 0.0, "%"), "fails"),
        (above("a", LOST, 0.0, "%"), "open"),
        (above("a", NARROW, 0.0, "%", errors=6), "open"),
        (above("a", LEFT, 0.0, "%", errors=6), "fails"),
        (below("a", NARROW, 1.0, "%"), "holds"),
        (below("a", WIDE, 1.0, "%"), "open"),
        (below("a", RIGHT, 1.0, "%"), "fails"),
        (within("a", Interval(1.0, 0.9, 1.1), 0.75, 1.25, ""), "holds"),
        (within("a", Interval(1.0, 0.5, 1.1), 0.75, 1.25, ""), "open"),
        (within("a", Interval(0.6, 0.5, 0.7), 0.75, 1.25, ""), "fails"),
        (within("a", Interval(1.6, 1.5, 1.7), 0.75, 1.25, ""), "fails"),
        (all_agree("a", [NARROW, WIDE], 1.0, "%"), "open"),
        (all_agree("a", [NARROW, WIDE, RIGHT], 1.0, "%"), "fails"),
        (all_above("a", [NARROW, WIDE], 0.0, "%"), "open"),
        (all_above("a", [LEFT, Estimate(0.0, 9.0, 9)], 0.0, "%"), "fails"),
        (least_above("a", [3.0, 1.0], 0.5, ""), "holds"),
        (least_above("a", [3.0, 0.5, np.nan], 0.5, ""), "fails"),
        (least_above("a", [3.0, np.nan], 0.5, ""), "open"),
        (least_above("a", [], 0.5, ""), "open"),
        (none("a", [False]), "holds"),
        (none("a", [False, True]), "fails"),
        (share("a", [True, True], 100.0), "holds"),
        (share("a", [True, False], 100.0), "fails"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.unit,
)
def test_open_is_where_the_interval_does_not_decide(verdict, outcome):
    assert verdict.outcome == outcome
    assert not (verdict.holds and verdict.fails)
    assert Verdict(**verdict.to_json()).outcome == outcome


def test_a_claim_and_its_opposite_never_both_hold_or_both_fail():
    rng = np.random.default_rng(0)
    opposite = {"holds": "fails", "fails": "holds", "open": "open"}
    for x in (Estimate(*pair, 9) for pair in rng.normal(size=(200, 2)) ** 2 - [1, 0]):
        more, less = above("a", x, 0.0, ""), below("a", x, 0.0, "")
        assert more.outcome == opposite[less.outcome]


def test_a_family_takes_back_no_failure():
    estimates = [NARROW, LEFT, Estimate(0.3, 0.1, 100)]
    made = family("f", [above(f"{x.mean}", x, 0.0, "%") for x in estimates])
    assert [v.outcome for v in made] == ["holds", "fails", "holds"]
    wide = family("f", [above(f"{i}", WIDE, -0.3, "%") for i in range(3)])
    assert above("a", WIDE, -0.3, "%").holds
    assert [v.outcome for v in wide] == ["open"] * 3


def test_the_table_says_what_was_expected_to_fail():
    def words(x, expected):
        row = verdict_table([above("a", x, 0.0, "%", expected)]).splitlines()[-1]
        return row.rpartition("%")[2].strip()

    assert words(NARROW, True) == "holds"
    assert words(WIDE, True) == "open"
    assert words(LEFT, True) == "fails"
    assert words(NARROW, False) == "holds, expected to fail"
    assert words(WIDE, False) == "open, expected to fail"
    assert words(LEFT, False) == "fails, as expected"


def test_what_is_not_a_number_decides_nothing():
    for lost in (Estimate(np.nan, 0.1, 9), Estimate(0.1, np.nan, 9)):
        for test in (agrees, above, below):
            verdict = test("a", lost, 1.0, "%")
            assert (verdict.outcome, verdict.p) == ("open", 1.0)
            (together,) = family("f", [verdict])
            assert together.outcome == "open"
    assert none("a", []).outcome == "open"
    assert share("a", [], 100).outcome == "open"
