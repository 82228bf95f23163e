"""The texts of tokens are kept as long as the deployment that told them, and no longer."""

import gc

from backends.base import ServedModel
from gateway.api.tgi.vocabularies import Vocabularies
from gateway.config import Config, DeploymentConfig, ModelConfig
from gateway.upstream.models import Candidate, Catalog
from tests.support.harness import checked


def of_pods(*addresses: str) -> Config:
    """Return a configuration as discovery makes it, with a deployment for each address."""
    deployments = [
        DeploymentConfig(name=f"v@{address}", engine="vllm", url="http://pods", address=address)
        for address in addresses
    ]
    return checked(Config(models=[ModelConfig(name="m", deployments=deployments)]))


def candidates(catalog: Catalog) -> list[Candidate]:
    for endpoint in catalog.endpoints:
        endpoint.mark_up([ServedModel("own", "own", 100)], 0.0)
    catalog.refresh()
    return catalog.routes["m"].candidates


def test_the_texts_of_a_pod_that_is_gone_go_with_it() -> None:
    catalog, known = Catalog(of_pods("10.0.0.1"), 1), Vocabularies()
    for last in range(2, 50):
        for candidate in candidates(catalog):
            known.of(candidate)[1] = "x"
        del candidate
        catalog.replace(of_pods(f"10.0.0.{last}"))
    gc.collect()
    assert len(known) == 0


def test_a_deployment_that_stays_keeps_its_texts_by_model() -> None:
    catalog, known = Catalog(of_pods("10.0.0.1", "10.0.0.2"), 1), Vocabularies()
    one, two = candidates(catalog)
    known.of(one)[1] = "x"
    known.of(two)[1] = "y"
    catalog.replace(of_pods("10.0.0.1"))
    (one,) = candidates(catalog)
    assert known.of(one) == {1: "x"}
    lora = Candidate(one.endpoint, "lora", 100)
    assert known.of(lora) == {}
