"""What is used and what is left of a limit, by a sliding window counter.

The requests of the last minute are not remembered one by one. There are two windows of a minute: the current one is
counted whole, the one before it by the share of it that the last minute still covers. (Cloudflare, "How we built rate
limiting capable of scaling to millions of domains"; the library `limits` counts so in memory and in Redis.)
"""

from math import floor
from typing import NamedTuple

WINDOW = 60


class Quota(NamedTuple):
    """One limit of a key's, and its two windows as `limits` tells of them.

    The counts are of requests or tokens. `previous_ttl` is when the previous window counts no more, and `current_ttl`
    when the current one will not, which is after it has been the previous one; both in seconds from when it was asked.
    """

    limit: int
    previous: int
    previous_ttl: float
    current: int
    current_ttl: float

    @property
    def used(self) -> int:
        """What counts of the last minute."""
        return floor(self.previous * self.previous_ttl / WINDOW) + self.current

    @property
    def remaining(self) -> int:
        """What is left; tokens are known late, so more can be used than there were."""
        return max(0, self.limit - self.used)

    @property
    def wait(self) -> float:
        """The seconds until one more fits, if nothing else is counted meanwhile."""
        return self._until(self.limit)

    @property
    def reset(self) -> float:
        """The seconds until all of it is left again, if nothing else is counted meanwhile."""
        return self._until(1)

    def _until(self, bound: int) -> float:
        if self.used < bound:
            return 0.0
        if self.current < bound:  # enough of the previous window has to fade
            return self.previous_ttl - (bound - self.current) * WINDOW / self.previous
        return self.current_ttl - bound * WINDOW / self.current  # it fades once it is the previous one
