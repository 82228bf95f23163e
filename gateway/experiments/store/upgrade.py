"""What older versions of this program have written, as this one has it: a step for each version. Pure.

1   events were counted under `first/<event>/<arm>` alone; a failure of the engine was called `failure`
2   that is an `error`; every event is counted as well, beside the first of each unit
"""

from collections.abc import Mapping

from gateway.experiments.store.base import SCHEMA


class FromLater(Exception):
    """The record was written by a later version of this program."""


def upgraded(version: int, sums: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of a record of some version as they are in this one. Raises FromLater."""
    if version > SCHEMA:
        raise FromLater(f"the record is of version {version}; this program knows versions up to {SCHEMA}")
    found = dict(sums)
    for number in range(version, SCHEMA):
        found = STEPS[number](found)
    return found


def _from_1(sums: Mapping[str, int]) -> dict[str, int]:
    found = {field.replace("/first/failure/", "/first/error/"): value for field, value in sums.items()}
    events = {field.replace("/first/", "/event/"): value for field, value in found.items() if "/first/" in field}
    return events | found


STEPS = {1: _from_1}
