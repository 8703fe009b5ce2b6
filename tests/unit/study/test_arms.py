"""Arms as stacked replicas, and a whole study of sixty lines that is made of nouns."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from helpers import a_study

import optsde
from optsde.gradients import diagonal, gaussian
from optsde.problems.quadratic import quadratic_loss
from optsde.run import DivergedError, JsonLines, load_params, read
from optsde.study import Arm, Package, RunDir, UsageError, arms, train

CONFIG = """
from helpers import a_study
from optsde.study import Preset, presets

PRESETS = {"two": Preset("with momentum and without", a_study.Settings())}
get_config = presets(PRESETS, "two")
"""
NOISE = diagonal(lambda x: 0.3 * x**0)
SAMPLER = gaussian(quadratic_loss, NOISE)
START = np.array([1.5, -1.0], np.float32)
KEYS = jax.random.split(jax.random.key(3), 3)


def size(times=2.0):
    return optsde.measure.probe(
        lambda _, state: {"size": jax.numpy.abs(state.params).sum()}, times=times
    )


def arm(name="a", horizon=8, **options):
    optimizer = optsde.SGD(lr=options.pop("lr", 0.1))
    plan = optsde.Plan(optimizer=optimizer, batch_size=2, horizon=horizon)
    return Arm(name, plan, **options)


def run(*these, keep=lambda names, make: make(), probes=None, **options):
    probes = [size()] if probes is None else probes
    return train(these, SAMPLER, START, KEYS, keep=keep, probes=probes, **options)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the study by a command line; returns (exit code, stdout, stderr)."""
    (tmp_path / "two.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optsde.study.launch._prepare_devices", lambda *_: None)

    def call(*arguments):
        given = ["a_study", "--config=two.py", "--workdir=run", *arguments]
        monkeypatch.setattr(sys, "argv", given)
        try:
            Package("a_study", a_study.__doc__, (a_study.study,)).main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        return code, *capsys.readouterr()

    return call


def test_sixty_lines_are_a_study(command, tmp_path):
    code, out, err = command()
    assert code == 0, err
    assert "held-out loss" in out
    assert "β 0.9_ends_alike" in out
    assert (tmp_path / "run/figures/losses.png").exists()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "done"
    again = command()
    assert again[1].count("read from run") == 2
    rest = [text[text.index("arm") :] for text in (out, again[1])]
    assert rest[0] == rest[1]
    code, _, err = command("--config.betas=0.5,1.0")
    assert (code, "needs" in err) == (2, True)
    with open(a_study.__file__) as file:
        assert len(file.readlines()) < 60


def test_what_is_stored_is_not_run_again(command, monkeypatch):
    assert command()[0] == 0
    monkeypatch.setattr(arms, "_fit", None)
    assert command()[0] == 0


def test_stacked_arms_are_the_arms_run_alone():
    both = [arm("slow", lr=0.05), arm("fast", lr=0.2, scale=2.0)]
    runs = run(*both, every=1.0)
    assert list(runs) == ["slow", "fast"]
    for each in both:
        alone = run(each, every=1.0)[each.name]
        for metric in ("size", "loss", "grad_norm"):
            ours = runs[each.name][metric]
            np.testing.assert_array_equal(ours.times, alone[metric].times)
            np.testing.assert_allclose(ours.values, alone[metric].values, rtol=1e-5)
    assert runs["fast"].size.values.shape == (3, 5)
    with pytest.raises(AttributeError, match="no metric 'sizes'; there are"):
        _ = runs["fast"].sizes


def test_arms_of_other_batches_run_by_themselves():
    plan = arm().plan
    small, large = Arm("small", plan), Arm("large", optsde.scale(plan, 2))
    assert [len(group) for group in arms.stacks([small, large])] == [1, 1]
    runs = run(small, large)
    np.testing.assert_array_equal(runs["small"].size.times, runs["large"].size.times)


def test_an_arm_of_groups():
    """It runs as an ensemble, and changes of one optimizer are refused."""
    rates = {"a": optsde.SGD(lr=0.1), "b": optsde.SGD(lr=0.2)}
    groups = optsde.Groups(rates, _by_name)
    plan = dataclasses.replace(arm().plan, optimizer=groups)
    fast = dataclasses.replace(plan, optimizer=groups.times_lr(2.0))
    found = arms.stacks([Arm("slow", plan), Arm("fast", fast)])
    assert [len(group) for group in found] == [2]
    assert found[0][1].at(3).parts["b"].lr == 0.4
    with pytest.raises(ValueError, match="one optimizer of all parameters"):
        Arm("drop", plan, changes={4: {"lr": 0.05}}).at(3)


def _by_name(params):
    return {"w": "a", "v": "b"}


def test_changes_at_given_times():
    """A drop of lr is what another run does that begins there."""
    drop = arm("drop", lr=0.2, changes={4: {"lr": 0.05}})
    assert [drop.at(t).lr for t in (0, 3, 4, 9)] == [0.2, 0.2, 0.05, 0.05]
    runs = run(drop, arm("kept", lr=0.2))
    early = slice(0, 3)
    np.testing.assert_array_equal(
        runs["drop"].size.values[:, early], runs["kept"].size.values[:, early]
    )
    assert not np.allclose(runs["drop"].size.last, runs["kept"].size.last)
    np.testing.assert_allclose(
        run(drop)["drop"].size.values, runs["drop"].size.values, rtol=1e-6
    )


def in_folder(path, *these, seeds=KEYS, **options):
    rundir = RunDir(path, "a_study", {})
    rundir.begin()
    options |= dict(keep=rundir.once_all, folder=path)
    return train(these, SAMPLER, START, seeds, **options)


def test_in_a_folder_a_finished_run_is_read(tmp_path, capsys):
    def go():
        return in_folder(tmp_path, arm("a"), arm("b", lr=0.2), every=2.0)

    first, second = go(), go()
    assert capsys.readouterr().out.count("read from") == 2
    for name in ("a", "b"):
        np.testing.assert_array_equal(first[name].loss.values, second[name].loss.values)
        assert first[name].loss.times.tolist() == [2, 4, 6, 8]
    assert load_params(tmp_path / "checkpoints")[0] == 8
    assert read(tmp_path / "metrics.jsonl")["step"] == [2, 4, 6, 8]
    assert not (tmp_path / "unfinished").exists()
    with pytest.raises(DivergedError, match="between step"):
        in_folder(tmp_path / "c", arm(lr=1e30, horizon=40), every=2.0)
    apart = arm("a"), Arm("b", optsde.scale(arm().plan, 2))
    with pytest.raises(ValueError, match="for one ensemble, and these arms are 2"):
        in_folder(tmp_path, *apart)


@pytest.mark.parametrize("damage", ["cut", "missing", "emptied", "garbage", "folder"])
def test_rows_are_written_anew_whatever_became_of_them(tmp_path, damage):
    """Of a run that goes on, since metrics.jsonl is not what it goes on from."""

    def go(path, stop):
        full = Full(JsonLines(path / "metrics.jsonl"), stop)
        options = dict(every=2.0, probes=[size(4.0)], checkpoint_every=4.0)
        return in_folder(path, arm(), writer=full, **options)["a"]

    class Full(JsonLines):
        def __init__(self, rows, stop):
            super().__init__(rows.path)
            self.stop = stop

        def write(self, row):
            if row["step"] > self.stop:
                raise InterruptedError
            super().write(row)

    whole = go(tmp_path / "whole", 99)
    with pytest.raises(InterruptedError):
        go(tmp_path / "run", 5)
    log = tmp_path / "run/metrics.jsonl"
    text = log.read_bytes()
    log.unlink()
    if damage == "folder":
        log.mkdir()
        with pytest.raises(UsageError, match="is a folder, and must be a file"):
            go(tmp_path / "run", 99)
        log.rmdir()
    elif damage != "missing":
        kinds = {"cut": text[:-9], "emptied": b"", "garbage": b"\xff\xfe{[["}
        log.write_bytes(kinds[damage])
    found = go(tmp_path / "run", 99)
    for metric in ("loss", "grad_norm", "size"):
        np.testing.assert_array_equal(found[metric].values, whole[metric].values)
        np.testing.assert_array_equal(found[metric].times, whole[metric].times)
    assert log.read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_names_that_would_hide_others():
    with pytest.raises(ValueError, match="two arms are called 'a'"):
        run(arm("a"), arm("a", lr=0.2))
    for name, says in (
        ("a|b", "needs no | and no @"),
        ("a@times", "needs no | and no @"),
        ("finite", "runs have that name themselves"),
    ):
        bad = optsde.measure.probe(lambda _, s, n=name: {n: s.params[0]}, times=2.0)
        with pytest.raises(ValueError, match=says):
            run(arm(), probes=[bad])


def test_a_run_that_diverged_in_its_last_row_is_not_finished(tmp_path):
    def once(lr):
        return in_folder(tmp_path, arm(lr=lr), seeds=KEYS[:1], every=8.0)

    for _ in range(2):  # the second finds the row of the first
        with pytest.raises(DivergedError):
            once(1e30)
    assert once(0.1)["a"].finite()
