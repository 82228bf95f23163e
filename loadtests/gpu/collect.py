"""One JSON file a subject of what the runs in this folder wrote: `python -m loadtests.gpu.collect OUT RESULTS`.

OUT holds the folders of the runs (profiles, quality, batching, parallel, gateway…); RESULTS gets
`DATE-gpu-SUBJECT.json`, each with the machine, the versions, the commit and the command. Memory and load times are read
from vLLM's logs and from `nvidia-smi`'s list of processes.
"""

import argparse
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOUND = {
    "weights_gib": r"Model loading took ([0-9.]+) GiB",
    "weights_read_s": r"Loading weights took ([0-9.]+) seconds",
    "compile_s": r"torch.compile took ([0-9.]+) s",
    "engine_init_s": r"init engine .* took ([0-9.]+) s",
}
PROCESS = re.compile(r"\((?:EngineCore|Worker_TP[0-9]+) pid=([0-9]+)\)")


def engine(log: Path, memory: dict[str, int], times: dict[str, float]) -> dict[str, Any]:
    """Return what one engine's log says, and what the card says that its processes hold."""
    text = log.read_text(errors="replace")
    told: dict[str, Any] = {}
    for name, pattern in FOUND.items():
        if found := re.search(pattern, text):
            told[name] = float(found[1])
    told["card_mib"] = [memory[pid] for pid in sorted(set(PROCESS.findall(text))) if pid in memory]
    if (name := log.stem) in times:
        told["launch_to_ready_s"] = round(times[name], 1)
    return told


def engines(folder: Path) -> dict[str, Any]:
    """Return all engines of a run by name."""
    lines = (folder / "memory.txt").read_text().splitlines() if (folder / "memory.txt").exists() else []
    memory = {pid: int(used.split()[0]) for pid, used in (line.split(", ") for line in lines)}
    times: dict[str, float] = {}
    for line in (folder / "times.txt").read_text().splitlines():
        name, _, what, at = line.split()
        times[name] = times.get(name, 0.0) + float(at) * (1 if what == "ready" else -1)
    ready = {name: value for name, value in times.items() if value > 0}
    return {name: engine(folder / f"{name}.log", memory, ready) for name in times if (folder / f"{name}.log").exists()}


def read(folder: Path, *patterns: str) -> dict[str, Any]:
    """Return the JSON files of a run by name."""
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return {file.stem: json.loads(file.read_text()) for file in files if file.stat().st_size}


def sizes(file: Path) -> dict[str, int]:
    """Return the bytes on disk of each model, as `du` wrote them."""
    return {Path(line.split("\t")[1]).name: int(line.split("\t")[0]) for line in file.read_text().splitlines()}


def subjects(out: Path) -> dict[str, dict[str, Any]]:
    """Return what there is to say, by subject."""
    return of_quantization(out / "profiles", out / "quality") | of_serving(out)


def of_quantization(profiles: Path, quality: Path) -> dict[str, dict[str, Any]]:
    """Return what there is to say of fewer bits: their speed and memory, and their quality."""
    return {
        "quantization": {
            "command": "loadtests/gpu/profiles.sh TOKENIZER WORK OUT",
            "model": "Llama 3.1 8B's shape (hidden 4096, 32 layers) with random weights and a vocabulary of 49,152",
            "engines": engines(profiles),
            "disk_bytes": sizes(profiles / "disk.txt"),
            **read(profiles, "throughput-*.json", "latency-*.json"),
        },
        "quality": {
            "command": "loadtests/gpu/quality.sh TOKENIZER WORK OUT",
            "model": "hidden 768, 12 layers, 114 M parameters; trained there for 2.3 minutes on Python's source",
            "training": [
                line
                for line in (quality / "train.log").read_text().splitlines()
                if "s  step" in line or "tokens" in line
            ],
            **read(quality, "quality.json"),
        },
    }


def of_serving(out: Path) -> dict[str, dict[str, Any]]:
    """Return what there is to say of batching, caching, tensor parallelism and the gateway."""
    return {
        "batching": {
            "command": "loadtests/gpu/batching.sh TOKENIZER WORK OUT",
            "model": "Llama 3.2 1B's shape with random weights and a vocabulary of 49,152",
            **read(out / "batching", "static.json", "offline.json", "flex-*.json", "direct-*.json"),
        },
        "caching": {
            "command": "loadtests/gpu/profiles.sh, loadtests/gpu/through_the_gateway.sh",
            "model": "prefix: Llama 3.1 8B's shape; zipf: Llama 3.2 1B's shape; random weights",
            **read(out / "profiles", "prefix.json"),
            **read(out / "gateway", "zipf.json"),
        },
        "parallelism": {
            "command": "loadtests/gpu/tensor_parallel.sh TOKENIZER WORK OUT",
            "model": "32b: Qwen2.5 32B's shape; 1b: Llama 3.2 1B's; random weights and a vocabulary of 49,152",
            "engines": engines(out / "parallel"),
            **read(out / "parallel", "*b-?-tp?.json"),
        },
        "gateway": {
            "command": "loadtests/gpu/through_the_gateway.sh MODEL OUT",
            "model": "Llama 3.2 1B's shape with random weights and a vocabulary of 49,152; 3 GiB for keys and values",
            "answers_of_8_tokens": read(out / "gateway", "whole.json", "streamed.json", "zipf.json"),
            "answers_of_11_tokens": read(out / "gateway2", "whole.json", "streamed.json"),
        },
    }


def main() -> None:
    """Write the files that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder with the runs' folders")
    parser.add_argument("results", type=Path)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--versions", required=True)
    parser.add_argument("--commit", default="", help="that the runs were started from; the present one if absent")
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat())
    options = parser.parse_args()
    ask = ["git", "rev-parse", "--short", "HEAD"]
    commit = options.commit or subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    head = {"date": options.date, "machine": options.machine, "versions": options.versions, "commit": commit}
    for name, told in subjects(options.out).items():
        file = options.results / f"{options.date}-gpu-{name}.json"
        file.write_text(json.dumps(head | told, indent=1) + "\n")


if __name__ == "__main__":
    main()
