"""What a stage is given: where its inputs lie, where its output goes, what it was told. Nothing else reaches it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from offline.config import RunConfig

WORK_DIR = ".work"
"""Where stages keep their outputs, below the releases folder."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """One run of one stage.

    Attributes:
        data: the shop's folder; `ingest` alone may read it.
        inputs: finished output folder of every stage this one needs, by stage name.
        out: this stage's own output folder, empty at the start; it counts only once the stage returned.
        scratch: survives a kill and is handed to the next attempt (checkpoints, the LLM ledger).
        config: the whole configuration; a stage reads only the sections that `offline.pipeline` lists for it.
        progress: where long work shows its bars.
    """

    data: Path
    inputs: Mapping[str, Path]
    out: Path
    scratch: Path
    config: RunConfig
    progress: Progress
