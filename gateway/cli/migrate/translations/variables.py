"""Environment variables that are no flags of the launcher."""

from gateway.cli.migrate.fates import UNKNOWN, Facts, Fate, Translated, blocked, on
from gateway.cli.migrate.launch import unresolved


def token(value: str, facts: Facts) -> Translated:
    """The Hub's token, under the one name that is left."""
    return Translated(Fate.MAPPED, environment={"HF_TOKEN": value})


def prefix_caching(value: str, facts: Facts) -> Translated:
    """On by default on both; TGI turns it off for adapters and models that see."""
    if unresolved(value):
        return blocked(UNKNOWN)
    if on(value):
        return Translated(Fate.DROPPED, why="on is vLLM's default")
    return Translated(Fate.MAPPED, ("--no-enable-prefix-caching",))


def attention(value: str, facts: Facts) -> Translated:
    """TGI's kernels by vLLM's names."""
    known = {"flashinfer": "FLASHINFER", "flashdecoding": "FLASH_ATTN"}
    if value in known:
        return Translated(Fate.MAPPED, ("--attention-backend", known[value]))
    return Translated(Fate.DROPPED, why="vLLM chooses the kernels itself")


def prefill_chunking(value: str, facts: Facts) -> Translated:
    """On by default on both."""
    if unresolved(value):
        return blocked(UNKNOWN)
    if on(value):
        return Translated(Fate.DROPPED, why="on is vLLM's default")
    return Translated(Fate.MAPPED, ("--no-enable-chunked-prefill",))


def wiggle_room(value: str, facts: Facts) -> Translated:
    """It is in --gpu-memory-utilization."""
    return Translated(Fate.MAPPED, why="the factor in --gpu-memory-utilization")


def log_level(value: str, facts: Facts) -> Translated:
    """The level, as far as it is one and no filter."""
    levels = {"warn": "WARNING", "info": "INFO", "debug": "DEBUG", "error": "ERROR"}
    if value not in levels:
        return Translated(Fate.DROPPED, why="a filter of TGI's modules")
    return Translated(Fate.MAPPED, environment={"VLLM_LOGGING_LEVEL": levels[value]})
