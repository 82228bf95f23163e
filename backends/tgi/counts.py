"""TGI's log probabilities and token counts in OpenAI's form."""

from typing import Any

from backends.base import UpstreamRequest
from backends.schema import ChatRequest, CompletionRequest, Usage
from backends.tgi.wire import ChatLogprobs, Token


def chat_logprobs(given: ChatLogprobs, view: ChatRequest) -> dict[str, Any]:
    """Return a chat's `logprobs`, with each token's bytes and at most `top_logprobs` entries; TGI may send more."""
    most = view.top_logprobs or 0
    return {
        "content": [
            {
                "token": token.token,
                "logprob": token.logprob,
                "bytes": list(token.token.encode()),
                "top_logprobs": [
                    {"token": top.token, "logprob": top.logprob, "bytes": list(top.token.encode())}
                    for top in token.top_logprobs[:most]
                ],
            }
            for token in given.content
        ],
        "refusal": None,
    }


class TextLogprobs:
    """Builds the legacy `logprobs` object of at most `most` entries a token; offsets count characters of the text."""

    def __init__(self, most: int, offset: int = 0) -> None:
        self._most = most
        self._offset = offset
        self.clear()

    def clear(self) -> None:
        """Begin the next chunk's object."""
        self._tokens: list[str] = []
        self._values: list[float | None] = []
        self._tops: list[dict[str, float | None]] = []
        self._offsets: list[int] = []

    def add(self, token: Token, tops: list[Token]) -> None:
        """Add one generated token and its most likely alternatives; the token itself is always among them."""
        self._tokens.append(token.text)
        self._values.append(token.logprob)
        likely = {top.text: top.logprob for top in tops[: self._most]}
        likely.setdefault(token.text, token.logprob)
        self._tops.append(likely)
        self._offsets.append(self._offset)
        self._offset += len(token.text)

    def render(self) -> dict[str, Any]:
        """Return the `logprobs` object."""
        return {
            "text_offset": self._offsets,
            "token_logprobs": self._values,
            "tokens": self._tokens,
            "top_logprobs": self._tops,
        }


def usage_of(read: int, written: int) -> Usage:
    """Return the usage of `read` prompt tokens and `written` generated tokens; -1 is not known."""
    total = read + written if min(read, written) >= 0 else -1
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=total)


def prompt_text(view: CompletionRequest, request: UpstreamRequest) -> str:
    """Return the text of the prompt that a request is for."""
    return str(view.prompts[request.prompt])
