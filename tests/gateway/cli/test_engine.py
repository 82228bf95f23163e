"""`pointsman engine`: the line that starts an engine, and what is refused before anything is loaded."""

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backends.tgi.launcher_flags import LAUNCHER_FLAGS
from backends.vllm_options import NAMES
from gateway.__main__ import main
from gateway.cli.engine import launch, profiles
from gateway.cli.engine.options import faults
from tests.support.checkpoints import AWQ, KINDS, LLAMA_8B, SMALL, save

ROOT = Path(__file__).parents[3]
FLAGS = {flag.name: flag for flag in LAUNCHER_FLAGS}
EACH = [(name, engine) for name in profiles.names() for engine in ("vllm", "tgi") if (name, engine) != ("cpu", "tgi")]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither GPUs nor engines nor the user's caches and variables."""
    monkeypatch.setattr(launch, "gpu_memories", list)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PREFIX_CACHING", "ATTENTION"):
        monkeypatch.delenv(name, raising=False)


def asked(*words: str) -> tuple[int, str, str]:
    """Return the exit status, stdout and stderr of `pointsman engine`."""
    done = CliRunner().invoke(main, ["engine", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stdout, done.stderr


def line(*words: str) -> list[str]:
    """Return the words of the line that a dry run prints."""
    status, said, errors = asked("--dry-run", *words)
    assert status == 0, errors
    assert said.count("\n") == 1
    return shlex.split(said)


@pytest.mark.parametrize(("profile", "engine"), EACH)
def test_each_profile_makes_a_line_whose_options_the_engine_has(profile: str, engine: str, tmp_path: Path) -> None:
    settings = profiles.load(profile).settings(engine)
    assert settings
    kind = next(iter(settings.checkpoint), "none")
    words = line(engine, "--model", save(tmp_path, LLAMA_8B, KINDS.get(kind)), "--profile", profile)
    own = settings.as_options()
    assert faults(own, NAMES if engine == "vllm" else FLAGS, engine) == []
    assert [word for option in own for word in (option.name, *option.values)] == words[-sum(map(width, own)) :]
    assert [f"{name}={value}" for name, value in settings.environment.items()] == words[: len(settings.environment)]


def width(option: Any) -> int:
    """Return how many words an option has."""
    return 1 + len(option.values)


@pytest.mark.parametrize("profile", [name for name, engine in EACH if engine == "tgi"])
def test_tgis_values_are_of_the_kind_that_its_launcher_takes(profile: str) -> None:
    settings = profiles.load(profile).tgi
    assert settings
    for option in settings.as_options():
        flag = FLAGS[option.name]
        assert bool(option.values) == (flag.kind != "switch")
        assert not flag.choices or option.values[0] in flag.choices


@pytest.mark.parametrize(
    ("own", "last"),
    [
        (["--port", "8001"], ["--gpu-memory-utilization", "0.9", "--port", "8001"]),
        (["--gpu_memory_utilization=0.5"], ["--gpu-memory-utilization", "0.5"]),
        (["-tp", "2"], ["--gpu-memory-utilization", "0.9", "--tensor-parallel-size", "2"]),
        (["-cc.mode", "3"], ["--gpu-memory-utilization", "0.9", "--compilation-config.mode", "3"]),
        (["--hf-overrides", '{"a": "b c"}'], ["0.9", "--hf-overrides", '{"a": "b c"}']),
        (["--api-key", "a", "b", "--no-enable-prefix-caching"], ["a", "b", "--no-enable-prefix-caching"]),
    ],
)
def test_the_users_options_come_last_and_stand_for_the_profiles(own: list[str], last: list[str]) -> None:
    words = line("vllm", "--model", "org/name", "--", *own)
    assert words[-len(last) :] == last
    assert words.count("--gpu-memory-utilization") == 1


def test_a_flag_that_the_user_turns_off_is_not_turned_on() -> None:
    words = line("vllm", "--model", "m/m", "--profile", "prefix-cache", "--", "--no-enable-prefix-caching")
    assert "--enable-prefix-caching" not in words


def test_a_variable_that_the_user_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTENTION", "paged")
    assert line("tgi", "--model", "m/m", "--profile", "prefix-cache")[0] == "PREFIX_CACHING=1"
    assert "paged" not in line("tgi", "--model", "m/m", "--profile", "prefix-cache")


def test_the_cpu_build_serves_the_small_model_from_the_cache_folder(tmp_path: Path) -> None:
    """Also as `--model smollm2`; another model is passed on."""
    words = line("vllm", "--profile", "cpu")
    assert str(tmp_path / "cache" / "pointsman" / "SmolLM2-135M-Instruct") in words
    assert words == line("vllm", "--profile", "cpu", "--model", "smollm2")
    assert words[words.index("--served-model-name") + 1] == "smollm2"
    assert "--served-model-name" not in line("vllm", "--profile", "cpu", "--model", "org/name")


SPLIT = ("--", "--tensor-parallel-size")
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any] | None, tuple[str, ...], str]] = {
    "awq": (LLAMA_8B, None, ("--profile", "awq"), "is for a checkpoint that is awq, and this one is not quantized"),
    "gptq": (LLAMA_8B, AWQ, ("--profile", "gptq"), "quantized as awq; --profile base serves it as it is"),
    "int8": (LLAMA_8B, None, ("--profile", "int8"), "a checkpoint that is compressed-tensors int8"),
    "fp8": (LLAMA_8B, AWQ, ("--profile", "fp8"), "one that is not quantized or fp8, and this one is quantized as awq"),
    "groups": (SMALL, AWQ, ("--profile", "awq"), "128 weights share a scale, and hidden_size 576 is no multiple of it"),
    "groups on cards": (LLAMA_8B, AWQ, (*SPLIT, "32"), "intermediate_size 14336 on 32 cards is no multiple of it"),
    "heads": (SMALL, None, ("--profile", "tensor-parallel"), "9 heads of attention cannot be split in 2; 3 would do"),
    "kv heads": (LLAMA_8B | {"num_key_value_heads": 6}, None, (*SPLIT, "4"), "6 heads of keys and values can neither"),
    "weights": (LLAMA_8B, None, ("--gpu-memory", "16GiB"), "does not fit: it needs 32.0 GiB (weights 15.0"),
    "context": (LLAMA_8B, None, ("--gpu-memory", "24GiB"), "with at most 46,080 tokens a request it would"),
    "more cards": (LLAMA_8B, None, ("--gpu-memory", "8GiB"), "try more cards (--profile tensor-parallel)"),
    "each card": (
        LLAMA_8B,
        None,
        ("--profile", "tensor-parallel", "--gpu-memory", "12GiB"),
        "each of 2 cards needs 16.5 GiB",
    ),
    "size": (LLAMA_8B, None, ("--gpu-memory", "much"), '--gpu-memory: expected a size such as "80GiB", got "much"'),
    "profile": (LLAMA_8B, None, ("--profile", "awk"), "--profile: expected one of awq, base, cpu, fp8"),
    "option": (LLAMA_8B, None, ("--", "--max-modl-len", "8"), "has no such option; did you mean --max-model-len?"),
    "word": (LLAMA_8B, None, ("--", "8001"), 'expected an option, such as "--port 8001", got "8001"'),
}


@pytest.mark.parametrize(("config", "quantized", "words", "said"), REFUSED.values(), ids=REFUSED)
def test_what_vllm_could_not_do_is_said_before_it_is_started(
    config: dict[str, Any], quantized: dict[str, Any] | None, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    status, out, errors = asked("vllm", "--dry-run", "--model", save(tmp_path, config, quantized), *words)
    assert said in errors
    assert (status, out) == (2, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--profile", "cpu"), "--profile: cpu is for vLLM alone"),
        (
            ("--profile", "int8", "--model", "{quantized}"),
            "not quantized, and this one is quantized as awq",
        ),
        (("--model", "m", "--", "--max-model-len", "8"), "TGI's launcher has no such option"),
        ((), "--model: required"),
        (("--model", "{plain}", "--gpu-memory", "12GiB"), "does not fit: it needs 16.0 GiB"),
        (("--model", "{plain}", "--profile", "tensor-parallel", "--", "--num-shard", "3"), "--num-shard: 32 heads"),
    ],
)
def test_what_tgi_could_not_do_is_said_before_it_is_started(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    places = {"{plain}": save(tmp_path / "plain", LLAMA_8B), "{quantized}": save(tmp_path / "quantized", LLAMA_8B, AWQ)}
    status, _, errors = asked("tgi", "--dry-run", *(places.get(word, word) for word in words))
    assert said in errors
    assert status == 2


FITS: dict[str, tuple[dict[str, Any] | None, tuple[str, ...]]] = {
    "8 B in 16 bits": (None, ("--gpu-memory", "40GiB")),
    "a shorter context": (None, ("--gpu-memory", "24GiB", "--", "--max-model-len", "32k")),
    "a context as there is room": (None, ("--gpu-memory", "24GiB", "--", "--max-model-len", "auto")),
    "8 bits while it is loaded": (None, ("--profile", "fp8", "--gpu-memory", "16GiB", "--", "--max-model-len", "8k")),
    "4 bits": (AWQ, ("--profile", "awq", "--gpu-memory", "12GiB", "--", "--max-model-len", "8k")),
    "two cards": (None, ("--profile", "tensor-parallel", "--gpu-memory", "24GiB")),
}


@pytest.mark.parametrize(("quantized", "words"), FITS.values(), ids=FITS)
def test_what_fits_the_card_is_not_refused(
    quantized: dict[str, Any] | None, words: tuple[str, ...], tmp_path: Path
) -> None:
    status, _, errors = asked("vllm", "--dry-run", "--model", save(tmp_path, LLAMA_8B, quantized), *words)
    assert (status, errors) == (0, "")


def test_what_could_not_be_checked_is_said(tmp_path: Path) -> None:
    """A model that is not here, a card that is not, shapes under other names."""
    assert "not on this machine yet" in asked("vllm", "--dry-run", "--model", "org/name")[2]
    assert "no nvidia-smi" in asked("vllm", "--dry-run", "--model", save(tmp_path / "a", LLAMA_8B))[2]
    other = save(tmp_path / "b", {"n_embd": 768, "n_head": 12})
    status, _, errors = asked("vllm", "--dry-run", "--model", other, "--gpu-memory", "80GiB")
    assert (status, "no shapes known here in its config.json" in errors) == (0, True)


def test_a_model_in_huggingfaces_cache_is_found_by_its_name(tmp_path: Path) -> None:
    save(tmp_path / "hub" / "models--org--name" / "snapshots" / "abc", LLAMA_8B)
    assert "does not fit" in asked("vllm", "--dry-run", "--model", "org/name", "--gpu-memory", "8GiB")[2]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_config_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    status, _, errors = asked("vllm", "--dry-run", "--model", str(tmp_path))
    assert (status, f"{tmp_path}/config.json: " in errors) == (2, True)


@pytest.mark.parametrize(("engine", "said"), [("vllm", "pip install vllm"), ("tgi", "TGI has no wheel, but an image")])
def test_an_engine_that_is_not_installed_is_said_to_be_missing(engine: str, said: str) -> None:
    status, _, errors = asked(engine, "--model", "m/m")
    assert (status, said in errors) == (1, True)


def test_the_command_becomes_the_engine(tmp_path: Path) -> None:
    """Its words, its variables and its exit status are the engine's."""
    program = tmp_path / "text-generation-launcher"
    program.write_text('#!/bin/sh\necho "$PREFIX_CACHING $@"\nexit 7\n')
    program.chmod(0o755)
    command = [sys.executable, "-m", "gateway", "engine", "tgi", "--model", "m/m", "--profile", "prefix-cache"]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        command, env={"PATH": path, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, "1 --model-id m/m --cuda-memory-fraction 0.9\n")


def test_an_installed_vllm_is_asked_for_options_that_are_not_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "installed_names", lambda: {"--of-tomorrow"})
    assert line("vllm", "--model", "m/m", "--", "--of-tomorrow")[-1] == "--of-tomorrow"
    assert asked("vllm", "--model", "m/m", "--dry-run", "--", "--of-yesterday")[0] == 2


def test_the_help_names_each_profile() -> None:
    said = "".join(CliRunner().invoke(main, ["engine", "--help"]).stdout.split())
    assert f"{','.join(profiles.names()[:-1])}or{profiles.names()[-1]}." in said


def test_a_wheel_has_the_profiles_where_they_are_looked_for() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    ((source, target),) = built["force-include"].items()
    assert [ROOT / target, ROOT / source] == list(profiles.FOLDERS)
