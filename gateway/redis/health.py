"""Whether Redis answers, as one of its users sees it. Pure: the client tells it, and it counts and logs."""

import logging
from textwrap import shorten

MAX_FAILURES = 3  # in a row, and Redis is down
MAX_REASON = 200  # characters in the log

log = logging.getLogger("pointsman")


class RedisAvailability:
    """Up or down; each change is logged once. `errors` counts all failures and refusals.

    `use` is who asks, such as "cache", and `while_down` what that means for requests while Redis is down. It is down
    until it has answered for the first time.
    """

    def __init__(self, use: str, while_down: str, max_failures: int = MAX_FAILURES) -> None:
        self.up = False
        self.errors = 0
        self._use = use
        self._while_down = while_down
        self._max_failures = max_failures
        self._failures = 0
        self._reported_down = False
        self._refusal = ""

    def answered(self) -> None:
        """Note an answer in time. It ends a row of failures, and makes nothing up that is down."""
        self._failures = 0

    def recovered(self) -> None:
        """Note that the probe was answered: Redis is up."""
        self._failures = 0
        if self.up:
            return
        self.up = True
        if self._reported_down:
            log.warning("%s: Redis answers again", self._use)
        else:
            log.info("%s: Redis answers", self._use)

    def failed(self, error: BaseException) -> None:
        """Note that there was no answer, or none in time; after `max_failures` in a row Redis is down."""
        self.errors += 1
        self._failures += 1
        if self.up and self._failures >= self._max_failures:
            self.down(error)

    def refused(self, error: BaseException) -> None:
        """Note that Redis answers and refuses. It stays up; the same refusal is logged once."""
        self.errors += 1
        if str(error) != self._refusal:
            log.warning("%s: Redis refuses: %s", self._use, error)
        self._refusal = str(error)

    def down(self, error: BaseException) -> None:
        """Note that Redis is down."""
        if self.up or not self._reported_down:
            reason = shorten(str(error) or type(error).__name__, MAX_REASON)  # redis-py's may list all connections
            log.warning("%s: Redis does not answer, %s: %s", self._use, self._while_down, reason)
        self.up = False
        self._reported_down = True
