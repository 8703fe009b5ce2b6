"""Parts: files by name, together or not at all, and no byte changes unseen."""

import io

import numpy as np
import pytest

from optsde.run import files
from optsde.study import RunDir
from optsde.study.parts import Parts, file_of

NAMES = (
    *("sde", "SDE", "Sde", "a/b", "a b", "a_b", "a.b", "..", ".", "", "../../sde"),
    *("con", "β 0.9", "β 0,9", "SVAG(2)", "svag(2)", "svag_2", "x" * 64, "x" * 300),
    *("x" * 299 + "y", "a\nb", "sde.npz", "-rf", "~", "lr 0.1", "lr 0,1"),
)


def test_no_two_parts_have_one_file_on_any_file_system():
    made = [file_of(name) for name in NAMES]
    assert len({name.lower() for name in made}) == len(NAMES)
    assert all(len(name) < 100 and name.isascii() for name in made)
    assert not any(set(name) & set("/\\ :\n") or name[0] in ".-" for name in made)


def test_parts_of_any_name_come_back(tmp_path):
    parts = Parts(tmp_path / "curves")
    for number, name in enumerate(NAMES):
        parts.write({name: {"loss": np.arange(number), "loss@times": np.ones(2)}})
    again = Parts(tmp_path / "curves").read(NAMES)
    assert {name: len(arrays["loss"]) for name, arrays in again.items()} == {
        name: number for number, name in enumerate(NAMES)
    }
    assert [path.name for path in tmp_path.iterdir()] == ["curves"]


def test_every_flipped_byte_is_seen(tmp_path):
    file = tmp_path / "a.npz"
    files.write_arrays(file, {"a/loss": np.arange(3.0)})
    whole = file.read_bytes()
    with np.load(io.BytesIO(whole)) as stored:  # by anybody, without this library
        np.testing.assert_array_equal(stored["a/loss"], np.arange(3.0))
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(ValueError, match="not as it was written"):
            files.read_arrays(file)
    for length in range(0, len(whole), 9):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not as it was written"):
            files.read_arrays(file)


def test_numpy_alone_would_not_see_a_flipped_byte(tmp_path):
    """A shape made shorter: fewer bytes are read, and their checksum is left out."""
    file = tmp_path / "a.npz"
    files.write_arrays(file, {"loss": np.arange(9000.0)})
    file.write_bytes(file.read_bytes().replace(b"(9000,)", b"(8000,)"))
    with np.load(file) as stored:
        assert stored["loss"].shape == (8000,)
    with pytest.raises(ValueError, match="not as it was written"):
        files.read_arrays(file)


def test_what_needs_pickle_is_not_stored(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        files.write_arrays(tmp_path / "a.npz", {"x": np.array([{}])})
    assert not any(tmp_path.iterdir())


def test_parts_made_together_are_there_together(tmp_path, monkeypatch):
    rundir = RunDir(tmp_path, "toy", {})
    made = []

    def make():
        made.append(1)
        return {name: {"loss": np.full(2, float(name))} for name in "123"}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_arrays", killed)
        with pytest.raises(KeyboardInterrupt):
            rundir.once_all("123", make)
    rundir = RunDir(tmp_path, "toy", {})
    assert rundir.part("1") is None
    first = rundir.once_all("123", make)
    again = RunDir(tmp_path, "toy", {})
    second = again.once_all("312", make)
    assert len(made) == 2
    assert [*second] == ["3", "1", "2"]
    assert [again.once(name, make)["loss"][0] for name in "123"] == [1, 2, 3]
    np.testing.assert_array_equal(first["2"]["loss"], second["2"]["loss"])
    assert [x.name for x in (tmp_path / "curves").iterdir()] == ["1.npz"]
    again.once_all("14", lambda: {n: {"loss": np.zeros(1)} for n in "14"})
    assert RunDir(tmp_path, "toy", {}).once("1", make)["loss"][0] == 1
    for together in ({"1": {"loss": np.zeros(2)}}, {"4": {}, "2": {"x": np.zeros(1)}}):
        with pytest.raises(ValueError, match="is stored"):
            again.keep_all(together)


@pytest.mark.parametrize("arrays", [{}, {"loss/mean": np.zeros(1)}])
def test_parts_that_could_not_be_read_again_are_refused(tmp_path, arrays):
    with pytest.raises(ValueError, match="needs one or more, whose names have no /"):
        RunDir(tmp_path, "toy", {}).keep("arm", arrays)
