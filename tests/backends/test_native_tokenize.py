"""TGI's tokenizer in front of vLLM: where each token is, by what vLLM says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.inbound.tgi.tokenize import ALPHABET, Tokens, chat_answer, placed, text_answer
from tests.support.recorded import load

LETTERS = {byte: letter for letter, byte in ALPHABET.items()}


def byte_level(*tokens: bytes) -> list[str]:
    """Return tokens in GPT-2's alphabet."""
    return ["".join(LETTERS[byte] for byte in token) for token in tokens]


TRAIN = "🚂".encode()
# (the prompt, its tokens as their tokenizer writes them, (text, start, stop) of each)
PLACED: dict[str, tuple[str, list[str], list[tuple[str, int | None, int | None]]]] = {
    "byte level": ("def main\n", ["def", "Ġmain", "Ċ"], [("def", 0, 3), (" main", 3, 8), ("\n", 8, 9)]),
    "two bytes a letter": ("é né", byte_level("é".encode(), " né".encode()), [("é", 0, 2), (" né", 2, 6)]),
    "pieces of a character": (
        "a🚂b",
        byte_level(b"a", TRAIN[:2], TRAIN[2:], b"b"),
        [("a", 0, 1), ("🚂", 1, 5), ("🚂", 1, 5), ("b", 5, 6)],
    ),
    "sentencepiece": (
        "def main",
        ["<s>", "▁def", "▁main"],
        [("", 0, 0), ("def", 0, 3), (" main", 3, 8)],
    ),
    "sentencepiece's bytes": (
        "a世",
        ["▁a", "<0xE4>", "<0xB8>", "<0x96>"],
        [("a", 0, 1), ("世", 1, 4), ("世", 1, 4), ("世", 1, 4)],
    ),
    "sentencepiece's letters": ("né", ["▁n", "é"], [("n", 0, 1), ("é", 1, 3)]),
    "special, in the text": ("<|im_end|>\n", ["<|im_end|>", "Ċ"], [("<|im_end|>", 0, 10), ("\n", 10, 11)]),
    "special, and added": ("a", ["[CLS]", "a", "[SEP]"], [("", 0, 0), ("a", 0, 1), ("", 0, 0)]),
    "unknown": ("Hello World", ["hello", "World"], [("hello", None, None), ("World", None, None)]),
    "letters like those of another alphabet": ("Ġa", ["Ġ", "a"], [("Ġ", 0, 2), ("a", 2, 3)]),
    "nothing": ("", [], []),
}


@pytest.mark.parametrize("name", PLACED)
def test_each_token_is_found_in_the_prompt_or_its_place_is_not_known(name: str) -> None:
    """In bytes, as TGI counts; a part of a character has the text of all of it."""
    text, names, wanted = PLACED[name]
    made = placed(text, Tokens(list(range(len(names))), names))
    assert [token.id for token in made] == list(range(len(names)))
    assert [(token.text, token.start, token.stop) for token in made] == wanted


def test_a_vllm_that_names_no_tokens_leaves_texts_and_places_open() -> None:
    (token,) = placed("def", Tokens([316]))
    assert (token.id, token.text, token.start, token.stop) == (316, "", None, None)


def test_all_bytes_have_a_letter() -> None:
    assert sorted(ALPHABET.values()) == list(range(256))


def vllm(name: str) -> Tokens:
    said = json.loads(load(f"vllm/{name}").response_body)
    return Tokens(said["tokens"], said["token_strs"])


def test_what_vllm_recorded_becomes_what_tgi_recorded() -> None:
    """The same prompts to both, of the same model."""
    tgi: Any = json.loads(load("tgi/N66_chat_tokenize").response_body)
    assert json.loads(chat_answer(tgi["templated_text"], vllm("18b_tokenize_chat"))) == tgi
    said = vllm("18_tokenize_prompt")
    said.token_strs = ["def", "Ġmain"]  # which were not asked for then
    assert json.loads(text_answer("def main", said)) == json.loads(load("tgi/N65_tokenize").response_body)
