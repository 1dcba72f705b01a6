"""What is learned comes from the training split alone, and depends on neither row order nor the spelling of ids.

Whole pipelines are compared byte by byte, so that a leak through any stage shows, whatever its shape.
"""

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.shops import Event, run_stages, write_shop

NUM_USERS, NUM_ITEMS, LENGTH = 60, 40, 7
NUM_HIDDEN = 6
MARKER = "zanzibarite"
_WORDS = ("copper", "kettle", "linen", "lamp", "oak", "chair", "wool", "scarf", "iron", "pan", "clay", "vase")

LEARNED_STAGES = ("reason", "embed", "graph", "semantic-ids", "train", "compile")


def catalogue(num_items: int = NUM_ITEMS) -> list[dict[str, object]]:
    rng = random.Random(5)
    return [
        {
            "item_id": f"item-{row:03d}",
            "title": f"{rng.choice(_WORDS)} {rng.choice(_WORDS)} {rng.choice(_WORDS)} {row}",
            "brand": f"brand {row % 5}",
            "categories": ["Home", _WORDS[row % 6]],
            "price": 5.0 + row,
        }
        for row in range(num_items)
    ]


def histories(seed: int = 1) -> dict[str, list[int]]:
    """Item numbers per user, oldest first, from two tastes."""
    rng = random.Random(seed)
    return {
        f"user-{user:03d}": rng.sample(range(user % 2 * 16, user % 2 * 16 + 24), LENGTH) for user in range(NUM_USERS)
    }


def events(taken: dict[str, list[int]]) -> list[Event]:
    return [
        (user, f"item-{item:03d}", 1000 * place + int(user[-3:]))
        for user, items in taken.items()
        for place, item in enumerate(items)
    ]


def learned(outputs: dict[str, Path], stages: tuple[str, ...] = LEARNED_STAGES) -> dict[str, bytes]:
    """Every file that the stages wrote, reports included; times of day are nobody's business in any of them."""
    files = {
        f"{stage}/{path.relative_to(outputs[stage])}": path.read_bytes()
        for stage in stages
        for path in sorted(outputs[stage].rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }
    assert len(files) > 15
    return files


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("plain")
    return run_stages("evaluate", write_shop(root / "shop", events(histories()), catalogue()), root / "releases")


def swapped(place: int) -> dict[str, list[int]]:
    """Other items at `place` of every history, none that the user has."""
    rng = random.Random(9)
    return {
        user: [
            rng.choice([i for i in range(NUM_ITEMS) if i not in items]) if at == place % LENGTH else item
            for at, item in enumerate(items)
        ]
        for user, items in histories().items()
    }


def test_other_test_items_change_nothing_that_is_learned(plain: dict[str, Path], tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", events(swapped(-1)), catalogue())
    other = run_stages("evaluate", shop, tmp_path / "releases")
    assert differing(learned(plain), learned(other)) == []
    kept = (
        "popularity.npy",
        "fusion.json",
        *(f"evidence/{p.name}" for p in (other["evaluate"] / "evidence").iterdir()),
    )
    for name in kept:
        assert (plain["evaluate"] / name).read_bytes() == (other["evaluate"] / name).read_bytes(), name
    before, after = (json.loads((o["evaluate"] / "evaluation.json").read_text()) for o in (plain, other))
    assert before["valid"] == after["valid"]
    assert before["test"] != after["test"], "the comparison must be able to fail"


def test_other_validation_items_change_only_when_training_stops_and_how_channels_are_weighed(
    plain: dict[str, Path], tmp_path: Path
) -> None:
    shop = write_shop(tmp_path / "shop", events(swapped(-2)), catalogue())
    other = run_stages("evaluate", shop, tmp_path / "releases")
    early = ("reason", "embed", "graph", "semantic-ids")
    assert differing(learned(plain, early), learned(other, early)) == []
    for path in (other["evaluate"] / "evidence").iterdir():
        assert path.read_bytes() == (plain["evaluate"] / "evidence" / path.name).read_bytes(), path.name


def test_other_training_items_do_change_what_is_learned(plain: dict[str, Path], tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", events(swapped(-3)), catalogue())
    other = run_stages("semantic-ids", shop, tmp_path / "releases")
    early = ("reason", "embed", "graph", "semantic-ids")
    assert differing(learned(plain, early), learned(other, early))


def test_neither_row_order_nor_the_spelling_of_ids_changes_what_is_learned(
    plain: dict[str, Path], tmp_path: Path
) -> None:
    rng = random.Random(3)
    names = {f"item-{row:03d}": f"{rng.random():.12f}" for row in range(NUM_ITEMS)}
    users = {user: f"{rng.random():.12f}" for user in histories()}
    renamed = [(users[user], names[item], time) for user, item, time in events(histories())]
    items = [{**item, "item_id": names[str(item["item_id"])]} for item in catalogue()]
    rng.shuffle(renamed)
    rng.shuffle(items)
    other = run_stages("evaluate", write_shop(tmp_path / "shop", renamed, items), tmp_path / "releases")
    assert differing(learned(plain), learned(other)) == []
    for name in ("fusion.json", "evaluation.json"):
        assert (plain["evaluate"] / name).read_bytes() == (other["evaluate"] / name).read_bytes(), name


def hidden_items(paths: list[list[str]], *, price: float = 25.0, title: str = MARKER) -> list[dict[str, object]]:
    """The items that `hiding` only ever holds out."""
    return [
        {
            "item_id": f"item-{NUM_ITEMS + row:03d}",
            "title": f"{title} {row}",
            "brand": MARKER,
            "categories": paths[row % len(paths)],
            "price": price,
        }
        for row in range(NUM_HIDDEN)
    ]


def hiding() -> dict[str, list[int]]:
    """Every user's last two items are hidden ones."""
    return {
        user: [*items[:-2], NUM_ITEMS + n % NUM_HIDDEN, NUM_ITEMS + (n + 1) % NUM_HIDDEN]
        for n, (user, items) in enumerate(histories().items())
    }


@pytest.mark.parametrize(
    "changed",
    [
        hidden_items([["Home", _WORDS[0]]], price=0.01),
        hidden_items([["Home", _WORDS[0]]], price=9000.0),
        hidden_items([["Home", MARKER], ["Home", _WORDS[1], _WORDS[2]], ["Garden", "Home", _WORDS[3]]]),
        hidden_items([["Home", _WORDS[0]]], title=" ".join(_WORDS)),
    ],
    ids=["cheap", "dear", "other categories", "everybody's words"],
)
def test_what_hidden_items_are_changes_no_others_features(tmp_path: Path, changed: list[dict[str, object]]) -> None:
    read = []
    for name, hidden in (("plain", hidden_items([["Home", _WORDS[0]]])), ("changed", changed)):
        shop = write_shop(tmp_path / name, events(hiding()), [*catalogue(), *hidden])
        outputs = run_stages("reason", shop, tmp_path / f"{name} releases")
        ids = pl.read_parquet(outputs["ingest"] / "items.parquet")["item_id"].to_list()
        rows = pl.read_parquet(outputs["reason"] / "item_features.parquet").sort("item_index").rows()
        items = {item: row[1:] for item, row in zip(ids, rows, strict=True)}
        names = pl.read_parquet(outputs["ingest"] / "users.parquet")["user_id"].to_list()
        rows = pl.read_parquet(outputs["reason"] / "user_features.parquet").sort("user_index").rows()
        read.append((items, {user: row[1:] for user, row in zip(names, rows, strict=True)}))
    (items, users), (other_items, other_users) = read
    own = {str(item["item_id"]) for item in changed}
    assert {item for item in items if items[item] != other_items[item]} <= own
    assert users == other_users
    assert any(items[item] != other_items[item] for item in own), "the comparison must be able to fail"


def test_a_marker_in_held_out_items_reaches_nobody_elses_features(tmp_path: Path) -> None:
    """Items that are only ever held out carry a marker word: no user, no fitted vocabulary and no other item has it."""
    hidden = hidden_items([[MARKER], ["Home", MARKER], ["Home", _WORDS[0], MARKER]])
    shop = write_shop(tmp_path / "shop", events(hiding()), [*catalogue(), *hidden])
    outputs = run_stages("evaluate", shop, tmp_path / "releases")

    titles = pl.read_parquet(outputs["ingest"] / "items.parquet")["title"].to_list()
    marked = {row for row, title in enumerate(titles) if MARKER in title}
    assert len(marked) == NUM_HIDDEN
    users = pl.read_parquet(outputs["reason"] / "user_features.parquet")
    assert MARKER not in json.dumps(users.rows()).lower()
    items = pl.read_parquet(outputs["reason"] / "item_features.parquet")
    others = [row for row in items.iter_rows(named=True) if row["item_index"] not in marked]
    assert MARKER not in json.dumps(others).lower()
    for path in (outputs["embed"] / "text_encoder").rglob("*"):
        assert MARKER.encode() not in path.read_bytes().lower(), path.name
    assert not np.load(outputs["graph"] / "item_embeddings.npy")[sorted(marked)].any()
    assert not np.load(outputs["evaluate"] / "popularity.npy")[sorted(marked)].any()
    for name in ("transition", "cooccurrence", "user_items"):
        indices = np.load(outputs["evaluate"] / "evidence" / f"{name}_indices.npy")
        assert not marked & set(indices.tolist()), name
