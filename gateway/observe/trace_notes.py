"""What the steps of a sampled request note down for its spans; those of other requests note nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.base import Call, Event


@dataclass(slots=True, eq=False)
class Notes:
    """The notes of one request.

    `call` is what was asked; `reasons` are why the answer's choices ended, by their index. `events` are what else is
    worth a mark: a name, a time of the monotonic clock, and attributes.
    """

    call: Call | None = None
    reasons: dict[int, str] = field(default_factory=dict)
    events: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)

    def hear(self, answers: Sequence[Event]) -> None:
        """Note what came of the engine: the chunks of one read, or the whole answer."""
        for answer in answers:
            if isinstance(answer, dict):
                self._hear_plain(answer)
                continue
            for choice in answer.choices:
                if choice.finish_reason:
                    self.reasons[choice.index] = choice.finish_reason

    def _hear_plain(self, answer: dict[str, Any]) -> None:
        for choice in answer["choices"]:
            if reason := choice.get("finish_reason"):
                self.reasons[choice.get("index", 0)] = reason

    def mark(self, name: str, now: float, **attributes: Any) -> None:
        """Note an event, such as what the cache had."""
        said = {f"pointsman.{name}.{key}": value for key, value in attributes.items()}
        self.events.append((f"pointsman.{name}", now, said))

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Why the choices ended, in their order."""
        return tuple(self.reasons[index] for index in sorted(self.reasons))

    def content(self) -> dict[str, str]:
        """Return the attributes that hold what was said: none."""
        return {}
