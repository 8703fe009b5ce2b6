"""Every malformed call of the table meets with one clear line."""

import pytest

from tests.faults.calls import TABLE, call
from tests.faults.outcomes import LINE, outcome

QUICK = "plans", "rescaling", "schedules", "optimizers", "analysis", "data"


GROUPS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.full)
    for name in TABLE
]


@pytest.mark.parametrize("group", GROUPS)
def test_a_call_is_refused_in_a_line(group):
    for code, words in TABLE[group]:
        found = outcome(lambda code=code: call(code), words.split("|"))
        assert found.kind == LINE, (code, words, found)


def test_there_are_many_calls():
    codes = [code for rows in TABLE.values() for code, _ in rows]
    assert len(set(codes)) == len(codes) >= 180
