"""The series that a running gateway has, each with its labels: what dashboards and alerts can rely on."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from gateway import config
from gateway.observe.gauges import KINDS
from tests.support.harness import CHAT, MODEL, STREAM, checked, engine, gateway, says, streamed, until, whole
from tests.support.keys import GOOD, PLAIN, ring

NOWHERE = "redis://127.0.0.1:1/0"
LIMIT = 2  # requests


async def scrape() -> dict[str, set[str]]:
    """Run the gateway over a good engine and one that fails; return the names of its series, and their labels.

    There are a retry, streams, a cache whose Redis is away, and a request over its key's limit, so that each counter
    has counted. What tells of engines and the cache's faults is there without samples: its labels are those declared.
    """
    async with engine(says(whole({}, "500 x"))) as bad, engine(says(streamed(*STREAM))) as good:
        deployments = [
            config.DeploymentConfig(name=name, engine="vllm", url=url, weight=weight)
            for name, url, weight in (("bad", bad.url, 1.0), ("good", good.url, 1e-9))
        ]
        models = [config.ModelConfig(name=MODEL, deployments=deployments)]
        async with gateway(
            checked(config.Config(models=models, cache=config.CacheConfig(store="redis", url=NOWHERE)))
        ) as front:
            front.services.keyring = ring(msgspec.structs.replace(PLAIN, requests_per_minute=LIMIT))
            for _ in range(LIMIT + 1):
                await front.post(CHAT | {"stream": True}, x_api_key=GOOD)
            await until(lambda: not front.services.sweep.open)
            return read((await front.client.get("/metrics")).text)


def read(text: str) -> dict[str, set[str]]:
    """Return the names and labels of Prometheus' text format."""
    found = {name: set(kind.labels) for name, kind in KINDS.items() if f"# TYPE {name} " in text}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found
