"""`[models.experiment]`: what is read, and every fault of it at once, with its place."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from gateway.config import Config, ConfigError, ConfigSource, ExperimentConfig, load

MODEL = """
[[models]]
name = "llama"
[[models.deployments]]
name = "old"
engine = "tgi"
url = "http://a"
weight = 90
[[models.deployments]]
name = "new"
engine = "vllm"
url = "http://b"
weight = 10
[[models.deployments]]
name = "spare"
engine = "vllm"
url = "http://c"
weight = 0
"""
EXPERIMENT = """
[models.experiment]
name = "move"
control = "tgi"
treatment = ["new", "spare"]
"""
GOOD = MODEL + EXPERIMENT
EXAMPLE = (Path(__file__).parents[3] / "deploy" / "pointsman.toml").read_text()


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(text, {})
    return raised.value.faults


def test_an_experiment_is_read_with_arms_by_engine_or_by_names() -> None:
    experiment = load(GOOD, {}).models[0].experiment
    assert experiment == ExperimentConfig(name="move", control="tgi", treatment=["new", "spare"])
    assert load(MODEL, {}).models[0].experiment is None


def test_the_example_shows_every_key_of_an_experiment_with_its_default() -> None:
    shown = EXAMPLE[EXAMPLE.index("# [models.experiment]") :].replace("\n# ", "\n").removeprefix("# ")
    written = tomllib.loads(shown)["models"]["experiment"]
    assert set(written) == set(ExperimentConfig.__struct_fields__)
    own = {name: written[name] for name in ("name", "control", "treatment")}
    assert msgspec.convert(written, ExperimentConfig) == ExperimentConfig(**own, slo_ttft=written["slo_ttft"])
    load(EXAMPLE.replace("\n# [models.experiment]", "\n[models.experiment]") + shown.partition("\n")[2], {})


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (GOOD.replace('"move"', '"a/b"'), "name", "letters, digits"),
        (GOOD.replace('name = "move"\n', ""), "name", "required"),
        (GOOD.replace('control = "tgi"', 'control = "openai"'), "control", "one of the model's engines (tgi, vllm)"),
        (GOOD.replace('control = "tgi"', "control = []"), "control", "at least one deployment"),
        (GOOD.replace('control = "tgi"', "control = 3"), "control", "expected str | array"),
        (GOOD.replace('"spare"]', '"spar"]'), "treatment", "no deployment spar"),
        (GOOD.replace('"spare"]', '"new"]'), "treatment", "new is named twice"),
        (GOOD.replace('["new", "spare"]', '["new", "old"]'), "treatment", "in the control, too: old"),
        (GOOD + 'unit = "user"', "unit", "invalid enum value 'user'"),
        (GOOD + 'unit = "key"', "unit", "auth.keys_file"),
        (GOOD + "shadow = 1.5", "shadow", "<= 1"),
        (GOOD + "shadow = 0.0", "primary", "shadow above 0"),
        (GOOD + "ramp = [25, 5]", "ramp", "larger than the one before"),
        (GOOD + "ramp = [5, 5]", "ramp", "larger than the one before"),
        (GOOD + "ramp = [0.05]", "ramp", "one bucket of 1024"),
        (GOOD + "ramp = [101]", "ramp", "to 100, got 101"),
        (GOOD + 'ramp = ["a"]', "ramp[0]", "expected float"),
        (GOOD + "ramp = []\npromote = true", "promote", "no stages"),
        (GOOD.replace("= 90", "= 0").replace("= 10", "= 0") + "ramp = []", "ramp", "they are all 0"),
        (GOOD + "alpha = 0.5", "alpha", "< 0.5"),
        (GOOD + "margin = -0.1", "margin", ">= 0"),
        (GOOD + "primary = []", "primary", "at least one metric"),
        (GOOD + 'primary = ["ttft", "ttft"]', "primary", "none twice"),
        (GOOD + 'primary = ["speed"]', "primary[0]", "invalid enum value 'speed'"),
        (GOOD + "slo_ttft = 0", "slo_ttft", "> 0"),
        (GOOD + 'stage_time = "soon"', "stage_time", "such as"),
        (GOOD + "stage_samples = 0", "stage_samples", ">= 1"),
        (GOOD + "shadow_in_flight = 0", "shadow_in_flight", ">= 1"),
        (GOOD + 'examples = "none"', "examples", "invalid enum value 'none'"),
        (GOOD + "shadows = 1", "shadows", "did you mean shadow?"),
    ],
)
def test_a_fault_names_its_place_and_what_was_expected(text: str, place: str, words: str) -> None:
    found = faults(text)
    assert any(fault.startswith(f"models[0].experiment.{place}: ") and words in fault for fault in found), found


def test_every_fault_is_reported_at_once() -> None:
    text = GOOD.replace('"move"', '""').replace('"spare"]', '"x"]') + 'ramp = [5, 1]\nstage_time = "x"\nunknown = 1'
    places = {fault.split(":")[0].removeprefix("models[0].experiment.") for fault in faults(text)}
    assert places == {"name", "treatment", "ramp", "stage_time", "unknown"}


def test_one_experiment_a_model_each_name_once_and_none_of_a_model_without_a_name() -> None:
    assert "models[0].experiment: expected a table" in faults(
        MODEL + EXPERIMENT.replace("[models.experiment]", "[[models.experiment]]")
    )
    other = GOOD.replace('"llama"', '"other"').replace('"old"', '"o"').replace('"new"', '"n"').replace('"spare"', '"s"')
    assert faults(GOOD + other) == ["models[1].experiment.name: the name move is taken by models[0].experiment.name"]
    assert faults(GOOD.replace('name = "llama"\n', "")) == ["models[0].name: required, as the model has an experiment"]


def test_the_record_lies_beside_the_file_or_in_redis(tmp_path: Path) -> None:
    assert ConfigSource(path=tmp_path / "p.toml").config(MODEL).experiments.file == str(
        tmp_path / "experiments.sqlite3"
    )
    assert Config().experiments.store == "sqlite"
    assert faults('[experiments]\nstore = "disk"\nfile = ""\nurl = "x"\n' + MODEL)[-3:] != []
