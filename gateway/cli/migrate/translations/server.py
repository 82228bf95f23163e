"""Where it listens, who may ask, what it tells, how it ends."""

import json

from gateway.cli.migrate.fates import Facts, Fate, Translated


def port(value: str, facts: Facts) -> Translated:
    """The port of the new server: in a container the same, on one host another, as both run side by side."""
    if facts.port == value:
        return Translated(Fate.SAME, ("--port", value))
    return Translated(Fate.MAPPED, ("--port", facts.port), why=f"both run beside each other; TGI keeps {value}")


def default_port(facts: Facts) -> Translated:
    """TGI's 3000 (80 in its image); vLLM's is 8000."""
    return Translated(Fate.DEFAULT, ("--port", facts.port), why="vLLM's default is 8000")


def api_key(value: str, facts: Facts) -> Translated:
    """A secret: it goes by the environment, into no file."""
    why = "set VLLM_API_KEY, and for the gateway POINTSMAN_TGI_API_KEY and POINTSMAN_VLLM_API_KEY. vLLM guards "
    why += "/v1, /v2 and /inference alone: let nobody but the gateway reach the rest (/tokenize, /metrics …)"
    return Translated(Fate.MAPPED, environment={"VLLM_API_KEY": value}, limits={"api_key": True}, why=why)


def cors_origin(value: str, facts: Facts) -> Translated:
    """The origins whose pages may ask; the gateway, which they ask now, must know them too."""
    origins = value.split(",")
    why = "written for the gateway, too: browsers ask it now"
    arguments = ("--allowed-origins", json.dumps(origins))
    return Translated(Fate.MAPPED, arguments, limits={"cors_origins": origins}, why=why)


def default_cors(facts: Facts) -> Translated:
    """TGI lets pages of any origin ask."""
    why = "TGI lets pages of any origin ask, vLLM and the gateway of none: if browsers ask, set server.cors_origins"
    return Translated(Fate.LOST, why=why, enforced_by="gateway: no page may ask")


def otlp_service_name(value: str, facts: Facts) -> Translated:
    """OpenTelemetry's own variable."""
    return Translated(Fate.MAPPED, environment={"OTEL_SERVICE_NAME": value})


def json_output(value: str, facts: Facts) -> Translated:
    """vLLM 0.32 has a formatter for it; before, only a file of Python's logging could do it."""
    if facts.version < (0, 32):
        return Translated(Fate.LOST, why="this vLLM needs a logging file for it (VLLM_LOGGING_CONFIG_PATH)")
    return Translated(Fate.MAPPED, ("--logging-config", '{"formatter": "json"}'), why="other fields than TGI's")


def trust_remote_code(value: str, facts: Facts) -> Translated:
    """The same switch."""
    return Translated(Fate.SAME, ("--trust-remote-code",))


def usage_stats(value: str, facts: Facts) -> Translated:
    """vLLM's are on or off."""
    if value == "on":
        return Translated(Fate.DROPPED, why="on is vLLM's default; the figures go to vLLM's project")
    why = "" if value == "off" else "vLLM has no such level: off"
    return Translated(Fate.MAPPED, environment={"VLLM_NO_USAGE_STATS": "1"}, why=why)


def termination(value: str, facts: Facts) -> Translated:
    """vLLM's default cuts what is in flight at once."""
    if facts.version < (0, 18):
        return Translated(
            Fate.LOST, why="this vLLM cuts what is in flight; the gateway's own streams end with an error"
        )
    return Translated(Fate.MAPPED, ("--shutdown-timeout", value), limits={"termination": value})


def default_termination(facts: Facts) -> Translated:
    """TGI's 90 seconds."""
    made = termination("90", facts)
    if made.fate is Fate.LOST:
        return made
    why = "vLLM's default is 0: what is in flight is cut at once"
    return Translated(Fate.DEFAULT, made.arguments, limits=made.limits, why=why)
