"""Fetch a set once, so that load(NAME) reads it with numpy alone.

TFDS downloads and checks it, which takes TensorFlow; then its records become one file
NAME.npz of uint8 arrays. A copy that TFDS has made before, in array_record form, is
read without TensorFlow. To make a set anew delete NAME.npz and tfds/NAME.
"""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from optsde.data import prepared
from optsde.data.loading import AT_HAND

EXAMPLES = """\
examples:
  python -m optsde.data.prepare cifar10
  python -m optsde.data.prepare cifar10 --root /scratch/data
  python -m optsde.data.prepare cifar10 --from ~/Downloads   # where there is no network

sets: """ + ", ".join((*prepared.NAMES, "and TFDS's sets that have a text feature"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m optsde.data.prepare",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the set")
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="where sets lie: default $OPTSDE_DATA, else ~/.cache/optsde/data",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        help="a folder of files downloaded by hand, or a data folder of TFDS",
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="take files of --from that differ from the published ones",
    )
    args = parser.parse_args(argv)
    # TensorFlow only reads files here: it is to take no GPU, and to be silent.
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")
    try:
        prepare(args.name, args.root, args.source, args.unchecked)
    except ValueError as error:
        sys.exit(f"prepare: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare: interrupted; run the same command to begin again")


def prepare(
    name: str,
    root: str | os.PathLike | None = None,
    source: str | os.PathLike | None = None,
    unchecked: bool = False,
) -> pathlib.Path:
    """The file of the set, made unless it is there."""
    if name in AT_HAND:
        raise ValueError(f"{name!r} is always at hand and needs no preparing")
    if source is not None and not os.path.isdir(source):
        raise ValueError(f"--from {source} is not a folder")
    path = prepared.file_of(name, root)
    if path.exists():
        print(f"{name} is there: {path}")
        return path

    from optsde.data.fetching import arrays

    parts = arrays(name, path.parent, source, unchecked)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, parts)
    sizes = ", ".join(f"{key} {list(part.shape)}" for key, part in parts.items())
    print(f"{name} is prepared: {path} ({sizes})")
    return path


def _write(path: pathlib.Path, parts: dict[str, np.ndarray]) -> None:
    """Writes all of the file or none of it."""
    handle, unfinished = tempfile.mkstemp(suffix=".unfinished", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **parts)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


if __name__ == "__main__":
    main()
