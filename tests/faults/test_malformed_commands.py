"""Every setting of every study, and python -m optsde, refuse what is malformed."""

import itertools

import pytest

from tests.faults import commands, main_commands
from tests.faults.outcomes import LINE, SILENT, outcome


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.full)])
def test_every_setting_of_every_study(stride):
    for command in itertools.islice(commands.swept(), 0, None, stride):
        words = commands.words_of(command)
        found = outcome(lambda command=command: commands.check(command), words)
        wanted = (SILENT, LINE) if commands.is_taken(command) else (LINE,)
        assert found.kind in wanted, (str(command), found)


COUPLED = list(commands.coupled())
OF_A_TASK = (
    "dataset",
    "images",
    "test_size",
    "train_size",
    "activation",
    "model",
    "form",
    "shape",
)


def _full(command):
    """Marks what is refused when the task is built, which takes a second."""
    late = any(command.key.endswith(name) for name in OF_A_TASK)
    return pytest.mark.full if late or "dataset" in str(command) else ()


@pytest.mark.parametrize(
    ("command", "words"),
    [pytest.param(*pair, id=str(pair[0]), marks=_full(pair[0])) for pair in COUPLED],
)
def test_settings_that_go_together(command, words):
    found = outcome(lambda: commands.check(command, build=True), words.split("|"))
    assert found.kind == LINE, found


@pytest.mark.parametrize(("command", "words"), main_commands.TABLE.items())
def test_what_is_asked_of_the_rule(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = outcome(lambda: main_commands.call(command), words.split("|"))
    assert found.kind == LINE, found
    assert not list(tmp_path.iterdir())
