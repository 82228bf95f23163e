"""Make the tiny model that the live tests serve: `python model.py DIR`, in seconds, with no model hub.

Runs inside an engine's own environment (transformers, tokenizers and torch), so the project never imports it. The
weights are random: its text means nothing, but it is a real Llama with a real tokenizer, and the seed is fixed, so
that every engine that serves it says the same at temperature 0. The special tokens have zero weights, so they never
win: greedy text runs on until the limit, and only a grammar makes the model end by itself.
"""

# mypy: disable-error-code="import-not-found"

import json
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

VOCABULARY = 4096
CONTEXT = 1024
BOS, EOS = "<|im_start|>", "<|im_end|>"
SPECIALS = [BOS, EOS, "<|endoftext|>"]
LAST_FILE = "tokenizer_config.json"  # a directory that has it is complete
CHAT_TEMPLATE = """
{%- if tools %}{{ '<|im_start|>system\n# Tools\n' }}
  {%- for tool in tools %}{{ tool | tojson }}{{ '\n' }}{%- endfor %}
  {{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}
  {%- if message['content'] %}{{ message['content'] }}{%- endif %}
  {%- for call in message['tool_calls'] or [] %}
    {{- '\n<tool_call>\n' }}{{ call['function'] | tojson }}{{ '\n</tool_call>' }}
  {%- endfor %}
  {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"""


def main() -> None:
    """Make the model in the directory named on the command line, unless it is there already."""
    directory = Path(sys.argv[1])
    if (directory / LAST_FILE).exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        save_weights(Path(work))
        save_tokenizer(Path(work))
        for name in sorted(os.listdir(work), key=LAST_FILE.__eq__):
            os.replace(Path(work) / name, directory / name)


def save_tokenizer(directory: Path) -> None:
    """A byte-level BPE trained on the standard library: `tokenizer.json` and its configuration."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    tokenizer.train([str(source) for source in sources], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    configuration = {  # written by hand: transformers 4, which TGI uses, does not know the names of transformers 5
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": SPECIALS[2],
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / LAST_FILE).write_text(json.dumps(configuration, indent=2))


def save_weights(directory: Path) -> None:
    """A two-layer Llama of 0.9 million parameters in float32; wide weights, so that greedy text varies."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=336,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            initializer_range=0.2,
            tie_word_embeddings=True,
            bos_token_id=SPECIALS.index(BOS),
            eos_token_id=SPECIALS.index(EOS),
            pad_token_id=2,
        )
    ).float()
    with torch.no_grad():
        model.get_input_embeddings().weight[: len(SPECIALS)] = 0
    model.save_pretrained(directory)


if __name__ == "__main__":
    main()
