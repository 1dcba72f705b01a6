"""CSV as shops write it: encodings, separators, line ends, quotes; and files that must be refused, not guessed at."""

import csv
import gzip
import io
import resource
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from isrf.contract.errors import DataError
from offline.reading.bad_rows import BadRows
from offline.reading.columns import Wanted, find_columns
from offline.reading.encodings import MAX_LINE_BYTES
from offline.reading.settings import IngestConfig
from offline.reading.text_table import MAX_ROW_LINES, TextPart, read_text_part

WANTED = Wanted(("id", "text"), ("id",), {"id": (), "text": ()})


def part_of(
    content: bytes, tmp_path: Path, bad: BadRows | None = None, *, name: str = "t.csv", **more: Any
) -> TextPart:
    path = tmp_path / name
    path.write_bytes(content)
    block_bytes = more.pop("block_bytes", 1 << 20)
    return read_text_part(
        path,
        name,
        BadRows(name) if bad is None else bad,
        IngestConfig.model_validate(more),
        lambda where, header: find_columns(where, header, WANTED),
        block_bytes=block_bytes,
    )


def rows_of(part: TextPart) -> list[tuple[int, str | None, str | None]]:
    return pl.concat(part.blocks).select("line", "id", "text").rows()


def refused(content: bytes, tmp_path: Path, **more: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        rows_of(part_of(content, tmp_path, **more))
    return caught.value


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8"),
        ("utf-16", "UTF-16-LE"),
        ("utf-32", "UTF-32-LE"),
        ("cp1252", 'cp1252 (line 2: byte 0xfc is "ü")'),
    ],
)
def test_an_encoding_is_recognised_and_said(tmp_path: Path, codec: str, said: str, block_bytes: int) -> None:
    part = part_of("id,text\r\na,grün\r\n\r\nb,€\r\n".encode(codec), tmp_path, block_bytes=block_bytes)
    assert part.encoding.describe() == said
    assert rows_of(part) == [(2, "a", "grün"), (4, "b", "€")]


def test_an_encoding_that_cannot_be_recognised_is_named(tmp_path: Path) -> None:
    part = part_of("id,text\na,zażółć\n".encode("cp1250"), tmp_path, encoding="cp1250")
    assert rows_of(part) == [(2, "a", "zażółć")]
    wide = "id,text\na,b\n".encode("utf-16-le")
    error = refused(wide, tmp_path)
    assert (error.code, "--set ingest.encoding=utf-16-le" in error.fix) == ("data.no_header", True)
    assert rows_of(part_of(wide, tmp_path, encoding="utf-16-le")) == [(2, "a", "b")]
    assert refused(wide[:-1], tmp_path, encoding="utf-16-le").code == "data.not_decodable"


def test_utf16_without_a_byte_order_mark_is_read_under_the_name_that_says_its_order(tmp_path: Path) -> None:
    wide = "id,text\na,\u0a0a\n".encode("utf-16-le")  # a character of two bytes that look like line feeds
    error = refused(wide, tmp_path, encoding="utf-16")
    assert (error.code, "does not start with BOM" in error.message) == ("data.not_decodable", True)
    for name in ("utf-16-le", "UTF_16LE", "unicodelittleunmarked"):
        assert rows_of(part_of(wide, tmp_path, encoding=name)) == [(2, "a", "\u0a0a")]


def test_a_damaged_line_of_utf8_is_a_bad_row(tmp_path: Path) -> None:
    bad = BadRows("t.csv")
    part = part_of("id,text\na,ü\n".encode() + b"b,caf\xe9\nc,x\n", tmp_path, bad)
    assert rows_of(part) == [(2, "a", "ü"), (4, "c", "x")]
    assert bad.as_json()["not_utf8"]["values"] == ["byte 0xe9 at 6"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    for block_bytes in (1, 5, 1 << 20):
        part = part_of(end.join(["id;text", "a;b", "", "c;d"]).encode(), tmp_path, block_bytes=block_bytes)
        assert rows_of(part) == [(2, "a", "b"), (4, "c", "d")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_separator_is_recognised(tmp_path: Path, separator: str) -> None:
    part = part_of(f'id{separator}"te,;xt"{separator}text\na{separator}1{separator}b\n'.encode(), tmp_path)
    assert part.separator == separator
    assert rows_of(part) == [(2, "a", "b")]


def test_of_two_separators_the_one_that_fits_the_rows_counts(tmp_path: Path) -> None:
    part = part_of(b"id;text;a,b\n1;x,y;z\n2;x;z\n", tmp_path)
    assert (part.separator, rows_of(part)) == (";", [(2, "1", "x,y"), (3, "2", "x")])
    error = refused(b"id,a;text\n1,2;3\n", tmp_path)
    assert error.code == "data.separator"
    assert "commas or semicolons" in error.message
    assert "--set ingest.separator=',' or --set ingest.separator=';'" in error.fix
    tabs = refused(b"id\ta;text\n1\t2;3\n", tmp_path)
    assert "--set ingest.separator=';' or --set ingest.separator=tab" in tabs.fix
    assert rows_of(part_of(b"id|text\n1|2\n", tmp_path, separator="|")) == [(2, "1", "2")]


def test_rows_of_another_separator_or_length_are_malformed(tmp_path: Path) -> None:
    bad = BadRows("t.csv")
    rows = rows_of(part_of(b'id,text\na,b\nc;d\ne,f,g\n"h","i","j"\n"k",l\n', tmp_path, bad))
    assert rows == [(2, "a", "b"), (6, "k", "l")]
    assert bad.as_json()["malformed_row"]["lines"] == [3, 4, 5]
    assert bad.as_json()["malformed_row"]["values"] == ["1 fields, not 2", "3 fields, not 2", "3 fields, not 2"]


@pytest.mark.parametrize("block_bytes", [1, 9, 1 << 20])
def test_a_quoted_value_may_hold_line_ends_and_its_line_is_the_first(tmp_path: Path, block_bytes: int) -> None:
    text = 'id,text\na,"one\n\nthree, ""3"""\nb,plain\n"c\r\nd",\n'
    part = part_of(text.encode(), tmp_path, block_bytes=block_bytes)
    assert rows_of(part) == [(2, "a", 'one\n\nthree, "3"'), (5, "b", "plain"), (6, "c\nd", None)]
    assert part.long_rows == [2, 6]


def test_a_quote_that_never_closes_spoils_its_own_line(tmp_path: Path) -> None:
    for block_bytes in (1 << 12, 1 << 20):
        bad = BadRows("t.csv")
        lines = ["id,text", 'a,"open', *(f"b{row},x" for row in range(3 * MAX_ROW_LINES))]
        rows = rows_of(part_of("\n".join(lines).encode(), tmp_path, bad, block_bytes=block_bytes))
        assert [row[0] for row in rows] == list(range(3, 3 * MAX_ROW_LINES + 3))
        assert bad.as_json()["malformed_row"]["lines"] == [2]
        assert bad.as_json()["malformed_row"]["values"] == ["quotes that do not close"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("closing", [0, MAX_ROW_LINES - 1])
def test_lines_that_all_open_a_quote_take_time_that_grows_with_the_file_alone(tmp_path: Path, closing: int) -> None:
    """Each line goes on in the next one, so that a search from every line to its row's end would be 2000 times it."""
    lines = ["id,text", *('a","b' if not closing or row % closing else 'a"' for row in range(1, 100_001))]
    bad = BadRows("t.csv")
    rows = rows_of(part_of("\n".join(lines).encode(), tmp_path, bad))
    num_closing = 100_000 // closing if closing else 0
    assert len(rows) == num_closing  # `a","b` and `a"` below it are a row of two fields
    assert len(bad) == 100_000 - 2 * num_closing


def test_a_row_with_a_value_that_is_too_long_is_malformed_as_a_whole(tmp_path: Path) -> None:
    bad = BadRows("t.csv")
    long = "\n".join(["x" * 1000, '""'] * 200)
    assert rows_of(part_of(f'id,text\na,"{long}"\nb,y\n'.encode(), tmp_path, bad)) == [(402, "b", "y")]
    assert bad.as_json()["malformed_row"]["lines"] == [2]
    assert bad.as_json()["malformed_row"]["values"] == ["a value of more than 131072 characters"]


@pytest.mark.parametrize("block_bytes", [1, 9, 1 << 20])
def test_rows_that_overlap_in_their_quotes_are_read_from_the_first_that_fits(tmp_path: Path, block_bytes: int) -> None:
    bad = BadRows("t.csv")
    text = 'id,text\na,b,"c\nd","e\nf"\ng,"h"i\nj,"k\n""l"\n'
    assert rows_of(part_of(text.encode(), tmp_path, bad, block_bytes=block_bytes)) == [
        (3, 'd"', "e\nf"),
        (6, "j", 'k\n"l'),
    ]
    assert bad.as_json()["malformed_row"]["values"] == ["4 fields, not 2", "quotes that do not close"]


def test_rows_with_quotes_around_every_value_are_read_as_the_csv_module_reads_them(tmp_path: Path) -> None:
    """They have a way of their own, by polars; values with quotes, separators and line ends in them go another."""
    rows = [
        ("a", "b"),
        ("", ""),
        ("a,b", "c"),
        ("", ","),
        ('a"', '"b"'),
        (",", '","'),
        ("x\ny", "z"),
        ("a", '",'),
        (" ", "d"),
    ]
    for number, some in enumerate((rows, rows[:4], rows[:6], [*rows[:4], rows[6]] * 3)):
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("id", "text"), *some])
        read = rows_of(part_of(text.getvalue().encode(), tmp_path, name=f"{number}.csv"))
        assert [row[1:] for row in read] == [tuple(value or None for value in row) for row in some]


def test_a_quote_in_an_unquoted_value_is_a_character(tmp_path: Path) -> None:
    assert rows_of(part_of(b'id,text\na,5" screen\nb,x\n', tmp_path)) == [(2, "a", '5" screen'), (3, "b", "x")]


def test_an_open_quote_in_a_large_file_takes_bounded_memory(tmp_path: Path) -> None:
    """A file of 64 MB of short rows, by blocks: read at once its lines alone would take 64 times 50 MB."""
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(b'id,text\na,"open\n')
        for _ in range(64):
            file.write(b"b,x\n" * (1 << 18))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    part = read_text_part(
        path, "t.csv", bad := BadRows("t.csv"), IngestConfig(), lambda where, names: find_columns(where, names, WANTED)
    )
    assert sum(frame.height for frame in part.blocks) == 64 << 18
    assert bad.as_json()["malformed_row"]["lines"] == [2]
    # the Series of a block, its lines and fields: some hundreds of bytes for each of its two million lines
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "KiB"


def test_a_file_that_is_one_endless_line_is_refused(tmp_path: Path) -> None:
    error = refused(b"id,text" + b"x" * (MAX_LINE_BYTES + 1), tmp_path)
    assert error.code == "data.line_too_long"
    assert refused(b"id,text\n" + b"x" * (MAX_LINE_BYTES + 1), tmp_path, block_bytes=1 << 24).code == error.code


def test_a_header_that_stands_in_the_file_again_is_left_out(tmp_path: Path) -> None:
    once = "\ufeffid,text\r\na,b\r\n".encode()
    part = part_of(once * 3, tmp_path)
    assert rows_of(part) == [(2, "a", "b"), (4, "a", "b"), (6, "a", "b")]
    assert part.repeated_headers == [3, 5]


@pytest.mark.parametrize("content", [b"\n\n", b"id\x00,text\na,b\n", b'"id,text\na,b\n', b"\xc3\xbc,text\n\xff\n"[4:]])
def test_a_file_without_a_readable_header_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refused(content, tmp_path).code in ("data.no_header", "data.missing_column")


def test_a_zero_byte_below_the_header_is_part_of_its_value(tmp_path: Path) -> None:
    assert rows_of(part_of(b"id,text\na,b\x00c\n", tmp_path)) == [(2, "a", "b\x00c")]


def test_a_packed_file_is_unpacked_and_one_that_ends_early_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"id,text\n" + b"a,b\n" * 5000)
    assert len(rows_of(part_of(packed, tmp_path, name="t.csv.gz"))) == 5000
    for broken in (packed[: len(packed) // 2], packed[:-4], b"id,text\na,b\n"):
        error = refused(broken, tmp_path, name="t.csv.gz")
        assert error.code == "data.unreadable_file"
        assert "t.csv.gz cannot be unpacked" in error.message
    two = gzip.compress(b"id,text\na,b\n") + gzip.compress(b"c,d\n")
    assert rows_of(part_of(two, tmp_path, name="t.csv.gz")) == [(2, "a", "b"), (3, "c", "d")]
