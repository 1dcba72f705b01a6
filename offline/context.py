"""The context of a stage: its input and output folders and the configuration. A stage uses nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from offline.config import RunConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL

WORK_DIR = ".work"
"""Where stages keep their outputs, below the releases folder."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """The context of one run of one stage.

    Attributes:
        data: the shop's folder; only `ingest` may read it.
        inputs: the finished output folder of every stage that this one needs, by stage name.
        out: this stage's output folder, empty at the start; it becomes valid when the stage returns.
        scratch: a folder that survives a kill, for the next attempt (checkpoints, the LLM ledger).
        config: the whole configuration; a stage reads only the sections that `offline.pipeline` lists for it.
        progress: shows the progress of long work.
        engine: runs the pieces of a stage.
    """

    data: Path
    inputs: Mapping[str, Path]
    out: Path
    scratch: Path
    config: RunConfig
    progress: Progress
    engine: StageEngine = LOCAL
