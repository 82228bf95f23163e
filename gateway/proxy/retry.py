"""Whether a request is tried once more, and after how long a wait. Asked, never acting.

By cause, not by raw status (`backends.base.Cause`): no connection, a connection that broke, no room, a failed
generation, silence; all before the client's first byte. The first try on another deployment is free, as that is what
the other is there for; any further one draws on a budget, so that retries cannot multiply an outage
(Google, "Site Reliability Engineering", chapter 22).
"""

from random import Random

from gateway.config import RetriesConfig
from gateway.http.errors import Retry, retryable

MAX_SAVED = 10.0  # retries, for a gateway that has few requests


class Budget:
    """Retries in proportion to requests: each request earns a share of one."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._saved = MAX_SAVED

    def follow(self, share: float) -> None:
        """Take over a changed share, as a fraction; what is saved stays."""
        self.share = share

    def earn(self) -> None:
        """Note a request."""
        self._saved = min(self._saved + self.share, MAX_SAVED)

    def spend(self) -> bool:
        """Take one retry; return whether there was one."""
        if self._saved < 1 or not self.share:
            return False
        self._saved -= 1
        return True


def wait(
    failure: BaseException, number: int, elsewhere: bool, rules: RetriesConfig, budget: Budget, random: Random
) -> float | None:
    """Return how many seconds to wait before the next try, or None if there is to be none.

    `number` counts the tries so far; `elsewhere` is whether a deployment is left that has not been tried.
    """
    worth = retryable(failure)
    if worth is Retry.NEVER or number >= rules.attempts or (worth is Retry.ELSEWHERE and not elsewhere):
        return None
    if elsewhere and number == 1:
        return 0.0
    if not budget.spend():
        return None
    return random.uniform(0.0, rules.backoff * 2.0 ** (number - 1))
