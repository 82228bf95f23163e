"""What a model's config.json says: its shapes, its precision, how it is quantized.

The names of the keys are those of transformers' configurations of decoders (LlamaConfig, Qwen2Config, MixtralConfig
and so on). Keys that a family has and this does not know make figures that are too small, never too large.
"""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.cli.exit_status import CommandFailed, ExitStatus, reason

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
GATED = {"silu", "swiglu", "gelu_pytorch_tanh"}  # three matrices in a feed-forward layer, else two


class Checkpoint(Struct, frozen=True):
    """A model's configuration. `files` is the size of its weights on the disk in bytes, 0 if they are not here."""

    config: dict[str, Any]
    files: int = 0

    def number(self, *keys: str, default: int = 0) -> int:
        """Return the first of these keys that holds a number; a model that also sees has the text's in a table."""
        for table in (self.config, self.config.get("text_config") or {}):
            for key in keys:
                if isinstance(table.get(key), int):
                    return int(table[key])
        return default

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self.number("num_hidden_layers")

    @property
    def hidden(self) -> int:
        """The width of the residual stream."""
        return self.number("hidden_size")

    @property
    def intermediate(self) -> int:
        """The width of a feed-forward layer (of one expert)."""
        return self.number("moe_intermediate_size", "intermediate_size")

    @property
    def heads(self) -> int:
        """How many heads of attention there are."""
        return self.number("num_attention_heads")

    @property
    def kv_heads(self) -> int:
        """How many heads of keys and values there are."""
        return self.number("num_key_value_heads", default=self.heads)

    @property
    def head_size(self) -> int:
        """The width of a head."""
        return self.number("head_dim", default=self.hidden // max(self.heads, 1))

    @property
    def context(self) -> int:
        """How many tokens it was made for."""
        return self.number("max_position_embeddings")

    @property
    def bytes_a_weight(self) -> int:
        """The size of a weight that is not quantized."""
        return BYTES.get(str(self.config.get("torch_dtype") or self.config.get("dtype")), 2)

    @property
    def matrices(self) -> int:
        """How many weights are in the layers' matrices: those that quantization makes smaller."""
        experts = self.number("num_local_experts", "num_experts", "n_routed_experts", default=1)
        gated = (self.config.get("hidden_act") or self.config.get("hidden_activation")) in GATED
        attention = self.hidden * self.head_size * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + (3 if gated else 2) * self.hidden * self.intermediate * experts)

    @property
    def embeddings(self) -> int:
        """How many weights are in the embedding and the output layer."""
        tied = bool(self.config.get("tie_word_embeddings"))
        return self.number("vocab_size") * self.hidden * (1 if tied else 2)

    @property
    def quantization(self) -> dict[str, Any]:
        """How it is quantized, as it says itself; empty if it is not."""
        return self.config.get("quantization_config") or self.config.get("compression_config") or {}

    @property
    def kind(self) -> str:
        """`none`, or how it is quantized: `awq`, `gptq`, `fp8`, `compressed-tensors int8` and the like."""
        method = str(self.quantization.get("quant_method", "none"))
        if method != "compressed-tensors":
            return method
        weights = self._scheme()
        return f"{method} {weights.get('type', 'int')}{weights.get('num_bits', '')}"

    @property
    def bits(self) -> int:
        """How many bits a quantized weight has; 0 if it is not quantized, or does not say."""
        said = self.quantization.get("bits") or self.quantization.get("w_bit") or self._scheme().get("num_bits")
        return int(said or (8 if self.kind == "fp8" else 0))

    @property
    def group(self) -> int:
        """How many weights share a scale; 0 if that is not by groups."""
        said = self.quantization.get("group_size") or self.quantization.get("q_group_size")
        return max(int(said or self._scheme().get("group_size") or 0), 0)

    def _scheme(self) -> dict[str, Any]:
        """Return how compressed-tensors has its weights: the first group stands for all."""
        groups = self.quantization.get("config_groups") or {}
        return next((group.get("weights") or {} for group in groups.values()), {})


def find(model: str, hub: Path) -> Checkpoint | None:
    """Return what a model says of itself: one in a folder, or one that HuggingFace's cache `hub` has.

    None if it is not on this machine. Raises CommandFailed if it is there and cannot be read.
    """
    folder = Path(model)
    if not folder.is_dir():
        snapshots = hub / f"models--{model.replace('/', '--')}" / "snapshots"
        folder = next(iter(sorted(snapshots.glob("*"), reverse=True)), folder) if model.count("/") == 1 else folder
    file = folder / "config.json"
    if not file.is_file():
        return None
    return Checkpoint(_read(file), sum(path.stat().st_size for path in folder.glob("*.safetensors")))


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(ExitStatus.USAGE, f"{file}: {reason(error)}") from error
    except json.JSONDecodeError as error:
        raise CommandFailed(ExitStatus.USAGE, f"{file}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CommandFailed(ExitStatus.USAGE, f"{file}: expected a JSON object")
    return config
