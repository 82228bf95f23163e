"""What the record says, for people and scripts: by a gateway, by its command line, and by its metrics."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from gateway import config
from gateway.__main__ import main
from gateway.access.principal import Principal
from gateway.cli.exit_status import CommandFailed
from gateway.cli.experiment.parquet import write_parquet
from gateway.experiments.definition import define
from gateway.experiments.notes import EpochNote, Run
from gateway.experiments.record import Epoch, Record, rows
from gateway.experiments.report import ExperimentReport, report_of
from gateway.experiments.statistics.means import MeanSums
from gateway.experiments.statistics.scaled import scaled
from gateway.experiments.tally import ExperimentTally
from tests.support.experiments import NAME, Trial, settings, trial
from tests.support.harness import CHAT, STREAM, says, streamed

STREAMS = says(streamed(*STREAM))
STREAMED = CHAT | {"stream": True}
DAY = 86_400.0


def note(**more: Any) -> EpochNote:
    given: dict[str, Any] = {"buckets": 512, "stage": "50 %", "fingerprints": {"old": "1", "new": "1"}, "slots": {}}
    return EpochNote(**{"began": 0.0} | given | more)


def epoch(
    identity: str = "e", n: int = 4000, ratio: float = 1.0, seed: int = 1, began: float = 0.0, **more: Any
) -> Epoch:
    """Return an epoch of many small conversations, whose treatment takes `ratio` times as long to the first token."""
    random, tally = Random(seed), ExperimentTally()
    trees: dict[str, Any] = {}
    noted = note(**{"began": began} | more)
    for number in range(n):
        bucket = random.randrange(1024)
        arm = "treatment" if bucket < noted.buckets else "control"
        tally.count("n", arm)
        tally.once("unit", number, "unit", arm)
        scale = ratio if arm == "treatment" else 1.0
        for metric in ("ttft", "itl", "e2e"):
            tally.times["e", metric, arm].add(bucket, scaled(random.gauss(0.0, 0.3) + _log(scale)), 0)
        if number % 40 == 39:
            _add(trees, tally.take(number // 40).sums)
    deltas = tally.take()
    _add(trees, deltas.sums)
    _add(trees, {f"unit/{arm}": count for arm, count in trees["n"].items()})
    return Epoch(identity, noted, began + DAY, trees)


def _log(scale: float) -> float:
    return 0.0 if scale == 1.0 else 0.26236  # ln 1.3


def _add(tree: dict[str, Any], sums: Any) -> None:
    for field, by in sums.items():
        *path, last = field.removeprefix("e/").split("/")
        inner = tree
        for word in path:
            inner = inner.setdefault(word, {})
        inner[last] = inner.get(last, 0) + by


def told(*epochs: Epoch, **more: Any) -> ExperimentReport:
    """Return the report of some epochs; `more` are settings of the experiment."""
    (model,) = settings(("http://a", "http://b"), **more).models
    assert model.experiment is not None
    return report_of(Record(Run(define(model.experiment, model), 0.0), list(epochs)), model.experiment)


def test_equal_engines_at_equal_load_are_not_told_apart() -> None:
    report = told(epoch(n=20_000), primary=("ttft", "itl"), margin=0.1)
    assert {report.metrics[name].verdict for name in ("ttft", "itl", "e2e")} == {"not worse"}
    assert report.verdict == "success"
    assert not report.srm.mismatch
    ttft = report.metrics["ttft"]
    assert ttft.low is not None
    assert ttft.high is not None
    assert ttft.low < 1.0 < ttft.high


def test_a_slower_treatment_is_worse_and_the_experiment_failed() -> None:
    report = told(epoch(n=20_000, ratio=1.3), primary=("ttft", "itl"))
    assert (report.metrics["ttft"].verdict, report.verdict) == ("worse", "failure")
    assert report.metrics["ttft"].ratio == pytest.approx(1.3, rel=0.05)


@pytest.mark.parametrize(
    ("more", "obstacle"),
    [
        ({"buckets": 102}, "`slots` of the deployments is not given"),
        ({"buckets": 102, "slots": {"control": 8, "treatment": 8}}, "load for each slot differs"),
        ({"buckets": 0}, "no stage yet in which both arms had requests"),
        ({"n": 40}, "too few independent units"),
    ],
)
def test_what_cannot_be_compared_says_why(more: Any, obstacle: str) -> None:
    report = told(epoch(**more))
    assert report.metrics["ttft"].verdict == "not comparable"
    assert obstacle in " ".join(report.obstacles)
    assert report.verdict == "inconclusive"


def test_unequal_shares_with_slots_to_match_can_be_compared() -> None:
    report = told(epoch(n=20_000, buckets=256, slots={"control": 24, "treatment": 8}), margin=0.1)
    assert report.metrics["ttft"].verdict == "not worse"
    assert report.epochs[0].load_ratio == pytest.approx(1.0, rel=0.1)


def test_epochs_of_other_engines_are_not_pooled_and_that_is_said() -> None:
    before = epoch("a", n=20_000, ratio=1.3, fingerprints={"old": "1", "new": "0"})
    report = told(before, epoch("b", n=20_000, began=DAY), margin=0.1)
    assert report.metrics["ttft"].verdict == "not worse"
    assert [one.pooled for one in report.epochs] == [False, True]
    assert any("engine changed" in said for said in report.notes)


def test_an_engine_that_comes_back_is_compared_with_its_own_epochs() -> None:
    there = epoch("a", n=20_000)
    away = epoch("b", n=2_000, ratio=1.3, began=DAY / 4, fingerprints={"old": "1", "new": "2"})
    away = Epoch(away.id, away.note, DAY / 2, away.tree)
    report = told(there, away, margin=0.1)
    assert [one.pooled for one in report.epochs] == [True, False]
    assert report.metrics["ttft"].verdict == "not worse"


def test_an_arm_without_samples_and_an_experiment_that_has_not_begun_have_a_report() -> None:
    nothing: list[list[Epoch]] = [[], [Epoch("e", note(), 0.0, {})]]
    for epochs in nothing:
        report = told(*epochs)
        assert report.verdict == "inconclusive"
        assert report.metrics["errors"].ratio is None
        assert json.loads(msgspec.json.encode(report))["srm"]["mismatch"] is False


def test_sums_of_two_gateways_are_those_of_one() -> None:
    """What is told is whole numbers: added in any order, they are the same."""
    one, other, both = ExperimentTally(), ExperimentTally(), ExperimentTally()
    for number in range(200):
        for tally in ((one, other)[number % 2], both):
            tally.times["e", "ttft", "control"].add(number % 7, scaled(0.1 * number), scaled(1.0))
            tally.mean(("e", "pair", "ttft", str(number % 7)), 0.1 * number)
            tally.count("e", "n", "control")
    assert (one.take(1) + other.take(1)).sums == both.take(1).sums
    assert MeanSums.of(0.5) + MeanSums.of(1.5) == MeanSums.of(1.5) + MeanSums.of(0.5)


def test_every_number_is_exported_with_its_epoch() -> None:
    tree = {"n": {"control": 3}, "served": {"control": {"a/b": 3}}}
    (model,) = settings(("http://a", "http://b")).models
    assert model.experiment is not None
    record = Record(Run(define(model.experiment, model), 0.0), [Epoch("e", note(), 1.0, tree)])
    assert [(row["epoch"], row["field"], row["value"]) for row in rows(record)] == [
        ("e", "n/control", 3),
        ("e", "served/control/a/b", 3),
    ]


# --- of a gateway, and by the command line --------------------------------------------------------------------


def counted(tmp_path: Path) -> dict[str, Any]:
    """Return the setting by which a gateway keeps its record."""
    return {"experiments": config.ExperimentsConfig(file=str(tmp_path / "experiments.sqlite3"))}


async def with_requests(made: Trial) -> None:
    for number in range(6):
        await made.front.post(STREAMED | {"messages": [{"role": "user", "content": f"{number}"}]})
    await made.recorded()


async def test_a_gateway_tells_its_report_status_and_numbers_and_its_metrics_show_them(tmp_path: Path) -> None:
    async with trial(STREAMS, STREAMS, **counted(tmp_path)) as made:
        await with_requests(made)
        client = made.front.client
        report = (await client.get(f"/admin/experiments/{NAME}")).json()
        assert {"name", "verdict", "reason", "stage", "arms", "metrics", "parity", "srm"} <= report.keys()
        assert sum(arm["requests"] for arm in report["arms"].values()) == 6
        assert {"ratio", "low", "high", "verdict", "n"} <= report["metrics"]["ttft"].keys()
        assert {"per_1000_tokens", "self_per_1000_tokens", "hard", "prompt"} <= report["parity"].keys()
        (status,) = (await client.get("/admin/experiments")).json()["experiments"]
        assert (status["name"], status["verdict"]) == (NAME, "inconclusive")
        lines = (await client.get(f"/admin/experiments/{NAME}/export")).text.splitlines()
        assert sum(json.loads(line)["value"] for line in lines if json.loads(line)["field"].startswith("n/")) == 6
        assert (await client.get("/admin/experiments/none")).status_code == 404
        await made.front.services.figures.refresh()
        text = (await client.get("/metrics")).text
    assert f'pointsman_experiment_verdict{{experiment="{NAME}",verdict="inconclusive"}} 1.0' in text
    assert "pointsman_experiment_record_up 1.0" in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"host": "127.0.0.1.evil.example"}, 403),
    ],
)
async def test_without_keys_admin_is_for_this_machine_alone(headers: Any, status: int, tmp_path: Path) -> None:
    async with trial(STREAMS, STREAMS, **counted(tmp_path)) as made:
        assert (await made.front.client.get("/admin/experiments", headers=headers)).status_code == status


async def test_with_keys_admin_needs_an_administrators(tmp_path: Path) -> None:
    class Keys:
        def check(self, presented: str, now: float) -> Principal:
            return Principal(id=presented, admin=presented == "chief")

    async with trial(STREAMS, STREAMS, **counted(tmp_path)) as made:
        made.front.services.keyring = Keys()  # type: ignore[assignment]
        told = [
            (await made.front.client.get("/admin/experiments", headers=headers)).status_code
            for headers in ({}, {"authorization": "Bearer clerk"}, {"authorization": "Bearer chief"})
        ]
    assert told == [401, 403, 200]


async def test_a_store_that_cannot_be_read_is_said_and_no_gateway_fails_for_it() -> None:
    async with trial(STREAMS, STREAMS) as made:
        assert (await made.front.post(STREAMED)).status_code == 200
        answer = await made.front.client.get("/admin/experiments")
        assert answer.status_code == 503
        assert "record of the experiments cannot be read" in answer.json()["error"]["message"]


FILE = """
[[models]]
name = "tiny"
[[models.deployments]]
name = "old"
engine = "vllm"
url = "http://a"
[[models.deployments]]
name = "new"
engine = "vllm"
url = "http://b"
[models.experiment]
name = "old-to-new"
control = ["old"]
treatment = ["new"]
"""


async def test_the_commands_read_a_running_gateway_or_its_store(tmp_path: Path) -> None:
    file = tmp_path / "pointsman.toml"
    file.write_text(FILE)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["experiment", *arguments])

    async with trial(STREAMS, STREAMS, **counted(tmp_path)) as made:
        await with_requests(made)
        url = f"http://127.0.0.1:{made.front.port}"
        for place in (["--config", str(file)], ["--url", url]):
            told = await asyncio.to_thread(run, "report", NAME, *place, "--json")
            assert told.exit_code == 0, told.output
            assert sum(arm["requests"] for arm in json.loads(told.stdout)["arms"].values()) == 6
            shown = await asyncio.to_thread(run, "report", NAME, *place)
            assert "time to first token" in shown.stdout
            assert "inconclusive" in (await asyncio.to_thread(run, "status", *place)).stdout
            exported = await asyncio.to_thread(run, "export", NAME, *place)
            assert all(json.loads(line)["epoch"] for line in exported.stdout.splitlines())
            missing = await asyncio.to_thread(run, "report", "none", *place)
            assert (missing.exit_code, missing.stderr) == (1, "pointsman: there is no experiment called none\n")


def test_wrong_usage_and_nobody_to_ask_have_their_statuses(tmp_path: Path) -> None:
    file = tmp_path / "pointsman.toml"
    file.write_text(FILE)
    (tmp_path / "none.toml").write_text(FILE.replace("[[models]]", '[experiments]\nfile = "x"\n[[models]]', 1))
    (tmp_path / "x").write_text("no database, and long enough not to be taken for an empty one" * 20)
    for arguments, status, words in (
        (["report", NAME], 2, "expected --url URL"),
        (["report", NAME, "--url", "http://127.0.0.1:1"], 3, "cannot be asked"),
        (["report", NAME, "--config", str(file)], 1, "no such file"),
        (["status", "--config", str(tmp_path / "none.toml")], 3, "not a database"),
        (["report", NAME, "--config", str(tmp_path / "gone.toml")], 2, "No such file"),
    ):
        done = CliRunner().invoke(main, ["experiment", *arguments])
        assert (done.exit_code, words in done.stderr) == (status, True), done.stderr


def test_parquet_is_written_by_pyarrow_and_its_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CommandFailed, match="export"):
        write_parquet([{"a": 1}], tmp_path / "x")
    written: list[Any] = []
    arrow, parquet = types.ModuleType("pyarrow"), types.ModuleType("pyarrow.parquet")
    arrow.Table = types.SimpleNamespace(from_pylist=list)  # type: ignore[attr-defined]
    parquet.write_table = lambda table, file: written.append((table, file))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    write_parquet([{"a": 1}], tmp_path / "x")
    assert written == [([{"a": 1}], tmp_path / "x")]
