"""What can be known of a model by its architecture, or, failing that, by its name: TGI's dtype, vLLM's tool parser.

TGI's default dtypes are in its `server/text_generation_server/models/__init__.py` (`default_dtype`; float16 unless it
says otherwise), vLLM's parsers in its `tool_parsers/__init__.py` and the page "Tool Calling" of its documentation.
"""

import re

# Architectures that TGI loads as bfloat16, and how their models are called.
BFLOAT16 = {
    "gemma": r"gemma",
    "gemma2": r"gemma-?2",
    "gemma3": r"gemma-?3",
    "gemma3_text": r"gemma-?3-1b",
    "dbrx": r"dbrx",
    "deepseek_v2": r"deepseek.*v2",
    "deepseek_v3": r"deepseek.*(v3|r1(?!-distill))",
    "qwen2_vl": r"qwen-?2-vl",
    "qwen2_5_vl": r"qwen-?2\.5-vl",
    "mllama": r"llama-?3\.2-(11|90)b-vision",
    "idefics3": r"idefics-?3",
    "paligemma": r"paligemma",
}

# The first that matches a model's name; only where vLLM's documentation names the parser for it.
TOOL_PARSERS = (
    (r"hermes-[23]", "hermes"),
    (r"llama-?4", "llama4_pythonic"),
    (r"llama-?3\.[123]-.*instruct", "llama3_json"),
    (r"qwen-?3-coder", "qwen3_coder"),
    (r"qwen-?(2\.5|3)-.*|qwq", "hermes"),
    (r"mistral-7b-instruct-v0\.3|mistral-(small|large|nemo)", "mistral"),
    (r"deepseek-v3(?!\.)|deepseek-r1-0528", "deepseek_v3"),
    (r"granite-?(3|4)", "granite"),
    (r"gpt-oss", "openai"),
    (r"phi-4-mini", "phi4_mini_json"),
    (r"xlam", "xlam"),
    (r"kimi-k2", "kimi_k2"),
)


def tgi_dtype(model: str, model_type: str) -> tuple[str, bool]:
    """Return the dtype that TGI loads a model with on a GPU, and whether that is certain: by its architecture."""
    if model_type:
        return ("bfloat16" if model_type in BFLOAT16 else "float16"), True
    by_name = any(re.search(pattern, model.lower()) for pattern in BFLOAT16.values())
    return ("bfloat16" if by_name else "float16"), False


def tool_parser(model: str) -> str:
    """Return vLLM's tool parser for a model, or nothing if its name does not tell."""
    name = model.lower().rpartition("/")[2]
    return next((parser for pattern, parser in TOOL_PARSERS if re.search(pattern, name)), "")
