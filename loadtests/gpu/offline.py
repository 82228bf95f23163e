"""Batch inference without a server: vLLM's `LLM` over a file of requests.

    python -m loadtests.gpu.offline MODEL FILE --out RESULT [--go FILE] [--engine '{"max_num_seqs": 256}']

The file is in OpenAI's batch format (`make_batch`), so that `loadtests.batch` can send the same through a gateway. With
--go it loads the model, and begins when that file is there: a run can wait for its turn.
"""

import argparse
import json
import time
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    """Answer the file as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--go", type=Path)
    parser.add_argument("--engine", type=json.loads, default={}, help="more arguments of vLLM's LLM, as JSON")
    options = parser.parse_args()
    bodies = [json.loads(line)["body"] for line in options.file.read_text().splitlines()]
    llm = LLM(options.model, **options.engine)
    said = [body["messages"] for body in bodies]
    wanted = [SamplingParams(temperature=0, max_tokens=body["max_tokens"], ignore_eos=True) for body in bodies]
    llm.chat(said[:8], wanted[:8], use_tqdm=False)
    print("ready", flush=True)
    while options.go and not options.go.exists():
        time.sleep(0.2)
    began = time.perf_counter()
    answers = llm.chat(said, wanted, use_tqdm=False)
    seconds = time.perf_counter() - began
    count = sum(len(answer.outputs[0].token_ids) for answer in answers)
    told = {"answered": len(answers), "tokens": count, "seconds": round(seconds, 3)}
    options.out.write_text(json.dumps(told | {"tokens_per_second": round(count / seconds, 1)}) + "\n")


if __name__ == "__main__":
    main()
