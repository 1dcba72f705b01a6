"""Google's product feed: RSS, Atom and tab-separated text give the same items, and hostile XML is refused."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from isrf.contract.errors import DataError
from offline.importers.google_products import GoogleProducts
from offline.importers.report import ImportReport
from tests.offline.importers.import_command import import_files, write_file
from tests.offline.stages.ingest.ingest_command import events_of, ingest, report_of

ITEMS = """
<{item}>
  <g:id>MUG-BLUE</g:id><title>not this one</title><g:title>Blue &amp; white mug</g:title>
  <g:description><![CDATA[<p>Holds 0.4 l.</p>]]></g:description>
  <g:link>https://shop.example/mug</g:link><g:image_link>https://shop.example/mug.jpg</g:image_link>
  <g:availability>in_stock</g:availability><g:price>12.50 EUR</g:price><g:brand>Tassen</g:brand>
  <g:product_type>Kitchen &gt; Cups</g:product_type><g:product_type>Gifts</g:product_type>
  <g:google_product_category>2169</g:google_product_category>
  <g:item_group_id>mug</g:item_group_id><g:color>blue</g:color>
  <g:shipping><g:country>DE</g:country><g:price>4.90 EUR</g:price></g:shipping>
</{item}>
<{item}>
  <g:id>MUG-RED</g:id><g:title>Red mug</g:title><g:availability>out of stock</g:availability>
  <g:price>12.50 EUR</g:price><g:sale_price>9.00 EUR</g:sale_price><g:item_group_id>mug</g:item_group_id>
</{item}>
<{item}><g:id>TEA</g:id><g:title>Teapot</g:title>
  <g:availability>limited availability</g:availability><g:price>49,00 EUR</g:price>
  <g:sale_price>39 EUR</g:sale_price>
  <g:sale_price_effective_date>2026-01-01T00:00Z/2026-01-07T00:00Z</g:sale_price_effective_date></{item}>
"""
RSS = (
    '<?xml version="1.0"?><rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>'
    f"{ITEMS.format(item='item')}</channel></rss>"
)
ATOM = (
    '<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">'
    f"<title>Shop</title>{ITEMS.format(item='entry')}</feed>"
)
TEXT = """id\ttitle\tdescription\tlink\timage link\tavailability\tprice\tsale price\tsale price effective date\tbrand\tproduct type\titem group id\tcolor
MUG-BLUE\tBlue & white mug\t"<p>Holds 0.4 l.</p>"\thttps://shop.example/mug\thttps://shop.example/mug.jpg\tin_stock\t12.50 EUR\t\t\tTassen\tKitchen > Cups\tmug\tblue
MUG-RED\tRed mug\t\t\t\tout_of_stock\t12.50 EUR\t9.00 EUR\t\t\t\tmug\t
TEA\tTeapot\t\t\t\tpreorder\t49 EUR\t39 EUR\t2026-01-01T00:00Z/2026-01-07T00:00Z\t\t\t\t
"""  # noqa: E501
EXPECTED = {
    "MUG-BLUE": {
        "item_id": "MUG-BLUE",
        "title": "Blue & white mug",
        "brand": "Tassen",
        "description": "Holds 0.4 l.",
        "categories": ["Kitchen", "Cups"],
        "price": 12.5,
        "group_id": "mug",
        "available": True,
        "link": "https://shop.example/mug",
        "image_link": "https://shop.example/mug.jpg",
        "color": "blue",
    },
    "MUG-RED": {
        "item_id": "MUG-RED",
        "title": "Red mug",
        "price": 9.0,
        "list_price": 12.5,
        "group_id": "mug",
        "available": False,
    },
    "TEA": {"item_id": "TEA", "title": "Teapot", "price": 49.0, "sale_price": 39.0, "available": True},
}


@pytest.mark.parametrize(
    ("name", "content"),
    [("feed.xml", RSS), ("feed.xml", ATOM), ("feed.xml.gz", gzip.compress(RSS.encode())), ("feed.txt", TEXT)],
)
def test_a_feed_in_each_of_its_forms_gives_the_same_items(tmp_path: Path, name: str, content: str | bytes) -> None:
    imported = import_files("google-products", [write_file(tmp_path / name, content)], tmp_path / "shop")
    assert imported.items == EXPECTED
    assert "import: 3 items, 0 interactions from 3 rows" in imported.said
    events = "".join(f"u1,{item},{time}\n" for time, item in enumerate(["TEA", "MUG-RED", "MUG-BLUE", "TEA"], start=1))
    write_file(tmp_path / "shop" / "interactions.csv", f"user_id,item_id,timestamp\n{events}u2,TEA,5\n")
    out = ingest(tmp_path / "shop", tmp_path / "releases")
    assert events_of(out)[0][:2] == ("u1", "TEA")
    assert report_of(out)["counts"]["items"] == 3


def test_values_that_cannot_be_read_are_counted_with_their_line(tmp_path: Path) -> None:
    rows = ["id\ttitle\tavailability\tprice", "1\ta\tin_stock\t1 EUR", "2\tb\tsoon\t1 EUR", "3\tc\tin_stock\tfree"]
    rows += ["4\td\tin_stock\t2 USD", "\te\tin_stock\t2 EUR", "1\tz\tin_stock\t1 EUR"]
    feed = write_file(tmp_path / "feed.tsv", "\n".join(rows))
    with pytest.raises(DataError) as caught:
        import_files("google-products", [feed], tmp_path / "shop")
    assert caught.value.code == "data.too_many_bad_rows"
    for said in (
        'bad_available 1 (line 3: "soon"; right: in_stock, preorder, backorder, limited_availability, out_of_stock)',
        'bad_price 1 (line 4: "free"; right: an amount such as 19.99 or 19.99 EUR)',
        'other_currency 1 (line 5: "USD"; right: one currency in the whole feed, as in its first price: EUR)',
        "missing_item_id 1 (line 6: null",
        'duplicate_item 1 (line 7: "1"',
    ):
        assert said in caught.value.message
    assert list((tmp_path / "shop").iterdir()) == []
    assert [*import_files("google-products", [feed], tmp_path / "shop", "--max-bad-rows", "0.9").items] == ["1"]


BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]><rss><channel><item><title>&a9;</title></item></channel></rss>"
)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (BILLION_LAUGHS, "import.document_type"),
        ('<!DOCTYPE rss SYSTEM "file:///etc/passwd"><rss/>', "import.document_type"),
        ("<rss><channel><item></channel></rss>", "import.xml"),
        (RSS[:-20], "import.xml"),
        (RSS.replace('version="1.0"', 'version="1.0" encoding="Shift_JIS"', 1), "import.xml"),
        (RSS.replace('version="1.0"', 'version="1.0" encoding="Klingon"', 1), "import.xml"),
        (f"<rss><!--{'x' * (9 << 20)}--></rss>", "import.xml"),
        ("<html><body>Not found</body></html>", "import.no_items"),
        ("a,b\n1,2\n", "import.unknown_table"),
    ],
)
def test_what_is_no_feed_is_refused(tmp_path: Path, content: str, code: str) -> None:
    with pytest.raises(DataError) as caught:
        import_files("google-products", [write_file(tmp_path / "feed.xml", content)], tmp_path / "shop")
    assert caught.value.code == code
    assert caught.value.fix


def test_two_currencies_in_an_item_are_refused(tmp_path: Path) -> None:
    rows = ["id\ttitle\tavailability\tprice\tsale price", "1\ta\tin_stock\t9 EUR\t8 USD", "2\tb\tin_stock\t9 EUR\t8"]
    feed = write_file(tmp_path / "feed.tsv", "\n".join(rows))
    report = ImportReport([feed])
    assert [item.fields["item_id"] for item in GoogleProducts().read([feed], report)] == ["2"]
    assert any('other_currency 1 (line 2: "USD"' in sentence for sentence in report.describe())


def test_values_that_repeat_in_an_item_take_no_memory(tmp_path: Path) -> None:
    head, end = RSS.partition("<title>Shop")[0], "</item></channel></rss>"
    title = f"<g:title>{'x' * 10_000}</g:title>"
    feed = write_file(tmp_path / "feed.xml", f"{head}<item><g:id>1</g:id>{title * 2000}{end}")
    tracemalloc.start()
    assert sum(1 for _ in GoogleProducts().read([feed], ImportReport([feed]))) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_large_feed_is_not_held_in_memory(tmp_path: Path) -> None:
    """Thirty thousand items of a kilobyte: 30 MB of elements would be hundreds of megabytes of objects."""
    item = f"<item><g:id>{{}}</g:id><g:description>{'x' * 1000}</g:description></item>"
    head, end = RSS.partition("<title>Shop")[0], "</channel></rss>"
    feed = tmp_path / "feed.xml"
    with feed.open("w") as file:
        file.write(head)
        file.writelines(item.format(number) for number in range(30_000))
        file.write(end)
    tracemalloc.start()
    assert sum(1 for _ in GoogleProducts().read([feed], ImportReport([feed]))) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
