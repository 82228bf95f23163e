"""JSON Schemas with their references resolved."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.references import MAX_VALUES, Unresolvable, resolved

TEXT = {"type": "string"}


def of(schema: Any, **defs: Any) -> dict[str, Any]:
    return {"properties": {"p": schema}, "$defs": defs}


RESOLVED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {}),
    ("no references", {"properties": {"a": TEXT}}, {"properties": {"a": TEXT}}),
    ("one", of({"$ref": "#/$defs/a"}, a=TEXT), {"properties": {"p": TEXT}}),
    ("the older name", {"properties": {"p": {"$ref": "#/definitions/a"}}, "definitions": {"a": TEXT}}, of(TEXT)),
    ("the root", {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": TEXT}}}}, {"properties": {"b": TEXT}}),
    ("through another", of({"$ref": "#/$defs/a"}, a={"$ref": "#/$defs/b"}, b=TEXT), of(TEXT)),
    ("twice", of({"anyOf": [{"$ref": "#/$defs/a"}] * 2}, a=TEXT), of({"anyOf": [TEXT, TEXT]})),
    (
        "inside what is named",
        of({"$ref": "#/$defs/a"}, a={"items": {"$ref": "#/$defs/b"}}, b=TEXT),
        of({"items": TEXT}),
    ),
    ("something beside it", of({"$ref": "#/$defs/a", "title": "t"}, a=TEXT), of(TEXT | {"title": "t"})),
    ("what is beside it wins", of({"$ref": "#/$defs/a", "type": "null"}, a=TEXT), of({"type": "null"})),
    (
        "a property",
        {"properties": {"a": TEXT, "b": {"$ref": "#/properties/a"}}},
        {"properties": {"a": TEXT, "b": TEXT}},
    ),
    ("slash", of({"$ref": "#/$defs/a~1b"}, **{"a/b": TEXT}), of(TEXT)),
    ("tilde", of({"$ref": "#/$defs/a~0b"}, **{"a~b": TEXT}), of(TEXT)),
    ("tilde and 1", of({"$ref": "#/$defs/a~01b"}, **{"a~1b": TEXT}), of(TEXT)),
    ("percent", of({"$ref": "#/$defs/a%20b"}, **{"a b": TEXT}), of(TEXT)),
    ("not ASCII", of({"$ref": "#/$defs/ä%C3%A4"}, ää=TEXT), of(TEXT)),
    ("a property of the name", {"properties": {"$ref": TEXT}}, {"properties": {"$ref": TEXT}}),
    (
        "a property called definitions",
        {"properties": {"definitions": {"items": {"$ref": "#/$defs/a"}}}, "$defs": {"a": TEXT}},
        {"properties": {"definitions": {"items": TEXT}}},
    ),
    ("what refers to itself, unused", of(TEXT, a={"items": {"$ref": "#/$defs/a"}}), of(TEXT)),
]


@pytest.mark.parametrize(("schema", "plain"), [row[1:] for row in RESOLVED], ids=[row[0] for row in RESOLVED])
def test_references_are_resolved(schema: dict[str, Any], plain: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert resolved(schema) == {name: value for name, value in plain.items() if name != "$defs"}
    assert schema == before, "the client's own is left as it is"


UNRESOLVABLE: list[tuple[str, dict[str, Any]]] = [
    ("missing", of({"$ref": "#/$defs/b"}, a=TEXT)),
    ("no definitions", {"properties": {"p": {"$ref": "#/$defs/a"}}}),
    ("elsewhere", of({"$ref": "https://example.com/a"})),
    ("another file", of({"$ref": "a.json#/$defs/a"}, a=TEXT)),
    ("no schema", of({"$ref": "#/$defs/a"}, a=[TEXT])),
    ("a text", of({"$ref": "#/$defs/a"}, a="b")),
    ("through a text", of({"$ref": "#/$defs/a/b"}, a="b")),
    ("itself", of({"$ref": "#/$defs/a"}, a={"$ref": "#/$defs/a"})),
    ("the root itself", {"$ref": "#"}),
    ("a tree", of({"$ref": "#/$defs/a"}, a={"properties": {"l": {"$ref": "#/$defs/a"}, "r": {"$ref": "#/$defs/a"}}})),
    ("in a ring", of({"$ref": "#/$defs/a"}, a={"items": {"$ref": "#/$defs/b"}}, b={"items": {"$ref": "#/$defs/a"}})),
]


@pytest.mark.parametrize("schema", [row[1] for row in UNRESOLVABLE], ids=[row[0] for row in UNRESOLVABLE])
def test_what_leads_nowhere_is_said(schema: dict[str, Any]) -> None:
    with pytest.raises(Unresolvable):
        resolved(schema)


def test_a_few_references_to_a_few_are_not_followed_for_ever() -> None:
    """A body of some kilobytes would come to 10**16 values."""
    defs: dict[str, Any] = {"a9": TEXT}
    for level in range(9):
        defs[f"a{level}"] = {"anyOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 60}
    with pytest.raises(Unresolvable):
        resolved(of({"$ref": "#/$defs/a0"}, **defs))
    assert resolved({"enum": list(range(MAX_VALUES // 2))})


def test_a_schema_that_is_too_deep_is_no_exception_of_another_kind() -> None:
    schema: dict[str, Any] = {}
    for _ in range(500):
        schema = {"properties": {"a": schema}}
    with pytest.raises(Unresolvable):
        resolved(schema)


SCHEMAS = st.recursive(
    st.sampled_from([TEXT, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"$ref": "#/$defs/none"}, {"$ref": "#"}]),
    lambda inner: (
        st.builds(lambda one: {"items": one}, inner)
        | st.builds(lambda one, other: {"properties": {"x": one, "$defs": other}}, inner, inner)
        | st.lists(inner, max_size=2).map(lambda several: {"anyOf": several})
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_any_schema_has_no_reference_left_or_is_unresolvable(schema: Any, a: Any, b: Any) -> None:
    try:
        plain = resolved({"properties": {"p": schema}, "$defs": {"a": a, "b": b}})
    except Unresolvable:
        return
    assert "$ref" not in json.dumps(plain)
