"""`pointsman serve`: checks the configuration, then runs the gateway until a signal."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.cli.settings import checked_config
from gateway.config import ConfigSource


def run(source: ConfigSource) -> int:
    """Run the gateway; return the exit status. Raises CommandFailed if the configuration is wrong."""
    config = checked_config(source)
    with metrics_dir(config.server.workers) as directory:
        from gateway.server import run as server  # noqa: PLC0415  (prometheus_client must find the directory)

        return server.run(source, config, directory)


@contextmanager
def metrics_dir(workers: int) -> Iterator[Path | None]:
    """Give a directory, removed at the end, where several workers share their metrics; None for one worker."""
    if workers == 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pointsman-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # prometheus_client reads it when it is imported
        yield Path(directory)
