"""TGI's image and its compose file: each variable is one of its launcher's, and options of a profile can be given."""

import re
import shlex

import pytest
from click.testing import CliRunner

from backends.tgi.launcher_flags import BY_NAME, BY_VARIABLE
from gateway.__main__ import main
from tests.deploy.promtool import DEPLOY, read

DOCKERFILE = (DEPLOY / "tgi" / "Dockerfile").read_text()
SERVICE = read(DEPLOY / "tgi" / "compose.yaml")["services"]["tgi"]
BESIDE = {"HF_TOKEN", "PREFIX_CACHING", "ATTENTION"}  # read by the launcher without a flag of their own


def variables() -> dict[str, str]:
    """Return what the image's ENV sets."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, re.M)
    return dict(pair.split("=", 1) for pair in shlex.split(block.replace("\\\n", " ")))


@pytest.mark.parametrize(("name", "value"), variables().items())
def test_each_variable_of_the_image_is_a_flag_of_tgis_and_its_value_fits(name: str, value: str) -> None:
    kind = BY_VARIABLE[name].kind
    assert {"whole": value.isdigit(), "switch": value in {"true", "false"}}.get(kind, True)
    assert not BY_VARIABLE[name].choices or value in BY_VARIABLE[name].choices


def test_the_container_is_reached_where_the_image_listens() -> None:
    (published,) = SERVICE["ports"]
    assert published.startswith("127.0.0.1:")
    assert published.rpartition(":")[2] == variables()["PORT"]
    assert f"127.0.0.1:{variables()['PORT']}/health" in DOCKERFILE


def test_the_image_is_one_of_tgis_last_releases() -> None:
    (version,) = re.findall(r"^FROM \S+/text-generation-inference:(\S+)$", DOCKERFILE, re.M)
    assert version.startswith("3.3.")
    assert SERVICE["image"] == f"pointsman-tgi:{version}"


def test_what_compose_passes_on_the_launcher_reads() -> None:
    assert set(SERVICE["environment"]) == BESIDE


def test_the_options_of_a_dry_run_are_what_compose_takes() -> None:
    """Cut from the line as the file's head says: options alone, each a flag of the launcher's."""
    (script,) = re.findall(r"sed '(s/[^']+)'", (DEPLOY / "tgi" / "compose.yaml").read_text())
    pattern = script.split("/")[1]
    done = CliRunner().invoke(main, ["engine", "tgi", "--model", "m/m", "--profile", "prefix-cache", "--dry-run"])
    words = shlex.split(re.sub(pattern, "", done.stdout))
    assert words[:2] == ["--model-id", "m/m"]
    assert all(word in BY_NAME for word in words if word.startswith("-"))
