"""What is noted of an experiment beside its numbers, each as JSON under a name in the store.

run/ID             a Run: what the experiment is, and since when; a changed arm or unit is another one
epoch/ID/EPOCH     an EpochNote: what did not change while it lasted
seen/ID/EPOCH      when the epoch was last told of (the store's time)
teller/ID          a TellerNote: what a worker of a gateway goes by
alive/ID           when that worker last told anything (the store's time)
plan/ID            a Plan: at which stage the experiment is; none: at the first
example/ID/KIND/N  an example of two answers that differ
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from gateway.experiments.definition import Definition
from gateway.experiments.store.base import NOW

T = TypeVar("T")

ALIVE = 5.0  # seconds since it last told anything, after which a worker is gone


class Run(Struct, frozen=True):
    """An experiment and when it began (Unix seconds, the store's)."""

    definition: Definition
    began: float


class EpochNote(Struct, frozen=True, kw_only=True):
    """One epoch: the treatment's buckets, the stage, each deployment's fingerprint, and when it began.

    `slots` are of each arm, where they are known of all its deployments. `slo` is the time after which a first token
    is late, in seconds.
    """

    buckets: int
    stage: str
    fingerprints: dict[str, str]
    slots: dict[str, int]
    began: float
    slo: float | None = None


class TellerNote(Struct, frozen=True):
    """What a worker goes by: the run, and the treatment's buckets at each stage.

    Where two that are alive go by different ones, their files differ: the experiment is held.
    """

    run: str
    stages: tuple[int, ...]


class Plan(Struct, frozen=True):
    """The stage that an experiment is at: an index of its ramp, -1 for the shadow before it."""

    stage: int


def read(notes: Mapping[str, str], kind: str, type_: type[T]) -> dict[str, T]:
    """Return the notes of a kind by what follows it in their names."""
    start = f"{kind}/"
    return {
        name.removeprefix(start): msgspec.json.decode(text, type=type_)
        for name, text in notes.items()
        if name.startswith(start)
    }


def write(note: Struct) -> str:
    """Return a note as it is kept."""
    return msgspec.json.encode(note).decode()


def write_mark(note: Run | EpochNote) -> str:
    """Return a note that began when the store takes it."""
    return write(msgspec.structs.replace(note, began=0.0)).replace('"began":0.0', f'"began":{NOW}')


def alive(notes: Mapping[str, str], now: float) -> dict[str, TellerNote]:
    """Return what the workers go by that are there at a time of the store's."""
    last = read(notes, "alive", float)
    return {
        teller: note
        for teller, note in read(notes, "teller", TellerNote).items()
        if now - last.get(teller, 0.0) < ALIVE
    }
