"""The graph that is timed against `transformers.generate` answers what it answers."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import decode as module
import decode_gpu
import numpy as np
import onnx
import pytest
import torch

from isrf.method.trie import TrieTables
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from offline.config import ModelConfig
from offline.stages.export_onnx.fp16 import halved
from offline.stages.export_onnx.int8 import quantised
from offline.stages.export_onnx.stage import export_search


@pytest.fixture
def decode(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(module, "NUM_ITEMS", 600)
    return module


def exported(
    decode: ModuleType, folder: Path, name: str, form: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> tuple[IsrfModel, TrieTables, tuple[torch.Tensor, ...]]:
    """A random model with two requests; its search lies in the folder as fp32 and in another form."""
    model, trie = decode.random_model(ModelConfig(), 16)
    search = ConstrainedSearch(model, num_beams=decode.BEAMS).eval()
    export_search(search, trie, folder / "fp32.onnx")
    onnx.save_model(form(onnx.load_model(str(folder / "fp32.onnx"))), str(folder / f"{name}.onnx"))
    return model, trie, decode.requests(search, trie, 2)


def test_generate_and_the_graph_name_the_same_items_with_the_same_scores(decode: ModuleType, tmp_path: Path) -> None:
    with torch.inference_mode():
        model, trie, inputs = exported(decode, tmp_path, "int8", quantised)
        runs = {
            "generate": decode.generate_run(model, trie, inputs, content=True),
            "fp32": decode.graph_run(tmp_path / "fp32.onnx", inputs, 1),
            "int8": decode.graph_run(tmp_path / "int8.onnx", inputs, 1),
        }
        found = decode.check(runs)
        codes_alone, _ = decode.generate_run(model, trie, inputs, content=False)()
        assert found["fp32_largest_difference"] < 1e-4
        assert not np.array_equal(codes_alone, runs["generate"]()[0])  # the content term has a say
        with pytest.raises(SystemExit):
            decode.check({**runs, "fp32": runs["int8"]})


def test_the_gpus_way_agrees_with_generate_on_the_processor_too(decode: ModuleType, tmp_path: Path) -> None:
    with torch.inference_mode():
        model, trie, inputs = exported(decode, tmp_path, "fp16", halved)
        runs = {"generate": decode.generate_run(model, trie, inputs, content=True)}
        runs |= {name: decode_gpu.graph_run(tmp_path / f"{name}.onnx", inputs, "cpu") for name in ("fp32", "fp16")}
        found = decode_gpu.agreement(runs)
        assert found["fp32_items_shared"] == 1.0
        assert found["fp16_items_shared"] >= 0.8
        assert decode_gpu.throughput(runs["fp32"], 2, 0.0)["requests_per_s"] > 0
        with pytest.raises(SystemExit):
            decode_gpu.agreement({**runs, "fp32": lambda: (runs["fp32"]()[0], runs["fp32"]()[1] - 1)})
