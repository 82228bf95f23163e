"""Round a model's linear weights to fewer bits: `python -m loadtests.gpu.quantize IN OUT --scheme int8`.

| scheme | weights | activations | checkpoint |
| --- | --- | --- | --- |
| int8 | 8 bits, a scale a row | 8 bits, a scale a token, found at run time | compressed-tensors |
| fp8 | E4M3, a scale a row | E4M3, a scale a token, found at run time | compressed-tensors |
| gptq | 4 bits, symmetric, a scale for 128 inputs | as they were | GPTQ |
| awq | 4 bits with a zero point, for 128 inputs | as they were | AWQ |

To the nearest, with nothing calibrated: the two 4-bit checkpoints have the layout that the engines' GPTQ and AWQ
kernels read, and not those methods' better choice of values (Frantar et al., arXiv 2210.17323; Lin et al., arXiv
2306.00978). Speed and memory are the same; quality is a lower bound. Embeddings, norms and the output head stay as they
are. Needs torch and safetensors; a weight whose inputs do not divide by the group is an error that names it.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GROUP = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # AutoAWQ's `gemm` layout: which column goes into which four bits
Tensors = dict[str, torch.Tensor]


class CannotQuantize(Exception):
    """A weight that a scheme does not fit; says which and why."""


def int8(weight: torch.Tensor, group: int) -> Tensors:
    """Return a weight in 8 bits with a scale for each row."""
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
    return {"weight": (weight.float() / scale).round().clamp(-128, 127).to(torch.int8), "weight_scale": scale}


def fp8(weight: torch.Tensor, group: int) -> Tensors:
    """Return a weight in E4M3 with a scale for each row."""
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-8) / most
    return {"weight": (weight.float() / scale).clamp(-most, most).to(torch.float8_e4m3fn), "weight_scale": scale}


def gptq(weight: torch.Tensor, group: int) -> Tensors:
    """Return a weight in GPTQ's layout: 4 bits around 8, eight inputs in a word, the zero point stored less one."""
    groups = grouped(weight, group)
    scale = (groups.abs().amax(2, keepdim=True).clamp(min=1e-8) / 7.5).half().float()
    values = (groups / scale).round().clamp(-8, 7).int().flatten(1) + 8
    zeros = torch.full((groups.shape[1], weight.shape[0]), 7, dtype=torch.int32, device=weight.device)
    places = torch.arange(weight.shape[1], dtype=torch.int32, device=weight.device) // group
    return {
        "qweight": packed(values).T, "qzeros": packed(zeros),
        "scales": scale.squeeze(2).T.half(), "g_idx": places,
    }  # fmt: skip


def awq(weight: torch.Tensor, group: int) -> Tensors:
    """Return a weight in AWQ's layout: 4 bits above a zero point, eight outputs in a word, in its own order."""
    groups = grouped(weight, group)
    low, high = groups.amin(2, keepdim=True).clamp(max=0), groups.amax(2, keepdim=True).clamp(min=0)
    scale = ((high - low).clamp(min=1e-8) / 15).half().float()
    zeros = (-low / scale).round().clamp(0, 15)
    values = ((groups / scale).round() + zeros).clamp(0, 15).int().flatten(1).T
    return {
        "qweight": packed(values, AWQ_ORDER), "qzeros": packed(zeros.squeeze(2).T.int(), AWQ_ORDER),
        "scales": scale.squeeze(2).T.half(),
    }  # fmt: skip


def grouped(weight: torch.Tensor, group: int) -> torch.Tensor:
    """Return a weight as outputs, groups, inputs of a group. Raises CannotQuantize."""
    if weight.shape[1] % group:
        raise CannotQuantize(f"{weight.shape[1]} inputs do not divide by groups of {group}")
    return weight.float().unflatten(1, (-1, group))


def packed(values: torch.Tensor, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """Return eight neighbours of a row, each of 4 bits, as one word: the first in the lowest bits."""
    eights = values.long().unflatten(1, (-1, 8))
    words = sum(eights[:, :, column] << (4 * place) for place, column in enumerate(order))
    return (words - (words >= 2**31).long() * 2**32).int()


def compressed(kind: str, layout: str) -> dict[str, Any]:
    """Return compressed-tensors' description of 8-bit weights and activations."""
    weights = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel", "dynamic": False}
    inputs = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
    part = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    told = {"quant_method": "compressed-tensors", "format": layout, "quantization_status": "compressed"}
    return told | {"ignore": ["lm_head"], "config_groups": {"group_0": part}}


def described(scheme: str, group: int) -> dict[str, Any]:
    """Return what a model's config.json says of a scheme."""
    four = {"bits": 4, "group_size": group}
    return {
        "int8": compressed("int", "int-quantized"),
        "fp8": compressed("float", "float-quantized"),
        "gptq": {"quant_method": "gptq", "desc_act": False, "sym": True, "lm_head": False, **four},
        "awq": {"quant_method": "awq", "zero_point": True, "version": "gemm", **four},
    }[scheme]


SCHEMES: dict[str, Callable[[torch.Tensor, int], Tensors]] = {"int8": int8, "fp8": fp8, "gptq": gptq, "awq": awq}


def quantized(tensors: Tensors, scheme: str, group: int, device: str) -> Tensors:
    """Return a file's tensors with its linear weights quantized. Raises CannotQuantize, naming the weight."""
    found: Tensors = {}
    for name, value in tensors.items():
        if not name.endswith("_proj.weight"):
            found[name] = value
            continue
        try:
            made = SCHEMES[scheme](value.to(device), group)
        except CannotQuantize as error:
            raise CannotQuantize(f"{name}: {error}") from None
        found |= {f"{name.removesuffix('weight')}{part}": tensor.cpu().contiguous() for part, tensor in made.items()}
    return found


def write(source: Path, out: Path, scheme: str, group: int) -> None:
    """Quantize a folder's model into another. Raises CannotQuantize."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = json.loads((source / "config.json").read_text())
    if "quantization_config" in config:
        raise CannotQuantize(f"{source}: its weights are quantized already")
    out.mkdir(parents=True, exist_ok=True)
    place: dict[str, str] = {}
    for file in sorted(source.glob("*.safetensors")):
        tensors = quantized(load_file(file), scheme, group, device)
        save_file(tensors, out / file.name, metadata={"format": "pt"})
        place |= dict.fromkeys(tensors, file.name)
    for file in source.glob("*.json"):
        shutil.copy(file, out)
    config["quantization_config"] = described(scheme, group)
    (out / "config.json").write_text(json.dumps(config, indent=1))
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def main() -> int:
    """Quantize what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", type=Path, help="a folder with config.json and *.safetensors, as transformers saves it"
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--scheme", choices=SCHEMES, required=True)
    parser.add_argument("--group", type=int, default=GROUP, help="inputs that share a scale, of the 4-bit schemes")
    options = parser.parse_args()
    try:
        write(options.source, options.out, options.scheme, options.group)
    except CannotQuantize as error:
        print(f"quantize: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
