"""Reads TOML into the tables, value by value, so that every fault is noted and not only the first."""

import difflib
import typing
from types import UnionType
from typing import Any

import msgspec
from msgspec import Struct

NOT_WRITTEN = {"api_key", "address"}  # found out at the start, or later


def read_value(value: Any, field: msgspec.structs.FieldInfo, path: str, faults: list[str]) -> Any:
    """Read a TOML value, noting each fault with its path; for what is faulty its default, or nothing, stands in."""
    kind = _table_of(field.type)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return read_table(value, kind, path, faults)
    (item,) = typing.get_args(kind) if typing.get_origin(kind) is list else (None,)
    if isinstance(item, type) and issubclass(item, Struct) and isinstance(value, list):
        return [read_table(each, item, f"{path}[{i}]", faults) for i, each in enumerate(value)]
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, inside = str(error).partition(" - at `$")
        faults.append(f"{path}{inside.rstrip('`')}: {said[0].lower()}{said[1:].replace('`', '')}")
        return _nothing(field)


def read_table(value: Any, kind: type[Struct], path: str, faults: list[str]) -> Struct:
    """Read a table, noting each fault with its path: unknown keys, missing ones, values of the wrong kind."""
    if not isinstance(value, dict):
        faults.append(f"{path}: expected a table")
        value = {}
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name not in NOT_WRITTEN}
    dot = f"{path}." if path else ""
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(fields)}"
            faults.append(f"{dot}{name}: unknown key; {hint}")
    read: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            read[name] = read_value(value[name], field, f"{dot}{name}", faults)
        elif field.required:
            faults.append(f"{dot}{name}: required")
            read[name] = _nothing(field)
    return kind(**read)


def _table_of(kind: Any) -> Any:
    """Return the table of a type that is one or nothing; any other type as it is."""
    tables = [one for one in typing.get_args(kind) if isinstance(one, type) and issubclass(one, Struct)]
    return tables[0] if len(tables) == 1 and typing.get_origin(kind) is UnionType else kind


def _nothing(field: msgspec.structs.FieldInfo) -> Any:
    """Return what stands in for a value that could not be read; all required ones are text."""
    return "" if field.required else field.default_factory() if callable(field.default_factory) else field.default
