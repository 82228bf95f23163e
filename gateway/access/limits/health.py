"""Whether Redis answers. While it does not, it is asked once in a while, and costs the others nothing."""

import logging

MAX_FAILURES = 3  # failures in a row, and it is taken for down
RETRY_INTERVAL = 1.0  # seconds until one that is down is asked again

log = logging.getLogger("pointsman")


class Health:
    """Counts failures in a row, and logs each change once. `meanwhile` is what happens to requests while it is down."""

    def __init__(self, meanwhile: str) -> None:
        self.up = True
        self._meanwhile = meanwhile
        self._failures = 0
        self._next = 0.0

    def allows(self, now: float) -> bool:
        """Whether to ask now. While it is down, one question is let through in each `RETRY_INTERVAL`."""
        if self.up:
            return True
        if now < self._next:
            return False
        self._next = now + RETRY_INTERVAL
        return True

    def answered(self) -> None:
        """Note an answer."""
        if not self.up:
            log.warning("limits: Redis answers again")
        self.up = True
        self._failures = 0

    def failed(self, now: float, error: Exception) -> None:
        """Note that there was none."""
        self._failures += 1
        if self.up and self._failures >= MAX_FAILURES:
            self.up = False
            self._next = now + RETRY_INTERVAL
            log.warning("limits: Redis does not answer, requests are %s: %s", self._meanwhile, error)
