"""Sets that are always at hand, random changes of examples, and streams.

Counts of random events lie within 4.5 standard deviations of what is expected, fixed
seeds: one in 150,000 would not.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from optsde import data
from optsde.data import text

Z = 4.5


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def examples_of(shape, seed=0):
    images = np.random.RandomState(seed).randint(0, 256, shape, np.uint8)
    return images, np.arange(len(images), dtype=np.int32)


def within(count, n, p):
    return abs(count - n * p) < Z * np.sqrt(n * p * (1 - p))


# Sets


@pytest.mark.full  # the import takes a second
def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = data.digits()
    assert_same(inputs, (pixels / 16 - 0.3).astype(np.float32))
    assert_same(targets, labels.astype(np.int32))


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (1500, 297)),
        ({"train_size": 256}, (256, 1541)),
        ({"train_size": 1500}, (1500, 297)),
    ],
)
def test_digits_are_split(options, sizes):
    digits = data.load("digits", **options)
    assert (len(digits.train[0]), len(digits.test[1])) == sizes
    assert digits.train[0].dtype == np.uint8
    assert digits.train[1].dtype == np.int32
    every = np.concatenate([digits.train[0], digits.test[0]]).reshape(1797, -1)
    same = (data.digits()[0] + 0.3) * 16
    order = np.lexsort(every.T), np.lexsort(np.rint(same).astype(np.uint8).T)
    np.testing.assert_array_equal(every[order[0]], np.rint(same)[order[1]])


def test_subsets_are_fixed_and_nested():
    few, more = (data.load("digits", train_size=n, subset=1).train for n in (100, 200))
    assert_same(few, jax.tree.map(lambda x: x[:100], more))
    assert_same(few, data.load("digits", train_size=100, subset=1).train)
    other = data.load("digits", train_size=100, subset=2).train
    assert not np.array_equal(few[1], other[1])


@pytest.mark.parametrize("name", ["digits", "synthetic"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalised_pixels_have_mean_0_and_variance_1(name, dtype):
    full = data.load(name)
    x = jax.jit(lambda x: full.normalise(x, dtype))(full.train[0])
    assert x.dtype == dtype
    x = np.asarray(x, np.float64)
    channels = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(x.mean(channels), 0, atol=0.01)
    np.testing.assert_allclose(x.std(channels), 1, atol=0.01)


def test_published_statistics_are_in_units_of_white():
    mean, std = np.float32([0.5, 0.25, 0.1]), np.float32([0.1, 0.2, 0.3])
    empty = (np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0, np.int32))
    rgb = data.Dataset("x", empty, empty, 2, tuple(mean.tolist()), tuple(std.tolist()))
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3) * 20
    np.testing.assert_allclose(
        rgb.normalise(pixels), (pixels / 255 - mean[None, None, None]) / std, rtol=1e-5
    )


def test_synthetic_labels_can_be_learned():
    few = data.load(
        "synthetic", shape=(5, 7, 2), classes=3, train=300, test=100, seed=4
    )
    assert few.train[0].shape == (300, 5, 7, 2)
    assert_same(few.train, data.load("synthetic", shape=(5, 7, 2), classes=3, train=300,
                                     test=100, seed=4).train)  # fmt: skip
    flat = [x.reshape(len(x), -1).astype(float) for x in (few.train[0], few.test[0])]
    means = np.stack([flat[0][few.train[1] == c].mean(0) for c in range(3)])
    found = ((flat[1][:, None] - means) ** 2).sum(-1).argmin(1)
    assert (found == few.test[1]).mean() > 0.95


def test_text_is_python_source():
    full = data.load("text", context=64)
    inputs, targets = full.train
    assert inputs.dtype == np.uint8
    assert targets.dtype == np.int32
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    windows = np.concatenate([inputs, targets[:, -1:].astype(np.uint8)], axis=1)
    source = windows.tobytes().decode("utf-8", errors="ignore")
    assert source.count("\n    def ") > 1000
    assert source.startswith(text.source_files()[0][0].read_text()[:1000])
    assert_same(full.train, data.load("text", context=64).train)


def test_held_out_text_is_of_other_files():
    train, test = text.source_files()
    assert not set(train) & set(test)
    assert not any("site-packages" in file.parts for file in train + test)
    assert 0.05 < len(test) / len(train) < 0.15
    full = data.load("text", context=128)
    seen = {row.tobytes() for row in full.train[0]}
    repeated = sum(row.tobytes() in seen for row in full.test[0])
    assert repeated / len(full.test[0]) < 0.001  # a table may be in two files


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "cifar11",
            {},
            "'cifar11' is not known; did you mean 'cifar10'? One of: digits",
        ),
        ("cifar10", {}, "run `python -m optsde.data.prepare cifar10 --root"),
        ("digits", {"train_size": 1501}, "train_size=1501 must be from 1 to 1500"),
        ("digits", {"train_size": 0}, "train_size=0 must be from 1"),
        ("digits", {"shape": 3}, "shape is no option of 'digits'; it takes: none"),
        ("text", {"content": 3}, "content is no option of 'text'; it takes: context"),
        ("text", {"context": 0}, "context=0 must be from 1"),
    ],
)
def test_errors_say_what_to_do_in_one_line(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        data.load(name, root=tmp_path, **options)
    assert "\n" not in str(error.value)


def test_where_sets_lie(monkeypatch, tmp_path):
    assert data.data_root("/a") == data.data_root("/a/")
    monkeypatch.setenv("OPTSDE_DATA", str(tmp_path))
    assert data.data_root() == tmp_path
    with pytest.raises(data.NotPreparedError, match=str(tmp_path)):
        data.load("mnist")


# Random changes


@pytest.mark.parametrize(("shape", "pad"), [((3000, 8, 8, 1), 1), ((999, 9, 6, 3), 2)])
def test_crops_are_shifts_and_all_as_frequent(shape, pad):
    """Each output is one of the (2 pad + 1)² shifts; χ² below its 1 − 1e-5 quantile."""
    images, labels = examples_of(shape)
    keys = jax.random.split(jax.random.key(0), shape[0])
    cropped, same = jax.jit(data.crop(pad))(keys, (images, labels))
    np.testing.assert_array_equal(same, labels)
    assert cropped.dtype == np.uint8
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = shape[1:3]
    counts = []
    for i in range(2 * pad + 1):
        for j in range(2 * pad + 1):
            shifted = padded[:, i : i + height, j : j + width]
            counts.append((shifted == np.asarray(cropped)).all((1, 2, 3)).sum())
    assert sum(counts) == shape[0]
    chi2 = stats.chisquare(counts).statistic
    assert chi2 < stats.chi2.ppf(1 - 1e-5, len(counts) - 1), counts


def test_half_of_the_images_are_flipped():
    images, labels = examples_of((2000, 4, 5, 3))
    keys = jax.random.split(jax.random.key(1), 2000)
    flipped, _ = jax.jit(data.flip())(keys, (images, labels))
    kept = (np.asarray(flipped) == images).all((1, 2, 3))
    mirrored = (np.asarray(flipped) == images[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert within(mirrored.sum(), 2000, 0.5)


def test_masks_follow_bert():
    tokens = np.random.RandomState(0).randint(1, 256, (400, 100)).astype(np.uint8)
    keys = jax.random.split(jax.random.key(2), 400)
    seen, targets = jax.jit(data.mask_tokens())(keys, (tokens, None))
    seen, targets = np.asarray(seen), np.asarray(targets)
    chosen = targets != -1
    assert within(chosen.sum(), 40_000, 0.15)
    np.testing.assert_array_equal(targets[chosen], tokens[chosen])
    np.testing.assert_array_equal(seen[~chosen], tokens[~chosen])
    n = chosen.sum()  # a random token is 0, or the same as before, once in 256
    assert within((seen[chosen] == 0).sum(), n, 0.8 + 0.1 / 256)
    assert within((seen[chosen] == tokens[chosen]).sum(), n, 0.1 + 0.1 / 256)


IMAGES = data.compose(data.crop(2), data.flip())


@pytest.mark.parametrize(
    ("augment", "shape"), [(IMAGES, (96, 8, 8, 3)), (data.mask_tokens(), (96, 32))]
)
def test_blocks_change_nothing(augment, shape):
    given = jax.random.split(jax.random.key(3), 96), examples_of(shape)
    compiled = jax.jit(augment)
    blocks = [
        compiled(*jax.tree.map(lambda x, rows=rows: x[rows], given))
        for rows in (slice(0, 32), slice(32, 64), slice(64, 96))
    ]
    whole = compiled(*given)
    assert_same(whole, jax.tree.map(lambda *x: np.concatenate(x), *blocks))


def test_composed_changes_are_independent():
    """A flip after a flip leaves half of the images as they were."""
    examples = examples_of((2000, 2, 3, 1))
    keys = jax.random.split(jax.random.key(4), 2000)
    twice, _ = jax.jit(data.compose(data.flip(), data.flip()))(keys, examples)
    assert within((np.asarray(twice) == examples[0]).all((1, 2, 3)).sum(), 2000, 0.5)


def test_nothing_is_moved_to_or_from_the_host():
    digits = data.load("digits")

    @jax.jit
    def batch(keys, images, labels):
        images, labels = IMAGES(keys, (images, labels))
        return digits.normalise(images), labels

    keys = jax.random.split(jax.random.key(0), 128)
    examples = jax.device_put(jax.tree.map(lambda x: x[:128], digits.train))
    batch(keys, *examples)
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(batch(keys, *examples))


def test_frozen_copies_do_not_depend_on_blocks():
    examples = examples_of((50, 6, 6, 1))
    images, labels = data.frozen(examples, IMAGES, copies=3, seed=1)
    assert isinstance(images, np.ndarray)
    assert images.shape == (150, 6, 6, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.tile(examples[1], 3))
    assert_same((images, labels), data.frozen(examples, IMAGES, 3, seed=1, block=25))
    assert not np.array_equal(images[:50], images[50:100])
    assert not np.array_equal(images, data.frozen(examples, IMAGES, 3, seed=2)[0])


# Streams


class Records:
    """Examples one by one, as dictionaries."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": index, "id": f"{index}".encode()}


def source_of(kind, tmp_path):
    images, labels = examples_of((500, 4, 4, 1))
    if kind == "arrays":
        return data.Stream(data.Arrays(images, labels)), (images, labels)
    if kind == "memory map":
        np.save(tmp_path / "images.npy", images)
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        return data.Stream(data.Arrays(mapped, labels)), (images, labels)
    records = data.Stream(Records(images), lambda e: (e["image"], np.int32(e["label"])))
    return records, (images, labels)


@pytest.mark.parametrize("kind", ["arrays", "memory map", "records"])
def test_a_stream_keeps_the_order(kind, tmp_path):
    stream, arrays = source_of(kind, tmp_path)
    indices = list(np.random.RandomState(0).randint(0, 500, (5, 6, 8)))
    found = list(stream.batches(iter(indices)))
    assert len(found) == 5
    for index, examples in zip(indices, found, strict=True):
        assert_same(examples, jax.tree.map(lambda x, i=index: x[i], arrays))
    one = stream.fetch(indices[0][0])
    assert_same(one, jax.tree.map(lambda x: x[indices[0][0]], arrays))


def test_a_stream_reads_ahead_but_not_far():
    stream, _ = source_of("arrays", None)
    asked = []

    def indices():
        for i in range(100):
            asked.append(i)
            yield np.full((2, 3), i)

    batches = stream.batches(indices(), ahead=2)
    _, labels = next(batches)
    assert asked == [0, 1, 2]
    np.testing.assert_array_equal(labels, np.zeros((2, 3)))
    batches.close()


@pytest.mark.parametrize("index", [[[0, 500]], [[-1, 0]], np.zeros((0, 2), int)])
def test_a_stream_refuses_what_is_not_there(index):
    stream, _ = source_of("arrays", None)
    with pytest.raises(ValueError, match="must hold numbers from 0 to 499"):
        stream.fetch(np.asarray(index))


def test_an_error_in_a_source_is_seen():
    def fails(example):
        raise RuntimeError("a torn record")

    stream = data.Stream(Records(np.zeros((9, 2))), fails)
    with pytest.raises(RuntimeError, match="a torn record"):
        next(stream.batches([np.zeros((1, 2), int)]))
