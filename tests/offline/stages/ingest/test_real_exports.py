"""Files as shops and public data sets have them: the one command that takes each, or the refusal that names the fix.

Each case is the files, the refusal without options (its code and a part of it), and the options that take the files.
"""

import gzip
import json
import shlex
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from isrf.contract.errors import DataError
from tests.offline.stages.ingest.ingest_command import Files, events_of, ingest, report_of, write


class Export(NamedTuple):
    """What a shop has, and what takes it."""

    files: Files
    options: str
    refusals: list[tuple[str, str]]  # of the command without options, then with more and more of them
    events: list[tuple[str, str, float | None, str]]  # of the first user: user, item, seconds, type


def repeated(header: str, rows: list[str], times: int = 1) -> str:
    return "\n".join([header, *rows * times]) + "\n"


ITEMS = repeated("item_id,title", [f"{item},Thing {item}" for item in ("1", "2", "3", "4")])
SHOPIFY_ORDERS = repeated(
    "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem sku",
    [
        "#1001,ann@example.com,paid,2025-10-07 09:50:26 +0200,2,Blue Mug,MUG",
        "#1002,ann@example.com,paid,2025-10-08 18:00:00 +0200,1,Teapot,TEA",
        "#1003,ann@example.com,paid,2025-11-02 10:00:00 +0100,1,Tea Towel,TOWEL",
        "#1004,ann@example.com,paid,2025-11-09 10:00:00 +0100,1,Tea Caddy,CADDY",
        "#1005,bob@example.com,paid,2025-11-09 10:00:00 +0100,1,Teapot,TEA",
    ],
)
SHOPIFY_PRODUCTS = (
    "Handle,Title,Body (HTML),Vendor,Type,Published,Variant SKU,Variant Price\n"
    'mug,Blue Mug,"<p>Holds 0.4 l.</p>\n\n<p>Ann\'s ""favourite"".</p>",Tassen,Kitchen > Cups,TRUE,MUG,12.50\n'
    "teapot,Teapot,,Tassen,Kitchen,TRUE,TEA,49.00\n"
    "towel,Tea Towel,,Leinen,Textiles,TRUE,TOWEL,7.00\n"
    "caddy,Tea Caddy,,Tassen,Storage,FALSE,CADDY,15.00\n"
)
RETAIL = repeated(
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,Customer ID,Country",
    [
        "536365,1,HOLDER,6,12/1/2010 8:26,2.55,17850.0,United Kingdom",
        "536366,2,LANTERN,6,12/1/2010 8:28,3.39,17850.0,United Kingdom",
        "536367,3,MUG,6,12/1/2010 8:34,3.39,17850.0,United Kingdom",
        "536368,4,TIN,6,12/13/2010 8:34,3.39,17850.0,United Kingdom",
        "536369,3,MUG,1,12/13/2010 8:40,3.39,17850.0,United Kingdom",
        "C536379,1,HOLDER,-1,12/13/2010 9:41,2.55,17850.0,United Kingdom",
        "536370,4,TIN,1,12/13/2010 9:45,3.39,13047.0,United Kingdom",
    ],
)
ROCKET = repeated(
    "timestamp,visitorid,event,itemid,transactionid",
    [
        "1433221332117,257597,view,1,",
        "1433221332218,257597,view,2,",
        "1433221332319,257597,addtocart,2,",
        "1433221332420,257597,transaction,2,4000",
        "1433221332521,257597,view,3,",
        "1433221332622,992329,view,4,",
    ],
)
RATINGS = repeated("userId,movieId,rating,timestamp", [f"7,{item},4.0,96498270{item}" for item in (1, 2, 3, 4)])
RATINGS += "8,1,3.5,964982703\n"
MOVIES = "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n2,Heat (1995),Action|Crime\n" + (
    '3,"American President, The (1995)",Comedy|Drama\n4,Sudden Death (1995),Action\n'
)
GA4 = pl.DataFrame(
    {
        "event_timestamp": [1759823426000000 + step for step in range(5)],
        "event_name": ["view_item", "view_item", "add_to_cart", "purchase", "view_item"],
        "user_pseudo_id": ["11.22"] * 4 + ["33.44"],
        "item_id": ["1", "2", "3", "4", "1"],
    }
)
GERMAN = (
    "Kundennummer;Artikelnummer;Bestelldatum;Menge;Bemerkung\n"
    "K1;1;07.10.2025 09:50;1,0;schön\nK1;2;08.10.2025 10:00;2,5;\nK1;3;09.10.2025 10:00;1,0;\n"
    "K1;4;10.10.2025 10:00;1,0;\nK2;1;10.10.2025 10:00;1,0;\n"
)
GERMAN_ITEMS = (
    "Artikelnummer;Name;Preis;Kategorie;Lagernd\n"
    "1;Blaue Tasse;1.299,00 €;Küche/Tassen;ja\n2;Teekanne;49,00;Küche;yes\n3;Tuch;7,00;;no\n4;Dose;15,00;;no\n"
).replace(";ja", ";yes")
INTEGERS = pl.DataFrame({"user_id": [7, 7, 7, 7, 8], "item_id": [1, 2, 3, 4, 1], "timestamp": [1, 2, 3, 4, 5]})

EXPORTS: dict[str, Export] = {
    "Shopify's orders and products": Export(
        {"interactions.csv": SHOPIFY_ORDERS, "items.csv": SHOPIFY_PRODUCTS},
        "--column user_id=Email --column 'item_id=Lineitem sku' --column 'item_id=Variant SKU' "
        "--column 'timestamp=Created at' --column 'weight=Lineitem quantity' --column brand=Vendor "
        "--column categories=Type --column 'price=Variant Price' --column 'description=Body (HTML)'",
        [("data.missing_column", "--column item_id=Handle"), ("data.missing_column", "--column user_id=Email")],
        [("ann@example.com", "MUG", 1759823426.0, "purchase"), ("ann@example.com", "TEA", 1759939200.0, "purchase")],
    ),
    "Online Retail": Export(
        {"interactions.csv": RETAIL, "items.csv": ITEMS},
        "--column 'user_id=Customer ID' --column item_id=StockCode --column timestamp=InvoiceDate "
        "--column weight=Quantity --time-format '%m/%d/%Y %H:%M'",
        [
            ("data.missing_column", "--column 'user_id=Customer ID'"),
            ("data.no_order", "--column timestamp=InvoiceDate"),
            ("data.time_format", '--time-format "%m/%d/%Y %H:%M" or --time-format "%d/%m/%Y %H:%M"'),
        ],
        [("17850", "2", 1291192080.0, "purchase"), ("17850", "3", 1291192440.0, "purchase")],
    ),
    "RetailRocket": Export(
        {"interactions.csv": ROCKET, "items.csv": ITEMS},
        "--column user_id=visitorid --column item_id=itemid --set events.names.transaction=purchase",
        [("data.missing_column", "--column user_id=visitorid; --column item_id=itemid")],
        [("257597", "1", 1433221332.117, "view"), ("257597", "2", 1433221332.218, "view")],
    ),
    "MovieLens, comma-separated": Export(
        {"interactions.csv": RATINGS, "items.csv": MOVIES},
        "--column user_id=userId --column item_id=movieId --column categories=genres --category-separator '|'",
        [("data.missing_column", "--column item_id=movieId"), ("data.missing_column", "--column user_id=userId")],
        [("7", "1", 964982701.0, "purchase"), ("7", "2", 964982702.0, "purchase")],
    ),
    "GA4, exported to Parquet": Export(
        {"interactions.parquet": GA4, "items.jsonl": '{"item_id": 1}\n{"item_id": 2}\n{"item_id": 3}\n{"item_id": 4}'},
        "--column user_id=user_pseudo_id --column timestamp=event_timestamp --column event=event_name",
        [("data.missing_column", "--column user_id=user_pseudo_id")],
        [("11.22", "1", 1759823426.0, "view_item"), ("11.22", "2", 1759823426.000001, "view_item")],
    ),
    "a German shop's CSV, semicolons and decimal commas, in cp1252": Export(
        {"interactions.csv": GERMAN.encode("cp1252"), "items.csv": GERMAN_ITEMS.encode("cp1252")},
        "--column user_id=Kundennummer --column item_id=Artikelnummer --column timestamp=Bestelldatum "
        "--column weight=Menge --column price=Preis --column categories=Kategorie --column available=Lagernd "
        "--time-format '%d.%m.%Y %H:%M' --decimal-comma --category-separator /",
        [("data.missing_column", "--column item_id=NAME"), ("data.missing_column", "--column user_id=NAME")],
        [("K1", "1", 1759830600.0, "purchase"), ("K1", "2", 1759917600.0, "purchase")],
    ),
    "BigQuery's times with a zone in words": Export(
        {
            "interactions.csv": repeated(
                "event_time,event_type,product_id,category_id,user_id,user_session",
                [f"2019-10-0{day} 00:00:04 UTC,view,{day},2053,541,s1" for day in (1, 2, 3, 4)]
                + ["2019-10-01 00:00:00 UTC,view,1,2053,542,s2"],
            ),
            "items.csv": ITEMS,
        },
        "--column timestamp=event_time --column event=event_type --column item_id=product_id",
        [("data.missing_column", "--column item_id=product_id"), ("data.no_order", "--column timestamp=event_time")],
        [("541", "1", 1569888004.0, "view"), ("541", "2", 1569974404.0, "view")],
    ),
    "Amazon reviews, JSON fields as a table of tabs": Export(
        {
            "interactions.tsv": repeated(
                "user_id\tparent_asin\trating\ttimestamp",
                [f"AG7\t{item}\t5.0\t158865112300{item}" for item in (1, 2, 3, 4)] + ["AG8\t1\t4.0\t1588651123009"],
            ),
            "items.jsonl": "\n".join(json.dumps({"parent_asin": str(item), "store": "x"}) for item in (1, 2, 3, 4)),
        },
        "--column item_id=parent_asin",
        [("data.too_many_bad_rows", "--column item_id=parent_asin")],
        [("AG7", "1", 1588651123.001, "purchase"), ("AG7", "2", 1588651123.002, "purchase")],
    ),
    "Excel's Unicode text": Export(
        {
            "interactions.tsv": INTEGERS.write_csv(separator="\t", line_terminator="\r\n").encode("utf-16"),
            "items.csv": ("\ufeff" + ITEMS).encode(),
        },
        "",
        [],
        [("7", "1", 1.0, "purchase"), ("7", "2", 2.0, "purchase")],
    ),
    "Parquet with whole numbers as ids": Export(
        {
            "interactions.parquet": INTEGERS,
            "items.parquet": pl.DataFrame({"item_id": [1.0, 2.0, 3.0, 4.0], "Title": ["a", "b", "c", "d"]}),
        },
        "",
        [],
        [("7", "1", 1.0, "purchase"), ("7", "2", 2.0, "purchase")],
    ),
    "Spark's folders of packed parts": Export(
        {
            "interactions/_SUCCESS": "",
            "interactions/.part-0.csv.gz.crc": b"\0",
            "interactions/part-0.csv.gz": gzip.compress(INTEGERS[:2].write_csv().encode()),
            "interactions/part-1.csv.gz": gzip.compress(INTEGERS[2:].write_csv().encode()),
            "items/part-0.parquet": pl.DataFrame({"item_id": ["1", "2"]}),
            "items/part-1.parquet": pl.DataFrame({"item_id": ["3", "4"]}),
        },
        "",
        [],
        [("7", "1", 1.0, "purchase"), ("7", "2", 2.0, "purchase")],
    ),
    "a table with an index, every value quoted": Export(
        {
            "interactions.csv": '"","user_id","item_id","timestamp"\n'
            + "".join(f'"{row}","7","{row}","2024-05-0{row}T10:00:00"\n' for row in (1, 2, 3, 4))
            + '"5","8","1","2024-05-01T10:00:00"\n',
            "items.csv": ITEMS,
        },
        "",
        [],
        [("7", "1", 1714557600.0, "purchase"), ("7", "2", 1714644000.0, "purchase")],
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_one_command_takes_a_real_export(tmp_path: Path, name: str) -> None:
    export = EXPORTS[name]
    data = write(tmp_path / "shop", export.files)
    out = ingest(data, tmp_path / "releases", export.options)
    events = events_of(out)
    for event, expected in zip(events, export.events, strict=False):
        assert (*event[:2], event[3]) == (*expected[:2], expected[3])
        assert event[2] == pytest.approx(expected[2], abs=1e-5)
    assert report_of(out)["bad_rows"] == {file: {} for file in report_of(out)["rows"]}


@pytest.mark.parametrize("name", [name for name, export in EXPORTS.items() if export.refusals])
def test_without_the_options_each_refusal_names_the_next_one(tmp_path: Path, name: str) -> None:
    """A shop that adds the options that it is told ends at the command that works, and never at a wrong release."""
    export = EXPORTS[name]
    data = write(tmp_path / "shop", export.files)
    words = [word for word in shlex.split(export.options) if "=" in word and "events." not in word]
    words.sort(key=lambda word: not word.startswith("item_id="))  # both files need it, and the items are read first
    columns = [f"--column {shlex.quote(word)}" for word in words]
    seen: list[tuple[str, str]] = []
    for given in range(len(columns) + 1):
        try:
            ingest(data, tmp_path / "releases", " ".join(columns[:given]))
        except DataError as error:
            seen.append((error.code, f"{error.message} {error.fix}"))
    for code, said in export.refusals:
        assert any(code == found and said in text for found, text in seen), (code, said, seen)


def test_the_values_of_real_exports_are_what_their_shops_mean(tmp_path: Path) -> None:
    german = EXPORTS["a German shop's CSV, semicolons and decimal commas, in cp1252"]
    out = ingest(write(tmp_path / "german", german.files), tmp_path / "r1", german.options)
    item = pl.read_parquet(out / "items.parquet").row(by_predicate=pl.col("item_id") == "1", named=True)
    assert (item["price"], item["categories"]) == (1299.0, ["Küche", "Tassen"])
    assert json.loads(item["metadata"]) == {"Name": "Blaue Tasse", "available": True}
    assert pl.read_parquet(out / "train.parquet")["weight"].sort().to_list() == [1.0, 1.0, 2.5]
    read = report_of(out)["read"]["interactions.csv"]
    assert read["encodings"] == ['cp1252 (line 2: byte 0xf6 is "ö")']
    assert (read["separators"], read["time_form"]) == ([";"], "%d.%m.%Y %H:%M")
    assert read["columns"]["user_id"] == "Kundennummer"
    assert read["other_columns"] == ["Bemerkung"]

    shopify = EXPORTS["Shopify's orders and products"]
    out = ingest(write(tmp_path / "shopify", shopify.files), tmp_path / "r2", shopify.options)
    item = pl.read_parquet(out / "items.parquet").row(by_predicate=pl.col("item_id") == "MUG", named=True)
    assert item["description"] == 'Holds 0.4 l. Ann\'s "favourite".'
    assert item["categories"] == ["Kitchen", "Cups"]

    movies = EXPORTS["MovieLens, comma-separated"]
    out = ingest(write(tmp_path / "movies", movies.files), tmp_path / "r3", movies.options)
    titles = dict(pl.read_parquet(out / "items.parquet").select("title", "categories").iter_rows())
    assert titles["American President, The (1995)"] == ["Comedy", "Drama"]

    retail = EXPORTS["Online Retail"]
    out = ingest(write(tmp_path / "retail", retail.files), tmp_path / "r4", retail.options)
    report = report_of(out)
    assert report["read"]["interactions.csv"]["negative_weights"] == 1
    assert (report["event_types"], report["taken_back"]) == ({"purchase": 6, "remove": 1}, 1)


def test_genres_with_bars_are_refused_with_the_separator_to_name(tmp_path: Path) -> None:
    movies = EXPORTS["MovieLens, comma-separated"]
    data = write(tmp_path / "shop", movies.files)
    with pytest.raises(DataError) as caught:
        ingest(data, tmp_path / "r", movies.options.replace("--category-separator '|'", ""))
    assert caught.value.code == "data.too_many_bad_rows"
    assert 'bad_categories 3 (line 2: "Adventure|Animation"' in caught.value.message
    assert "--category-separator" in caught.value.message


def test_a_price_with_a_comma_is_refused_with_the_option_to_write(tmp_path: Path) -> None:
    items = 'item_id,price\n1,"19,99 €"\n2,5\n3,6\n4,7\n'
    data = write(tmp_path / "shop", {"interactions.parquet": INTEGERS, "items.csv": items})
    with pytest.raises(DataError) as caught:
        ingest(data, tmp_path / "r")
    assert 'bad_price 1 (line 2: "19,99 €"' in caught.value.message
    assert "--decimal-comma" in caught.value.message
    assert ingest(data, tmp_path / "r", "--decimal-comma")


PRICES = ["19,99 €", "5", "1.299,50", "7"]


@pytest.mark.parametrize("name", ["price", "Preis"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_decimal_comma_means_the_same_in_every_format(tmp_path: Path, ending: str, name: str) -> None:
    records = [{"item_id": str(row), name: price} for row, price in enumerate(PRICES, start=1)]
    table = pl.DataFrame(records)
    lines = "\n".join(map(json.dumps, records))
    texts: Files = {"csv": table.write_csv(separator="\t"), "jsonl": lines, "parquet": table}
    data = write(tmp_path / "shop", {"interactions.parquet": INTEGERS, f"items.{ending}": texts[ending]})
    column = f" --column price={name}" * (name != "price")
    out = ingest(data, tmp_path / "r", f"--decimal-comma{column}")
    items = pl.read_parquet(out / "items.parquet").sort("item_id")
    assert items["price"].to_list() == [19.99, 5.0, 1299.5, 7.0]


def test_a_file_without_a_header_is_refused_with_the_fix(tmp_path: Path) -> None:
    """MovieLens' `u.data`."""
    rows = "\n".join(f"196\t{item}\t3\t88125094{item}" for item in (1, 2, 3, 4)) + "\n197\t1\t3\t881250949\n"
    data = write(tmp_path / "shop", {"interactions.tsv": rows, "items.csv": ITEMS})
    with pytest.raises(DataError) as caught:
        ingest(data, tmp_path / "r")
    assert caught.value.code == "data.no_header"
    assert '"196", "1", "3", "881250941"' in caught.value.message
    assert "Write a first line with the columns' names" in caught.value.fix
    (data / "interactions.tsv").write_text("user_id\titem_id\tweight\ttimestamp\n" + rows)
    assert events_of(ingest(data, tmp_path / "r"))[0] == ("196", "1", 881250941.0, "purchase")
