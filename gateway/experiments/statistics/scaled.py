"""Real values as whole numbers, so that their sums are the same in whichever order they are added."""

SCALE = 10_000  # ten-thousandths: of a nat that is 0.01 %, far below what any sample tells apart


def scaled(value: float) -> int:
    """Return a finite value in ten-thousandths, rounded."""
    return round(value * SCALE)
