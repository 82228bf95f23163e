"""What the model is, and how it is loaded."""

import json
import re

from gateway.cli.migrate.fates import UNKNOWN, Facts, Fate, Translated, blocked, number, on
from gateway.cli.migrate.known_models import tgi_dtype
from gateway.cli.migrate.launch import unresolved


def model_id(value: str, facts: Facts) -> Translated:
    """The model: vLLM answers only to names it serves, TGI to any."""
    why = "vLLM answers 404 to any other name; the gateway's alias `tgi` keeps what TGI's clients send"
    return Translated(Fate.SAME, (value,), why=why)


def revision(value: str, facts: Facts) -> Translated:
    """The revision of the weights, of the tokenizer and of the model's code."""
    code = ("--code-revision", value) if on(facts.value("--trust-remote-code", "false")) else ()
    return Translated(Fate.SAME, ("--revision", value, "--tokenizer-revision", value, *code))


def quantize(value: str, facts: Facts) -> Translated:
    """TGI's methods, as far as vLLM has them (its `model_executor/layers/quantization/__init__.py`)."""
    if unresolved(value):
        return blocked(UNKNOWN)
    if value in ("awq", "gptq", "marlin", "compressed-tensors"):
        return Translated(Fate.SAME, why="vLLM reads it from the checkpoint, and chooses the kernels itself")
    if value == "fp8" and facts.config.get("quantization_config"):
        return Translated(Fate.SAME, why="vLLM reads it from the checkpoint, and refuses another word for it")
    if value == "fp8":
        why = "weights are made FP8 at the start; leave it out if the checkpoint is FP8 (--model-config tells)"
        return Translated(Fate.SAME, ("--quantization", "fp8"), why=why)
    if value == "eetq":
        why = "other kernels and other roundings: compare answers before the switch (pointsman doctor)"
        return Translated(Fate.MAPPED, ("--quantization", "int8_per_channel_weight_only"), why=why)
    if value.startswith("bitsandbytes"):
        return blocked("vLLM has no bitsandbytes: take an AWQ or FP8 checkpoint, or --quantize fp8")
    return blocked(f"vLLM has no {value}: quantize the model anew (AWQ, GPTQ, FP8)")


def older_bitsandbytes(value: str, facts: Facts) -> Translated:
    """Before 0.32 vLLM's core had bitsandbytes."""
    if value.startswith("bitsandbytes"):
        why = "4 bit (NF4) whatever TGI's was; gone in vLLM 0.32"
        return Translated(Fate.MAPPED, ("--quantization", "bitsandbytes"), why=why)
    return quantize(value, facts)


def dtype(value: str, facts: Facts) -> Translated:
    """The same words on both."""
    return Translated(Fate.SAME, ("--dtype", value))


def default_dtype(facts: Facts) -> Translated:
    """TGI's float16 (for some architectures bfloat16); vLLM takes the checkpoint's."""
    if facts.launch.variant == "intel-cpu":
        return Translated(Fate.DEFAULT, ("--dtype", "bfloat16"), why="TGI's on a CPU")
    name, certain = tgi_dtype(facts.model, facts.model_type)
    why = "TGI's default for this model; vLLM's is the checkpoint's. Once nothing is compared any more, take auto"
    if not certain:
        why += ". By the model's name alone: --model-config makes it certain"
    return Translated(Fate.DEFAULT, ("--dtype", name), why=why)


def kv_cache_dtype(value: str, facts: Facts) -> Translated:
    """The same two formats, one of them by another name."""
    names = {"fp8_e4m3fn": "fp8_e4m3"}
    return Translated(Fate.MAPPED, ("--kv-cache-dtype", names.get(value, value)))


def speculate(value: str, facts: Facts) -> Translated:
    """N-gram speculation; TGI takes Medusa's heads where the model has some."""
    if value == "0":
        return Translated(Fate.DROPPED, why="0 is vLLM's default: no speculation")
    if (tokens := number(value)) is None:
        return blocked(UNKNOWN)
    settings = {"method": "ngram", "num_speculative_tokens": int(tokens), "prompt_lookup_max": 4}
    why = 'n-gram speculation; if the model has Medusa heads, "method" is "medusa" and "model" their repository'
    return Translated(Fate.MAPPED, ("--speculative-config", json.dumps(settings)), why=why)


def rope(value: str, facts: Facts) -> Translated:
    """TGI's two flags for one thing: `--rope-factor` alone is linear."""
    if facts.values.get("--rope-scaling") and facts.value("--rope-factor") == value:
        return Translated(Fate.MAPPED, why="together with --rope-scaling")
    kind = facts.value("--rope-scaling", "linear")
    if (factor := number(facts.value("--rope-factor", "1.0"))) is None or unresolved(kind):
        return blocked(UNKNOWN)
    overrides = {"rope_scaling": {"rope_type": kind, "factor": factor}}
    why = "the names in rope_scaling differ from model to model: compare answers to long prompts"
    return Translated(Fate.MAPPED, ("--hf-overrides", json.dumps(overrides)), why=why)


def rope_factor(value: str, facts: Facts) -> Translated:
    """The factor goes with `--rope-scaling` where that is set."""
    if "--rope-scaling" in facts.values:
        return Translated(Fate.MAPPED, why="the factor in --hf-overrides, which --rope-scaling makes")
    return rope(value, facts)


def adapters(value: str) -> list[tuple[str, str, str]]:
    """Return the id, path and revision of each LoRA adapter of `id[=path][@revision],…` (TGI: utils/adapter.py)."""
    found = []
    for one in filter(None, (part.strip() for part in value.split(","))):
        if match := re.fullmatch(r"([^=@]+)(?:=([^@]+))?(?:@(.+))?", one):
            found.append((match[1], match[2] or "", match[3] or ""))
    return found


def lora_adapters(value: str, facts: Facts) -> Translated:
    """Adapters are models of their own on vLLM, and its limits on them are small."""
    if not value:
        return Translated(Fate.DROPPED, why="empty: no adapters")
    listed = adapters(value)
    if pinned := [name for name, _, version in listed if version]:
        return blocked(
            f"vLLM takes no revision of an adapter: download {', '.join(pinned)} (hf download ID --revision R "
            "--local-dir D), and give ID=D"
        )
    modules = [f"{name}={path or name}" for name, path, _ in listed]
    why = (
        "vLLM takes adapters up to rank 16: if r in an adapter_config.json is more, add --max-lora-rank. Clients name \
an adapter as the model; each is a model of the gateway"
    )
    arguments = ("--enable-lora", "--max-loras", str(len(listed)), "--lora-modules", *modules)
    return Translated(Fate.MAPPED, arguments, why=why)


def tokenizer_config(value: str, facts: Facts) -> Translated:
    """vLLM takes the chat template alone out of it."""
    return blocked(
        f"vLLM takes the template alone: write chat_template of {value} into a file, and give it by --chat-template"
    )
