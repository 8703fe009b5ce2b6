"""From TFDS to arrays: the only file that knows TFDS."""

import importlib.util
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from optsde.data import prepared
from optsde.data.loading import unknown

INSTALL = "install it with `pip install 'optsde[prepare]'`"


def arrays(
    name: str,
    root: pathlib.Path,
    source: str | os.PathLike | None = None,
    unchecked: bool = False,
) -> dict[str, np.ndarray]:
    """The arrays of the set: from TFDS's copy in `source` or `root`, else fetched.

    `source` holds downloaded files, or data that TFDS has prepared. With `unchecked`
    such files need not be the published ones.
    """
    tfds = _tfds()
    _check_name(tfds, name)
    home = root / "tfds"
    builder = _at_hand(tfds, name, [pathlib.Path(source)] if source else [], home)
    if builder is None:
        builder = _fetched(tfds, name, home, source, unchecked)
    _check_features(name, builder)
    return _images(builder) if name in prepared.IMAGES else _text(builder)


def _tfds() -> Any:
    for package in ("importlib_resources", "tensorflow_datasets"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"preparing needs {package}: {INSTALL}")
    import absl.logging
    import tensorflow_datasets as tfds

    absl.logging.set_verbosity(absl.logging.ERROR)
    return tfds


def _check_name(tfds: Any, name: str) -> None:
    known = tfds.list_builders(with_community_datasets=False)
    if name not in prepared.NAMES and name.split("/")[0] not in known:
        raise ValueError(unknown(name, prepared.NAMES) + ", or a text set of TFDS")


def _check_features(name: str, builder: Any) -> None:
    if name not in prepared.IMAGES and "text" not in builder.info.features:
        has = ", ".join(builder.info.features)
        raise ValueError(f"{name} has no feature `text`, but {has}")


def _at_hand(tfds: Any, name: str, sources: list, home: pathlib.Path) -> Any:
    """The newest version that TFDS has prepared in array_record form, if any."""
    for folder in (*sources, home):
        for info in sorted((folder / name).glob("**/dataset_info.json"), reverse=True):
            if info.parent.name.startswith("incomplete"):
                continue
            builder = tfds.builder_from_directory(info.parent)
            if builder.info.file_format.value == "array_record":
                return builder
    return None


def _fetched(
    tfds: Any,
    name: str,
    home: pathlib.Path,
    source: str | os.PathLike | None,
    unchecked: bool,
) -> Any:
    """Downloads and prepares a set by TFDS.

    Archives are unpacked into a folder of their own: TFDS would reuse one of the same
    name, and MNIST and Fashion-MNIST name their files alike.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(f"preparing {name} needs TensorFlow, once: {INSTALL}")
    builder = tfds.builder(name, data_dir=home, file_format="array_record")
    _check_features(name, builder)
    _check_files(builder, name, source, unchecked)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=home) as unpacked:
        config = tfds.download.DownloadConfig(
            manual_dir=source, extract_dir=unpacked, try_download_gcs=False
        )
        try:
            builder.download_and_prepare(
                download_dir=home / "downloads", download_config=config
            )
        except Exception as error:  # whatever a set's own code may raise
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"TFDS could not prepare {name}: {line}") from error
    return builder


def _check_files(
    builder: Any, name: str, source: str | os.PathLike | None, unchecked: bool
) -> None:
    """Refuses files in `source` that are not the published ones."""
    from tensorflow_datasets.core.download import checksums

    infos = builder.url_infos or {}
    missing = {}
    for url, published in infos.items():
        file = pathlib.Path(source or "", published.filename or "")
        if source is None or not file.is_file():
            missing[url] = published.filename
            continue
        found = checksums.compute_url_info(file)
        if found.checksum != published.checksum and not unchecked:
            raise ValueError(
                f"{file} is not the published file (its sha256 differs): download "
                f"{url} again, or take it as it is with --unchecked"
            )
        infos[url] = found  # TFDS compares with this table
    if missing:
        _check_network(name, missing, source)


def _check_network(name: str, missing: dict[str, str], source: Any) -> None:
    """Refuses at once where there is no network; TFDS would try for minutes."""
    import requests

    url = next(iter(missing))
    try:
        requests.get(url, stream=True, timeout=20).close()
    except requests.RequestException:
        lacks = f"{source} lacks {', '.join(missing.values())}, and " if source else ""
        raise ValueError(
            f"{lacks}{url} cannot be reached: download {', '.join(missing)} elsewhere, "
            f"then run `python -m optsde.data.prepare {name} --from DIR`"
        ) from None


def _images(builder: Any) -> dict[str, np.ndarray]:
    parts = {}
    for split in ("train", "test"):
        examples = builder.as_data_source(split=split)
        shape = builder.info.features["image"].shape
        images = np.empty((len(examples), *shape), np.uint8)
        labels = np.empty(len(examples), np.int32)
        for row, example in enumerate(_progress(examples, split)):
            images[row], labels[row] = example["image"], example["label"]
        parts[f"{split}_images"], parts[f"{split}_labels"] = images, labels
    return parts


def _text(builder: Any) -> dict[str, np.ndarray]:
    """Returns all of a split's text, joined by newlines.

    The held-out text is that of `test`, else `validation`, else a tenth of `train`.
    """
    held_out = next((s for s in ("test", "validation") if s in builder.info.splits), "")
    train = _joined(builder, "train")
    if held_out:
        return {"train_text": train, "test_text": _joined(builder, held_out)}
    cut = len(train) * 9 // 10
    return {"train_text": train[:cut], "test_text": train[cut:]}


def _joined(builder: Any, split: str) -> np.ndarray:
    text = bytearray()
    for example in _progress(builder.as_data_source(split=split), split):
        text += example["text"] + b"\n"
    return np.frombuffer(text, np.uint8)


def _progress(examples: Any, split: str) -> Any:
    import tqdm

    return tqdm.tqdm(examples, desc=f"reading {split}", unit=" examples")
