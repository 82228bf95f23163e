"""The group of all commands: what goes wrong outside a command's own work ends in a line too, never in a traceback."""

from typing import Any

import click

from gateway.cli.exit_status import CommandFailed, ExitStatus, reason


class CommandGroup(click.Group):
    """A click group that refuses arguments that are not UTF-8, and reports a failed read or write in a line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError if one is not UTF-8: Python has surrogates where bytes are invalid."""
        for arg in args:
            if any("\ud800" <= letter <= "\udfff" for letter in arg):
                raise click.UsageError(f"expected UTF-8, got the argument {arg!r}", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises CommandFailed for an OSError, such as a full disk behind stdout."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly: the reader of the pipe has left
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise CommandFailed(ExitStatus.FAILED, f"{place}{reason(error)}") from error
