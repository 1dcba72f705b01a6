"""Compares the search graph with `transformers.generate` on the same GPU: requests per second and p99.

    python benchmarks/decode_gpu.py [--preset small] [--decoder-layers 2] [--batches 1,4,16,64] [--seconds 10]

Model, input and checks are those of `benchmarks/decode.py`. The graphs run as in the service
(`service.release.graphs`: tables bound to the GPU's memory, fp32 and fp16). It needs torch with CUDA and
`onnxruntime-gpu[cuda,cudnn]` instead of `onnxruntime`, in a separate environment. `--device cpu` runs without a GPU.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from decode import BEAMS, NUM_ITEMS, SHOWN, TOLERANCE, Run, generate_run, random_model, requests
from machine import machine

from isrf.method.recommend.recommender import REQUEST_INPUTS
from isrf.nn.search import BEAM_INPUTS, QUERY_INPUTS, ConstrainedSearch
from isrf.runtime.onnx_session import graph_signature
from offline.config import PRESETS, ModelConfig
from offline.stages.export_onnx.fp16 import halved
from offline.stages.export_onnx.stage import export_search
from service.release.graphs import open_graph
from service.settings import DeviceName


def graph_run(path: Path, inputs: tuple[torch.Tensor, ...], device: DeviceName) -> Run:
    """Returns a run of the graph, opened as the service opens it."""
    spec = graph_signature(path)
    content = np.fromfile(path, np.uint8)
    graph = open_graph(path.name, content, spec, device=device, tables=spec.inputs.keys() - REQUEST_INPUTS)
    arrays = {name: value.cpu().numpy() for name, value in zip((*QUERY_INPUTS, *BEAM_INPUTS), inputs, strict=True)}

    def run() -> Any:
        found = graph(arrays)
        return found["beam_items"][:, :SHOWN], found["beam_log_probs"][:, :SHOWN]

    return run


def throughput(run: Run, batch: int, seconds: float) -> dict[str, float]:
    """Measures one caller that sends batch after batch; each answer is copied back to the host's memory."""
    for _ in range(3):
        run()
    durations_s: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(durations_s) < 3:
        call_started = time.perf_counter()
        run()
        durations_s.append(time.perf_counter() - call_started)
    ms = np.array(durations_s) * 1000
    return {
        "requests_per_s": round(batch * len(durations_s) / sum(durations_s), 1),
        "p50_ms": round(float(np.percentile(ms, 50)), 2),
        "p99_ms": round(float(np.percentile(ms, 99)), 2),
    }


def agreement(runs: dict[str, Run]) -> dict[str, float]:
    """Returns each graph's differences from `generate`; exits if fp32 differs by more than the tolerance."""
    items, scores = runs["generate"]()
    found = {}
    for name in ("fp32", "fp16"):
        graph_items, graph_scores = runs[name]()
        shared = [len(set(a) & set(b)) / SHOWN for a, b in zip(items.tolist(), graph_items.tolist(), strict=True)]
        found[f"{name}_items_shared"] = round(float(np.mean(shared)), 3)
        found[f"{name}_largest_difference"] = round(float(np.abs(scores - graph_scores).max()), 5)
    if found["fp32_largest_difference"] > TOLERANCE:
        raise SystemExit(f"the graph's scores differ from generate's: {found}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["demo", "mini", "small"], default="small")
    parser.add_argument("--decoder-layers", type=int, help="default: the preset's; T5-small has 6")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=10.0, help="time per run and batch")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA GPU; use --device cpu to run without one")
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = False
    config = ModelConfig.model_validate(PRESETS[arguments.preset].get("model", {}))
    if arguments.decoder_layers:
        config = config.model_copy(update={"num_decoder_layers": arguments.decoder_layers})
    model, trie = random_model(config, PRESETS[arguments.preset].get("graph", {}).get("dim", 64))
    search = ConstrainedSearch(model, num_beams=BEAMS).eval()
    gpu = torch.cuda.get_device_name() if arguments.device == "cuda" else "none"
    result: dict[str, Any] = {
        "benchmark": "decode_gpu",
        "machine": machine() | {"gpu": gpu},
        "preset": arguments.preset,
        "decoder_layers": config.num_decoder_layers,
        "items": NUM_ITEMS,
        "beams": BEAMS,
    }
    with TemporaryDirectory() as folder, torch.inference_mode():
        fp32, fp16 = Path(folder, "fp32.onnx"), Path(folder, "fp16.onnx")
        export_search(search, trie, fp32)
        onnx.save_model(halved(onnx.load_model(os.fspath(fp32))), os.fspath(fp16))
        batches = [int(batch) for batch in arguments.batches.split(",")]
        inputs_by_batch = {batch: requests(search, trie, batch) for batch in batches}
        model.to(arguments.device)
        for batch, inputs in inputs_by_batch.items():
            device_inputs = tuple(value.to(arguments.device) for value in inputs)
            runs = {
                "generate": generate_run(model, trie, device_inputs, content=True),
                "fp32": graph_run(fp32, inputs, arguments.device),
                "fp16": graph_run(fp16, inputs, arguments.device),
            }
            agree = agreement(runs)
            speeds = {name: throughput(run, batch, arguments.seconds) for name, run in runs.items()}
            print(f"batch {batch}: {speeds}; {agree}", flush=True)
            result[f"batch_{batch}"] = {"speeds": speeds, "agreement": agree}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
