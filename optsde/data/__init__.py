"""Data: at hand, prepared once, or your own; changed at random; streamed."""

from optsde.data.arrays import from_arrays
from optsde.data.augment import compose, crop, flip, frozen, mask_tokens, shifted
from optsde.data.dataset import Dataset, imbalanced
from optsde.data.digits import digits
from optsde.data.loading import load
from optsde.data.prepared import NotPreparedError, data_root
from optsde.data.resident import Resident, source_of
from optsde.data.stream import Arrays, Stream
from optsde.data.text import next_token

__all__ = [
    "Arrays",
    "Dataset",
    "NotPreparedError",
    "Resident",
    "Stream",
    "compose",
    "crop",
    "data_root",
    "digits",
    "flip",
    "from_arrays",
    "frozen",
    "imbalanced",
    "load",
    "mask_tokens",
    "next_token",
    "shifted",
    "source_of",
]
