"""What `pointsman keys create`, `list` and `revoke` do. Each returns its exit status: 0 done, 1 failed, 2 wrong usage.

What is asked for goes to stdout alone, a key too, so that it can be piped; all else is said on stderr.
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
from gateway.cli.keys_table import document, state, table
from gateway.config.reader import read_table

DEFAULT = "keys.toml"
WIDTH = 120


class Failed(Exception):
    """A command ends here, with its exit status and a line for each thing to say."""

    def __init__(self, status: int, *lines: str) -> None:
        super().__init__(*lines)
        self.status = status
        self.lines = lines


def create(
    file: str | None, settings: str | None, given: dict[str, Any], now: float, token_bytes: Callable[[int], bytes]
) -> int:
    """Make a key with the `given` fields of a Key, print it, and keep its hash; `now` is in Unix seconds."""
    return _status(lambda: _create(locate(file, settings), given, now, token_bytes))


def show(file: str | None, settings: str | None, as_json: bool, now: float) -> int:
    """Print the keys of a file, as they stand at a time in Unix seconds."""
    return _status(lambda: _show(locate(file, settings), as_json, now))


def revoke(file: str | None, settings: str | None, who: str, now: float) -> int:
    """Revoke the key with an id or a name; `now` is in Unix seconds."""
    return _status(lambda: _revoke(locate(file, settings), who, now))


def locate(file: str | None, settings: str | None) -> Path:
    """Return the file of the keys: the one named, or the configuration's, or the one in the working directory."""
    if file or not settings:
        return Path(file or DEFAULT)
    faults: list[str] = []
    try:
        named = config.read(Path(settings).read_text(), faults).auth.keys_file
    except config.ConfigError as error:
        named, faults = "", error.faults
    except (OSError, UnicodeDecodeError) as error:
        named, faults = "", [str(error)]
    if not named and not faults:
        faults = [f'auth.keys_file: required, to know where the keys are, such as "{DEFAULT}"']
    if faults:
        raise Failed(2, *(f"{settings}: {fault}" for fault in faults))
    return Path(settings).parent / named


def expiry(text: str, now: float) -> datetime:
    """Return when a key expires: after a duration such as "30d", or at a date or time (UTC, if it says nothing else).

    Raises Failed if it is neither, or is over.
    """
    try:
        seconds = None if text.isdigit() else config.duration(text)
        ends = _moment(now) + timedelta(seconds=seconds) if seconds else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise Failed(
            2, f"--expires: expected a duration such as 30d, or a date such as 2027-01-01, got {text}"
        ) from None
    ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    if ends.timestamp() <= now:
        raise Failed(2, f"--expires: {text} is over")
    return ends


def _create(path: Path, given: dict[str, Any], now: float, token_bytes: Callable[[int], bytes]) -> None:
    text = fresh(token_bytes)
    fields = {name: value for name, value in given.items() if value is not None}
    if "expires" in fields:
        fields["expires"] = expiry(fields["expires"], now)
    fields |= {"id": id_of(text), "hash": f"sha256:{digest(text).hex()}", "created": _moment(now)}
    faults: list[str] = []
    key = read_table(fields, Key, "", faults)
    assert isinstance(key, Key)
    if faults:
        raise Failed(2, *(f"--{fault}" for fault in faults))
    with _kept(path), editing(path) as keys:
        if any(other.name == key.name and not other.revoked for other in keys):
            raise Failed(1, f"{path}: there is a key named {key.name}; revoke it first, or choose another name")
        keys.append(key)
    _say(f"Made the key {key.id} ({key.name}) in {path}. This is the only time that it is shown:")
    print(text, flush=True)


def _show(path: Path, as_json: bool, now: float) -> None:
    _expect(path)
    with _kept(path):
        keys = load(path)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document(keys, now))).decode())
    elif keys:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(table(keys, now))
    else:
        _say(f"There are no keys in {path}.")


def _revoke(path: Path, who: str, now: float) -> None:
    _expect(path)
    with _kept(path), editing(path) as keys:
        key = _find(keys, who)
        if key is None:
            known = [f"  {key.id}  {key.name}  ({state(key, now)})" for key in keys] or ["  none"]
            raise Failed(1, f"{path}: there is no key with the id or the name {who}. There are:", *known)
        keys[keys.index(key)] = msgspec.structs.replace(key, revoked=key.revoked or _moment(now))
    _say(f"Revoked the key {key.id} ({key.name}). A running gateway refuses it within seconds.")


def _find(keys: list[Key], who: str) -> Key | None:
    """Return the key of an id, else of a name: of those with it, the one that is not revoked."""
    by_id = [key for key in keys if key.id == who]
    by_name = sorted((key for key in keys if key.name == who), key=lambda key: key.revoked is not None)
    return next(iter(by_id + by_name), None)


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(int(now), UTC)


def _expect(path: Path) -> None:
    if not path.exists():
        raise Failed(1, f"{path}: there is no such file; pointsman keys create makes it")


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """Say what is wrong with the file of the keys with its name."""
    try:
        yield
    except config.ConfigError as error:
        raise Failed(1, *(f"{path}: {fault}" for fault in error.faults)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(1, f"{path}: {error}") from error


def _status(command: Callable[[], None]) -> int:
    try:
        command()
    except Failed as failed:
        for line in failed.lines:
            _say(f"pointsman: {line}")
        return failed.status
    return 0


def _say(words: str) -> None:
    print(words, file=sys.stderr)
