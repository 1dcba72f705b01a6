"""Ingests the shop's data again outside the pipeline, so that a published release can be measured and audited."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.progress import Progress

from isrf.contract.errors import DataError
from isrf.contract.manifest import Manifest
from offline.config import RunConfig, invalid_setting
from offline.context import StageContext
from offline.reading.settings import IngestConfig
from offline.runtime.ingest_report import ingest_report
from offline.stages.ingest import stage as ingest


def with_settings(config: RunConfig, ingest: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration with other settings of `[ingest]`.

    Raises:
        ConfigError: `config.invalid`, a value does not fit.
    """
    try:
        settings = IngestConfig.model_validate({**config.ingest.model_dump(), **ingest})
    except ValidationError as error:
        raise invalid_setting(error, "ingest") from None
    return config.model_copy(update={"ingest": settings})


@contextmanager
def read_again(
    data: Path, config: RunConfig, progress: Progress, *, reading: ingest.ShopReading | None = None
) -> Iterator[Path]:
    """Ingests `data` with the configuration's order of ties; yields a folder that the end of the context deletes.

    With `reading` it does not read the files, which that function has read with the same configuration.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "ingest"
        out.mkdir()
        ctx = StageContext(data=data, inputs={}, out=out, scratch=Path(scratch), config=config, progress=progress)
        ingest.write_outputs(ctx, reading or ingest.read_folder(data, config))
        yield out


def refuse_other_data(ingested: Path, manifest: Manifest, data: Path) -> None:
    """Checks that a release was made from the ingested data.

    Raises:
        DataError: `evaluate.other_data` if the release was made from other data, `evaluate.other_order` if from the
            same data in another order of ties.
    """
    report = ingest_report(ingested)
    if report["fingerprint"] != manifest.data_fingerprint:
        raise DataError(
            "evaluate.other_data",
            f"{manifest.release_id} was not made from the data in {data}.",
            fix="Use the data that the release was made from: row numbers do not fit other data.",
        )
    if report["order_fingerprint"] != manifest.order_fingerprint:
        raise DataError(
            "evaluate.other_order",
            f"{data} has events with equal timestamps in another order than the data of {manifest.release_id}.",
            fix="Use the row order that the release was made from: another order holds out other items.",
        )
