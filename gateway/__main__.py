"""The command line: the arguments of each command, which is a module of `gateway.cli`.

Each command is imported when it runs, with what it alone needs: a gateway that serves holds no other command in memory.
"""

import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from gateway.cli.group import CommandGroup

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
PORT = click.IntRange(1, 65535)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointsman", prog_name="pointsman")
def main() -> None:
    """An OpenAI-compatible gateway in front of vLLM and Text Generation Inference (TGI).

    Exit status of every command: 0 done, 1 the work failed, 2 wrong usage, 3 an engine (or Redis) could not be asked.
    """


def config_option(help_text: str, required: bool = False) -> Decorator:
    """Return the decorator that adds `--config`."""
    return click.option("--config", "config_file", type=click.Path(), metavar="FILE", help=help_text, required=required)


def engine_options(command: Any) -> Any:
    """Add the options that name engines."""
    for option in (
        click.option("--model", metavar="NAME", default="", help="Serve all engines given by URL as this one model."),
        click.option(
            "--openai", "openai_", multiple=True, metavar="URL", help="Another OpenAI-compatible API, by its base_url."
        ),
        click.option("--tgi", multiple=True, metavar="URL", help="A TGI. Can be repeated."),
        click.option("--vllm", multiple=True, metavar="URL", help="A vLLM. Can be repeated."),
        config_option("A pointsman.toml. Other options override it."),
    ):
        command = option(command)
    return command


@main.command()
@engine_options
@click.option("--host", metavar="H", help="The address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=int, metavar="N", help="The port to listen on. [default: 8080]")
@click.option("--workers", type=int, metavar="N", help="Processes that share the port. [default: 1]")
@click.option("--allow-anonymous", is_flag=True, help="Allow another address than loopback without API keys.")
def serve(
    config_file: str | None,
    vllm: tuple[str, ...],
    tgi: tuple[str, ...],
    openai_: tuple[str, ...],
    model: str,
    host: str | None,
    port: int | None,
    workers: int | None,
    allow_anonymous: bool,
) -> None:
    """Run the gateway.

    Example: pointsman serve --vllm http://10.0.0.5:8000 --tgi http://10.0.0.6:8080
    """
    from gateway.cli import serve as command
    from gateway.cli.settings import config_source

    urls = {"vllm": vllm, "tgi": tgi, "openai": openai_}
    flags = {"host": host, "port": port, "workers": workers}
    sys.exit(command.run(config_source(config_file, urls, model, flags, allow_anonymous)))


@main.command()
@config_option("The file to check.", required=True)
def check(config_file: str) -> None:
    """Check a configuration file and print every fault in it.

    Exit status: 0 no fault, 1 faults, 2 wrong usage.
    """
    from gateway.cli import check as command

    command.run(config_file)


@main.command()
@config_option("A pointsman.toml. The engines of each of its models are compared.")
@click.option("--vllm", multiple=True, metavar="URL", help="A vLLM. Can be repeated.")
@click.option("--tgi", multiple=True, metavar="URL", help="A TGI. Can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def doctor(config_file: str | None, vllm: tuple[str, ...], tgi: tuple[str, ...], as_json: bool) -> None:
    """Send live engines the same requests; print where they differ and what the gateway does about it.

    Exit status: 0 nothing would break a client, 1 something would, 2 wrong usage, 3 an engine could not be asked.
    """
    from gateway.cli.settings import checked_config, config_source

    config = checked_config(config_source(config_file, {"vllm": vllm, "tgi": tgi}, allow_anonymous=True))
    from gateway.cli import doctor as command

    sys.exit(command.run(config, as_json))


@main.command()
@click.argument("file", metavar="FILE.jsonl")
@click.option("--from", "today", type=click.Choice(["vllm", "tgi"]), required=True, help="The engine used today.")
@click.option("--to", "then", type=click.Choice(["vllm", "tgi"]), required=True, help="The engine to move to.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def compat(file: str, today: str, then: str, as_json: bool) -> None:
    """Read recorded requests (JSON lines; - for stdin); print which change their meaning on the other engine, or fail.

    Exit status: 0 none, 1 some, 2 wrong usage.
    """
    from gateway.cli import compat as command

    sys.exit(command.run(file, today, then, as_json))


@main.command()
@click.argument("files", metavar="[FILE…|-]", nargs=-1)
@click.option("--env", "env_file", type=click.Path(), metavar="FILE", help="NAME=value lines: fill variables in.")
@click.option("--to-version", default="0.32", show_default=True, metavar="X.Y", help="The vLLM to translate to.")
@click.option("--gpus", type=click.IntRange(1), metavar="N", help="The GPUs that TGI sees, if no file says it.")
@click.option("--gpu-memory", default="", metavar="SIZE", help="Of one GPU, such as 80GiB.")
@click.option("--model-config", type=click.Path(), metavar="config.json", help="The model's: makes its dtype certain.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Write the files there. [default: print them]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables and files.")
@click.option("--check", is_flag=True, help="Have an installed vLLM's own parser read the arguments.")
def migrate(to_version: str, gpu_memory: str, **options: Any) -> None:
    """Translate how TGI is launched into vLLM's launch and a pointsman.toml, and account for every flag.

    Reads text-generation-launcher and docker run lines, compose files, Kubernetes manifests, SageMaker's environment;
    and dashboards, rules and autoscalers that name TGI's metrics. Asks nothing and nobody, but for --check.

    Exit status: 0 done, 1 a flag is blocked, 2 wrong usage, 3 --check found no vLLM.
    """
    from gateway.cli import migrate as command
    from gateway.config.tables import size

    try:
        version = command.version_of(to_version)
    except ValueError as error:
        raise click.BadParameter("expected a version such as 0.32", param_hint="--to-version") from error
    memory = size(gpu_memory) if gpu_memory else 0
    if memory is None:
        raise click.BadParameter("expected a size such as 80GiB", param_hint="--gpu-memory")
    sys.exit(command.run(command.MigrateOptions(version=version, gpu_memory=memory, **options)))


@main.group()
def keys() -> None:
    """Create, list and revoke API keys. Only their hashes are stored. A running gateway sees each change."""


def keys_file_options(command: Any) -> Any:
    """Add the options that say where the keys are."""
    for option in (
        config_option("A pointsman.toml, whose auth.keys_file is used."),
        click.option("--file", type=click.Path(), metavar="FILE", help="The file of the keys. [default: keys.toml]"),
    ):
        command = option(command)
    return command


def comma_list(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list."""
    return None if value is None else [part.strip() for part in value.split(",")]


@keys.command("create")
@keys_file_options
@click.option("--name", required=True, metavar="N", help="A name to recognize the key by.")
@click.option("--models", callback=comma_list, metavar="A,B*", help="Allow only these models; * matches any text.")
@click.option("--admin", is_flag=True, help="Allow /admin too.")
@click.option(
    "--tenant",
    metavar="T",
    help="Keys of one tenant share cached answers and what is counted; limits are each key's. [default: the key's id]",
)
@click.option("--tier", type=click.Choice(["priority", "flex"]), help="The best service tier. [default: priority]")
@click.option("--no-shadow", is_flag=True, help="Never send its requests to a second engine, to compare the answers.")
@click.option("--requests-per-minute", type=click.IntRange(0), metavar="N", help="A limit. [default: 0, no limit]")
@click.option("--tokens-per-minute", type=click.IntRange(0), metavar="N", help="A limit. [default: 0, no limit]")
@click.option("--max-in-flight", type=click.IntRange(0), metavar="N", help="A limit. [default: 0, no limit]")
@click.option("--expires", metavar="WHEN", help="Such as 30d, or 2027-01-01 (UTC). [default: never]")
def keys_create(file: str | None, config_file: str | None, **options: Any) -> None:
    """Create a key and print it, only this once: the key alone on stdout, everything else on stderr.

    Exit status: 0 created, 1 it could not be stored, 2 wrong usage.
    """
    from gateway.cli import keys as commands

    commands.create(file, config_file, options, time.time(), secrets.token_bytes)


@keys.command("list")
@keys_file_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def keys_list(file: str | None, config_file: str | None, as_json: bool) -> None:
    """List the keys: names, permissions, limits, and whether each is in force.

    Exit status: 0 done, 1 the file cannot be read, 2 wrong usage.
    """
    from gateway.cli import keys as commands

    commands.show(file, config_file, as_json, time.time())


@keys.command("revoke")
@keys_file_options
@click.argument("id_or_name", metavar="ID|NAME")
def keys_revoke(file: str | None, config_file: str | None, id_or_name: str) -> None:
    """Revoke a key. A running gateway refuses it within seconds.

    Exit status: 0 revoked, 1 there is no such key, 2 wrong usage.
    """
    from gateway.cli import keys as commands

    commands.revoke(file, config_file, id_or_name, time.time())


@main.group()
def cache() -> None:
    """Count and delete the cached answers that gateways share in Redis."""


def redis_options(command: Any) -> Any:
    """Add the options that say where the Redis is."""
    for option in (
        click.option("--url", metavar="URL", help="The URL of the Redis, in a form that cache.url takes."),
        config_option("A pointsman.toml, whose cache.url is used."),
    ):
        command = option(command)
    return command


@cache.command("stats")
@redis_options
def cache_stats(config_file: str | None, url: str | None) -> None:
    """Print how many answers of each model are cached, and their bytes.

    Exit status: 0 done, 2 wrong usage, 3 Redis could not be asked.
    """
    from gateway.cli import cache as commands

    commands.stats(config_file, url)


@cache.command("purge")
@redis_options
@click.option("--model", metavar="M", help="Delete only the answers of this model.")
def cache_purge(config_file: str | None, url: str | None, model: str | None) -> None:
    """Delete cached answers in Redis. A running gateway keeps those in its own memory until they expire.

    Exit status: 0 done, 2 wrong usage, 3 Redis could not be asked.
    """
    from gateway.cli import cache as commands

    commands.purge(config_file, url, model)


@main.group()
def experiment() -> None:
    """Look at experiments: two sets of a model's deployments, compared on live traffic."""


def experiment_options(command: Any) -> Any:
    """Add the options that say who is asked."""
    for option in (
        click.option("--key", metavar="KEY", envvar="POINTSMAN_KEY", help="An administrator's API key, for --url."),
        click.option("--url", metavar="URL", help="A running gateway, such as http://127.0.0.1:8080."),
        config_option("A pointsman.toml, whose store is read, instead of a gateway."),
    ):
        command = option(command)
    return command


@experiment.command("report")
@click.argument("name")
@experiment_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables.")
def experiment_report(name: str, config_file: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Print what an experiment says: who was in, differences with their bounds, answers that differ, the verdict.

    Exit status: 0 done, 1 there is no such experiment, 2 wrong usage, 3 the gateway or the store could not be asked.
    """
    from gateway.cli import experiment as commands

    commands.report(name, commands.place(url, key, config_file), as_json)


@experiment.command("status")
@experiment_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def experiment_status(config_file: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Print a line for each experiment: its stage and its verdict.

    Exit status: 0 done, 2 wrong usage, 3 the gateway or the store could not be asked.
    """
    from gateway.cli import experiment as commands

    commands.status(commands.place(url, key, config_file), as_json)


@experiment.command("export")
@click.argument("name")
@experiment_options
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("--out", type=click.Path(), metavar="FILE", help="The file to write. [default: stdout]")
def experiment_export(
    name: str, config_file: str | None, url: str | None, key: str | None, kind: str, out: str | None
) -> None:
    """Write every number that was counted, for a notebook: a row for each field of each epoch.

    Exit status: 0 done, 1 there is no such experiment, 2 wrong usage, 3 the gateway or the store could not be asked.
    """
    from gateway.cli import experiment as commands

    commands.export(name, commands.place(url, key, config_file), kind, out)


@main.command()
@click.argument("engine", type=click.Choice(["vllm", "tgi"]))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=PORT, required=True, metavar="N", help="The port to listen on.")
@click.option("--model", default="sim-model", show_default=True, metavar="NAME", help="The name of its model.")
@click.option(
    "--max-model-len", type=click.IntRange(1), default=8192, show_default=True, metavar="N", help="Context in tokens."
)
@click.option(
    "--ttft-ms", type=click.FloatRange(0), default=30.0, show_default=True, metavar="MS", help="Time to first token."
)
@click.option(
    "--itl-ms", type=click.FloatRange(0), default=5.0, show_default=True, metavar="MS", help="Time between two tokens."
)
@click.option("--fault", "faults", multiple=True, metavar="NAME[:AFTER][@SHARE]", help="A fault; `--fault help` lists.")
def sim(engine: str, host: str, port: int, faults: tuple[str, ...], **options: Any) -> None:
    """Run a SIMULATOR of an engine: it speaks the engine's protocol, but there is no model in it.

    Exit status: 0 stopped, 1 it cannot listen on the port, 2 wrong usage.
    """
    from gateway.cli import sim as command

    command.run(engine, host, port, faults, **options)


@main.command()
@click.argument("engine", type=click.Choice(["vllm", "tgi"]))
@click.option("--model", metavar="M", default="", help="A folder, or a name on HuggingFace's hub.")
@click.option(
    "--profile",
    metavar="NAME",
    default="base",
    show_default=True,
    help="awq, base, cpu, fp8, gptq, int8, prefix-cache or tensor-parallel.",
)
@click.option("--gpu-memory", metavar="SIZE", default="", help="Of one card. [default: what nvidia-smi says]")
@click.option("--dry-run", is_flag=True, help="Print the line that would start the engine, and start nothing.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTION...]")
def engine(engine: str, model: str, profile: str, gpu_memory: str, dry_run: bool, options: tuple[str, ...]) -> None:
    """Start vLLM or TGI with a profile: a set of options that belong together.

    Before anything is loaded it is checked that the engine has the options, that the model is quantized as the profile
    wants it, that its heads can be split over the cards, and that it fits them. What follows `--` are the engine's own
    options; they win over the profile's. The engine gets this command's signals, and its exit status is the command's.

    \b
    pointsman engine vllm --profile cpu
        vLLM's CPU build with a real small model, both set up once: no GPU
    pointsman engine vllm --model Qwen/Qwen3-8B --profile fp8 -- --port 8001
    pointsman engine tgi --model ./Llama-3.1-8B-AWQ --profile awq --dry-run
    pointsman engine vllm --model ./Llama-3.1-70B --profile tensor-parallel
        --gpu-memory 80GiB --dry-run -- --tensor-parallel-size 4

    Exit status: the engine's; 1 it cannot be started or set up, 2 wrong usage, or the model cannot be run so.
    """
    from gateway.cli import engine as command

    command.run(command.Asked(engine, model, profile, gpu_memory, options), dry_run)


@main.command()
@click.option(
    "--port", type=PORT, default=8080, show_default=True, metavar="N", help="The gateway's port; if taken, another."
)
@click.option("--once", is_flag=True, help="Send one round of requests, print a summary, and stop.")
@click.option("--real", is_flag=True, help="A real vLLM on the CPU with a small model, set up once (3 GB to download).")
def demo(port: int, once: bool, real: bool) -> None:
    """Run the gateway in front of two SIMULATED engines, or a real one, and send it requests until Ctrl-C.

    Exit status: 0 done, 1 the gateway or the engine did not start or stopped answering, 2 wrong usage.
    """
    from gateway.cli import demo as command

    (command.run_real if real else command.run)(port, once)


if __name__ == "__main__":
    main(prog_name="pointsman")
