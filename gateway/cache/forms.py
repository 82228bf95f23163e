"""A stream's chunks as the whole answer that they are, and a whole answer as the chunks of a stream. Pure.

Nothing is lost on the way, or there is no way: of an answer with fields that no type names, or that only one of the
two forms has a place for, the other form is None.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from backends.base import Call, Event
from backends.extras import given
from backends.schema import (
    Answer,
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatRequest,
    ChunkChoice,
    Delta,
    TextChoice,
    ToolCall,
)

ONE_FORM = ("prompt_text", "prompt_logprobs", "kv_transfer_params", "ec_transfer_params", "metrics")
TEXTS = ("content", "refusal", "reasoning", "reasoning_content")


def whole_of(call: Call, events: Sequence[Event]) -> Answer[Any] | None:
    """Return the whole answer that a stream's chunks come to, without usage; None if it would lose something."""
    choices: dict[int, ChatChoice | TextChoice] = {}
    chat = isinstance(call.view, ChatRequest)
    whole: Answer[Any] = Answer(object="chat.completion" if chat else "text_completion", choices=[])
    for event in events:
        if isinstance(event, dict) or any(getattr(event, name) is not None for name in ONE_FORM):
            return None
        whole.service_tier = event.service_tier or whole.service_tier
        whole.prompt_token_ids = event.prompt_token_ids or whole.prompt_token_ids
        for piece in event.choices:
            if isinstance(piece, TextChoice):
                _add_text(choices, piece)
            else:
                _add_chat(choices, piece)
    for choice in choices.values():
        if isinstance(choice, ChatChoice):
            _finish(choice.message, call)
    whole.choices = [choices[index] for index in sorted(choices)]
    return whole


def _add_text(choices: dict[int, ChatChoice | TextChoice], piece: TextChoice) -> None:
    whole = choices.get(piece.index)
    if not isinstance(whole, TextChoice):
        choices[piece.index] = msgspec.structs.replace(piece)
        return
    whole.text += piece.text
    whole.finish_reason = piece.finish_reason or whole.finish_reason
    whole.prompt_logprobs = whole.prompt_logprobs or piece.prompt_logprobs
    whole.prompt_token_ids = whole.prompt_token_ids or piece.prompt_token_ids
    _add_beside(whole, piece)


def _add_chat(choices: dict[int, ChatChoice | TextChoice], piece: ChunkChoice) -> None:
    whole = choices.get(piece.index)
    if not isinstance(whole, ChatChoice):
        message = AnswerMessage(role="assistant", content=None, refusal=None)
        whole = choices[piece.index] = ChatChoice(index=piece.index, message=message, logprobs=None, finish_reason=None)
    message, delta = whole.message, piece.delta
    message.role = delta.role or message.role
    for name in TEXTS:
        if (text := getattr(delta, name)) is not None:
            setattr(message, name, (getattr(message, name) or "") + text)
    for tool in delta.tool_calls or ():
        _add_tool(message, tool)
    if delta.function_call:
        message.function_call = _called(message.function_call, delta.function_call)
    if given(piece.finish_reason):
        whole.finish_reason = piece.finish_reason or None
    _add_beside(whole, piece)


def _add_beside(whole: Any, piece: Any) -> None:
    """Put what each token has beside its text behind what came before."""
    if piece.token_ids is not None:
        whole.token_ids = [*(whole.token_ids or ()), *piece.token_ids]
    if given(piece.logprobs):
        before = whole.logprobs or {}
        more = {name: [*(before.get(name) or ()), *tokens] for name, tokens in piece.logprobs.items() if tokens}
        whole.logprobs = {**piece.logprobs, **before, **more}


def _add_tool(message: AnswerMessage, piece: ToolCall) -> None:
    """Add a piece of a call: the first of it has its index before all others of that index."""
    tools = message.tool_calls = message.tool_calls or []
    place = piece.index or 0
    for tool in tools:
        if tool.index == place:
            tool.function = _called(tool.function, piece.function)
            return
    tools.append(msgspec.structs.replace(piece, index=place, function=_called(None, piece.function)))


def _called(before: CalledFunction | None, more: CalledFunction) -> CalledFunction:
    if before is None:
        return CalledFunction(name=more.name, arguments=more.arguments or "")
    return CalledFunction(name=before.name or more.name, arguments=(before.arguments or "") + (more.arguments or ""))


def _finish(message: AnswerMessage, call: Call) -> None:
    """Say what a whole answer says: no text beside a call that was made or had to be, no indexes."""
    for tool in message.tool_calls or ():
        tool.index = None
    silent = message.tool_calls or message.function_call or (isinstance(call.view, ChatRequest) and call.view.must_call)
    message.content = message.content or (None if silent else "")


def chunks_of(answer: Answer[Any]) -> list[Answer[Any]] | None:
    """Return a whole answer as a stream's chunks, without usage; None if they would lose something."""
    if any(getattr(answer, name) is not None for name in ONE_FORM):
        return None
    kind = "chat.completion.chunk"
    pieces: list[Any] = []
    for choice in answer.choices:
        if isinstance(choice, TextChoice):
            kind = "text_completion"
            pieces.append(choice)
        elif choice.message.annotations is not None or choice.message.audio is not None:
            return None
        else:
            pieces += _pieces(choice)
    chunks: list[Answer[Any]] = [
        Answer(object=kind, choices=[piece], service_tier=answer.service_tier) for piece in pieces
    ]
    chunks[0].prompt_token_ids = answer.prompt_token_ids
    return chunks


def _pieces(choice: ChatChoice) -> Iterator[ChunkChoice]:
    """Yield a role, what was thought, the text, each call, and the end: the order that vLLM's streams have.

    What the tokens have beside their text comes with the text, or with the end if there is none.
    """
    message = choice.message
    deltas = [Delta(role=message.role, content="")]
    for name in ("reasoning", "reasoning_content", "refusal"):
        if text := getattr(message, name):
            deltas.append(Delta(**{name: text}))
    carrier = len(deltas)
    if given(message.content) and message.content:
        deltas.append(Delta(content=str(message.content)))
    for place, tool in enumerate(message.tool_calls or ()):
        deltas.append(Delta(tool_calls=[msgspec.structs.replace(tool, index=place)]))
    if message.function_call is not None:
        deltas.append(Delta(function_call=msgspec.convert(message.function_call, CalledFunction)))
    deltas.append(Delta())
    carrier = carrier if deltas[carrier].content else len(deltas) - 1
    for place, delta in enumerate(deltas):
        piece = ChunkChoice(index=choice.index, delta=delta, logprobs=None, finish_reason=None)
        if place == carrier:
            piece.logprobs, piece.token_ids = choice.logprobs, choice.token_ids
        if delta is deltas[-1]:
            piece.finish_reason = choice.finish_reason
        yield piece


def finished(call: Call, answers: Sequence[Event]) -> bool:
    """Whether every choice that was asked for has come to an end, and said so with a finish reason."""
    view = call.view
    wanted = (view.n or 1) * (1 if isinstance(view, ChatRequest) else len(view.prompts))
    ended = set()
    for answer in answers:
        choices = answer["choices"] if isinstance(answer, dict) else answer.choices
        for choice in choices:
            reason = choice.get("finish_reason") if isinstance(choice, dict) else choice.finish_reason
            if reason is not None and reason is not UNSET:
                ended.add(choice["index"] if isinstance(choice, dict) else choice.index)
    return ended == set(range(wanted))
