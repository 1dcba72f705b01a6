"""LightGCN: the graph's arithmetic against dense matrices, no sample sees its target, and it learns."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from isrf.contract.errors import StageError
from isrf.method.interest import InterestTables, pad_histories, read_history, unit_rows
from isrf.nn.lightgcn import Interactions, LightGCN, LightGCNSettings
from isrf.nn.lightgcn_training import LightGCNVectors, _samples, _score_sides, train_lightgcn

RECENCY = 0.8


def settings(*, epochs: int = 15, learning_rate: float = 0.02, num_negatives: int = 2048) -> LightGCNSettings:
    return LightGCNSettings(
        dim=8,
        recency=RECENCY,
        epochs=epochs,
        batch_size=64,
        learning_rate=learning_rate,
        weight_decay=1e-5,
        num_negatives=num_negatives,
    )


def interactions(histories: list[list[int]], weights: list[float] | None = None) -> Interactions:
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    items = np.array([i for h in histories for i in h], dtype=np.int64)
    return Interactions(users.astype(np.int64), items, None if weights is None else np.array(weights))


def block_shop(num_blocks: int = 4, block: int = 6, users_per_block: int = 25) -> list[list[int]]:
    """Users who take five of the six items of one block, in random order."""
    rng = np.random.default_rng(1)
    return [
        (rng.permutation(block)[:5] + b * block).tolist() for b in range(num_blocks) for _ in range(users_per_block)
    ]


def random_text(num_items: int, dim: int = 5) -> NDArray[np.float32]:
    return unit_rows(np.random.default_rng(2).normal(size=(num_items, dim)).astype(np.float32))


def rank_next(vectors: LightGCNVectors, text: NDArray[np.float32], histories: list[list[int]]) -> NDArray[np.float32]:
    tables = InterestTables(text, vectors.item_layers, np.eye(text.shape[1], dtype=np.float32), RECENCY, 0.5)
    return read_history(tables, *pad_histories(histories, 10)).explicit @ vectors.item_embeddings.T


WEIGHTS = [3.0, 0.5, 1.0, 2.0, 0.0, 0.1, 1.0, 4.0, 2.0]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_propagation_equals_the_dense_formula(weights: list[float] | None) -> None:
    histories = [[0, 1, 2], [2, 3], [1, 1, 4], [3]]
    text = random_text(6)
    model = LightGCN(interactions(histories, weights), text, settings=settings())
    edges, weighed = np.zeros((4, 6)), np.zeros((4, 6))
    left = iter(weights or [1.0] * 9)
    for user, history in enumerate(histories):
        for place, item in enumerate(history):
            weight = next(left)
            weighed[user, item] += weight
            edges[user, item] += weight * RECENCY ** (len(history) - 1 - place)
    degree, lengths = weighed.sum(axis=0), weighed.sum(axis=1)
    normalised = edges / np.sqrt(np.maximum(lengths, 1))[:, None] / np.sqrt(np.maximum(degree, 1))
    zero = (model.item_id * model.known + model.item_text @ model.adapter).detach().numpy()
    users = normalised @ zero
    items = (zero + normalised.T @ users) / 2

    propagated = model.propagate()
    np.testing.assert_allclose(propagated.users.detach().numpy(), users, atol=1e-6)
    np.testing.assert_allclose(propagated.items.detach().numpy(), items, atol=1e-6)
    layers, _ = model.vectors()
    np.testing.assert_allclose(layers, items / np.sqrt(np.maximum(degree, 1))[:, None], atol=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 0.1, 3.0, 1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 4.0, 0.2, 2.0]])
def test_no_training_sample_sees_its_own_user_in_the_graph(weights: list[float] | None) -> None:
    histories = [[0, 1, 2, 0], [2, 1, 3], [1, 3, 4], [0, 4]]
    text = random_text(5)
    data = interactions(histories, weights)
    model = LightGCN(data, text, settings=settings())
    samples = _samples(data, model, RECENCY, prefix_length=50)
    for sample in range(len(samples.stop)):
        user = data.users[samples.stop[sample]]
        query, positive = _score_sides(model, model.propagate(), data, samples, np.array([sample]), RECENCY)
        without = LightGCN(data, text, settings=settings())
        others = torch.ones(4, 1)
        others[user] = 0
        without.edges = (without.edges.to_dense() * others).to_sparse().coalesce()
        without.edges_transposed = without.edges.t().coalesce()
        items = without.propagate().items
        prefix = data.items[samples.start[sample] : samples.stop[sample]]
        ages = torch.tensor([RECENCY**age for age in reversed(range(len(prefix)))], dtype=torch.float32)
        expected = torch.nn.functional.normalize(ages @ (items * model.inverse_degree)[prefix], dim=0)
        np.testing.assert_allclose(query[0].detach().numpy(), expected.detach().numpy(), atol=1e-5)
        score = expected @ items[data.items[samples.stop[sample]]]
        np.testing.assert_allclose(positive.item(), score.item(), atol=1e-5)


def test_samples_are_every_position_after_the_first() -> None:
    data = interactions([[4, 5, 6], [], [7], [8, 9]])
    model = LightGCN(data, random_text(10), settings=settings())
    samples = _samples(data, model, RECENCY, prefix_length=50)
    read = [(data.items[a:b].tolist(), int(data.items[b])) for a, b in zip(samples.start, samples.stop, strict=True)]
    assert read == [([4], 5), ([4, 5], 6), ([8], 9)]


def test_a_sample_weighs_as_its_target_and_one_of_weight_0_is_none() -> None:
    data = interactions([[4, 5, 6], [7], [8, 9, 5]], [1.0, 3.0, 0.0, 5.0, 0.0, 1.0, 2.0])
    model = LightGCN(data, random_text(10), settings=settings())
    samples = _samples(data, model, RECENCY, prefix_length=50)
    assert data.items[samples.stop].tolist() == [5, 9, 5]
    assert samples.weight.tolist() == [1.5, 0.5, 1.0]
    assert model.known[[4, 8, 6], 0].tolist() == [1.0, 0.0, 0.0], "an edge of weight 0 is no edge"
    assert data.items[samples.start[1] : samples.stop[1]].tolist() == [8], "but history"


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_equal_weights_train_as_none(weight: float) -> None:
    histories = block_shop()
    data, text = interactions(histories), random_text(24)
    equal = interactions(histories, [weight] * len(data.items))
    one, other = (train_lightgcn(part, text, settings=settings(epochs=2)) for part in (data, equal))
    if weight == 1:
        for mine, its in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, its)
    else:
        assert one.losses == pytest.approx(other.losses, rel=0.2), "the learning rate means the same"


def test_heavier_interactions_are_learned_more() -> None:
    # After item 0 half of the users take item 1, the others item 2; both have text of their own.
    histories = [[0, 1 + user % 2] for user in range(60)]
    heavy = [weight for user in range(60) for weight in (1.0, 1.0 if user % 2 == 0 else 0.1)]
    text = unit_rows(np.eye(3, dtype=np.float32))
    plain, weighed = (
        rank_next(train_lightgcn(interactions(histories, weights), text, settings=settings()), text, [[0]])[0]
        for weights in (None, heavy)
    )
    assert abs(plain[1] - plain[2]) < 0.5
    assert weighed[1] > weighed[2] + 1.0


@pytest.mark.parametrize("num_negatives", [4096, 12])
def test_it_recommends_the_missing_item_of_the_users_block(num_negatives: int) -> None:
    histories = block_shop()
    text = np.zeros((24, 3), dtype=np.float32)  # the graph alone
    vectors = train_lightgcn(interactions(histories), text, settings=settings(num_negatives=num_negatives))
    scores = rank_next(vectors, text, histories)
    for user, history in enumerate(histories):
        block = history[0] // 6
        missing = next(i for i in range(block * 6, block * 6 + 6) if i not in history)
        elsewhere = np.delete(scores[user], np.arange(block * 6, block * 6 + 6))
        assert scores[user, missing] > elsewhere.max()
    assert vectors.losses[-1] < vectors.losses[0]


def test_an_item_nobody_took_is_read_by_its_text() -> None:
    histories = block_shop()
    text = unit_rows(np.eye(4, dtype=np.float32)[np.append(np.repeat(np.arange(4), 6), 2)])  # item 24 is of block 2
    vectors = train_lightgcn(interactions(histories), text, settings=settings())
    scores = rank_next(vectors, text, [[24]])
    assert scores[0, :24].argmax() // 6 == 2
    assert not vectors.item_embeddings[24].any()


def test_two_trainings_are_equal_bit_for_bit() -> None:
    data, text = interactions(block_shop()), random_text(24)
    first, second = (train_lightgcn(data, text, settings=settings(epochs=2)) for _ in range(2))
    assert first.losses == second.losses
    np.testing.assert_array_equal(first.item_layers, second.item_layers)
    np.testing.assert_array_equal(first.item_embeddings, second.item_embeddings)


def test_users_with_one_event_leave_nothing_to_train_but_vectors() -> None:
    vectors = train_lightgcn(interactions([[0], [1]]), random_text(2), settings=settings(epochs=1))
    assert vectors.item_layers.shape == (2, 8)
    assert np.isfinite(vectors.item_layers).all()


def test_fewer_samples_than_one_batch_are_enough() -> None:
    vectors = train_lightgcn(interactions([[0, 1]]), random_text(2), settings=settings(epochs=1))
    assert len(vectors.losses) == 1
    assert np.isfinite(vectors.item_layers).all()


def test_divergence_ends_in_an_error_that_names_the_setting() -> None:
    with pytest.raises(StageError) as caught:
        train_lightgcn(interactions(block_shop()), random_text(24), settings=settings(learning_rate=1e30))
    assert caught.value.code == "graph.nan_loss"
    assert "graph.learning_rate" in caught.value.fix
