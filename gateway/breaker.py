"""The circuit breaker of one deployment: asked whether it may be tried, told how it went. It never acts.

It counts what the engine did wrong (no connection, a failed or broken answer, silence), never what a client asked
for or that there was no room. Closed, it opens after some failures in a row, or when too large a share of the recent
answers failed. Open, nothing goes there for a while; then one trial decides (M. Nygard, "Release It!", chapter 5).
For a model with several deployments that is the ejection of an outlier: the others take its requests.
"""

from gateway.config import Breaker as Rules

LEAST = 20  # answers in the window, below which a share says nothing


class Breaker:
    """Counts over two halves of the window, the past one and the present. Times are monotonic, in seconds."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._in_a_row = 0
        self._past = [0, 0]  # answers, and how many of them failed
        self._present = [0, 0]
        self._began = 0.0  # the present half
        self._trial = False  # one is under way
        self._length = rules.open
        self.opened_until = 0.0  # 0 while closed

    def allows(self, now: float) -> bool:
        """Whether a request may go there."""
        return not self.opened_until or (now >= self.opened_until and not self._trial)

    def began(self) -> bool:
        """Note that a request goes there; return whether it is the trial, which is to be said of it at its end."""
        self._trial = self.opened_until > 0
        return self._trial

    def undecided(self, trial: bool) -> None:
        """Note that a request ended and says nothing of the engine: the client left, or there was no room."""
        if trial:
            self._trial = False

    def succeeded(self, trial: bool, now: float) -> bool:
        """Note a good answer; return whether that closes the circuit."""
        self._in_a_row = 0
        self._turn(now)
        self._present[0] += 1
        if trial:
            self._trial, self.opened_until, self._length = False, 0.0, self._rules.open
            self._past, self._present = [0, 0], [0, 0]
        return trial

    def failed(self, trial: bool, now: float) -> bool:
        """Note a failure; return whether that opens the circuit."""
        self._in_a_row += 1
        self._turn(now)
        self._present[0] += 1
        self._present[1] += 1
        if trial:
            self._trial = False
            self._length = min(self._length * 2, self._rules.most_open)
        elif self.opened_until or not self._too_many():
            return False
        self.opened_until = now + self._length
        return True

    def _too_many(self) -> bool:
        answers, failures = (before + since for before, since in zip(self._past, self._present, strict=True))
        return self._in_a_row >= self._rules.failures or (answers >= LEAST and failures >= self._rules.share * answers)

    def _turn(self, now: float) -> None:
        half = self._rules.window / 2
        if now - self._began >= half:
            self._past = self._present if now - self._began < 2 * half else [0, 0]
            self._present = [0, 0]
            self._began = now
