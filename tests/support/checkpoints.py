"""Models' configurations, as their config.json has them: what `pointsman engine` reads before anything is loaded."""

import json
from pathlib import Path
from typing import Any

LLAMA_8B: dict[str, Any] = {  # Llama 3.1 8B: 8.03 billion weights, a context of 131,072 tokens of 128 KiB each
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
SMALL: dict[str, Any] = LLAMA_8B | {  # SmolLM2 135M
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 128}
INT8: dict[str, Any] = {  # weights and activations
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 8, "strategy": "channel"}}},
}
# By the kind that a profile says it is for.
KINDS = {"awq": AWQ, "gptq": AWQ | {"quant_method": "gptq"}, "compressed-tensors int8": INT8}


def save(folder: Path, config: dict[str, Any], quantization: dict[str, Any] | None = None) -> str:
    """Write a model's config.json into a folder; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = config | ({"quantization_config": quantization} if quantization else {})
    (folder / "config.json").write_text(json.dumps(whole))
    return str(folder)
