"""The offline job's configuration: frozen and typed; it refuses unknown keys, and the release saves it.

A preset is a set of overrides; `--config FILE.toml` and `--set section.key=value` come on top, in this order.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from isrf.contract.errors import ConfigError
from isrf.contract.event_types import EventVocabulary
from isrf.contract.manifest import Decoding, FusionWeights, StoredRanker, VariantName
from offline.reading.settings import IngestConfig

PresetName = Literal["demo", "mini", "small"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Channel = Literal["generative", "dense", "explicit", "group", "transition", "cooccurrence", "content", "popular"]
Channels = Annotated[
    tuple[Channel, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
]
"""Names from `isrf.method.ranking.fusion.CHANNELS`; `--set evaluate.without=group,content` names several."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReasonConfig(_Section):
    reasoner: Literal["attribute", "llm"] = "attribute"
    """Who writes the semantic features: `attribute` (rules, no LLM) or `llm`."""
    currency: str = "$"
    """Stands before an amount of money in the features' texts."""
    client: Literal["openai", "vllm"] = "openai"
    """`openai`: a server that speaks the OpenAI protocol. `vllm`: vLLM in this process."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """The server's address; its key comes from `OPENAI_API_KEY` alone."""
    model: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"
    """The LLM's name."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.6
    """The LLM's sampling temperature."""
    max_answer_tokens: Positive = 4096
    """The longest answer, a reasoning model's thoughts included."""
    concurrency: Positive = 256
    """Calls in flight at once; the server batches them."""
    timeout_s: Annotated[float, Field(gt=0.0)] = 300.0
    """How long one call may take, in seconds."""
    max_attempts: Positive = 6
    """Attempts at one call while the server answers 429, 5xx or not at all."""
    back_off_s: Annotated[float, Field(gt=0.0)] = 1.0
    """Seconds before the second attempt; doubled for each further one."""
    max_server_failures: Positive = 20
    """The run stops after so many failed calls in a row."""
    budget_calls: Positive | None = None
    """The most calls (`--llm-budget`); `none` asks about every item and user."""
    budget_tokens: Positive | None = None
    """The most tokens (`--llm-budget`); `none` for no limit."""
    ledger: Path | None = None
    """File of paid answers; `none` keeps it beside the releases, shared by all their runs."""


class EmbedConfig(_Section):
    encoder: str = "tfidf-svd"
    """Text encoder: `tfidf-svd`, `hf:NAME_OR_DIR`, `openai` (an embeddings endpoint) or `no-text`."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """The embeddings endpoint's address; its key comes from `OPENAI_API_KEY` alone."""
    model: str = "text-embedding-3-small"
    """The endpoint's model."""
    batch_size: Positive = 64
    """Texts for one forward pass or request."""
    dim: Positive = 128
    """D_t: width of the semantic vectors, after PCA."""


class GraphConfig(_Section):
    dim: Positive = 64
    """E: width of LightGCN's layers, and of the explicit and group vectors."""
    epochs: Positive = 7
    """LightGCN's training epochs."""
    batch_size: Positive = 2048
    """Interactions in one of LightGCN's training steps."""
    learning_rate: float = 7e-3
    """LightGCN's learning rate."""
    weight_decay: float = 1e-5
    """LightGCN's L2 penalty on the vectors of a batch."""
    similarity_threshold: float = 0.7
    """Users whose calibrated similarity is at least this are similar users."""
    max_neighbours: Positive = 100
    """The most similar users that one user has."""
    min_neighbours: Positive = 5
    """A user with nobody above the threshold gets this many nearest users, marked as weak."""
    text_share: Share = 0.2
    """The semantic part's share of a user feature's squared length; LightGCN has the rest."""
    recency: Share = 0.7
    """An item's weight in a history is this, to the power of its age; the newest item has age 0."""
    cells_from: Positive = 100_000
    """From so many users on, similar users are searched in cells, not among all users."""


class SemanticIdsConfig(_Section):
    levels: Positive = 4
    """L: codes in a semantic ID."""
    codebook_size: Positive = 256
    """C: codes of one level."""
    text_share: Share = 0.5
    """The text's share of the vectors that are quantised; LightGCN's embedding has the rest."""
    iterations: Positive = 25
    """Iterations of k-means at each level."""


class ModelConfig(_Section):
    """The encoder-decoder (`T5Config`) and what it reads."""

    width: Positive = 64
    """D: width of the encoder-decoder."""
    ff_width: Positive = 256
    """Width of the feed-forward layers."""
    num_heads: Positive = 4
    """Attention heads."""
    num_encoder_layers: Positive = 2
    """Layers of the encoder."""
    num_decoder_layers: Positive = 1
    """Layers of the decoder."""
    dropout: Share = 0.1
    """Dropout in training."""
    history_length: Positive = 20
    """The most recent items of a history that the encoder reads."""
    interest_length: Positive = 50
    """The most recent items of a history that the explicit and group vectors are made of."""
    num_prompts: Positive = 3
    """Learned prompt vectors in front of the input, for each task."""
    item_id_dropout: Share = 0.1
    """How often an item's own embedding is left out in training, so that its text is learned from."""
    explicit_vector: bool = True
    """Whether the encoder reads the explicit vector; `false` is an ablation."""
    group_vector: bool = True
    """Whether the encoder reads the group vector; `false` is an ablation."""
    backbone: str | None = None
    """Pretrained T5 weights: a hub name or a local folder; `none` starts from random weights."""


class TrainConfig(_Section):
    epochs: Positive = 6
    """The most training epochs."""
    batch_size: Positive = 256
    """Samples in a training step, over all processes."""
    learning_rate: float = 2e-3
    """The highest learning rate."""
    warmup_share: Share = 0.05
    """The share of all steps in which the learning rate rises."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    clip_norm: float = 1.0
    """The largest norm of a step's gradient."""
    generation_weight: float = 1.0
    """The weight of the generation loss."""
    distillation: Share = 0.5
    """The share of the generation loss that follows the dense path's scores, not the target alone."""
    dense_weight: float = 1.0
    """The weight of the dense path's loss."""
    alignment_weight: float = 0.1
    """The weight of the contrastive alignment loss."""
    alignment_temperature: float = 0.2
    """The temperature of the alignment loss."""
    direct_share: Share = 0.2
    """The share of batches that train direct recommendation."""
    num_direct_negatives: Positive = 99
    """Sampled negatives beside the target in direct recommendation."""
    patience: Annotated[int, Field(ge=0)] = 2
    """Training stops after so many epochs in a row whose validation NDCG@10 is worse than the best one's, beyond
    noise; the latest epoch that is no worse is kept. With 0 every epoch is trained and the last one's weights are kept,
    so that two settings train equally long."""
    validation_users: Positive = 2000
    """The most users of a validation after an epoch."""
    checkpoint_every_s: float = 60.0
    """Seconds between two checkpoints, from which a stopped run resumes."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Processes that share every batch; 0 takes one for each GPU, or one without a GPU."""


class SearchConfig(_Section):
    num_beams: Annotated[int, Field(ge=0)] = 20
    """K: beams of the generative path; 0 makes a release that serves without that path."""
    num_dense: Positive = 256
    """Items that the dense path brings in, best first."""
    int8: bool = False
    """Whether the release also holds the search with 8-bit matrices; `ISRF_VARIANT=int8` serves it."""
    fp16: bool = False
    """Whether the release also holds the search with 16-bit matrices, for GPUs."""
    hnsw_from: Positive = 50_000
    """From so many items on, the best items are searched by HNSW, not among all items."""


def variants_of(search: SearchConfig) -> list[VariantName]:
    """The variants of the search graph that a release holds in addition to fp32."""
    variants: dict[VariantName, bool] = {"int8": search.int8, "fp16": search.fp16}
    return [name for name, enabled in variants.items() if enabled]


class EvidenceConfig(_Section):
    list_length: Positive = 100
    """Entries kept per item in the transition and co-occurrence lists."""
    window: Positive = 3
    """Steps after an item that count as a transition from it."""
    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 180.0
    """Days in which the weight of a live transition or co-occurrence doubles against an older one."""


class EvaluateConfig(_Section):
    validation_users: Positive = 20_000
    """The most validation users that fusion weights and ranker are chosen on; with 4,000 the choice was noise."""
    bootstrap_samples: Positive = 500
    """Bootstrap samples over users for a 95% interval."""
    without: Channels = ()
    """Channels that get no weight in the fusion and that the ranker does not read, such as `group,content`."""
    ranker: bool = True
    """Whether a learned ranker is tried; it is served where it wins on validation users."""
    sampled_users: Positive = 2000
    """The most users, of each split, for the figures with seen items and for direct recommendation."""


class RunConfig(_Section):
    """Everything that decides a release. `seed` feeds every random choice that is not a protocol's own."""

    preset: PresetName = "demo"
    """The preset that the other settings start from; set with `--preset`."""
    seed: int = 0
    """Feeds every random choice that is not a protocol's own."""
    fit: Literal["train", "all"] = "train"
    """`train` holds out each user's last two items; `all` then also publishes a release trained on everything."""
    evaluated_release_id: str | None = None
    """With `fit=all`: the evaluated release, whose fusion this run takes. Set by the run itself."""
    fusion: FusionWeights | None = None
    """With `fit=all`: the evaluated release's fusion weights. Set by the run itself."""
    ranker: StoredRanker | None = None
    """With `fit=all`: the evaluated release's ranker, if it has one. Set by the run itself."""
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

    @property
    def decoding(self) -> Decoding:
        """Beam counts and history lengths of a release that is made with this configuration."""
        return Decoding(
            num_beams=self.search.num_beams,
            num_dense=self.search.num_dense,
            history_length=self.model.history_length,
            interest_length=self.model.interest_length,
        )


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
    ingest: dict[str, Any] | None = None,
) -> RunConfig:
    """Builds a configuration: preset, the TOML file's tables, settings of `[ingest]`, then `section.key=value`.

    Raises:
        ConfigError: a key is unknown, or a value does not fit.
    """
    merged: dict[str, Any] = {"preset": preset}
    for layer in (PRESETS[preset], file or {}, {"ingest": ingest or {}}, *map(_assignment, assignments)):
        _merge(merged, layer)
    if merged["preset"] != preset:
        raise ConfigError(
            "config.preset",
            f"the settings name the preset {merged['preset']!r}, the command line {preset!r}.",
            fix="Set the preset with --preset.",
        )
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise invalid_setting(error) from None


def invalid_setting(error: ValidationError, *section: str) -> ConfigError:
    """The error for a setting that does not fit.

    Args:
        error: of the whole configuration, or of a section of it.
        section: the section's name.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in (*section, *first["loc"]))
    return ConfigError(
        "config.invalid",
        f"the setting {where!r} is not valid: {first['msg']} (got {first.get('input')!r}).",
        fix="See `python -m offline run --help` and offline/config.py for the known settings.",
    )


def _assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError("config.assignment", f"{text!r} is not key=value.", fix="Write --set train.epochs=3.")
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
