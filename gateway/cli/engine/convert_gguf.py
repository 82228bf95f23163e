"""Make an ordinary model of a Llama in a GGUF file: `python convert_gguf.py PACKAGES FILE.gguf FOLDER`.

Runs inside an engine's environment (transformers and torch); PACKAGES is a folder with the packages `gguf` and
`accelerate`, by which transformers reads the file. The weights are saved in bfloat16.
"""

# mypy: disable-error-code="import-not-found"

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Convert the file named on the command line."""
    packages, source, target = sys.argv[1:]
    sys.path.append(packages)
    os.environ["PYTHONPATH"] = packages
    convert(Path(source), Path(target))


def convert(source: Path, target: Path) -> None:
    """Save weights, configuration and tokenizer, with the chat template, into a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place, file = str(source.parent), source.name
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.bfloat16)
    said = {key: value for key, value in read.config.to_dict().items() if key not in {"quantization_config", "dtype"}}
    plain = LlamaForCausalLM(LlamaConfig(**said)).to(torch.bfloat16)  # without the traces of where it came from
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
    tokenizer.save_pretrained(target)
    (target / "chat_template.jinja").unlink(missing_ok=True)
    configuration = {  # by hand: transformers 4, which TGI uses, does not know the names of transformers 5
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "pad", "unk")},
        "model_max_length": plain.config.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.chat_template,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(configuration, indent=2))


if __name__ == "__main__":
    main()
