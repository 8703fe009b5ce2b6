"""Plain-text tables that line up in a terminal, and numbers with their errors."""

import math
from collections.abc import Sequence

from optsde.analysis.statistics import Estimate


def table(header: Sequence[str], rows: Sequence[Sequence[object]], align: str) -> str:
    """Columns padded to their widest cell; `align` has one of l, r for each.

    >>> print(table(["name", "loss"], [["adam", 0.25], ["sgd", 1.5]], align="lr"))
    name  loss
    ────  ────
    adam  0.25
    sgd    1.5
    """
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    cells.insert(1, ["─" * width for width in widths])
    sides = {"l": str.ljust, "r": str.rjust}
    lines = (
        "  ".join(
            sides[side](cell, width)
            for cell, width, side in zip(row, widths, align, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def plus_minus(x: Estimate) -> str:
    """The mean, as far as its standard error lets one see, ± that error.

    >>> plus_minus(Estimate(0.12345, 0.0067, 9)), plus_minus(Estimate(2249.7, 213.0, 9))
    ('0.123 ± 0.007', '2250 ± 213')
    """
    mean, se = float(x.mean), float(x.se)
    if not (math.isfinite(se) and se > 0):
        return f"{mean:.3g} ± {se:.1g}"
    places = max(0, -math.floor(math.log10(se)))
    return f"{mean:.{places}f} ± {se:.{places}f}"
