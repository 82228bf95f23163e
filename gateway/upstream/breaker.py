"""The circuit breaker of one deployment: asked whether it may be tried, told how it went. It never acts.

It counts what the engine did wrong (no connection, a failed or broken answer, silence), never what a client asked
for or that there was no room. Closed, it opens after some failures in a row, or when too large a share of the recent
answers failed. Open, nothing goes there for a while; then one half-open probe decides (M. Nygard, "Release It!").
For a model with several deployments that is the ejection of an outlier: the others take its requests.
"""

from gateway.config import BreakerConfig

MIN_SAMPLES = 20  # answers in the window, below which a share says nothing


class Breaker:
    """Counts over two halves of the window, the past one and the present. Times are monotonic, in seconds."""

    def __init__(self, rules: BreakerConfig) -> None:
        self.rules = rules  # may be changed at any time
        self._in_a_row = 0
        self._past = [0, 0]  # answers, and how many of them failed
        self._present = [0, 0]
        self._began = 0.0  # the present half
        self._length = rules.open
        self.open_until = 0.0  # 0 while closed
        self._probe_until = 0.0  # until then it is waited for the end of a probe

    def allows(self, now: float) -> bool:
        """Whether a request may go there."""
        return now >= self.open_until and now >= self._probe_until

    def describe(self, now: float) -> str:
        """Return in words why it is open."""
        left = max(self.open_until, self._probe_until) - now
        return f"circuit open for another {left:.1f} s ({self._in_a_row} consecutive failures)"

    def began(self, now: float) -> bool:
        """Note that a request goes there; return whether it is the half-open probe, which its end needs.

        Of two that were allowed before either began, the first is. If it comes to no end, there will be another.
        """
        half_open_probe = self.open_until > 0 and now >= self._probe_until
        if half_open_probe:
            self._probe_until = now + self.rules.most_open
        return half_open_probe

    def record_ignored(self, half_open_probe: bool) -> None:
        """Note that a request ended and says nothing of the engine: the client left, or there was no room."""
        if half_open_probe:
            self._probe_until = 0.0

    def record_success(self, half_open_probe: bool, now: float) -> bool:
        """Note a good answer; return whether that closes the circuit."""
        self._in_a_row = 0
        self._turn(now)
        self._present[0] += 1
        closes = half_open_probe and self.open_until > 0
        if closes:
            self.open_until = self._probe_until = 0.0
            self._past, self._present = [0, 0], [0, 0]
        return closes

    def record_failure(self, half_open_probe: bool, now: float) -> bool:
        """Note a failure; return whether that opens the circuit."""
        self._in_a_row += 1
        self._turn(now)
        self._present[0] += 1
        self._present[1] += 1
        if half_open_probe and self.open_until:
            self._probe_until = 0.0
            self._length = min(self._length * 2, self.rules.most_open)
        elif self.open_until or not self._too_many():
            return False
        else:
            self._length = self.rules.open
        self.open_until = now + self._length
        return True

    def _too_many(self) -> bool:
        answers, failures = (before + since for before, since in zip(self._past, self._present, strict=True))
        return self._in_a_row >= self.rules.failures or (
            answers >= MIN_SAMPLES and failures >= self.rules.share * answers
        )

    def _turn(self, now: float) -> None:
        half = self.rules.window / 2
        if now - self._began >= half:
            self._past = self._present if now - self._began < 2 * half else [0, 0]
            self._present = [0, 0]
            self._began = now
