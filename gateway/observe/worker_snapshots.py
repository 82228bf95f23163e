"""Where the workers of one gateway lay their figures side by side: a file each, in one directory.

Counters are kept in such files by prometheus_client itself, and outlive their worker. What holds at this moment does
not: a worker that has not written for a while is gone, and so is what it had in flight.
"""

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

STALE = 5.0  # seconds; a worker writes each second
SUFFIX = ".live"

log = logging.getLogger("pointsman")


class GaugeReading(msgspec.Struct, frozen=True, array_like=True):
    """One figure, of one series of a gauge."""

    gauge: str
    labels: tuple[str, ...]
    value: float


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What one worker wrote, and when (Unix seconds)."""

    at: float
    readings: list[GaugeReading]


class WorkerSnapshots:
    """A worker's view of it; `now` is Unix time, which all of them share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = directory / f"{secrets.token_hex(8)}{SUFFIX}"
        self._trouble = ""

    def put(self, readings: Sequence[GaugeReading], now: float) -> None:
        """Lay down this worker's figures, in the place of its last ones; where there is no room, say so once."""
        written = self._own.with_suffix(".new")
        trouble = ""
        try:
            written.write_bytes(msgspec.msgpack.encode(Snapshot(now, list(readings))))
            written.replace(self._own)  # so that nobody reads half of it
        except OSError as error:
            trouble = str(error)
        if trouble and not self._trouble:
            log.warning("metrics: the other workers do not hear of this one: %s", trouble)
        self._trouble = trouble

    def leave(self) -> None:
        """Take them away."""
        self._own.unlink(missing_ok=True)

    def all(self, now: float) -> list[GaugeReading]:
        """Return the figures of all workers that are there."""
        readings: list[GaugeReading] = []
        for file in self._directory.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # its worker may have left just now
                page = msgspec.msgpack.decode(file.read_bytes(), type=Snapshot)
                if now - page.at < STALE:
                    readings += page.readings
                elif file != self._own:
                    file.unlink()
        return readings
