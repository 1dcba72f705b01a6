"""The stage `train`: trains the encoder-decoder; writes `model.safetensors`, `model.json` and `log.jsonl`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import save

from isrf.contract.errors import StageError
from isrf.contract.manifest import GroupSearch
from isrf.method.interest import InterestTables
from isrf.method.trie import TrieTables, build_trie
from isrf.nn.model import IsrfModel
from isrf.nn.siblings import Siblings
from isrf.runtime.neighbour_index import load_index
from offline.config import RunConfig
from offline.context import StageContext
from offline.runtime.hardware import training_device
from offline.runtime.ingest_report import ingest_report
from offline.runtime.left_out import too_little_to_learn
from offline.stages.train.build import SPEC_FILE, WEIGHTS_FILE, load_parts, new_model, untrained_model
from offline.stages.train.checkpoint import log_lines
from offline.stages.train.distributed import Peers, together
from offline.stages.train.loop import TrainingTask, train
from offline.stages.train.samples import SampleInterests, Sequences, TrainingSamples, read_sequences, training_samples
from offline.stages.train.validation import make_validator

VERSION = 9
LOG_FILE = "log.jsonl"


def run(ctx: StageContext) -> None:
    """Runs the stage; raises `StageError` where there is nothing to train on or the loss is not finite."""
    interests = load_interests(ctx)
    if too_little_to_learn(ingest_report(ctx.inputs["ingest"])):
        _write_untrained(ctx, interests)
        return
    sequences = read_sequences(ctx.inputs["ingest"], len(interests.group_layers))
    samples = _samples(ctx, sequences, interests)
    if len(samples.target) == 0:
        raise StageError(
            "train.no_samples",
            "no user has two training interactions, the second of a weight above 0, so there is no order to learn.",
            fix="Provide users with at least four interactions each (two of them are held out).",
        )
    if ctx.engine.name == "ray":
        from offline.stages.train.on_ray import train_on_ray

        _share(samples, ctx.scratch)
        train_on_ray(ctx)
        return
    count = ctx.config.train.processes or max(1, torch.cuda.device_count())
    if count > 1:
        _share(samples, ctx.scratch)
    with together(count, follow, ctx.inputs, ctx.scratch, ctx.config) as peers:
        lead(ctx, samples, interests, peers)


def lead(ctx: StageContext, samples: TrainingSamples, interests: SampleInterests, peers: Peers) -> None:
    """Trains as the first process: validates, shows and writes."""
    task = _task(ctx.inputs, ctx.config, samples, peers)
    if ctx.config.train.patience:
        task = task._replace(validate=make_validator(ctx, interests, _trie(ctx.inputs, ctx.config)))
    state = train(task, ctx.scratch, ctx.progress)
    _write(ctx, task.model, log_lines(state))


def _write(ctx: StageContext, model: IsrfModel, log: str) -> None:
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    (ctx.out / WEIGHTS_FILE).write_bytes(save(weights))
    (ctx.out / SPEC_FILE).write_text(model.spec.model_dump_json(indent=2))
    (ctx.out / LOG_FILE).write_text(log)


def _write_untrained(ctx: StageContext, interests: SampleInterests) -> None:
    """A model that nothing was learned for: the release has its graph, and the lists give it no weight."""
    torch.manual_seed(ctx.config.seed)
    parts = load_parts(ctx.inputs)
    explicit_dim, group_dim = interests.tables.item_layers.shape[1], interests.group_layers.shape[1]
    _write(ctx, untrained_model(ctx.config, parts, explicit_dim=explicit_dim, group_dim=group_dim), "")


def _task(inputs: Mapping[str, Path], config: RunConfig, samples: TrainingSamples, peers: Peers) -> TrainingTask:
    """The training task, equal in every process, without validation."""
    device = training_device(peers.rank, of=peers.count) if peers.device is None else peers.device
    torch.manual_seed(config.seed)
    parts = load_parts(inputs)
    model = new_model(config, parts, explicit_dim=samples.explicit.shape[1], group_dim=samples.group.shape[1])
    return TrainingTask(
        model=model.to(device),
        samples=samples,
        siblings=Siblings.of(_trie(inputs, config), device),
        validate=None,
        config=config.train,
        seed=config.seed,
        device=device,
        run=_name_of(config, samples),
        peers=peers,
    )


def follow(peers: Peers, inputs: Mapping[str, Path], scratch: Path, config: RunConfig) -> None:
    """Trains as any other process."""
    train(_task(inputs, config, shared_samples(scratch), peers), scratch, Progress(disable=True))


def shared_samples(scratch: Path) -> TrainingSamples:
    """The samples that the run's own process left for the others."""
    return TrainingSamples(
        *(np.load(scratch / f"samples.{name}.npy", mmap_mode="r") for name in TrainingSamples._fields)
    )


def _share(samples: TrainingSamples, scratch: Path) -> None:
    for name, column in samples._asdict().items():
        np.save(scratch / f"samples.{name}.npy", column)


def _trie(inputs: Mapping[str, Path], config: RunConfig) -> TrieTables:
    semantic_ids = np.load(inputs["semantic-ids"] / "semantic_ids.npy")
    return build_trie(semantic_ids, config.semantic_ids.codebook_size)


def load_interests(ctx: StageContext) -> SampleInterests:
    """Loads the tables for explicit and group vectors, and the base users' index."""
    graph = ctx.inputs["graph"]
    config = ctx.config.graph
    search = GroupSearch.model_validate_json((graph / "group_search.json").read_bytes())
    return SampleInterests(
        tables=InterestTables(
            item_text=np.load(ctx.inputs["embed"] / "item_text.npy"),
            item_layers=np.load(graph / "item_layers.npy"),
            feature_map=np.load(graph / "feature_map.npy"),
            recency=config.recency,
            text_share=config.text_share,
        ),
        search=search,
        group_layers=np.load(graph / "group_layers.npy"),
        nearest_users=load_index(graph, search),
    )


def _samples(ctx: StageContext, sequences: Sequences, interests: SampleInterests) -> TrainingSamples:
    """Makes a sample for every training prefix."""
    model = ctx.config.model
    bar = ctx.progress.add_task("train: interests of every prefix", total=len(sequences.items))
    samples = training_samples(
        sequences,
        interests,
        history_length=model.history_length,
        interest_length=model.interest_length,
        advance=lambda done: ctx.progress.advance(bar, done),
        engine=ctx.engine,
    )
    ctx.progress.update(bar, completed=len(sequences.items))
    return samples


def _name_of(config: RunConfig, samples: TrainingSamples) -> str:
    """A hash of settings and samples, which identifies the run that a checkpoint belongs to."""
    digest = hashlib.sha256()
    for array in samples:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    settings = config.model_dump(mode="json", include={"model", "train", "semantic_ids", "seed"})
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()
