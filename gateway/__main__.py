"""The command line: the only place that reads argv, files and `os.environ`. Each command imports what it needs."""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from gateway.config import Config, ConfigSource

WRONG = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointsman", prog_name="pointsman")
def main() -> None:
    """An OpenAI-compatible gateway in front of vLLM and Text Generation Inference."""


def engines(command: Any) -> Any:
    """Add the options that name engines."""
    for option in (
        click.option("--model", metavar="NAME", default="", help="Put all engines given by URL behind one name."),
        click.option("--openai", "openai_", multiple=True, metavar="URL", help="Another OpenAI-compatible engine."),
        click.option("--tgi", multiple=True, metavar="URL", help="A TGI; may be given several times."),
        click.option("--vllm", multiple=True, metavar="URL", help="A vLLM; may be given several times."),
        click.option("--config", type=click.Path(), metavar="FILE", help="A pointsman.toml. Flags win over it."),
    ):
        command = option(command)
    return command


@main.command()
@engines
@click.option("--host", metavar="H", help="Where to listen; loopback by default.")
@click.option("--port", type=int, metavar="N", help="8080 by default.")
@click.option("--workers", type=int, metavar="N", help="Processes that share the port; 1 by default.")
@click.option("--allow-anonymous", is_flag=True, help="Listen on other than loopback although there are no keys.")
def serve(
    config: str | None,
    vllm: tuple[str, ...],
    tgi: tuple[str, ...],
    openai_: tuple[str, ...],
    model: str,
    host: str | None,
    port: int | None,
    workers: int | None,
    allow_anonymous: bool,
) -> None:
    """Run the gateway, e.g. pointsman serve --vllm http://10.0.0.5:8000 --tgi http://10.0.0.6:8080."""
    flags = {"host": host, "port": port, "workers": workers}
    urls = {"vllm": list(vllm), "tgi": list(tgi), "openai": list(openai_)}
    asked = given(config, urls, model, flags, allow_anonymous)
    made = configured(asked)
    with meeting_place(made.server.workers) as shared:
        from gateway.server import run as server

        sys.exit(server.run(asked, made, shared))


@contextmanager
def meeting_place(workers: int) -> Iterator[Path | None]:
    """Give the directory where the figures of several workers meet; one alone needs none."""
    if workers == 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pointsman-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # prometheus_client reads it as it is imported
        yield Path(directory)


def given(
    path: str | None, urls: dict[str, list[str]], model: str, flags: dict[str, Any], allow_anonymous: bool
) -> "ConfigSource":
    """Return what the command line and the environment say."""
    from gateway.config import ConfigSource

    return ConfigSource(
        path=Path(path) if path else None,
        urls={engine: some for engine, some in urls.items() if some},
        model=model,
        flags={f"--{name}": value for name, value in flags.items() if value is not None},
        allow_anonymous=allow_anonymous,
        environ=dict(os.environ),
    )


def configured(asked: "ConfigSource", status: int = WRONG) -> "Config":
    """Return the configuration of a file and flags, or say every fault of it and of its keys, and leave."""
    from gateway.access.keys import Keyring
    from gateway.config import ConfigError

    before = f"{asked.path}: " if asked.path else ""
    try:
        made = asked.config(asked.path.read_text() if asked.path else "")
        if made.auth.keys_file:
            before = f"{made.auth.keys_file}: "
            Keyring(Path(made.auth.keys_file).read_text())
    except OSError as error:
        fail([f"{before}{error.strerror or error}"], status)
    except UnicodeDecodeError as error:
        fail([f"{before}{error}"], status)
    except ConfigError as error:
        fail([f"{before}{fault}" for fault in error.faults], status)
    return made


def fail(faults: list[str], status: int = WRONG) -> NoReturn:
    """Say what is wrong, a line each, and leave."""
    for fault in faults:
        click.echo(f"pointsman: {fault}", err=True)
    sys.exit(status)


@main.command()
@click.option("--config", "path", type=click.Path(), required=True, metavar="FILE", help="The file to read.")
def check(path: str) -> None:
    """Read a configuration file and print every fault in it."""
    from gateway.config import notes

    read = configured(given(path, {}, "", {}, False), status=1)
    count = sum(len(model.deployments) for model in read.models)
    click.echo(f"{path}: in order; {len(read.models)} model(s), {count} deployment(s)")
    for note in notes(read):
        click.echo(f"{path}: note: {note}")


@main.command()
@click.option("--config", type=click.Path(), metavar="FILE", help="A pointsman.toml; each of its models is examined.")
@click.option("--vllm", multiple=True, metavar="URL", help="A vLLM; may be given several times.")
@click.option("--tgi", multiple=True, metavar="URL", help="A TGI; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
def doctor(config: str | None, vllm: tuple[str, ...], tgi: tuple[str, ...], as_json: bool) -> None:
    """Ask live engines the same things: where do they differ, and what does the gateway do about it?

    Exit status: 0 nothing breaks a client, 1 something would, 2 wrong usage, 3 an engine could not be asked.
    """
    made = configured(given(config, {"vllm": list(vllm), "tgi": list(tgi)}, "", {}, True))
    from gateway.cli import doctor as examined

    sys.exit(examined.run(made, as_json))


@main.command()
@click.argument("file", metavar="FILE.jsonl")
@click.option("--from", "today", type=click.Choice(["vllm", "tgi"]), required=True, help="The engine asked today.")
@click.option("--to", "then", type=click.Choice(["vllm", "tgi"]), required=True, help="The engine behind the gateway.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
def compat(file: str, today: str, then: str, as_json: bool) -> None:
    """Read recorded requests (JSON lines, - for stdin): which change their meaning on the other engine, or fail?

    Exit status: 0 none, 1 some, 2 wrong usage.
    """
    from gateway.cli import compat as compared

    sys.exit(compared.run(file, today, then, as_json))


@main.group()
def keys() -> None:
    """Make, list and revoke API keys. Only their hashes are kept; a running gateway sees each change."""


def keys_file(command: Any) -> Any:
    """Add the options that say where the keys are."""
    for option in (
        click.option("--config", "settings", type=click.Path(), metavar="FILE", help="A pointsman.toml that names it."),
        click.option("--file", type=click.Path(), metavar="FILE", help="The file of the keys. [default: keys.toml]"),
    ):
        command = option(command)
    return command


def listed(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """Return the parts of a comma list."""
    return None if value is None else [part.strip() for part in value.split(",")]


@keys.command("create")
@keys_file
@click.option("--name", required=True, metavar="N", help="What you will know it by.")
@click.option("--models", callback=listed, metavar="A,B*", help="Good for these models alone; * stands for anything.")
@click.option("--admin", is_flag=True, help="Good for /admin, too.")
@click.option("--tenant", metavar="T", help="Keys of one tenant share cached answers. [default: the key's id]")
@click.option("--tier", type=click.Choice(["priority", "flex"]), help="The best service tier. [default: priority]")
@click.option("--requests-per-minute", type=click.IntRange(0), metavar="N", help="A limit; 0, the default, is none.")
@click.option("--tokens-per-minute", type=click.IntRange(0), metavar="N", help="A limit; 0, the default, is none.")
@click.option("--max-in-flight", type=click.IntRange(0), metavar="N", help="A limit; 0, the default, is none.")
@click.option("--expires", metavar="WHEN", help="Such as 30d, or 2027-01-01 (UTC). [default: never]")
def keys_create(file: str | None, settings: str | None, **given: Any) -> None:
    """Make a key and print it, once: the key alone on stdout, the rest on stderr.

    Exit status: 0 made, 1 it could not be kept, 2 wrong usage.
    """
    from gateway.cli import keys as commands

    sys.exit(commands.create(file, settings, given, time.time(), secrets.token_bytes))


@keys.command("list")
@keys_file
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
def keys_list(file: str | None, settings: str | None, as_json: bool) -> None:
    """List the keys: whose they are, what they are good for, and whether they are in force."""
    from gateway.cli import keys as commands

    sys.exit(commands.show(file, settings, as_json, time.time()))


@keys.command("revoke")
@keys_file
@click.argument("who", metavar="ID|NAME")
def keys_revoke(file: str | None, settings: str | None, who: str) -> None:
    """Revoke a key: a running gateway refuses it within seconds.

    Exit status: 0 it is revoked, 1 there is no such key, 2 wrong usage.
    """
    from gateway.cli import keys as commands

    sys.exit(commands.revoke(file, settings, who, time.time()))


@main.group()
def cache() -> None:
    """See and delete the answers that gateways share in Redis."""


def kept_in(command: Any) -> Any:
    """Add the options that say where the answers are kept."""
    for option in (
        click.option("--url", metavar="URL", help="Of the Redis, in one of the forms of cache.url."),
        click.option("--config", "settings", type=click.Path(), metavar="FILE", help="A pointsman.toml that names it."),
    ):
        command = option(command)
    return command


@cache.command("stats")
@kept_in
def cache_stats(settings: str | None, url: str | None) -> None:
    """Print how many answers are kept of each model, and their bytes.

    Exit status: 0 done, 2 wrong usage, 3 Redis could not be asked.
    """
    from gateway.cli import cache as commands

    sys.exit(commands.stats(settings, url))


@cache.command("purge")
@kept_in
@click.option("--model", metavar="M", help="The answers of this model alone.")
def cache_purge(settings: str | None, url: str | None, model: str | None) -> None:
    """Delete what is kept in Redis. A running gateway's own memory keeps what it has until its time is over.

    Exit status: 0 done, 2 wrong usage, 3 Redis could not be asked.
    """
    from gateway.cli import cache as commands

    sys.exit(commands.purge(settings, url, model))


@main.command()
@click.argument("engine", type=click.Choice(["vllm", "tgi"]))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=int, required=True, metavar="N", help="The port to listen on.")
@click.option("--model", default="sim-model", show_default=True, metavar="NAME", help="What it says it serves.")
@click.option("--max-model-len", default=8192, show_default=True, metavar="N", help="The context, in tokens.")
@click.option("--ttft-ms", default=30.0, show_default=True, metavar="MS", help="Time to the first token.")
@click.option("--itl-ms", default=5.0, show_default=True, metavar="MS", help="Time between tokens.")
@click.option("--fault", "faults", multiple=True, metavar="NAME[:AFTER][@SHARE]", help="A fault; `--fault help` lists.")
def sim(
    engine: str,
    host: str,
    port: int,
    model: str,
    max_model_len: int,
    ttft_ms: float,
    itl_ms: float,
    faults: tuple[str, ...],
) -> None:
    """Run a SIMULATOR of an engine: it speaks the engine's protocol, but there is no model in it."""
    import uvicorn

    from backends.sim import SIMULATORS, Options, parse_fault

    try:
        wanted = tuple(parse_fault(fault) for fault in faults)
    except ValueError as error:
        fail([f"--fault: {error}"])
    options = Options(model=model, max_model_len=max_model_len, ttft_ms=ttft_ms, itl_ms=itl_ms, faults=wanted)
    click.echo(f"SIMULATED {engine} on http://{host}:{port}: no model in it, only the protocol. Ctrl-C ends it.")
    app: Any = SIMULATORS[engine](options)
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, lifespan="off", ws="none")


@main.command()
@click.option(
    "--port", default=8080, show_default=True, metavar="N", help="The gateway's port; another if it is taken."
)
@click.option("--once", is_flag=True, help="One round, a summary, and the end.")
def demo(port: int, once: bool) -> None:
    """Run the gateway over two SIMULATED engines, and send it some traffic."""
    from gateway.cli import demo as played

    sys.exit(played.run(port, once))


if __name__ == "__main__":
    main(prog_name="pointsman")
