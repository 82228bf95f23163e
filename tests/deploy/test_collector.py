"""The collector's configuration. Its form alone: a collector is in no package registry that the tests can rely on."""

from tests.deploy.promtool import DEPLOY, read

COLLECTOR = read(DEPLOY / "otel/collector.yaml")
KINDS = ("receivers", "processors", "exporters")


def test_what_is_configured_is_what_the_pipelines_use() -> None:
    for kind in KINDS:
        used = {name for pipeline in COLLECTOR["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(COLLECTOR[kind])


def test_spans_are_refused_for_want_of_memory_before_anything_else_is_done() -> None:
    assert COLLECTOR["service"]["pipelines"]["traces"]["processors"][0] == "memory_limiter"


def test_spans_come_by_grpc_and_http_at_the_ports_of_otlp() -> None:
    taken = COLLECTOR["receivers"]["otlp"]["protocols"]
    assert {name: one["endpoint"] for name, one in taken.items()} == {"grpc": "0.0.0.0:4317", "http": "0.0.0.0:4318"}


def test_its_file_is_on_the_volume() -> None:
    mounted = read(DEPLOY / "compose.yaml")["services"]["otel-collector"]["volumes"]
    assert "traces:/traces" in mounted
    assert COLLECTOR["exporters"]["file"]["path"].startswith("/traces/")
