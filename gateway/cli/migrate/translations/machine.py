"""GPUs, their memory, and what is captured on them."""

from gateway.cli.migrate.fates import UNKNOWN, Facts, Fate, Translated, blocked, number
from gateway.cli.migrate.launch import unresolved

WIGGLE_ROOM = 0.9  # TGI: server/text_generation_server/models/globals.py


def num_shard(value: str, facts: Facts) -> Translated:
    """The GPUs that share the model."""
    if facts.value("--sharded") == "false" and value != "1":
        why = "TGI takes the number, --sharded false notwithstanding"
        return _parallel(value, facts, Fate.MAPPED, why)
    return _parallel(value, facts, Fate.MAPPED, "")


def sharded(value: str, facts: Facts) -> Translated:
    """Whether all GPUs are taken, where no number is given."""
    if "--num-shard" in facts.values:
        return Translated(Fate.DROPPED, why="--num-shard says how many")
    if value == "false":
        return _parallel("1", facts, Fate.MAPPED, "one GPU")
    return _all_gpus(facts, Fate.MAPPED)


def default_shards(facts: Facts) -> Translated | None:
    """TGI takes all GPUs that it sees, vLLM one."""
    return None if "--sharded" in facts.values else _all_gpus(facts, Fate.DEFAULT)


def _all_gpus(facts: Facts, fate: Fate) -> Translated:
    if facts.launch.variant == "intel-cpu":
        return _parallel("1", facts, fate, "a CPU")
    if facts.gpus is None:
        return blocked("TGI takes all GPUs that it sees, vLLM one: say how many there are by --gpus N")
    return _parallel(str(facts.gpus), facts, fate, "TGI takes all GPUs that it sees, vLLM one")


def _parallel(value: str, facts: Facts, fate: Fate, why: str) -> Translated:
    heads = facts.config.get("num_attention_heads")
    count = number(value)
    if isinstance(heads, int) and count and heads % count:
        return blocked(f"vLLM needs a number that divides the model's {heads} attention heads, and {value} does not")
    return Translated(fate, ("--tensor-parallel-size", value), why=why)


def memory_fraction(value: str, facts: Facts) -> Translated:
    """TGI takes a share of what it is given, its wiggle room; vLLM's figure is of the whole card."""
    room = number(facts.value("TGI_WIGGLE_ROOM", str(WIGGLE_ROOM)))
    if (fraction := number(value)) is None or room is None:
        return blocked(UNKNOWN)
    share = f"{fraction * room:.3g}"
    fate = Fate.MAPPED if "--cuda-memory-fraction" in facts.values else Fate.DEFAULT
    why = f"TGI takes {room:g} of its fraction; with both engines on one GPU the two must stay below 0.95 together"
    return Translated(fate, ("--gpu-memory-utilization", share), why=why)


def default_memory(facts: Facts) -> Translated | None:
    """TGI's 1.0, less its wiggle room."""
    return None if facts.launch.variant == "intel-cpu" else memory_fraction("1.0", facts)


def cuda_graphs(value: str, facts: Facts) -> Translated:
    """The batch sizes for which graphs are captured; 0 is none."""
    if unresolved(value):
        return blocked(UNKNOWN)
    sizes = [size for size in value.split(",") if size != "0"]
    if not sizes:
        return Translated(Fate.MAPPED, ("--enforce-eager",), why="no graphs; it turns off compilation too")
    return Translated(Fate.MAPPED, ("--cudagraph-capture-sizes", *sizes))
