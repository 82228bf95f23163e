"""Writes rows as Parquet, by pyarrow, which is an extra: `pip install "pointsman[export]"`."""

from importlib import import_module
from pathlib import Path
from typing import Any

from gateway.cli.exit_status import CommandFailed, ExitStatus


def write_parquet(rows: list[dict[str, Any]], file: Path) -> None:
    """Write rows to a file. Raises CommandFailed without pyarrow."""
    try:  # by name: it is tens of megabytes, for this alone
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise CommandFailed(ExitStatus.USAGE, '--format parquet: needs pip install "pointsman[export]"') from error
    parquet.write_table(arrow.Table.from_pylist(rows), file)
