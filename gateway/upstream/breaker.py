"""The circuit breaker of one deployment: asked whether it may be tried, told how it went. It never acts.

It counts what the engine did wrong (no connection, a failed or broken answer, silence), never what a client asked
for or that there was no room. What fails alike elsewhere is held to be the request's fault, until many distinct ones
do so (`proxy.verdict`). Closed, it opens after some failures in a row, or when too large a share of the recent
answers failed. Open, nothing goes there for a while; then one half-open probe decides (M. Nygard, "Release It!").
For a model with several deployments that is the ejection of an outlier: the others take its requests.
"""

from gateway.config import BreakerConfig

MIN_SAMPLES = 20  # answers in the window, below which a share says nothing
DISTINCT = 10  # requests that fail in a window as they fail elsewhere, from which on that is the engines' fault


class Breaker:
    """Counts over two halves of the window, the past one and the present. Times are monotonic, in seconds."""

    def __init__(self, rules: BreakerConfig) -> None:
        self.rules = rules  # may be changed at any time
        self._in_a_row = 0
        self._past = [0, 0]  # answers, and how many of them failed
        self._present = [0, 0]
        self._began = 0.0  # the present half
        self._excused: dict[int, float] = {}  # requests that failed here as elsewhere, and when; the oldest first
        self._excused_in_a_row = 0  # of them, since the last success, and not counted yet
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
        self._in_a_row = self._excused_in_a_row = 0
        self._turn(now)
        self._present[0] += 1
        closes = half_open_probe and self.open_until > 0
        if closes:
            self.open_until = self._probe_until = 0.0
            self._past, self._present = [0, 0], [0, 0]
            self._excused.clear()
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

    def record_excused(self, request: int, now: float) -> bool:
        """Note a failure that is the request's fault, as it failed elsewhere alike, or as there is no elsewhere.

        `request` tells requests apart. Once `DISTINCT` of them have failed so within the window, it is the engine's
        fault, and those since its last success are counted; return whether that opens the circuit.
        """
        known = request in self._excused
        recent = {one: at for one, at in self._excused.items() if one != request and now - at < self.rules.window}
        self._excused = dict(list(recent.items())[1 - DISTINCT :]) | {request: now}
        if not known:
            self._excused_in_a_row += 1
        if len(self._excused) < DISTINCT:
            return False
        count, self._excused_in_a_row = self._excused_in_a_row, 0
        opened = [self.record_failure(False, now) for _ in range(count)]
        return any(opened)

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
