"""Planted leaks are found, each on its own line; the same data without them passes."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.progress import Progress

from isrf.contract.errors import BundleError
from offline.commands.audit import Finding, as_json, audit, has_leak
from offline.commands.audit.id_rules import audit_order, gather_trials, numeric_order
from offline.commands.audit.shop import load_shop
from offline.commands.audit.ties import table_ndcg
from offline.commands.publish import publish
from offline.config import build_config
from offline.stages.evaluate.split import EvaluationSplit
from tests.offline.commands.test_command_line import offline
from tests.service.releases import change_manifest, seal
from tests.shops import TINY, Event, run_stages, write_shop

NUM_USERS, NUM_ITEMS = 250, 1500
NOBODY = EvaluationSplit(np.zeros(0, np.int64), [], [], np.zeros(0, np.int64), typed=False)


def taken(seed: int = 0) -> list[list[int]]:
    """Items of every user, oldest first."""
    rng = random.Random(seed)
    return [rng.sample(range(NUM_ITEMS), 6) for _ in range(NUM_USERS)]


def by_first_appearance(histories: list[list[int]]) -> list[int]:
    """Numbers as the sequence files of the field have them: held-out items get theirs like all others."""
    order = list(dict.fromkeys(item for history in histories for item in history))
    number = {item: place for place, item in enumerate(order)}
    return [number.get(item, len(order) + item) for item in range(NUM_ITEMS)]


def at_random() -> list[int]:
    return random.Random(1).sample(range(100_000, 900_000), NUM_ITEMS)


def shop_with(folder: Path, numbers: list[int], *, step_s: int = 10) -> Path:
    """A shop whose item ids are numbers; `step_s` 0 puts all events of a user at one time, in the order of ids."""
    names = [f"item-{number:06d}" for number in numbers]
    events: list[Event] = []
    for user, history in enumerate(taken()):
        ordered = history if step_s else sorted(history, key=names.__getitem__)
        events += [(f"u{user:03d}", names[item], step_s * place) for place, item in enumerate(ordered)]
    catalogue = [{"item_id": name, "title": f"Thing {row % 97} number {row}"} for row, name in enumerate(names)]
    random.Random(2).shuffle(catalogue)
    return write_shop(folder, events, catalogue)


def lines(data: Path, release: Path | None = None) -> dict[str, Finding]:
    with Progress(disable=True) as progress:
        return {finding.line: finding for finding in audit(data, release, progress)}


def test_ids_by_first_appearance_are_a_leak_and_end_the_command_with_status_1(tmp_path: Path) -> None:
    data = shop_with(tmp_path / "shop", by_first_appearance(taken()))
    done = offline("audit", "--data", data, "--json")
    assert done.returncode == 1, done.stderr
    assert "leak" in done.stderr
    found = json.loads(done.stdout)
    verdicts = {finding["line"]: finding["verdict"] for finding in found["findings"]}
    assert found["leak"]
    assert verdicts["ids: number at the end"] == verdicts["ids: spelling"] == "leak"
    assert verdicts["ids: row numbers of a release"] == "ok", "ingest's numbers do not carry the shop's over"
    figures = found["findings"][0]["figures"]["untied"]
    assert figures["rule"] in ("largest id plus one", "last id plus one")
    assert figures["hit_rate"] > figures["bound"] > figures["chance"] > 0


def test_ids_at_random_and_times_apart_pass(tmp_path: Path) -> None:
    found = lines(shop_with(tmp_path / "shop", at_random()))
    assert {finding.verdict for finding in found.values()} <= {"ok", "note"}, found
    assert found["ties"].figures == {"users": NUM_USERS, "tied": 0}


def test_ties_that_stand_by_id_are_a_warning(tmp_path: Path) -> None:
    found = lines(shop_with(tmp_path / "shop", at_random(), step_s=0))
    assert found["ties"].verdict == "warning"
    assert found["ties"].figures["tied"] == NUM_USERS
    assert not has_leak(list(found.values()))
    assert set(found["ids: spelling"].figures) == {"tied"}


def events_shop(folder: Path, rows: list[Event]) -> dict[str, Finding]:
    """A small sound shop with further rows; what the audit says of it."""
    rng = random.Random(5)
    sound = [
        (f"u{user}", f"i{item}", 1000 * k) for user in range(100) for k, item in enumerate(rng.sample(range(60), 8))
    ]
    items = [{"item_id": f"i{row}", "title": f"Thing {row}"} for row in range(60)] + [{"item_id": "I1 "}]
    return lines(write_shop(folder, [*sound, *rows], items if rows else items[:-1]))


def test_a_sound_shop_has_no_duplicates_of_any_kind(tmp_path: Path) -> None:
    found = events_shop(tmp_path / "shop", [])
    for line in ("duplicates", "near duplicates", "last event again", "user ids", "item ids"):
        assert found[line].verdict == "ok", found[line]


def test_a_file_twice_is_warned_of_and_measures_as_the_file(tmp_path: Path) -> None:
    shop = shop_with(tmp_path / "shop", at_random())
    once = lines(shop)
    file = shop / "interactions.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *rows, *rows]) + "\n")
    twice = lines(shop)
    assert (once["duplicates"].verdict, twice["duplicates"].verdict) == ("ok", "warning")
    assert twice["duplicates"].figures["interactions"] == len(rows)
    assert twice["transition table"] == once["transition table"]


def test_what_looks_like_the_same_event_again_is_warned_of(tmp_path: Path) -> None:
    rng = random.Random(6)
    near = [(f"n{user}", f"i{item}", 10_000 * k + late) for user in range(20)
            for k, item in enumerate(rng.sample(range(60), 5)) for late in (0, 1)]  # fmt: skip
    spelt = [(f"{name}1", f"i{k}", 1000 * k) for name in ("U", " u") for k in range(5)]
    found = events_shop(tmp_path / "shop", [*near, *spelt])
    assert found["near duplicates"].verdict == "warning"
    assert found["near duplicates"].figures["near"] == 100
    assert found["near duplicates"].figures["held_out"] == 20
    assert (found["last event again"].verdict, found["last event again"].figures["again"]) == ("warning", 20)
    assert (found["user ids"].verdict, found["user ids"].figures["alike"]) == ("warning", 3)
    assert (found["item ids"].verdict, found["item ids"].figures["alike"]) == ("warning", 2)


def test_ids_that_say_what_an_item_is_are_no_leak() -> None:
    """Users stay among neighbouring ids, in no order: far above a uniform guess, the same forwards and backwards."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 4950, 3000)
    steps = np.array([rng.permutation(40)[:5] for _ in starts]) + starts[:, None]
    users = np.arange(len(starts))
    split = EvaluationSplit(users, steps[:, :4].tolist(), steps[:, :4].tolist(), steps[:, 4], typed=False)
    finding = audit_order("content", np.arange(5000), gather_trials([split]), gather_trials([NOBODY]), worst="leak")
    assert finding.verdict == "ok"
    assert finding.figures["untied"]["hit_rate"] > 0.1
    follow = split._replace(targets=steps[:, :4].max(axis=1) + 1)
    finding = audit_order("series", np.arange(5000), gather_trials([follow]), gather_trials([NOBODY]), worst="leak")
    assert finding.verdict == "leak", "the comparison must be able to fail"


def test_numbers_count_only_where_they_tell_items_apart() -> None:
    order = numeric_order(["a-10", "b-9", "c-100"])
    assert order is not None
    assert order.tolist() == [1, 0, 2]
    assert numeric_order(["B007X1", "B008Y1", "B009Z1"]) is None
    assert numeric_order(["lamp", "cup-2"]) is None


def small_shop(folder: Path) -> Path:
    rng = random.Random(5)
    words = ("copper", "kettle", "linen", "lamp", "oak", "chair", "wool", "scarf", "iron", "clay", "vase", "tin")
    events: list[Event] = []
    for user in range(60):
        # The last item of every fifth user is one that nobody takes in training.
        last = [36 + user % 4] if user % 5 == 0 else []
        items = rng.sample(range(36), 6 - len(last)) + last
        events += [(f"u{user:02d}", f"i{item:02d}", 10 * place + user) for place, item in enumerate(items)]
    catalogue = [
        {"item_id": f"i{row:02d}", "title": " ".join(rng.sample(words, 4)) + f" {row}x", "categories": [words[row % 6]]}
        for row in range(40)
    ]
    return write_shop(folder, events, catalogue)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shop` and `release`."""
    root = tmp_path_factory.mktemp("audited")
    releases = root / "releases"
    config = build_config("demo", None, TINY)
    published = publish(run_stages("export", small_shop(root / "shop"), releases, config)["export"], releases)
    shutil.copytree(published, root / "release")
    run_stages("ingest", root / "shop", root / "read")
    return root


def change_array(name: str, change: Callable[[Any, Any], Any]) -> Callable[[Path, Any], str]:
    def plant(release: Path, shop: Any) -> str:
        np.save(release / name, change(np.load(release / name), shop))
        return name

    return plant


def count_held_out(popularity: Any, shop: Any) -> Any:
    np.add.at(popularity, shop.test.targets, 1)
    return popularity


def give_edge(embeddings: Any, shop: Any) -> Any:
    cold = np.setdiff1d(np.arange(shop.num_items), shop.items)
    embeddings[cold[0]] = embeddings[shop.items[0]]
    return embeddings


def put_held_out_first(indices: Any, shop: Any) -> Any:
    """The first test user's newest training item becomes the held-out one."""
    user = int(shop.test.users[0])
    stops = np.cumsum(np.bincount(shop.users, minlength=shop.num_users))
    indices[stops[user] - 1] = shop.test.targets[0]
    return indices


def turn(rows: Any, shop: Any) -> Any:
    rows[3] = -rows[3]
    return rows


def mention_in_texts(release: Path, shop: Any) -> str:
    name = "reasoning/user_features.parquet"
    titles = pl.read_parquet(shop.folder / "items.parquet")["title"].to_list()
    told = dict(zip(shop.test.users.tolist(), (titles[item] for item in shop.test.targets.tolist()), strict=True))
    table = pl.read_parquet(release / name)
    likes = [f"{row['likes']} {told.get(row['user_index'], '')}" for row in table.iter_rows(named=True)]
    table.with_columns(pl.Series("likes", likes)).write_parquet(release / name)
    return name


def fit_on_everything(release: Path, shop: Any) -> str:
    name = "text_encoder/vocabulary.json"
    terms = json.loads((release / name).read_text())
    cold = np.setdiff1d(np.arange(shop.num_items), shop.items)
    title = pl.read_parquet(shop.folder / "items.parquet")["title"][int(cold[0])]
    terms[0] = title.split()[-1]  # its own number stands in no other title
    (release / name).write_text(json.dumps(terms))
    return name


def ask_with_held_out(release: Path, shop: Any) -> str:
    first, *others = (release / "golden.jsonl").read_text().splitlines()
    golden = json.loads(first)
    golden["history"].append(int(shop.test.targets[0]))
    (release / "golden.jsonl").write_text("\n".join([json.dumps(golden), *others]) + "\n")
    return "golden.jsonl"


def test_a_link_to_a_release_is_audited_as_the_release(made: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(made / "release")
    assert lines(made / "shop", tmp_path / "current") == lines(made / "shop", made / "release")


def test_an_honest_release_passes(made: Path) -> None:
    done = offline("audit", "--data", made / "shop", "--release", made / "release", "--json")
    assert done.returncode == 0, done.stderr
    found = {finding["line"]: finding for finding in json.loads(done.stdout)["findings"]}
    evidence = ("evidence: user_items", "evidence: transition", "evidence: cooccurrence")
    judged = ["popularity", *evidence, "graph edges", "neighbours", "goldens", "histories", "other files"]
    judged += ["user features", "vocabulary", "prompts"]
    assert {found[line]["verdict"] for line in judged} == {"ok"}
    assert found["graph edges"]["figures"]["cold_items"] == 4
    assert found["user features"]["figures"]["held_out"] > 100


@pytest.mark.parametrize(
    ("plant", "line"),
    [
        (change_array("popularity.npy", count_held_out), "popularity"),
        (change_array("evidence/user_items_indices.npy", put_held_out_first), "evidence: user_items"),
        (
            change_array("evidence/transition_weights.npy", lambda weights, shop: weights[::-1].copy()),
            "evidence: transition",
        ),
        (change_array("item_embeddings.npy", give_edge), "graph edges"),
        (change_array("user_features.npy", turn), "neighbours"),
        (change_array("group_layers.npy", turn), "neighbours"),
        (mention_in_texts, "user features"),
        (fit_on_everything, "vocabulary"),
        (ask_with_held_out, "goldens"),
    ],
)
def test_a_planted_leak_is_found_on_its_own_line(
    made: Path, tmp_path: Path, plant: Callable[[Path, Any], str], line: str
) -> None:
    release = Path(shutil.copytree(made / "release", tmp_path / "release"))
    ingested = next(path for path in (made / "read" / ".work" / "ingest").iterdir() if path.is_dir())
    rehash(release, plant(release, load_shop(ingested)))
    found = lines(made / "shop", release)
    assert [finding.line for finding in found.values() if finding.verdict == "leak"] == [line]
    assert as_json(list(found.values()))["leak"]


def test_a_release_of_events_without_times_has_no_base_for_live_evidence(tmp_path: Path) -> None:
    shop, releases = small_shop(tmp_path / "shop"), tmp_path / "releases"
    file = shop / "interactions.csv"
    file.write_text(file.read_text().replace("timestamp", "position", 1))
    release = publish(run_stages("export", shop, releases, build_config("demo", None, TINY))["export"], releases)
    found = lines(shop, release)["evidence: live counts' base"]
    assert found.verdict == "warning"
    assert found.figures["without_time"] == found.figures["events"] > 200
    assert "add a column `timestamp`" in found.text


def test_a_release_of_an_earlier_version_has_no_base_for_live_evidence(made: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(made / "release", tmp_path / "release"))
    assert lines(made / "shop", release)["evidence: live counts' base"].verdict == "ok"
    change_manifest(release, lambda manifest: manifest.update(live_evidence=None))
    found = lines(made / "shop", release)["evidence: live counts' base"]
    assert (found.verdict, found.figures["without_time"]) == ("warning", 0)
    assert "train it again with this version" in found.text


def test_a_file_beside_the_contract_is_named(made: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(made / "release", tmp_path / "release"))
    (release / "cache.bin").write_bytes(b"who knows")
    rehash(release, "cache.bin")
    found = lines(made / "shop", release)["other files"]
    assert found.verdict == "warning"
    assert "cache.bin" in found.text


def test_a_release_trained_on_everything_has_nothing_to_audit(made: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(made / "release", tmp_path / "release"))
    change_manifest(release, lambda manifest: manifest.update(fit="all", evaluated_release_id="r-before"))
    with pytest.raises(BundleError, match="r-before") as error:
        lines(made / "shop", release)
    assert error.value.code == "audit.nothing_held_out"


def test_the_transition_table_follows_the_last_item_and_leaves_out_what_was_bought(tmp_path: Path) -> None:
    """b is followed by c twice and by d once; u3's last item is b, their next one d, and they have c already."""
    rows = [("u1", "abca"), ("u2", "abca"), ("u4", "abda"), ("u3", "acbd")]
    events = [
        (user, item, place) for user, items in rows for place, item in enumerate(f"{items}e" if user != "u3" else items)
    ]
    items = [{"item_id": item, "title": f"Cup {item}"} for item in "abcde"]
    outputs = run_stages("ingest", write_shop(tmp_path / "shop", events, items), tmp_path / "r")
    shop = load_shop(outputs["ingest"])
    values = dict(zip(sorted(shop.user_ids[user] for user in shop.test.users), table_ndcg(shop), strict=True))
    assert values["u3"] == 1.0
    assert values["u1"] == 0.0, "nobody took e in training"


def rehash(release: Path, name: str) -> None:
    change_manifest(release, lambda manifest: manifest["files"].update({name: {}}))
    seal(release)
