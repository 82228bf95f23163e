"""Structured output in TGI's words, and TGI's words in vLLM's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.schema import ResponseFormat
from backends.tgi import TGI
from backends.tgi.grammars import JSON_DEPTH, for_vllm, json_object
from tests.support.dialects import TOOL, chat, text

BACKEND = TGI()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ARRAY = {"type": "array", "items": {"type": "integer"}}
REFERRING = {"$ref": "#/$defs/a", "$defs": {"a": SCHEMA | {"title": "A"}}}
RESOLVED = SCHEMA | {"title": "A"}


def named(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


# (the client's fields, what TGI is sent as its grammar; None: unsupported)
GRAMMARS: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("json_object", {"response_format": {"type": "json_object"}}, {"type": "regex", "value": json_object(JSON_DEPTH)}),
    (
        "json_schema",
        {"response_format": named(SCHEMA, strict=True, description="d")},
        {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}},
    ),
    (
        "json_schema with references",
        {"response_format": named(REFERRING)},
        {"type": "json_schema", "value": {"name": "n", "schema": RESOLVED}},
    ),
    ("json_schema that refers to itself", {"response_format": named({"properties": {"a": {"$ref": "#"}}})}, None),
    ("json_schema that leads nowhere", {"response_format": named({"properties": {"a": {"$ref": "#/b"}}})}, None),
    ("json_schema of no object", {"response_format": named(ARRAY)}, None),
    ("json_schema without properties", {"response_format": named({"type": "object"})}, None),
    ("json_schema whose properties are none", {"response_format": named({"properties": [1]})}, None),
    ("json_schema null", {"response_format": named(None)}, None),
    ("structural tag", {"response_format": {"type": "structural_tag"}}, None),
    *(
        (f"TGI's {kind}", {"response_format": {"type": kind, "value": value}}, {"type": kind, "value": value})
        for kind, value in [
            ("json", SCHEMA),
            ("json", json.dumps(SCHEMA)),
            ("json_object", SCHEMA),
            ("json_schema", {"name": "n", "schema": SCHEMA}),
            ("regex", "[0-9]+"),
        ]
    ),
    ("regex", {"structured_outputs": {"regex": "[0-9]+"}}, {"type": "regex", "value": "[0-9]+"}),
    ("choice", {"structured_outputs": {"choice": ["a.b", "c"]}}, {"type": "regex", "value": r"(a\.b|c)"}),
    ("no choice", {"structured_outputs": {"choice": []}}, None),
    ("choice of numbers", {"structured_outputs": {"choice": [1]}}, None),
    ("json", {"structured_outputs": {"json": SCHEMA}}, {"type": "json", "value": SCHEMA}),
    ("json, a text", {"structured_outputs": {"json": json.dumps(REFERRING)}}, {"type": "json", "value": RESOLVED}),
    ("json, no json", {"structured_outputs": {"json": "{"}}, None),
    ("json of no object", {"structured_outputs": {"json": ARRAY}}, None),
    (
        "nulls",
        {"structured_outputs": {"regex": "a", "json": None, "choice": None}},
        {"type": "regex", "value": "a"},
    ),
    ("two at once", {"structured_outputs": {"regex": "a", "choice": ["b"]}}, None),
    ("with an option", {"structured_outputs": {"regex": "a", "disable_any_whitespace": True}}, None),
    ("grammar", {"structured_outputs": {"grammar": "root ::= a"}}, None),
    ("json_object of vLLM's", {"structured_outputs": {"json_object": True}}, None),
    ("structural tag of vLLM's", {"structured_outputs": {"structural_tag": "{}"}}, None),
]


@pytest.mark.parametrize(("fields", "grammar"), [row[1:] for row in GRAMMARS], ids=[row[0] for row in GRAMMARS])
def test_structured_output_in_tgis_words(fields: dict[str, Any], grammar: dict[str, Any] | None) -> None:
    (name,) = fields
    calls = [(chat(**fields, max_tokens=4), "response_format")]
    if name == "structured_outputs":
        calls.append((text(prompt="a", **fields), "grammar"))
    for call, theirs in calls:
        if grammar is None:
            assert BACKEND.unsupported(call) == name
            continue
        assert BACKEND.unsupported(call) is None
        (request,) = BACKEND.encode(call, "m")
        body = json.loads(request.body)
        assert body.get("parameters", body)[theirs] == grammar
        assert request.adapted == (name,)


@pytest.mark.parametrize("fields", [{"response_format": {"type": "text"}}, {"structured_outputs": {}}])
def test_what_asks_for_nothing_is_no_grammar(fields: dict[str, Any]) -> None:
    for more in ({}, {"tools": [TOOL]}):
        call = chat(**fields, **more)
        assert BACKEND.unsupported(call) is None
        assert "response_format" not in json.loads(BACKEND.encode(call, "m")[0].body)


@pytest.mark.parametrize(
    ("kind", "value", "field", "said"),
    [
        ("regex", "a+", "structured_outputs", {"regex": "a+"}),
        ("json", SCHEMA, "response_format", {"name": "answer", "schema": SCHEMA}),
        ("json", json.dumps(SCHEMA), "response_format", {"name": "answer", "schema": SCHEMA}),
        ("json_object", SCHEMA, "response_format", {"name": "answer", "schema": SCHEMA}),
        ("json_schema", {"name": "n", "schema": SCHEMA}, "response_format", {"name": "n", "schema": SCHEMA}),
        ("json_schema", SCHEMA, "response_format", {"name": "answer", "schema": SCHEMA}),
        ("json", {"schema": 1}, "response_format", {"name": "answer", "schema": {"schema": 1}}),
    ],
)
def test_tgis_words_in_vllms(kind: str, value: Any, field: str, said: dict[str, Any]) -> None:
    wanted = said if kind == "regex" else {"type": "json_schema", "json_schema": said}
    assert for_vllm(ResponseFormat(type=kind, value=value)) == (field, wanted)


# --- any choice, any object -------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.text())
def test_a_choice_admits_its_texts_alone(choices: list[str], other: str) -> None:
    call = text(prompt="a", structured_outputs={"choice": choices})
    (request,) = BACKEND.encode(call, "m")
    expression = re.compile(json.loads(request.body)["parameters"]["grammar"]["value"])
    assert all(expression.fullmatch(choice) for choice in choices)
    assert bool(expression.fullmatch(other)) is (other in choices)


OBJECT = re.compile(json_object(1))
# TGI's strings (outlines-core's) hold no control characters, and escape nothing but `"` and `\`.
STRINGS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS
NESTED = st.lists(LEAVES, max_size=3) | st.dictionaries(STRINGS, LEAVES, max_size=3)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(STRINGS, LEAVES | NESTED, max_size=4), SEPARATORS)
def test_any_object_is_an_object_to_tgi(value: dict[str, Any], separators: tuple[str, str]) -> None:
    """That holds objects and arrays, but none of them others."""
    written = json.dumps(value, ensure_ascii=False, separators=separators)
    assert OBJECT.fullmatch(written)


@settings(max_examples=40, deadline=None)
@given(st.from_regex(OBJECT, fullmatch=True))
def test_what_tgi_lets_a_model_write_is_an_object(written: str) -> None:
    assert isinstance(json.loads(written), dict)


@pytest.mark.parametrize(
    "written",
    ["{}", "{ }", '{"a":1}', '{ "a" : 1 }', '{"a": {"b": 1}}', '{"a":[-0.5e+3, null , true]}', r'{"\"\\":"\\"}'],
)
def test_objects(written: str) -> None:
    assert OBJECT.fullmatch(written)
    assert isinstance(json.loads(written), dict)


@pytest.mark.parametrize(
    "written",
    [
        *("", "{", "}", "[]", "1", '"a"', "null", "{1:2}", "{a:1}", '{"a"}', '{"a":}', '{"a":1,}', '{,"a":1}'),
        *('{"a":01}', '{"a":.5}', '{"a":1.}', '{"a":+1}', '{"a":NaN}', '{"a":tru}', "{'a':1}", '{"a":1}}'),
        *('{"a":"\n"}', '{"a":"\\n"}', '{"a":"\\"}', '{"a" "b"}', '{"a":1 "b":2}', '{"a":1}\n', ' {"a":1}'),
        '{"a":[[1]]}',  # deeper than JSON_DEPTH
        '{"a":{"b":{}}}',
    ],
)
def test_no_objects(written: str) -> None:
    assert not OBJECT.fullmatch(written)


def test_the_depth_is_bounded() -> None:
    """Each level makes the expression four times larger, and TGI compile it for longer (CONTRACT.md 2.4 "1,485")."""
    assert JSON_DEPTH == 1
    assert [len(json_object(depth)) for depth in (1, 2)] == [1485, 6093]
    assert re.fullmatch(json_object(0), '{"a":1}')
    assert not re.fullmatch(json_object(0), '{"a":{}}')
    assert re.fullmatch(json_object(2), '{"a":[{"b":1}]}')
