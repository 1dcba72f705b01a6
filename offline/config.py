"""The offline job's configuration: frozen, typed, refuses unknown keys, saved with the release it made.

A preset is a set of overrides; `--config FILE.toml` and `--set section.key=value` come on top, in this order.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from isrf.contract.errors import ConfigError
from isrf.contract.event_types import EventVocabulary
from isrf.contract.manifest import FusionWeights, StoredRanker, VariantName

PresetName = Literal["demo", "mini", "small"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Channel = Literal["generative", "dense", "explicit", "group", "transition", "cooccurrence", "content"]
Channels = Annotated[
    tuple[Channel, ...], BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given)
]
"""Of `isrf.method.ranking.fusion.CHANNELS`; `--set evaluate.without=group,content` names several."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IngestConfig(_Section):
    max_bad_rows: Share = 0.001
    shuffle_ties: int | None = None


class ReasonConfig(_Section):
    reasoner: Literal["attribute", "llm"] = "attribute"
    currency: str = "$"  # stands before an amount of money in the features' texts
    client: Literal["openai", "vllm"] = "openai"  # a server that speaks the OpenAI protocol, or vLLM in this process
    base_url: str = "http://127.0.0.1:8000/v1"  # of the server; its key comes from OPENAI_API_KEY alone
    model: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.6
    max_answer_tokens: Positive = 4096  # a reasoning model's thoughts included
    concurrency: Positive = 256  # calls in flight; vLLM batches them
    timeout_s: Annotated[float, Field(gt=0.0)] = 300.0
    max_attempts: Positive = 6  # of one call, while the server answers 429, 5xx or not at all
    back_off_s: Annotated[float, Field(gt=0.0)] = 1.0  # before the second attempt; doubled for each further one
    max_server_failures: Positive = 20  # calls given up in a row before the run stops
    budget_calls: Positive | None = None  # --llm-budget; None: every item and user is asked about
    budget_tokens: Positive | None = None
    ledger: Path | None = None  # of paid answers; None: beside the releases, shared by all their runs


class EmbedConfig(_Section):
    encoder: str = (
        "tfidf-svd"  # or hf:<hub name or local directory>, openai: an embeddings endpoint, no-text: none is read
    )
    base_url: str = "http://127.0.0.1:8000/v1"  # of the endpoint; its key comes from OPENAI_API_KEY alone
    model: str = "text-embedding-3-small"  # the endpoint's
    batch_size: Positive = 64  # texts per forward pass or request
    dim: Positive = 128  # D_t: width of the semantic vectors after PCA


class GraphConfig(_Section):
    dim: Positive = 64  # E: width of LightGCN's layers; the explicit and group vectors
    epochs: Positive = 7
    batch_size: Positive = 2048
    learning_rate: float = 7e-3
    weight_decay: float = 1e-5
    similarity_threshold: float = 0.7
    max_neighbours: Positive = 100
    min_neighbours: Positive = 5
    text_share: Share = 0.2  # of the squared length of a user feature: semantic part against LightGCN part
    recency: Share = 0.7  # weight of an item by its age in the history, newest 1
    cells_from: Positive = 100_000  # users, from which on similar ones are looked for in cells, not among all


class SemanticIdsConfig(_Section):
    levels: Positive = 4
    codebook_size: Positive = 256
    text_share: Share = 0.5
    iterations: Positive = 25


class ModelConfig(_Section):
    """The encoder-decoder (`T5Config`) and what it reads."""

    width: Positive = 64
    ff_width: Positive = 256
    num_heads: Positive = 4
    num_encoder_layers: Positive = 2
    num_decoder_layers: Positive = 1
    dropout: Share = 0.1
    history_length: Positive = 20
    interest_length: Positive = 50
    num_prompts: Positive = 3
    item_id_dropout: Share = 0.1
    explicit_vector: bool = True  # whether the encoder reads it; without: an ablation
    group_vector: bool = True
    backbone: str | None = None  # hub name or local directory of pretrained T5 weights


class TrainConfig(_Section):
    epochs: Positive = 6
    batch_size: Positive = 256
    learning_rate: float = 2e-3
    warmup_share: Share = 0.05
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    generation_weight: float = 1.0
    distillation: Share = 0.5  # of the generation loss: what the dense path believes, against the target alone
    dense_weight: float = 1.0
    alignment_weight: float = 0.1
    alignment_temperature: float = 0.2
    direct_share: Share = 0.2  # of the batches that are direct recommendation
    num_direct_negatives: Positive = 99
    # Epochs in a row whose validation NDCG@10 is worse than the best one's, beyond noise, before training stops; the
    # latest one's that is not are kept. With 0 nobody is asked: every epoch is trained and the last one's weights are
    # kept, so that two settings train equally long.
    patience: Annotated[int, Field(ge=0)] = 2
    validation_users: Positive = 2000
    checkpoint_every_s: float = 60.0
    processes: Annotated[int, Field(ge=0)] = 0  # that share every batch; 0: one for each GPU, without any one


class SearchConfig(_Section):
    num_beams: Positive = 20
    num_dense: Positive = 256
    int8: bool = False  # whether a release holds the search with 8-bit matrices as well: `ISRF_VARIANT` serves it
    fp16: bool = False  # and with 16-bit ones, for GPUs


def variants_of(search: SearchConfig) -> list[VariantName]:
    """The forms of the search that a release holds beside fp32."""
    asked: dict[VariantName, bool] = {"int8": search.int8, "fp16": search.fp16}
    return [name for name, held in asked.items() if held]


class EvidenceConfig(_Section):
    list_length: Positive = 100  # entries kept per row of transition and cooccurrence
    window: Positive = 3  # steps after an item that count as a transition


class EvaluateConfig(_Section):
    validation_users: Positive = 20_000  # at most, to choose the fusion weights on: with 4,000 the choice was noise
    bootstrap_samples: Positive = 500
    without: Channels = ()  # channels that get no weight in the fusion, and that the ranker does not read
    ranker: bool = True  # whether a learned ranker is tried; it is served where it wins on validation
    sampled_users: Positive = 2000  # at most, of each split: with seen items, and direct recommendation


class RunConfig(_Section):
    """Everything that decides a release. `seed` feeds every random choice that is not a protocol's own."""

    preset: PresetName = "demo"
    seed: int = 0
    fit: Literal["train", "all"] = "train"
    evaluated_release_id: str | None = None  # with fit "all": the run that was evaluated, and whose fusion this is
    fusion: FusionWeights | None = None
    ranker: StoredRanker | None = None  # with fit "all": that run's, where it has one
    events: EventVocabulary = EventVocabulary()
    ingest: IngestConfig = IngestConfig()
    reason: ReasonConfig = ReasonConfig()
    embed: EmbedConfig = EmbedConfig()
    graph: GraphConfig = GraphConfig()
    semantic_ids: SemanticIdsConfig = SemanticIdsConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


PRESETS: dict[PresetName, dict[str, dict[str, Any]]] = {
    "demo": {},
    "mini": {
        "graph": {"dim": 128},
        "model": {"width": 128, "ff_width": 1024, "num_encoder_layers": 4, "num_decoder_layers": 2},
        "train": {"epochs": 12, "learning_rate": 1e-3},
    },
    "small": {
        "graph": {"dim": 128},
        "model": {
            "width": 512,
            "ff_width": 2048,
            "num_heads": 8,
            "num_encoder_layers": 6,
            "num_decoder_layers": 2,
        },
        "train": {"epochs": 20, "learning_rate": 5e-4},
        "search": {"int8": True, "fp16": True},
    },
}


def build_config(
    preset: PresetName = "demo",
    file: dict[str, Any] | None = None,
    assignments: tuple[str, ...] = (),
) -> RunConfig:
    """Preset, then the TOML file's tables, then `section.key=value` assignments; `ConfigError` on anything unknown."""
    merged: dict[str, Any] = {"preset": preset}
    for layer in (PRESETS[preset], file or {}, *map(_assignment, assignments)):
        _merge(merged, layer)
    if merged["preset"] != preset:
        raise ConfigError(
            "config.preset", f"the preset {merged['preset']!r} is set beside {preset!r}.", fix="Name it with --preset."
        )
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            "config.invalid",
            f"the setting {where!r} does not work: {first['msg']} (got {first.get('input')!r}).",
            fix="See `python -m offline run --help` and offline/config.py for the known settings.",
        ) from None


def _assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError("config.assignment", f"{text!r} is no key=value.", fix="Write --set train.epochs=3.")
    nested: Any = None if value == "none" else value
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    assert isinstance(nested, dict)
    return nested


def _merge(base: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            base[key] = {**base[key]}
            _merge(base[key], value)
        else:
            base[key] = value
