"""What is read of each form, with its place; and what is said of input that is bad."""

from typing import Any

import pytest

from gateway.cli.migrate.fates import Fate
from gateway.cli.migrate.launch import CannotRead
from gateway.cli.migrate.plan import notes
from tests.support.migrating import arguments_of, fates, flag, one, plans, read_text, why

TGI = "ghcr.io/huggingface/text-generation-inference:3.3.4"


def compose(service: str, image: str = TGI) -> str:
    return f"services:\n  llm:\n    image: {image}\n{service}"


def workload(container: str, image: str = TGI) -> str:
    return (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: llm}\n"
        "spec:\n  template:\n    spec:\n      containers:\n"
        f"      - name: tgi\n        image: {image}\n        resources: {{limits: {{nvidia.com/gpu: 1}}}}\n{container}"
    )


# The same launch in each form.
SAME: dict[str, str] = {
    "a launcher": "CUDA_VISIBLE_DEVICES=0 text-generation-launcher --model-id m --max-total-tokens 512",
    "a launcher behind env": "env CUDA_VISIBLE_DEVICES=0 MODEL_ID=m text-generation-launcher --max-total-tokens=512",
    "docker run": f"docker run --gpus 1 -e MAX_TOTAL_TOKENS=512 {TGI} --model-id m",
    "podman run": f"podman run -it --rm --gpus=1 -eMODEL_ID=m {TGI} --max-total-tokens 512",
    "docker run of a script": f"n=512\nsudo docker run -d --gpus '\"device=0\"' {TGI} \\\n --model-id m "
    "--max-total-tokens $n",
    "compose, command as a text": compose(
        "    environment: {NVIDIA_VISIBLE_DEVICES: 0}\n    command: --model-id m --max-total-tokens 512\n"
    ),
    "compose, command as a list": compose(
        "    command: [--model-id, m]\n    environment: [MAX_TOTAL_TOKENS=512, CUDA_VISIBLE_DEVICES=1]\n"
    ),
    "compose, with a default": compose(
        "    command: --model-id ${M:-m} --max-total-tokens ${N:-512}\n"
        "    deploy: {resources: {reservations: {devices: [{count: 1}]}}}\n"
    ),
    "kubernetes, args": workload('        args: ["--model-id", "m", "--max-total-tokens", "512"]\n'),
    "kubernetes, env": workload("        env: [{name: MODEL_ID, value: m}, {name: MAX_TOTAL_TOKENS, value: '512'}]\n"),
    "kubernetes, a shell": workload(
        '        command: ["sh", "-c", "exec text-generation-launcher --model-id m --max-total-tokens 512"]\n',
        "registry.local/serving:7",
    ),
    "kubernetes, $(NAME)": workload(
        '        args: ["--model-id", "$(M)", "--max-total-tokens", "512"]\n        env: [{name: M, value: m}]\n'
    ),
    "sagemaker, JSON": '{"HF_MODEL_ID": "m", "SM_NUM_GPUS": "1", "MAX_TOTAL_TOKENS": "512"}',
    "sagemaker, lines": "HF_MODEL_ID=m\nSM_NUM_GPUS=1\nexport MAX_TOTAL_TOKENS=512\n",
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_launch_in_any_form_is_the_same(form: str) -> None:
    made = one(SAME[form])
    assert made.model == made.arguments[0] == "m"
    assert flag(made, "--max-model-len") == "512"
    assert flag(made, "--tensor-parallel-size") == "1"
    assert not made.blocked


def test_a_setting_keeps_its_line() -> None:
    text = f"docker run --gpus 1 \\\n  -e DTYPE=float16 \\\n  {TGI} \\\n  --model-id m \\\n  --num-shard 1\n"
    lines = {row.source: str(row.place) for row in one(text).rows if not row.source.startswith("(")}
    assert lines["DTYPE=float16"] == "in:2"
    assert lines["--model-id m"] == "in:4"
    assert lines["--num-shard 1"] == "in:5"


def test_a_config_map_of_the_same_input_fills_the_environment_and_keeps_its_line() -> None:
    data = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  MODEL_ID: m\n"
    made = one(workload("        envFrom: [{configMapRef: {name: c}}]\n") + data)
    assert (made.model, [str(row.place) for row in made.rows if row.source == "MODEL_ID=m"]) == ("m", ["in:17"])


def test_a_secrets_value_is_taken_by_the_new_container_from_where_it_is() -> None:
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    env = "        env: [{name: HF_API_TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n"
    made = one(workload(env + "        args: [--model-id, m]\n"))
    assert made.environment["HF_TOKEN"] == reference


def test_a_flag_whose_value_only_the_cluster_knows_is_handed_on() -> None:
    made = one(workload("        env: [{name: MODEL_ID, valueFrom: {configMapKeyRef: {name: elsewhere, key: k}}}]\n"))
    assert made.arguments[0] == "$(MODEL_ID)"
    assert made.environment["MODEL_ID"] == {"configMapKeyRef": {"name": "elsewhere", "key": "k"}}


def test_an_env_file_beside_a_compose_file_is_read_and_one_that_is_not_there_blocks() -> None:
    text = compose("    env_file: [tgi.env]\n    command: --num-shard 1\n")
    (launch,) = read_text(text, {"tgi.env": "# of TGI\nMODEL_ID=m\n"}).launches
    assert [(one.name, one.value, str(one.place)) for one in launch.settings[:1]] == [("--model-id", "m", "tgi.env:2")]
    assert "env_file tgi.env is not there" in why(one(text), "(the file)")


def test_a_service_that_extends_another_blocks_as_its_flags_are_not_seen() -> None:
    made = one(compose("    extends: {file: base.yaml, service: tgi}\n    command: --num-shard 1\n"))
    assert "docker compose config" in why(made, "(the file)")


def test_anchors_and_merges_are_followed() -> None:
    text = "x-env: &env {MODEL_ID: m, MAX_TOTAL_TOKENS: 512}\n" + compose(
        "    environment:\n      <<: *env\n      MAX_TOTAL_TOKENS: 1024\n"
    )
    made = one(text)
    assert (made.model, flag(made, "--max-model-len")) == ("m", "1024")


def test_several_documents_and_services_are_several_launches() -> None:
    text = workload("        args: [--model-id, a]\n") + "---\n" + workload("        args: [--model-id, b]\n")
    assert [made.model for made in plans(text)] == ["a", "b"]


def test_a_value_that_is_not_filled_in_is_named_and_stays_as_it_is() -> None:
    made = one(compose("    command: --model-id ${MODEL} --num-shard ${N} --max-total-tokens 512\n"))
    assert made.arguments[0] == "${MODEL}"
    assert flag(made, "--tensor-parallel-size") == "${N}"
    assert [note.text.partition(" is not")[0] for note in notes(made)] == ["--model-id ${MODEL}", "--num-shard ${N}"]


def test_a_value_that_has_to_be_computed_with_and_is_not_filled_in_blocks() -> None:
    made = one(compose("    command: --model-id m --num-shard 1 --cuda-memory-fraction ${F} --quantize ${Q}\n"))
    assert {fates(made)[name] for name in ("--cuda-memory-fraction", "--quantize")} == {Fate.BLOCKED}
    filled = one(compose("    command: --model-id m --num-shard 1 --cuda-memory-fraction ${F}\n"), F="0.5")
    assert flag(filled, "--gpu-memory-utilization") == "0.45"


def test_an_unrendered_value_of_helm_is_left_as_it_is() -> None:
    made = one(workload('        args: ["--model-id", {{ .Values.model }}, "--num-shard", "1"]\n'))
    assert made.arguments[0] == "{{ .Values.model }}"


# --- what TGI's launcher itself would refuse ----------------------------------------------------------------------

REFUSED: list[tuple[str, str, str]] = [
    ("--max-seq-len 5", "--max-seq-len", "no such flag"),
    ("--num_shard 2", "--num_shard", "did you mean --num-shard"),
    ("--num-shard two", "--num-shard", "expected a whole number"),
    ("--num-shard", "--num-shard", "expected a value"),
    ("--quantize int4", "--quantize", "expected one of awq"),
    ("--sharded yes", "--sharded", "expected true or false"),
    ("--trust-remote-code=1", "--trust-remote-code", "takes no value"),
    ("serve", "serve", "takes flags alone"),
    ("--dtype float16 --dtype bfloat16", "--dtype", "already"),
    ("--max-input-tokens 10 --max-input-length 10", "--max-input-length", "beside --max-input-tokens"),
    ("--max-input-tokens 512 --max-total-tokens 512", "--max-input-tokens", "below --max-total-tokens"),
    ("--sharded true --num-shard 1", "--num-shard", "beside --sharded true"),
]


@pytest.mark.parametrize(("arguments", "source", "said"), REFUSED, ids=[one_[0] for one_ in REFUSED])
def test_what_tgi_would_refuse_is_blocked_with_the_reason(arguments: str, source: str, said: str) -> None:
    made = one(arguments_of(arguments))
    assert said in why(made, source)
    assert [row.source for row in made.blocked if said in row.why]


def test_a_flag_wins_over_the_environment_and_both_are_named() -> None:
    made = one(f"docker run --gpus 1 -e MAX_TOTAL_TOKENS=1024 {TGI} --model-id m --max-total-tokens 512")
    assert flag(made, "--max-model-len") == "512"
    assert "the flag wins" in why(made, "MAX_TOTAL_TOKENS=1024")
    assert fates(made)["MAX_TOTAL_TOKENS"] is Fate.DROPPED


def test_sagemakers_own_names_win_as_in_its_entry_point() -> None:
    made = one('{"HF_MODEL_ID": "m", "MODEL_ID": "other", "SM_NUM_GPUS": "2", "NUM_SHARD": "4"}')
    assert (made.model, flag(made, "--tensor-parallel-size")) == ("m", "2")
    assert {fates(made)[name] for name in ("MODEL_ID", "NUM_SHARD")} == {Fate.DROPPED}


# --- input that is nothing of TGI's ---------------------------------------------------------------------------------

NOTHING: dict[str, tuple[str, str]] = {
    "another image": (compose("    command: x\n", "vllm/vllm-openai:v0.32.0"), "vllm/vllm-openai:v0.32.0 is not TGI's"),
    "another image, run": ("docker run nginx:1 -g daemon", "the image nginx:1 is not TGI's"),
    "an empty file": ("", "expected a launch of TGI"),
    "prose": ("Install TGI first.\nThen start it.", "expected a launch of TGI"),
    "YAML that is none": ("services:\n  a: [1\n  b: 2\n", "in:3: not valid YAML"),
    "a tab in YAML": ("services:\n\tllm: {}\n", "in:2: not valid YAML"),
    "services that are none": ("services: [1]\n", "in:1: services: expected a mapping"),
    "a chart": ("apiVersion: v1\nkind: Pod\n{{- if .Values.x }}\nspec: {}\n{{- end }}\n", "in:3: a Helm template"),
    "a merge of nothing": (compose("    environment: {<<: text}\n"), "expected a mapping behind <<"),
    "other JSON": ('{"a": 1}', "expected a launch of TGI"),
    "an alias of nothing": (compose("    environment: *gone\n"), "not valid YAML"),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_input_without_tgi_is_an_error_that_names_what_was_found(kind: str) -> None:
    text, said = NOTHING[kind]
    with pytest.raises(CannotRead) as raised:
        read_text(text)
    assert said in str(raised.value)


def test_containers_of_other_images_are_left_alone_and_named() -> None:
    text = compose("    command: --model-id m\n") + "  web:\n    image: nginx:1\n  built:\n    build: .\n"
    found = read_text(text)
    assert len(found.launches) == 1
    assert ["nginx:1" in note.text or "(none)" in note.text for note in found.skipped] == [True, True]


@pytest.mark.parametrize(
    "container",
    [
        '        command: ["/opt/start.sh"]\n',
        '        command: ["sh", "-c", "python serve.py"]\n',
        "        envFrom: [{secretRef: {name: s}}]\n        args: [--model-id, m]\n",
    ],
)
def test_what_hides_flags_blocks(container: str) -> None:
    """Another program, or an environment that is not in the input: nobody can see which flags are behind it."""
    assert any(row.source == "(the file)" for row in one(workload(container)).blocked)


IMAGES: list[tuple[str, bool]] = [
    ("ghcr.io/huggingface/text-generation-inference:3.3.4-rocm", True),
    ("ghcr.io/huggingface/tgi-gaudi:2.3.1", True),
    ("763104351884.dkr.ecr.eu-west-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.4.0", True),
    ("us-docker.pkg.dev/x/gcr.io/huggingface-text-generation-inference-cu124.2-3.ubuntu2204.py311", True),
    ("registry.local/tgi:7", True),
    ("ghcr.io/huggingface/text-embeddings-inference:1.5", False),
    ("nginx:1", False),
]


@pytest.mark.parametrize(("image", "expected"), IMAGES)
def test_tgis_images_are_known_by_their_names(image: str, expected: bool) -> None:
    found: Any = None
    try:
        found = read_text(compose("    command: --model-id m\n", image)).launches
    except CannotRead:
        found = []
    assert bool(found) is expected


def test_a_service_whose_name_looks_like_a_metric_is_none() -> None:
    found = read_text("services:\n  tgi_service:\n    image: " + TGI + "\n    command: --model-id m\n")
    assert (len(found.launches), found.metrics) == (1, [])


def test_a_secret_is_not_in_the_report() -> None:
    made = one(f"docker run --gpus 1 -e MY_API_KEY=abc123 -e HF_TOKEN=hf_abc {TGI} --model-id m --api-key abc123")
    said = " ".join(f"{row.source} {row.target} {row.why}" for row in made.rows)
    assert "abc" not in said
    assert "abc" not in str(made.shown_environment)
