"""Texts become vectors: fitted on training items alone, deterministic, resumable, with a torch-free form beside."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from isrf.contract.errors import ConfigError, StageError
from isrf.method.text.encoder import TextEncoder
from offline.runtime.hnsw import RECALL, Indexed
from offline.stages.embed import nearest
from offline.stages.embed import stage as embed
from offline.stages.embed.counterpart import fit_counterpart
from offline.stages.embed.dense import embed_all, project
from offline.stages.embed.huggingface import HuggingFaceEncoder
from offline.stages.embed.nearest import nearest_by_terms, nearest_by_vectors
from offline.stages.embed.text_files import read_text_encoder
from offline.stages.embed.texts import read_texts
from offline.stages.embed.tfidf import fit_tfidf, transform, weigh
from offline.stages.reason import stage as reason
from tests.offline.stages.reason.llm_server import LlmServer, Reply
from tests.offline.stages.reason.reason_shop import shop_items, stage_context, write_ingest

HISTORIES = [[0, 2, 4, 6], [1, 3, 5], [8, 10, 12, 0], [9, 11, 1], []]
NUM_ITEMS = 16


class Shop:
    """The two stages before, and runs of `embed` after them."""

    def __init__(self, folder: Path, items: list[dict[str, Any]], held_out: Sequence[tuple[int, int]] = ()) -> None:
        self._folder = folder
        self.ingest = write_ingest(folder / "ingest", items, HISTORIES, held_out)
        ctx = stage_context(folder, {"ingest": self.ingest}, name="reason")
        reason.run(ctx)
        self.reason = ctx.out

    def embed(self, *assignments: str, name: str = "embed") -> Path:
        inputs = {"ingest": self.ingest, "reason": self.reason}
        ctx = stage_context(self._folder, inputs, "embed.dim=16", *assignments, name=name)
        embed.run(ctx)
        return ctx.out


def vectors(out: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(out / "item_text.npy"), np.load(out / "user_text.npy")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, shop_items(NUM_ITEMS))


def assert_well_formed(out: Path) -> None:
    items, users = vectors(out)
    assert items.shape == (NUM_ITEMS, 16)
    assert users.shape == (len(HISTORIES), 16)
    assert items.dtype == users.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), [1.0] * 4 + [0.0], atol=1e-5)


def test_items_and_users_of_a_kind_are_near_each_other(shop: Shop) -> None:
    out = shop.embed()
    assert_well_formed(out)
    items, users = vectors(out)
    kind = np.arange(NUM_ITEMS) % 2
    cosine = items @ items.T
    assert cosine[kind[:, None] == kind].mean() > cosine[kind[:, None] != kind].mean() + 0.5
    likes = users[:4] @ items.T
    assert (likes[:, kind == 0].mean(axis=1) > likes[:, kind == 1].mean(axis=1)).tolist() == [True, False, True, False]


def test_the_bundled_encoder_gives_the_stages_own_vectors(shop: Shop) -> None:
    out = shop.embed()
    encoder = read_text_encoder(out / "text_encoder")
    assert encoder.config.stands_for == "tfidf-svd"
    assert encoder.config.agreement == 1.0
    texts = read_texts(shop.ingest, shop.reason)
    np.testing.assert_allclose(encoder.encode(texts.items), vectors(out)[0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts.users), vectors(out)[1], atol=1e-5)


def test_two_runs_are_equal_to_the_byte(shop: Shop) -> None:
    first, second = shop.embed(name="first"), shop.embed(name="second")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 11
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_items_without_training_events_shape_nothing(tmp_path: Path) -> None:
    plain, changed = shop_items(NUM_ITEMS), shop_items(NUM_ITEMS)
    for row in (7, 13, 14, 15):  # nobody took them in training
        changed[row]["title"] = "zzcanary zzcanary unheard words"
    outs = [Shop(tmp_path / "a", plain).embed(), Shop(tmp_path / "b", changed, [(0, 7), (1, 13)]).embed()]
    encoders = [read_text_encoder(out / "text_encoder") for out in outs]
    assert "zzcanary" not in encoders[1].vocabulary
    taken = sorted({item for history in HISTORIES for item in history})
    untouched = [row for row in taken if "number7" not in plain[row]["title"]]
    np.testing.assert_allclose(vectors(outs[0])[0][untouched], vectors(outs[1])[0][untouched], atol=1e-5)


def test_more_dimensions_than_the_text_has_are_zero_columns() -> None:
    texts = [{"title": "red shoe"}, {"title": "red shoe"}, {"title": "blue shoe"}, {"title": "blue hat"}]
    encoder = fit_tfidf(texts, dim=10, seed=0)
    encoded = transform(encoder, texts)
    assert encoded.shape == (4, 10)
    assert np.isfinite(encoded).all()
    assert not encoded[:, 4:].any()
    np.testing.assert_allclose(encoded[0], encoded[1], atol=1e-6)


def test_identical_items_give_finite_vectors() -> None:
    texts = [{"title": "the same thing"}] * 50
    encoded = transform(fit_tfidf(texts, dim=8, seed=0), texts)
    assert np.isfinite(encoded).all()
    np.testing.assert_array_equal(encoded, np.broadcast_to(encoded[0], encoded.shape))


def test_a_shop_without_any_text_is_left_to_its_graphs(tmp_path: Path) -> None:
    blank = dict.fromkeys(("title", "brand", "categories", "description", "price"))
    out = Shop(tmp_path, [blank] * NUM_ITEMS).embed()
    items, users = vectors(out)
    assert not items.any()
    assert not users.any()
    assert not read_text_encoder(out / "text_encoder").encode([{"title": "a new kettle"}]).any()


def test_without_an_encoder_no_text_is_read(shop: Shop) -> None:
    out = shop.embed("embed.encoder=no-text")
    items, users = vectors(out)
    assert not items.any()
    assert not users.any()
    assert read_text_encoder(out / "text_encoder").vocabulary == {}
    assert not np.load(out / "evidence" / "content_indices.npy").size


def test_a_dense_encoder_with_nothing_to_read_is_a_clear_error(tmp_path: Path) -> None:
    blank = dict.fromkeys(("title", "brand", "categories", "description", "price"))
    shop = Shop(tmp_path, [blank] * NUM_ITEMS)
    with pytest.raises(StageError) as error:
        shop.embed("embed.encoder=openai")
    assert error.value.code == "embed.no_text"


@pytest.mark.parametrize("name", ["word2vec", "hf:", "hf:/nowhere/at/all"])
def test_an_unknown_encoder_is_a_config_error(shop: Shop, name: str) -> None:
    with pytest.raises(ConfigError) as error:
        shop.embed(f"embed.encoder={name}")
    assert error.value.code == "config.encoder"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small layers with a word tokenizer, as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "shampoo", "mascara", "argan", "oil", "black", "waterproof", "volume", "likes"]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=130,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_local_checkpoint_encodes(shop: Shop, checkpoint: Path) -> None:
    out = shop.embed(f"embed.encoder=hf:{checkpoint}", "embed.batch_size=3")
    assert_well_formed(out)
    encoder = read_text_encoder(out / "text_encoder")
    assert encoder.config.stands_for == f"hf:{checkpoint}"
    assert encoder.config.agreement == json.loads((out / "report.json").read_text())["torch_free_agreement"]


def test_batching_changes_no_vector(shop: Shop, checkpoint: Path, tmp_path: Path) -> None:
    encoder = HuggingFaceEncoder(str(checkpoint))
    texts = ["shampoo", "argan oil shampoo with volume", "", "black mascara", "shampoo"]
    alone, together = (
        embed_all(encoder, texts, store=tmp_path / f"{size}.sqlite3", batch_size=size) for size in (1, 8)
    )
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert not alone[2].any()
    np.testing.assert_array_equal(alone[0], alone[4])


def test_projection_is_fitted_on_training_items_alone() -> None:
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(30, 12)).astype(np.float32), rng.normal(size=(9, 12)).astype(np.float32)
    fitted = np.arange(30) < 20
    other = items.copy()
    other[~fitted] *= 100.0
    left, right = project(items, users, fitted, 4), project(other, users[::-1].copy(), fitted, 4)
    np.testing.assert_allclose(left[0][fitted], right[0][fitted], atol=1e-6)
    np.testing.assert_allclose(left[1], right[1][::-1], atol=1e-6)


def embedding_of(text: str) -> list[float]:
    """Distinct, and near for texts that share words."""
    vector = np.zeros(24)
    for word in text.lower().split():
        vector[sum(word.encode()) % 24] += 1.0
    return vector.tolist()


def give_embeddings(request: dict[str, Any], _nth: int) -> Reply:
    rows = [{"object": "embedding", "index": n, "embedding": embedding_of(t)} for n, t in enumerate(request["input"])]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Reply(body={"object": "list", "data": rows[::-1], "model": request["model"], "usage": usage})


def test_an_embeddings_endpoint_encodes_and_is_asked_once_per_text(shop: Shop) -> None:
    with LlmServer(give_embeddings) as server:
        options = ("embed.encoder=openai", f"embed.base_url={server.base_url}", "embed.batch_size=4")
        assert_well_formed(shop.embed(*options))
        asked = [text for request in server.requests for text in request["input"]]
        assert len(asked) == len(set(asked)) == NUM_ITEMS + 4
        assert max(len(request["input"]) for request in server.requests) == 4
        shop.embed(*options, "embed.dim=8", name="narrower")
        assert len(server.requests) == 5, "another width asks nothing"


def test_an_endpoint_that_fails_half_way_keeps_what_it_gave(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline.stages.embed.dense.SAVE_EVERY", 1)

    def script(request: dict[str, Any], nth: int) -> Reply:
        return give_embeddings(request, nth) if nth < 3 else Reply(status=400)

    with LlmServer(script) as server, pytest.raises(StageError) as error:
        shop.embed("embed.encoder=openai", f"embed.base_url={server.base_url}", "embed.batch_size=4", name="failed")
    assert error.value.code == "embed.endpoint"
    with LlmServer(give_embeddings) as server:
        shop.embed("embed.encoder=openai", f"embed.base_url={server.base_url}", "embed.batch_size=4")
        assert len(server.requests) == 2


def test_an_endpoint_that_drops_a_vector_is_refused(shop: Shop) -> None:
    def script(request: dict[str, Any], nth: int) -> Reply:
        reply = give_embeddings(request, nth)
        assert reply.body is not None
        reply.body["data"].pop()
        return reply

    with LlmServer(script) as server, pytest.raises(StageError, match="3 vectors for 4 texts"):
        shop.embed("embed.encoder=openai", f"embed.base_url={server.base_url}", "embed.batch_size=4")


def test_no_password_may_stand_in_the_endpoints_address(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        shop.embed("embed.encoder=openai", "embed.base_url=http://me:secret@127.0.0.1:1/v1")


def test_the_default_encoder_needs_no_torch() -> None:
    code = "import sys, offline.stages.embed.tfidf, isrf.method.text.encoder\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_stand_in_for_a_dense_encoder_agrees_with_it(tmp_path: Path) -> None:
    """An encoder that a linear map can follow is followed, and `agreement` says so on items kept out of the fit."""
    rng = np.random.default_rng(1)
    words = [f"word{n}" for n in range(12)]
    chosen = [rng.choice(words, size=4, replace=False) for _ in range(400)]
    texts = [{"title": " ".join(some)} for some in chosen]
    directions = {word: rng.normal(size=6) for word in words}
    dense = np.array([sum(directions[word] for word in some) for some in chosen])
    dense = (dense / np.linalg.norm(dense, axis=1, keepdims=True)).astype(np.float32)
    encoder: TextEncoder = fit_counterpart(texts, dense, stands_for="hf:linear", seed=0)
    assert encoder.config.agreement > 0.95
    assert float((encoder.encode(texts) * dense).sum(axis=1).mean()) > 0.95


def test_the_nearest_items_are_those_with_the_largest_cosine() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(30)]
    texts = [{"title": " ".join(rng.choice(words, 5))} for _ in range(150)] + [{}]
    encoder = fit_tfidf(texts[:-1], dim=4, seed=0)
    terms = weigh(encoder, texts).toarray()
    cosine = terms @ terms.T
    lists = nearest_by_terms(encoder, texts)
    for row in range(150):
        part = lists.row(row)
        others = np.delete(cosine[row], row)
        expected = np.sort(others[others > 0])[::-1][:100] ** 2
        np.testing.assert_allclose(lists.weights[part], expected / expected.sum(), rtol=1e-4)
        assert row not in lists.indices[part]
    assert lists.row(150) == slice(len(lists.indices), len(lists.indices))


def test_of_a_large_catalogue_nearly_all_of_the_nearest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 16))[rng.integers(300, size=6_000)] + 0.7 * rng.normal(size=(6_000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[:50] = 0  # items without a text
    exact = nearest_by_vectors(vectors)
    monkeypatch.setattr(nearest, "HNSW_FROM", 6_000)
    found = nearest_by_vectors(vectors)
    num_shared = 0
    for row in range(len(vectors)):
        ours, wanted = (dict(zip(*lists.entries(row), strict=True)) for lists in (found, exact))
        shared = ours.keys() & wanted.keys()
        num_shared += len(shared)
        assert row not in ours
        for item in shared:
            assert ours[item] == pytest.approx(wanted[item], rel=0.1), "scaled to sum to 1"
    assert num_shared >= RECALL * len(exact.indices)
    assert not found.indptr[50]
    assert len(found.indices) > 0.98 * len(exact.indices)


@pytest.mark.parametrize("recall", [0.5, 1.0], ids=["finds too few", "no item has a text"])
def test_where_a_search_would_not_do_all_items_are_compared(monkeypatch: pytest.MonkeyPatch, recall: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if recall == 1.0:
        vectors[:] = 0
    exact = nearest_by_vectors(vectors)
    monkeypatch.setattr(nearest, "HNSW_FROM", 1)
    monkeypatch.setattr(nearest, "index_table", lambda *_, **__: Indexed(np.zeros(0, np.uint8), 1, recall))
    found = nearest_by_vectors(vectors)
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_array_equal(one, other)


def test_by_vectors_the_nearest_are_those_with_the_largest_inner_product() -> None:
    vectors = np.random.default_rng(0).normal(size=(140, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = nearest_by_vectors(vectors)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    for row in (0, 70, 139):
        found = lists.indices[lists.row(row)]
        assert set(found.tolist()) == {c for c in np.argsort(-cosine[row])[:100].tolist() if cosine[row, c] > 0}
