"""Measures training over a large catalogue: memory and time of a step, and what an epoch comes to.

    python benchmarks/train_large.py --items 1000000 --users 200000 [--steps 10] [--parts model,lightgcn,ids]

The shop is drawn from a seed, eight training events a user, so seven samples. Each part runs in a process of its own:
`model` (steps of the encoder-decoder, the refresh of its node vectors), `lightgcn` (one epoch over so many samples as
`--steps` batches hold), `ids` (semantic IDs: k-means and the assignment). Prints the machine and one JSON line with CPU
seconds, as other programs may share the cores, and the peak of resident memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

from isrf.method.interest import unit_rows
from isrf.method.semantic_ids import assign_semantic_ids
from isrf.method.trie import build_trie
from isrf.nn.lightgcn import Interactions, LightGCNSettings
from isrf.nn.lightgcn_training import train_lightgcn
from isrf.nn.model import SEQUENTIAL, ItemParts
from isrf.nn.siblings import Siblings
from offline.cli import configured
from offline.config import RunConfig
from offline.stages.semantic_ids.stage import train_codebooks
from offline.stages.train.batches import take
from offline.stages.train.build import new_model
from offline.stages.train.loop import NODE_REFRESH_STEPS
from offline.stages.train.objective import FULL_SOFTMAX_ITEMS, batch_losses
from offline.stages.train.optimiser import RowAdamW, clip_gradients
from offline.stages.train.samples import TrainingSamples

EVENTS_PER_USER = 8


def measure_model(config: RunConfig, num_items: int, num_users: int, steps: int) -> dict[str, float]:
    """CPU seconds of a step and of a refresh of the node vectors, and of an epoch of every user's samples."""
    rng, device = np.random.default_rng(config.seed), torch.device("cpu")
    width, batch_size = config.graph.dim, config.train.batch_size
    codes = _semantic_ids(rng, num_items, config)
    parts = ItemParts(
        text=torch.from_numpy(_rows(rng, num_items, config.embed.dim)),
        graph=torch.from_numpy(_rows(rng, num_items, width)),
        semantic_ids=torch.from_numpy(codes.astype(np.int64)),
        known=torch.ones(num_items, dtype=torch.bool),
    )
    model = new_model(config, parts, explicit_dim=width, group_dim=width).train()
    siblings = Siblings.of(build_trie(codes, config.semantic_ids.codebook_size), device)
    count = steps * batch_size
    length = rng.integers(1, EVENTS_PER_USER, count)
    samples = TrainingSamples(
        users=np.arange(count),
        history=_items(rng, num_items, (count, config.model.history_length)).astype(np.int32),
        length=length,
        target=_items(rng, num_items, (count,)),
        explicit=_rows(rng, count, width),
        group=_rows(rng, count, width),
        weight=np.ones(count, dtype=np.float32),
    )
    sampled = num_items > FULL_SOFTMAX_ITEMS
    model.item_ids.sparse = sampled
    optimiser = RowAdamW(model.parameters(), lr=config.train.learning_rate, weight_decay=config.train.weight_decay)
    began, nodes = time.process_time(), None
    if sampled:
        with torch.no_grad():
            nodes = model.node_vectors(siblings, model.item_vectors())
    refresh_s = time.process_time() - began
    began = time.process_time()
    for first in range(0, count, batch_size):
        optimiser.zero_grad(set_to_none=True)
        batch = take(samples, np.arange(first, first + batch_size), SEQUENTIAL, device)
        losses = batch_losses(model, batch, siblings, config.train, torch.Generator().manual_seed(first), nodes=nodes)
        losses.total.backward()  # type: ignore[no-untyped-call]
        clip_gradients(model.parameters(), config.train.clip_norm)
        optimiser.step()
    step_s = (time.process_time() - began) / steps
    epoch_steps = -(-num_users * (EVENTS_PER_USER - 1) // batch_size)
    epoch_s = epoch_steps * step_s + epoch_steps / NODE_REFRESH_STEPS * refresh_s
    return {"step_s": step_s, "refresh_s": refresh_s, "epoch_steps": epoch_steps, "epoch_h": epoch_s / 3600}


def measure_lightgcn(config: RunConfig, num_items: int, num_users: int, steps: int) -> dict[str, float]:
    """CPU seconds of an epoch and of its steps: all samples where `steps` is 0, else larger batches of all samples."""
    rng = np.random.default_rng(config.seed)
    users = np.repeat(np.arange(num_users), EVENTS_PER_USER)
    items = _items(rng, num_items, (len(users),))
    num_samples = num_users * (EVENTS_PER_USER - 1)
    settings = LightGCNSettings(
        dim=config.graph.dim,
        recency=config.graph.recency,
        epochs=1,
        batch_size=-(-num_samples // steps) if steps else config.graph.batch_size,
        learning_rate=config.graph.learning_rate,
        weight_decay=config.graph.weight_decay,
    )
    text = _rows(rng, num_items, config.embed.dim)
    began = time.process_time()
    train_lightgcn(Interactions(users, items), text, settings=settings)
    spent = time.process_time() - began
    epoch_steps = -(-num_samples // config.graph.batch_size)
    return {"measured_s": spent, "measured_steps": steps or epoch_steps, "epoch_steps": epoch_steps}


def measure_ids(config: RunConfig, num_items: int, _num_users: int, _steps: int) -> dict[str, float]:
    """CPU seconds of k-means and of the assignment."""
    rng = np.random.default_rng(config.seed)
    vectors = _rows(rng, num_items, config.embed.dim + config.graph.dim)
    began = time.process_time()
    codebooks = train_codebooks(vectors, config=config.semantic_ids, seed=config.seed)
    trained = time.process_time()
    ids = assign_semantic_ids(vectors, codebooks, codebook_size=config.semantic_ids.codebook_size)
    return {
        "codebooks_s": trained - began,
        "assign_s": time.process_time() - trained,
        "displaced": int(ids.displaced.sum()),
    }


def _rows(rng: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    return unit_rows(rng.standard_normal((count, width), dtype=np.float32))


def _items(rng: np.random.Generator, num_items: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Squares of a uniform draw give few items most of the events."""
    return (rng.random(shape) ** 2 * num_items).astype(np.int64)


def _semantic_ids(rng: np.random.Generator, num_items: int, config: RunConfig) -> NDArray[np.int32]:
    levels, size = config.semantic_ids.levels, config.semantic_ids.codebook_size
    numbers = rng.permutation(np.unique(rng.integers(0, size**levels, 2 * num_items)))[:num_items]
    return (numbers[:, None] // size ** np.arange(levels - 1, -1, -1) % size).astype(np.int32)


PARTS: dict[str, Callable[[RunConfig, int, int, int], dict[str, float]]] = {
    "model": measure_model,
    "lightgcn": measure_lightgcn,
    "ids": measure_ids,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        config = configured(arguments.preset, None, [], {})
        found = PARTS[arguments.part](config, arguments.items, arguments.users, arguments.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({**{name: round(value, 3) for name, value in found.items()}, "peak_gb": round(peak, 2)}))
        return
    figures: dict[str, Any] = {"preset": arguments.preset, "items": arguments.items, "users": arguments.users}
    for part in arguments.parts.split(","):
        done = subprocess.run(
            [sys.executable, *sys.argv, "--part", part], check=True, stdout=subprocess.PIPE, text=True
        )
        figures[part] = json.loads(done.stdout.splitlines()[-1])
        print(f"{part}: {figures[part]}", file=sys.stderr)
    print(json.dumps(machine()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
