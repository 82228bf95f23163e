"""`pointsman doctor`: over the two simulators on real ports, over scripted engines that say anything, over none."""

import asyncio
import io
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest
from rich.console import Console

from backends.base import ServedModel
from backends.sim import parse_fault
from gateway import config
from gateway.cli.doctor import diagnose
from gateway.cli.doctor.ask import EngineConnection
from gateway.cli.doctor.aspects import Question
from gateway.cli.doctor.examine import Side
from gateway.cli.doctor.heard import EngineAnswer, Heard, read, tokens, words
from gateway.cli.doctor.judge import Finding, Severity, findings
from gateway.cli.doctor.progress import INTERVAL, Lines
from gateway.cli.doctor.questions import PLAIN, QUESTIONS, WITH_TOOL
from gateway.cli.doctor.show import Report, document, status, tables
from tests.support.clock import Clock
from tests.support.harness import checked, configured, cuts, engine, hangs, head, says, whole
from tests.support.processes import become
from tests.support.simulators import simulated

PATIENCE = 30.0  # seconds, for engines that answer
HASTY = 0.8  # for those that may not


async def report(vllm: str = "", tgi: str = "", patience: float = PATIENCE) -> Report:
    """Examine engines that are behind one name."""
    [made] = await diagnose(configured(vllm, tgi), patience=patience)
    return made


async def alone(kind: str, url: str, patience: float = PATIENCE) -> Report:
    """Examine one engine."""
    return await report(vllm=url, patience=patience) if kind == "vllm" else await report(tgi=url, patience=patience)


def found(made: Report) -> dict[str, Finding]:
    return {f"{one.area}: {one.check}": one for one in made.findings}


async def test_two_simulators_are_compared_and_what_is_evened_out_is_said() -> None:
    async with simulated("vllm") as vllm, simulated("tgi", max_top_n=20, max_batch=4) as tgi:
        made = await report(vllm=vllm, tgi=tgi)
    assert [side.trouble for side in made.sides] == ["", ""]
    by_name = found(made)
    assert by_name["engine: version"].said == {"vllm": "0.32.0", "tgi": "3.3.6-dev0"}
    for check in ("prompt: plain", "prompt: several turns", "prompt: unicode", "context: length in tokens"):
        assert by_name[check].severity is Severity.OK, by_name[check]
    for check in (
        "parameters: top_p 1",
        "parameters: stop, a text",
        "parameters: two choices",
        "parameters: presence_penalty 0",
        "parameters: negative seed",
        "structured: format text",
        "prompt: text in parts",
        "answers: five prompts at once",
        "errors: temperature 3",
        "errors: unknown model",
        "errors: an error, streamed",
    ):
        assert by_name[check].severity is Severity.HANDLED, by_name[check]
        assert by_name[check].does
    assert "422" in by_name["parameters: top_p 1"].said["tgi"]
    assert by_name["parameters: presence_penalty 0"].said == {"vllm": "same text", "tgi": "different text"}
    assert by_name["parameters: frequency_penalty 0.5"].does.startswith("Sent to vllm; pinned to tgi: 400")
    assert by_name["answers: greedy texts"].does.startswith("3 of 3 equal")
    assert status([made]) == int(any(one.severity is Severity.BROKEN for one in made.findings))


async def test_what_breaks_a_client_is_broken_and_says_what_to_do() -> None:
    async with (
        simulated("vllm", tools=False, max_model_len=2048) as vllm,
        simulated("tgi", max_top_n=5, max_stops=2) as tgi,
    ):
        made = await report(vllm=vllm, tgi=tgi)
    by_name = found(made)
    for check, advice in (
        ("context: length in tokens", "--max-total-tokens"),
        ("logprobs: top_logprobs 20", "--max-top-n-tokens 20"),
        ("limits: stop strings", "--max-stop-sequences 4"),
    ):
        assert by_name[check].severity is Severity.BROKEN, by_name[check]
        assert advice in by_name[check].does
    assert status([made]) == 1


async def test_a_vllm_without_a_tool_parser_is_broken_alone_and_evened_out_beside_a_tgi() -> None:
    async with simulated("vllm", tools=False) as vllm, simulated("tgi", max_top_n=20) as tgi:
        alone_, beside = await report(vllm=vllm), await report(vllm=vllm, tgi=tgi)
    auto = found(alone_)["tools: tool_choice auto"]
    assert (auto.severity, "--tool-call-parser" in auto.does) == (Severity.BROKEN, True)
    assert found(beside)["tools: tool_choice auto"].severity is Severity.HANDLED


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_one_engine_is_enough(kind: str) -> None:
    async with simulated(kind, max_top_n=20) as url:
        made = await alone(kind, url)
    assert len(made.findings) > 30
    assert all(set(one.said) == {kind} for one in made.findings)
    penalty = found(made)["parameters: frequency_penalty 0.5"]
    assert penalty.severity is (Severity.OK if kind == "vllm" else Severity.DIFFERS)


async def test_engines_that_serve_other_names_are_two_models_unless_they_are_put_behind_one() -> None:
    async with simulated("vllm", model="a") as vllm, simulated("tgi", model="b") as tgi:
        urls = config.from_urls({"vllm": [vllm], "tgi": [tgi]}, "", {})
        apart = checked(config.Config(models=urls))
        [made] = await diagnose(apart, patience=PATIENCE)
        behind_one = await report(vllm=vllm, tgi=tgi)
    assert found(made)["engine: models"].severity is Severity.DIFFERS
    assert "--model" in found(made)["engine: models"].does
    assert found(behind_one)["engine: models"].severity is Severity.HANDLED


async def test_an_engine_that_wants_a_key_is_asked_with_it_or_cannot_be_asked() -> None:
    async with simulated("vllm", api_key="secret") as vllm:
        without = await report(vllm=vllm)
        [made] = await diagnose(
            config.Config(
                models=[
                    config.ModelConfig(
                        name="m",
                        deployments=[config.DeploymentConfig(name="v", engine="vllm", url=vllm, api_key="secret")],
                    )
                ]
            ),
            patience=PATIENCE,
        )
    assert "POINTSMAN_VLLM_API_KEY" in without.sides[0].trouble
    assert status([without]) == 3
    assert found(made)["engine: auth"].said == {"v": "a key"}
    assert "secret" not in json.dumps(document([made]))


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
@pytest.mark.parametrize(
    "fault", ["overload", "error", "cut", "garbage", "half-event", "html", "stall", "slow-first:9"]
)
async def test_an_engine_that_does_not_answer_a_chat_cannot_be_asked(kind: str, fault: str) -> None:
    async with simulated(kind, faults=(parse_fault(fault),)) as url:
        made = await alone(kind, url, HASTY)
    assert made.sides[0].trouble
    assert made.findings == []
    assert status([made]) == 3


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_faults_that_come_and_go_end_in_findings(kind: str) -> None:
    faults = tuple(parse_fault(f"{name}@0.1") for name in ("error", "garbage", "html", "cut", "wrong-dialect"))
    async with simulated(kind, faults=faults, seed=3) as url:
        made = await alone(kind, url)
    json.dumps(document([made]))


async def test_a_dead_engine_does_not_hide_what_the_other_says() -> None:
    async with simulated("tgi", max_top_n=20) as tgi:
        made = await report(vllm="http://127.0.0.1:1", tgi=tgi)
    assert [bool(side.trouble) for side in made.sides] == [True, False]
    assert len(made.findings) > 30
    assert status([made]) == 3


async def test_the_other_engine_at_a_url_is_recognized() -> None:
    async with simulated("vllm") as vllm, simulated("tgi") as tgi:
        made = await report(vllm=tgi, tgi=vllm)
    assert [side.trouble for side in made.sides] == [
        "this is a TGI, not vLLM: use --tgi for it",
        "this is a vLLM, not TGI: use --vllm for it",
    ]


@pytest.mark.parametrize(
    "script",
    [
        says(whole(b"<html>Welcome to nginx!</html>", kind="text/html")),
        says(whole({"choices": "none"})),
        says(whole({"choices": [{"message": 3, "index": None}]})),
        says(
            whole(
                {"choices": [{"message": {"content": 3, "tool_calls": [4]}, "logprobs": {"content": [5]}}], "usage": 6}
            )
        ),
        says(whole([1, 2])),
        says(whole(b"\xff\xfe")),
        says(whole({"error": {"message": ["no"]}}, status="500 Internal Server Error")),
        says(whole(b"", status="302 Found", headers="location: http://127.0.0.1:1/\r\n")),
        says(b"SSH-2.0-OpenSSH\r\n"),
        says(head()),
        cuts(b""),
        cuts(whole({"choices": []})[:-4]),
        hangs(),
        hangs(head() + b"5\r\n"),
    ],
)
@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_an_engine_may_say_anything(script: Any, kind: str) -> None:
    async with engine(script) as behind:
        made = await alone(kind, behind.url, HASTY)
    json.dumps(document([made]))
    assert status([made]) in (0, 1, 3)


async def test_no_generation_is_left_running_when_an_engine_stalls() -> None:
    async with simulated("vllm", faults=(parse_fault("stall:2@0.1"),), seed=5) as vllm:
        made = await report(vllm=vllm, patience=0.4)
        assert made.sides[0].unanswered or made.sides[0].trouble
        assert not any("504" in one.does for one in made.findings)

        async def left() -> float:
            return running(await metrics(vllm))

        await become(left, 0)


async def metrics(url: str) -> bytes:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/metrics")).content


def running(body: bytes) -> float:
    line = next(line for line in body.decode().splitlines() if line.startswith("vllm:num_requests_running{"))
    return float(line.rsplit(" ", 1)[1])


# --- the pure parts -------------------------------------------------------------------------------------------


def side(name: str, question: Question, raw: EngineAnswer, via: EngineAnswer) -> Side:
    place = QUESTIONS.index(question)
    return Side(name, name, "http://x", served=[ServedModel("m", "m", 1024)], raw={place: raw}, via={place: via})


def asked(check: str) -> Question:
    return next(question for question in QUESTIONS if question.check == check)


def count(number: int, *ids: int) -> EngineAnswer:
    return EngineAnswer(texts=("a",), prompt_tokens=number, ids=ids)


@pytest.mark.parametrize(
    ("check", "raw", "via", "severity"),
    [
        ("plain", [count(5, 1, 2), count(5, 1, 2)], [count(5), count(5)], Severity.OK),
        ("plain", [count(5, 1, 2), count(6, 1, 2)], [count(5), count(6)], Severity.BROKEN),
        ("plain", [count(5, 1, 2), count(5, 1, 3)], [count(5), count(5)], Severity.BROKEN),
        ("text in parts", [count(5, 1), count(6, 1)], [count(6), count(6)], Severity.HANDLED),
        ("with a tool", [count(5, 1), count(6, 1)], [count(5), count(6)], Severity.DIFFERS),
        ("top_p 1", [count(1), EngineAnswer(status=422, error="422 no")], [count(1), count(1)], Severity.HANDLED),
        ("top_p 1", [count(1), count(1)], [count(1), EngineAnswer(status=400, error="400 no")], Severity.BROKEN),
        (
            "temperature 3",
            [EngineAnswer(status=400, error="x")] * 2,
            [EngineAnswer(status=400, error="x")] * 2,
            Severity.OK,
        ),
        (
            "temperature 3",
            [EngineAnswer(status=400, error="x"), count(1)],
            [EngineAnswer(status=400, error="x")] * 2,
            Severity.HANDLED,
        ),
        (
            "temperature 3",
            [EngineAnswer(status=400, error="x")] * 2,
            [EngineAnswer(status=400, error="x"), count(1)],
            Severity.BROKEN,
        ),
        ("two choices", [count(1)] * 2, [EngineAnswer(texts=("a", "b"))] * 2, Severity.HANDLED),
        ("two choices", [count(1)] * 2, [EngineAnswer(texts=("a", "b")), count(1)], Severity.BROKEN),
    ],
)
def test_a_question_is_judged(check: str, raw: list[EngineAnswer], via: list[EngineAnswer], severity: Severity) -> None:
    question = asked(check)
    sides = [side(name, question, *both) for name, *both in zip(("vllm", "tgi"), raw, via, strict=True)]
    [finding] = [one for one in findings(sides, True) if one.check == check]
    assert finding.severity is severity


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        (Heard(trouble="no connection"), "no connection"),
        (Heard(502, {}, b"<html>Bad gateway</html>"), "502 an HTML page"),
        (Heard(401, {}, b""), "401"),
        (Heard(422, {}, b'{"error":"Input","error_type":"validation"}'), "422 Input"),
        (Heard(404, {}, b'{"detail":"Not Found"}'), "404 Not Found"),
        (Heard(400, {}, b'{"error":{"message":"a\\u001b[31mb\\nc"}}'), "400 a [31mb c"),
    ],
)
def test_an_error_is_a_line(heard: Heard, said: str) -> None:
    assert words(heard) == said


def failed(check: str, engine: str, error: str) -> str:
    question = asked(check)
    refusal = EngineAnswer(status=400, error=error)
    [finding] = [one for one in findings([side(engine, question, refusal, refusal)], True) if one.check == check]
    assert finding.severity is Severity.BROKEN
    return finding.does


@pytest.mark.parametrize(
    ("check", "engine", "error", "advice"),
    [
        (
            "tool_choice auto",
            "vllm",
            '400 "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "--tool-call-parser",
        ),
        ("tool_choice auto", "vllm", "400 the template raised an exception", ""),
        ("json_schema", "tgi", "422 Input validation error: grammar is not supported", "--disable-grammar-support"),
        ("json_schema", "tgi", "422 Input validation error: grammar is not valid", ""),
        ("top_logprobs 20", "tgi", "422 `top_n_tokens` must be >= 0 and <= 5. Given: 20", "--max-top-n-tokens 20"),
        ("top_logprobs 20", "vllm", "400 Requested sample logprobs of 21", "--max-logprobs 21"),
    ],
)
def test_advice_follows_from_what_was_seen(check: str, engine: str, error: str, advice: str) -> None:
    does = failed(check, engine, error)
    assert advice in does
    assert advice or does.endswith(f"{error}.")


@pytest.mark.parametrize(
    ("engines", "with_tool", "severity", "does"),
    [
        (["vllm"], (1, 2), Severity.BROKEN, 'tools_in_prompt = "always"'),
        (["vllm", "tgi"], (1, 2), Severity.HANDLED, "as TGI does"),
        (["vllm"], (1, 2, 3), Severity.OK, ""),
    ],
)
def test_a_template_that_leaves_tools_out_is_named(
    engines: list[str], with_tool: tuple[int, ...], severity: Severity, does: str
) -> None:
    sides = [side(name, PLAIN, count(2, 1, 2), count(2)) for name in engines]
    for one in sides:
        one.raw[QUESTIONS.index(WITH_TOOL)] = count(len(with_tool), *with_tool)
    [finding] = [one for one in findings(sides, True) if one.check == "chat template"]
    assert (finding.severity, set(finding.said)) == (severity, {"vllm"})
    assert does in finding.does


@pytest.mark.parametrize(
    ("finish", "ids", "why"),
    [
        ("length", (1, 2, 3), "It was cut by max_tokens."),
        ("stop", (1, 2), "leaves the tools out of the prompt"),
        ("stop", (1, 2, 3), "The model did not call the tool."),
    ],
)
def test_why_no_tool_was_called_is_what_was_seen(finish: str, ids: tuple[int, ...], why: str) -> None:
    question = asked("tool_choice required")
    answer = EngineAnswer(texts=("a",), finishes=(finish,))
    one = side("vllm", question, answer, answer)
    one.raw |= {QUESTIONS.index(PLAIN): count(2, 1, 2), QUESTIONS.index(WITH_TOOL): count(len(ids), *ids)}
    [finding] = [finding for finding in findings([one], True) if finding.check == question.check]
    assert why in finding.does


def test_what_was_not_answered_is_said_and_is_no_finding() -> None:
    question = asked("top_p 1")
    late = EngineAnswer(status=0, trouble="no response within 15 s")
    one = side("vllm", question, late, count(1))
    assert "parameters: top_p 1" in one.unanswered
    assert "top_p 1" not in [finding.check for finding in findings([one], True)]
    out = io.StringIO()
    Console(file=out, width=100).print(tables([Report("m", [one], findings([one], True))]))
    assert "no answer in time, so nothing is said about: " in " ".join(out.getvalue().split())


async def test_each_request_has_time_for_the_tokens_that_it_asks_for() -> None:
    """An engine of a tenth of a second a token answers a question that takes longer than the patience."""

    async def late(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.3)
        return httpx.Response(200, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(late), base_url="http://x") as client:
        hasty = EngineConnection(client, patience=0.05)
        patient = EngineConnection(client, patience=0.05, pace=0.1)
        assert (await hasty.post("/", {"max_tokens": 16})).trouble == "no response within 0.05 s"
        assert (await patient.post("/", {"max_tokens": 16})).status == 200


def test_progress_is_a_line_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines(3, out, clock)
    lines.advance()
    assert not out.getvalue()
    clock.now += INTERVAL
    lines.advance()
    lines.advance()
    assert out.getvalue() == "Asking the engines: 2 of 3 questions\n"


def test_an_error_inside_a_stream_is_one() -> None:
    heard = Heard(
        200, {}, b'data: {"error":{"message":"Model is overloaded","http_status_code":422}}\n\ndata: [DONE]\n\n'
    )
    assert read(heard, stream=True).error == "200, then an error event: Model is overloaded"


def test_token_ids_are_read_in_either_form() -> None:
    assert tokens(Heard(200, {}, b'{"tokens":[1,2],"count":2}'), "vllm") == EngineAnswer(prompt_tokens=2, ids=(1, 2))
    assert tokens(Heard(200, {}, b'{"tokenize_response":[{"id":1}]}'), "tgi") == EngineAnswer(prompt_tokens=1, ids=(1,))
    assert tokens(Heard(200, {}, b'{"tokenize_response":[{"id":null}]}'), "tgi") is None
    assert tokens(Heard(404, {}, b""), "vllm") is None


def test_every_question_is_small_and_has_a_name_of_its_own() -> None:
    assert all(0 < question.body["max_tokens"] <= 48 for question in QUESTIONS)
    assert all(0 < (question.twin or question.body)["max_tokens"] <= 48 for question in QUESTIONS)
    names = [(question.area, question.check) for question in QUESTIONS]
    assert len(set(names)) == len(names)


def test_the_table_fits_100_columns_and_the_document_has_its_shape() -> None:
    long = {"vllm": "x" * 300, "tgi": "y " * 200}
    made = Report(
        "m" * 80,
        [Side("vllm", "vllm", "http://" + "h" * 90, trouble="no connection"), Side("tgi", "tgi", "http://t")],
        [Finding(severity, "prompt", "plain " * 20, long, "z" * 200) for severity in Severity],
    )
    out = io.StringIO()
    Console(file=out, width=100).print(tables([made]))
    assert max(map(len, out.getvalue().splitlines())) <= 100
    shape = document([made])
    assert shape.keys() == {"models", "counts", "status"}
    assert shape["models"][0].keys() == {"model", "engines", "findings"}
    assert shape["models"][0]["engines"][0].keys() == {
        "name",
        "engine",
        "url",
        "version",
        "serves",
        "context",
        "trouble",
        "unanswered",
    }
    assert shape["models"][0]["findings"][0].keys() == {"severity", "area", "check", "said", "gateway"}
    assert shape["counts"] == {"ok": 1, "handled": 1, "differs": 1, "broken": 1}
    assert shape["status"] == 3


# --- as a user runs it ----------------------------------------------------------------------------------------


async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "doctor", *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)


async def test_exit_status_and_json() -> None:
    async with simulated("vllm") as vllm, simulated("tgi", max_top_n=5) as tgi:
        done = await run("--vllm", vllm, "--json")
        assert done.returncode == 1
        assert all(line.startswith("Asking the engines: ") for line in done.stderr.splitlines())
        made = json.loads(done.stdout)
        assert made["status"] == 1  # the simulator's model is one whose chat template knows no tools
        broken = [one["check"] for one in made["models"][0]["findings"] if one["severity"] == "broken"]
        assert broken == ["chat template"]
        done = await run("--vllm", vllm + "/v1", "--tgi", tgi + "/")
        assert done.returncode == 1
        assert "--max-top-n-tokens" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 100
    for arguments, expected in (
        (["--vllm", "http://127.0.0.1:1"], 3),
        (["--vllm", "http://xn--:1"], 3),
        (["--vllm", "http://x\x01:1"], 3),
        ([], 2),
        (["--vllm", "nonsense"], 2),
        (["--config", "missing.toml"], 2),
        (["--colour"], 2),
    ):
        done = await run(*arguments)
        assert done.returncode == expected, arguments
        assert "Traceback" not in done.stderr
