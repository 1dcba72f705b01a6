"""The losses, by hand on small numbers."""

import math

import numpy as np
import pytest
import torch

from isrf.method.trie import build_trie
from isrf.nn.losses import (
    alignment_loss,
    candidate_loss,
    dense_loss,
    generation_loss,
    loss_weights,
    sampled_dense_loss,
)
from isrf.nn.siblings import Siblings


def test_generation_is_the_mean_over_samples_and_levels_among_siblings() -> None:
    """Level 1 chooses among four equal codes, level 2 between a code of weight 5 and one of weight 1."""
    logits = torch.zeros(1, 2, 4)
    logits[0, 1, 3] = math.log(5.0)
    siblings = torch.tensor([[[True, True, True, True], [False, True, False, True]]])
    by_hand = (math.log(4) - math.log(5 / 6)) / 2
    assert generation_loss(logits, torch.tensor([[0, 3]]), siblings).item() == pytest.approx(by_hand)


@pytest.fixture
def siblings() -> Siblings:
    semantic_ids = np.array([[0, 0], [0, 2], [2, 1], [2, 0]], dtype=np.int32)
    return Siblings.of(build_trie(semantic_ids, 3), torch.device("cpu"))


def test_a_code_competes_with_those_after_the_same_prefix(siblings: Siblings) -> None:
    choices = siblings.choices(torch.tensor([1, 2]), 3)
    assert choices.exists.tolist() == [[[True, True, False]] * 2] * 2
    assert choices.codes[choices.exists].tolist() == [0, 2, 0, 2, 0, 2, 0, 1]
    own = choices.codes.gather(2, choices.own[:, :, None])[:, :, 0]
    assert own.tolist() == [[0, 2], [2, 1]]


def test_a_teacher_over_items_says_what_each_choice_is_worth(siblings: Siblings) -> None:
    beliefs = torch.tensor([[0.1, 0.3, 0.6, 0.0], [0.5, 0.2, 0.2, 0.1]])
    found = siblings.conditionals(siblings.choices(torch.tensor([1, 2]), 3), beliefs)
    by_hand = [[[0.4, 0.6, 0], [0.25, 0.75, 0]], [[0.7, 0.3, 0], [1 / 3, 2 / 3, 0]]]
    torch.testing.assert_close(found, torch.tensor(by_hand))


def test_a_node_holds_the_mean_of_the_items_below(siblings: Siblings) -> None:
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 6.0], [0.0, 2.0]])
    by_hand = [[1.0, 2.0], [2.0, 0.0], [0.0, 4.0], [1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 6.0]]
    torch.testing.assert_close(siblings.means(vectors), torch.tensor(by_hand))
    assert siblings.leaf_counts().tolist() == [4, 2, 2, 1, 1, 1, 1]


def test_the_teacher_weighs_as_much_as_it_is_told() -> None:
    logits, codes = torch.zeros(1, 1, 3), torch.tensor([[2]])
    logits[0, 0, 2] = math.log(2.0)
    siblings, taught = torch.tensor([[[True, False, True]]]), torch.tensor([[[0.75, 0.0, 0.25]]])
    own, teachers = -math.log(2 / 3), -0.75 * math.log(1 / 3) - 0.25 * math.log(2 / 3)
    loss = generation_loss(logits, codes, siblings, taught=taught, distillation=0.4)
    assert loss.item() == pytest.approx(0.6 * own + 0.4 * teachers)


def test_dense_is_the_softmax_over_all_items() -> None:
    query = torch.tensor([[1.0, 0.0]])
    vectors = torch.tensor([[math.log(3.0), 9.0], [0.0, 9.0], [0.0, -9.0]])
    assert dense_loss(query @ vectors.T, torch.tensor([0])).item() == pytest.approx(-math.log(3 / 5))


def test_sampling_the_whole_catalogue_once_is_the_full_softmax() -> None:
    torch.manual_seed(0)
    query, vectors, target = torch.randn(5, 3), torch.randn(11, 3), torch.tensor([0, 3, 3, 10, 7])
    collision = torch.arange(11)[None] == target[:, None]
    sampled = sampled_dense_loss(query, vectors[target], vectors, collision=collision, num_items=11)
    torch.testing.assert_close(sampled, dense_loss(query @ vectors.T, target))


def test_sampled_negatives_stand_for_the_whole_catalogue() -> None:
    query, vectors = torch.zeros(1, 2), torch.zeros(10, 2)
    collision = torch.zeros(1, 10, dtype=torch.bool)
    loss = sampled_dense_loss(query, vectors[:1], vectors, collision=collision, num_items=1000)
    assert loss.item() == pytest.approx(math.log(1001))


def test_a_candidate_that_repeats_the_target_does_not_count() -> None:
    candidates = torch.zeros(1, 4, 2)
    collision = torch.tensor([[False, True, False, False]])
    assert candidate_loss(torch.zeros(1, 2), candidates, collision).item() == pytest.approx(math.log(3))


def align(pulled: torch.Tensor, anchor: torch.Tensor, users: list[int], valid: list[bool]) -> torch.Tensor:
    return alignment_loss(pulled, anchor, valid=torch.tensor(valid), users=torch.tensor(users), temperature=0.5)


def test_alignment_by_hand() -> None:
    """Cosines 1 and 0 at temperature 0.5: two logits, 2 and 0; lengths do not matter."""
    pulled = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    loss = align(pulled, torch.eye(2), [0, 1], [True, True])
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)


def test_only_the_pulled_side_moves() -> None:
    pulled, anchor = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    align(pulled, anchor, [0, 1, 2], [True] * 3).backward()  # type: ignore[no-untyped-call]
    assert pulled.grad is not None
    assert pulled.grad.abs().sum() > 0
    assert anchor.grad is None


def test_the_same_users_other_samples_are_no_negatives() -> None:
    pulled, anchor = torch.randn(3, 4), torch.randn(3, 4)
    alone = align(pulled[:1], anchor[:1], [7], [True])
    assert alone.item() == 0.0  # no negative at all
    both = align(pulled[:2], anchor[:2], [7, 7], [True, True])
    assert both.item() == 0.0
    assert align(pulled[:2], anchor[:2], [7, 8], [True, True]).item() > 0.0


def test_samples_without_a_group_take_no_part() -> None:
    torch.manual_seed(1)
    pulled, anchor = torch.randn(4, 3), torch.randn(4, 3)
    masked = align(pulled, anchor, [0, 1, 2, 3], [True, True, False, True])
    kept = [0, 1, 3]
    torch.testing.assert_close(masked, align(pulled[kept], anchor[kept], kept, [True] * 3))
    zeros = torch.zeros(2, 3, requires_grad=True)
    nothing = align(zeros, torch.zeros(2, 3), [0, 1], [False, False])
    nothing.backward()  # type: ignore[no-untyped-call]
    assert nothing.item() == 0.0
    assert zeros.grad is not None
    assert torch.isfinite(zeros.grad).all()


@pytest.mark.parametrize("weights", [[1.5, 0.5, 1.0], [3.0, 0.0, 0.0]])
def test_a_sample_s_loss_has_its_weight(weights: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor(weights)
    scores, target = torch.randn(3, 5, generator=generator), torch.tensor([1, 0, 4])
    query, vectors = torch.randn(3, 2, generator=generator), torch.randn(3, 4, 2, generator=generator)
    collision = torch.zeros(3, 4, dtype=torch.bool)
    logits, own = torch.randn(3, 2, 5, generator=generator), torch.tensor([[0, 1], [2, 2], [4, 0]])
    exists, taught = torch.ones(3, 2, 5, dtype=torch.bool), torch.full((3, 2, 5), 0.2)

    def losses(rows: list[int], part: torch.Tensor | None) -> list[torch.Tensor]:
        return [
            dense_loss(scores[rows], target[rows], weight=part),
            candidate_loss(query[rows], vectors[rows], collision[rows], weight=part),
            sampled_dense_loss(
                query[rows], vectors[rows, 0], vectors[0], collision=collision[rows], num_items=9, weight=part
            ),
            generation_loss(logits[rows], own[rows], exists[rows], taught=taught[rows], distillation=0.3, weight=part),
        ]

    alone = [torch.stack(parts) for parts in zip(*(losses([row], None) for row in range(3)), strict=True)]
    for found, single in zip(losses([0, 1, 2], weight), alone, strict=True):
        torch.testing.assert_close(found, (single * weight).mean())
    for found, single in zip(losses([0, 1, 2], torch.ones(3)), losses([0, 1, 2], None), strict=True):
        torch.testing.assert_close(found, single)


def test_weights_of_1_need_no_weighing() -> None:
    assert loss_weights(np.ones(3, np.float32)) is None
    found = loss_weights(np.array([0.5, 1.5], np.float32))
    assert found is not None
    assert found.tolist() == [0.5, 1.5]
