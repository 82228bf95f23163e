"""`pointsman keys create`, `list` and `revoke`.

Each prints its result alone on stdout, a key too, so that it can be piped; everything else goes to stderr. Each raises
CommandFailed: wrong usage, or the file of the keys cannot be read or written.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from gateway import config
from gateway.access.keys.file import editing, load
from gateway.access.keys.table import Key
from gateway.access.keys.text import digest, fresh, id_of
from gateway.cli.exit_status import CommandFailed, ExitStatus, reason
from gateway.cli.keys_table import document, state, table
from gateway.cli.settings import written_config
from gateway.config.reader import read_table

DEFAULT = "keys.toml"
WIDTH = 120


def create(
    file: str | None,
    config_file: str | None,
    options: dict[str, Any],
    now: float,
    token_bytes: Callable[[int], bytes],
) -> None:
    """Make a key, print it, and keep its hash.

    `options` are fields of a Key; None is one that is not set. `now` is in Unix seconds.
    """
    path = locate(file, config_file)
    text = fresh(token_bytes)
    key = _key(text, options, now)
    with _faults_named(path), editing(path) as keys:
        if any(other.name == key.name and not other.revoked for other in keys):
            fault = f"there is a key named {key.name}; revoke it first, or choose another name"
            raise CommandFailed(ExitStatus.FAILED, f"{path}: {fault}")
        keys.append(key)
    _note(f"Made the key {key.id} ({key.name}) in {path}. It is shown only this once:")
    print(text, flush=True)


def show(file: str | None, config_file: str | None, as_json: bool, now: float) -> None:
    """Print the keys of a file, with their states at a time in Unix seconds."""
    path = locate(file, config_file)
    _expect(path)
    with _faults_named(path):
        keys = load(path)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document(keys, now))).decode())
    elif keys:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(table(keys, now))
    else:
        _note(f"There are no keys in {path}.")


def revoke(file: str | None, config_file: str | None, id_or_name: str, now: float) -> None:
    """Revoke the key with an id or a name; `now` is in Unix seconds."""
    path = locate(file, config_file)
    _expect(path)
    with _faults_named(path), editing(path) as keys:
        key = _find(keys, id_or_name)
        if key is None:
            known = [f"  {key.id}  {key.name}  ({state(key, now)})" for key in keys] or ["  none"]
            fault = f"there is no key with the id or the name {id_or_name}. The keys are:"
            raise CommandFailed(ExitStatus.FAILED, f"{path}: {fault}", *known)
        keys[keys.index(key)] = msgspec.structs.replace(key, revoked=key.revoked or _moment(now))
    _note(f"Revoked the key {key.id} ({key.name}). A running gateway refuses it within seconds.")


def locate(file: str | None, config_file: str | None) -> Path:
    """Return the file of the keys: `file`, or what the configuration names, or keys.toml. Raises CommandFailed."""
    if file or not config_file:
        return Path(file or DEFAULT)
    keys_file = written_config(Path(config_file)).auth.keys_file
    if not keys_file:
        fault = f'auth.keys_file: required, to find the keys, such as "{DEFAULT}"'
        raise CommandFailed(ExitStatus.USAGE, f"{config_file}: {fault}")
    return Path(config_file).parent / keys_file


def expiry(text: str, now: float) -> datetime:
    """Return when a key expires: after a duration such as "30d", or at a date or time, UTC if it names no zone.

    `now` is in Unix seconds. Raises CommandFailed if the text is neither, or is in the past.
    """
    try:
        seconds = None if text.isdigit() else config.duration(text)
        expires = _moment(now) + timedelta(seconds=seconds) if seconds else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        expected = f"expected a duration such as 30d, or a date such as 2027-01-01, got {text!r}"
        raise CommandFailed(ExitStatus.USAGE, f"--expires: {expected}") from None
    expires = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    if expires.timestamp() <= now:
        raise CommandFailed(ExitStatus.USAGE, f"--expires: {text} is in the past")
    return expires


def _key(text: str, options: dict[str, Any], now: float) -> Key:
    """Return the Key to keep of a new key's text. Raises CommandFailed with every fault of the options."""
    fields = {name: value for name, value in options.items() if value is not None}
    if "expires" in fields:
        fields["expires"] = expiry(fields["expires"], now)
    fields |= {"id": id_of(text), "hash": f"sha256:{digest(text).hex()}", "created": _moment(now)}
    faults: list[str] = []
    key = read_table(fields, Key, "", faults)
    if faults:
        raise CommandFailed(ExitStatus.USAGE, *(f"--{fault}" for fault in faults))
    assert isinstance(key, Key)
    return key


def _find(keys: list[Key], who: str) -> Key | None:
    """Return the key of an id, else of a name: of those with it, the one that is not revoked."""
    by_id = [key for key in keys if key.id == who]
    by_name = sorted((key for key in keys if key.name == who), key=lambda key: key.revoked is not None)
    return next(iter(by_id + by_name), None)


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(int(now), UTC)


def _expect(path: Path) -> None:
    if not path.exists():
        raise CommandFailed(ExitStatus.FAILED, f"{path}: no such file; pointsman keys create makes it")


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what is wrong with the file of the keys into lines that begin with its name."""
    try:
        yield
    except config.ConfigError as error:
        raise CommandFailed(ExitStatus.FAILED, *(f"{path}: {fault}" for fault in error.faults)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(ExitStatus.FAILED, f"{path}: {reason(error)}") from error


def _note(text: str) -> None:
    print(text, file=sys.stderr)
