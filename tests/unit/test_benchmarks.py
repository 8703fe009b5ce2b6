"""The benchmarks: races and their intervals, records, pages, what got slower."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT

from benchmarks import accelerator, results, timing
from benchmarks.question import Answer, Picture, Row, exactly, read, written
from benchmarks.timing import Race, race
from optsde.analysis import Interval

STAMP = {"processor": "one", "cores": 2, "devices": ["cpu"]}


def record(*rows, **changes):
    answer = dataclasses.asdict(Answer(rows))
    return {"a": {**json.loads(json.dumps(answer)), "stamp": STAMP | changes}}


def test_a_ratio_s_interval_covers_it_and_leaves_out_what_both_have_in_common():
    rng = np.random.default_rng(0)
    races, hits, widths = 400, 0, []
    for _ in range(races):
        common = rng.normal(0, 0.5, 8)  # a busy machine hits both alike
        ours, theirs = np.exp(common + rng.normal(0, 0.01, (2, 8)))
        rounds = [
            {"ours": 2 * x, "theirs": y} for x, y in zip(ours, theirs, strict=True)
        ]
        found = Race(rounds).ratio("ours", "theirs")
        hits += found.low <= 2 <= found.high
        widths.append(timing.width(found))
    # Three standard errors of a share of .95 in 400.
    assert abs(hits / races - 0.95) < 3 * (0.95 * 0.05 / races) ** 0.5
    assert max(widths) < 0.06


def test_contenders_take_turns_until_the_ratio_is_known():
    called = []

    def contender(name, seconds):
        noise = iter(np.random.default_rng(1).lognormal(0, 0.1, 1000))

        def run():
            called.append(name)
            return seconds * next(noise)  # the same noise for each

        return run

    contenders = {"a": contender("a", 1.0), "b": contender("b", 2.0)}
    found = race(contenders, [("a", "b")], seconds=60)
    assert found.rounds == timing.ROUNDS[0]
    assert called[:6] == ["a", "b", "a", "b", "b", "a"]  # the first two are not counted
    np.testing.assert_allclose(found.ratio("b", "a"), (2, 2, 2))
    np.testing.assert_allclose(found.rate("a", 3).value * found.seconds("a").value, 3)


def test_a_race_without_an_end_stops_at_its_time():
    noise = iter(np.random.default_rng(2).lognormal(0, 1, 1000))
    contenders = dict.fromkeys("ab", lambda: next(noise))
    found = race(contenders, [("a", "b")], seconds=1e-9)
    assert found.rounds == timing.ROUNDS[0]
    assert timing.width(found.ratio("a", "b")) > timing.WIDTH


def test_an_answer_is_read_as_it_was_written():
    each = [Interval(1.0, 0.5, 2.0), exactly(3)]
    rows = [Row("x", each[0], "ms", aim=2.0), Row("y", each[1], more=True)]
    answer = Answer(rows, ["a note"], Picture("n", "ms", [1, 2], {"ours": each}))
    stored = json.loads(json.dumps({"question": "?", **dataclasses.asdict(answer)}))
    assert read(stored) == answer
    assert written(rows[0]) == ("1 ms", "0.5 ms to 2 ms", "≤ 2 ms")
    assert written(rows[1])[1] == "exact"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((1, 0.8, 1.1), "met"), ((1, 0.8, 1.3), "open"), ((2, 1.3, 3), "missed")],
)
def test_an_aim_is_judged_by_the_whole_interval(found, verdict):
    assert Row("x", Interval(*found), aim=1.2).verdict == verdict


def test_slower_is_what_rose_beyond_both_intervals():
    was = record(Row("x", Interval(1.0, 0.9, 1.1)))
    within = record(Row("x", Interval(1.2, 1.05, 1.3)))
    above = record(Row("x", Interval(1.2, 1.15, 1.3)))
    assert not [*results.slower(was, within)]
    assert [*results.slower(was, above)] == ["a: x: 1 → 1.2"]
    assert not [*results.slower(above, was)]
    # Times of another machine are no others'; counts are.
    elsewhere = record(Row("x", Interval(1.2, 1.15, 1.3)), cores=8)
    assert not [*results.slower(was, elsewhere)]
    counted = record(Row("x", exactly(1))), record(Row("x", exactly(2)), cores=8)
    assert [*results.slower(*counted)] == ["a: x: 1 → 2"]
    errors = record(Row("x", exactly(1e-7))), record(Row("x", exactly(1.01e-7)))
    assert not [*results.slower(*errors)]


def test_fewer_images_a_second_are_slower():
    was = record(Row("x", Interval(100.0, 90, 110), more=True))
    now = record(Row("x", Interval(50.0, 40, 60), more=True))
    assert [*results.slower(was, now)] == ["a: x: 100 → 50"]
    assert not [*results.slower(now, was)]


def test_pages_say_what_was_measured():
    records = results.PLACE.load()
    assert results.PLACE.page.read_text() == results.PLACE.text()
    readme = (ROOT / "README.md").read_text()
    assert results.readme_table(records) in readme
    assert results.inserted(readme, records) == readme


def test_without_an_accelerator_it_says_in_one_line_what_it_needs(capsys):
    assert jax.default_backend() == "cpu"
    assert accelerator.main([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no GPU or TPU" in said


@pytest.mark.full
def test_the_accelerator_s_questions_run_in_small(monkeypatch):
    cache = str(ROOT / ".pytest_cache" / "jax")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", cache)
    assert accelerator.main(["--tiny"]) == 0


# By itself, since the benchmarks make every core a device.
BOTH = """
import json
from benchmarks import peers, problem
seeds, steps = 32, 300
_, theirs = peers.Program("ensemble.cpp")(seeds, steps, 1)
print(json.dumps([problem.final_losses(seeds, steps).tolist(), theirs.tolist()]))
"""


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_loop_in_cpp_trains_as_the_engine_does():
    command = [sys.executable, "-c", BOTH]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    ours, theirs = map(np.array, json.loads(done.stdout))
    assert ours.shape == theirs.shape == (32,)
    assert np.ptp(theirs) > 0
    se = np.hypot(ours.std(ddof=1), theirs.std(ddof=1)) / len(ours) ** 0.5
    assert abs(ours.mean() - theirs.mean()) < 4 * se
    assert se < 0.02 * ours.mean()  # so that 4 of them are less than a tenth
