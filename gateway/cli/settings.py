"""Reads the configuration that a command's file, flags and environment make up, and reports every fault in it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import config
from gateway.access.keys import Keyring
from gateway.cli.exit_status import CommandFailed, ExitStatus, reason
from gateway.config import Config, ConfigError, ConfigSource


def config_source(
    file: str | None,
    urls: Mapping[str, tuple[str, ...]] | None = None,
    model: str = "",
    flags: Mapping[str, Any] | None = None,
    allow_anonymous: bool = False,
) -> ConfigSource:
    """Return where the configuration comes from.

    `urls` are the URLs of engines by kind, `flags` the server's options by name; None is a flag that is not set.
    """
    return ConfigSource(
        path=Path(file) if file else None,
        urls={engine: list(some) for engine, some in (urls or {}).items() if some},
        model=model,
        flags={f"--{name}": value for name, value in (flags or {}).items() if value is not None},
        allow_anonymous=allow_anonymous,
        environ=dict(os.environ),
    )


def checked_config(source: ConfigSource, status: ExitStatus = ExitStatus.USAGE) -> Config:
    """Return the configuration, checked, and its keys file read once. Raises CommandFailed with every fault."""
    try:
        checked = source.config(_text(source.path, status) if source.path else "")
    except ConfigError as error:
        raise _faults(source.path, error.faults, status) from error
    if checked.auth.keys_file:
        _check_keys(Path(checked.auth.keys_file), status)
    return checked


def written_config(path: Path) -> Config:
    """Return the configuration as a file has it: keys and types are checked, engines and secrets are not.

    Raises CommandFailed with every fault.
    """
    faults: list[str] = []
    try:
        written = config.read(_text(path, ExitStatus.USAGE), faults)
    except ConfigError as error:
        raise _faults(path, error.faults, ExitStatus.USAGE) from error
    if faults:
        raise _faults(path, faults, ExitStatus.USAGE)
    return written


def _check_keys(path: Path, status: ExitStatus) -> None:
    try:
        Keyring(_text(path, status))
    except ConfigError as error:
        raise _faults(path, error.faults, status) from error


def _text(path: Path, status: ExitStatus) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(status, f"{path}: {reason(error)}") from error


def _faults(path: Path | None, faults: list[str], status: ExitStatus) -> CommandFailed:
    return CommandFailed(status, *(f"{path}: {fault}" if path else fault for fault in faults))
