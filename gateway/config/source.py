"""What the command line says: a file, if there is one, and flags that win over it."""

from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.checks import check
from gateway.config.load import from_urls, read, with_flags
from gateway.config.tables import AuthConfig, Config, ConfigError, ModelConfig


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
        models = from_urls(self.urls, self.model, self.environ) or [self._model(model) for model in written.models]
        experiments = replace(written.experiments, file=self._beside(written.experiments.file))
        config = replace(written, server=server, models=models, auth=self._auth(written.auth), experiments=experiments)
        config = check(config, self.environ, faults)
        if faults:
            raise ConfigError(faults)
        return config

    def _model(self, written: ModelConfig) -> ModelConfig:
        """Return a model with the files that its deployments name where they are."""
        placed = [replace(one, ca_file=self._beside(one.ca_file)) for one in written.deployments]
        return replace(written, deployments=placed)

    def _beside(self, name: str) -> str:
        """Return where a file is that the configuration names: beside the configuration's own."""
        return str(self.path.parent / name) if name and self.path else name

    def _auth(self, written: AuthConfig) -> AuthConfig:
        """Return `[auth]` with the keys' file where it is."""
        allow_anonymous = written.allow_anonymous or self.allow_anonymous
        return AuthConfig(keys_file=self._beside(written.keys_file), allow_anonymous=allow_anonymous)
