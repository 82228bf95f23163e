"""TGI's complete answers, read into OpenAI's types (CONTRACT.md 3.1, 3.5, 3.6).

Stop strings, which TGI leaves in the text, are cut off; finish reasons are mapped to OpenAI's.
"""

from typing import Any

import msgspec

from backends import problem
from backends.base import Call, Completion, Continuation, FollowUp, Headers, UpstreamRequest
from backends.finishing import FINISH, multiply, repeat, set_envelope
from backends.schema import (
    Answer,
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatRequest,
    ChunkChoice,
    CompletionRequest,
    Delta,
    NamedTool,
    TextChoice,
    ToolCall,
    Usage,
)
from backends.stops import StopScanner, cut
from backends.tgi.counts import TextLogprobs, chat_logprobs, prompt_text, usage_of
from backends.tgi.pieces import PIECE, in_pieces, streamed, without_tools
from backends.tgi.wire import TGIToolCall, TGIUsage, chats, generated
from backends.tool_calls import identify


def chat_completion(
    call: Call, view: ChatRequest, request: UpstreamRequest, headers: Headers, body: bytes
) -> Completion | FollowUp:
    """Read a complete chat answer. Raises msgspec.DecodeError or IndexError if it is not one."""
    answer = chats.read(body)
    given = answer.choices[0]
    usage = _usage(answer.usage)
    finish = FINISH.get(given.finish_reason or "", given.finish_reason)
    message = AnswerMessage(role="assistant", content=given.message.content, refusal=None)
    logprobs = chat_logprobs(given.logprobs, view) if given.logprobs else None
    called = [_tool_call(tool) for tool in given.message.tool_calls or () if tool.function.name]
    if called:
        message.content, message.tool_calls = None, called
        finish = "stop" if isinstance(view.tool_choice, NamedTool) else "tool_calls"
    elif view.offers_tools:
        # `no_tool`: the text is from a second generation, the usage from the first. The header has the right count.
        usage, finish = _second_generation(view, usage, headers)
        logprobs = None
        if in_pieces(call) and usage.completion_tokens >= PIECE:  # the answer is longer than one piece
            return FollowUp(without_tools(call, request, Continuation()))
    elif not message.content and finish == "length" and usage.completion_tokens > 0 and not request.stream:
        return FollowUp(streamed(request))  # it ends inside a character, and TGI has lost all of it
    text, stopped = cut(message.content or "", view.stops)
    if stopped:
        message.content, finish = text, "stop"
    return _completed(call, request, "chat.completion", _chat_choices(call, request, message, finish, logprobs), usage)


def _second_generation(view: ChatRequest, usage: Usage, headers: Headers) -> tuple[Usage, str]:
    written = int(headers.get("x-generated-tokens") or usage.completion_tokens)
    cut_short = view.limit is not None and written >= view.limit
    return usage_of(usage.prompt_tokens, written), "length" if cut_short else "stop"


def _chat_choices(
    call: Call, request: UpstreamRequest, message: AnswerMessage, finish: str | None, logprobs: Any
) -> list[ChatChoice]:
    choices = []
    for index in request.choices:
        one = msgspec.structs.replace(message)
        if message.tool_calls:
            one.tool_calls = [msgspec.structs.replace(tool) for tool in message.tool_calls]
            for place, tool in enumerate(one.tool_calls):
                identify(tool, call, index, place)
        choices.append(ChatChoice(index=index, message=one, logprobs=logprobs, finish_reason=finish))
    return choices


def _tool_call(tool: TGIToolCall) -> ToolCall:
    arguments = tool.function.arguments
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments or {}).decode()
    return ToolCall(function=CalledFunction(name=tool.function.name, arguments=arguments))


def cut_tool_call(call: Call, request: UpstreamRequest) -> Completion:
    """Return the answer for a tool call that `max_tokens` cut off; the partial call is not shown."""
    message = AnswerMessage(role="assistant", content=None, refusal=None)
    return Completion(Answer(choices=_chat_choices(call, request, message, "length", None)))


def text_completion(
    call: Call, view: CompletionRequest, request: UpstreamRequest, headers: Headers, body: bytes
) -> Completion:
    """Read the answer of `/generate`. Raises msgspec.DecodeError or ValueError if it is not one."""
    given = generated.read(body)
    finish = FINISH.get(given.details.finish_reason, given.details.finish_reason)
    # TGI loses a whole text that ends inside a character; its tokens have all but that one (CONTRACT.md 3.2).
    told = given.generated_text or "".join(token.text for token in given.details.tokens if not token.special)
    text, stopped = cut(told, view.stops)
    written = given.details.generated_tokens
    if written < 0 and given.details.tokens:
        written = len(given.details.tokens)
    if view.limit == 0:  # only the echo was wanted; TGI generates at least one token
        text, stopped, finish, written = "", False, "length", 0
    logprobs = None
    if view.logprobs is not None:
        logprobs = TextLogprobs(view.logprobs)
        for place, token in enumerate(given.details.tokens):
            tops = given.details.top_tokens
            logprobs.add(token, tops[place] if place < len(tops) else [])
    prompt = prompt_text(view, request) if view.echo else ""
    usage = usage_of(int(headers.get("x-prompt-tokens") or given.details.input_length or -1), written)
    choice = TextChoice(
        index=request.choices[0],
        text=prompt + text,
        logprobs=None if logprobs is None else logprobs.render(),
        finish_reason="stop" if stopped else finish,
    )
    return _completed(call, request, "text_completion", repeat(choice, request.choices), usage)


def context_full(call: Call, request: UpstreamRequest) -> Completion:
    """Return the end of an answer in pieces whose text has filled the context."""
    continuation = request.continuation
    scanner = StopScanner(call.view.stops, continuation.held)
    text = scanner.end()
    finish = "stop" if scanner.stopped else "length"
    choices: list[Any] = [
        ChunkChoice(index=index, delta=Delta(content=text), logprobs=None, finish_reason=finish)
        if isinstance(call.view, ChatRequest)
        else TextChoice(index=index, text=text, logprobs=None, finish_reason=finish)
        for index in request.choices
    ]
    return _completed(call, request, "", choices, usage_of(continuation.prompt_tokens, continuation.tokens))


def counted(call: Call | None, request: UpstreamRequest, read: int | None) -> Completion:
    """Return the rest of an answer that has ended: its usage, with `read` prompt tokens (None: not known)."""
    usage = None if read is None else multiply(usage_of(read, request.continuation.tokens), len(request.choices))
    if call is None or not isinstance(call.view, ChatRequest) or not request.continuation.cut:
        return Completion(Answer(choices=[], usage=usage))
    completion = cut_tool_call(call, request)
    set_envelope(completion.answer, call, "chat.completion")
    completion.answer.usage = usage
    return completion


def prompt_tokens(headers: Headers, body: bytes) -> int | None:
    """Return the number of prompt tokens that a complete answer, chat or `/generate`, reports; None if it has none."""
    try:
        header = headers.get("x-prompt-tokens")
        count = int(header) if header else _usage(chats.read(body).usage).prompt_tokens
    except (*problem.UNREADABLE, ValueError):
        return None
    return None if count < 0 else count


def _usage(given: TGIUsage | None) -> Usage:
    return usage_of(-1, -1) if given is None else usage_of(given.prompt_tokens, given.completion_tokens)


def _completed(call: Call, request: UpstreamRequest, kind: str, choices: list[Any], usage: Usage) -> Completion:
    known = max(usage.prompt_tokens, usage.completion_tokens) >= 0
    answer: Answer[Any] = Answer(choices=choices, usage=multiply(usage, len(request.choices)) if known else None)
    set_envelope(answer, call, kind)
    return Completion(answer)
