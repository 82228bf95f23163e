"""Launches of the kinds that people publish (documentation, benchmarks, charts, cloud vendors' examples), whole."""

import shlex
from pathlib import Path

import msgspec
import pytest

from gateway.cli.migrate.plan import Target
from gateway.config import ConfigSource
from tests.support.migrating import files, plans

CASES = Path(__file__).with_name("cases")
USUAL = (
    "--dtype {dtype} --max-num-queued-reqs 128 {length}--host 0.0.0.0 {port}--gpu-memory-utilization 0.9 "
    "--shutdown-timeout 90 --generation-config vllm"
)


def usual(dtype: str = "float16", length: str = "--max-model-len auto ", port: str = "") -> str:
    """Return what is written out of TGI's defaults."""
    return USUAL.format(dtype=dtype, length=length, port=port)


# the file, the GPUs that --gpus says, the arguments of each launch, the sources that are blocked
EXPECTED: dict[str, tuple[int | None, list[str], list[str]]] = {
    "docs_docker_run.sh": (
        1,
        [f"HuggingFaceH4/zephyr-7b-beta --tensor-parallel-size 1 {usual(port='--port 80 ')}"],
        [],
    ),
    "benchmark.sh": (
        None,
        [
            "mistralai/Mistral-7B-Instruct-v0.3 --tensor-parallel-size 2 --max-model-len 2048 "
            '--max-num-queued-reqs 5000 --dtype bfloat16 --logging-config \'{"formatter": "json"}\' --host 0.0.0.0 '
            "--port 80 --gpu-memory-utilization 0.9 --shutdown-timeout 90 --generation-config vllm "
            "--enable-auto-tool-choice --tool-call-parser mistral"
        ],
        [],
    ),
    "bare_launcher.sh": (
        None,
        [
            "/models/baichuan2-7b --no-enable-prefix-caching --port 8000 --tensor-parallel-size 2 "
            "--max-model-len 2560 --trust-remote-code --gpu-memory-utilization 0.45 --dtype float16 "
            "--max-num-queued-reqs 128 --host 0.0.0.0 --shutdown-timeout 90 --generation-config vllm"
        ],
        [],
    ),
    "xeon.compose.yaml": (
        None,
        [
            "'${LLM_MODEL_ID}' --enforce-eager --tensor-parallel-size 1 --dtype bfloat16 --max-num-queued-reqs 128 "
            "--host 0.0.0.0 --port 80 --shutdown-timeout 90 --generation-config vllm"
        ],
        ["image ghcr.io/huggingface/text-generation-inference:2.4.0-intel-cpu"],
    ),
    "gaudi.compose.yaml": (
        None,
        [
            "'${LLM_MODEL_ID}' --max-model-len 8192 --tensor-parallel-size '${NUM_SHARDS}' "
            + usual(length="", port="--port 80 ")
        ],
        ["image ghcr.io/huggingface/tgi-gaudi:2.3.1"],
    ),
    "gpus.compose.yaml": (
        None,
        [f"google/gemma-2-9b-it --max-model-len 8192 --tensor-parallel-size 2 {usual('bfloat16', '', '--port 80 ')}"],
        [],
    ),
    "rendered_helm.yaml": (None, [f"Intel/neural-chat-7b-v3-3 --port 2080 --tensor-parallel-size 1 {usual()}"], []),
    "gke_lora.yaml": (
        None,
        [
            "google/gemma-2-2b-it --enable-lora --max-loras 2 --lora-modules "
            "google-cloud/magicoder=google-cloud/magicoder google-cloud/guanaco=google-cloud/guanaco --port 8080 "
            f"--tensor-parallel-size '$(NUM_SHARD)' {usual('bfloat16')}"
        ],
        [],
    ),
    "statefulset_shell.yaml": (
        None,
        [f"mistralai/Mixtral-8x7B-Instruct-v0.1 --port 3000 --tensor-parallel-size 2 {usual()}"],
        ["--quantize bitsandbytes-nf4"],
    ),
    "sagemaker.json": (
        None,
        [
            "mistralai/Mixtral-8x7B-Instruct-v0.1 --tensor-parallel-size 8 --max-num-batched-tokens 32000 "
            f"--max-model-len 32000 {usual(length='', port='--port 8080 ')}"
        ],
        [],
    ),
    "cloudformation.yaml": (
        None,
        [
            "'${ModelId}' --tensor-parallel-size '${InstanceTypeToGPUs.${InstanceType}.GPUs}' --max-model-len 4096 "
            + usual(length="", port="--port 8080 ")
        ],
        [],
    ),
    "many.yaml": (
        None,
        [
            f"Qwen/Qwen2.5-7B-Instruct --max-num-seqs 64 --tensor-parallel-size 1 {usual(port='--port 80 ')} "
            "--enable-auto-tool-choice --tool-call-parser hermes",
            'bigcode/starcoder2-7b --speculative-config \'{"method": "ngram", "num_speculative_tokens": 2, '
            f'"prompt_lookup_max": 4}}\' --tensor-parallel-size 1 {usual(port="--port 80 ")}',
        ],
        [],
    ),
}


def text_of(case: str) -> str:
    return (CASES / case).read_text()


def test_each_case_is_expected() -> None:
    assert {path.name for path in CASES.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("case", EXPECTED)
def test_a_published_launch_becomes_vllms(case: str) -> None:
    gpus, arguments, blocked = EXPECTED[case]
    made = plans(text_of(case), Target(gpus=gpus))
    assert [shlex.join(each.arguments) for each in made] == arguments
    assert [row.source for each in made for row in each.blocked] == blocked


@pytest.mark.parametrize("case", EXPECTED)
def test_the_configuration_has_both_engines_and_no_fault(case: str) -> None:
    """`pointsman check` takes it; all of the traffic is TGI's; no secret is in any file."""
    written = files(text_of(case), Target(gpus=EXPECTED[case][0]))
    keys = dict.fromkeys(("POINTSMAN_TGI_API_KEY", "POINTSMAN_VLLM_API_KEY"), "k")
    source = ConfigSource(path=Path("pointsman.toml"), environ=keys)
    config = source.config(written["pointsman.toml"])
    for model in config.models:
        tgi, vllm = model.deployments
        assert (tgi.engine, tgi.weight, vllm.engine, vllm.weight) == ("tgi", 100, "vllm", 0)
        assert (tgi.url == vllm.url) is False
        assert tgi.max_in_flight == vllm.max_in_flight > 0
    assert config.server.max_body_bytes in (2_000_000, 8_000_000)
    assert msgspec.json.encode(written).find(b"hf_not_a_real_token") == -1
