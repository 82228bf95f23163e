"""A model of a known shape with random weights: `python -m loadtests.gpu.make_model OUT --shape 8b --tokenizer DIR`.

Memory, load time and speed are those of a trained model of that shape, as they do not depend on what the weights say;
the text that it writes is noise. Needs torch and safetensors. --config-only leaves the weights out, for vLLM's
`--load-format dummy`.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "max_position_embeddings": 32768, "vocab_size": 49152, "torch_dtype": "bfloat16",
    "bos_token_id": 1, "eos_token_id": 2, "attention_bias": False, "mlp_bias": False, "initializer_range": 0.02,
}  # fmt: skip
# The shapes of Llama 3.2 1B, Llama 3.1 8B and Qwen2.5 32B, with the vocabulary of the small model's tokenizer.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
              "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False},
    "32b": {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
            "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False},
}  # fmt: skip
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def layer(number: int, shape: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of one layer's weights."""
    hidden, inner, size = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    heads, kept = shape["num_attention_heads"] * size, shape["num_key_value_heads"] * size
    parts = {
        "self_attn.q_proj": (heads, hidden), "self_attn.k_proj": (kept, hidden), "self_attn.v_proj": (kept, hidden),
        "self_attn.o_proj": (hidden, heads), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    return {f"model.layers.{number}.{name}.weight": sizes for name, sizes in parts.items()}


def ends(shape: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of what stands before and after the layers."""
    table = (LLAMA["vocab_size"], shape["hidden_size"])
    head = {} if shape["tie_word_embeddings"] else {"lm_head.weight": table}
    return {"model.embed_tokens.weight": table, "model.norm.weight": (shape["hidden_size"],), **head}


def parameters(name: str) -> int:
    """Return how many parameters a model of a shape has."""
    total = 0
    for part in parts(SHAPES[name]):
        for sizes in part.values():
            total += sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
    return total


def parts(shape: dict[str, Any]) -> list[dict[str, tuple[int, ...]]]:
    """Return what each file of the model holds: the ends in one, each layer in one of its own."""
    return [ends(shape), *(layer(number, shape) for number in range(shape["num_hidden_layers"]))]


def write_weights(out: Path, shape: dict[str, Any]) -> None:
    """Write random weights, a file a part, and their index."""
    import torch  # noqa: PLC0415 (only where there are weights)
    from safetensors.torch import save_file  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    place: dict[str, str] = {}
    for number, part in enumerate(parts(shape)):
        name = f"model-{number:05}.safetensors"
        weights = {}
        for key, sizes in part.items():
            made = torch.ones(sizes) if len(sizes) == 1 else torch.randn(sizes, device=device) * 0.02
            weights[key] = made.to(torch.bfloat16).cpu()
        save_file(weights, out / name, metadata={"format": "pt"})
        place |= dict.fromkeys(weights, name)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def main() -> None:
    """Write the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a folder with a tokenizer of at most 49,152 tokens"
    )
    parser.add_argument("--config-only", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "config.json").write_text(json.dumps(LLAMA | SHAPES[options.shape], indent=1))
    for name in TOKENIZER:
        if (options.tokenizer / name).exists():
            shutil.copy(options.tokenizer / name, options.out)
    if not options.config_only:
        write_weights(options.out, SHAPES[options.shape])


if __name__ == "__main__":
    main()
