"""Converts an answer between its two forms: one whole answer, and the chunks of a stream (OpenAI's reference). Pure.

How does a whole tool-call answer become a stream's chunks? `answer_to_chunks` writes, for each choice, one chunk for
each of these that the message has, in the order that vLLM's streams have:

1. the role: `{"role": "assistant", "content": ""}`
2. the reasoning, and the refusal: `{"reasoning": "..."}`
3. the text, in one piece: `{"content": "..."}`
4. each tool call, in one piece, with its place as `index`:
   `{"tool_calls": [{"index": 0, "id": "...", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}`
5. the end: an empty delta `{}`, with the finish reason.

`chunks_to_answer` is the way back, and takes calls in any number of pieces. Neither loses anything: where the other
form has no place for something, the result is None. `completion_to_chunks` and `chunks_to_completion` are the same
for answers that the gateway's own dialects have built (TGI's), which always have both forms.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from backends.base import Call, Completion, Event
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
    Usage,
)

ONE_FORM = ("prompt_text", "prompt_logprobs", "kv_transfer_params", "ec_transfer_params", "metrics")
TEXTS = ("content", "refusal", "reasoning", "reasoning_content")
NOTHING = (None,) * len(ONE_FORM)

_one_form = attrgetter(*ONE_FORM)


def answer_to_chunks(answer: Answer[Any]) -> list[Answer[Any]] | None:
    """Return a whole answer as a stream's chunks, without usage; None if they would lose something.

    A choice that is a chunk's already (the end of TGI's answer in pieces) stays as it is.
    """
    if _one_form(answer) != NOTHING:
        return None
    pieces: list[Any] = []
    for choice in answer.choices:
        if not isinstance(choice, ChatChoice):
            pieces.append(choice)
        elif choice.message.annotations is not None or choice.message.audio is not None:
            return None
        else:
            pieces += _pieces(choice)
    chunks = [_chunk(answer, piece) for piece in pieces]
    if chunks:
        chunks[0].prompt_token_ids = answer.prompt_token_ids
    return chunks


def _chunk(answer: Answer[Any], piece: Any) -> Answer[Any]:
    return Answer(
        id=answer.id,
        object="text_completion" if isinstance(piece, TextChoice) else "chat.completion.chunk",
        created=answer.created,
        model=answer.model,
        choices=[piece],
        service_tier=answer.service_tier,
    )


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


def chunks_to_answer(call: Call, events: Sequence[Event], usage: Usage | None) -> Answer[Any] | None:
    """Return the whole answer to a call that a stream's chunks come to; None if it would lose something."""
    chat = isinstance(call.view, ChatRequest)
    kind = "chat.completion" if chat else "text_completion"
    whole: Answer[Any] = Answer(
        id=call.id, object=kind, created=call.created, model=call.model, choices=[], usage=usage
    )
    pieces: dict[int, list[Any]] = {}
    for event in events:
        if isinstance(event, dict) or _one_form(event) != NOTHING:
            return None
        whole.service_tier = event.service_tier or whole.service_tier
        whole.prompt_token_ids = event.prompt_token_ids or whole.prompt_token_ids
        for piece in event.choices:
            pieces.setdefault(piece.index, []).append(piece)
    whole.choices = [_chat(pieces[index], call) if chat else _text(pieces[index]) for index in sorted(pieces)]
    return whole


def _text(pieces: list[TextChoice]) -> TextChoice:
    whole = msgspec.structs.replace(pieces[0], text="".join([piece.text for piece in pieces]))
    for piece in pieces:
        whole.finish_reason = piece.finish_reason or whole.finish_reason
        whole.prompt_logprobs = whole.prompt_logprobs or piece.prompt_logprobs
        whole.prompt_token_ids = whole.prompt_token_ids or piece.prompt_token_ids
    _put_beside(whole, pieces)
    return whole


def _chat(pieces: list[ChunkChoice], call: Call) -> ChatChoice:
    message = AnswerMessage(role="assistant", content=None, refusal=None)
    whole = ChatChoice(index=pieces[0].index, message=message, logprobs=None, finish_reason=None)
    for piece in pieces:
        message.role = piece.delta.role or message.role
        if given(piece.finish_reason):
            whole.finish_reason = piece.finish_reason or None
    _say(message, [piece.delta for piece in pieces], call)
    _put_beside(whole, pieces)
    return whole


def _say(message: AnswerMessage, deltas: list[Delta], call: Call) -> None:
    """Put the pieces of a message together, as a whole answer has them: no text beside a call made or due."""
    for name in TEXTS:
        texts = [text for delta in deltas if (text := getattr(delta, name)) is not None]
        if texts:
            setattr(message, name, "".join(texts))
    tools: dict[int, list[ToolCall]] = {}
    for delta in deltas:
        for tool in delta.tool_calls or ():
            tools.setdefault(tool.index or 0, []).append(tool)
    message.tool_calls = [_tool(some) for some in tools.values()] or None
    functions = [delta.function_call for delta in deltas if delta.function_call]
    message.function_call = _called(functions) if functions else None
    silent = tools or functions or (isinstance(call.view, ChatRequest) and call.view.must_call)
    message.content = message.content or (None if silent else "")


def _tool(pieces: list[ToolCall]) -> ToolCall:
    return msgspec.structs.replace(pieces[0], index=None, function=_called([piece.function for piece in pieces]))


def _called(pieces: list[CalledFunction]) -> CalledFunction:
    name = next((piece.name for piece in pieces if piece.name), None)
    return CalledFunction(name=name, arguments="".join([piece.arguments or "" for piece in pieces]))


def _put_beside(whole: Any, pieces: Sequence[Any]) -> None:
    """Put together what each token has beside its text."""
    ids = [piece.token_ids for piece in pieces if piece.token_ids is not None]
    if ids:
        whole.token_ids = list(chain.from_iterable(ids))
    said = [piece.logprobs for piece in pieces if given(piece.logprobs)]
    if said:
        names = dict.fromkeys(chain.from_iterable(said))
        whole.logprobs = {name: _joined([one[name] for one in said if name in one]) for name in names}


def _joined(values: list[Any]) -> Any:
    """Return the lists as one; what none of them is, as the first said it."""
    lists = [value for value in values if value]
    return list(chain.from_iterable(lists)) if lists else values[0]


def completion_to_chunks(completion: Completion) -> list[Answer[Any]]:
    """Return the chunks of an answer that an engine gave whole though a stream was asked for (TGI's tools)."""
    answer = completion.answer
    choices = [_without_call_logprobs(choice) for choice in answer.choices]
    chunks = answer_to_chunks(msgspec.structs.replace(answer, choices=choices))
    assert chunks is not None, "a dialect builds only answers that have both forms"
    return chunks


def _without_call_logprobs(choice: Any) -> Any:
    """Leave out the log probabilities of a choice without text.

    TGI has them for a call's tokens too. Clients see them beside a whole answer, but never in the stream of a call.
    """
    if isinstance(choice, ChatChoice) and not choice.message.content:
        return msgspec.structs.replace(choice, logprobs=None)
    return choice


def chunks_to_completion(call: Call, events: Sequence[Event], usage: Usage | None) -> Completion:
    """Return the answer that an engine streamed though it was asked for whole (TGI's stop strings)."""
    answer = chunks_to_answer(call, events, usage)
    assert answer is not None, "a dialect builds only chunks that have both forms"
    return Completion(answer)
