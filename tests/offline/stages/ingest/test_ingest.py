"""Ingest against files as shops really send them: what is kept, what is refused, and that numbering says nothing."""

import html
import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from isrf.contract.errors import DataError
from offline.commands.demo_shop.generate import generate
from offline.config import build_config
from offline.context import StageContext
from offline.reading.bad_rows import BadRows
from offline.reading.text_lines import read_lines
from offline.stages.ingest.stage import run

TABLES = ("items", "users", "train", "heldout", "excluded")
ITEMS = [{"item_id": item, "title": f"Title {item}"} for item in "abcde"]
HEADER = "user_id,item_id,timestamp"
GOOD = ["u,a,1", "u,b,2", "u,c,3", "v,a,5", "v,d,4", "v,b,6"]
GOOD_TEXT = "\n".join([HEADER, *GOOD])


class Result:
    def __init__(self, out: Path) -> None:
        self.out = out
        self.report: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
        self.tables = {name: pl.read_parquet(out / f"{name}.parquet") for name in TABLES}
        self.item_ids: list[str] = self.tables["items"]["item_id"].to_list()
        self.user_ids: list[str] = self.tables["users"]["user_id"].to_list()

    def rows(self, table: str) -> dict[str, list[str]]:
        """user_id → item_ids in order."""
        histories: dict[str, list[str]] = {}
        for user, item in self.tables[table].select("user_index", "item_index").iter_rows():
            histories.setdefault(self.user_ids[user], []).append(self.item_ids[item])
        return histories

    def bad(self, file: str = "interactions.csv") -> dict[str, list[int]]:
        return {kind: entry["lines"] for kind, entry in self.report["bad_rows"][file].items()}


Ingest = Callable[..., Result]


def ingest_folder(data: Path, out: Path, *assignments: str) -> Result:
    out.mkdir(parents=True)
    with Progress(disable=True) as progress:
        run(
            StageContext(
                data=data,
                inputs={},
                out=out,
                scratch=out,
                config=build_config("demo", None, assignments),
                progress=progress,
            )
        )
    return Result(out)


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    """Writes a shop's files as given and ingests them."""

    def ingest(
        interactions: str | bytes | pl.DataFrame | None = GOOD_TEXT,
        *assignments: str,
        items: str | bytes | list[Any] | pl.DataFrame | None = ITEMS,
        bad: float | None = None,
    ) -> Result:
        shop = tmp_path / f"shop{len(list(tmp_path.iterdir()))}"
        shop.mkdir()
        if isinstance(items, list):
            items = "\n".join(json.dumps(item) for item in items)
        for stem, suffix, content in (("interactions", "csv", interactions), ("items", "jsonl", items)):
            if isinstance(content, pl.DataFrame):
                content.write_parquet(shop / f"{stem}.parquet")
            elif content is not None:
                (shop / f"{stem}.{suffix}").write_bytes(content.encode() if isinstance(content, str) else content)
        if bad is not None:
            assignments = (*assignments, f"ingest.max_bad_rows={bad}")
        return ingest_folder(shop, shop / "out", *assignments)

    return ingest


def refused(ingest: Ingest, *args: Any, **kwargs: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        ingest(*args, **kwargs)
    assert caught.value.fix
    return caught.value


# --- the tables ---------------------------------------------------------------------------------------------------


def test_last_is_test_before_it_validation_and_the_rest_training(ingest: Ingest) -> None:
    result = ingest("\n".join([HEADER, *GOOD, "u,d,0", "w,e,9"]))
    assert result.rows("train") == {"u": ["d", "a"], "v": ["d"], "w": ["e"]}
    assert result.rows("heldout") == {"u": ["b", "c"], "v": ["a", "b"]}
    assert result.tables["heldout"]["split"].to_list() == ["valid", "test"] * 2
    assert result.report["counts"] == {
        "items": 5,
        "items_without_training_events": 2,
        "users": 3,
        "sessions": 0,
        "interactions": 8,
        "train": 4,
        "valid": 2,
        "test": 2,
    }
    assert result.report["events_through"] == 9.0
    assert result.report["tie_seed"] is None


def test_tables_have_the_columns_and_types_of_the_contract(ingest: Ingest) -> None:
    tables = ingest(f"{GOOD_TEXT}\nu,d,0").tables
    index = {"user_index": pl.Int32, "item_index": pl.Int32}
    assert dict(tables["train"].schema) == {
        **index,
        "timestamp": pl.Float64,
        "event": pl.String,
        "weight": pl.Float64,
    }
    assert dict(tables["heldout"].schema) == {
        **index,
        "timestamp": pl.Float64,
        "event": pl.String,
        "weight": pl.Float64,
        "split": pl.String,
    }
    assert dict(tables["users"].schema) == {"user_id": pl.String}
    assert dict(tables["items"].schema) == {
        "item_id": pl.String,
        "title": pl.String,
        "brand": pl.String,
        "categories": pl.List(pl.String),
        "description": pl.String,
        "price": pl.Float64,
        "metadata": pl.String,
        "group_id": pl.String,
    }
    assert tables["train"]["event"].to_list() == ["purchase"] * 3
    assert tables["train"]["weight"].to_list() == [1.0] * 3


def test_variants_of_equal_content_are_told_apart(ingest: Ingest) -> None:
    rows = [{"item_id": "a", "title": "Cup", "group_id": group} for group in ("x", None, "x", "x\ty", " ", "z")]
    result = ingest(items=[rows[0], *ITEMS[1:]])
    assert result.tables["items"].filter(item_id="a")["group_id"].to_list() == ["x"]
    alone = ingest(items=[rows[4], *ITEMS[1:]])
    assert alone.tables["items"].filter(item_id="a")["group_id"].to_list() == [None]
    prints = {ingest(items=[row, *ITEMS[1:]]).report["fingerprint"] for row in (rows[0], rows[1], rows[5])}
    assert len(prints) == 3, "another group is other data"
    repeated = ingest(items=[rows[0], rows[2], rows[5], rows[3], *ITEMS[1:]], bad=1.0)
    assert repeated.report["duplicate_items"] == 1
    assert set(repeated.bad("items.jsonl")) == {"bad_group_id", "duplicate_item"}


def test_fit_all_trains_on_everything_even_where_nothing_could_be_held_out(ingest: Ingest) -> None:
    result = ingest(f"{HEADER}\nu,a,1\nu,b,2\n", "fit=all")
    assert result.rows("train") == {"u": ["a", "b"]}
    assert result.tables["heldout"].is_empty()


def test_item_fields_are_kept_and_further_ones_become_metadata(ingest: Ingest) -> None:
    full = {
        "item_id": "a",
        "title": "  Tent ",
        "brand": "",
        "categories": ["Outdoor", " ", "Tents"],
        "description": "Two\nlines",
        "price": 5,
        "group_id": 7,
        "z": [1],
        "colour": "grün",
        "gone": None,
    }
    items = ingest(items=[full, *ITEMS[1:]]).tables["items"]
    assert items.filter(item_id="a").row(0, named=True) == {
        "item_id": "a",
        "title": "Tent",
        "brand": None,
        "categories": ["Outdoor", "Tents"],
        "description": "Two lines",
        "price": 5.0,
        "metadata": '{"colour":"grün","z":[1]}',
        "group_id": "7",
    }
    assert items.filter(item_id="b")["metadata"].to_list() == [None]


def test_a_shop_half_in_markup_is_the_shop_without_it(tmp_path: Path) -> None:
    """Title, brand, categories and description; so everything made of texts is the same, too."""
    generate(tmp_path / "plain", seed=0, num_shoppers=50)
    shutil.copytree(tmp_path / "plain", tmp_path / "marked")
    file = tmp_path / "marked" / "items.jsonl"
    items = [json.loads(line) for line in file.read_text("utf-8").splitlines()]

    def marked_up(text: str) -> str:
        escaped = html.escape(text).replace(" ", "&nbsp;", 1)
        return f'<div class="product"><!-- shop --><p style="margin: 0">{escaped}</p><script>go("a<b")</script></div>'

    for number, item in enumerate(items[::2]):
        for field in ("title", "brand", "description"):
            item[field] = marked_up(item[field]) if number % 4 else html.escape(marked_up(item[field]))
        item["categories"] = [html.escape(html.escape(name)) for name in item["categories"]]
    file.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    plain, marked = (ingest_folder(tmp_path / name, tmp_path / f"out-{name}") for name in ("plain", "marked"))
    assert tables_equal(plain, marked, *TABLES)
    assert plain.report["fingerprint"] == marked.report["fingerprint"]


def test_parquet_and_text_files_give_equal_tables(ingest: Ingest) -> None:
    text = ingest(
        "user_id,item_id,timestamp,event\nu,007,1,view\nu,b,2.5,\nu,c,3,cart", items=[*ITEMS, {"item_id": "007"}]
    )
    events = pl.DataFrame(
        {
            "user_id": pl.Series(["u"] * 3, dtype=pl.Categorical),
            "item_id": ["007", "b", "c"],
            "timestamp": [1.0, 2.5, 3.0],
            "event": ["view", None, "cart"],
        }
    )
    parquet = ingest(events, items=pl.DataFrame([*ITEMS, {"item_id": "007"}]))
    for name in TABLES:
        assert parquet.tables[name].equals(text.tables[name])
    assert parquet.report["fingerprint"] == text.report["fingerprint"]


def test_parquet_dates_become_seconds_whatever_their_time_zone(ingest: Ingest) -> None:
    times = pl.Series([datetime(2024, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)])
    for series in (times, times.dt.convert_time_zone("America/New_York"), times.dt.cast_time_unit("ns")):
        events = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": series})
        assert ingest(events).report["events_through"] == datetime(2024, 1, 3, 12, tzinfo=UTC).timestamp()


def test_integer_ids_in_parquet_and_json_are_read_as_their_digits(ingest: Ingest) -> None:
    events = pl.DataFrame({"user_id": [7] * 4, "item_id": [3, 1, 2, 3], "position": [0, 1, 2, 3]})
    result = ingest(events, items=[{"item_id": number} for number in (1, 2, 3)])
    assert result.rows("heldout") == {"7": ["2", "3"]}
    assert result.report["events_through"] is None
    assert result.tables["train"]["timestamp"].to_list() == [None] * 2


def test_numbers_keep_every_bit_on_their_way_through_parquet(ingest: Ingest) -> None:
    rng = random.Random(0)
    times = sorted(rng.uniform(1e9, 2e9) for _ in range(200))
    events = pl.DataFrame({"user_id": ["u"] * 200, "item_id": ["a", "b"] * 100, "timestamp": times})
    result = ingest(events)
    assert [*result.tables["train"]["timestamp"], *result.tables["heldout"]["timestamp"]] == times


HOSTILE_IDS = ["007", "7", "a/b#c?d%20 e", "ünï 漢字 🎉", "NaN", "null", "../../etc", "x" * 512, " ", "'; --", "1e3"]


def test_ids_are_strings_whatever_they_look_like(ingest: Ingest) -> None:
    lines = [f"{user},{item},{time}" for user in HOSTILE_IDS for time, item in enumerate(HOSTILE_IDS)]
    result = ingest("\n".join([HEADER, *lines]), items=[{"item_id": item} for item in HOSTILE_IDS])
    assert sorted(result.user_ids) == sorted(result.item_ids) == sorted(HOSTILE_IDS)
    assert result.rows("train") == dict.fromkeys(result.user_ids, HOSTILE_IDS[:-2])


def test_quotes_commas_a_byte_order_mark_and_windows_line_ends_are_read(ingest: Ingest) -> None:
    text = '\ufeff"user_id",item_id,timestamp\r\n"u,1","say ""a""",1\r\n"u,1",b,2\r\n\r\n"u,1",c,"3"\r\n'
    result = ingest(text, items=[{"item_id": 'say "a"'}, *ITEMS])
    assert result.rows("train") == {"u,1": ['say "a"', "b", "c"]}


def test_blocks_of_a_large_file_join_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\r\ntwo é\n\nfour\xff".encode("utf-8")[:-2] + b"\xff\nfive")
    for block_bytes in (1, 4, 1000):
        bad_rows = BadRows("lines.txt")
        lines = [row for block in read_lines(path, bad_rows, block_bytes=block_bytes) for row in block.iter_rows()]
        assert lines == [(1, "one"), (2, "two é"), (5, "five")]
        assert bad_rows.as_json()["not_utf8"]["lines"] == [4]
        assert bad_rows.as_json()["not_utf8"]["values"] == ["byte 0xff at 5"]


# --- order, ties, what events mean --------------------------------------------------------------------------------


def test_position_decides_among_equal_timestamps_else_the_file(ingest: Ingest) -> None:
    by_position = ingest("user_id,item_id,timestamp,position\nu,a,1,2\nu,b,1,1\nu,c,0,9\nu,d,0,8")
    assert by_position.rows("heldout") == {"u": ["b", "a"]}
    assert by_position.rows("train") == {"u": ["d", "c"]}
    by_file = ingest(f"{HEADER}\nu,b,1\nu,a,1\nu,c,0\nu,d,0")
    assert by_file.rows("heldout") == {"u": ["b", "a"]}
    assert by_file.report["users_with_tied_last_events"] == 1


def test_shuffled_ties_follow_the_protocol(ingest: Ingest) -> None:
    lines = [f"u{user},{item},{time}" for user in range(5) for time in (1, 2) for item in "abcde"]
    result = ingest("\n".join([HEADER, *lines]), "ingest.shuffle_ties=3")
    for user in range(5):
        rng, first, second = random.Random(f"3:u{user}"), list("abcde"), list("abcde")
        rng.shuffle(first)
        rng.shuffle(second)
        ours = result.rows("train")[f"u{user}"] + result.rows("heldout")[f"u{user}"]
        assert ours == first + second
    assert result.report["tie_seed"] == 3
    plain = ingest("\n".join([HEADER, *lines]))
    assert plain.report["fingerprint"] == result.report["fingerprint"]
    assert plain.report["order_fingerprint"] != result.report["order_fingerprint"]


def test_dislike_is_no_history_and_remove_takes_back_what_came_before(ingest: Ingest) -> None:
    result = ingest(
        "user_id,item_id,timestamp,event\n"
        "u,a,1,purchase\nu,b,2,view\nu,c,3,dislike\nu,a,4,remove\nu,d,5,\nu,a,6,cart\nu,e,7,\n"
        "u,d,8,dislike\nu,b,8,dislike\nu,b,9,remove\nw,a,1,dislike\n"
    )
    assert result.rows("train") == {"u": ["d", "a", "e"]}
    assert sorted(result.rows("excluded")["u"]) == ["c", "d"]
    assert result.report["taken_back"] == 3  # the first purchase of a, the view and the dislike of b
    assert (result.user_ids, result.rows("excluded")["w"]) == (["u", "w"], ["a"])  # w dislikes, and did nothing else


def test_users_who_only_dislike_are_numbered_last_whatever_their_ids_and_order(ingest: Ingest) -> None:
    header = f"{HEADER},event\n" + "".join(f"{line},\n" for line in GOOD)
    first = ingest(header + "0,e,1,dislike\n1,b,1,dislike\n1,a,1,dislike\n")
    second = ingest(header + "x,a,1,dislike\ny,e,1,dislike\nx,b,1,dislike\n")
    assert (first.user_ids[2:], second.user_ids[2:]) == (["1", "0"], ["x", "y"])
    assert first.tables["excluded"].equals(second.tables["excluded"])
    assert first.tables["excluded"]["user_index"].to_list() == [2, 2, 3]


def test_a_row_that_repeats_another_is_one_event(ingest: Ingest) -> None:
    result = ingest("\n".join([HEADER, *GOOD, "u,a,1", "u,a,1.0", "u,a,0.5"]))
    assert result.rows("train")["u"] == ["a", "a"]
    assert result.report["duplicate_interactions"] == 2
    assert result.report["counts"]["interactions"] == 7


def test_rows_that_differ_in_any_column_are_several_events(ingest: Ingest) -> None:
    rows = ["u,a,1,1,,", "u,a,1,2,,", "u,a,1,2,view,", "u,a,1,2,view,2", "u,b,1,1,,", "v,a,1,1,,"]
    result = ingest("\n".join(["user_id,item_id,timestamp,position,event,weight", *rows, *rows[:3]]))
    assert result.report["duplicate_interactions"] == 3
    assert result.report["counts"]["interactions"] == 6


def test_a_row_that_says_the_same_in_other_words_is_a_repetition(ingest: Ingest) -> None:
    """As the shop's own export and the service's events may write one and the same."""
    rows = ["u,a,1700000000,purchase,1", "u,a,1700000000.0,,", "u,a, 1.7e9 ,Purchase,1.0", "u,a,1700000000.5,,"]
    result = ingest("\n".join(["user_id,item_id,timestamp,event,weight", *rows, "u,b,1,,", "u,c,2,,"]))
    assert result.report["duplicate_interactions"] == 2
    assert result.report["counts"]["interactions"] == 4


def test_without_times_the_position_says_what_is_a_repetition(ingest: Ingest) -> None:
    result = ingest("user_id,item_id,position\nu,a,1\nu,a,2\nu,a,2\nu,b,3\nu,c,4")
    assert result.rows("train")["u"] == ["a", "a"]


@pytest.mark.parametrize("times", [2, 3])
def test_a_file_that_stands_in_itself_is_the_file(
    ingest: Ingest, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    once = ingest()
    again = ingest("\n".join([HEADER, *GOOD * times]), items=ITEMS * times)
    assert tables_equal(once, again, *TABLES)
    assert all(again.report[name] == once.report[name] for name in ("fingerprint", "order_fingerprint", "counts"))
    assert again.report["duplicate_interactions"] == len(GOOD) * (times - 1)
    assert again.report["duplicate_items"] == len(ITEMS) * (times - 1)
    said = capsys.readouterr().out
    assert f"interactions.csv holds every row {'twice' if times == 2 else '3 times'}" in said
    assert "items.jsonl: 5 rows repeat another row of their item" in said or times == 3


def test_ties_of_a_doubled_file_are_shuffled_as_those_of_the_file(ingest: Ingest) -> None:
    rows = [f"u{user},{item},{time}" for user in range(5) for time in (1, 2) for item in "abcde"]
    once = ingest("\n".join([HEADER, *rows]), "ingest.shuffle_ties=3")
    again = ingest("\n".join([HEADER, *rows, *rows[::-1]]), "ingest.shuffle_ties=3")
    assert tables_equal(once, again, *TABLES)


def test_event_types_are_read_without_case_in_both_formats(ingest: Ingest) -> None:
    written = ["Purchase", " VIEW ", "", "Remove", "vıew", "DISLIKE", None]
    rows = [("u", item, float(place), kind) for place, (item, kind) in enumerate(zip("abcadeb", written, strict=True))]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")
    for result in (ingest(table), ingest(table.write_csv())):
        assert result.report["event_types"] == {"dislike": 1, "purchase": 3, "remove": 1, "view": 2}
        assert result.report["taken_back"] == 1
        assert result.rows("heldout") == {"u": ["d", "b"]}
        assert result.tables["train"]["event"].to_list() == ["view", "purchase"]


@pytest.mark.parametrize("dtype", [pl.Null, pl.Float64, pl.Boolean, pl.Datetime])
def test_a_column_of_nothing_is_no_column(ingest: Ingest, dtype: pl.DataType) -> None:
    table = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]})
    result = ingest(table.with_columns(event=pl.lit(None, dtype=dtype), position=pl.lit(None, dtype=dtype)))
    assert result.report["event_types"] == {"purchase": 3}


def test_a_type_that_is_a_missing_value_in_words_is_a_bad_row(ingest: Ingest) -> None:
    result = ingest(f"{HEADER},event\n" + "".join(f"{line},\n" for line in GOOD) + "u,a,9,NaN\nu,a,9,None\n", bad=1)
    assert result.bad() == {"bad_event": [8, 9]}


# --- bad rows -----------------------------------------------------------------------------------------------------


def test_every_kind_of_bad_interaction_is_counted_with_its_line(ingest: Ingest) -> None:
    text = "\n".join(
        [
            "user_id,item_id,timestamp,position,event,weight",
            *("u,a,1,0,,", "u,b,2,1,,", "u,c,0.3,2,,0.5"),  # lines 2 to 4
            *(",a,1,0,,", "u,,1,0,,", f"{'x' * 513},a,1,0,,", "u,a\x07,1,0,,"),  # 5 to 8
            *("u,a,,0,,", "u,a,nan,0,,", "u,a,inf,0,,", "u,a,2024-01-01,0,,", "u,a,1700000000000,0,,"),  # 9 to 13
            *("u,a,1,,,", "u,a,1,1.5,,", "u,a,1,first,,"),  # 14 to 16
            *("u,a,1,0,b\x1bad,", "u,a,1,0,,0", "u,a,1,0,,heavy", "u,a,1,0,,inf"),  # 17 to 20
            *("u,a,1", "u,a,1,0,,,", 'u,"a', 'b",1,0,,', 'u,"a"b,1,0,,'),  # 21 to 25; 23 and 24 are one row
            "u,zzz,1,0,,",  # 26
            "u,d,4,3.0,,",  # 27
        ]
    )
    result = ingest(text, "ingest.unknown_items=drop", bad=1)
    assert result.bad() == {
        "missing_user_id": [5],
        "missing_item_id": [6],
        "bad_user_id": [7],
        "bad_item_id": [8, 23],
        "bad_timestamp": [9, 10, 11, 12, 13],
        "bad_position": [14, 15, 16],
        "bad_event": [17],
        "bad_weight": [18, 19, 20],
        "malformed_row": [21, 22, 25],
    }
    assert result.report["unknown_items"]["places"] == ['line 26: "zzz"']
    assert result.report["rows"] == {"items.jsonl": 5, "interactions.csv": 25}
    assert result.rows("train") == {"u": ["c", "a"]}
    assert result.rows("heldout") == {"u": ["b", "d"]}


def test_a_time_that_the_service_refuses_is_a_bad_row(ingest: Ingest) -> None:
    least = -62_135_596_800  # what .NET has for no time
    result = ingest("\n".join([GOOD_TEXT, f"u,d,{least}", "u,d,-0.5", "u,d,-0"]), bad=1)
    assert result.bad() == {"bad_timestamp": [8, 9]}


def test_a_remove_of_an_unknown_item_is_counted_and_no_bad_row(ingest: Ingest) -> None:
    events = "".join(f"{line},\n" for line in GOOD)
    result = ingest(f"{HEADER},event\n{events}u,gone,9,remove\nv,gone,9,remove\n")
    assert (result.bad(), result.report["removes_of_unknown_items"]) == ({}, 2)
    assert result.rows("train")["u"] == ["a", "b", "c"]


def test_every_kind_of_bad_item_is_counted_with_its_line(ingest: Ingest) -> None:
    lines = [
        *(json.dumps(item) for item in ITEMS[:3]),
        *("{broken", "[1]", '{"title": "no id"}', '{"item_id": ""}', '{"item_id": 1.5}', '{"item_id": "a\\u0000"}'),
        *('{"item_id": "p", "price": "$5"}', '{"item_id": "p2", "price": -1}', '{"item_id": "p3", "price": true}'),
        *('{"item_id": "k", "categories": "Tents"}', '{"item_id": "k2", "categories": [["Tents"]]}'),
        *('{"item_id": "t", "title": 5}', '{"item_id": "a", "title": "T"}', '{"item_id": "n", "price": NaN}', ""),
    ]
    events = "\n".join([HEADER, "u,a,1", "u,b,2", "u,c,3", "u,p,4"])
    result = ingest(events, items="\n".join(lines), bad=1)
    assert result.bad("items.jsonl") == {
        "malformed_json": [4, 5, 17],
        "missing_item_id": [6, 7],
        "bad_item_id": [8, 9],
        "bad_price": [10, 11, 12],
        "bad_categories": [13, 14],
        "bad_title": [15],
        "duplicate_item": [16],
    }
    assert result.bad() == {"item_refused": [5]}
    assert sorted(result.item_ids) == ["a", "b", "c"]


def test_of_two_rows_for_an_item_the_fuller_one_is_kept_wherever_it_stands(ingest: Ingest) -> None:
    short, full = {"item_id": "a", "title": "Tent"}, {"item_id": "a", "title": "Tent", "brand": "Fernway"}
    for pair in ([short, full], [full, short]):
        result = ingest(items=[*pair, *ITEMS[1:]], bad=1)
        assert result.tables["items"].filter(item_id="a")["brand"].to_list() == ["Fernway"]
        assert result.bad("items.jsonl") == {"duplicate_item": [pair.index(short) + 1]}


def test_a_byte_that_is_not_utf8_costs_its_line_and_names_it(ingest: Ingest) -> None:
    text = "\n".join([HEADER, *GOOD, "ü,a,1"]).encode() + b"\nu,caf\xe9,9\n"
    assert ingest(text, bad=0.2).bad() == {"not_utf8": [9]}
    error = refused(ingest, text)
    assert error.code == "data.too_many_bad_rows"
    assert "not_utf8 1 (line 9: byte 0xe9 at 6; right: text in UTF-8" in error.message
    assert "--set ingest.encoding=cp1252" in error.message


def test_more_bad_rows_than_allowed_are_refused_with_kinds_and_lines(ingest: Ingest) -> None:
    good = [f"u{n % 300},{'abcde'[n % 5]},{n}" for n in range(2997)]
    three = "\n".join([HEADER, *good, "u,a,x", "u,a", ",a,1"])
    assert ingest(three).bad() == {"bad_timestamp": [2999], "malformed_row": [3000], "missing_user_id": [3001]}
    error = refused(ingest, three + "\nu,a,y")
    assert error.code == "data.too_many_bad_rows"
    assert "interactions.csv: 4 of 3001 rows" in error.message
    assert "bad_timestamp 2 (line 2999: x, line 3002: y; right: seconds since 1970" in error.message
    assert "malformed_row 1 (line 3000: 2 fields, not 3; right: " in error.message
    assert "missing_user_id 1 (line 3001; right: 1 to 512 bytes" in error.message
    assert "--max-bad-rows 0.002" in error.fix
    assert refused(ingest, f"{HEADER}\nu,a,x\nu,a,y").fix == "Correct these rows.", "nothing would be left"


def test_only_the_first_ten_lines_of_a_kind_are_named_but_all_are_counted(ingest: Ingest) -> None:
    result = ingest("\n".join([HEADER, *GOOD, *["u,a,x"] * 25]), bad=1)
    named = result.report["bad_rows"]["interactions.csv"]["bad_timestamp"]
    assert (named["rows"], named["lines"], named["values"]) == (25, list(range(8, 18)), ["x"] * 10)


def test_a_refusal_shows_values_short_and_harmless_to_a_terminal(ingest: Ingest) -> None:
    items = [*ITEMS, {"item_id": "p", "price": "\x1b[31m12,50 €\u202e\n" + "9" * 500}, {"item_id": "q", "title": 7}]
    error = refused(ingest, items=items)
    assert error.code == "data.too_many_bad_rows"
    assert 'bad_price 1 (line 6: "\\u001b[31m12,50 €\\u202e\\n999' in error.message
    assert "right: a number from 0 to 1e12 without quotes and currency, such as 12.5; with a comma" in error.message
    assert "--decimal-comma" in error.message
    assert "bad_title 1 (line 7: 7; right: a text of at most 2048 characters without its markup)" in error.message
    assert error.message.isprintable()
    assert len(error.message) < 600
    assert "--max-bad-rows 0.286" in error.fix


def test_a_file_of_another_kind_shows_what_it_begins_with(ingest: Ingest) -> None:
    assert r'it begins with "PK\u0003\u0004\u0000"' in refused(ingest, b"PK\x03\x04\x00").message
    times = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [[1]]})
    assert "the column timestamp holds List(Int64), such as [[1]]." in refused(ingest, times).message


def test_what_a_user_id_is_stays_out_of_messages(ingest: Ingest) -> None:
    error = refused(ingest, f"{HEADER}\n{'secret' * 100},a,1\n,a,2")
    assert "bad_user_id 1 (line 2: 600 bytes; right: 1 to 512 bytes without control characters, " in error.message
    assert "missing_user_id 1 (line 3; right: " in error.message
    assert "secret" not in error.message


def test_no_user_has_the_name_of_a_session_in_the_service(ingest: Ingest) -> None:
    error = refused(ingest, f"{HEADER}\nisrf-session:s1,a,1\nu,a,2")
    assert "bad_user_id 1 (line 2: 15 bytes; right: " in error.message
    assert "not beginning with isrf-session:)" in error.message


def test_fields_that_no_item_has_and_names_that_may_mean_them_are_said(
    ingest: Ingest, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [{"item_id": i, "name": "Cup", "product_type": ["Cups"], "Cost": 3, "brand": "B", "colour": "red",
              "descripton": "x", "in_stock": True} for i in "abc"]  # fmt: skip
    result = ingest(items=[*items, {"item_id": "d", "title": "Pot", "name": "pot-d"}, {"item_id": "e"}])
    assert result.report["item_fields"] == {
        "empty": ["categories", "description", "price"],
        "near_misses": {
            "Cost": {"field": "price", "rows": 3},
            "descripton": {"field": "description", "rows": 3},
            "in_stock": {"field": "available", "rows": 3},
            "name": {"field": "title", "rows": 3},
            "product_type": {"field": "categories", "rows": 3},
        },
    }
    said = capsys.readouterr().out
    assert said.count("no item has categories, description, price") == 1
    assert said.count('3 items have "name" but no title: if it means title, --column title=name') == 1
    assert said.count("colour") == 1, "as an attribute alone"


def test_attributes_are_reported_by_name_and_type(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        {
            "item_id": "a",
            "title": "A",
            "stock": 3,
            "released": "2026-01-01",
            "size": 1,
            "tags": ["x"],
            "available": True,
        },
        {"item_id": "b", "title": "B", "stock": None, "size": "XL", "metadata": {"sale": False}},
    ]
    attributes = ingest(f"{HEADER}\nu,a,1\nu,b,2\nu,a,3", items=items).report["attributes"]
    assert attributes == {
        "size": {"type": "text", "items": 2, "mixed": True},
        "released": {"type": "time", "items": 1, "mixed": False},
        "sale": {"type": "boolean", "items": 1, "mixed": False},
        "stock": {"type": "number", "items": 1, "mixed": False},
        "tags": {"type": "texts", "items": 1, "mixed": False},
    }
    said = capsys.readouterr().out
    assert '5 attributes: "size" (text, 2 items), "released" (time, 1 items)' in said
    assert 'values of several types, read as text: "size"' in said


def test_event_types_that_may_mean_more_are_asked_about(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join([f"{HEADER},event", *(f"{row},view" for row in GOOD), "w,a,1,Transaction", "w,b,2,purchased"])
    ingest(text)
    said = capsys.readouterr().out
    for kind in ("transaction", "purchased"):
        assert f'1 rows have the event type "{kind}", which counts as history only.' in said
        assert f"--set events.names.{kind}=purchase (=history if not)" in said
    assert '"view"' not in said
    ingest(text, "events.names.transaction=purchase", "events.names.purchased=history")
    assert "history only" not in capsys.readouterr().out
    ingest(text, "events.exclude=transaction,purchased")
    assert "history only" not in capsys.readouterr().out


def test_a_catalogue_with_nothing_on_offer_is_said(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    closed = [item | ({"available": False} if n % 2 else {"hidden": True}) for n, item in enumerate(ITEMS)]
    assert ingest(items=closed).report["items_available"] == 0
    assert "no item is available" in capsys.readouterr().out
    nested = [item | {"variants": {"available": False}} for item in ITEMS]
    assert ingest(items=[*closed[1:], nested[0]]).report["items_available"] == 1
    assert "no item is available" not in capsys.readouterr().out


def test_a_field_of_the_shops_own_is_said_once_and_named_where_it_is_wrong(ingest: Ingest) -> None:
    twice = [{"item_id": "z", "metadata": {"size": 1}, "size": 2}, *ITEMS]
    assert 'bad_metadata 1 (line 1: "size" inside it and beside it; right' in refused(ingest, items=twice).message
    table = pl.DataFrame({"item_id": ["z"], "stock": [float("inf")]})
    assert 'bad_metadata 1 (line 1: "stock": Infinity; right' in refused(ingest, items=table).message


def test_well_named_items_are_told_nothing(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"title": "T", "brand": "B", "categories": ["C"], "description": "D", "price": 1, "name": "n", "type": "t"}
    result = ingest(items=[{"item_id": i, **whole} for i in "abcde"])
    assert result.report["item_fields"] == {"empty": [], "near_misses": {}}
    assert "may" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "code", "options"),
    [
        ("customer,item_id,timestamp", "data.missing_column", ["--column user_id=customer"]),
        ("user_id,productId,timestamp", "data.missing_column", ["--column item_id=productId"]),
        ("user_id,item_id,created_at", "data.no_order", ["--column timestamp=created_at"]),
        ("user_id,sku,asin,timestamp", "data.missing_column", ["--column item_id=sku", "--column item_id=asin"]),
        ("user_id,item_id,Created at", "data.no_order", ["--column 'timestamp=Created at'"]),
    ],
)
def test_a_needed_column_that_may_have_another_name_is_refused_with_the_option(
    ingest: Ingest, columns: str, code: str, options: list[str]
) -> None:
    error = refused(ingest, f"{columns}\nu,a,1,x")
    assert error.code == code
    assert [option for option in options if option not in error.fix] == []


def test_an_optional_column_that_may_have_another_name_is_a_question(
    ingest: Ingest, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join([f"{HEADER},event_type,colour", *(f"{row},view,red" for row in GOOD)])
    asked = ingest(text)
    assert asked.report["event_types"] == {"purchase": 6}, "never guessed"
    assert asked.report["read"]["interactions.csv"]["questions"] == {"event": ["--column event=event_type"]}
    said = capsys.readouterr().out
    assert 'interactions.csv: "event_type" may be meant as event: --column event=event_type' in said
    assert said.count("columns that are not used: event_type, colour") == 1
    answered = ingest(text, "ingest.columns.event=event_type")
    assert answered.report["event_types"] == {"view": 6}
    assert "may be meant" not in capsys.readouterr().out


def test_a_row_without_an_id_is_asked_about_the_name_that_may_mean_it(ingest: Ingest) -> None:
    assert (
        '(line 1: "sku" may be meant as item_id: --column item_id=sku.'
        in refused(ingest, items=[{"sku": "a"}, *ITEMS]).message
    )
    for empty in (None, ""):
        said = refused(ingest, items=[{"item_id": empty}, *ITEMS]).message
        assert f"(line 1: {json.dumps(empty)}; right: a text" in said, "it has the right name"
    table = pl.DataFrame({"product_id": ["a"], "title": ["b"]})
    assert "--column item_id=product_id" in refused(ingest, items=table).fix


# --- files that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interactions", "code"),
    [
        (None, "data.missing_file"),
        ("", "data.empty_file"),
        ("\n\n", "data.no_header"),
        (b"\xff\xfeu\x00", "data.missing_column"),
        (b"PK\x03\x04\x00", "data.no_header"),
        ("196\t242\t3\t881250949", "data.no_header"),
        (HEADER, "data.no_rows"),
        (f"{HEADER}\n\n", "data.no_rows"),
        ("user_id,item_id\nu,a", "data.no_order"),
        ("user_id,item_id,timestamp,position\nu,a,,\nu,b,,", "data.no_order"),
        ("user_id,timestamp\nu,1", "data.missing_column"),
        ("user_id|item_id|timestamp\nu|a|1", "data.missing_column"),
        (f"{HEADER},timestamp\nu,a,1,1", "data.duplicate_column"),
        (f"{HEADER},event\nu,a,1,dislike\nu,a,2,remove", "data.no_history"),
        (pl.DataFrame({"user_id": [1.5], "item_id": ["a"], "timestamp": [1]}), "data.bad_column_type"),
        (pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [[1]]}), "data.bad_column_type"),
        (pl.DataFrame({"user_id": [], "item_id": [], "timestamp": []}), "data.no_rows"),
    ],
)
def test_unusable_interactions_are_refused_by_code(ingest: Ingest, interactions: Any, code: str) -> None:
    assert refused(ingest, interactions).code == code


@pytest.mark.parametrize(
    ("items", "code"),
    [
        (None, "data.missing_file"),
        ("", "data.empty_file"),
        ("\n\n", "data.no_rows"),
        ([ITEMS[0]], "data.too_few_items"),
        (pl.DataFrame({"title": ["a"]}), "data.missing_column"),
    ],
)
def test_unusable_items_are_refused_by_code(ingest: Ingest, items: Any, code: str) -> None:
    assert refused(ingest, items=items).code == code


def test_where_nobody_has_four_events_nothing_is_held_out(ingest: Ingest) -> None:
    three, four = ingest(GOOD_TEXT), ingest(f"{GOOD_TEXT}\nu,d,0")
    assert three.tables["heldout"].is_empty()
    assert three.rows("train") == {"u": ["a", "b", "c"], "v": ["d", "a", "b"]}
    assert three.report["learning"] == {"users": 2, "targets": 4, "longest": 3}
    assert four.rows("heldout") == {"u": ["b", "c"], "v": ["a", "b"]}
    assert four.report["learning"] == {"users": 2, "targets": 1, "longest": 4}


def test_all_rows_bad_is_refused_even_where_any_share_is_allowed(ingest: Ingest) -> None:
    assert refused(ingest, f"{HEADER}\nu,a,x\nu,b", bad=1).code == "data.no_history"
    assert refused(ingest, f"{HEADER}\nu,a\nu,b", bad=1).code == "data.no_history"


def test_a_missing_folder_and_two_files_of_one_kind_are_refused(ingest: Ingest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder") as caught:
        ingest_folder(tmp_path / "nowhere", tmp_path / "out1")
    assert caught.value.code == "data.missing_folder"
    shop = tmp_path / "both"
    shop.mkdir()
    for name in ("items.jsonl", "items.parquet", "interactions.csv"):
        (shop / name).write_text("x")
    with pytest.raises(DataError, match=r"items\.jsonl and items\.parquet"):
        ingest_folder(shop, tmp_path / "out2")


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    (shop / "interactions.parquet").write_bytes(b"PAR1 truncated")
    with pytest.raises(DataError) as caught:
        ingest_folder(shop, tmp_path / "out")
    assert caught.value.code == "data.unreadable_file"


# --- numbering ----------------------------------------------------------------------------------------------------


def scrambled(source: Path, target: Path, seed: int) -> None:
    """The same shop with the rows of both files permuted and every id renamed, the order of ids scrambled."""
    rng = random.Random(seed)
    items = [json.loads(line) for line in (source / "items.jsonl").read_text("utf-8").splitlines()]
    header, *events = (source / "interactions.csv").read_text("utf-8").splitlines()
    rows = [event.split(",", 2) for event in events]

    def renaming(ids: set[str]) -> dict[str, str]:
        names = [f"{number:06d}" for number in rng.sample(range(10**6), len(ids))]
        return dict(zip(sorted(ids), names, strict=True))

    users, new = renaming({row[0] for row in rows}), renaming({item["item_id"] for item in items})
    rng.shuffle(items)
    rng.shuffle(rows)
    target.mkdir()
    (target / "items.jsonl").write_text(
        "\n".join(json.dumps({**item, "item_id": new[item["item_id"]]}) for item in items)
    )
    (target / "interactions.csv").write_text(
        "\n".join([header, *(f"{users[user]},{new[item]},{rest}" for user, item, rest in rows)])
    )


def tables_equal(one: Result, other: Result, *names: str) -> bool:
    return all(
        (one.out / f"{name}.parquet").read_bytes() == (other.out / f"{name}.parquet").read_bytes() for name in names
    )


def test_neither_row_order_nor_id_spelling_reaches_a_row_number(tmp_path: Path) -> None:
    generate(tmp_path / "shop", seed=0, num_shoppers=300)
    original = ingest_folder(tmp_path / "shop", tmp_path / "out")
    for seed in (1, 2):
        scrambled(tmp_path / "shop", tmp_path / f"shop{seed}", seed)
        other = ingest_folder(tmp_path / f"shop{seed}", tmp_path / f"out{seed}")
        assert tables_equal(original, other, "train", "heldout")
        content = pl.exclude("item_id")
        assert other.tables["items"].select(content).equals(original.tables["items"].select(content))
        assert other.item_ids != original.item_ids


def test_items_alike_in_every_word_are_told_apart_by_who_took_them(tmp_path: Path) -> None:
    """No content at all: only the shape of the training interactions can number items and users."""
    generate(tmp_path / "shop", seed=0, num_shoppers=200)
    bare = [
        json.dumps({"item_id": json.loads(line)["item_id"]})
        for line in (tmp_path / "shop" / "items.jsonl").read_text("utf-8").splitlines()
    ]
    (tmp_path / "shop" / "items.jsonl").write_text("\n".join(bare))
    original = ingest_folder(tmp_path / "shop", tmp_path / "out")
    scrambled(tmp_path / "shop", tmp_path / "shop1", 1)
    assert tables_equal(original, ingest_folder(tmp_path / "shop1", tmp_path / "out1"), "train")


def test_held_out_events_do_not_reach_the_numbering(tmp_path: Path, ingest: Ingest) -> None:
    """Another last item, another number of its buyers: the same row numbers and the same training table."""
    lines = [f"u{user},{item},{time}" for user in range(4) for time, item in enumerate("abcd"[user:] + "abcd"[:user])]
    bare = [{"item_id": item} for item in "abcde"]
    one = ingest("\n".join([HEADER, *lines]), items=bare)
    other = ingest(
        "\n".join([HEADER, *(line if not line.endswith(",3") else f"{line[:2]},e,7" for line in lines)]), items=bare
    )
    assert one.rows("heldout") != other.rows("heldout")
    assert one.item_ids == other.item_ids
    assert one.user_ids == other.user_ids
    assert tables_equal(one, other, "items", "users", "train")


def test_the_fingerprint_follows_content_and_not_row_order(ingest: Ingest) -> None:
    one = ingest("\n".join([HEADER, *GOOD])).report["fingerprint"]
    assert ingest("\n".join([HEADER, *GOOD[::-1]]), items=ITEMS[::-1]).report["fingerprint"] == one
    assert ingest("\n".join([HEADER, *GOOD[:-1], "v,b,7"])).report["fingerprint"] != one
    assert ingest(items=[*ITEMS[:-1], {"item_id": "e", "title": "Title e!"}]).report["fingerprint"] != one
    assert len(one) == 64


def test_two_runs_write_equal_bytes(tmp_path: Path) -> None:
    generate(tmp_path / "shop", seed=0, num_shoppers=300)
    one, two = (ingest_folder(tmp_path / "shop", tmp_path / name) for name in ("one", "two"))
    for path in one.out.iterdir():
        assert path.read_bytes() == (two.out / path.name).read_bytes(), path.name


IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda text: text.strip("\r\n")
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(IDS, min_size=3, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_any_printable_id_survives_csv_and_json(ingest: Ingest, ids: list[str], rng: random.Random) -> None:
    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if rng.random() < 0.5 or set(text) & set(',"') else text

    lines = [f"{field(user)},{field(item)},{time}" for user in ids for time, item in enumerate(ids)]
    result = ingest("\n".join([HEADER, *lines]), items=[{"item_id": item} for item in ids])
    everything = {user: result.rows("train")[user] + result.rows("heldout").get(user, []) for user in ids}
    assert everything == dict.fromkeys(ids, ids)
