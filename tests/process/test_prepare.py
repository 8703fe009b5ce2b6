"""The command that prepares a set, on CIFAR-10's real builder and a few made images.

TensorFlow and TFDS run in processes of their own, since their warnings are not ours.
"""

import importlib.util
import io
import sys
import tarfile

import numpy as np
import pytest
from helpers import run_child

from optsde import data

PER_FILE = {**{f"data_batch_{i}.bin": 4 for i in range(1, 6)}, "test_batch.bin": 6}
HIDE_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] != "tensorflow":
            return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
from optsde.data.prepare import main
main(sys.argv[1:])
"""


def needs(package, name):
    """Skips where a package of the extra [prepare] is not installed."""
    missing = importlib.util.find_spec(package) is None
    reason = f"needs {name}: pip install 'optsde[prepare]'"
    return pytest.mark.skipif(missing, reason=reason)


needs_tensorflow = needs("tensorflow", "TensorFlow")
pytestmark = [pytest.mark.full, needs("tensorflow_datasets", "tensorflow_datasets")]


def run(*args, code=None):
    start = ["-c", code] if code else ["-m", "optsde.data.prepare"]
    return run_child([sys.executable, *start, *map(str, args)])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """(folder of cifar-10-binary.tar.gz, {"train" | "test": (images, labels)})."""
    folder = tmp_path_factory.mktemp("downloads")
    random, written = np.random.RandomState(0), {"train": [], "test": []}
    files = {"batches.meta.txt": "\n".join("abcdefghij").encode()}
    for name, count in PER_FILE.items():
        rows = random.randint(0, 256, (count, 1 + 3072), np.uint8)
        rows[:, 0] %= 10
        written["test" if name == "test_batch.bin" else "train"].append(rows)
        files[name] = rows.tobytes()
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder, {split: as_images(rows) for split, rows in written.items()}


def as_images(rows):
    """Rows are a label, then 32×32 pixels of red, of green and of blue."""
    rows = np.concatenate(rows)
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, rows[:, 0].astype(np.int32)


@pytest.fixture(scope="module")
def root(archive, tmp_path_factory):
    """Where the command has prepared the set."""
    place = tmp_path_factory.mktemp("root")
    done = run("cifar10", "--from", archive[0], "--root", place, "--unchecked")
    assert done.returncode == 0, done.stderr
    assert "train_images [20, 32, 32, 3]" in done.stdout
    assert "reading train: 100%" in done.stderr
    return place


def assert_holds(found, written):
    """The same examples, in whatever order TFDS wrote them."""
    for split, (images, labels) in written.items():
        expected = sorted((x.tobytes(), y) for x, y in zip(images, labels, strict=True))
        pairs = zip(*getattr(found, split), strict=True)
        assert sorted((x.tobytes(), y) for x, y in pairs) == expected
        assert [part.dtype for part in getattr(found, split)] == [np.uint8, np.int32]


@needs_tensorflow
def test_what_is_loaded_is_what_the_archive_holds(archive, root):
    assert_holds(data.load("cifar10", root=root), archive[1])


@needs_tensorflow
def test_loading_needs_neither_tensorflow_nor_tfds(root):
    code = """
import sys
from optsde import data
assert len(data.load("cifar10", root=sys.argv[1]).train[0]) == 20
assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)
"""
    done = run(root, code=code)
    assert done.returncode == 0, done.stderr


@needs_tensorflow
def test_preparing_again_changes_nothing(archive, root):
    before = (root / "cifar10.npz").stat().st_mtime_ns
    done = run("cifar10", "--root", root)
    assert done.returncode == 0, done.stderr
    assert "cifar10 is there" in done.stdout
    assert (root / "cifar10.npz").stat().st_mtime_ns == before
    assert not list((root / "tfds").glob("unpacked-*"))


@needs_tensorflow
def test_a_copy_of_tfds_is_read_without_tensorflow(archive, root, tmp_path):
    args = ("cifar10", "--from", root / "tfds", "--root", tmp_path)
    done = run(*args, code=HIDE_TENSORFLOW)
    assert done.returncode == 0, done.stderr
    assert_holds(data.load("cifar10", root=tmp_path), archive[1])


@needs_tensorflow
def test_tfds_records_can_be_streamed(archive, root, tmp_path):
    """In the order asked for, equal to the resident examples bit for bit."""
    code = """
import sys, numpy as np, tensorflow_datasets as tfds
from optsde import data
place = sys.argv[1]
source = tfds.data_source("cifar10", split="train", data_dir=place + "/tfds",
    builder_kwargs={"file_format": "array_record"}, download=False)
stream = data.Stream(source, lambda e: (e["image"], np.int32(e["label"])))
resident = data.load("cifar10", root=place).train
index = np.random.RandomState(0).randint(0, 20, (3, 8))
for got, whole in zip(stream.fetch(index), resident, strict=True):
    np.testing.assert_array_equal(got, whole[index], strict=True)
assert "tensorflow" not in sys.modules
"""
    done = run(root, code=code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["cifar11"], "did you mean 'cifar10'? One of: cifar10, cifar100"),
        pytest.param(
            ["cifar10", "--from", "ARCHIVE"],
            "is not the published file",
            marks=needs_tensorflow,
        ),
    ],
)
def test_errors_are_one_line(archive, tmp_path, args, message):
    folder = str(archive[0])
    args = [folder if arg == "ARCHIVE" else arg for arg in args]
    done = run(*args, "--root", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_it_says_how_to_install(tmp_path):
    done = run("cifar10", "--root", tmp_path, code=HIDE_TENSORFLOW)
    assert done.returncode == 1
    assert (
        "needs TensorFlow, once: install it with `pip install 'optsde[prepare]'`"
        in (done.stderr)
    )
    assert done.stderr.count("\n") == 1


@needs_tensorflow
def test_without_a_network_it_says_what_to_download(tmp_path, monkeypatch):
    """A proxy that nobody answers at stands for no network."""
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    done = run("cifar10", "--root", tmp_path)
    assert done.returncode == 1
    assert "cifar-10-binary.tar.gz cannot be reached: download https://" in done.stderr
    assert "optsde.data.prepare cifar10 --from DIR" in done.stderr
    assert done.stderr.count("\n") == 1
