"""Reads a stream of OpenAI's chunks, chat or text (OpenAI API reference, "Streaming").

The end is a finish reason for each choice, whether or not `[DONE]` follows. `[DONE]` without one is the end for the
SDKs. A vLLM always says one, so one that does not has failed (CONTRACT.md 4.4); other engines are taken at their word.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from backends.base import BackendError, Call, Event, UpstreamRequest
from backends.event_decoder import EventDecoder, ReadWhole
from backends.extras import CHAT_CHUNK, WHOLE_TEXT, ExtrasReader, merge_extra
from backends.finishing import (
    agreeing,
    copies,
    multiply,
    normalize_choice,
    normalize_logprobs,
    settled,
    unify_reasoning,
)
from backends.odd_events import cut, failure_of
from backends.schema import Answer, ChatRequest, ChunkChoice, Delta, TextChoice, Usage
from backends.splice import Copied, Splicer
from backends.tool_calls import CallPieces


class StreamDecoder(EventDecoder):
    """Reads a stream of OpenAI chunks."""

    def __init__(self, call: Call, request: UpstreamRequest, read_whole: ReadWhole) -> None:
        self._chat = isinstance(call.view, ChatRequest)
        self._reader: ExtrasReader[Any] = CHAT_CHUNK if self._chat else WHOLE_TEXT
        super().__init__(call, self._reader.decode, read_whole)
        self._copies = (call.view.n or 1) if request.choices else 0
        self._wanted = _choices(call) // max(self._copies, 1)
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._head = call.id, kind, call.created, call.model, call.system_fingerprint
        self._begun: set[int] = set()
        self._ended: set[int] = set()  # choices whose finish reason has come
        self._calls: dict[int, CallPieces] = {}

    def copy_alike(self, copied: Copied) -> None:
        """Copy events; but not where each is repeated."""
        if not self._copies:
            self._splicer = Splicer(copied, self._chat)

    def _take(self, chunk: Answer[Any], events: list[Event]) -> bool:
        """Note the chunk's usage and finish reasons, and normalize it."""
        chunk.id, chunk.object, chunk.created, chunk.model, chunk.system_fingerprint = self._head
        if chunk.usage is not None:
            self._take_usage(chunk, chunk.usage)
        chat, begun = self._chat, self._begun
        for choice in chunk.choices:
            if choice.index not in begun:
                self._begin(choice)
            if chat:
                delta = choice.delta
                if delta.tool_calls is not None or choice.logprobs:
                    self._take_beside(choice)
                if delta.reasoning is not delta.reasoning_content or delta.reasoning:
                    unify_reasoning(delta, self._call)
                if choice.finish_reason is None and choice.stop_reason is None:  # as nearly always
                    continue
            normalize_choice(choice)
            if choice.finish_reason is not None:
                self._end(choice, choice.finish_reason)
        if self._copies:
            events += self._repeated(chunk)
        elif chunk.choices:
            events.append(chunk)
        return False

    def _take_open(self, value: dict[str, Any], events: list[Event]) -> None:
        """Take an event that has fields of the engine's own, or lacks some."""
        chunk, extra = self._reader.convert(value)
        taken: list[Any] = []
        self._take(chunk, taken)
        if chunk.usage is None:
            extra.pop("usage", None)
        if self._calls:
            _without_calls(chunk, extra)
        beside = extra.pop("choices", None) or [None] * len(chunk.choices)
        for place, one in enumerate(taken):
            mine = [beside[place // self._copies]] if self._copies else beside
            whole = extra | {"choices": mine} if any(mine) else extra
            events.append(merge_extra(one, whole) if whole else one)

    def _take_done(self, events: list[Event]) -> None:
        """End. Raises BackendError if a choice has not, or if there is none."""
        if not self._begun or self._begun - self._ended:
            raise cut(self._skipped)
        self.finished = True

    def _failure(self, value: dict[str, Any]) -> BackendError:
        return failure_of(value, self._call)

    def _begin(self, choice: ChunkChoice | TextChoice) -> None:
        self._begun.add(choice.index)
        if isinstance(choice, ChunkChoice) and choice.delta.role is None:
            choice.delta.role = "assistant"

    def _take_beside(self, choice: ChunkChoice) -> None:
        if choice.delta.tool_calls is not None:
            pieces = self._calls.get(choice.index)
            if pieces is None:
                pieces = self._calls[choice.index] = CallPieces(self._call, choice.index)
            choice.delta.tool_calls = pieces.take(choice.delta.tool_calls)
        if choice.logprobs:
            normalize_logprobs(choice, self._call)

    def _end(self, choice: ChunkChoice | TextChoice, reason: str) -> None:
        if self._chat:
            pieces = self._calls.get(choice.index)
            called = pieces is not None and pieces.count > 0
            choice.finish_reason = agreeing(reason, called, self._call)
        self._ended.add(choice.index)
        self.answered = len(self._ended) >= self._wanted

    def _take_usage(self, chunk: Answer[Any], given: Usage) -> None:
        usage = settled(given, self._call)
        if usage is not None:
            self.usage = multiply(usage, self._copies) if self._copies else usage
        chunk.usage = self.usage if usage is not None and self._call.continuous_usage else None

    def _repeated(self, chunk: Answer[Any]) -> Iterable[Event]:
        """Yield a copy of a greedy chunk for each of the choices."""
        for choice in chunk.choices:
            for one in copies(choice, self._copies, self._call):
                yield msgspec.structs.replace(chunk, choices=[one])


class AnyStreamDecoder(StreamDecoder):
    """Reads the stream of an engine that may leave out the finish reasons."""

    def _take_done(self, events: list[Event]) -> None:
        """End; a choice that has begun and not ended does so by `stop`, or by `length` if the usage says so."""
        left = sorted(self._begun - self._ended)
        if left:
            self._take(Answer(choices=[self._last(index) for index in left]), events)
        super()._take_done(events)

    def _last(self, index: int) -> ChunkChoice | TextChoice:
        limit, written = self._call.view.limit, self.usage.completion_tokens if self.usage else 0
        reason = "length" if limit is not None and written >= limit else "stop"
        if self._chat:
            return ChunkChoice(index=index, delta=Delta(), finish_reason=reason)
        return TextChoice(index=index, text="", finish_reason=reason)


def _choices(call: Call) -> int:
    """Return how many choices a call asks for."""
    prompts = 1 if isinstance(call.view, ChatRequest) else len(call.view.prompts)
    return prompts * (call.view.n or 1)


def _without_calls(chunk: Answer[Any], extra: dict[str, Any]) -> None:
    """Leave out the fields of tool calls that are not passed on as they came."""
    for choice, beside in zip(chunk.choices, extra.get("choices") or (), strict=False):
        said = beside.get("delta") if beside else None
        if said and len(said.get("tool_calls") or ()) != len(choice.delta.tool_calls or ()):
            said.pop("tool_calls", None)
