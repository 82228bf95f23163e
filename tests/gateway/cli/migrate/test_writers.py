"""The files that are written: they start vLLM beside TGI, and take nothing from TGI's own."""

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from gateway.cli.migrate.plan import Target
from tests.support.migrating import files

CASES = Path(__file__).with_name("cases")


def written(case: str, name: str, gpus: int | None = None) -> str:
    return files((CASES / case).read_text(), Target(gpus=gpus))[name]


def documents(case: str, name: str = "vllm.yaml") -> list[Any]:
    return list(yaml.safe_load_all(written(case, name)))


def command(script: str) -> list[str]:
    """Return the words of a script's only command."""
    return shlex.split(script.replace("\\\n", ""), comments=True)


def test_docker_run_keeps_its_options_and_gets_a_name_a_port_and_time_of_its_own() -> None:
    words = command(written("benchmark.sh", "bench-vllm.sh"))
    said = " ".join(words)
    assert words[:2] == ["docker", "run"]
    assert '-d --rm --gpus "device=0,1" --shm-size 1g -v $PWD/data:/data' in said
    assert "--name bench-vllm -p 8001:80 --stop-timeout 105 -e HF_TOKEN -e HF_HOME=/data" in said
    assert "--entrypoint vllm vllm/vllm-openai:v0.32.0 serve mistralai/Mistral-7B-Instruct-v0.3" in said


def test_a_launcher_on_the_machine_becomes_vllm_serve_on_another_port() -> None:
    words = command(written("bare_launcher.sh", "tgi-vllm.sh"))
    assert words[:5] == ["HF_HOME=/models/hub", "CUDA_VISIBLE_DEVICES=2,3", "vllm", "serve", "/models/baichuan2-7b"]
    assert tomllib.loads(written("bare_launcher.sh", "pointsman.toml"))["models"][0]["deployments"][0]["url"].endswith(
        ":12359"
    )


def test_what_is_blocked_opens_the_file_as_a_comment() -> None:
    assert "# BLOCKED: (--num-shard) (in:6): TGI takes all GPUs" in written("docs_docker_run.sh", "tgi-vllm.sh")


def test_a_compose_service_stands_beside_the_old_one() -> None:
    (made,) = documents("gpus.compose.yaml", "compose.vllm.yaml")
    ((name, service),) = made["services"].items()
    assert name == "llm-vllm"
    assert service["entrypoint"] == ["vllm", "serve"]
    assert service["command"][0] == "google/gemma-2-9b-it"
    assert service["environment"]["HF_TOKEN"] == "${HF_TOKEN}"  # the value is in no file of ours
    assert service["environment"]["HF_HOME"] == "/data"
    assert (service["ports"], service["restart"], service["stop_grace_period"]) == (
        ["8000:80"],
        "unless-stopped",
        "105s",
    )
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["0", "3"]


def test_a_compose_services_own_check_of_health_gets_time_to_compile() -> None:
    (made,) = documents("xeon.compose.yaml", "compose.vllm.yaml")
    service = made["services"]["tgi-service-vllm"]
    assert service["healthcheck"]["start_period"] == "1800s"
    assert ":80/health" in service["healthcheck"]["test"][-1]
    assert service["container_name"] == "tgi-service-vllm"
    assert service["volumes"] == ["${MODEL_CACHE:-./data}:/data"]


def test_a_workload_stands_beside_the_old_one_and_its_service_selects_it_alone() -> None:
    workload, service = documents("rendered_helm.yaml")
    labels = workload["spec"]["template"]["metadata"]["labels"]
    old = {"app.kubernetes.io/name": "tgi", "app.kubernetes.io/instance": "tgi"}
    assert workload["metadata"]["name"] == service["metadata"]["name"] == "tgi-vllm"
    assert workload["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert not old.items() <= labels.items()  # the old Service does not send TGI's clients to vLLM
    assert service["spec"]["ports"] == [{"port": 80, "targetPort": 2080, "name": "tgi"}]


def test_a_workload_keeps_what_is_not_tgis() -> None:
    workload, _ = documents("rendered_helm.yaml")
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["vllm", "serve"]
    assert container["volumeMounts"] == [{"mountPath": "/data", "name": "model-volume"}]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert container["envFrom"] == [{"configMapRef": {"name": "extra-env-config", "optional": True}}]
    assert {one["name"] for one in container["env"]} == {"HF_TOKEN", "HF_HOME"}
    probe = container["startupProbe"]
    assert probe["httpGet"] == {"path": "/health", "port": 2080}
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800
    assert pod["terminationGracePeriodSeconds"] == 105


def test_a_longer_grace_and_the_other_containers_stay() -> None:
    workload, service = documents("statefulset_shell.yaml")
    pod = workload["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 300
    assert [one["name"] for one in pod["containers"]] == ["proxy", "tgi"]
    assert pod["containers"][0]["image"] == "envoyproxy/envoy:v1.31"
    assert workload["spec"]["serviceName"] == service["metadata"]["name"] == "text-inference-vllm"
    assert service["spec"]["selector"] == {"app": "text-inference-vllm"}


def test_the_addresses_in_a_cluster_are_the_services_with_their_namespace() -> None:
    models = tomllib.loads(written("gke_lora.yaml", "pointsman.toml"))["models"]
    assert [one["url"] for one in models[0]["deployments"]] == [
        "http://llm-service.inference:8000",
        "http://llm-service-vllm.inference:8000",
    ]


def test_each_adapter_is_a_model_of_the_gateway() -> None:
    made = tomllib.loads(written("gke_lora.yaml", "pointsman.toml"))
    assert [one["name"] for one in made["models"]] == [
        "google/gemma-2-2b-it",
        "google-cloud/magicoder",
        "google-cloud/guanaco",
    ]
    assert made["server"]["tgi_model"] == "google/gemma-2-2b-it"
    assert [one["model"] for one in made["models"][1]["deployments"]] == ["google-cloud/magicoder"] * 2


def test_sagemakers_environment_gives_each_flag_as_a_variable() -> None:
    made = json.loads(written("sagemaker.json", "tgi-vllm.env.json"))
    assert made["SM_VLLM_MODEL"] == "mistralai/Mixtral-8x7B-Instruct-v0.1"
    assert made["SM_VLLM_TENSOR_PARALLEL_SIZE"] == "8"
    assert made["HF_TOKEN"] == "${HF_TOKEN}"
    assert not {"SM_VLLM_PORT", "SM_VLLM_HOST"} & made.keys()  # the container's entry point gives them


def test_adapters_are_one_word_in_sagemakers_environment() -> None:
    text = '{"HF_MODEL_ID": "m", "SM_NUM_GPUS": "1", "LORA_ADAPTERS": "a/b,c=/d", "TRUST_REMOTE_CODE": "true"}'
    made = json.loads(files(text)["tgi-vllm.env.json"])
    assert json.loads(made["SM_VLLM_LORA_MODULES"]) == [{"name": "a/b", "path": "a/b"}, {"name": "c", "path": "/d"}]
    assert made["SM_VLLM_ENABLE_LORA"] == made["SM_VLLM_TRUST_REMOTE_CODE"] == "true"


def test_an_api_key_is_in_no_file_and_the_gateway_knows_where_it_is() -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3"
    made = files(f"docker run --gpus 1 -p 80:80 {image} --model-id m --api-key s3cret")
    assert not [name for name, text in made.items() if "s3cret" in text]
    assert "-e VLLM_API_KEY \\" in made["tgi-vllm.sh"]
    deployments = tomllib.loads(made["pointsman.toml"])["models"][0]["deployments"]
    assert [one["api_key_env"] for one in deployments] == ["POINTSMAN_TGI_API_KEY", "POINTSMAN_VLLM_API_KEY"]


def test_two_launches_of_one_model_are_deployments_of_it() -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3"
    run = f"docker run --gpus 1 -p {{}}:80 --name {{}} {image} --model-id m\n"
    (model,) = tomllib.loads(files(run.format(8080, "a") + run.format(8000, "b"))["pointsman.toml"])["models"]
    assert [(one["name"], one["url"].rpartition(":")[2]) for one in model["deployments"]] == [
        ("a", "8080"),
        ("a-vllm", "8001"),
        ("b", "8000"),
        ("b-vllm", "8002"),
    ]


def test_with_the_hosts_network_vllm_listens_elsewhere() -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3"
    made = files(f"docker run --gpus 1 --network host {image} --model-id m --port 8000")
    deployments = tomllib.loads(made["pointsman.toml"])["models"][0]["deployments"]
    assert [one["url"] for one in deployments] == ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]
    assert "--port 8001" in made["tgi-vllm.sh"]


def test_launches_that_are_called_alike_have_scripts_of_their_own() -> None:
    run = "docker run --gpus 1 ghcr.io/huggingface/text-generation-inference:3 --model-id {}\n"
    made = files(run.format("a") + run.format("b"))
    assert [name for name in made if name.endswith(".sh")] == ["tgi-vllm.sh", "tgi-2-vllm.sh"]


def test_any_variable_that_looks_like_a_secret_is_handed_through_by_name() -> None:
    options = "-e AWS_SECRET_ACCESS_KEY=abc123 -e MY_TOKEN=$T -e NCCL_DEBUG=INFO"
    script = files(f"docker run --gpus 1 {options} ghcr.io/huggingface/text-generation-inference:3")["tgi-vllm.sh"]
    assert "-e AWS_SECRET_ACCESS_KEY \\\n" in script
    assert '-e MY_TOKEN="$T"' in script
    assert "-e NCCL_DEBUG=INFO" in script
