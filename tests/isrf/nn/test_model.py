"""What the model reads, drops and shares."""

import pytest
import torch

from isrf.nn.model import ItemVectors
from tests.isrf.nn.toy import make_model, make_request, random_ids

IDS = random_ids(20, 3, 4)


def test_a_cold_item_reads_and_scores_by_its_content_alone() -> None:
    model = make_model(IDS, 4)
    before = model.item_inputs(), model.item_vectors()
    with torch.no_grad():
        model.item_ids.weight += 1.0
        model.graph_adapter.weight += 1.0
    after = model.item_inputs(), model.item_vectors()
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new[-1], old[-1], rtol=0, atol=0)
        assert (new[:-1] != old[:-1]).any(dim=1).all()
        assert new[-1].abs().sum() > 0


def test_some_rows_are_the_same_rows_of_all() -> None:
    model = make_model(IDS, 4)
    rows = torch.tensor([7, 3, 3, 19])
    for some, every in zip(model.items(rows), model.items(), strict=True):
        torch.testing.assert_close(some, every[rows])


def test_the_identity_part_is_dropped_for_the_configured_share() -> None:
    model = make_model(IDS, 4, item_id_dropout=0.3)
    kept = model.draw_identity(model.items(), (200, 50), torch.Generator().manual_seed(0))
    assert kept.shape == (200, 50, 1)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert abs(kept.mean().item() - 0.7) < 0.02


def test_input_and_output_share_an_items_vector() -> None:
    model = make_model(IDS, 4)
    items = model.items()
    torch.testing.assert_close(model.inputs_of(items), model.vectors_of(items) * 4.0)
    for name in ItemVectors._fields:  # and every part counts
        without = items._replace(**{name: torch.zeros_like(getattr(items, name))})
        assert not torch.allclose(model.vectors_of(without), model.vectors_of(items), atol=1e-3)


def test_every_input_reaches_the_answer_and_masked_items_do_not() -> None:
    model = make_model(IDS, 4)
    request = make_request(model, 1)
    request["mask"][0, :] = torch.tensor([True, True, True, False, False, False])
    request["task"][0] = 0

    def query(**changed: torch.Tensor) -> torch.Tensor:
        merged = {**request, **changed}
        inputs = model.item_inputs()[merged["history"]]
        with torch.no_grad():
            return model.encode(inputs, *(merged[n] for n in ("mask", "explicit", "group", "task"))).query

    base = query()
    assert not torch.allclose(query(explicit=request["explicit"] + 1), base, atol=1e-4)
    assert not torch.allclose(query(group=request["group"] + 1), base, atol=1e-4)
    assert not torch.allclose(query(task=torch.ones(1, dtype=torch.int64)), base, atol=1e-4)
    swapped = request["history"].clone()
    swapped[0, :2] = swapped[0, :2].flip(0)
    assert not torch.allclose(query(history=swapped), base, atol=1e-4)
    hidden = request["history"].clone()
    hidden[0, 3:] = 11
    torch.testing.assert_close(query(history=hidden), base, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("part", ["explicit", "group"])
def test_a_model_that_does_without_an_interest_answers_alike_whatever_it_is(part: str) -> None:
    model = make_model(IDS, 4)
    model.spec = model.spec.model_copy(update={f"reads_{part}": False})
    request = make_request(model, 2)
    inputs = model.item_inputs()[request["history"]]
    queries = []
    for changed in (request, {**request, part: request[part] + 1}):
        encoded = model.encode(inputs, *(changed[n] for n in ("mask", "explicit", "group", "task")))
        queries.append(encoded.query)
        assert bool(encoded.group.any()) == (part != "group")  # the alignment has nothing to pull to either
    torch.testing.assert_close(*queries, rtol=0, atol=0)


def test_decoding_a_level_depends_on_the_codes_before_it_only() -> None:
    model = make_model(IDS, 4)
    request = make_request(model, 2)
    inputs = model.item_inputs()[request["history"]]
    codes = torch.tensor([[0, 1, 2], [3, 2, 1]])
    later = torch.tensor([[0, 3, 0], [3, 0, 3]])
    with torch.no_grad():
        encoded = model.encode(inputs, *(request[n] for n in ("mask", "explicit", "group", "task")))
        one, other = model.decode(encoded, codes), model.decode(encoded, later)
    assert one.codes.shape == (2, 3, 4)
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours[:, :2], theirs[:, :2])
        assert not torch.allclose(ours[:, 2], theirs[:, 2], atol=1e-4)


def test_a_code_knows_what_its_items_are_like() -> None:
    """Residual content: what a code's items share, less what the levels before already said."""
    model = make_model(IDS, 4)
    content = model.code_content
    raw = torch.cat([model.part_text, model.part_graph], dim=1)
    raw = raw - raw.mean(0)
    for level in range(2):
        codes = model.part_semantic_ids[:, level]
        means = torch.stack([raw[codes == code].mean(0) if (codes == code).any() else raw[0] * 0 for code in range(4)])
        ratio = content[level][means.abs() > 0.1] / means[means.abs() > 0.1]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=1e-3)
        raw = raw - means[codes]
