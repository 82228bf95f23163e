"""`pointsman migrate --check`: what is written, before the pinned vLLM's own parser. It starts no engine."""

from pathlib import Path

import pytest

from backends.tgi.launcher_flags import LAUNCHER_FLAGS
from gateway.cli.engine.environment import VERSION
from gateway.cli.migrate import parser_check
from gateway.cli.migrate.known_models import TOOL_PARSERS
from gateway.cli.migrate.parser_check import ParserVerdict
from gateway.cli.migrate.plan import Target
from tests.live import vllm_engine
from tests.support.migrating import arguments_of, plans

pytestmark = [pytest.mark.live, pytest.mark.timeout(300, func_only=True)]

CASES = Path(__file__).parents[1] / "gateway" / "cli" / "migrate" / "cases"
VALUES = {"whole": "4096", "wholes": "1,2,4", "number": "0.5", "boolean": "true", "text": "x", "texts": "https://a"}
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
)
WRONG = (["m", "--max-input-tokens", "5"], ["m", "--dtype", "float17"])


@pytest.fixture(scope="module")
def asked() -> dict[str, list[str]]:
    """Return what is written for each launch, by its name."""
    return {
        f"{name} {place}": filled(plan.arguments)
        for name, text in lines().items()
        for place, plan in enumerate(plans(text, Target(gpus=1)))
    }


@pytest.fixture(scope="module")
def verdict(asked: dict[str, list[str]]) -> ParserVerdict:
    """What the pinned vLLM's parser says of all of it: one process, as the parser takes half a minute to load."""
    if not vllm_engine.installed():
        if reason := vllm_engine.why_not():
            pytest.skip(reason)
        vllm_engine.install()
    return parser_check.ask(str(vllm_engine.PYTHON), [*asked.values(), *WRONG])


def lines() -> dict[str, str]:
    """Return launches that together use each of TGI's flags, with each of its values, and each case."""
    made: dict[str, str] = {}
    for flag in LAUNCHER_FLAGS:
        for value in flag.choices or ("" if flag.kind == "switch" else VALUES[flag.kind],):
            if flag.name != "--env":
                made[f"{flag.name} {value}"] = arguments_of(flag.name, value)
    made["--cuda-graphs 0"] = arguments_of("--cuda-graphs 0")
    made["--lora-adapters"] = arguments_of("--lora-adapters a/b,c=/d")
    made["--speculate 3"] = arguments_of("--speculate 3")
    for name in ("PREFIX_CACHING=0", "ATTENTION=flashinfer", "ATTENTION=flashdecoding", "PREFILL_CHUNKING=0"):
        made[name] = arguments_of().replace("--gpus 1", f"--gpus 1 -e {name}")
    for model in MODELS:
        made[model] = arguments_of().replace("--model-id m", f"--model-id {model}")
    return made | {path.name: path.read_text() for path in CASES.iterdir()}


def filled(words: list[str]) -> list[str]:
    """Return arguments with a number in the place of what only a cluster fills in."""
    return ["2" if word.startswith(("$", "{")) and "$" in word else word for word in words]


def test_the_pinned_vllms_parser_takes_all_that_is_written(verdict: ParserVerdict, asked: dict[str, list[str]]) -> None:
    assert verdict.version.startswith(VERSION)
    assert {name: said for name, said in zip(asked, verdict.wrong, strict=False) if said} == {}


def test_it_refuses_what_is_no_flag_of_its_and_says_so(verdict: ParserVerdict) -> None:
    """Else the test above could not fail."""
    flag, dtype = verdict.wrong[-len(WRONG) :]
    assert "--max-input-tokens" in flag
    assert "float17" in dtype


def test_the_names_that_are_written_exist(verdict: ParserVerdict) -> None:
    """The parser takes any name of a tool parser, a quantization or an attention backend: they are looked up."""
    (vllm,) = (vllm_engine.ENVIRONMENT / "lib").glob("python3*/site-packages/vllm")
    parsers = (vllm / "tool_parsers" / "__init__.py").read_text()
    assert [parser for _, parser in TOOL_PARSERS if f'"{parser}": (' not in parsers] == []
    quantizations = (vllm / "model_executor" / "layers" / "quantization" / "__init__.py").read_text()
    assert '"int8_per_channel_weight_only",' in quantizations
    assert '"fp8",' in quantizations
    assert '"bitsandbytes"' not in quantizations
    backends = (vllm / "v1" / "attention" / "backends" / "registry.py").read_text()
    assert "FLASHINFER = " in backends
    assert "FLASH_ATTN = " in backends
