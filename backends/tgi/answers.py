"""What TGI answers whole, read into OpenAI's types (CONTRACT.md 3.1, 3.5, 3.6).

A stop string's text, which TGI leaves in, is cut; its reasons for finishing get OpenAI's names.
"""

from typing import Any

import msgspec

from backends.base import Call, Completion, Continuation, FollowUp, Headers, UpstreamRequest
from backends.finishing import FINISH, multiply, normalize_tool, repeat, set_envelope
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
from backends.tgi.pieces import PIECE, in_pieces, without_tools
from backends.tgi.wire import TGIToolCall, read_chat, read_generated


def chat_completion(
    call: Call, view: ChatRequest, request: UpstreamRequest, headers: Headers, body: bytes
) -> Completion | FollowUp:
    """Read a whole chat answer. Raises msgspec.DecodeError and IndexError if it is none."""
    answer = read_chat(body)
    given = answer.choices[0]
    usage = usage_of(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    finish = FINISH.get(given.finish_reason or "", given.finish_reason)
    message = AnswerMessage(role="assistant", content=given.message.content, refusal=None)
    logprobs = chat_logprobs(given.logprobs, view) if given.logprobs else None
    if given.message.tool_calls:
        message.content = None
        message.tool_calls = [_tool_call(tool) for tool in given.message.tool_calls]
        finish = "stop" if isinstance(view.tool_choice, NamedTool) else "tool_calls"
    elif view.offers_tools:
        # `no_tool`: the text is of a second generation, the counts beside it of the first. The header is right.
        usage, finish = _second_generation(view, usage, headers)
        logprobs = None
        if in_pieces(call) and usage.completion_tokens >= PIECE:  # there is more to it than TGI gives at a time
            return FollowUp(without_tools(call, request, Continuation()))
    text, stopped = cut(message.content or "", view.stops)
    if stopped:
        message.content, finish = text, "stop"
    return _completed(call, request, "chat.completion", _chat_choices(call, request, message, finish, logprobs), usage)


def _second_generation(view: ChatRequest, usage: Usage, headers: Headers) -> tuple[Usage, str]:
    written = int(headers.get("x-generated-tokens", usage.completion_tokens))
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
                normalize_tool(tool, call, index, place)
        choices.append(ChatChoice(index=index, message=one, logprobs=logprobs, finish_reason=finish))
    return choices


def _tool_call(tool: TGIToolCall) -> ToolCall:
    arguments = tool.function.arguments
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments or {}).decode()
    return ToolCall(function=CalledFunction(name=tool.function.name, arguments=arguments))


def cut_tool_call(call: Call, request: UpstreamRequest) -> Completion:
    """Return the answer to a tool call that `max_tokens` cut; the partial call is not shown."""
    message = AnswerMessage(role="assistant", content=None, refusal=None)
    return Completion(Answer(choices=_chat_choices(call, request, message, "length", None)))


def text_completion(
    call: Call, view: CompletionRequest, request: UpstreamRequest, headers: Headers, body: bytes
) -> Completion:
    """Read `/generate`'s answer. Raises msgspec.DecodeError if it is none."""
    given = read_generated(body)
    finish = FINISH.get(given.details.finish_reason, given.details.finish_reason)
    text, stopped = cut(given.generated_text, view.stops)
    written = given.details.generated_tokens
    if view.limit == 0:  # only the echo was wanted; TGI generates at least one token
        text, stopped, finish, written = "", False, "length", 0
    logprobs = None
    if view.logprobs is not None:
        logprobs = TextLogprobs(view.logprobs)
        for place, token in enumerate(given.details.tokens):
            tops = given.details.top_tokens
            logprobs.add(token, tops[place] if place < len(tops) else [])
    prompt = prompt_text(view, request) if view.echo else ""
    usage = usage_of(int(headers.get("x-prompt-tokens", 0)), written)
    choice = TextChoice(
        index=request.choices[0],
        text=prompt + text,
        logprobs=logprobs and logprobs.render(),
        finish_reason="stop" if stopped else finish,
    )
    return _completed(call, request, "text_completion", repeat(choice, request.choices), usage)


def context_full(call: Call, request: UpstreamRequest) -> Completion:
    """Return the end of an answer in pieces that has filled the context."""
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
    """Return what is left of an answer that had ended, now that its prompt's tokens have been counted."""
    usage = None if read is None else multiply(usage_of(read, request.continuation.tokens), len(request.choices))
    if call is None or not isinstance(call.view, ChatRequest) or not request.continuation.cut:
        return Completion(Answer(choices=[], usage=usage))
    completion = cut_tool_call(call, request)
    set_envelope(completion.answer, call, "chat.completion")
    completion.answer.usage = usage
    return completion


def prompt_tokens(headers: Headers, body: bytes) -> int:
    """Return how many tokens the prompt had, by either kind of whole answer."""
    header = headers.get("x-prompt-tokens")
    return int(header) if header else read_chat(body).usage.prompt_tokens


def _completed(call: Call, request: UpstreamRequest, kind: str, choices: list[Any], usage: Usage) -> Completion:
    answer: Answer[Any] = Answer(choices=choices, usage=multiply(usage, len(request.choices)))
    set_envelope(answer, call, kind)
    return Completion(answer)
