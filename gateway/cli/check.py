"""`pointsman check`: reads a configuration file and prints every fault in it."""

import click

from gateway.cli.exit_status import ExitStatus
from gateway.cli.settings import checked_config, config_source
from gateway.config import notes


def run(file: str) -> None:
    """Check a file and print what is in it. Raises CommandFailed with every fault, and exit status 1."""
    config = checked_config(config_source(file), ExitStatus.FAILED)
    deployments = sum(len(model.deployments) for model in config.models)
    click.echo(f"{file}: OK: {_count(len(config.models), 'model')}, {_count(deployments, 'deployment')}")
    for note in notes(config):
        click.echo(f"{file}: note: {note}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
