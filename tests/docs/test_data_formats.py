"""docs/reference/data-formats.md names the fields, kinds and limits of the code, no more and no fewer."""

import inspect
import re
from pathlib import Path

from isrf.contract.item_changes import MAX_ITEM_BYTES, ROW_FIELDS
from isrf.contract.item_fields import MAX_CATEGORIES, MAX_DEPTH, MAX_DESCRIPTION, MAX_ID_BYTES, MAX_NAME, MAX_TITLE
from offline.reading import bad_rows
from offline.reading.settings import IngestConfig
from offline.stages.ingest.interactions import OPTIONAL, REQUIRED
from service.api.bulk.lines import MAX_LINE_BYTES
from service.api.bulk.users import UserLine
from service.api.schemas.items import MAX_METADATA_VALUES
from service.state.events import EventIn

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "data-formats.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """What stands between a heading and the next one."""
    return PAGE.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def first_column(heading: str) -> list[str]:
    """The names in backticks of a section's table, its first column."""
    rows = [line.split("|")[1] for line in section(heading).splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_columns_of_interactions_are_the_readers() -> None:
    assert first_column("## Interactions") == [*REQUIRED, *OPTIONAL]


def test_the_fields_of_an_item_are_the_readers() -> None:
    assert sorted(first_column("## Items")) == sorted(ROW_FIELDS)


def test_the_fields_of_posted_events_and_users_are_the_services() -> None:
    assert first_column("### Events") == list(EventIn.model_fields)
    assert first_column("### Users") == list(UserLine.model_fields)


def test_every_kind_of_bad_row_is_named() -> None:
    of_fields = {"missing_item_id", *(f"bad_{name}" for name in ROW_FIELDS)}
    of_files = re.findall(r'^    "(\w+)": ', inspect.getsource(bad_rows), re.MULTILINE)
    assert len(of_files) > 10
    assert sorted(first_column("## What is refused")) == sorted({*of_files, *of_fields})
    assert all(bad_rows.right_of(kind) for kind in of_files)


def test_limits_are_the_codes() -> None:
    fields = section("## Items").replace(",", "")
    for limit in (MAX_ID_BYTES, MAX_TITLE, MAX_NAME, MAX_DESCRIPTION, MAX_CATEGORIES, MAX_DEPTH):
        assert f" {limit} " in fields
    assert f"{IngestConfig().max_bad_rows:g}" in section("## What is refused")
    assert f"at most {MAX_LINE_BYTES >> 10} KiB" in section("## Import and export")
    assert f"{MAX_ITEM_BYTES:,} bytes" in section("### Items")
    assert f"{MAX_METADATA_VALUES} names and values" in section("### Items")
