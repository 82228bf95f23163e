"""How a command ends: its exit status, and what a user reads on stderr if it fails."""

from enum import IntEnum
from typing import IO, Any

import click


class ExitStatus(IntEnum):
    """The exit statuses of all commands."""

    DONE = 0
    FAILED = 1  # the work failed; doctor and compat: something would break a client
    USAGE = 2  # a wrong option, or a file that cannot be used
    UNREACHABLE = 3  # an engine, or Redis, did not answer


class CommandFailed(click.ClickException):
    """Ends a command with an exit status and a line on stderr for each fault. click catches it and calls `show`."""

    def __init__(self, status: ExitStatus, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.exit_code = status  # type: ignore[misc]  # click declares it for the class, and reads it from the instance
        self.lines = lines

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the lines to stderr, or to `file`."""
        for line in self.lines:
            click.echo(f"pointsman: {line}", file, err=file is None)


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read or written, in a few words and without its name."""
    if isinstance(error, UnicodeDecodeError):
        return f"not a UTF-8 text (byte {error.start})"
    return error.strerror or str(error)
