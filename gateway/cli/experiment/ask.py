"""Whom a command asks about experiments: a running gateway (`--url`, `--key`), or the store that a file names."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from gateway.cli.exit_status import CommandFailed, ExitStatus
from gateway.cli.settings import written_config
from gateway.config import Config
from gateway.experiments import reading
from gateway.experiments.record import rows
from gateway.experiments.report import ExperimentReport, status_of
from gateway.experiments.store.base import RecordStore, StoreUnavailable, make

T = TypeVar("T")

PATIENCE = 30.0  # seconds for an answer
NOT_THERE = 404
EXPERIMENTS = "/admin/experiments"


class ReportPlace(Protocol):
    """Where reports are had from. All raise CommandFailed."""

    def report(self, name: str) -> ExperimentReport:
        """Return the report of an experiment."""
        ...

    def status(self) -> list[dict[str, Any]]:
        """Return what there is to say of each experiment in a line."""
        ...

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return every number of an experiment."""
        ...


def place(url: str | None, key: str | None, config_file: str | None) -> ReportPlace:
    """Return whom to ask. Raises CommandFailed if nobody is named."""
    if url:
        return RunningGateway(url.rstrip("/"), key or "")
    if not config_file:
        raise CommandFailed(ExitStatus.USAGE, "expected --url URL of a running gateway, or --config FILE for its store")
    path = Path(config_file)
    return StoredRecords(written_config(path), path)


def _missing(name: str) -> CommandFailed:
    return CommandFailed(ExitStatus.FAILED, f"there is no experiment called {name}")


class RunningGateway:
    """A gateway, asked by its `/admin`."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def report(self, name: str) -> ExperimentReport:
        """Return the report of an experiment."""
        return msgspec.json.decode(self._get(f"{EXPERIMENTS}/{quote(name, safe='')}", name), type=ExperimentReport)

    def status(self) -> list[dict[str, Any]]:
        """Return what there is to say of each experiment in a line."""
        found: list[dict[str, Any]] = msgspec.json.decode(self._get(EXPERIMENTS))["experiments"]
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return every number of an experiment."""
        return msgspec.json.Decoder().decode_lines(self._get(f"{EXPERIMENTS}/{quote(name, safe='')}/export", name))

    def _get(self, path: str, name: str = "") -> bytes:
        try:
            answer = httpx.get(self._url + path, headers=self._headers, timeout=PATIENCE, trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = f"the gateway at {self._url} cannot be asked: {error}"
            raise CommandFailed(ExitStatus.UNREACHABLE, why) from error
        if answer.status_code == NOT_THERE and name:
            raise _missing(name)
        if answer.is_error:
            raise CommandFailed(ExitStatus.FAILED, f"{self._url}{path}: {answer.status_code}: {_message(answer)}")
        return answer.content


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


class StoredRecords:
    """The store that a configuration names."""

    def __init__(self, config: Config, path: Path) -> None:
        self._config = config
        self._path = path

    def report(self, name: str) -> ExperimentReport:
        """Return the report of an experiment."""
        return self._found(name, lambda store: reading.report(store, name, self._config))

    def status(self) -> list[dict[str, Any]]:
        """Return what there is to say of each experiment in a line."""
        return [status_of(one) for one in self._asked(lambda store: reading.status(store, self._config))]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return every number of an experiment."""
        return list(rows(self._found(name, lambda store: reading.read(store, name))))

    def _found(self, name: str, question: Callable[[RecordStore], Awaitable[T | None]]) -> T:
        found = self._asked(question)
        if found is None:
            raise _missing(name)
        return found

    def _asked(self, question: Callable[[RecordStore], Awaitable[T]]) -> T:
        settings = self._config.experiments
        file = self._path.parent / settings.file
        if settings.store == "sqlite" and not file.exists():  # it would be made
            raise CommandFailed(ExitStatus.FAILED, f"{file}: no such file; a gateway with an experiment makes it")

        async def ask() -> T:
            store = make(msgspec.structs.replace(settings, file=str(file)))
            try:
                await store.open()
                return await question(store)
            finally:
                await store.close()

        try:
            return asyncio.run(ask())
        except (StoreUnavailable, ValueError) as error:
            raise CommandFailed(ExitStatus.UNREACHABLE, f"the record cannot be read: {error}") from error
