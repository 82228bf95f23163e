"""A clock that a test sets: however busy the machine is, no more time passes than the test says."""


class Clock:
    """Seconds of a monotonic clock. It stands still, until a test adds to `now`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
