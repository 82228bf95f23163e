"""What an engine would refuse only after it has loaded for minutes, or never say: found in the model's config.json."""

from collections.abc import Iterator, Sequence

from gateway.cli.engine import fit, options
from gateway.cli.engine.checkpoint import Checkpoint
from gateway.cli.engine.options import Option
from gateway.cli.engine.profiles import EngineSettings

SPLIT = ("--tensor-parallel-size", "--num-shard")


def refusals(checkpoint: Checkpoint, settings: EngineSettings, chosen: Sequence[Option], memory: int) -> list[str]:
    """Return a line for each reason why a model cannot be run so.

    `chosen` are all options, the user's among them; `memory` is that of a card in bytes, 0 if it is not known.
    """
    split = _split(checkpoint, chosen) if checkpoint.heads else ()
    return [*_quantized(checkpoint, settings), *split, *_too_large(checkpoint, chosen, memory)]


def _quantized(checkpoint: Checkpoint, settings: EngineSettings) -> Iterator[str]:
    wanted, kind = settings.checkpoint, checkpoint.kind
    if wanted and kind not in wanted:
        is_it = "not quantized" if kind == "none" else f"quantized as {kind}"
        expected = " or ".join("one that is not quantized" if one == "none" else one for one in wanted)
        instead = "" if kind == "none" else "; --profile base serves it as it is"
        yield f"quantization: the profile is for a checkpoint that is {expected}, and this one is {is_it}{instead}"


def _split(checkpoint: Checkpoint, chosen: Sequence[Option]) -> Iterator[str]:
    name = next((option.name for option in chosen if option.name in SPLIT), SPLIT[0])
    parts = fit.whole(options.value(chosen, *SPLIT), 1)
    if checkpoint.heads % parts:
        fitting = [str(n) for n in range(2, 9) if not checkpoint.heads % n and _shared(checkpoint.kv_heads, n)]
        yield f"{name}: {checkpoint.heads} heads of attention cannot be split in {parts}" + (
            f"; {', '.join(fitting)} would do" if fitting else ""
        )
    elif not _shared(checkpoint.kv_heads, parts):
        yield f"{name}: {checkpoint.kv_heads} heads of keys and values can neither be split in {parts} nor be repeated"
    if checkpoint.group:
        yield from _grouped(checkpoint, parts)


def _grouped(checkpoint: Checkpoint, parts: int) -> Iterator[str]:
    """The rows of each matrix have to be whole groups; those of two of them are split over the cards."""
    rows = {
        "hidden_size": (checkpoint.hidden, 1),
        "the heads' width": (checkpoint.heads * checkpoint.head_size, parts),
        "intermediate_size": (checkpoint.intermediate, parts),
    }
    for what, (width, split) in rows.items():
        if width % (checkpoint.group * split):
            of = f"{what} {width}" + (f" on {split} cards" if split > 1 else "")
            yield f"group_size: {checkpoint.group} weights share a scale, and {of} is no multiple of it"


def _shared(heads: int, parts: int) -> bool:
    """Whether heads of keys and values can be split, or repeated, over so many cards."""
    return bool(heads) and (heads % parts == 0 or parts % heads == 0)


def _too_large(checkpoint: Checkpoint, chosen: Sequence[Option], memory: int) -> Iterator[str]:
    needed = fit.need(checkpoint, chosen)
    if needed and memory and (said := fit.refusal(needed, memory, chosen)):
        yield said
