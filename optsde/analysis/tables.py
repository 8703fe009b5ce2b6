"""Plain-text tables that line up in a terminal, and numbers with their errors."""

import math
from collections.abc import Sequence

from optsde.analysis.statistics import Estimate, Interval


def table(header: Sequence[str], rows: Sequence[Sequence[object]], align: str) -> str:
    """Returns columns padded to their widest cell.

    Args:
        header: one title for each column.
        rows: cells, which are written with `str`.
        align: one of l, r for each column.

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


def number(
    value: float | None,
    places: int | None = None,
    *,
    significant: int = 3,
    sign: str = "",
    missing: str | None = None,
) -> str:
    """Returns a number as text.

    Args:
        value: the number.
        places: how many decimals it gets; None: `significant` digits instead.
        significant: how many digits it gets where `places` is None.
        sign: "+" to write the sign of positive numbers too.
        missing: what stands for None, NaN and infinities, if anything does.

    >>> number(0.123456), number(12.0, 2), number(0.5, 1, sign="+")
    ('0.123', '12.00', '+0.5')
    >>> number(float("nan"), missing="not finite")
    'not finite'
    """
    if missing is not None and (value is None or not math.isfinite(value)):
        return missing
    form = f".{significant}g" if places is None else f".{places}f"
    return f"{value:{sign}{form}}"


def plus_minus(
    x: Estimate,
    places: int | None = None,
    *,
    significant: int | None = None,
    beyond: int | None = None,
    sign: str = "",
) -> str:
    """Returns a mean ± its standard error as text.

    By default both have the decimals of the error's first digit. An exact number
    (`statistics.exact`) stands alone.

    Args:
        x: the estimate of one number.
        places: this many decimals for both.
        significant: this many digits for the mean, one for the error.
        beyond: this many decimals for the mean beyond the error's first digit, up to
            6 in all, and one digit for the error.
        sign: "+" to write the sign of a positive mean too.

    >>> plus_minus(Estimate(0.12345, 0.0067, 9)), plus_minus(Estimate(2249.7, 213.0, 9))
    ('0.123 ± 0.007', '2250 ± 213')
    >>> x = Estimate(0.12345, 0.0067, 9)
    >>> plus_minus(x, 2, sign="+"), plus_minus(x, significant=2)
    ('+0.12 ± 0.01', '0.12 ± 0.007')
    >>> plus_minus(x, beyond=2)
    '0.12345 ± 0.007'
    """
    mean, se = float(x.mean), float(x.se)
    if se == 0 and math.isinf(x.dof):
        return number(mean, places, significant=significant or 3, sign=sign)
    if places is not None:
        return f"{number(mean, places, sign=sign)} ± {number(se, places)}"
    error = number(se, significant=1)
    if significant is not None:
        return f"{number(mean, significant=significant, sign=sign)} ± {error}"
    regular = math.isfinite(se) and se > 0
    first = -math.floor(math.log10(se)) if regular else 1  # decimals to its first digit
    if beyond is not None:
        return f"{number(mean, min(max(0, first + beyond), 6), sign=sign)} ± {error}"
    if not regular:
        return f"{number(mean, sign=sign)} ± {error}"
    return plus_minus(x, max(0, first), sign=sign)


def with_interval(
    i: Interval, places: int | None = None, *, significant: int = 3, sign: str = ""
) -> str:
    """Returns a value with the ends of its interval as text.

    >>> with_interval(Interval(1.23, -0.4, 3.0), 1, sign="+")
    '+1.2 [-0.4, +3.0]'
    """
    value, low, high = (
        number(x, places, significant=significant, sign=sign) for x in i
    )
    return f"{value} [{low}, {high}]"
