"""A new item reads as the torch model reads one whose identity is dropped."""

import numpy as np
import pytest
import torch

from isrf.contract.manifest import ItemReaderSpec
from isrf.method import item_reader
from isrf.method.evidence import SparseLists
from isrf.method.item_reader import ItemReader
from isrf.nn.model import IsrfModel
from tests.isrf.nn.toy import GRAPH_DIM, TEXT_DIM, make_model, random_ids

LEVELS, CODES = 3, 4
NO_LISTS = SparseLists(np.zeros(21, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def reader_of(model: IsrfModel, codebooks: np.ndarray) -> ItemReader:
    return ItemReader(
        spec=ItemReaderSpec(text_share=0.5, codes_trained=(CODES, CODES, 2)),
        codebooks=codebooks,
        code_vectors=model.code_vectors().detach().numpy(),
        text_adapter=model.text_adapter.weight.detach().numpy().T,
        item_text=model.part_text.numpy().astype(np.float16),
        item_vectors=model.item_vectors().numpy(),
        semantic_ids=model.part_semantic_ids.numpy().astype(np.int32),
        trained=model.part_known.numpy(),
    )


def test_vectors_are_the_models_without_identity() -> None:
    ids = random_ids(20, LEVELS, CODES)
    model = make_model(ids, CODES)
    rng = np.random.default_rng(0)
    reader = reader_of(model, rng.normal(size=(LEVELS, CODES, TEXT_DIM + GRAPH_DIM)).astype(np.float32))
    items = model.items()
    without = items._replace(identity=torch.zeros_like(items.identity))
    text = model.part_text.numpy()
    vectors = reader.vectors(ids.astype(np.int64), text)
    np.testing.assert_allclose(vectors, model.vectors_of(without).detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(vectors[-1], model.item_vectors()[-1].numpy(), atol=1e-5, err_msg="the cold item")
    assert not np.allclose(vectors[0], model.item_vectors()[0].numpy(), atol=1e-2), "the others have an identity"


def test_a_new_item_has_all_but_its_text_from_what_it_is_most_like_that_somebody_took() -> None:
    model = make_model(random_ids(20, LEVELS, CODES), CODES)
    rng = np.random.default_rng(0)
    reader = reader_of(model, rng.normal(size=(LEVELS, CODES, TEXT_DIM + GRAPH_DIM)).astype(np.float32))
    text = np.concatenate([rng.normal(size=(30, TEXT_DIM)), np.zeros((1, TEXT_DIM))]).astype(np.float32)
    read = reader.read(text, NO_LISTS)
    cosine = text[:-1] @ reader.item_text.astype(np.float32)[:-1].T  # the last item is cold
    np.testing.assert_array_equal(read.stand_ins[:-1], cosine.argmax(axis=1))
    assert read.stand_ins[-1] == -1
    items = model.items(torch.from_numpy(read.stand_ins.clip(min=0)))
    alone = model.embed_codes(torch.from_numpy(reader.codes(text)), model.code_vectors()).mean(1)
    expected = items._replace(
        codes=torch.where(torch.from_numpy(read.stand_ins >= 0)[:, None], items.codes, alone),
        text=model.text_adapter(torch.from_numpy(text)),
        identity=items.identity * torch.from_numpy(read.stand_ins >= 0)[:, None],
    )
    np.testing.assert_allclose(read.item_vectors, model.vectors_of(expected).detach().numpy(), atol=5e-3)
    np.testing.assert_allclose(read.item_inputs, model.inputs_of(expected).detach().numpy(), atol=2e-2)


def test_many_new_items_are_placed_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    codebooks = rng.normal(size=(LEVELS, CODES, TEXT_DIM + GRAPH_DIM)).astype(np.float32)
    reader = reader_of(make_model(random_ids(20, LEVELS, CODES), CODES), codebooks)
    text = rng.normal(size=(31, TEXT_DIM)).astype(np.float32)
    at_once, most = reader.place(text), 0

    def cosines(self: ItemReader, part: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, len(part) * len(self.item_text))
        return part @ self.item_text.astype(np.float32).T

    monkeypatch.setattr(item_reader, "_COSINES_AT_ONCE", 100)
    monkeypatch.setattr(ItemReader, "_cosines", cosines)
    in_parts = reader.place(text)
    np.testing.assert_allclose(in_parts.item_inputs, at_once.item_inputs, atol=1e-6)
    np.testing.assert_allclose(in_parts.item_vectors, at_once.item_vectors, atol=1e-6)
    np.testing.assert_array_equal(in_parts.stand_ins, at_once.stand_ins)
    assert most == 100
    assert [len(rows) for rows in reader.place(text[:0])] == [0, 0, 0]


def test_codes_are_the_nearest_trained_ones() -> None:
    model = make_model(random_ids(20, LEVELS, CODES), CODES)
    rng = np.random.default_rng(1)
    codebooks = rng.normal(size=(LEVELS, CODES, TEXT_DIM + GRAPH_DIM)).astype(np.float32)
    codebooks[2, 2:] = 0.0  # not trained, and nearer than the others to what is small
    reader = reader_of(model, codebooks)
    text = rng.normal(size=(50, TEXT_DIM)).astype(np.float32)
    for row, codes in zip(text, reader.codes(text), strict=True):
        residual = np.concatenate([np.sqrt(0.5) * row / np.linalg.norm(row), np.zeros(GRAPH_DIM)])
        for level, trained in enumerate((CODES, CODES, 2)):
            book = codebooks[level, :trained]
            best = np.square(residual - book).sum(axis=1).argmin()
            assert codes[level] == best
            residual = residual - book[best]


def test_nearest_items_weigh_as_content_lists_do_and_no_text_has_none() -> None:
    model = make_model(random_ids(20, LEVELS, CODES), CODES)
    reader = reader_of(model, np.zeros((LEVELS, CODES, TEXT_DIM + GRAPH_DIM), dtype=np.float32))
    text = np.stack([model.part_text[3].numpy(), np.zeros(TEXT_DIM, dtype=np.float32)])
    (rows, weights, places), nothing = reader.read(text, NO_LISTS).near
    cosine = reader.item_text.astype(np.float32) @ model.part_text[3].numpy()
    assert (cosine[rows] > 0).all()
    assert (np.diff(cosine[rows]) <= 0).all()
    np.testing.assert_allclose(weights, cosine[rows] ** 2 / (cosine[rows] ** 2).sum(), rtol=1e-4)
    assert (places == 1.0).all(), "whose list is empty has nobody nearer"
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_its_place_in_the_list_of_another_is_that_of_who_is_as_near() -> None:
    model = make_model(random_ids(20, LEVELS, CODES), CODES)
    reader = reader_of(model, np.zeros((LEVELS, CODES, TEXT_DIM + GRAPH_DIM), dtype=np.float32))
    items = reader.item_text.astype(np.float32)
    owner = 4
    order = np.argsort(-(items @ items[owner]))[:5]
    weights = np.array([0.4, 0.3, 0.15, 0.1, 0.05], dtype=np.float32)
    indptr = np.where(np.arange(21) > owner, 5, 0)
    lists = SparseLists(indptr, order.astype(np.int32), weights)
    near = reader.read(items[order[1]][None], lists).near[0]
    (place,) = near.places[near.rows == owner]
    assert place == pytest.approx(0.3, rel=1e-3)
