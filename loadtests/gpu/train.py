"""A small model that has learned something, for quality: `python -m loadtests.gpu.train OUT --tokenizer DIR`.

Trains the shape `small` of `make_model` on this Python's standard library and the packages beside it, source and
docstrings, in bfloat16 (weights in float32 while training), and saves it in bfloat16. One file in twenty of the
standard library is held out, chosen by a hash of its name: OUT/held-out.txt. Needs torch and transformers, and a GPU to
be quick.
"""

import argparse
import shutil
import sysconfig
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from loadtests.gpu.make_model import LLAMA, SHAPES, TOKENIZER

LENGTH = 1024  # tokens of a window
MOST = 60_000_000  # characters of text from the packages
PEAK = 1e-3  # the learning rate


def held_out(path: Path, root: Path) -> bool:
    """Say whether a file is kept for the test: the same on every machine."""
    return zlib.crc32(str(path.relative_to(root)).encode()) % 20 == 0


def sources(root: Path) -> Iterator[Path]:
    """Return a folder's Python files, in order."""
    return iter(sorted(path for path in root.rglob("*.py") if path.stat().st_size < 500_000))


def texts() -> tuple[list[str], list[str]]:
    """Return what to train on and what to hold out."""
    paths = sysconfig.get_paths()
    root = Path(paths["stdlib"])
    own = [path for path in sources(root) if not {"site-packages", "dist-packages", "test"} & set(path.parts)]
    train = [path.read_text(errors="ignore") for path in own if not held_out(path, root)]
    test = [path.read_text(errors="ignore") for path in own if held_out(path, root)]
    room = MOST
    for path in sources(Path(paths["purelib"])):
        if room <= 0:
            break
        train.append(path.read_text(errors="ignore"))
        room -= len(train[-1])
    return train, test


def tokens(found: list[str], tokenizer: Tokenizer) -> torch.Tensor:
    """Return texts as one row of tokens, each text ended."""
    ids = [one for text in tokenizer.encode_batch_fast(found) for one in (*text.ids, LLAMA["eos_token_id"])]
    return torch.tensor(ids, dtype=torch.int32)


def train(model: LlamaForCausalLM, ids: torch.Tensor, seconds: float, batch: int) -> None:
    """Train for so many seconds; the learning rate rises for 5 % of them and falls to nothing by their end."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = ids.to(device)
    ramp = torch.arange(LENGTH + 1, device=device)
    began, told, step = time.monotonic(), 0.0, 0
    while (share := (time.monotonic() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(share / 0.05, (1 - share) / 0.95)
        starts = torch.randint(len(ids) - LENGTH - 1, (batch, 1), device=device)
        window = ids[starts + ramp].long()
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(window[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{told - began:6.0f} s  step {step}  loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Train and save as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a folder with tokenizer.json, 49,152 tokens at most"
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=48, help="windows of 1,024 tokens a step")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    learned, test = texts()
    (options.out / "held-out.txt").write_text("\n".join(test))
    ids = tokens(learned, Tokenizer.from_file(str(options.tokenizer / "tokenizer.json")))
    print(f"{len(ids)} tokens to train on, {sum(map(len, test))} characters held out", flush=True)
    torch.manual_seed(1)
    config = LlamaConfig(**{name: value for name, value in (LLAMA | SHAPES["small"]).items() if name != "torch_dtype"})
    model = LlamaForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")
    train(model, ids, options.minutes * 60, options.batch)
    model.to(torch.bfloat16).save_pretrained(options.out)
    for name in TOKENIZER:
        if (options.tokenizer / name).exists():
            shutil.copy(options.tokenizer / name, options.out)


if __name__ == "__main__":
    main()
