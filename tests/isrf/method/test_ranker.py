"""The ranker's score by hand, in NumPy and in torch; its explanations; what it does where there is little to rank."""

import re

import numpy as np
import pytest
import torch

from isrf.contract.errors import BundleError
from isrf.contract.manifest import FusionWeights, RankerSpec
from isrf.method.ranking.fusion import CHANNELS, EVIDENCE_CHANNELS, Candidates, fuse
from isrf.method.ranking.ranker import CONTEXT, FEATURES, TOP, Ranker, Scale, layout, ranked_items, read_inputs, rerank
from isrf.nn.ranker import RankerNet
from tests.isrf.method.candidate_sets import candidate_set

FUSION = FusionWeights(
    weights=dict.fromkeys(CHANNELS, 0.5) | {"group": 1.5, "dense": 1.0},
    epsilons=dict.fromkeys(EVIDENCE_CHANNELS, 0.01),
    beam_gap=1.0,
)
NUM_ITEMS = 400


def some_candidates(count: int, *, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    items = np.sort(rng.choice(NUM_ITEMS, count, replace=False)).tolist()

    def distribution() -> dict[int, float]:
        return {item: float(rng.random()) / count for item in items if rng.random() < 0.4}

    return candidate_set(
        items,
        beams={item: -float(rng.random()) - 1 for item in items[::7]},
        dense=rng.normal(size=count).astype(np.float32),
        explicit=rng.normal(size=count).astype(np.float32),
        evidence={name: distribution() for name in EVIDENCE_CHANNELS},
        last_item={name: distribution() for name in EVIDENCE_CHANNELS[1:]},
    )


def scales(rng: np.random.Generator) -> tuple[Scale, Scale]:
    f, g = len(FEATURES), len(CONTEXT)
    features = Scale(rng.normal(size=f).astype("f"), rng.uniform(1, 3, f).astype("f"))
    return features, Scale(rng.normal(size=g).astype("f"), rng.uniform(1, 3, g).astype("f"))


def made(seed: int = 1, *, without: tuple[str, ...] = ()) -> tuple[Ranker, RankerNet]:
    """A ranker of random numbers, and the torch model that they come from."""
    torch.manual_seed(seed)
    net = RankerNet()
    torch.nn.init.normal_(net.last.weight)
    parts = net.parts(*scales(np.random.default_rng(seed)))
    return Ranker.of(parts, without=without, validation={}), net


def log_linear() -> Ranker:
    """One whose MLP says nothing: fitting begins there."""
    return Ranker.of(RankerNet().parts(*scales(np.random.default_rng(0))), without=(), validation={})


def test_the_score_is_the_one_computed_by_hand() -> None:
    parts = {name: np.zeros(shape, np.float32) for name, shape in layout(2).items()}
    for name in ("feature_deviation", "context_deviation"):
        parts[name] += 2
    parts["base_weight"][:] = 3
    parts["feature_mean"][FEATURES.index("beam")] = -1
    parts["first"][FEATURES.index("beam"), 0] = 1
    parts["first"][len(FEATURES) + CONTEXT.index("length"), 0] = 4
    parts["second"][0, 1], parts["second_bias"][1], parts["last"][1], parts["last_bias"][0] = 1, 0.5, 10, 7
    features, context = np.zeros((1, len(FEATURES)), "f"), np.zeros(len(CONTEXT), "f")
    features[0, FEATURES.index("beam")], context[CONTEXT.index("length")] = 1, 0.25
    found = Ranker.of(parts, without=(), validation={}).scores(np.array([2.0], "f"), features, context)
    # First unit: (1 + 1) / 2 + 4 · 0.25 / 2 = 1.5; GELU(1.5) = 1.3996; GELU(1.8996) = 1.8450.
    assert found[0] == pytest.approx(3 * 2 + 10 * 1.8450 + 7, abs=2e-3)


def test_numpy_and_torch_score_alike() -> None:
    ranker, net = made()
    inputs = read_inputs(some_candidates(200), FUSION)
    base = inputs.weighed.scores
    part = ranker.parts
    with torch.no_grad():
        in_torch = net(
            torch.from_numpy(base)[None],
            torch.from_numpy(Scale(part["feature_mean"], part["feature_deviation"]).apply(inputs.features))[None],
            torch.from_numpy(Scale(part["context_mean"], part["context_deviation"]).apply(inputs.context))[None],
        )[0].numpy()
    np.testing.assert_allclose(ranker.scores(base, inputs.features, inputs.context), in_torch, rtol=1e-5, atol=1e-5)


def test_inputs_are_those_written_down_by_hand() -> None:
    one = candidate_set(
        [3, 8],
        beams={8: -2.0},
        dense=np.array([-1.0, -4.0], "f"),
        evidence={"transition": {3: 0.5}},
        last_item={"transition": {8: 0.25}},
        history_length=4,
        takers=np.array([3.0, 8.0], "f"),
        last_takers=6.0,
    )
    read = read_inputs(one, FUSION)
    column = {name: read.features[:, place] for place, name in enumerate(FEATURES)}
    np.testing.assert_allclose(column["log generative"], [-3.0, -2.0])
    np.testing.assert_allclose(column["log transition"], np.log([0.50001, 0.00001]), rtol=1e-5)
    np.testing.assert_allclose(column["last transition"], np.log([0.0001, 0.2501]), rtol=1e-5)
    np.testing.assert_allclose(column["popularity"], np.log([4.0, 9.0]), rtol=1e-6)
    assert (column["beam"].tolist(), column["any transition"].tolist()) == ([0, 1], [1, 0])
    context = dict(zip(CONTEXT, read.context.tolist(), strict=True))
    assert context["length"] == pytest.approx(np.log(4))
    assert context["last popularity"] == pytest.approx(np.log(7))
    assert context["best dense"] == -1.0
    assert context["best transition"] == pytest.approx(np.log(0.501))
    blind = read_inputs(one, FUSION, without=("transition", "dense"))
    for name in ("log transition", "any transition", "last transition", "log dense"):
        assert not blind.features[:, FEATURES.index(name)].any()
    assert blind.context[[CONTEXT.index("best dense"), CONTEXT.index("best transition")]].tolist() == [0, 0]


def test_the_first_are_reordered_and_the_rest_stays_behind_them() -> None:
    candidates, (ranker, _) = some_candidates(300), made()
    fused, ranked = fuse(candidates, FUSION), rerank(candidates, FUSION, ranker, explained=10)
    assert set(ranked.items[:TOP].tolist()) == set(fused.items[:TOP].tolist())
    assert ranked.items[:TOP].tolist() != fused.items[:TOP].tolist()
    assert ranked.items[TOP:].tolist() == fused.items[TOP:].tolist()
    assert np.all(np.diff(ranked.scores) <= 0)
    assert ranked.items.tolist() == ranked_items(candidates, FUSION, ranker).tolist()


@pytest.mark.parametrize("explained", [1, 10, 200, 500])
def test_a_log_linear_ranker_orders_and_explains_as_fusion_does(explained: int) -> None:
    candidates = some_candidates(300)
    fused = fuse(candidates, FUSION)
    ranked = rerank(candidates, FUSION, log_linear(), explained=explained)
    assert ranked.items.tolist() == fused.items.tolist()
    np.testing.assert_allclose(ranked.scores, fused.scores, rtol=1e-6)
    np.testing.assert_allclose(ranked.contributions, fused.contributions[:explained], atol=1e-6)
    assert ranked.sources == fused.sources[:explained]


def test_a_contribution_is_the_score_that_goes_with_the_channel() -> None:
    candidates, (ranker, _) = some_candidates(60), made()
    ranked = rerank(candidates, FUSION, ranker, explained=3)
    inputs = read_inputs(candidates, FUSION)
    own = {"log transition", "any transition", "last transition"}
    columns = [place for place, name in enumerate(FEATURES) if name in own]
    for place in range(3):
        at = int(np.flatnonzero(candidates.items == ranked.items[place])[0])
        features = inputs.features[at : at + 1].copy()
        features[:, columns] = inputs.features[:, columns].mean(axis=0)
        logs, channel = inputs.weighed.logs, CHANNELS.index("transition")
        base = inputs.weighed.scores[at] - 0.5 * (logs[at, channel] - logs[:, channel].mean())
        without = ranker.scores(np.array([base], "f"), features, inputs.context)[0]
        assert ranked.contributions[place, channel] == pytest.approx(ranked.scores[place] - without, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_candidates_are_ranked_without_a_hole(count: int) -> None:
    ranked = rerank(some_candidates(count), FUSION, made()[0], explained=10)
    assert len(ranked.items) == len(ranked.sources) == count
    assert np.isfinite(ranked.scores).all()
    assert np.isfinite(ranked.contributions).all()


def test_a_ranker_survives_its_numbers_and_refuses_others() -> None:
    ranker, _ = made(without=("group",))
    for back in (Ranker.from_values(ranker.spec, ranker.values()), Ranker.from_stored(ranker.stored())):
        assert back.spec == ranker.spec
        assert all(np.array_equal(back.parts[name], part) for name, part in ranker.parts.items())
    for spec, values in (
        (ranker.spec, ranker.values()[:-1]),
        (ranker.spec.model_copy(update={"features": ("colour", *FEATURES[1:])}), ranker.values()),
        (ranker.spec.model_copy(update={"without": ("colour",)}), ranker.values()),
        (ranker.spec, ranker.values() * np.float32(np.nan)),
    ):
        with pytest.raises(BundleError) as error:
            Ranker.from_values(spec, values)
        assert error.value.code == "bundle.ranker"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"features": ()}, "no names in the manifest's ranker.features"),
        ({"context": ()}, "no names in the manifest's ranker.context"),
        ({"features": (FEATURES[0], *FEATURES[:-1])}, f"{FEATURES[0]!r} twice"),
        ({"context": (CONTEXT[-1], *CONTEXT[1:])}, f"{CONTEXT[-1]!r} twice"),
        ({"features": ("colour", *FEATURES[1:])}, "'colour'"),
    ],
)
def test_a_ranker_whose_inputs_are_unknown_is_refused(changes: dict[str, tuple[str, ...]], named: str) -> None:
    ranker, _ = made()
    spec = ranker.spec.model_copy(update=changes)
    shapes = layout(spec.hidden, len(spec.features), len(spec.context)).values()
    values = np.zeros(sum(int(np.prod(shape)) for shape in shapes), np.float32)
    with pytest.raises(BundleError, match=re.escape(named)) as error:
        Ranker.from_values(spec, values)
    assert error.value.code == "bundle.ranker"


def test_a_ranker_reads_its_features_by_name_whatever_their_order() -> None:
    ranker, _ = made()
    inputs = read_inputs(some_candidates(20), FUSION)
    features, context = np.arange(len(FEATURES))[::-1], np.roll(np.arange(len(CONTEXT)), 1)
    part = dict(ranker.parts)
    part["first"] = part["first"][[*features, *(len(FEATURES) + context)]]
    for name, columns in (("feature", features), ("context", context)):
        part |= {f"{name}_{kind}": part[f"{name}_{kind}"][columns] for kind in ("mean", "deviation")}
    names = {
        "features": tuple(FEATURES[place] for place in features),
        "context": tuple(CONTEXT[place] for place in context),
    }
    values = np.concatenate([part[name].ravel() for name in layout(ranker.spec.hidden)], dtype=np.float32)
    turned = Ranker.from_values(ranker.spec.model_copy(update=names), values)
    np.testing.assert_allclose(
        turned.learned(inputs.features, inputs.context), ranker.learned(inputs.features, inputs.context), rtol=1e-5
    )


def test_an_older_ranker_reads_the_features_that_it_names() -> None:
    ranker, _ = made()
    part, inputs = dict(ranker.parts), read_inputs(some_candidates(20), FUSION)
    features = [place for place, name in enumerate(FEATURES) if "popular" not in name.split()]
    context = [place for place, name in enumerate(CONTEXT) if "popular" not in name.split()]
    older = RankerSpec(
        **ranker.spec.model_dump(exclude={"features", "context", "num_values"}),
        features=tuple(FEATURES[place] for place in features),
        context=tuple(CONTEXT[place] for place in context),
        num_values=1,
    )
    part["first"] = part["first"][[*features, *(len(FEATURES) + place for place in context)]]
    for name, columns in (("feature", features), ("context", context)):
        part |= {f"{name}_{kind}": part[f"{name}_{kind}"][columns] for kind in ("mean", "deviation")}
    values = np.concatenate([array.ravel() for array in part.values()], dtype=np.float32)
    spec = older.model_copy(update={"num_values": len(values)})
    opened = Ranker.from_values(spec, values)
    np.testing.assert_array_equal(opened.values(), values)
    blind = ranker.parts["first"].copy()
    blind[sorted({*range(len(blind))} - {*features, *(len(FEATURES) + place for place in context)})] = 0
    same = Ranker(ranker.spec, {**ranker.parts, "first": blind})
    np.testing.assert_allclose(
        opened.learned(inputs.features, inputs.context), same.learned(inputs.features, inputs.context), rtol=1e-5
    )
