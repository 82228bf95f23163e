"""TGI's streams, read into OpenAI's chunks (CONTRACT.md 4): chats and `/generate_stream`."""

from typing import Any

from backends import problem
from backends.base import BackendError, Call, Completion, Continuation, Event, FollowUp, UpstreamRequest
from backends.event_decoder import EventDecoder, ReadWhole
from backends.failures import classify
from backends.finishing import FINISH, multiply, repeat
from backends.odd_events import cut, unreadable
from backends.schema import Answer, ChatRequest, ChunkChoice, CompletionRequest, Delta, TextChoice
from backends.shapes import LenientDecoder
from backends.splice import Copied, Splicer
from backends.stops import StopScanner
from backends.tgi.counts import TextLogprobs, chat_logprobs, prompt_text, usage_of
from backends.tgi.errors import failed
from backends.tgi.pieces import counting, following, in_pieces
from backends.tgi.wire import GenerateEvent, TGIChunk, TGIChunkChoice, Token, chunks, generate_events

SORTED = (
    "Input validation error",
    "Model is overloaded",
    "Template error",
    "Tool error",
)  # all others are the engine's fault


class _Stream(EventDecoder):
    """The common part of both decoders: errors, the end of a text, copies of a greedy choice."""

    def __init__(
        self,
        call: Call,
        request: UpstreamRequest,
        decoder: LenientDecoder[Any],
        read_whole: ReadWhole,
        stops: list[str],
        kind: str,
    ) -> None:
        super().__init__(call, decoder.decode, read_whole)
        self._decoder = decoder
        self._request = request
        self._continuation = request.continuation
        self._scanner = StopScanner(stops, self._continuation.held) if stops else None
        self._kind = kind
        self._tokens = 0  # of this request; those of earlier ones are in `continuation`
        self._piece: list[str] | None = (
            [] if in_pieces(call) else None
        )  # the text of this piece, if it may have to be continued
        self._full = False  # this piece is complete, and another has to follow

    def _take_open(self, value: dict[str, Any], events: list[Event]) -> None:
        self._take(self._decoder.convert(value), events)

    def _take_done(self, events: list[Event]) -> None:
        """End. Raises BackendError if the answer has no finish reason: a TGI that has failed says `[DONE]`, too."""
        if not self.answered:
            raise cut(self._skipped)
        self.finished = True

    def _failure(self, value: dict[str, Any]) -> BackendError | FollowUp | Completion:
        found = problem.read_value(value)
        if not found.message.startswith(SORTED):
            return classify(max(found.status, 500), found, self._call)  # its own 422 says nothing
        return failed(self._call, self._request, found)

    def _text(self, given: str, finish: str | None) -> tuple[str, str | None]:
        """Return the text before any stop string, and the finish reason if the answer ends here."""
        self._tokens += 1
        text = given
        if self._piece is not None:
            self._piece.append(given)
            limit = self._call.view.limit
            more = limit is None or self._continuation.tokens + self._tokens < limit
            self._full = finish == "length" and more and any(self._piece)  # an empty piece would be requested for ever
            finish = None if self._full else finish
        if self._scanner is not None:
            text = self._scanner.feed(text)
            if finish:
                text += self._scanner.end()
            if self._scanner.stopped:
                finish, self._full = "stop", False
        self.answered = finish is not None
        return text, finish

    def _end_early(self) -> None:
        """End the stream at a stop string that TGI missed; request the number of prompt tokens unless it is known."""
        tokens = self._continuation.tokens + self._tokens
        if self._continuation.prompt_tokens:
            usage = multiply(usage_of(self._continuation.prompt_tokens, tokens), len(self._request.choices))
            self.failure = Completion(Answer(choices=[], usage=usage))
        else:
            self.failure = FollowUp(counting(self._request, tokens))

    def _finish(self, read: int, written: int) -> None:
        """Set the usage of a complete answer, or the request for the next piece."""
        continuation = self._continuation
        written = self._tokens if written < 0 else written
        read = continuation.prompt_tokens or read
        tokens = continuation.tokens + written
        if self._full:
            piece = "".join(self._piece or ())
            held = self._scanner.held if self._scanner else ""
            done = Continuation(text=continuation.text + piece, held=held, tokens=tokens, prompt_tokens=read)
            self.failure = FollowUp(following(self._request, self._call.view.limit, piece, done))
        else:
            self.usage = multiply(usage_of(read, tokens), len(self._request.choices))

    def _emit(self, choice: Any, events: list[Event]) -> None:
        call = self._call
        several = len(self._request.choices) > 1
        for one in repeat(choice, self._request.choices) if several else (choice,):
            chunk: Answer[Any] = Answer(
                id=call.id,
                object=self._kind,
                created=call.created,
                model=call.model,
                choices=[one],
                system_fingerprint=call.system_fingerprint,
            )
            events.append(chunk)


class ChatDecoder(_Stream):
    """Reads a chat stream."""

    def __init__(self, call: Call, view: ChatRequest, request: UpstreamRequest, read_whole: ReadWhole) -> None:
        super().__init__(call, request, chunks, read_whole, view.stops, "chat.completion.chunk")
        self._view = view
        self._index = request.choices[0]

    def _take(self, chunk: TGIChunk, events: list[Event]) -> bool:
        if chunk.choices and not self.answered:
            self._token(chunk.choices[0], events)
        if chunk.usage is not None:
            self._finish(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        return self.failure is not None

    def _token(self, given: TGIChunkChoice, events: list[Event]) -> None:
        if self._tokens + self._continuation.tokens == 0:
            self._emit(self._choice(Delta(role="assistant", content=""), None), events)
        if given.delta.tool_calls:  # TGI streams them broken, which is why they are asked for whole
            raise unreadable(given.delta.tool_calls[0].function.name.encode(), "a tool call in a stream")
        theirs = given.finish_reason
        finish = None if theirs is None else FINISH.get(theirs, theirs)
        text, finish = self._text(given.delta.content or "", finish)
        choice = self._choice(Delta(content=text), finish)
        if given.logprobs is not None:
            choice.logprobs = chat_logprobs(given.logprobs, self._view)
        if text or finish or choice.logprobs:
            self._emit(choice, events)
        if finish and theirs is None:
            self._end_early()

    def copy_alike(self, copied: Copied) -> None:
        """Copy events; but not where stop strings are looked for, or each is repeated."""

        def noted(texts: list[bytes]) -> None:
            self._tokens += len(texts)
            if self._piece is not None:
                self._piece.append(b"".join(texts).decode())
            copied(texts)

        if self._scanner is None and len(self._request.choices) == 1:
            self._splicer = Splicer(noted, chat=True)

    def _choice(self, delta: Delta, finish: str | None) -> ChunkChoice:
        return ChunkChoice(index=self._index, delta=delta, logprobs=None, finish_reason=finish)


class GenerateDecoder(_Stream):
    """Reads `/generate_stream`. It has no `[DONE]`: the last event is the one with the details."""

    def copy_alike(self, copied: Copied) -> None:
        """Copy nothing: each event has another token's id."""

    def __init__(self, call: Call, view: CompletionRequest, request: UpstreamRequest, read_whole: ReadWhole) -> None:
        stops = view.stops if view.limit else []
        super().__init__(call, request, generate_events, read_whole, stops, "text_completion")
        self._index = request.choices[0]
        self._echo = prompt_text(view, request) if view.echo and not self._continuation.tokens else ""
        self._logprobs = None if view.logprobs is None else TextLogprobs(view.logprobs, len(self._continuation.text))
        self._nothing = view.limit == 0  # only the echo is wanted

    def _take(self, event: GenerateEvent, events: list[Event]) -> bool:
        details = event.details
        if event.token is None and details is None:
            return False
        if not self.answered:
            self._token(event, events)
        if details is not None and self.failure is None:
            self._finish(details.input_length, 0 if self._nothing else details.generated_tokens)
            self.finished = not self._full
        return self.finished or self.failure is not None

    def _token(self, event: GenerateEvent, events: list[Event]) -> None:
        token = event.token or Token("")
        theirs = event.details and event.details.finish_reason
        finish = FINISH.get(theirs, theirs) if theirs else None
        text, finish = self._text("" if token.special else token.text, finish)
        logprobs = None
        if self._nothing:
            text, finish = "", finish and "length"
        elif self._logprobs is not None:
            self._logprobs.add(token, event.top_tokens)
            logprobs = self._logprobs.render()
            self._logprobs.clear()
        text, self._echo = self._echo + text, ""
        if text or finish or logprobs:
            self._emit(TextChoice(index=self._index, text=text, logprobs=logprobs, finish_reason=finish), events)
        if finish and theirs is None:
            self._end_early()
