"""The table of TGI's flags: complete, and each row says what TGI's and vLLM's own sources say."""

import pytest

from backends.tgi.launcher_flags import BY_NAME, BY_VARIABLE, LAUNCHER_FLAGS
from gateway.cli.migrate.fates import Fate
from gateway.cli.migrate.plan import Target
from gateway.cli.migrate.table import ADDED, ROWS, VARIABLES, row
from tests.support.migrating import arguments_of, fates, flag, one, why


def test_every_flag_of_tgis_reference_has_a_row_and_no_other_has() -> None:
    assert set(ROWS) == {known.name for known in LAUNCHER_FLAGS}
    assert len(LAUNCHER_FLAGS) == 54  # of the commit that `launcher_flags` names


@pytest.mark.parametrize("version", [(0, 10), (0, 18), (0, 29), (0, 32), (1, 0)])
def test_every_flag_has_a_row_for_every_version(version: tuple[int, ...]) -> None:
    assert all(row(name, version) for name in ROWS)


def test_no_variable_is_a_flag_as_well() -> None:
    assert set(VARIABLES) & set(BY_VARIABLE) == set()
    assert set(ADDED) & set(BY_NAME) == set()


S, M, D, L, X, B = Fate.SAME, Fate.MAPPED, Fate.DEFAULT, Fate.LOST, Fate.DROPPED, Fate.BLOCKED

# the launcher's arguments, what became of the first, a flag of vLLM's and its value (None: not written)
ROWS_SAID: list[tuple[str, Fate, str, str | None]] = [
    ("--revision refs/pr/2", S, "--revision", "refs/pr/2"),
    ("--revision main --trust-remote-code", S, "--code-revision", "main"),
    ("--num-shard 4", M, "--tensor-parallel-size", "4"),
    ("--sharded false", M, "--tensor-parallel-size", "1"),
    ("--max-total-tokens 4096", M, "--max-model-len", "4096"),
    ("--max-input-tokens 1000", L, "--max-model-len", "auto"),
    ("--max-batch-prefill-tokens 4096", M, "--max-num-batched-tokens", "4096"),
    ("--max-batch-prefill-tokens 1024", X, "--max-num-batched-tokens", None),
    ("--max-batch-size 16", M, "--max-num-seqs", "16"),
    ("--max-concurrent-requests 64", M, "--max-num-queued-reqs", "64"),
    ("--max-top-n-tokens 8", M, "--max-logprobs", "8"),
    ("--quantize awq", S, "--quantization", None),
    ("--quantize fp8", S, "--quantization", "fp8"),
    ("--quantize eetq", M, "--quantization", "int8_per_channel_weight_only"),
    ("--quantize bitsandbytes-nf4", B, "--quantization", None),
    ("--quantize exl2", B, "--quantization", None),
    ("--dtype bfloat16", S, "--dtype", "bfloat16"),
    ("--kv-cache-dtype fp8_e4m3fn", M, "--kv-cache-dtype", "fp8_e4m3"),
    ("--kv-cache-dtype fp8_e5m2", M, "--kv-cache-dtype", "fp8_e5m2"),
    (
        "--speculate 3",
        M,
        "--speculative-config",
        '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}',
    ),
    ("--speculate 0", X, "--speculative-config", None),
    ("--trust-remote-code", S, "--trust-remote-code", ""),
    ("--cuda-memory-fraction 0.5", M, "--gpu-memory-utilization", "0.45"),
    ("--cuda-graphs 0", M, "--enforce-eager", ""),
    ("--cuda-graphs 1,2", M, "--cudagraph-capture-sizes", "1"),
    ("--rope-factor 2.0", M, "--hf-overrides", '{"rope_scaling": {"rope_type": "linear", "factor": 2.0}}'),
    ("--rope-scaling dynamic", M, "--hf-overrides", '{"rope_scaling": {"rope_type": "dynamic", "factor": 1.0}}'),
    ("--tokenizer-config-path /t.json", B, "--chat-template", None),
    ("--hostname 127.0.0.1", M, "--host", "127.0.0.1"),
    ("--port 8080", S, "--port", "8080"),
    (
        "--cors-allow-origin https://a --cors-allow-origin https://b",
        M,
        "--allowed-origins",
        '["https://a", "https://b"]',
    ),
    ("--otlp-endpoint http://c:4317", M, "--otlp-traces-endpoint", "http://c:4317"),
    ("--json-output", M, "--logging-config", '{"formatter": "json"}'),
    ("--graceful-termination-timeout 30", M, "--shutdown-timeout", "30"),
    ("-g 30", M, "--shutdown-timeout", "30"),
    ("--huggingface-hub-cache /hub", M, "--download-dir", "/hub"),
    ("--max-waiting-tokens 5", X, "--max-num-seqs", None),
    ("--max-best-of 3", L, "--max-num-seqs", None),
    ("--ngrok", L, "--api-key", None),
    ("--disable-grammar-support", L, "--structured-outputs-config", None),
    ("--enable-prefill-logprobs", X, "--max-logprobs", None),
]


@pytest.mark.parametrize(("arguments", "fate", "name", "value"), ROWS_SAID, ids=[said[0] for said in ROWS_SAID])
def test_a_flag_becomes_what_its_row_says(arguments: str, fate: Fate, name: str, value: str | None) -> None:
    made = one(arguments_of(arguments))
    assert fates(made)[arguments.partition(" ")[0]] is fate
    assert flag(made, name) == value


# a variable that is no flag, what became of it, what is written
VARIABLES_SAID: list[tuple[str, Fate, str]] = [
    ("PREFIX_CACHING=0", M, "--no-enable-prefix-caching"),
    ("PREFIX_CACHING=1", X, ""),
    ("ATTENTION=flashinfer", M, "--attention-backend FLASHINFER"),
    ("ATTENTION=paged", X, ""),
    ("HF_API_TOKEN=$T", M, "HF_TOKEN"),
    ("HUGGING_FACE_HUB_TOKEN=$T", M, "HF_TOKEN"),
    ("LOG_LEVEL=debug", M, "VLLM_LOGGING_LEVEL=DEBUG"),
    ("USAGE_STATS=off", M, "VLLM_NO_USAGE_STATS=1"),
    ("MAX_STOP_SEQUENCES=9", M, "VLLM_MAX_STOP_STRINGS=9"),
    ("NCCL_DEBUG=INFO", S, "NCCL_DEBUG"),
    ("USE_FLASH_ATTENTION=true", X, ""),
    ("TRUST_REMOTE_CODE=false", X, ""),
    ("TRUST_REMOTE_CODE=true", S, "--trust-remote-code"),
]


@pytest.mark.parametrize(("variable", "fate", "target"), VARIABLES_SAID, ids=[said[0] for said in VARIABLES_SAID])
def test_a_variable_becomes_what_its_row_says(variable: str, fate: Fate, target: str) -> None:
    made = one(arguments_of().replace("--gpus 1", f"--gpus 1 -e {variable}"))
    (found,) = (row for row in made.rows if row.source.startswith(variable.partition("=")[0]))
    assert (found.fate, found.target) == (fate, target)


def test_tgis_effective_defaults_are_written_out() -> None:
    made = one(arguments_of())
    written = {name: flag(made, name) for name in made.arguments if name.startswith("--")}
    assert written == {
        "--tensor-parallel-size": "1",
        "--dtype": "float16",
        "--max-num-queued-reqs": "128",
        "--max-model-len": "auto",
        "--host": "0.0.0.0",
        "--port": "80",
        "--gpu-memory-utilization": "0.9",
        "--shutdown-timeout": "90",
        "--generation-config": "vllm",
    }


@pytest.mark.parametrize(
    ("version", "name", "fate"),
    [
        ((0, 28), "(--max-concurrent-requests)", L),
        ((0, 29), "(--max-concurrent-requests)", D),
        ((0, 17), "(--graceful-termination-timeout)", L),
        ((0, 18), "(--graceful-termination-timeout)", D),
        ((0, 13), "(--max-total-tokens)", B),
        ((0, 14), "(--max-total-tokens)", D),
        ((0, 31), "--quantize", M),
        ((0, 32), "--quantize", B),
        ((0, 31), "--json-output", L),
    ],
)
def test_the_table_is_keyed_by_vllms_version(version: tuple[int, ...], name: str, fate: Fate) -> None:
    assert fates(one(arguments_of("--quantize bitsandbytes --json-output"), Target(version)))[name] is fate


@pytest.mark.parametrize(
    ("model", "config", "dtype"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", {}, "float16"),
        ("google/gemma-2-9b-it", {}, "bfloat16"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", {}, "float16"),
        ("deepseek-ai/DeepSeek-V3", {}, "bfloat16"),
        ("/models/mine", {"model_type": "qwen2_vl"}, "bfloat16"),
        ("/models/gemma-like", {"model_type": "llama"}, "float16"),
    ],
)
def test_the_dtype_is_the_one_that_tgi_would_take(model: str, config: dict[str, str], dtype: str) -> None:
    made = one(arguments_of().replace("--model-id m", f"--model-id {model}"), Target(config=config))
    assert flag(made, "--dtype") == dtype


@pytest.mark.parametrize(
    ("model", "parser"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json"),
        ("meta-llama/Llama-3.1-8B", None),
        ("Qwen/Qwen2.5-7B-Instruct", "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("mistralai/Mistral-7B-Instruct-v0.1", None),
        ("openai/gpt-oss-20b", "openai"),
        ("/models/mine", None),
    ],
)
def test_a_tool_parser_is_written_where_the_models_name_tells_it(model: str, parser: str | None) -> None:
    made = one(arguments_of().replace("--model-id m", f"--model-id {model}"))
    assert flag(made, "--tool-call-parser") == parser
    assert fates(made)["(tools"] is (Fate.DEFAULT if parser else Fate.LOST)


def test_lora_adapters_are_named_as_clients_name_them_and_a_pinned_revision_is_blocked() -> None:
    made = one(arguments_of("--lora-adapters a/b,c=/d"))
    assert "--enable-lora --max-loras 2 --lora-modules a/b=a/b c=/d" in " ".join(made.arguments)
    assert fates(one(arguments_of("--lora-adapters a/b@main")))["--lora-adapters"] is Fate.BLOCKED


def test_a_number_of_gpus_that_nobody_says_or_that_does_not_fit_is_blocked() -> None:
    text = arguments_of().replace("--gpus 1", "--gpus all")
    assert fates(one(text))["(--num-shard)"] is Fate.BLOCKED
    assert flag(one(text, Target(gpus=2)), "--tensor-parallel-size") == "2"
    assert "24 attention heads" in why(one(text, Target(gpus=5, config={"num_attention_heads": 24})), "(--num-shard)")


def test_what_vllm_has_lost_says_who_holds_to_it_now() -> None:
    made = one(arguments_of("--max-input-tokens 1000 --payload-limit 5000000"))
    assert "nobody" in why(made, "--max-input-tokens")
    assert "gateway: server.max_body" in why(made, "--payload-limit")
    assert made.limits["max_body"] == "5000000"


def test_a_checkpoint_that_is_quantized_itself_is_left_to_vllm() -> None:
    config = {"quantization_config": {"quant_method": "fp8"}}
    assert flag(one(arguments_of("--quantize fp8"), Target(config=config)), "--quantization") is None


def test_wiggle_room_is_in_the_memory_that_vllm_gets() -> None:
    text = arguments_of("--cuda-memory-fraction 0.5").replace("--gpus 1", "--gpus 1 -e TGI_WIGGLE_ROOM=0.8")
    assert flag(one(text), "--gpu-memory-utilization") == "0.4"
