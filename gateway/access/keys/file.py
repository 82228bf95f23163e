"""Changes `keys.toml` on disk: one process at a time, and either wholly or not at all."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.access.keys.table import Key, read, write

PRIVATE = 0o600


def load(path: Path) -> list[Key]:
    """Return the keys of a file. Raises OSError, or ConfigError with every fault."""
    return read(path.read_text())


@contextmanager
def editing(path: Path) -> Iterator[list[Key]]:
    """Give the keys of a file, none if it does not exist, and write what the block has made of them.

    Others that want to change it wait meanwhile. If the block raises, the file stays as it was.
    """
    path = path.resolve()  # where it is a link, it is the file behind that is replaced
    with _beside(path, "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of a file by its side, for this one is replaced; left by the dead at once
        keys = load(path) if path.exists() else []
        yield keys
        _replace(path, write(keys))


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one whole; who could read the old one can still."""
    new = _beside(path, "new")
    new.unlink(missing_ok=True)
    new.touch(PRIVATE, exist_ok=False)
    try:
        new.write_text(text)
        if path.exists():
            old = path.stat()
            shutil.chown(new, old.st_uid, old.st_gid)  # root may revoke a key, and the gateway has to read of it
            shutil.copymode(path, new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")
