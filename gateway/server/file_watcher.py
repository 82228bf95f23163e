"""A file that is read again whenever it changes: the configuration, the keys.

It is polled: a look costs microseconds, sees a file that was replaced or whose symbolic link was changed (as a
ConfigMap's is), and works on any file system.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

INTERVAL = 1.0  # seconds

log = logging.getLogger("pointsman")


class FileWatcher:
    """Calls `take` with the file's text at the start and after each change.

    What `take` raises is logged, a line for each line of it, once for each change of the file.
    """

    def __init__(self, path: Path, take: Callable[[str], None]) -> None:
        self.path = path
        self._take = take
        self._seen: tuple[int, int, int, int] | None = None  # a restarted worker's text may be long out of date

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL)

    def look(self) -> None:
        """Look once, and read the file if it is another."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._take(self.path.read_text())
        except Exception as error:
            for line in str(error).splitlines() or [repr(error)]:
                log.error("%s: %s", self.path, line)
            log.error("%s: not loaded; what was read before stays in force", self.path)

    def _state(self) -> tuple[int, int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
