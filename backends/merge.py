"""Several upstream answers as one: the choices of `n`, and of several prompts, that were asked for one by one."""

from collections.abc import Sequence
from typing import Any

import msgspec

from backends.base import Call, Completion, Event, UpstreamRequest
from backends.schema import (
    Answer,
    AnswerMessage,
    ChatChoice,
    ChatRequest,
    ChunkChoice,
    Delta,
    TextChoice,
    ToolCall,
    Usage,
)


def merged(completions: Sequence[Completion], requests: Sequence[UpstreamRequest]) -> Completion:
    """Return one answer with all choices, in the order of their indexes."""
    first = completions[0]
    if len(completions) == 1:
        return first
    choices = sorted((choice for one in completions for choice in one.answer.choices), key=lambda choice: choice.index)
    usage = merged_usage([one.answer.usage for one in completions], requests)
    return Completion(msgspec.structs.replace(first.answer, choices=choices, usage=usage), first.extra)


def merged_usage(usages: Sequence[Usage | None], requests: Sequence[UpstreamRequest]) -> Usage | None:
    """Return the sum: what was written counts for every choice, what was read once for each prompt."""
    read: dict[int, int] = {}
    written = 0
    for usage, request in zip(usages, requests, strict=True):
        if usage is None:
            return None
        read[request.prompt] = usage.prompt_tokens
        written += usage.completion_tokens
    tokens = sum(read.values())
    return Usage(prompt_tokens=tokens, completion_tokens=written, total_tokens=tokens + written)


def as_chunks(completion: Completion) -> list[Event]:
    """Return a whole answer as the chunks that a stream of it would have had."""
    answer = completion.answer
    events: list[Event] = []
    for choice in answer.choices:
        for piece in _chat_pieces(choice) if isinstance(choice, ChatChoice) else (choice,):
            events.append(
                Answer(
                    id=answer.id,
                    object="text_completion" if isinstance(choice, TextChoice) else "chat.completion.chunk",
                    created=answer.created,
                    model=answer.model,
                    choices=[piece],
                )
            )
    return events


def _chat_pieces(choice: ChatChoice) -> list[ChunkChoice]:
    """A role, the content or the calls, and the finish reason: as vLLM's streams begin and end."""
    message: AnswerMessage = choice.message
    deltas = [Delta(role=message.role, content="")]
    if message.content:
        deltas.append(Delta(content=message.content))
    for place, tool in enumerate(message.tool_calls or ()):
        deltas.append(Delta(tool_calls=[_piece(tool, place)]))
    pieces = [ChunkChoice(index=choice.index, delta=delta, logprobs=None, finish_reason=None) for delta in deltas]
    if message.content:
        pieces[1].logprobs = choice.logprobs
    pieces.append(ChunkChoice(index=choice.index, delta=Delta(), logprobs=None, finish_reason=choice.finish_reason))
    return pieces


def _piece(tool: ToolCall, place: int) -> ToolCall:
    return msgspec.structs.replace(tool, index=place)


def assembled(call: Call, events: Sequence[Event], usage: Usage | None) -> Completion:
    """Return the chunks of a whole stream as the whole answer that they are."""
    choices: dict[int, ChatChoice | TextChoice] = {}
    for event in events:
        assert isinstance(event, Answer), "only chunks without unknown fields are put together"
        for piece in event.choices:
            if isinstance(piece, TextChoice):
                _add_text(choices, piece)
            else:
                _add_chat(choices, piece)
    kind = "chat.completion" if isinstance(call.view, ChatRequest) else "text_completion"
    ordered = [choices[index] for index in sorted(choices)]
    return Completion(
        Answer(id=call.id, object=kind, created=call.created, model=call.model, choices=ordered, usage=usage)
    )


def _add_text(choices: dict[int, ChatChoice | TextChoice], piece: TextChoice) -> None:
    whole = choices.get(piece.index)
    if not isinstance(whole, TextChoice):
        choices[piece.index] = msgspec.structs.replace(piece)
        return
    whole.text += piece.text
    whole.finish_reason = piece.finish_reason or whole.finish_reason
    if piece.logprobs:
        whole.logprobs = _joined(whole.logprobs, piece.logprobs)


def _add_chat(choices: dict[int, ChatChoice | TextChoice], piece: ChunkChoice) -> None:
    whole = choices.get(piece.index)
    if not isinstance(whole, ChatChoice):
        message = AnswerMessage(role="assistant", content="", refusal=None)
        whole = ChatChoice(index=piece.index, message=message, logprobs=None, finish_reason=None)
        choices[piece.index] = whole
    message = whole.message
    for tool in piece.delta.tool_calls or ():  # each in one piece, as `as_chunks` makes them
        message.tool_calls = [*(message.tool_calls or ()), msgspec.structs.replace(tool, index=None)]
        message.content = message.content or None
    if piece.delta.content:
        message.content = (message.content or "") + piece.delta.content
    whole.finish_reason = piece.finish_reason or whole.finish_reason
    if piece.logprobs:
        whole.logprobs = _joined(whole.logprobs, piece.logprobs)


def _joined(first: dict[str, list[Any]] | None, more: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return logprobs, of chats or of texts, with more of the same behind them."""
    return {name: [*(first or {}).get(name, []), *more[name]] for name in more}
