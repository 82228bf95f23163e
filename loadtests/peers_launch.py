"""How each gateway that `loadtests.peers` compares is started, in front of one engine, with what it does by default.

A peer is found where its own installation puts it, and left out where it is not installed.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.soak_stage import free_port

NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server {address}; keepalive 256; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://engine; proxy_http_version 1.1;
    proxy_set_header Connection ""; proxy_buffering off; }} }} }}
"""
LITELLM = """model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "{url}/v1", api_key: none}}
"""


@dataclass(frozen=True)
class Peer:
    """A gateway to start: its command line, and the headers that its requests need."""

    command: list[str]
    headers: dict[str, str] = field(default_factory=dict)


def pointsman(url: str, port: int, folder: Path) -> Peer:
    """Return this gateway, with its metrics and its request log."""
    return Peer([sys.executable, "-m", "gateway", "serve", "--port", str(port), "--vllm", url])


def litellm(url: str, port: int, folder: Path) -> Peer | None:
    """Return LiteLLM's proxy."""
    (folder / "litellm.yaml").write_text(LITELLM.format(url=url))
    program = shutil.which("litellm")
    if not program:
        return None
    # It refuses to start without a key, and fetches a list of prices unless told not to.
    settings = ["env", "LITELLM_MASTER_KEY=sk-loadtests", "LITELLM_LOCAL_MODEL_COST_MAP=True"]
    flags = ["--config", str(folder / "litellm.yaml"), "--port", str(port)]
    return Peer([*settings, program, *flags], {"authorization": "Bearer sk-loadtests"})


def vllm_router(url: str, port: int, folder: Path) -> Peer | None:
    """Return vLLM's router, in Rust."""
    program = shutil.which("vllm-router")
    flags = ["--worker-urls", url, "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    return Peer([program, *flags]) if program else None


def sglang_router(url: str, port: int, folder: Path) -> Peer | None:
    """Return SGLang's router, in Rust."""
    program = shutil.which("sglang-router")
    flags = ["--worker-urls", url, "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    return Peer([program, "launch", *flags]) if program else None


def portkey(url: str, port: int, folder: Path) -> Peer | None:
    """Return Portkey's gateway, in JavaScript, if npm has it installed globally."""
    npm = shutil.which("npm")
    root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False).stdout if npm else ""
    start = Path(root.strip()) / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not start.is_file():
        return None
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{url}/v1", "authorization": "Bearer none"}
    return Peer(["node", str(start), f"--port={port}", "--headless"], headers)


def nginx(url: str, port: int, folder: Path) -> Peer | None:
    """Return nginx as a plain reverse proxy that does not buffer."""
    text = NGINX.format(folder=folder, address=url.removeprefix("http://"), port=port)
    (folder / "nginx.conf").write_text(text)
    program = shutil.which("nginx")
    return Peer([program, "-c", str(folder / "nginx.conf")]) if program else None


PEERS: dict[str, Callable[[str, int, Path], Peer | None]] = {
    "pointsman": pointsman,
    "litellm": litellm,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "portkey": portkey,
    "nginx": nginx,
}
