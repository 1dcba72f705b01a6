"""The shop's data ingested once more outside the pipeline: what a published release is measured and audited against."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress

from isrf.contract.errors import DataError
from isrf.contract.manifest import Manifest
from offline.config import IngestConfig, RunConfig
from offline.context import StageContext
from offline.stages.ingest import stage as ingest


def with_bad_rows(config: RunConfig, max_bad_rows: float | None) -> RunConfig:
    """The configuration with another share of bad rows that is put up with; None: its own."""
    if max_bad_rows is None:
        return config
    settings = {**config.ingest.model_dump(), "max_bad_rows": max_bad_rows}
    return config.model_copy(update={"ingest": IngestConfig.model_validate(settings)})


@contextmanager
def read_again(data: Path, config: RunConfig, progress: Progress) -> Iterator[Path]:
    """Ingest's output for `data` with a configuration's order of ties, for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "ingest"
        out.mkdir()
        ingest.run(StageContext(data=data, inputs={}, out=out, scratch=Path(scratch), config=config, progress=progress))
        yield out


def refuse_other_data(ingested: Path, manifest: Manifest, data: Path) -> None:
    """Holds ingest's output against a release.

    Raises:
        DataError: `evaluate.other_data` where the data is not what the release was made from, `evaluate.other_order`
            where it is, in another order of ties.
    """
    report: dict[str, Any] = json.loads((ingested / "report.json").read_text())
    if report["fingerprint"] != manifest.data_fingerprint:
        raise DataError(
            "evaluate.other_data",
            f"{data} is not the data that {manifest.release_id} was made from.",
            fix="Evaluate a release on its own data; row numbers mean nothing in other data.",
        )
    if report["order_fingerprint"] != manifest.order_fingerprint:
        raise DataError(
            "evaluate.other_order",
            f"{data} orders events of equal timestamp otherwise than the data of {manifest.release_id}.",
            fix="Evaluate with the rows in the order that the release was made from: other items would be held out.",
        )
