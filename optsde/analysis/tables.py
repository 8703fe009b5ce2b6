"""Plain-text tables that line up in a terminal."""

from collections.abc import Sequence


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
