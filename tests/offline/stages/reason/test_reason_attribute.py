"""The attribute reasoner says what the corpus says, in readable sentences, and nothing of what is held out."""

import csv
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from rich.progress import Progress

from offline.config import RunConfig
from offline.context import StageContext
from offline.stages.ingest import stage as ingest
from offline.stages.reason import stage as reason
from offline.stages.reason.attributes.buying import measure_leaning, number_labels
from offline.stages.reason.attributes.terms import Term, distinctive_terms
from offline.stages.reason.attributes.wording import join_words, name_categories, price_range, price_tiers
from offline.stages.reason.corpus import Corpus, Item
from offline.stages.reason.schemas import ItemReasoning, UserReasoning, count_words
from tests.offline.stages.reason.reason_shop import shop_items, stage_context, write_ingest


def run_reason(
    folder: Path,
    items: Sequence[dict[str, Any]],
    histories: Sequence[Sequence[int]],
    held_out: Sequence[tuple[int, int]] = (),
) -> tuple[pl.DataFrame, pl.DataFrame]:
    ctx = stage_context(folder, {"ingest": write_ingest(folder / "ingest", items, histories, held_out)})
    reason.run(ctx)
    return pl.read_parquet(ctx.out / "item_features.parquet"), pl.read_parquet(ctx.out / "user_features.parquet")


def test_every_row_has_an_answer_within_the_schemas_limits(tmp_path: Path) -> None:
    items, users = run_reason(tmp_path, shop_items(12), [[0, 2, 4], [1, 3, 5], [0, 1, 6, 7]])
    assert items.columns == ["item_index", "positive", "negative", "feature", "justification", "origin"]
    assert users.columns == ["user_index", "likes", "dislikes", "core", "origin"]
    assert items["item_index"].to_list() == list(range(12))
    for table, schema in ((items, ItemReasoning), (users, UserReasoning)):
        assert set(table["origin"]) == {"attribute"}
        for field, limit in schema.WORD_LIMITS.items():
            assert all(0 < count_words(text) <= limit for text in table[field]), field


def test_sentences_name_category_brand_price_and_terms(tmp_path: Path) -> None:
    items, users = run_reason(tmp_path, shop_items(12), [[1, 3, 5], [0, 2]])
    feature = items["feature"][1]
    assert "mascara from Maybelline" in feature
    assert users["likes"][0].startswith("Likes ")
    assert "mascara from Maybelline" in users["likes"][0]
    assert "mostly under $15" in users["likes"][0]
    assert "shampoos" in users["core"][1].lower()
    texts = [text for table in (items, users) for row in table.rows() for text in row if isinstance(text, str)]
    assert not [text for text in texts if "None" in text or "  " in text or " ." in text or " ," in text]


def test_user_without_training_events_has_no_feature(tmp_path: Path) -> None:
    _, users = run_reason(tmp_path, shop_items(4), [[0, 1], []])
    assert users.row(1) == (1, None, None, None, None)


def test_item_without_text_and_buyers_has_no_feature(tmp_path: Path) -> None:
    blank = dict.fromkeys(("title", "brand", "categories", "description", "price"))
    items, users = run_reason(tmp_path, [*shop_items(4), blank], [[0, 1], [2, 3]])
    assert items.row(4)[1:] == (None,) * 5
    assert users["core"].null_count() == 0


def test_user_reads_the_last_twenty_items_only(tmp_path: Path) -> None:
    old, recent = list(range(1, 39, 2)), list(range(0, 40, 2))
    _, users = run_reason(tmp_path, shop_items(80), [old + recent])
    assert "mascara" not in users["likes"][0]
    assert "shampoos" in users["likes"][0]


def test_held_out_events_change_nothing(tmp_path: Path) -> None:
    histories = [[0, 2, 4], [1, 3, 5]]
    without = run_reason(tmp_path / "a", shop_items(12), histories)
    beside = run_reason(tmp_path / "b", shop_items(12), histories, [(0, 7), (0, 9), (1, 8)])
    for left, right in zip(without, beside, strict=True):
        assert left.equals(right)


def test_neither_row_order_nor_id_spelling_matters(tmp_path: Path) -> None:
    rng = random.Random(3)
    items = [{key: value for key, value in item.items() if value is not None} for item in shop_items(24)]
    events = [(f"u{user}", item, step) for user in range(40) for step, item in enumerate(rng.sample(range(24), 7))]
    read = []
    for name in ("plain", "renamed"):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        order, rows = list(enumerate(items)), list(events)
        prefix = "item"
        if name == "renamed":
            rng.shuffle(order)
            rng.shuffle(rows)
            prefix = "ZZ/é "
        (data / "items.jsonl").write_text(
            "".join(json.dumps({"item_id": f"{prefix}{97 * row % 24}", **item}) + "\n" for row, item in order)
        )
        with (data / "interactions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "item_id", "timestamp", "position"])
            writer.writerows(
                [prefix + user, f"{prefix}{97 * item % 24}", 86400 * step, step] for user, item, step in rows
            )
        out = tmp_path / name / "ingest"
        out.mkdir()
        progress = Progress(console=Console(quiet=True))
        ingest.run(StageContext(data=data, inputs={}, out=out, scratch=out, config=RunConfig(), progress=progress))
        ctx = stage_context(tmp_path / name, {"ingest": out})
        reason.run(ctx)
        read.append([pl.read_parquet(ctx.out / f"{kind}_features.parquet") for kind in ("item", "user")])
    assert read[0][0].equals(read[1][0])
    assert read[0][1].equals(read[1][1])


def test_buyers_leanings_are_found_by_hand_count() -> None:
    # Users 0-5 take items 0 and 1 (labels a, b), users 6-11 take items 2 and 3 (labels d, c).
    histories = [np.array([0, 1])] * 6 + [np.array([2, 3])] * 6
    corpus = Corpus(items=[Item("", "", (), "", None)] * 4, histories=histories, currency="$")
    leaning = measure_leaning(corpus.interactions(), number_labels(["a", "b", "d", "c"]))
    # Item 0: 6 purchases besides, all b; each label has a quarter of all, so 1.5 are expected of each.
    assert leaning.over[0] == [1]
    assert leaning.under[0] == [2, 3]


def test_terms_tell_an_item_from_its_siblings() -> None:
    titles = [
        "Tea Tree Shampoo",
        "Tea Tree Conditioner",
        "Tea Tree Shampoo Sulfate",
        "Shampoo Sulfate",
        "Sulfate Shampoo",
    ]
    terms = distinctive_terms(titles, ["hair"] * 5, [""] * 5, fitted=[True] * 5)
    assert terms[0][0].text == "tea tree"
    # "Shampoo Sulfate": the pair stands in two titles only, sulfate in three of five, shampoo in four.
    assert terms[3] == (Term("sulfate", math.log1p(5 / 3)), Term("shampoo", math.log1p(5 / 4)))


def test_a_word_that_lives_behind_a_stop_word_is_no_term() -> None:
    titles = ["New York Mascara", "New York Liner", "New York Gloss", "New York Powder"]
    assert all(
        "york" not in term.text
        for terms in distinctive_terms(titles, ["x"] * 4, [""] * 4, fitted=[True] * 4)
        for term in terms
    )


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ([3.0, 4.0, 9.0, 8.0], "mostly under $10"),
        ([60.0, 80.0, 300.0, 900.0], "mostly over $75"),
        ([5.0, 6.0], ""),
        ([0.5] * 3, "mostly under $1"),
    ],
)
def test_price_range(prices: list[float], said: str) -> None:
    assert price_range(prices, "$") == said


def test_category_names_read_as_english() -> None:
    paths = [
        ("Beauty", "Fragrance", "Women's"),
        ("Beauty", "Skin Care", "Eyes"),
        ("Beauty", "Makeup", "Eyes", "Mascara"),
        ("Beauty", "Skin Care", "Eyes", "Creams"),
        ("Beauty", "Skin Care", "Body", "Cleansers"),
        ("Beauty", "Skin Care", "Face", "Cleansers"),
        ("Beauty", "Makeup", "Nails & UV Lamps"),
        (),
    ]
    assert name_categories(paths, fitted=[True] * len(paths)) == [
        "women's fragrance", "eye skin care", "mascara", "creams", "body cleansers", "face cleansers",
        "nails and UV lamps", "",
    ]  # fmt: skip


def test_price_tiers_are_those_of_the_category() -> None:
    cheap = [("A", "Pens")] * 20
    dear = [("A", "Watches")] * 20
    prices = [*map(float, range(1, 21)), *map(float, range(1001, 1021)), None]
    tiers = price_tiers(prices, [*cheap, *dear, ("A",)], fitted=[True] * 41)
    assert tiers[:20].tolist() == tiers[20:40].tolist()
    assert (tiers[0], tiers[10], tiers[19], tiers[40]) == (0, 1, 2, -1)


def test_join_words() -> None:
    assert [join_words(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
