"""TGI's `/tokenize` and `/chat_tokenize` in front of vLLM, whose `/tokenize` names the tokens but not their places.

TGI answers with each token's id, its text and where that is in the prompt, in bytes (CONTRACT.md 1 "count a prompt's
tokens"). vLLM has the tokens as their tokenizer writes them: bytes as letters (GPT-2's alphabet), blanks as U+2581 and
bytes as `<0xE4>` (SentencePiece), or the text itself. So each is looked for where the one before it ended. One that the
tokenizer added (`<s>`) is nowhere in the prompt, which TGI says by an empty text at 0; the place of one that is not
found is not known, and null.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from backends.base import Call, UpstreamRequest
from backends.inbound.tgi.answers import is_special
from backends.schema import ChatRequest

TOKENIZE = "/tokenize"
CHAT_TOKENIZE = "/chat_tokenize"
DETOKENIZE = "/detokenize"

_BLANK = "\u2581"  # SentencePiece's
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ADDED = re.compile(r"\[(CLS|SEP|BOS|EOS|PAD|UNK|MASK)\]")

_encode = msgspec.json.Encoder().encode


class Tokens(Struct):
    """vLLM's answer: ids, and the tokens as their tokenizer writes them."""

    tokens: list[int]
    token_strs: list[str] | None = None


class PlacedToken(Struct):
    """A token of a prompt, and the bytes of it that are its text; null where they are not known."""

    id: int
    text: str
    start: int | None
    stop: int | None


class ChatTokens(Struct):
    """The answer of `/chat_tokenize`: the tokens, and the prompt that the chat template made."""

    tokenize_response: list[PlacedToken]
    templated_text: str


def text_request(text: str, model: str) -> UpstreamRequest:
    """Return the vLLM request for the tokens of a text."""
    return _request(TOKENIZE, {"model": model, "prompt": text, "return_token_strs": True})


def chat_request(call: Call, view: ChatRequest, model: str) -> UpstreamRequest:
    """Return the vLLM request for the tokens of a chat. Of an assistant's last message TGI writes the beginning."""
    body: dict[str, Any] = {"model": model, "messages": call.body["messages"], "return_token_strs": True}
    if view.offers_tools:
        body["tools"] = call.body["tools"]
    if view.messages[-1].role == "assistant":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return _request(TOKENIZE, body)


def prompt_request(tokens: Tokens, model: str) -> UpstreamRequest:
    """Return the vLLM request for the text that tokens are of."""
    return _request(DETOKENIZE, {"model": model, "tokens": tokens.tokens})


def _request(path: str, body: dict[str, Any]) -> UpstreamRequest:
    return UpstreamRequest(path=path, body=_encode(body), stream=False)


def text_answer(text: str, tokens: Tokens) -> bytes:
    """Return TGI's answer to `/tokenize`."""
    return _encode(placed(text, tokens))


def chat_answer(text: str, tokens: Tokens) -> bytes:
    """Return TGI's answer to `/chat_tokenize`."""
    return _encode(ChatTokens(placed(text, tokens), text))


def placed(text: str, tokens: Tokens) -> list[PlacedToken]:
    """Return the tokens of a text with their places in it."""
    data, at = text.encode(), 0
    made: list[PlacedToken] = []
    names: Sequence[str] = tokens.token_strs or [""] * len(tokens.tokens)
    for token, name in zip(tokens.tokens, names, strict=False):
        size = next((len(form) for form in _forms(name, at) if form and data.startswith(form, at)), 0)
        if size:
            start, stop = _characters(data, at, at + size)
            made.append(PlacedToken(token, data[start:stop].decode(), start, stop))
            at += size
        elif is_special(name) or _ADDED.fullmatch(name):
            made.append(PlacedToken(token, "", 0, 0))
        else:
            made.append(PlacedToken(token, name, None, None))
    return made


def _forms(name: str, at: int) -> Iterator[bytes]:
    """Yield what the bytes of a token may be, by the alphabets that tokenizers write them in."""
    if all(letter in ALPHABET for letter in name):
        yield bytes(ALPHABET[letter] for letter in name)
    if byte := _BYTE.fullmatch(name):
        yield bytes([int(byte[1], 16)])
    written = name.replace(_BLANK, " ")
    yield written.encode(errors="replace")
    if at == 0:  # before a text SentencePiece puts a blank
        yield written.removeprefix(" ").encode(errors="replace")


def _characters(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Return the place of the whole characters that some bytes are of, as TGI has it for a part of a character."""
    while start > 0 and _continues(data[start]):
        start -= 1
    while stop < len(data) and _continues(data[stop]):
        stop += 1
    return start, stop


def _continues(byte: int) -> bool:
    return byte & 0xC0 == 0x80


def _alphabet() -> dict[str, int]:
    """Return the byte of each letter of GPT-2's alphabet: printable ones are themselves, the others come after 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


ALPHABET = _alphabet()
