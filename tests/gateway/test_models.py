"""Which models there are, by which names, and which engines are asked for them."""

import re
from collections import Counter
from random import Random

import msgspec
import pytest

from backends.base import ServedModel
from gateway.config import Config, DeploymentConfig, ModelConfig
from gateway.http.errors import InvalidRequest, ModelNotFound, Unavailable
from gateway.routing import plan, plan_path
from gateway.upstream.models import Catalog, system_fingerprint
from tests.support.dialects import chat
from tests.support.harness import checked


def deployment(name: str, engine: str = "vllm", **more: object) -> DeploymentConfig:
    return DeploymentConfig(name=name, engine=engine, url=f"http://{name}", **more)  # type: ignore[arg-type]  # a table's row


def catalog(*models: ModelConfig) -> Catalog:
    return Catalog(checked(Config(models=list(models))), 1)


def hear(made: Catalog, **served: str) -> None:
    """Note what each deployment says it serves, names parted by blanks."""
    for endpoint in made.endpoints:
        if endpoint.name in served:
            own = "tgi" if endpoint.engine == "tgi" else ""
            endpoint.mark_up([ServedModel(name, own or name, 100) for name in served[endpoint.name].split()], -100.0)
    made.refresh()


def test_before_any_engine_has_answered_a_model_is_unavailable_and_not_unknown() -> None:
    made = catalog(ModelConfig(deployments=[deployment("a")]))
    with pytest.raises(Unavailable):
        made.find("x")
    hear(made, a="x")
    assert made.find("x").ready(0.0)
    with pytest.raises(ModelNotFound):
        made.find("y")


def test_engines_that_serve_the_same_name_are_one_model() -> None:
    made = catalog(ModelConfig(deployments=[deployment("a")]), ModelConfig(deployments=[deployment("b", "tgi")]))
    hear(made, a="x lora", b="x")
    assert {
        name: [candidate.endpoint.name for candidate in entry.candidates] for name, entry in made.routes.items()
    } == {
        "x": ["a", "b"],
        "lora": ["a"],
    }
    assert [candidate.model for candidate in made.routes["x"].candidates] == ["x", "tgi"]


def test_a_configured_name_covers_what_its_engines_call_it() -> None:
    one = deployment("a", model="org/own")
    made = catalog(ModelConfig(name="mine", aliases=["m"], deployments=[one, deployment("b"), deployment("c", "tgi")]))
    hear(made, a="base org/own", b="own other", c="third")
    assert [candidate.model for candidate in made.find("mine").candidates] == ["org/own", "own", "tgi"]
    assert made.find("m") is made.find("mine")
    with pytest.raises(ModelNotFound):
        made.find("org/own")


@pytest.mark.parametrize("name", ["", "tgi", "dummy"])
def test_with_one_model_the_names_that_mean_the_model_find_it(name: str) -> None:
    made = catalog(ModelConfig(deployments=[deployment("a")]))
    hear(made, a="x")
    assert made.find(name).name == "x"
    hear(made, a="x y")
    with pytest.raises(ModelNotFound):
        made.find(name)


def test_an_engine_that_went_away_keeps_its_model() -> None:
    made = catalog(ModelConfig(deployments=[deployment("a")]))
    hear(made, a="x")
    made.endpoints[0].mark_down("gone")
    made.refresh()
    assert not made.find("x").ready(0.0)
    assert len(plan(chat(), made.find("x"), None, 0.0, Random(1))) == 1


def test_the_first_engine_is_drawn_by_weight_and_those_that_are_down_are_left_out() -> None:
    made = catalog(
        ModelConfig(name="m", deployments=[deployment("a", weight=90), deployment("b", weight=10), deployment("c")])
    )
    hear(made, a="x", b="x", c="x")
    made.endpoints[2].mark_down("gone")
    random = Random(1)
    plans = [plan(chat(), made.find("m"), None, 0.0, random) for _ in range(1000)]
    firsts = Counter(candidates[0].endpoint.name for candidates in plans)
    assert 870 < firsts["a"] < 930
    assert firsts["a"] + firsts["b"] == 1000
    assert {len(candidates) for candidates in plans} == {2}


def test_what_one_engine_cannot_do_goes_to_the_others_alone_up_or_not() -> None:
    made = catalog(ModelConfig(name="m", deployments=[deployment("v"), deployment("t", "tgi")]))
    hear(made, v="x", t="x")
    made.endpoints[0].mark_down("gone")
    for _ in range(10):
        (candidate,) = plan(chat(top_k=1), made.find("m"), None, 0.0, Random(1))
        assert candidate.endpoint.name == "v"
    with pytest.raises(InvalidRequest) as raised:
        plan(chat(top_k=1), made.find("m"), "tgi", 0.0, Random(1))
    assert raised.value.param == "top_k"


def test_a_path_goes_to_the_engines_that_have_it() -> None:
    made = catalog(ModelConfig(name="m", deployments=[deployment("v"), deployment("t", "tgi")]))
    hear(made, v="x", t="x")
    assert [
        candidate.endpoint.name for candidate in plan_path("/v1/rerank", b"", made.find("m"), None, 0.0, Random(1))
    ] == ["v"]
    with pytest.raises(InvalidRequest, match="TGI"):
        plan_path("/v1/rerank", b"", made.find("m"), "tgi", 0.0, Random(1))


FACTS = ServedModel("m", "m", 100, identity=("sha", "3.3.6"))
OTHERS = {
    "engine": ("tgi", FACTS),
    "name": ("vllm", msgspec.structs.replace(FACTS, name="n")),
    "context": ("vllm", msgspec.structs.replace(FACTS, max_model_len=200)),
    "version": ("vllm", msgspec.structs.replace(FACTS, identity=("sha", "3.3.7"))),
    "checksum": ("vllm", msgspec.structs.replace(FACTS, identity=("sha2", "3.3.6"))),
}


def test_the_fingerprint_is_that_of_what_an_engine_says_of_itself() -> None:
    """Of two replicas that say the same it is the same."""
    own = system_fingerprint("vllm", FACTS)
    assert re.fullmatch("fp_[0-9a-f]{10}", own)
    assert own == system_fingerprint("vllm", msgspec.structs.replace(FACTS, model="called so here"))
    others = {what: system_fingerprint(*other) for what, other in OTHERS.items()}
    assert len({own, *others.values()}) == 1 + len(OTHERS), others


def test_a_new_version_of_an_engine_is_news_and_has_another_fingerprint() -> None:
    made = catalog(ModelConfig(deployments=[deployment("a")]))
    (endpoint,) = made.endpoints
    seen = []
    for identity in (("1",), ("1",), ("2",)):
        news = endpoint.mark_up([ServedModel("m", "m", 100, identity=identity)], 0.0)
        made.refresh()
        seen.append((news, made.find("m").candidates[0].system_fingerprint))
    assert [news for news, _ in seen] == [True, False, True]
    assert seen[0][1] == seen[1][1] != seen[2][1]
