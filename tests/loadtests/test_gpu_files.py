"""What the runs on a GPU make and collect: shapes of the models that they are named after, and what vLLM's log says."""

import json
import sys
from pathlib import Path

import pytest

from loadtests.gpu import make_model
from loadtests.gpu.collect import engines
from loadtests.gpu.make_model import parameters

LOG = """(EngineCore pid=77) INFO Loading weights took 2.73 seconds
(EngineCore pid=77) INFO Model loading took 13.76 GiB and 4.919203 seconds
(EngineCore pid=77) INFO torch.compile took 26.58 s in total
(EngineCore pid=77) INFO init engine (profile, create kv cache, warmup model) took 57.39 s (compilation: 26.58 s)
"""


@pytest.mark.parametrize(
    ("shape", "published", "vocabulary", "tables", "hidden"),
    [("1b", 1_235_814_400, 128_256, 1, 2048), ("8b", 8_030_261_248, 128_256, 2, 4096)],
)
def test_a_shape_has_the_parameters_of_the_model_it_is_named_after(
    shape: str, published: int, vocabulary: int, tables: int, hidden: int
) -> None:
    """Llama 3.2 1B's and 3.1 8B's, less what their larger vocabularies add."""
    assert parameters(shape) == published - tables * (vocabulary - make_model.LLAMA["vocab_size"]) * hidden


def test_a_config_alone_is_written_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    out = tmp_path / "model"
    monkeypatch.setattr(sys, "argv", ["make", str(out), "--tokenizer", str(tmp_path), "--config-only"])
    make_model.main()
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 16
    assert (out / "tokenizer.json").exists()


def test_an_engines_log_and_its_processes_are_read(tmp_path: Path) -> None:
    """An engine that never was ready has no time, and one without a log is left out."""
    (tmp_path / "base.log").write_text(LOG)
    (tmp_path / "memory.txt").write_text("77, 26348 MiB\n78, 5 MiB\n")
    times = "base 8100 launched 100.0\nlost 8101 launched 100.0\nbase 8100 ready 141.94\n"
    (tmp_path / "times.txt").write_text(times)
    assert engines(tmp_path) == {
        "base": {
            "weights_gib": 13.76,
            "weights_read_s": 2.73,
            "compile_s": 26.58,
            "engine_init_s": 57.39,
            "card_mib": [26348],
            "launch_to_ready_s": 41.9,
        }
    }
