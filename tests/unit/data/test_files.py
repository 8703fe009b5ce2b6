"""Data of one's own: arrays, and files by path that each test makes."""

import csv
import importlib.util
import re

import numpy as np
import pytest

from optsde import data
from optsde.data import files, hub

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (20, 4, 5, 3), np.uint8)
LABELS = np.arange(20) % 4
FEATURES = RANDOM.randn(20, 3)


def save_images(folder, images, labels, suffix="png"):
    import PIL.Image

    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        file = folder / f"class{label}" / f"{number:02}.{suffix}"
        PIL.Image.fromarray(image).save(file)


def write_csv(file, rows, header=None):
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows([header, *rows] if header else rows)


def write_parquet(file, **columns):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table(columns), file)


def all_rows(dataset):
    """Inputs and targets of both parts, in the order of their first numbers."""
    parts = zip(dataset.train, dataset.test, strict=True)
    inputs, targets = (np.concatenate(part) for part in parts)
    order = np.lexsort(inputs.reshape(len(inputs), -1).T[::-1])
    return inputs[order], targets[order]


def assert_holds(dataset, inputs, targets):
    found = all_rows(dataset)
    order = np.lexsort(inputs.reshape(len(inputs), -1).T[::-1])
    np.testing.assert_array_equal(found[0], inputs[order].astype(found[0].dtype))
    np.testing.assert_array_equal(found[1], targets[order])


# ---- arrays


def test_a_fifth_is_held_out_and_scales_are_those_of_training():
    full = data.from_arrays(IMAGES, LABELS)
    assert_holds(full, IMAGES, LABELS)
    assert (len(full.train[0]), len(full.test[0]), full.classes) == (16, 4, 4)
    assert full.is_images
    assert full.train[0].dtype == np.uint8
    pixels = full.train[0].reshape(-1, 3) / 255
    np.testing.assert_allclose(full.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(full.std, pixels.std(0), rtol=1e-12)
    other = data.from_arrays(IMAGES, LABELS, seed=1)
    assert not np.array_equal(full.test[0], other.test[0])
    rows = data.from_arrays(1e3 + FEATURES * [1e2, 1e3, 0], LABELS)
    x = np.asarray(rows.normalise(rows.train[0]))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(x.std(0), [1, 1, 0], atol=1e-2)


def test_statistics_are_of_all_blocks(monkeypatch):
    whole = data.from_arrays(IMAGES, LABELS)
    monkeypatch.setattr("optsde.data.arrays.BLOCK", 3)
    parts = data.from_arrays(IMAGES, LABELS)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-12)


def test_numbers_to_be_predicted_have_unit_variance():
    full = data.from_arrays(FEATURES, 5 + 3 * FEATURES[:, 0])
    assert (full.classes, full.outputs) == (None, 1)
    (train_x, train_y), (test_x, test_y) = full.train, full.test
    assert train_y.shape == (16, 1)
    assert train_y.dtype == np.float32
    np.testing.assert_allclose([train_y.mean(), train_y.std()], [0, 1], atol=1e-6)
    mean, std = train_x[:, 0].mean(), train_x[:, 0].std()
    np.testing.assert_allclose(test_y[:, 0], (test_x[:, 0] - mean) / std, atol=1e-5)
    both = data.from_arrays(FEATURES, FEATURES[:, :2])
    assert (both.classes, both.outputs) == (None, 2)


def test_names_are_classes_and_grey_images_have_a_channel():
    names = np.array(["cat", "ant", "dog", "bee"])[LABELS]
    full = data.from_arrays(IMAGES[..., 0], names)
    assert full.train[0].shape == (16, 4, 5, 1)
    assert_holds(full, IMAGES[..., :1], np.array([2, 0, 3, 1])[LABELS])
    held = data.from_arrays(IMAGES, names, (IMAGES[:2], names[:2]))
    assert sorted(held.test[1]) == [0, 2]
    assert len(held.train[0]) == 20


NAN = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, FEATURES)
LARGE = np.where(np.arange(60).reshape(20, 3) == 7, 1e300, FEATURES)


@pytest.mark.parametrize(
    ("inputs", "targets", "says"),
    [
        (IMAGES, LABELS[:-1], "20 inputs and 19 targets for training"),
        (IMAGES, LABELS - 1, "a label is -1: labels count the classes from 0"),
        (IMAGES, 1 + LABELS, "labels run up to 4, and no training example is of class"),
        (IMAGES, 2 * LABELS, "no training example is of class 1: number the classes"),
        (IMAGES, 1.0 * LABELS, "targets are floats 0.0 … 3.0, as labels are: give"),
        (IMAGES, np.eye(4)[LABELS], "targets are one-hot rows of floats: give classes"),
        (IMAGES, np.eye(4, dtype=int)[LABELS], "of one-hot rows argmax"),
        (IMAGES, 0 * LABELS, "all labels are 0: there is nothing to tell apart"),
        (IMAGES, 0.5 + 0 * LABELS, "all training targets are alike"),
        (IMAGES, 1j * LABELS, "targets are complex128"),
        (NAN, LABELS, "inputs[2, 1] is nan: all inputs must be finite"),
        (LARGE, LABELS, "inputs[2, 1] is 1e+300: all inputs must be finite in float32"),
        (FEATURES, NAN[:, 1], "is nan"),
        (1e9 + FEATURES, LABELS, "which float32 does not resolve: subtract its mean"),
        (IMAGES[:0], LABELS[:0], "there are no training examples"),
        (IMAGES[:1], LABELS[:1], "one example is none to train on and one to hold"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, "with channels first: transpose them"),
        (
            IMAGES[:, None],
            LABELS,
            "needs images [n, h, w, channels] or features [n, d]",
        ),
        (IMAGES.astype(str), LABELS, "inputs are <U3, and must be numbers"),
    ],
)
def test_what_cannot_be_examples_is_one_line(inputs, targets, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        data.from_arrays(inputs, targets, name="mine")
    assert str(error.value).startswith("mine: ")
    assert "\n" not in str(error.value)


def test_held_out_examples_must_be_of_the_same_kind():
    for test, says in (
        ((IMAGES[:, :3], LABELS), "training inputs are 4×5×3, held-out ones 3×5×3"),
        ((IMAGES, LABELS + 1), "a held-out label is 4, training labels end at 3"),
        ((IMAGES, 1.0 * LABELS), "targets are int64 and float64"),
    ):
        with pytest.raises(ValueError, match=re.escape(says)):
            data.from_arrays(IMAGES, LABELS, test)
    with pytest.raises(ValueError, match="no training example is of the class 'x'"):
        data.from_arrays(IMAGES, LABELS.astype(str), (IMAGES[:1], np.array(["x"])))


# ---- files


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_folder_of_images(tmp_path, suffix):
    save_images(tmp_path / "mine", IMAGES, LABELS, suffix)
    (tmp_path / "mine" / ".hidden").mkdir()
    (tmp_path / "mine" / "class0" / "Thumbs.db").write_bytes(b"\0")
    assert_holds(data.load(str(tmp_path / "mine")), IMAGES, LABELS)
    few = data.load(str(tmp_path / "mine"), train_size=8, subset=1, seed=2)
    assert few.train[0].shape == (8, 4, 5, 3)


def test_a_folder_with_train_and_val(tmp_path):
    save_images(tmp_path / "train", IMAGES[:16], LABELS[:16])
    save_images(tmp_path / "val", IMAGES[16:, ..., 0], LABELS[16:])
    with pytest.raises(ValueError, match="training inputs are 4×5×3, held-out ones"):
        data.load(str(tmp_path))
    save_images(tmp_path / "val", IMAGES[16:], LABELS[16:])
    full = data.load(str(tmp_path))
    assert_holds(full, IMAGES, LABELS)
    assert {x.tobytes() for x in full.test[0]} == {x.tobytes() for x in IMAGES[16:]}
    (tmp_path / "dev").mkdir()
    with pytest.raises(ValueError, match="has the folders dev, train, val: leave trai"):
        data.load(str(tmp_path))


def test_no_prefix_of_examples_is_of_one_class(tmp_path):
    many = RANDOM.randint(0, 256, (60, 4, 5, 3), np.uint8)
    for part in ("train", "test"):
        save_images(tmp_path / part, many, np.arange(60) % 3)
    full, other = (data.load(str(tmp_path), seed=seed) for seed in (0, 1))
    for part in (full.train, full.test):
        assert {*part[1][:15]} == {0, 1, 2}
    assert not np.array_equal(full.test[0], other.test[0])
    few = data.load(str(tmp_path), train_size=50)
    assert len(few.train[0]) == 50


def test_grey_and_opaque_images_keep_their_pixels(tmp_path):
    import PIL.Image

    save_images(tmp_path / "grey", IMAGES[..., 0], LABELS)
    grey = data.load(str(tmp_path / "grey"))
    assert_holds(grey, IMAGES[..., :1], LABELS)
    opaque = np.concatenate([IMAGES, np.full((20, 4, 5, 1), 255, np.uint8)], -1)
    save_images(tmp_path / "opaque", opaque, LABELS)
    assert_holds(data.load(str(tmp_path / "opaque")), IMAGES, LABELS)
    file = tmp_path / "opaque" / "class0" / "00.png"
    opaque[0, 0, 0, 3] = 7
    PIL.Image.fromarray(opaque[0]).save(file)
    with pytest.raises(ValueError, match=r"class0/00.png: is partly transparent"):
        data.load(str(tmp_path / "opaque"))
    for image in (IMAGES[0], IMAGES[0, ..., 0], IMAGES[0, ..., 0] > 99):
        picture = PIL.Image.fromarray(image)
        picture.save(file, transparency=picture.getpixel((0, 0)))
        with pytest.raises(ValueError, match=r"class0/00.png: is partly transparent"):
            data.load(str(tmp_path / "opaque"))
    palette = PIL.Image.fromarray(IMAGES[0]).quantize(8)
    palette.save(file, transparency=palette.getpixel((0, 0)))
    with pytest.raises(ValueError, match=r"class0/00.png: is partly transparent"):
        data.load(str(tmp_path / "opaque"))
    palette.save(file, transparency=200)  # which no pixel has
    assert len(data.load(str(tmp_path / "opaque")).train[0]) == 16
    PIL.Image.fromarray(IMAGES[0, ..., 0].astype(np.uint16)).save(file)
    with pytest.raises(ValueError, match=r"class0/00.png: has pixels of kind I"):
        data.load(str(tmp_path / "opaque"))
    file.write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot identify image file") as error:
        data.load(str(tmp_path / "opaque"))
    assert "\n" not in str(error.value)


NPZ = {
    "own": ("train_images", "train_labels", "test_images", "test_labels"),
    "keras": ("x_train", "y_train", "x_test", "y_test"),
}


@pytest.mark.parametrize("names", NPZ.values(), ids=NPZ)
def test_an_npz_with_held_out_examples(tmp_path, names):
    arrays = IMAGES[:15], LABELS[:15], IMAGES[15:], LABELS[15:]
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    full = data.load(str(tmp_path / "a.npz"))
    assert_holds(full, IMAGES, LABELS)
    assert sorted(full.test[1]) == sorted(LABELS[15:])


def test_arrays_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", X=FEATURES, y=LABELS)
    assert_holds(data.load("a.npz"), FEATURES, LABELS)
    np.save("b.npy", IMAGES)
    np.save("b_labels.npy", LABELS)
    assert_holds(data.load("b.npy"), IMAGES, LABELS)
    kind = [("x", float, (3,)), ("y", int)]
    rows = [(tuple(x), y) for x, y in zip(FEATURES, LABELS, strict=True)]
    np.save("c.npy", np.array(rows, kind))
    assert_holds(data.load("./c.npy"), FEATURES, LABELS)
    np.savez("d.npz", train_text=np.arange(99, dtype=np.uint8),
             test_text=np.arange(50, dtype=np.uint8))  # fmt: skip
    text = data.load("d.npz", context=9)
    assert (text.is_text, text.train[0].shape) == (True, (9, 9))


def test_images_among_prepared_sets(tmp_path):
    np.savez(tmp_path / "mine.npz", x=IMAGES, y=LABELS)
    assert_holds(data.load("mine", root=tmp_path), IMAGES, LABELS)
    np.savez(tmp_path / "mnist.npz", x_train=IMAGES, y_train=LABELS)
    np.savez(tmp_path / "lm1b.npz", x=IMAGES, y=LABELS)
    for name in ("mnist", "lm1b"):
        with pytest.raises(
            ValueError, match=f"{name}.npz holds .* load it by its path"
        ):
            data.load(name, root=tmp_path)


def test_a_csv_of_classes_and_one_of_numbers(tmp_path):
    file = tmp_path / "a.csv"
    rows = [[*x, f"kind {y}"] for x, y in zip(FEATURES, LABELS, strict=True)]
    write_csv(file, rows)
    assert_holds(data.load(str(file)), FEATURES, LABELS)
    write_csv(file, [[y, *x] for *x, y in rows], ["Label", "a", "b", "c"])
    assert_holds(data.load(str(file)), FEATURES, LABELS)
    numbers = FEATURES @ [1, 2, 3]
    write_csv(file, [[*x, y] for x, y in zip(FEATURES, numbers, strict=True)])
    full = data.load(str(file))
    assert (full.classes, full.train[1].shape) == (None, (16, 1))


def test_names_of_a_csv_may_be_numbers(tmp_path):
    file = tmp_path / "a.CSV"
    rows = [[*x, y] for x, y in zip(FEATURES, LABELS, strict=True)]
    write_csv(file, rows, [0, 1, 2, "label"])
    assert_holds(data.load(str(file)), FEATURES, LABELS)
    write_csv(file, [[*x, f"kind {y}"] for *x, y in rows], [0, 1, 2, "label"])
    assert_holds(data.load(str(file)), FEATURES, LABELS)
    for last in (3, "kind"):
        kinds = [[*x, f"kind {y}"] if last == "kind" else [*x, y] for *x, y in rows]
        write_csv(file, kinds, [0, 1, 2, last])
        with pytest.raises(
            ValueError, match=f"the first row is 0, 1, 2, {last}, which"
        ):
            data.load(str(file))
    write_csv(file, [["NA", 1, 2, 0], *rows])
    with pytest.raises(ValueError, match="column 'column 1' has 'NA': features must"):
        data.load(str(file))


def test_a_parquet_is_read_as_the_csv_is(tmp_path):
    file, columns = tmp_path / "a.parquet", dict(zip("abc", FEATURES.T, strict=True))
    write_parquet(file, **columns, target=[f"kind {y}" for y in LABELS])
    assert_holds(data.load(str(file)), FEATURES, LABELS)
    write_parquet(file, a=[1, None], y=[0, 1])
    with pytest.raises(ValueError, match="column 'a' has 1 missing values"):
        data.load(str(file))
    write_parquet(file, a=[[1, 2], [3]], y=[0, 1])
    with pytest.raises(ValueError, match="column 'a' is list"):
        data.load(str(file))


def test_an_index_of_pandas_is_no_feature(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    file = tmp_path / "a.parquet"
    frame = pandas.DataFrame(FEATURES, columns=list("abc")).assign(label=LABELS)
    frame.to_parquet(file)
    assert_holds(data.load(str(file)), FEATURES, LABELS)
    frame = frame.set_index(RANDOM.permutation(20))
    for name in ("__index_level_0__", "id"):
        frame.to_parquet(file)
        with pytest.raises(ValueError, match=f"column '{name}' is the index of a pand"):
            data.load(str(file))
        frame.index.name = "id"
    frame.to_parquet(file, index=False)
    assert_holds(data.load(str(file)), FEATURES, LABELS)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    save_images(tmp_path / "photos", IMAGES, LABELS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="`pip install pillow`"):
        data.load(str(tmp_path / "photos"))
    for name, extra in ((str(tmp_path / "a.parquet"), "parquet"), ("hf://a", "hf")):
        with pytest.raises(ValueError, match=rf"`pip install optsde\[{extra}\]`"):
            data.load(name)


def test_text_by_path(tmp_path):
    letters = ("abcdefghij" * 30).encode()
    (tmp_path / "a.log").write_bytes(letters)
    full = data.load(str(tmp_path / "a.log"), context=9)
    assert full.train[0].tobytes() == b"abcdefghi" * 27
    np.testing.assert_array_equal(full.train[1][0], list(b"bcdefghij"))
    assert len(full.test[0]) == 3
    folder = tmp_path / "texts"
    (folder / "deeper").mkdir(parents=True)
    for number in range(20):
        (folder / "deeper" / f"{number:02}.md").write_bytes(bytes([97 + number]) * 29)
    many = data.load(str(folder), context=9)
    assert set(many.test[0].tobytes()) - {10} == {97 + 9, 97 + 19}
    assert not set(many.train[0].tobytes()) & {97 + 9, 97 + 19}


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.csv", b"", "there are no rows"),
        ("a.csv", b"a,b\n", "there are no rows below the names"),
        (
            "a.csv",
            b"a;b\n1;2\n",
            "one column, 'a;b': needs features and a target, sepa",
        ),
        ("a.csv", b"a,b\n1,2\n3\n", "row 2 has 1 values, and there are 2 columns"),
        ("a.csv", b"a,b\n1,2\n,0\n", "row 2 has 1 values"),
        ("a.csv", b"a,b\n1,2\nNA,0\n", "column 'a' has 'NA': features must be numbers"),
        ("a.csv", b"a,b\n1,2\nnan,0\n", "column 'a' has nan in row 2: fill it in"),
        ("a.csv", b"a,b\n1,NA\n2,0\n", "column 'b' has 'NA' in row 1: fill it in or"),
        ("a.csv", b",0,1,label\n0,1,2,0\n", "a column has no name: name it, or leave"),
        ("a.csv", b"0,1\n1,0\n", "the first row is 0, 1, which may count the columns"),
        ("a.tsv", b"1\t2\n", "a.tsv: tables of kind .tsv are not read: save it as"),
        ("a.JSONL", b"{}\n", "a.JSONL: tables of kind .jsonl are not read: save it"),
        ("a.csv", b"a,a\n1,2\n", "two columns have the same name"),
        ("a.csv", b",a,b\n0,1,2\n", "a column has no name: name it, or leave it out"),
        ("a.csv", b"y,label,a\n0,1,2\n", "columns y, label are all named as targets"),
        ("a.npz", b"", "a.npz: "),
        ("a.npz", b"PK", "a.npz: "),
        ("a.npy", b"x", "a.npy: "),
        ("a.parquet", b"x", "a.parquet: "),
        ("a.txt", b"", "the text is empty"),
        ("a.txt", b"ab", "context=128 must be from 1 to"),
        ("a.tar", b"\xff\0", "a.tar is not text in UTF-8; needs a folder of images"),
    ],
)
def test_files_that_hold_no_data_are_one_line(tmp_path, file, content, says):
    pytest.importorskip("pyarrow")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        data.load(str(tmp_path / file))
    assert str(error.value).startswith(str(tmp_path / file))
    assert "\n" not in str(error.value)


def test_folders_and_paths_that_hold_no_data(tmp_path):
    def says(words, name):
        with pytest.raises(ValueError, match=words) as error:
            data.load(str(tmp_path / name))
        assert "\n" not in str(error.value)

    says("no such file or folder; needs a folder of images by class", "none.csv")
    (tmp_path / "empty").mkdir()
    says("a folder without images or texts; needs", "empty")
    save_images(tmp_path / "flat", IMAGES[:1], [0])
    (tmp_path / "flat" / "class0" / "00.png").rename(tmp_path / "flat" / "00.png")
    says("needs a folder for each class, with its images in it", "flat")
    save_images(tmp_path / "sizes", IMAGES[:3], LABELS[:3])
    save_images(tmp_path / "sizes", IMAGES[3:4, :3], [7])
    says(r"00.png is 5×3 pixels and 00.png 5×4: make all images one size", "sizes")
    save_images(tmp_path / "hole", IMAGES, LABELS)
    (tmp_path / "hole" / "class9").mkdir()
    says("hole/class9 holds no images", "hole")
    save_images(tmp_path / "one", IMAGES, 0 * LABELS)
    says("all labels are 0: there is nothing to tell apart", "one")
    np.savez(tmp_path / "a.npz", images=IMAGES)
    says("holds images; needs arrays called train_images train_labels", "a.npz")
    np.savez(tmp_path / "b.npz", x=np.array([None, 1]), y=LABELS[:2])
    says("b.npz: Object arrays cannot be loaded", "b.npz")
    np.save(tmp_path / "a.npy", IMAGES)
    says("has no targets: needs a_labels.npy beside it, or fields x and y", "a.npy")
    np.save(tmp_path / "c.npy", np.zeros(3, [("x", float), ("z", int)]))
    says("has the fields x, z; needs x and y", "c.npy")
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    with pytest.raises(ValueError, match=r"context is no option of .*; it takes: seed"):
        data.load(str(tmp_path / "a.npz"), context=3)


# ---- the datasets library


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Saves a table of the `datasets` library; returns its name for `data.load`."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def store(name="here", features=None, **columns):
        made = datasets.Dataset.from_dict(columns, features=features)
        made.save_to_disk(str(tmp_path / name))
        return f"{hub.PREFIX}{tmp_path / name}"

    return store


def test_a_table_and_images_of_the_datasets_library(stored):
    import datasets

    columns = dict(zip("abc", FEATURES.T.tolist(), strict=True))
    assert_holds(data.load(stored(**columns, label=LABELS)), FEATURES, LABELS)
    features = {"pic": datasets.Image(), "label": datasets.ClassLabel(4)}
    images = [files_image(x) for x in IMAGES]
    name = stored("pics", datasets.Features(features), pic=images, label=LABELS)
    assert_holds(data.load(name), IMAGES, LABELS)


def files_image(array):
    import PIL.Image

    return PIL.Image.fromarray(array)


def test_text_of_the_datasets_library(stored):
    full = data.load(stored(text=["abcdefghi"] * 40), context=9)
    assert full.train[0].tobytes() == b"abcdefghi" * 36
    with pytest.raises(ValueError, match="has text and label, and no net here"):
        data.load(stored("imdb", text=["a", "b"], label=[0, 1]))


def test_a_local_folder_of_splits(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = [[*x, y] for x, y in zip(FEATURES, LABELS, strict=True)]
    (tmp_path / "set").mkdir()
    write_csv(tmp_path / "set" / "train.csv", rows[:16], ["a", "b", "c", "label"])
    write_csv(tmp_path / "set" / "test.csv", rows[16:], ["a", "b", "c", "label"])
    made = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "c"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: made)
    full = data.load(f"hf://{tmp_path / 'set'}")
    assert_holds(full, FEATURES, LABELS)
    assert sorted(full.test[1]) == sorted(LABELS[16:])
    made["dev"] = made.pop("test")
    with pytest.raises(ValueError, match="has the splits train, dev, and none to hold"):
        data.load(f"hf://{tmp_path / 'set'}")
    made["valid"] = made.pop("dev")
    assert sorted(data.load(f"hf://{tmp_path / 'set'}").test[1]) == sorted(LABELS[16:])


def test_what_the_datasets_library_refuses_is_one_line(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"hf://{tmp_path}/empty: ") as error:
        data.load(f"hf://{tmp_path}/empty")
    assert "\n" not in str(error.value)


def test_a_name_is_not_a_path_unless_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not files.is_path("cifar11")
    with pytest.raises(ValueError, match=r"'cifar11' is not known.*, or a path"):
        data.load("cifar11", root=tmp_path)
    save_images(tmp_path / "cifar11", IMAGES, LABELS)
    assert_holds(data.load("cifar11", root=tmp_path), IMAGES, LABELS)
