"""Recognises how a column of times is written, one form for the whole column, and reads it as seconds since 1970.

The forms exclude each other: a number of milliseconds of 1978 or later is no year before 10000 in seconds. It knows no
file.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from isrf.contract.shown import printable

MAX_TIMESTAMP = 253_402_300_799.0
"""The end of the year 9999, in seconds. No form is read as a later time: the service accepts none."""
DATE = "date"
"""The form of a Parquet column of dates or times."""
_PER_SECOND: dict[str, float] = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_DATE = r"(\d{4}-\d{2}-\d{2})"
_CLOCK = r"(?:[Tt ](\d{2}:\d{2})(:\d{2})?([.,]\d{1,9})?)"
_ZONE = r"\s?([Zz]|UTC|[+-]\d{2}:?\d{2})"
_ISO: dict[str, str] = {"iso": f"^{_DATE}{_CLOCK}?$", "iso-zone": f"^{_DATE}{_CLOCK}{_ZONE}$"}
_LOOKS_LIKE_A_TIME = re.compile(
    r"(?P<date>(?P<first>\d{1,4})(?P<mark>[/.-])(?P<second>\d{1,2})(?P=mark)(?P<third>\d{1,4}))"
    r"(?:[ T](?P<clock>\d{1,2}:\d{2}(?P<seconds>:\d{2})?)(?P<half> ?[AaPp][Mm])?)?"
)
_CLOCKS = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p")
_IN_WORDS: dict[str, str] = {
    "seconds": "seconds since 1970",
    "milliseconds": "milliseconds since 1970",
    "microseconds": "microseconds since 1970",
    "nanoseconds": "nanoseconds since 1970",
    "iso": "ISO 8601 without a zone, read as UTC",
    "iso-zone": "ISO 8601 with a zone",
}


class Times(NamedTuple):
    """A column of times.

    Attributes:
        seconds: (N,) f64 since 1970; null where the text is not of the form.
        form: a name of `offline.reading.settings.TimeForm`, a format with `%`, or `DATE`; "" where no value is of any.
    """

    seconds: pl.Series
    form: str

    def describe(self) -> str:
        """For people: `milliseconds since 1970`."""
        return time_form_text(self.form)


def time_form_text(form: str) -> str:
    """A form in words."""
    if "%" in form:
        return form if "%z" in form or "%Z" in form else f"{form}, read as UTC"
    return _IN_WORDS.get(form, "dates")


def read_times(column: pl.Series, setting: str = "auto") -> Times:
    """Reads a column; `auto` takes the form of most values.

    Args:
        column: (N,) text, numbers, dates or times.
        setting: `auto`, a `TimeForm`, or a format as of `strptime`.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return Times(read_form(column, DATE), DATE)
    form = most_used(count_forms(column)) if setting == "auto" else setting
    return Times(read_form(column, form, exact=setting == "auto"), form)


def count_forms(column: pl.Series) -> dict[str, int]:
    """How many values of a column are of each form; 0 for a form that was not tried, as others fit all values.

    Counts of blocks of a column can be added up.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return {DATE: len(column) - column.null_count()}
    table = _texts_and_numbers(column)
    counts = _counted(table, list(_PER_SECOND)) | dict.fromkeys(_ISO, 0)
    if sum(counts.values()) < len(column) - column.null_count():
        counts |= _counted(table, list(_ISO))
    return counts


def most_used(counts: Mapping[str, int]) -> str:
    """The form of most values, of equally many the first; "" where no value is of any form."""
    form = max(counts, key=lambda name: counts[name], default="")
    return form if form and counts[form] else ""


def read_form(column: pl.Series, form: str, *, exact: bool = True) -> pl.Series:
    """A column of times of one form as (N,) f64 seconds.

    Args:
        column: as in `read_times`.
        form: of `Times`.
        exact: whether a number that another form of numbers would fit is not read.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return column.dt.timestamp("us").cast(pl.Float64) / 1e6
    if not form:
        return pl.Series([None] * len(column), dtype=pl.Float64)
    table = _texts_and_numbers(column)
    if "%" in form:
        return _by_format(table["text"], form)
    if form in _PER_SECOND:
        fits = _is_of(form) if exact else pl.lit(True)
        seconds = pl.when(fits).then(pl.col("number") / _PER_SECOND[form] + 0.0)  # no negative zero
        return table.select(seconds.alias("seconds"))["seconds"]
    return _iso_seconds(table["text"], form)


def _texts_and_numbers(column: pl.Series) -> pl.DataFrame:
    texts = column.cast(pl.String).str.strip_chars()
    return pl.DataFrame({"text": texts, "number": texts.cast(pl.Float64, strict=False)})


def _counted(table: pl.DataFrame, forms: Sequence[str]) -> dict[str, int]:
    return {
        form: int(count)
        for form, count in table.select(_is_of(form).sum().alias(form) for form in forms).row(0, named=True).items()
    }


def format_options(text: str) -> list[str]:
    """Formats that a text may be written in, such as `%d/%m/%Y %H:%M`; empty where it looks like no time."""
    found = _LOOKS_LIKE_A_TIME.match(text.strip())
    if found is None:
        return _formats_with_words(text.strip())
    mark = found["mark"]
    if len(found["first"]) == 4:
        dates = [f"%Y{mark}%m{mark}%d"]
    else:
        year = "%Y" if len(found["third"]) == 4 else "%y"
        month_first, day_first = f"%m{mark}%d{mark}{year}", f"%d{mark}%m{mark}{year}"
        dates = [day_first] if mark == "." or int(found["first"]) > 12 else [month_first, day_first]
        dates = [month_first] if int(found["second"]) > 12 else dates
    clock = ""
    if found["clock"]:
        seconds = ":%S" if found["seconds"] else ""
        clock = f" %I:%M{seconds} %p" if found["half"] else f" %H:%M{seconds}"
    return [date + clock for date in dates]


def _formats_with_words(text: str) -> list[str]:
    """Formats of times with the month as an English word, such as `Oct 7, 2025, 9:50 AM`."""
    return [
        f"{date}{mark}{clock}"
        for date in ("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y")
        for mark, clock in (("", ""), *((mark, clock) for mark in (" ", ", ") for clock in _CLOCKS))
        if _is_written(text, f"{date}{mark}{clock}")
    ][:1]


def _is_written(text: str, form: str) -> bool:
    try:
        return bool(datetime.strptime(text, form))
    except ValueError:
        return False


def format_question(text: str) -> str:
    """What to do about a text in no recognised form: the options that name its format."""
    options = [f'--time-format "{form}"' for form in format_options(text)]
    return " or ".join(options) if options else '--time-format FORMAT, such as --time-format "%d.%m.%Y %H:%M"'


def looks_like_time(text: str) -> bool:
    """Whether a text that is in none of the forms may be a time in another format."""
    return bool(format_options(text)) or bool(re.search(r"\d{1,2}:\d{2}|[A-Za-z]{3,9}.{0,3}\d{1,4}", printable(text)))


def _is_of(form: str) -> pl.Expr:
    if form in _PER_SECOND:
        number, scale = pl.col("number"), _PER_SECOND[form]
        least = -float("inf") if form == "seconds" else MAX_TIMESTAMP * scale / 1e3
        inside = (number > least) & (number <= MAX_TIMESTAMP * scale)
        return inside.fill_null(False) & number.is_finite().fill_null(False)
    return pl.col("text").str.contains(_ISO[form]).fill_null(False)


def _iso_seconds(texts: pl.Series, form: str) -> pl.Series:
    groups = texts.str.extract_groups(_ISO[form]).struct.unnest()
    part = {name: pl.col(str(number)) for number, name in enumerate(("date", "clock", "second", "fraction", "zone"), 1)}
    moment = pl.concat_str(
        part["date"],
        pl.lit(" "),
        part["clock"].fill_null("00:00"),
        part["second"].fill_null(":00"),
        part["fraction"].str.replace(",", ".", literal=True).fill_null(""),
    ).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    seconds = moment.dt.timestamp("us").cast(pl.Float64) / 1e6
    if form == "iso-zone":
        zone = part["zone"].str.replace(":", "", literal=True)
        sign = pl.when(zone.str.starts_with("-")).then(-60).otherwise(60)
        hours, minutes = (
            zone.str.slice(1, 2).cast(pl.Int64, strict=False),
            zone.str.slice(3, 2).cast(pl.Int64, strict=False),
        )
        offset = pl.when(zone.str.contains("^[+-]")).then(sign * (hours * 60 + minutes)).otherwise(0)
        seconds = seconds - offset
    return groups.select(seconds.alias("seconds"))["seconds"]


def _by_format(texts: pl.Series, setting: str) -> pl.Series:
    try:
        moments = texts.str.to_datetime(setting, strict=False, time_unit="us")
    except pl.exceptions.PolarsError:
        return pl.Series([None] * len(texts), dtype=pl.Float64)
    return moments.dt.timestamp("us").cast(pl.Float64) / 1e6
