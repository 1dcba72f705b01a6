"""The search finds what brute force finds and never leaves the allowed items."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch, SearchTensors, ranked_topk
from tests.isrf.nn.toy import make_model, make_request, random_ids, search_inputs


@torch.no_grad()
def brute_force(model: IsrfModel, request: dict[str, Tensor]) -> Tensor:
    """(B, N) log-probability of every item, teacher-forced through transformers' own forward.

    By definition: Σ over levels of the log softmax over the codes that some item has after the same prefix.
    """
    inputs = model.item_inputs()[request["history"]]
    encoded = model.encode(inputs, request["mask"], request["explicit"], request["group"], request["task"])
    rows = model.part_semantic_ids.tolist()
    columns = []
    for codes in rows:
        decoded = model.decode(encoded, torch.tensor(codes).expand(len(inputs), -1))
        total = torch.zeros(len(inputs))
        for level, code in enumerate(codes):
            siblings = sorted({row[level] for row in rows if row[:level] == codes[:level]})
            logits = decoded.codes[:, level, siblings]
            logits = logits + by_content(model, decoded.content[:, level], codes[:level], siblings)
            log_probs = torch.log_softmax(logits, dim=-1)
            total += log_probs[:, siblings.index(code)]
        columns.append(total)
    return torch.stack(columns, dim=1)


def by_content(model: IsrfModel, asked: Tensor, prefix: list[int], siblings: list[int]) -> Tensor:
    """(B, siblings) by definition: what is asked of the mean of the dense vectors below, and of the log of how many."""
    columns = []
    for code in siblings:
        path = torch.tensor([*prefix, code])
        below = model.item_vectors()[(model.part_semantic_ids[:, : len(path)] == path).all(1)]
        mean = below.mean(0) @ model.node_projection.T
        columns.append(asked[:, :-1] @ mean + asked[:, -1] * np.log(len(below)))
    return torch.stack(columns, dim=1)


def run(search: ConstrainedSearch, semantic_ids: NDArray[np.int32], **request: Tensor) -> SearchTensors:
    with torch.no_grad():
        return SearchTensors(*search(*search_inputs(search, semantic_ids, **request)))


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[NDArray[np.int32], int]:
    """Few to forty items: spread out, or crowded below one or two prefixes."""
    codebook_size = draw(st.integers(2, 6))
    levels = draw(st.integers(2, 4))
    first = draw(st.integers(1, codebook_size))
    code = st.integers(0, codebook_size - 1)
    rows = draw(st.sets(st.tuples(st.integers(0, first - 1), *[code] * (levels - 1)), min_size=2, max_size=40))
    return np.array(draw(st.permutations(sorted(rows))), dtype=np.int32), codebook_size


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[np.int32], int, NDArray[np.bool_], int]:
    """A catalogue and what two requests may answer: anything from nothing to everything."""
    semantic_ids, codebook_size = draw(catalogues())
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    seed = draw(st.integers(0, 99))
    allowed = np.random.default_rng(seed).random((2, len(semantic_ids))) < share
    return semantic_ids, codebook_size, allowed, seed


@given(problems())
@settings(deadline=None, max_examples=40)
def test_with_enough_beams_the_search_is_exhaustive(
    problem: tuple[NDArray[np.int32], int, NDArray[np.bool_], int],
) -> None:
    semantic_ids, codebook_size, allowed, seed = problem
    model = make_model(semantic_ids, codebook_size, seed=seed)
    request = make_request(model, 2, seed=seed)
    num_beams = len(semantic_ids) + 3
    output = run(
        ConstrainedSearch(model, num_beams=num_beams),
        semantic_ids,
        allowed=torch.from_numpy(allowed),
        **request,
    )
    scores = brute_force(model, request)
    assert output.beam_items.shape == (2, num_beams)
    for row in range(2):
        wanted = sorted(np.flatnonzero(allowed[row]).tolist(), key=lambda item: -scores[row, item].item())
        found = [item for item in output.beam_items[row].tolist() if item >= 0]
        best = output.beam_log_probs[row, : len(found)]
        assert sorted(found) == sorted(wanted)
        torch.testing.assert_close(best, scores[row, found], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(best, scores[row, wanted], rtol=1e-5, atol=1e-5)
        assert output.beam_items[row, len(found) :].eq(-1).all()
        assert output.beam_log_probs[row, len(found) :].eq(-torch.inf).all()


@given(problems(), st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_no_beam_is_ever_stranded(
    problem: tuple[NDArray[np.int32], int, NDArray[np.bool_], int], num_beams: int
) -> None:
    """However few items are allowed, exactly min(K, allowed) beams end alive, each with its own exact score."""
    semantic_ids, codebook_size, allowed, seed = problem
    model = make_model(semantic_ids, codebook_size, seed=seed)
    request = make_request(model, 2, seed=seed)
    output = run(
        ConstrainedSearch(model, num_beams=num_beams),
        semantic_ids,
        allowed=torch.from_numpy(allowed),
        **request,
    )
    scores = brute_force(model, request)
    for row in range(2):
        found = output.beam_items[row][output.beam_items[row] >= 0]
        assert len(found) == len(set(found.tolist())) == min(num_beams, int(allowed[row].sum()))
        assert allowed[row][found.numpy()].all()
        best = output.beam_log_probs[row, : len(found)]
        torch.testing.assert_close(best, scores[row, found], rtol=1e-5, atol=1e-5)
        assert (best[1:] <= best[:-1]).all()


@pytest.mark.parametrize("feed_forward_proj", ["relu", "gated-gelu"])
def test_own_forward_equals_that_of_transformers(feed_forward_proj: str) -> None:
    semantic_ids = random_ids(30, 3, 5)
    model = make_model(semantic_ids, 5, feed_forward_proj=feed_forward_proj)
    request = make_request(model, 7)
    search = ConstrainedSearch(model, num_beams=30)
    with torch.no_grad():
        inputs = model.item_inputs()[request["history"]]
        rest = [request[name] for name in ("mask", "explicit", "group", "task")]
        theirs = model.encode(inputs, *rest)
        source, mask = model.source(inputs, *rest)
        length = source.shape[1]
        ours = search.encoder(source, mask, search.encoder_bias[:, :, :length, :length])
    torch.testing.assert_close(ours[mask], theirs.states[mask], rtol=1e-5, atol=1e-5)
    output = run(search, semantic_ids, **request)
    torch.testing.assert_close(output.query, theirs.query, rtol=1e-5, atol=1e-5)
    scores = brute_force(model, request).gather(1, output.beam_items)
    torch.testing.assert_close(output.beam_log_probs, scores, rtol=1e-5, atol=1e-5)


def test_without_beams_the_search_ends_at_the_query() -> None:
    semantic_ids = random_ids(30, 3, 5)
    model = make_model(semantic_ids, 5)
    request = make_request(model, 4)
    search = ConstrainedSearch(model, num_beams=0)
    with torch.no_grad():
        (query,) = search(*search_inputs(search, semantic_ids, **request))
    assert torch.equal(query, run(ConstrainedSearch(model, num_beams=3), semantic_ids, **request).query)


def test_the_generative_path_is_a_distribution_over_the_catalogue() -> None:
    semantic_ids = random_ids(50, 4, 3)
    model = make_model(semantic_ids, 3)
    output = run(ConstrainedSearch(model, num_beams=50), semantic_ids, **make_request(model, 3))
    torch.testing.assert_close(output.beam_log_probs.exp().sum(1), torch.ones(3))


def test_the_decoder_reads_only_beams_that_have_something_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the first two codes one item is left, but for one prefix: of ten beams the decoder reads two at most."""
    pairs = [(first, second) for first in range(5) for second in range(5)]
    semantic_ids = np.array([(*pair, 1, 2) for pair in pairs] + [(3, 3, 0, 0), (3, 3, 0, 4)], dtype=np.int32)
    search = ConstrainedSearch(make_model(semantic_ids, 5), num_beams=10)
    widths: list[int] = []
    step = search.decoder.step

    def spy(tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        widths.append(tokens.shape[1])
        return step(tokens, *args, **kwargs)

    monkeypatch.setattr(search.decoder, "step", spy)
    request = make_request(search.model, 3)
    output = run(search, semantic_ids, **request)
    assert widths == [1, 5, 2, 2]
    scores = brute_force(search.model, request).gather(1, output.beam_items)
    torch.testing.assert_close(output.beam_log_probs, scores, rtol=1e-5, atol=1e-5)


def test_padding_and_company_change_nothing() -> None:
    semantic_ids = random_ids(60, 3, 6)
    model = make_model(semantic_ids, 6)
    request = make_request(model, 5)
    search = ConstrainedSearch(model, num_beams=8)
    together = run(search, semantic_ids, **request)
    for row in range(5):
        alone = {name: value[row : row + 1] for name, value in request.items()}
        length = int(alone["mask"].sum())
        alone["history"], alone["mask"] = alone["history"][:, :length], alone["mask"][:, :length]
        for ours, theirs in zip(run(search, semantic_ids, **alone), together, strict=True):
            torch.testing.assert_close(ours[0], theirs[row], rtol=1e-5, atol=1e-5)


def test_equal_scores_go_to_the_lower_leaf() -> None:
    semantic_ids = random_ids(27, 3, 3)  # a full trie: every prefix has as many codes after it
    model = make_model(semantic_ids, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    output = run(ConstrainedSearch(model, num_beams=7), semantic_ids, **make_request(model, 2))
    in_order = np.lexsort(semantic_ids.T[::-1])[:7]
    assert output.beam_items[0].tolist() == output.beam_items[1].tolist()
    # Among equal prefixes the beams keep the lower ones, so the answer is the lowest leaves below them.
    assert output.beam_items[0].tolist() == in_order.tolist()


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0, -float("inf"), 3e-39]), min_size=1, max_size=30), st.data())
@settings(deadline=None)
def test_ranked_topk_orders_ties_by_column(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    best, columns = ranked_topk(torch.tensor([values]), k)
    wanted = sorted(range(len(values)), key=lambda column: (-values[column], column))[:k]
    assert columns[0].tolist() == wanted
    assert best[0].tolist() == pytest.approx([values[column] for column in wanted])
