"""A changed configuration: which part of it is in force at once, who is told of it, and what waits for a restart.

    FileWatcher ── text ──► ConfigSource ── Config ──► Reload.take ── its section ──► each subscriber
                                                        ▲
                            Discovery ── addresses ─────┘ renew

Who subscribes to what is one list: `gateway.services.subscribe`. What a request reads anew each time (such as
`timeouts.total`) needs no subscription: it reads `Reload.config`.
"""

import logging
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import msgspec

from gateway.config import Config, ModelConfig

Section = TypeVar("Section")

# Read once, when a worker starts: a whole section, or one key of it.
READ_AT_START = (
    "server.host",
    "server.port",
    "server.workers",
    "server.cors_origins",
    "server.keep_alive",
    "auth.keys_file",
    "limits",
    "cache",
    "telemetry",
    "experiments",
)

log = logging.getLogger("pointsman")


def restart_keys() -> list[str]:
    """Return the keys whose change takes effect after a restart, such as `cache.ttl`."""
    keys: list[str] = []
    for declared in READ_AT_START:
        value = value_of(Config(), declared)
        names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else ()
        keys += [f"{declared}.{name}" for name in names] or [declared]
    return keys


class Reload:
    """Holds the configuration in force (`config`) and the one that was read last (`written`).

    They differ in the keys that need a restart, which keep their value, and in the deployments: `expand` returns the
    models with the deployments that there are now, such as one for each address of a DNS name.
    """

    def __init__(self, config: Config, expand: Callable[[list[ModelConfig]], list[ModelConfig]]) -> None:
        self.config = config
        self.written = config
        self._expand = expand
        self._subscribers: list[Callable[[Config, Config], None]] = []

    def subscribe(self, select: Callable[[Config], Section], follow: Callable[[Section], None]) -> None:
        """Call `follow` with what `select` returns, whenever that has changed; in the order of the subscriptions."""

        def tell(before: Config, now: Config) -> None:
            section = select(now)
            if section == select(before):
                return
            try:
                follow(section)
            except Exception:  # the others have to follow all the same
                log.exception("reload: %s failed; its part of the configuration is not in force", follow.__qualname__)

        self._subscribers.append(tell)

    def take(self, config: Config) -> None:
        """Put a configuration that was read anew in force. What is in flight goes on as it began."""
        for key in restart_keys():
            self._note_restart(key, value_of(config, key))
        self.written = config
        self.renew()

    def renew(self) -> None:
        """Put in force what was read last, with the deployments that there are now."""
        config = self.written
        for key in restart_keys():
            config = with_value(config, key, value_of(self.config, key))
        before, self.config = self.config, msgspec.structs.replace(config, models=self._expand(config.models))
        for tell in self._subscribers:
            tell(before, self.config)

    def _note_restart(self, key: str, value: object) -> None:
        """Say in the log, once for each change, that a key needs a restart or needs it no more. Never the value."""
        if value == value_of(self.written, key):
            return
        if value == value_of(self.config, key):
            log.info("%s: changed back to the value in force; no restart is needed for it", key)
        else:
            log.warning("%s: changed; the new value takes effect after a restart", key)


def value_of(config: Config, key: str) -> Any:
    """Return the value of a key such as `cache.ttl`, or a section such as `cache`."""
    return reduce(getattr, key.split("."), config)


def with_value(config: Config, key: str, value: object) -> Config:
    """Return the configuration with another value of a key such as `cache.ttl`."""
    section, name = key.split(".")
    table = msgspec.structs.replace(getattr(config, section), **{name: value})
    return msgspec.structs.replace(config, **{section: table})
