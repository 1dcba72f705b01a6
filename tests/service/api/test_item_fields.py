"""What a shop says of an item is understood, or refused, alike in its files, by the service, and in a release."""

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl
import pytest
from pydantic import ValidationError

from isrf.contract.item_fields import FieldError
from offline.reading.bad_rows import BadRows
from offline.reading.files import single
from offline.stages.ingest.items import read_items
from service.release.catalogue import read_item
from tests.service.releases import named_copy, point
from tests.service.servers import PATIENCE_S, ServiceProcess


class Refused(Enum):
    """Its name is the same in every test process."""

    BAD = "bad"


BAD = Refused.BAD


class Case(NamedTuple):
    name: str
    field: str
    sent: str  # JSON
    understood: Any  # BAD for a value that is not


def case(field: str, sent: str, understood: Any) -> Case:
    return Case(f"{field}={sent[:40]}", field, sent, understood)


TEXTS = [
    case(field, sent, understood)
    for field in ("title", "brand", "description")
    for sent, understood in (
        ('" A cup "', "A cup"),
        ('""', None),
        ('"  "', None),
        ("null", None),
        ("7", BAD),
        ("7.5", BAD),
        ("true", BAD),
        ('["a"]', BAD),
        ('{"en": "a"}', BAD),
        ('"\\ud800"', BAD),
        (json.dumps("x" * 32_769), BAD),
    )
]
CASES = [
    *TEXTS,
    case("title", '"<b>Oak</b>&nbsp;cup &amp;amp; pot<br>2 < 3"', "Oak cup & pot 2 < 3"),
    case("brand", '"Lumen &amp; Oak"', "Lumen & Oak"),
    case(
        "description", '"<style>p{}</style><p>One</p><ul><li>two</li></ul>\\n&lt;b&gt;three&lt;/b&gt;"', "One two three"
    ),
    case("description", '"<p> &nbsp;</p>"', None),
    case("categories", '["Toys &amp; Games", "<b> </b>"]', ["Toys & Games"]),
    case("title", json.dumps("x" * 2048), "x" * 2048),
    case("title", json.dumps("x" * 2049), BAD),
    case("title", json.dumps(f"<p style='{'x' * 3000}'>Cup</p>"), "Cup"),
    case("title", json.dumps(f"<p style='{'x' * 9000}'>Cup</p>"), BAD),
    case("brand", json.dumps("x" * 513), BAD),
    case("categories", '["Kitchen", " Cups "]', ["Kitchen", "Cups"]),
    case("categories", "[]", None),
    case("categories", '["", " "]', None),
    case("categories", "null", None),
    case("categories", '"Kitchen"', BAD),
    case("categories", '"Kitchen > Cups"', BAD),
    case("categories", '["Kitchen", null]', BAD),
    case("categories", '["Kitchen", 7]', BAD),
    case("categories", '[["Kitchen"]]', BAD),
    case("categories", '{"a": "b"}', BAD),
    case("categories", "7", BAD),
    case("categories", "false", BAD),
    case("categories", json.dumps(["x" * 513]), BAD),
    case("categories", json.dumps([f"c{k}" for k in range(65)]), BAD),
    case("price", "12.5", 12.5),
    case("price", "3", 3.0),
    case("price", "0", 0.0),
    case("price", "-0.0", 0.0),
    case("price", "1e12", 1e12),
    case("price", "null", None),
    case("price", '"12.5"', BAD),
    case("price", '"12,50 €"', BAD),
    case("price", '""', BAD),
    case("price", "-1", BAD),
    case("price", "NaN", BAD),
    case("price", "Infinity", BAD),
    case("price", "1e400", BAD),
    case("price", "1e13", BAD),
    case("price", "9" * 30, BAD),
    case("price", "true", BAD),
    case("price", "[12.5]", BAD),
    case("available", "true", True),
    case("available", "false", False),
    case("available", "null", True),
    case("available", "0", BAD),
    case("available", "1", BAD),
    case("available", '"false"', BAD),
    case("available", '"true"', BAD),
    case("available", '"no"', BAD),
    case("available", '""', BAD),
    case("available", "[]", BAD),
    case("available", "0.0", BAD),
    case("metadata", '{"colour": "red"}', {"colour": "red"}),
    case("metadata", "null", {}),
    case("metadata", '"red"', BAD),
    case("metadata", "[1]", BAD),
    case("metadata", '{"price": 1}', BAD),
    case("metadata", '{"available": false}', BAD),
    case("metadata", json.dumps({"x": "y" * 16_384}), BAD),
    case("metadata", '{"a":' * 70 + "1" + "}" * 70, BAD),
    case("metadata", '{"a":' * 31 + "1" + "}" * 31, BAD),
    case("metadata", '{"a":' * 30 + "1" + "}" * 30, json.loads('{"a":' * 30 + "1" + "}" * 30)),
    case("metadata", '{"a": 1, "a": 2}', BAD),
]
OF_LINES = [
    case("hidden", "true", True),
    case("hidden", "false", False),
    case("hidden", "null", False),
    case("hidden", '"true"', BAD),
    case("hidden", "1", BAD),
]
"""What a call names in another way, and a line of a file and of an import as a field."""

IDS = [
    ('"a/b é"', "a/b é"), ("7", "7"), ("-3", "-3"), ('"7"', "7"), ("18446744073709551615", "18446744073709551615"),
    ("7.0", BAD), ("1e3", BAD), ("true", BAD), ("null", BAD), ('""', BAD), ("[7]", BAD), ('"a\\u0000b"', BAD),
    ('"a\\nb"', BAD), (json.dumps("é" * 257), BAD), ("18446744073709551616", BAD),
]  # fmt: skip


def offline(folder: Path, line: str) -> dict[str, Any] | str:
    """The item as `ingest` reads its line: its fields, or the kind and the value of the refusal."""
    folder.mkdir(exist_ok=True)
    path = folder / "items.jsonl"
    path.write_text(line + "\n")
    bad = BadRows(path.name)
    rows = read_items(single(path), bad).items
    if len(bad):
        assert rows.is_empty()
        return bad.describe()
    (row,) = rows.drop("line").iter_rows(named=True)
    own = json.loads(row.pop("metadata") or "{}")
    return {
        **row,
        "available": own.pop("available", True),
        "hidden": own.pop("hidden", False),
        "metadata": own,
    }


class Service:
    def __init__(self, process: ServiceProcess) -> None:
        self._http = httpx.Client(base_url=process.url, timeout=PATIENCE_S)

    def close(self) -> None:
        self._http.close()

    def put(self, item_id: str, body: str) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._http.put(f"/items/{item_id}", content=body, headers=headers)

    def imported(self, line: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._http.post("/import/items", content=line).json()
        return answer

    def popular(self, category: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._http.get("/popular", params={"category": category}).json()
        return answer

    def exported(self) -> dict[str, dict[str, Any]]:
        lines = self._http.get("/export/items").text.splitlines()
        return {record.pop("item_id"): record for record in map(json.loads, lines)}


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fields")
    named_copy(tiny_release / "current", folder / "releases", "r-a")
    point(folder / "releases", "r-a")
    process = ServiceProcess(folder / "releases", folder / "service", ISRF_WATCH_RELEASES_S="0")
    running = Service(process.start())
    yield running
    running.close()
    process.kill()


def line(case: Case) -> str:
    return (
        f'{{"item_id": "x", "title": "Cup", "{case.field}": {case.sent}}}'
        if case.field != "title"
        else (f'{{"item_id": "x", "title": {case.sent}}}')
    )


@pytest.mark.parametrize("one", [*CASES, *OF_LINES], ids=lambda one: one.name)
def test_a_file_understands_or_refuses(tmp_path: Path, one: Case) -> None:
    found = offline(tmp_path / "shop", line(one))
    if one.understood is BAD:
        assert isinstance(found, str), found
        assert found.split()[0] in {f"bad_{one.field}", "malformed_json", "duplicate_name"}
        assert "line 1: " in found
        assert "right: " in found
    else:
        assert isinstance(found, dict), found
        assert found[one.field] == one.understood


def test_the_service_understands_or_refuses_what_a_file_does(service: Service, tmp_path: Path) -> None:
    for number, one in enumerate([*CASES, *OF_LINES]):
        name, text = f"imported-{number}", line(one).replace('"item_id": "x"', f'"item_id": "imported-{number}"', 1)
        report = service.imported(text)
        found = offline(tmp_path / "shop", text)
        assert (report["accepted"] == 1) == isinstance(found, dict), (one.name, report)
        if isinstance(found, dict):
            kept = service.exported()[name]
            expected = dict(found.pop("metadata"))
            expected |= {key: value for key, value in found.items() if value is not None and key != "item_id"}
            assert {"available": True, "hidden": False, **kept} == expected, one.name
        elif not one.sent.startswith(('"\\ud800', "NaN", "Inf", "1e400")):
            (problem,) = report["problems"]
            assert problem["reason"] in {"invalid_item", "duplicate_name", "too_complex"}, one.name
            if problem["reason"] == "invalid_item":
                assert problem["detail"].startswith(f"{one.field}: "), one.name
                assert "right is" in problem["detail"]


def test_a_put_understands_or_refuses_what_a_file_does(service: Service, tmp_path: Path) -> None:
    for number, one in enumerate(CASES):
        answer = service.put(f"put-{number}", f'{{"{one.field}": {one.sent}}}')
        found = offline(tmp_path / "shop", line(one))
        assert answer.status_code == (200 if isinstance(found, dict) else 422) or (
            answer.status_code == 400 and one.sent == '"\\ud800"'
        ), (one.name, answer.text)
        if isinstance(found, dict) and one.field in answer.json()["item"]:
            assert (answer.json()["item"][one.field] or None) == (found[one.field] or None), one.name
        if answer.status_code == 422 and answer.json()["code"] == "request.invalid":
            assert "right is" in answer.json()["detail"], one.name


@pytest.mark.parametrize(("sent", "understood"), IDS, ids=lambda value: str(value)[:30])
def test_ids_of_rows_are_read_alike(service: Service, tmp_path: Path, sent: str, understood: Any) -> None:
    text = f'{{"item_id": {sent}, "title": "Cup"}}'
    found, report = offline(tmp_path / "shop", text), service.imported(text)
    if understood is BAD:
        assert isinstance(found, str)
        assert found.split()[0] in {"bad_item_id", "missing_item_id"}
        assert report["reasons"] == {"invalid_item_id": 1}
    else:
        assert isinstance(found, dict)
        assert found["item_id"] == understood
        assert report["accepted"] == 1
        assert understood in service.exported()


@pytest.mark.parametrize("text", ['{"item_id": "x", "item_id": "y"}', '{"item_id": "x", "a:b": {"c": 1, "c": 2}}'])
def test_a_name_that_stands_twice_is_refused(service: Service, tmp_path: Path, text: str) -> None:
    assert str(offline(tmp_path / "shop", text)).startswith("duplicate_name 1 (line 1: ")
    assert service.imported(text)["reasons"] == {"duplicate_name": 1}


def test_a_category_is_found_as_the_shop_writes_it_and_as_it_is_shown(service: Service) -> None:
    categories = ["Tarot &amp; Dice", "5 &gt; 3"]
    shown = service.put("game", json.dumps({"title": "A game", "categories": categories})).json()["item"]
    assert shown["categories"] == ["Tarot & Dice", "5 > 3"]
    for name in (*categories, *shown["categories"]):
        answer = service.popular(name)
        assert [item["item_id"] for item in answer["items"]] == ["game"], name
        assert "unknown_category" not in {warning["code"] for warning in answer["warnings"]}


def test_a_name_that_stands_twice_in_a_put_is_refused(service: Service) -> None:
    answer = service.put("twice", '{"title": "a: b", "price": 1, "price": 2}')
    assert (answer.status_code, answer.json()["code"]) == (422, "request.duplicate_name")
    assert '"price" stands twice' in answer.json()["detail"]


IN_RELEASES = [
    one
    for one in [*CASES, *OF_LINES]
    if one.field not in ("description", "metadata") and len(one.sent) < 300  # nor are lengths looked at there
]


@pytest.mark.parametrize("one", IN_RELEASES, ids=lambda one: one.name)
def test_a_release_refuses_what_a_file_does(one: Case) -> None:
    """Its lines carry `available` and `hidden` among the shop's own fields, and texts as ingest left them."""
    of_own = one.field in ("available", "hidden")
    text = f'"metadata": {{"{one.field}": {one.sent}}}' if of_own else f'"{one.field}": {one.sent}'
    row = f'{{"item_id": "x", {text}}}'.encode()
    if one.understood is BAD:
        with pytest.raises((FieldError, ValidationError)):
            read_item(row)
    elif one.sent not in ("null",) and not isinstance(one.understood, str | list | None):
        assert getattr(read_item(row), one.field) == one.understood


def test_a_release_says_which_value_it_does_not_understand() -> None:
    with pytest.raises(FieldError, match='"false" is not understood; right is true or false'):
        read_item(b'{"item_id": "x", "metadata": {"available": "false"}}')
    with pytest.raises(FieldError, match='"5" is not understood'):
        read_item(b'{"item_id": "x", "price": "5"}')


@pytest.mark.parametrize(
    ("column", "values", "understood"),
    [
        ("price", pl.Series([1.5, None]), [1.5, None]),
        ("price", pl.Series([1, 2], dtype=pl.Int32), [1.0, 2.0]),
        ("price", pl.Series(["1.5", "2.5"], dtype=pl.String).cast(pl.Decimal(10, 2)), [1.5, 2.5]),
        ("price", pl.Series(["1.5", None]), BAD),
        ("price", pl.Series([True, False]), BAD),
        ("price", pl.Series([float("nan"), 1.0]), BAD),
        ("available", pl.Series([True, None]), [True, True]),
        ("available", pl.Series([0, 1]), BAD),
        ("available", pl.Series(["false", "true"]), BAD),
        ("categories", pl.Series([["a"], None]), [["a"], None]),
        ("categories", pl.Series([["a", None], ["b"]]), BAD),
        ("categories", pl.Series(["a", "b"]), BAD),
        ("categories", pl.Series([[1], [2]]), BAD),
        ("title", pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"]),
        ("title", pl.Series([1, 2]), BAD),
        ("metadata", pl.Series([{"a": b"x"}, {"a": None}]), BAD),
        ("item_id", pl.Series([1, 2], dtype=pl.UInt64), ["1", "2"]),
        ("item_id", pl.Series([1.0, 2.5]), BAD),
        ("item_id", pl.Series([1.0, 2.0]), ["1", "2"]),  # whole numbers of a table with gaps
        ("item_id", pl.Series([True, False]), BAD),
    ],
    ids=str,
)
def test_columns_of_parquet_are_read_as_values_of_json(
    tmp_path: Path, column: str, values: pl.Series, understood: Any
) -> None:
    path, bad = tmp_path / "items.parquet", BadRows("items.parquet")
    pl.DataFrame({"item_id": ["a", "b"], column: values}).write_parquet(path)
    items = read_items(single(path), bad).items
    if understood is BAD:
        assert len(bad) >= 1
        assert f"bad_{column}" in bad.as_json()
        return
    assert len(bad) == 0
    if column == "available":
        found = [json.loads(own or "{}").get("available", True) for own in items["metadata"]]
    else:
        found = items[column].to_list()
    assert found == understood
