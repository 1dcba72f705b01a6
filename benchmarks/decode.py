"""Compares the speed of the search graph with `transformers.generate`: same weights, same input, one run.

    python benchmarks/decode.py [--preset small] [--decoder-layers 2] [--threads 1] [--rounds 15]

The model has the preset's size, random weights, and 12,101 items with random semantic IDs (4 levels of 256 codes). It
reads histories of 20 items (25 positions) and decodes with 20 beams; the benchmark compares the first 10 items. The
search decodes only beams that still have a choice, so the shape of the trie matters. The codes are drawn from a skewed
distribution that gives about as many prefixes of each length as Amazon Beauty has (256, 7,975, 11,548).

`generate` runs T5's encoder, decoder and key-value cache from `transformers`, with `prefix_allowed_tokens_fn` over
prepared lists and renormalised scores. Our decoder's logits have a second term (the content below each prefix), which
plain `generate` does not have. A logits processor adds it, over all beams at once and from the same packed tables, so
that both give the same answer. "codes alone" is `generate` without that processor, and shows its cost. The graphs also
return the dense path's best items, `generate` does not; their cost counts against the graphs. The benchmark checks
every answer: fp32 must return `generate`'s items in the same order (except near ties) with the same scores. For int8 it
prints the agreement.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from machine import machine
from numpy.typing import NDArray
from transformers import LogitsProcessor, LogitsProcessorList, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput

from isrf.method.trie import TrieTables, build_trie
from isrf.nn.model import IsrfModel, ItemParts, ModelSpec, StackSpec
from isrf.nn.search import BEAM_INPUTS, QUERY_INPUTS, ConstrainedSearch, SearchTensors
from isrf.runtime.onnx_session import open_session
from offline.config import PRESETS, ModelConfig
from offline.stages.export_onnx.int8 import quantised
from offline.stages.export_onnx.stage import export_search, search_inputs

NUM_ITEMS, LEVELS, CODES = 12_101, 4, 256
BEAMS, SHOWN, HISTORY = 20, 10, 20
TEXT_DIM = 128
BATCHES = (1, 16)
TOLERANCE = 1e-3

Run = Callable[[], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Answers one batch; returns items (B, 10) int64 and log-probabilities (B, 10) float32."""

SKEW = (0.0, 0.97, 1.1, 0.5)
"""Per level: the share of the r-th most frequent code is proportional to r to the power of minus this number."""


def draw_ids() -> NDArray[np.int32]:
    """Returns random distinct semantic IDs, (N, L) int32."""
    rng, found = np.random.default_rng(0), np.zeros((0, LEVELS), dtype=np.int32)
    shares = [np.arange(1, CODES + 1) ** -power for power in SKEW]
    while len(found) < NUM_ITEMS:
        drawn = [rng.choice(CODES, NUM_ITEMS - len(found), p=share / share.sum()) for share in shares]
        found = np.unique(np.concatenate([found, np.stack(drawn, axis=1).astype(np.int32)]), axis=0)
    return rng.permutation(found)


def random_model(config: ModelConfig, graph_dim: int) -> tuple[IsrfModel, TrieTables]:
    """Returns a model with random weights, and the trie of random distinct semantic IDs."""
    torch.manual_seed(0)
    ids = draw_ids()
    spec = ModelSpec(
        num_items=NUM_ITEMS,
        text_dim=TEXT_DIM,
        graph_dim=graph_dim,
        explicit_dim=graph_dim,
        group_dim=graph_dim,
        num_levels=LEVELS,
        codebook_size=CODES,
        history_length=config.history_length,
        num_prompts=config.num_prompts,
        item_id_dropout=config.item_id_dropout,
        stacks=StackSpec(
            d_model=config.width,
            d_kv=config.width // config.num_heads,
            d_ff=config.ff_width,
            num_heads=config.num_heads,
            num_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_decoder_layers,
            dropout_rate=config.dropout,
        ),
    )
    parts = ItemParts(
        text=torch.nn.functional.normalize(torch.randn(NUM_ITEMS, TEXT_DIM), dim=1),
        graph=torch.randn(NUM_ITEMS, graph_dim) / graph_dim**0.5,
        semantic_ids=torch.from_numpy(ids.astype(np.int64)),
        known=torch.ones(NUM_ITEMS, dtype=torch.bool),
    )
    model = IsrfModel(spec, parts).eval().requires_grad_(False)
    model.node_adapters.normal_(std=0.02)
    return model, build_trie(ids, CODES)


class Generator(T5ForConditionalGeneration):
    """`transformers`' own T5 over one vocabulary of all codes (0 starts, 1 + level · C + code), with our weights."""

    def __init__(self, model: IsrfModel) -> None:
        stacks = model.spec.stacks.model_dump()
        config = T5Config(vocab_size=1 + LEVELS * CODES, eos_token_id=None, decoder_start_token_id=0, **stacks)
        super().__init__(config)
        self.encoder, self.decoder = model.encoder, model.decoder
        self.isrf = [model]  # in a list, so that torch does not register its modules here
        self.heads = model.code_vectors().flatten(0, 1)
        self.queries = self.states = torch.zeros(0)

    def forward(
        self,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> Any:
        """Runs one decoding step: reads all beams' last tokens and the cache, returns the logits of every code."""
        (model,), states = self.isrf, encoder_outputs.last_hidden_state
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            prompts = model.spec.num_prompts + 2
            self.queries = model.query(states, attention_mask[:, prompts:].bool())
            embedded = model.start(self.queries)
        else:
            embedded = torch.nn.functional.embedding(decoder_input_ids[:, -1:] - 1, self.heads)
        step = self.decoder(
            inputs_embeds=embedded,
            encoder_hidden_states=states,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=True,
        )
        self.states = step.last_hidden_state[:, -1]
        logits = self.states @ self.heads.T * model.spec.width**-0.5 + model.code_bias.flatten()
        logits = torch.nn.functional.pad(logits, (1, 0))
        return Seq2SeqLMOutput(logits=logits[:, None], past_key_values=step.past_key_values)


class ContentTerm(LogitsProcessor):
    """Adds the search's second term to each code's score: the content query times the child node's vector."""

    def __init__(self, generator: Generator, trie: TrieTables, node_vectors: torch.Tensor) -> None:
        self._generator, self._trie, self._vectors = generator, trie, node_vectors
        device = node_vectors.device
        self._code, self._start = (
            torch.from_numpy(table).to(device) for table in (trie.trie_code, trie.trie_child_start)
        )
        self._nodes = nodes_of(trie)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        level = input_ids.shape[1] - 1
        device = scores.device
        nodes = torch.tensor([self._nodes.get(tuple(prefix), 0) for prefix in input_ids[:, 1:].tolist()], device=device)
        children = self._start[nodes][:, None] + torch.arange(int(self._trie.trie_places[level]), device=device)
        exists = children < self._start[nodes + 1][:, None]
        children = torch.where(exists, children, 0)
        generator = self._generator
        content_query = generator.isrf[0].content_query(generator.queries, generator.states, level=level)
        added = (torch.nn.functional.embedding(children, self._vectors) @ content_query[:, :, None])[:, :, 0]
        tokens = torch.where(exists, 1 + level * CODES + self._code[children], 0)
        return scores.scatter_add(1, tokens, added * exists)


def nodes_of(trie: TrieTables) -> dict[tuple[int, ...], int]:
    """Returns the trie node of every prefix of tokens."""
    nodes: dict[tuple[int, ...], int] = {(): 0}
    paths: list[tuple[int, ...]] = [()]
    for node, path in enumerate(paths):  # the list grows during the loop: children follow their parents in order
        for child in range(trie.trie_child_start[node], trie.trie_child_start[node + 1]):
            paths.append((*path, 1 + len(path) * CODES + int(trie.trie_code[child])))
            nodes[paths[-1]] = child
    return nodes


def generate_run(model: IsrfModel, trie: TrieTables, inputs: tuple[torch.Tensor, ...], *, content: bool) -> Run:
    """Returns a run of `transformers.generate` on the search's inputs."""
    tensors = dict(zip((*QUERY_INPUTS, *BEAM_INPUTS), inputs, strict=True))
    generator = Generator(model).eval()
    nodes = nodes_of(trie)
    allowed: dict[int, list[int]] = {}
    for path, node in nodes.items():
        first, stop = trie.trie_child_start[node], trie.trie_child_start[node + 1]
        allowed[node] = (1 + len(path) * CODES + trie.trie_code[first:stop]).tolist()
    first_leaf = len(trie.trie_code) - NUM_ITEMS
    term = LogitsProcessorList([ContentTerm(generator, trie, tensors["node_vectors"])] if content else [])

    def run() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        source, mask = model.source(
            tensors["item_inputs"][tensors["history"]],
            tensors["history_mask"],
            tensors["explicit"],
            tensors["group"],
            tensors["task"],
        )
        found = generator.generate(
            inputs_embeds=source,
            attention_mask=mask.long(),
            num_beams=BEAMS,
            num_return_sequences=SHOWN,
            max_new_tokens=LEVELS,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=True,
            renormalize_logits=True,
            prefix_allowed_tokens_fn=lambda _, prefix: allowed[nodes[tuple(prefix[1:].tolist())]],
            logits_processor=term,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        leaves = [nodes[tuple(sequence)] - first_leaf for sequence in found.sequences[:, 1:].tolist()]
        items = trie.leaf_items[leaves].reshape(-1, SHOWN)
        return items, found.sequences_scores.reshape(-1, SHOWN).cpu().numpy()

    return run


def graph_run(path: Path, inputs: tuple[torch.Tensor, ...], threads: int) -> Run:
    """Returns a run of the graph in ONNX Runtime, opened as the service opens it."""
    session = open_session(path, threads=threads)
    arrays = {name: value.numpy() for name, value in zip((*QUERY_INPUTS, *BEAM_INPUTS), inputs, strict=True)}

    def run() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        found = dict(zip(SearchTensors._fields, session.run(None, arrays), strict=True))
        return found["beam_items"][:, :SHOWN], found["beam_log_probs"][:, :SHOWN]

    return run


def requests(search: ConstrainedSearch, trie: TrieTables, batch: int) -> tuple[torch.Tensor, ...]:
    """Returns the search's inputs for a batch of random requests."""
    spec = search.model.spec
    generator = torch.Generator().manual_seed(batch)
    return search_inputs(
        search,
        trie,
        history=torch.randint(0, NUM_ITEMS, (batch, HISTORY), generator=generator),
        mask=torch.ones(batch, HISTORY, dtype=torch.bool),
        explicit=torch.randn(batch, spec.explicit_dim, generator=generator),
        group=torch.randn(batch, spec.group_dim, generator=generator),
        task=torch.zeros(batch, dtype=torch.int64),
    )


def compare(runs: dict[str, Run], rounds: int) -> dict[str, dict[str, float]]:
    """Returns medians of wall and CPU time in milliseconds; the runs alternate."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            wall_started, cpu_started = time.perf_counter(), time.process_time()
            run()
            wall[name].append((time.perf_counter() - wall_started) * 1000)
            cpu[name].append((time.process_time() - cpu_started) * 1000)
    return {
        name: {"ms": round(statistics.median(wall[name]), 1), "cpu_ms": round(statistics.median(cpu[name]), 1)}
        for name in runs
    }


def check(runs: dict[str, Run]) -> dict[str, float]:
    """Checks that fp32 answers as `generate` does; returns how far int8 differs from it."""
    items, scores = runs["generate"]()
    graph_items, graph_scores = runs["fp32"]()
    if np.abs(scores - graph_scores).max() > TOLERANCE:
        raise SystemExit(f"the graph's scores differ from generate's by {np.abs(scores - graph_scores).max()}")
    for row, column in zip(*np.nonzero(items != graph_items), strict=True):
        if np.abs(np.delete(scores[row], column) - scores[row, column]).min() > TOLERANCE:
            raise SystemExit(
                f"request {row}, rank {column}: generate returns {items[row]}, the graph {graph_items[row]}"
            )
    int8_items, int8_scores = runs["int8"]()
    shared = [len(set(a) & set(b)) / SHOWN for a, b in zip(items.tolist(), int8_items.tolist(), strict=True)]
    return {
        "fp32_largest_difference": float(np.abs(scores - graph_scores).max()),
        "int8_items_shared": round(statistics.mean(shared), 3),
        "int8_largest_difference": round(float(np.abs(scores - int8_scores).max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["demo", "mini", "small"], default="small")
    parser.add_argument("--decoder-layers", type=int, help="default: the preset's; T5-small has 6")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    config = ModelConfig.model_validate(PRESETS[arguments.preset].get("model", {}))
    if arguments.decoder_layers:
        config = config.model_copy(update={"num_decoder_layers": arguments.decoder_layers})
    graph_dim = PRESETS[arguments.preset].get("graph", {}).get("dim", 64)
    model, trie = random_model(config, graph_dim)
    search = ConstrainedSearch(model, num_beams=BEAMS).eval()
    result: dict[str, Any] = {
        "benchmark": "decode",
        "machine": machine() | {"threads": arguments.threads},
        "preset": arguments.preset,
        "decoder_layers": config.num_decoder_layers,
        "items": NUM_ITEMS,
        "beams": BEAMS,
        "positions": config.num_prompts + 2 + HISTORY,
    }
    print(f"{result['machine']}")
    with TemporaryDirectory() as folder, torch.inference_mode():
        fp32, int8 = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        export_search(search, trie, fp32)
        onnx.save_model(quantised(onnx.load_model(os.fspath(fp32))), os.fspath(int8))
        for batch in BATCHES:
            inputs = requests(search, trie, batch)
            runs = {
                "generate": generate_run(model, trie, inputs, content=True),
                "generate, codes alone": generate_run(model, trie, inputs, content=False),
                "fp32": graph_run(fp32, inputs, arguments.threads),
                "int8": graph_run(int8, inputs, arguments.threads),
            }
            agreement = check(runs)
            times = compare(runs, arguments.rounds)
            faster = {
                name: {key: round(times["generate"][key] / times[name][key], 2) for key in ("ms", "cpu_ms")}
                for name in ("fp32", "int8")
            }
            print(f"batch {batch}: {times}; times faster than generate {faster}; {agreement}")
            result[f"batch_{batch}"] = {"times": times, "faster": faster, "agreement": agreement}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
