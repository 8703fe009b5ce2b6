"""Data: always at hand, or prepared once; changed at random; streamed."""

from optsde.data.augment import compose, crop, flip, frozen, mask_tokens
from optsde.data.dataset import Dataset, imbalanced
from optsde.data.digits import digits
from optsde.data.loading import load
from optsde.data.prepared import NotPreparedError, data_root
from optsde.data.stream import Arrays, Stream, Window
from optsde.data.text import next_token

__all__ = [
    "Arrays",
    "Dataset",
    "NotPreparedError",
    "Stream",
    "Window",
    "compose",
    "crop",
    "data_root",
    "digits",
    "flip",
    "frozen",
    "imbalanced",
    "load",
    "mask_tokens",
    "next_token",
]
