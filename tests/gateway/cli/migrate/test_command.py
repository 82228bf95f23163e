"""The command itself: exit statuses, the JSON document, the files, and --check."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.cli.migrate import parser_check, version_of
from gateway.cli.migrate.parser_check import NoVllm, ParserVerdict

CASES = Path(__file__).with_name("cases")
GOOD = str(CASES / "gpus.compose.yaml")


def migrate(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["migrate", *arguments], input=stdin)


def document(*arguments: str, stdin: str = "") -> Any:
    return json.loads(migrate(*arguments, "--json", stdin=stdin).stdout)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([GOOD], 0),
        ([str(CASES / "docs_docker_run.sh")], 1),
        ([str(CASES / "docs_docker_run.sh"), "--gpus", "1"], 0),
        ([str(CASES / "statefulset_shell.yaml")], 1),
        (["/nowhere/at.all"], 2),
        ([__file__], 2),
        ([GOOD, "--to-version", "latest"], 2),
        ([GOOD, "--gpu-memory", "much"], 2),
        ([GOOD, "--gpus", "0"], 2),
        ([GOOD, "--model-config", GOOD], 2),
        ([GOOD, "--env", "/nowhere"], 2),
    ],
)
def test_the_exit_status_says_whether_something_is_blocked_or_wrong(arguments: list[str], status: int) -> None:
    done = migrate(*arguments)
    assert (done.exit_code, isinstance(done.exception, SystemExit | type(None))) == (status, True), done.output


def test_a_manifest_of_another_shape_is_refused_with_its_place() -> None:
    text = (CASES / "rendered_helm.yaml").read_text()
    line = "    matchLabels:\n      app.kubernetes.io/name: tgi\n      app.kubernetes.io/instance: tgi\n  template"
    assert line in text
    done = migrate("-", stdin=text.replace(line, "    matchLabels: tgi\n  template"))
    assert done.exit_code == 2
    assert "has another shape than kubernetes knows" in done.output
    assert "Traceback" not in done.output


def test_without_a_directory_the_files_are_printed_below_the_table() -> None:
    said = migrate(GOOD).stdout
    assert "MAX_TOTAL_TOKENS=8192" in said
    assert "--- compose.vllm.yaml\n" in said
    assert "--- pointsman.toml\n" in said
    assert "hf_not_a_real_token" not in said


def test_the_document_accounts_for_each_setting() -> None:
    made = document(GOOD)
    (launch,) = made["launches"]
    rows = {row["source"]: row for row in launch["rows"]}
    assert rows["MAX_TOTAL_TOKENS=8192"] == {
        "fate": "mapped",
        "source": "MAX_TOTAL_TOKENS=8192",
        "place": f"{GOOD}:8",
        "target": "--max-model-len 8192",
        "why": "",
        "enforced_by": "",
    }
    assert rows["PAYLOAD_LIMIT=8000000"]["enforced_by"] == "gateway: server.max_body"
    assert launch["arguments"][0] == "google/gemma-2-9b-it"
    assert made["engine"] == {"name": "vllm", "version": "0.32", "checked": "0.32"}
    assert (made["status"], sum(made["counts"].values())) == (0, len(launch["rows"]))
    assert "hf_not_a_real_token" not in json.dumps(made)


def test_the_next_commands_are_printed_in_their_order(tmp_path: Path) -> None:
    out = tmp_path / "new"
    steps = document(GOOD, "--out", str(out))["next"]
    assert [step.split(" ")[:2] for step in steps] == [
        ["docker", "compose"],
        ["pointsman", "check"],
        ["pointsman", "serve"],
        ["pointsman", "doctor"],
        ["pointsman", "compat"],
        ["pointsman", "experiment"],
    ]
    assert steps[0] == f"docker compose -f {GOOD} -f {out}/compose.vllm.yaml up -d"


def test_the_files_are_written_once_and_never_over_others(tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert document(GOOD, "--out", str(out))["files"] == [str(out / "compose.vllm.yaml"), str(out / "pointsman.toml")]
    (out / "pointsman.toml").write_text("mine")
    again = migrate(GOOD, "--out", str(out))
    assert again.exit_code == 2
    assert "pointsman.toml: it is there already" in again.output
    assert (out / "pointsman.toml").read_text() == "mine"


def test_several_files_and_stdin_are_one_migration() -> None:
    stdin = "docker run --gpus 1 ghcr.io/huggingface/text-generation-inference:3 --model-id m"
    made = document(GOOD, "-", stdin=stdin)
    assert [launch["form"] for launch in made["launches"]] == ["compose", "docker"]
    assert made["launches"][1]["place"] == "-:1"


def test_variables_are_filled_in_from_a_file(tmp_path: Path) -> None:
    env = tmp_path / "tgi.env"
    env.write_text("LLM_MODEL_ID=meta-llama/Llama-3.1-8B-Instruct\nNUM_SHARDS=2\n")
    (launch,) = document(str(CASES / "gaudi.compose.yaml"), "--env", str(env))["launches"]
    assert launch["arguments"][0] == "meta-llama/Llama-3.1-8B-Instruct"
    assert "--tensor-parallel-size 2" in " ".join(launch["arguments"])


def test_the_launchers_own_environment_may_come_from_that_file(tmp_path: Path) -> None:
    env = tmp_path / "tgi.env"
    env.write_text("MODEL_ID=m\nNUM_SHARD=1\n")
    (launch,) = document("-", "--env", str(env), stdin="text-generation-launcher --max-total-tokens 512")["launches"]
    assert launch["arguments"][:3] == ["m", "--tensor-parallel-size", "1"]


@pytest.mark.parametrize(("text", "version"), [("0.32", (0, 32)), ("v0.32.1", (0, 32)), ("1.0", (1, 0))])
def test_a_version_is_its_first_two_numbers(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


def test_another_version_than_the_one_checked_is_said() -> None:
    assert (
        "The table was checked against vLLM 0.32: for 0.28 use --check." in migrate(GOOD, "--to-version", "0.28").stdout
    )


# --- --check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "status"), [("", 0), ("unrecognized arguments: --x", 1)])
def test_what_vllms_parser_says_is_in_the_report(monkeypatch: pytest.MonkeyPatch, wrong: str, status: int) -> None:
    monkeypatch.setattr(parser_check, "installed_python", lambda: "python")
    monkeypatch.setattr(parser_check, "ask", lambda python, arguments: ParserVerdict("0.32.0", [wrong]))
    made = document(GOOD, "--check")
    said = made["launches"][0]["rows"][-1]
    assert (said["source"], made["status"]) == ("(all arguments)", status)
    assert said["why"] == f"the parser of vLLM 0.32.0 {f'refuses them: {wrong}' if wrong else 'takes them'}"


def test_without_a_vllm_the_check_ends_with_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = migrate(GOOD, "--check")
    assert done.exit_code == 3
    assert "--check needs an installed vLLM" in done.output


@pytest.mark.parametrize("python", ["/nowhere/python", sys.executable])
def test_a_python_without_vllm_is_an_error_and_no_traceback(python: str) -> None:
    with pytest.raises(NoVllm, match="--check: "):
        parser_check.ask(python, [["m"]])


def test_an_unreadable_file_is_a_line_on_stderr(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"services: \xff")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "migrate", str(bad)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"pointsman: {bad}: not a UTF-8 text (byte 10)\n"


def test_help_is_there() -> None:
    assert isinstance(main.commands["migrate"], click.Command)
    assert "account for every flag" in migrate("--help").stdout
