"""Signal and noise from numbers that any trainer can log: |g|² at two batch sizes."""

from optsde.checks import ABOVE_0, check_number


def two_batches(
    small: tuple[float, float], large: tuple[float, float]
) -> tuple[float, float]:
    """Returns signal |∇f|² and noise Tr Σ of one example, as E|g|² = G + N/B.

    The estimator is that of McCandlish et al. (2018, appendix A): unbiased, but noisy
    from a single step. Impossible numbers are refused.

    Args:
      small: a batch size, such as that of a micro-batch, and the squared norm of the
        mean gradient over it, itself a mean over many steps.
      large: the same for a larger batch, over the same steps.

    >>> two_batches((1, 5.0), (4, 2.0))
    (1.0, 4.0)
    """
    needs = "a batch size and |g|², two positive numbers"
    check_number("small", small, needs, ABOVE_0)
    check_number("large", large, needs, ABOVE_0)
    (b, few), (batch, many) = small, large
    if not b < batch:
        raise ValueError(
            f"small batch {b:g}, large batch {batch:g}: the large one must be larger"
        )
    noise = (few - many) / (1 / b - 1 / batch)
    if noise <= 0:
        raise ValueError(
            f"|g|² is {few:g} at {b:g} and {many:g} at {batch:g}, and noise would be "
            "negative: a mean over more examples cannot be longer. Take means of "
            "gradients (no sums), before clipping, over the same steps"
        )
    signal = few - noise / b
    if signal <= 0:
        raise ValueError(
            f"|g|² falls from {few:g} to {many:g}, faster than 1/batch, and signal "
            f"would be {signal:.2g}: none is seen beside the noise. Take means over "
            "more steps, or a larger batch for the second"
        )
    return signal, noise
