"""What the command line says: a file, if there is one, and flags that win over it."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.config.checks import check
from gateway.config.load import from_urls, read, with_flags
from gateway.config.tables import AuthConfig, Config, ConfigError


class ConfigSource(Struct, frozen=True, kw_only=True):
    """Where the configuration comes from, so that it can be read once more when the file has changed.

    `urls` are engines by kind, `flags` such as `--port` with their values, `environ` the environment.
    """

    path: Path | None = None
    urls: dict[str, list[str]] = {}
    model: str = ""
    flags: dict[str, Any] = {}
    allow_anonymous: bool = False
    environ: dict[str, str] = {}

    def config(self, text: str) -> Config:
        """Return the configuration of the file's text and the flags. Raises ConfigError with every fault of it."""
        faults: list[str] = []
        written = read(text, faults) if self.path else Config()
        server = with_flags(written.server, self.flags, faults)
        models = from_urls(self.urls, self.model, self.environ) or written.models
        config = msgspec.structs.replace(written, server=server, models=models, auth=self._auth(written.auth))
        config = check(config, self.environ, faults)
        if faults:
            raise ConfigError(faults)
        return config

    def _auth(self, written: AuthConfig) -> AuthConfig:
        """Return `[auth]` with the keys' file where it is: beside the file that names it."""
        keys_file = written.keys_file
        if keys_file and self.path:
            keys_file = str(self.path.parent / keys_file)
        return AuthConfig(keys_file=keys_file, allow_anonymous=written.allow_anonymous or self.allow_anonymous)
