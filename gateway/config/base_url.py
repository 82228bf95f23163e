"""How the URL of an engine is read, in each dialect. What follows a host is a base, below which the paths are asked.

    engine      given                                       asked
    vllm, tgi   http://host        http://host/v1           http://host/v1/chat/completions, http://host/health
    vllm, tgi   http://host/a      http://host/a/v1         http://host/a/v1/chat/completions, http://host/a/health
    openai      http://host        http://host/v1           http://host/v1/chat/completions
    openai      http://host/a/v3                            http://host/a/v3/chat/completions
    any         unix:///run/engine.sock                     the paths of `http://host`, through that Unix socket

A vLLM or a TGI has paths beside `/v1`, so its base is where all of them begin: a prefix of an ingress, or nothing. For
any other server it is what OpenAI's SDKs take as `base_url`, which stands for the `/v1` of the paths. A `/` at the end
changes nothing.
"""

from urllib.parse import urlsplit

VERSION = "/v1"
SOCKET = "unix"


def base_url(text: str, engine: str) -> str:
    """Return the base of a URL as it was given; the same for a base."""
    if urlsplit(text).scheme == SOCKET:
        return text
    text = text.rstrip("/")
    if engine != "openai":
        return text.removesuffix(VERSION).rstrip("/")
    return text if urlsplit(text).path else text + VERSION


def path_below(path: str, engine: str) -> str:
    """Return what is asked below the base for a path such as `/v1/models`."""
    return path.removeprefix(VERSION) if engine == "openai" else path
