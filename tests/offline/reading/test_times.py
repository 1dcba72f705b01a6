"""One form for a column of times: which one, and what each value is in seconds."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from offline.reading.times import format_options, read_times

MOMENT = datetime(2010, 12, 1, 8, 26, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("texts", "form", "seconds"),
    [
        (["1700000000", " 1.7e9 ", "0"], "seconds", [1.7e9, 1.7e9, 0.0]),
        (["1700000000123", "1433221332117"], "milliseconds", [1700000000.123, 1433221332.117]),
        (["1700000000123456"], "microseconds", [1700000000.123456]),
        (["1700000000000000000"], "nanoseconds", [1.7e9]),
        (["2010-12-01", "2010-12-01 08:26", "2010-12-01T08:26:00.5"], "iso", [MOMENT - 30_360, MOMENT, MOMENT + 0.5]),
        (["2010-12-01T08:26Z", "2010-12-01 10:26:00 +0200"], "iso-zone", [MOMENT, MOMENT]),
        (["2010-12-01 08:26:00 UTC", "2010-12-01T02:56:00-05:30"], "iso-zone", [MOMENT, MOMENT]),
    ],
)
def test_every_form_is_recognised_and_read(texts: list[str], form: str, seconds: list[float]) -> None:
    times = read_times(pl.Series(texts))
    assert times.form == form
    assert times.seconds.to_list() == pytest.approx(seconds, abs=1e-6)


def test_a_value_of_another_form_than_most_is_not_read() -> None:
    for odd in ("1700000000000", "2024-05-01", "x", "nan", ""):
        times = read_times(pl.Series(["1700000000", "1700000001", odd]))
        assert (times.form, times.seconds.to_list()) == ("seconds", [1.7e9, 1.7e9 + 1, None])
    times = read_times(pl.Series(["2024-05-01T00:00Z", "2024-05-01T00:00", "2024-05-02T00:00Z"]))
    assert (times.form, times.seconds.is_null().to_list()) == ("iso-zone", [False, True, False])


def test_impossible_dates_are_not_read() -> None:
    times = read_times(pl.Series(["2024-02-30", "2024-05-01", "2024-05-01 25:00"]))
    assert times.seconds.is_null().to_list() == [True, False, True]


def test_milliseconds_before_1978_are_seconds_unless_they_are_named() -> None:
    early = pl.Series(["1000000000", "2000"])
    assert read_times(early).seconds.to_list() == [1e9, 2000.0]
    assert read_times(early, "milliseconds").seconds.to_list() == [1e6, 2.0]


def test_a_format_reads_months_and_days_as_it_says() -> None:
    texts = pl.Series(["12/1/2010 8:26", "1/2/2011 0:00", "13/1/2011 0:00"])
    month_first = read_times(texts, "%m/%d/%Y %H:%M").seconds.to_list()
    day_first = read_times(texts, "%d/%m/%Y %H:%M").seconds.to_list()
    assert month_first == [MOMENT, datetime(2011, 1, 2, tzinfo=UTC).timestamp(), None]
    assert day_first[1:] == [datetime(2011, day, month, tzinfo=UTC).timestamp() for day, month in ((2, 1), (1, 13))]
    zoned = read_times(pl.Series(["01.12.2010 10:26 +0200"]), "%d.%m.%Y %H:%M %z")
    assert zoned.seconds.to_list() == [MOMENT]
    assert read_times(texts, "%Q").seconds.to_list() == [None] * 3


def test_columns_of_dates_and_numbers_need_no_recognition() -> None:
    assert read_times(pl.Series([date(1970, 1, 2)])).seconds.to_list() == [86_400.0]
    assert read_times(pl.Series([1_700_000_000_000, None])).seconds.to_list() == [1.7e9, None]
    assert read_times(pl.Series([None, None], dtype=pl.String)).form == ""


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("12/1/2010 8:26", ["%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"]),
        ("13/1/2010 8:26:30", ["%d/%m/%Y %H:%M:%S"]),
        ("1/13/10", ["%m/%d/%y"]),
        ("01.12.2010 08:26", ["%d.%m.%Y %H:%M"]),
        ("2010/12/01", ["%Y/%m/%d"]),
        ("12/1/2010 8:26 PM", ["%m/%d/%Y %I:%M %p", "%d/%m/%Y %I:%M %p"]),
        ("Oct 7, 2025", ["%b %d, %Y"]),
        ("Oct 7, 2025, 9:50:26 AM", ["%b %d, %Y, %I:%M:%S %p"]),
        ("7 October 2025 09:50", ["%d %B %Y %H:%M"]),
        ("Octember 7, 2025", []),
        ("soon", []),
    ],
)
def test_formats_are_asked_about_by_what_they_may_be(text: str, options: list[str]) -> None:
    assert format_options(text) == options
    for option in options:
        assert read_times(pl.Series([text]), option).seconds.null_count() == 0
