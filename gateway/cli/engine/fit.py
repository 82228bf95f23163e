"""Whether a model fits the card, by arithmetic, before anything is loaded.

What has to fit on each card: its share of the weights, the keys and values of one request of full length (vLLM
refuses to start without room for it), and what the engine itself takes. All three are the least that it can be, so
that nothing is refused that would run.
"""

from collections.abc import Sequence

from msgspec import Struct

from gateway.cli.engine import options
from gateway.cli.engine.checkpoint import Checkpoint
from gateway.cli.engine.options import Option

GIB = 2**30
RUNTIME = 1 * GIB  # CUDA's context, the libraries' workspaces, activations
# Bits of a weight that the engine quantizes while it loads it, by the option's value.
WHILE_LOADING = {"fp8": 8, "eetq": 8, "bitsandbytes": 8, "int8_per_channel_weight_only": 8} | dict.fromkeys(
    ("bitsandbytes-nf4", "bitsandbytes-fp4"), 4
)


class Need(Struct, frozen=True):
    """What each card has to hold, in bytes, where a request may have `tokens` tokens."""

    weights: float
    cache: float
    tokens: int

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.cache + RUNTIME


def need(checkpoint: Checkpoint, chosen: Sequence[Option]) -> Need | None:
    """Return what each card has to hold; None if the checkpoint does not say its shapes in the usual keys."""
    if not (checkpoint.layers and checkpoint.hidden and checkpoint.heads and checkpoint.number("vocab_size")):
        return None
    if checkpoint.number("kv_lora_rank"):
        return None  # latent attention: other matrices, and a much smaller cache
    parts = cards(chosen)
    tokens = length(checkpoint, chosen)
    return Need(weights(checkpoint, chosen) / parts, tokens * token(checkpoint, chosen) / parts, tokens)


def cards(chosen: Sequence[Option]) -> int:
    """Return on how many cards the model is split, by tensor or pipeline."""
    tensor = options.value(chosen, "--tensor-parallel-size", "--num-shard")
    pipeline = options.value(chosen, "--pipeline-parallel-size")
    return whole(tensor, 1) * whole(pipeline, 1)


def share(chosen: Sequence[Option]) -> float:
    """Return the share of a card that the engine may take."""
    said = options.value(chosen, "--gpu-memory-utilization", "--device-memory-utilization", "--cuda-memory-fraction")
    try:
        return float(said or 0.9)
    except ValueError:
        return 0.9  # the engine says what it expects


def length(checkpoint: Checkpoint, chosen: Sequence[Option]) -> int:
    """Return the most tokens that a request may have: what is set, or what the model was made for.

    1 where the engine chooses it by the room there is: TGI unless it is told, vLLM for `auto` and -1.
    """
    tgi = any(option.name == "--cuda-memory-fraction" for option in chosen)
    said = options.value(chosen, "--max-model-len", "--max-total-tokens")
    return 1 if said in {"auto", "-1"} or (tgi and not said) else whole(said, checkpoint.context)


def weights(checkpoint: Checkpoint, chosen: Sequence[Option]) -> float:
    """Return the bytes of all weights, as they lie on the cards."""
    loading = WHILE_LOADING.get(options.value(chosen, "--quantization", "--quantize"), 0)
    if checkpoint.files and (checkpoint.bits or not loading):
        return checkpoint.files
    bits = checkpoint.bits or loading or 8 * checkpoint.bytes_a_weight
    scales = 16 / checkpoint.group if checkpoint.group else 0
    return checkpoint.matrices * (bits + scales) / 8 + checkpoint.embeddings * checkpoint.bytes_a_weight


def token(checkpoint: Checkpoint, chosen: Sequence[Option]) -> float:
    """Return the bytes of keys and values of one token, in the layers that keep all of them."""
    kinds = checkpoint.config.get("layer_types")
    layers = kinds.count("full_attention") if isinstance(kinds, list) else checkpoint.layers
    size = 1 if options.value(chosen, "--kv-cache-dtype").startswith(("fp8", "int8")) else checkpoint.bytes_a_weight
    return 2.0 * layers * checkpoint.kv_heads * checkpoint.head_size * size


def whole(said: str, default: int) -> int:
    """Return a whole number as vLLM writes it (`4k` is 4,000, `4K` 4,096), or a default for anything else."""
    factors = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    number, factor = (said[:-1], factors[said[-1]]) if said[-1:] in factors else (said, 1)
    try:
        return max(int(float(number) * factor), 1)
    except ValueError:
        return default


def refusal(needed: Need, memory: int, chosen: Sequence[Option]) -> str:
    """Return why it does not fit cards of `memory` bytes, and what would; empty if it fits."""
    room = memory * share(chosen)
    if needed.total <= room:
        return ""
    split = cards(chosen)
    sums = (
        f"{'each of ' + str(split) + ' cards needs' if split > 1 else 'it needs'} {needed.total / GIB:.1f} GiB "
        f"(weights {needed.weights / GIB:.1f}, keys and values of a request of {needed.tokens:,} tokens "
        f"{needed.cache / GIB:.1f}, the engine itself {RUNTIME / GIB:.0f}), and {share(chosen):g} of "
        f"{memory / GIB:.1f} GiB is {room / GIB:.1f}"
    )
    left = room - RUNTIME - needed.weights
    fitting = int(left / needed.cache * needed.tokens) if needed.cache else 0
    if fitting >= 1024:  # a context that somebody could want
        return f"does not fit: {sums}; with at most {fitting // 256 * 256:,} tokens a request it would"
    return f"does not fit: {sums}; try more cards (--profile tensor-parallel), or fewer bits (fp8, int8, awq, gptq)"
