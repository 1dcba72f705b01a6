"""The schema of the release bundle, which the offline job publishes and the service opens (schema, no IO).

`Manifest` describes a bundle; `arrays_of` names its arrays with their dtypes and shapes in symbols.
`isrf.runtime.bundle` reads and hashes the files and checks the arrays against the manifest.
"""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[5] = 5
"""Raised whenever a reader of the older form would misread the newer one."""
SEALED_SCHEMA_VERSIONS = frozenset({3, 4, 5})
"""Schemas whose manifests have a seal. 3 and 4 are older ones that are still opened: 3 has no live evidence, and the
search graph of both passes over all items."""
QUERY_SCHEMA_VERSION = 5
"""The first schema whose search graph ends at the query and the beams (`isrf.nn.search`)."""
UNSEALED_SCHEMA_VERSION: Literal[2] = 2
"""An older schema that is still opened, with a warning: its manifest has no seal, and its golden requests do not cover
the served list."""

MANIFEST_FILE = "manifest.json"
SEARCH_GRAPH_FILE = "recommender.onnx"
INT8_GRAPH_FILE = "recommender.int8.onnx"
FP16_GRAPH_FILE = "recommender.fp16.onnx"
INTEREST_GRAPH_FILE = "lightgcn.onnx"
ITEMS_FILE = "items.jsonl"
USERS_FILE = "users.parquet"
HISTORIES_FILE = "histories.parquet"
USER_FEATURES_FILE = "user_features.npy"
GOLDEN_FILE = "golden.jsonl"
GOLDEN_ITEMS_FILE = "golden_items.jsonl"
TEXT_ENCODER_DIR = "text_encoder"
REASONING_DIR = "reasoning"
USER_REASONING_FILE = f"{REASONING_DIR}/user_features.parquet"

EVIDENCE_LISTS = ("transition", "cooccurrence", "content", "user_items")
"""Sparse lists: the first three have a row per item, `user_items` one per base user (training items, oldest first)."""


class ArraySpec(NamedTuple):
    """dtype and shape of a stored array; a letter in `shape` is a symbol of `Counts` or `Dimensions`, None is free."""

    dtype: str
    shape: tuple[str | None, ...]


ARRAYS: dict[str, ArraySpec] = {
    "item_inputs.npy": ArraySpec("float32", ("N", "D")),
    "item_vectors.npy": ArraySpec("float32", ("N", "D")),
    "item_embeddings.npy": ArraySpec("float32", ("N", "E")),
    "node_vectors.npy": ArraySpec("float32", (None, None)),  # (M, P + 1): M follows from the semantic IDs
    "semantic_ids.npy": ArraySpec("int32", ("N", "L")),
    "popularity.npy": ArraySpec("float32", ("N",)),
    USER_FEATURES_FILE: ArraySpec("float16", ("U", "F")),
    "group_layers.npy": ArraySpec("float16", ("U", "G")),
    **{f"evidence/{name}_indptr.npy": ArraySpec("int64", (None,)) for name in EVIDENCE_LISTS},
    **{f"evidence/{name}_indices.npy": ArraySpec("int32", (None,)) for name in EVIDENCE_LISTS},
    **{f"evidence/{name}_weights.npy": ArraySpec("float32", (None,)) for name in EVIDENCE_LISTS},
}

USER_CELLS_FILE = "user_cells.npy"
USER_CENTROIDS_FILE = "user_centroids.npy"
CELL_ARRAYS: dict[str, ArraySpec] = {
    USER_CELLS_FILE: ArraySpec("int32", ("U",)),
    USER_CENTROIDS_FILE: ArraySpec("float32", (None, "F")),
}
"""The cell of each user and the cells' centroids; only in releases with too many users to compare with all of them."""

DENSE_HNSW_FILE, EXPLICIT_HNSW_FILE = "dense_hnsw.npy", "explicit_hnsw.npy"
HNSW_ARRAYS: dict[str, ArraySpec] = {
    DENSE_HNSW_FILE: ArraySpec("uint8", (None,)),
    EXPLICIT_HNSW_FILE: ArraySpec("uint8", (None,)),
}
"""FAISS's HNSW indexes of the item vectors and of the interaction graph's embeddings, in its own format; only in
releases with too many items to score all of them."""


LIVE_ARRAYS: dict[str, ArraySpec] = {
    "evidence/transition_totals.npy": ArraySpec("float32", ("N",)),
    "evidence/cooccurrence_totals.npy": ArraySpec("float32", ("N",)),
    "evidence/recent.npy": ArraySpec("float64", ("N",)),
    "evidence/newcomers.npy": ArraySpec("float64", ("N",)),
}
"""What live counts are added to: the sum of a list's counts before it was scaled to 1, and each item's weight of recent
events as of `LiveEvidenceSpec.reference_s`, of all users and of newcomers. Releases of schema 3 lack them."""

FIRST_VARIANTS_FILE = "evidence/first_variants.npy"
VARIANT_ARRAYS: dict[str, ArraySpec] = {FIRST_VARIANTS_FILE: ArraySpec("int32", ("N",))}
"""The lowest row among each item's variants, by which evidence was counted; only where an item has other variants."""

RANKER_FILE = "ranker.npy"
RANKER_ARRAYS: dict[str, ArraySpec] = {RANKER_FILE: ArraySpec("float32", (None,))}
"""A learned ranker's numbers in the order of `isrf.method.ranking.ranker.layout`; only where a ranker won on
validation.
"""


ITEM_READER_DIR = "item_reader"
ITEM_READER_ARRAYS: dict[str, ArraySpec] = {
    f"{ITEM_READER_DIR}/codebooks.npy": ArraySpec("float32", ("L", "C", None)),  # (L, C, D_t + E)
    f"{ITEM_READER_DIR}/code_vectors.npy": ArraySpec("float32", ("L", "C", "D")),
    f"{ITEM_READER_DIR}/text_adapter.npy": ArraySpec("float32", (None, "D")),  # (D_t, D)
    f"{ITEM_READER_DIR}/item_text.npy": ArraySpec("float16", ("N", None)),  # (N, D_t)
}
"""The arrays that turn a new item's text into vectors (`isrf.method.item_reader`); old releases lack them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


Finite = Annotated[float, Field(allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1)]
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]
"""A cosine of unit vectors; it may exceed 1 a little, because float16 rounding changes a vector's length."""


class FileEntry(_Frozen):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class TensorSpec(_Frozen):
    """A graph's input or output: ONNX Runtime's type string (`tensor(float)`), symbolic shape."""

    dtype: str
    shape: tuple[int | str, ...]


class GraphSpec(_Frozen):
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


class Counts(_Frozen):
    num_items: Annotated[int, Field(ge=2)]
    num_users: Annotated[int, Field(ge=1)]
    num_interactions: Annotated[int, Field(ge=1)]  # of users and of sessions
    num_sessions: Annotated[int, Field(ge=0)] = 0  # visitors without an account, whose events were learned


class Dimensions(_Frozen):
    """Widths of the bundle's arrays. Symbols: D, L, C, F, E, G of ARCHITECTURE.md, "Words"."""

    width: Size  # D: item_inputs, item_vectors
    num_levels: Size  # L
    codebook_size: Size  # C
    feature: Size  # F: user_features, the query feature
    explicit: Size  # E: the explicit vector
    group: Size  # G: the group vector


class Decoding(_Frozen):
    num_beams: Annotated[int, Field(ge=0)]  # 0: the release serves without the generative path
    num_dense: Size  # items that the dense path brings in
    history_length: Size  # S: items that the encoder reads
    interest_length: Size  # items that the interest vectors read


class GroupSearch(_Frozen):
    """How similar users are found: calibrated = (cosine − background) / (nearest − background).

    See docs/concepts/interests.md.
    """

    threshold: Finite  # in calibrated units; ISRF's 0.7
    background_cosine: Cosine  # mean cosine of random pairs of base users
    nearest_cosine: Cosine  # median cosine of a base user and its nearest other
    max_neighbours: Size
    min_neighbours: Size  # used, and marked weak, where no user reaches the threshold
    probes: Size | None = None  # cells that a search looks into; None: there are no cells, it compares with every user


class ItemSearchSpec(_Frozen):
    """How many candidates (efSearch) a search by HNSW keeps, which finds the best items of a large catalogue."""

    dense_ef: Size  # among the item vectors
    explicit_ef: Size  # among the interaction graph's embeddings


class FusionWeights(_Frozen):
    """Log-linear fusion: score = Σ weight · log(p + epsilon). One entry per channel of
    `isrf.method.ranking.fusion.CHANNELS`; a channel without one has no weight.
    """

    weights: dict[str, Annotated[float, Field(ge=0, le=1e3)]]
    epsilons: dict[str, Annotated[float, Field(gt=0, le=1)]]
    beam_gap: Annotated[float, Field(ge=0, le=1e3)]
    """δ: an item that no beam reached counts as the lowest beam's log-probability − δ."""


class RankerSpec(_Frozen):
    """What a learned ranker reads, and its figures on validation; its numbers are in `RANKER_FILE`."""

    features: tuple[str, ...]  # of each candidate, in the order of the first layer's inputs
    context: tuple[str, ...]  # features of the request, after the candidate's
    without: tuple[str, ...]  # channels that it does not read
    top: Annotated[int, Field(ge=1)]  # it orders this many candidates, the best by log-linear fusion
    hidden: Annotated[int, Field(ge=1)]
    num_values: Annotated[int, Field(ge=1)]
    validation: dict[str, Any]  # cross-validated NDCG@10 with and without it


class StoredRanker(_Frozen):
    """A ranker as JSON: for a run that reuses an evaluated ranker, and for measuring it again."""

    spec: RankerSpec
    values: str  # base64 of the numbers as little-endian float32


VariantName = Literal["fp32", "int8", "fp16"]
SEARCH_GRAPHS: dict[VariantName, str] = {"fp32": SEARCH_GRAPH_FILE, "int8": INT8_GRAPH_FILE, "fp16": FP16_GRAPH_FILE}
"""The precisions in which a release may hold the search graph; every release has fp32."""


MAX_DEVIATION = 10.0
"""The largest deviation of a score that a manifest may allow: beyond it the lists are different."""


class GoldenTolerance(_Frozen):
    """How far a variant of the search graph may deviate from the torch model's golden requests."""

    log_prob: Annotated[float, Field(ge=0, le=MAX_DEVIATION)]  # of an item in both lists
    missing: Annotated[int, Field(ge=0)]  # items of the golden list that may be absent
    list_score: Annotated[float, Field(ge=0, le=MAX_DEVIATION)] | None = None  # the same two for the served list;
    list_missing: Annotated[int, Field(ge=0)] | None = None  # None in releases of schema 2


class Variant(_Frozen):
    """A variant of the search graph other than fp32, and what quality it costs."""

    loss: dict[str, Any]  # NDCG@10 of the lists served with it, and fp32's; empty where nothing was held out
    tolerance: GoldenTolerance


class ItemReaderSpec(_Frozen):
    """How a new item gets its codes."""

    text_share: Annotated[float, Field(ge=0, le=1)]  # of a fused vector's squared length
    codes_trained: tuple[int, ...]  # per level: codes that have a vector


class LearnedUntil(_Frozen):
    """The times until which the release knows events and items, in seconds by the offline machine's clock.

    A release cannot hold anything that happened later, whatever timestamps its rows have. For each of the shop's files
    the time is just before it was opened, or when it was last written, whichever is earlier.
    """

    events: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    items: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class GoldenSpec(_Frozen):
    """How many golden requests and items the release was published with, and a hash of the parts that they check."""

    requests: Size
    items: Annotated[int, Field(ge=0)]
    texts: Annotated[int, Field(ge=0)]  # golden items whose text is also read as a new item's
    made_from: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # `isrf.contract.manifest_seal.made_from`


class LiveEvidenceSpec(_Frozen):
    """How events since the release are counted (`isrf.method.recommend.live.live_evidence`)."""

    reference_s: Finite  # the time at which an event weighs as much as one of the release's own
    half_life_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # of transitions and co-occurrence
    popularity_half_life_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    window: Size  # steps after an item that count as a transition from it


class Producer(_Frozen):
    isrf_version: str
    versions: dict[str, str]


class Manifest(_Frozen):
    """The content of `manifest.json`. `release_id` and `sha256` are hashes of it: `isrf.contract.manifest_seal`."""

    schema_version: Literal[2, 3, 4, 5]
    release_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # the seal; None in releases of schema 2
    created_at: str  # RFC 3339, UTC; one of `MOMENTS`
    producer: Producer
    preset: str
    fit: Literal["train", "all"]
    evaluated_release_id: str | None  # with fit "all": the earlier release that `evaluation` measured
    config: dict[str, Any]  # the whole configuration that the run used
    counts: Counts
    dimensions: Dimensions
    decoding: Decoding
    group_search: GroupSearch
    item_search: ItemSearchSpec | None = None  # None: a search scores all items
    fusion: FusionWeights
    ranker: RankerSpec | None = None  # orders the fused candidates; None: log-linear fusion alone orders them
    variants: dict[VariantName, Variant] = {}  # variants of the search graph in addition to fp32
    live_evidence: LiveEvidenceSpec | None = None  # None: events since the release teach nobody but their user
    left_out: dict[str, str] = {}  # parts that the shop is too young for, and why; their channels have no weight
    item_reader: ItemReaderSpec | None = None  # None: new items wait for the next release
    goldens: GoldenSpec | None = None  # None: a release made before this field existed
    graphs: dict[str, GraphSpec]  # file name → signature
    data_fingerprint: str  # sha256 over the ingested events and items
    order_fingerprint: str  # sha256 over the histories in their order: another order of ties gives another hash
    tie_seed: int | None  # `--shuffle-ties`; None: the order is timestamp, position, file
    events_through: Finite | None  # latest timestamp (seconds) of the events, for people; None without timestamps
    learned_until: LearnedUntil | None = None  # one of `MOMENTS`; None: a release made before this field existed
    reasoner: str
    encoder: str
    evaluation: dict[str, Any]
    files: dict[str, FileEntry]  # path inside the bundle → hash and size; without the manifest itself


MOMENTS = ("created_at", "learned_until")
"""Fields in which two equal runs differ. `release_id` leaves them out; the seal covers them."""


def arrays_of(manifest: Manifest) -> dict[str, ArraySpec]:
    """Every array that this bundle holds, by file name."""
    cells = {} if manifest.group_search.probes is None else CELL_ARRAYS
    hnsw = {} if manifest.item_search is None else HNSW_ARRAYS
    ranker = {} if manifest.ranker is None else RANKER_ARRAYS
    reader = {} if manifest.item_reader is None else ITEM_READER_ARRAYS
    live = {} if manifest.live_evidence is None else LIVE_ARRAYS
    products = VARIANT_ARRAYS if FIRST_VARIANTS_FILE in manifest.files else {}
    return ARRAYS | cells | hnsw | ranker | reader | live | products
