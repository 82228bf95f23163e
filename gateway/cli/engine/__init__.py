"""`pointsman engine`: starts vLLM or TGI with a profile, or prints how.

What would fail only after minutes of loading is said before: an option that the engine does not have, a checkpoint
that is not quantized as the profile wants it, heads that cannot be split, a model that does not fit the card.

    profiles      reads deploy/profiles
    options       the words of a command line
    checkpoint    what config.json says of a model
    fit           whether it fits the card, by arithmetic
    refusals      what cannot be run so, and why
    launch        the line that is printed, or the engine that this process becomes
    environment   vLLM's CPU build, set up once
    small_model   SmolLM2 135M, made once; convert_gguf runs inside vLLM's environment
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from backends.tgi.launcher_flags import LAUNCHER_FLAGS
from backends.vllm_options import NAMES, SHORT, VERSION
from gateway.cli.engine import checkpoint, environment, fit, launch, options, profiles, small_model
from gateway.cli.engine.launch import LaunchCommand
from gateway.cli.engine.options import Option
from gateway.cli.engine.profiles import EngineSettings
from gateway.cli.engine.refusals import refusals
from gateway.cli.exit_status import CommandFailed, ExitStatus
from gateway.config.tables import size

CPU = "cpu"
PARSERS = {"vllm": f"vLLM {VERSION}", "tgi": "TGI's launcher"}


class Asked(NamedTuple):
    """What the command line asks for. `gpu_memory` is such as "80GiB", or empty; `words` are further options."""

    engine: str
    model: str
    profile: str
    gpu_memory: str = ""
    words: tuple[str, ...] = ()


def run(asked: Asked, dry_run: bool) -> None:
    """Print the line that starts an engine, or become the engine.

    Raises CommandFailed with every reason why it cannot be run so.
    """
    settings = _settings(asked)
    chosen = _chosen(asked, settings)
    cache = launch.cache_folder()
    _check_model(asked, settings, chosen, cache)
    start = _launch(asked, settings, chosen, cache)
    if dry_run:
        click.echo(start.line())
        return
    if asked.profile == CPU:
        prepare_cpu(asked.model, cache)
    else:
        launch.check_installed(start.words[0], asked.engine)
    _say(f"{asked.engine} starts: {start.line()}")
    start.become()


def cpu_launch(cache: Path, words: Sequence[str], model: str = "") -> LaunchCommand:
    """Return how vLLM's CPU build is started, with further options; without a model with the small one."""
    asked = Asked("vllm", model, CPU, words=tuple(words))
    settings = _settings(asked)
    return _launch(asked, settings, _chosen(asked, settings), cache)


def prepare_cpu(model: str, cache: Path) -> None:
    """Set up vLLM's CPU build, and the small model unless another is asked for. Raises CommandFailed."""
    with environment.one_at_a_time(cache):
        environment.prepare(cache, _say)
        if model in {"", small_model.NAME}:
            small_model.prepare(small_model.folder(cache), environment.python(cache), _say)


def _settings(asked: Asked) -> EngineSettings:
    """Return what the profile sets for the engine. Raises CommandFailed if it is not for this one."""
    settings = profiles.load(asked.profile).settings(asked.engine)
    if settings is None:
        raise CommandFailed(ExitStatus.USAGE, f"--profile: {asked.profile} is for vLLM alone")
    if not asked.model and asked.profile != CPU:
        raise CommandFailed(ExitStatus.USAGE, "--model: required; only --profile cpu has a model of its own")
    return settings


def _chosen(asked: Asked, settings: EngineSettings) -> list[Option]:
    """Return the profile's options and the user's. Raises CommandFailed for a word or an option that is none."""
    short = SHORT if asked.engine == "vllm" else {flag.short: flag.name for flag in LAUNCHER_FLAGS if flag.short}
    try:
        own = options.read(asked.words, short)
    except ValueError as error:
        raise CommandFailed(ExitStatus.USAGE, str(error)) from error
    if faults := options.faults(own, _known(asked.engine, own), PARSERS[asked.engine]):
        raise CommandFailed(ExitStatus.USAGE, *faults)
    return options.join([*_served_name(asked), *settings.as_options()], own)


def _known(engine: str, own: Sequence[Option]) -> Collection[str]:
    """Return the names of an engine's options. A vLLM that is installed is asked where ours does not know a name."""
    if engine == "tgi":
        return {flag.name for flag in LAUNCHER_FLAGS}
    return NAMES | launch.installed_names() if options.faults(own, NAMES, "") else NAMES


def _served_name(asked: Asked) -> list[Option]:
    return [Option("--served-model-name", (small_model.NAME,))] if _is_small(asked) else []


def _is_small(asked: Asked) -> bool:
    return asked.engine == "vllm" and asked.model in {"", small_model.NAME}


def _check_model(asked: Asked, settings: EngineSettings, chosen: Sequence[Option], cache: Path) -> None:
    """Raise CommandFailed with every reason why the model cannot be run so; say what could not be checked."""
    if asked.profile == CPU:
        return  # no card
    found = checkpoint.find(_model(asked, cache), launch.hub_folder())
    memory = _memory(asked.gpu_memory)
    if found is None:
        _say(f"{asked.model}: not on this machine yet, so it is not checked whether it fits the card and the profile")
        return
    if not memory or fit.need(found, chosen) is None:
        why = "no shapes known here in its config.json" if memory else "no nvidia-smi; say --gpu-memory 80GiB"
        _say(f"{asked.model}: not checked whether it fits the card: {why}")
    if found_faults := refusals(found, settings, chosen, memory):
        raise CommandFailed(ExitStatus.USAGE, *(f"{asked.model}: {fault}" for fault in found_faults))


def _memory(said: str) -> int:
    """Return the memory of a card in bytes: what the user says, or of the smallest that is here; 0 if unknown."""
    if not said:
        return min(launch.gpu_memories(), default=0)
    memory = size(said)
    if not memory:
        raise CommandFailed(ExitStatus.USAGE, f'--gpu-memory: expected a size such as "80GiB", got "{said}"')
    return memory


def _launch(asked: Asked, settings: EngineSettings, chosen: Sequence[Option], cache: Path) -> LaunchCommand:
    """Return the command line of an engine. (The command `vllm` of the CPU build does not start: its module does.)"""
    model, python = _model(asked, cache), str(environment.python(cache))
    starts = {"vllm": ("vllm", "serve", model), "tgi": ("text-generation-launcher", "--model-id", model)}
    cpu = (python, "-m", "vllm.entrypoints.openai.api_server", "--model", model)
    first = cpu if asked.profile == CPU else starts[asked.engine]
    return LaunchCommand((*first, *options.words(chosen)), launch.unset(settings.environment))


def _model(asked: Asked, cache: Path) -> str:
    """Return the model as the engine is to load it. Raises CommandFailed if the small one has yet to be made."""
    if not _is_small(asked):
        return asked.model
    place = small_model.folder(cache)
    if asked.profile != CPU and not small_model.is_there(place):
        raise CommandFailed(ExitStatus.USAGE, f"--model: {asked.model} is made by --profile cpu, once")
    return str(place)


def _say(line: str) -> None:
    click.echo(line, err=True)
