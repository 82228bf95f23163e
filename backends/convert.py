"""Converts an answer between its two forms: one whole answer, and the chunks of a stream (OpenAI's reference). Pure.

How does a whole tool-call answer become a stream's chunks? `chunks_of` writes, for each choice, one chunk for each of
these that the message has, in the order that vLLM's streams have:

1. the role: `{"role": "assistant", "content": ""}`
2. the reasoning, in the fields that the message has it in, and the refusal: `{"reasoning": "..."}`
3. the text, in one piece: `{"content": "..."}`
4. each tool call, in one piece, with its place as `index`:
   `{"tool_calls": [{"index": 0, "id": "...", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}`
5. the end: an empty delta `{}`, with the finish reason.

`whole_of` is the way back, and takes calls in any number of pieces. Neither loses anything: where the other form has
no place for something, the result is None. The cache uses both, to serve what it has in the form that is asked for.
`as_chunks` and `assembled` are the same with the answer's head, for engines that answer in the other form than the
client asked in (TGI's tools, TGI's stop strings; engines that take no notice of `stream`). They always have a result:
what has no place in the other form is left out.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET

from backends.base import BackendError, Call, Completion, Decoder, Event, FollowUp
from backends.extras import CHAT_CHUNK, WHOLE_TEXT, ExtrasReader, is_set, merge_extra
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


def whole_of(call: Call, events: Sequence[Event]) -> Answer[Any] | None:
    """Return the whole answer that a stream's chunks come to, without usage; None if it would lose something."""
    chat = isinstance(call.view, ChatRequest)
    whole: Answer[Any] = Answer(object="chat.completion" if chat else "text_completion", choices=[])
    pieces: dict[int, list[Any]] = {}
    for event in events:
        if isinstance(event, dict) or _one_form(event) != NOTHING:
            return None
        whole.service_tier = event.service_tier or whole.service_tier
        whole.system_fingerprint = event.system_fingerprint or whole.system_fingerprint
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
        if is_set(piece.finish_reason):
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
    said = [piece.logprobs for piece in pieces if is_set(piece.logprobs)]
    if said:
        names = dict.fromkeys(chain.from_iterable(said))
        whole.logprobs = {name: _joined([one[name] for one in said if name in one]) for name in names}


def _joined(values: list[Any]) -> Any:
    """Return the lists as one; what none of them is, as the first said it."""
    lists = [value for value in values if value]
    return list(chain.from_iterable(lists)) if lists else values[0]


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
        elif isinstance(choice, ChunkChoice):  # the last piece of a stream that a dialect completes itself
            pieces.append(choice)
        elif choice.message.annotations is not None or choice.message.audio is not None:
            return None
        else:
            pieces += _pieces(choice)
    chunks: list[Answer[Any]] = [
        Answer(
            object=kind,
            choices=[piece],
            service_tier=answer.service_tier,
            system_fingerprint=answer.system_fingerprint,
        )
        for piece in pieces
    ]
    for first in chunks[:1]:
        first.prompt_token_ids = answer.prompt_token_ids
    return chunks


def _pieces(choice: ChatChoice) -> Iterator[ChunkChoice]:
    """Yield a role, what was thought, the text, each call, and the end: the order that vLLM's streams have.

    What the tokens have beside their text comes with the text, or with the end if there is none.
    """
    message = choice.message
    deltas = [Delta(role=message.role, content="")]
    if message.reasoning or message.reasoning_content:
        deltas.append(Delta(reasoning=message.reasoning, reasoning_content=message.reasoning_content))
    if is_set(message.refusal) and message.refusal:
        deltas.append(Delta(refusal=str(message.refusal)))
    carrier = len(deltas)
    if is_set(message.content) and message.content:
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


def as_chunks(completion: Completion) -> list[Event]:
    """Return a whole answer of an engine's as the chunks that a stream of it would have had, with its head.

    What only a whole answer has goes with the first chunk; annotations and audio are left out.
    """
    answer = completion.answer
    choices = [_streamable(choice) for choice in answer.choices]
    chunks = chunks_of(msgspec.structs.replace(answer, choices=choices, **dict.fromkeys(ONE_FORM))) or []
    for chunk in chunks:
        chunk.id, chunk.created, chunk.model = answer.id, answer.created, answer.model
    for first in chunks[:1]:
        for name in ONE_FORM:
            setattr(first, name, getattr(answer, name))
    return _with_extra(chunks, completion.extra)


def _with_extra(chunks: list[Answer[Any]], extra: dict[str, Any]) -> list[Event]:
    """Return the chunks with the fields at the top of a whole answer that no type names, on the first of them."""
    top = {name: value for name, value in extra.items() if name not in ("choices", "usage")}
    return [merge_extra(chunk, top) if top and chunk is chunks[0] else chunk for chunk in chunks]


def _streamable(choice: Any) -> Any:
    """Return a choice without what no stream has: log probabilities beside no text, annotations, audio.

    TGI has log probabilities for a call's tokens too. Clients see them beside a whole answer, but never in the stream
    of a call.
    """
    if not isinstance(choice, ChatChoice):
        return choice
    message = choice.message
    if message.annotations is not None or message.audio is not None:
        choice = msgspec.structs.replace(choice, message=msgspec.structs.replace(message, annotations=None, audio=None))
    return choice if message.content else msgspec.structs.replace(choice, logprobs=None)


def assembled(call: Call, events: Sequence[Event], usage: Usage | None) -> Completion:
    """Return the chunks of a whole stream of an engine's as the whole answer to a call.

    Fields that no type names are left out: a whole answer has no place for one value a chunk.
    """
    chunks = [_typed(event, call) for event in events]
    plain = [msgspec.structs.replace(chunk, **dict.fromkeys(ONE_FORM)) for chunk in chunks]
    answer = whole_of(call, plain) or Answer(choices=[])
    for name in ONE_FORM:
        setattr(answer, name, next((value for chunk in chunks if (value := getattr(chunk, name)) is not None), None))
    answer.id, answer.created, answer.model, answer.usage = call.id, call.created, call.model, usage
    return Completion(answer)


def _typed(event: Event, call: Call) -> Answer[Any]:
    if not isinstance(event, dict):
        return event
    reader: ExtrasReader[Any] = CHAT_CHUNK if isinstance(call.view, ChatRequest) else WHOLE_TEXT
    chunk: Answer[Any] = reader.convert(event)[0]
    return chunk


def collected(call: Call, decoder: Decoder, body: bytes) -> Completion | FollowUp:
    """Return the whole answer of a stream that came in the place of one. Raises the BackendError that it ends in."""
    events = [*decoder.feed(body)]
    if not decoder.finished and decoder.failure is None:
        events += decoder.end()
    failure = decoder.failure
    if isinstance(failure, BackendError):
        raise failure
    if isinstance(failure, FollowUp):
        return failure
    return assembled(call, events, decoder.usage if failure is None else failure.answer.usage)
