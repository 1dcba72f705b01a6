"""Runs the stages in order: reuses finished outputs, resumes after a kill, and allows one run at a time.

A stage's output folder is `<releases>/.work/<stage>/<key>/`, where the key hashes everything the stage may depend on.
The stage fills a `.part` folder, which is renamed when the stage returns. So a folder that exists is finished, and a
stage never runs twice with equal keys. It knows nothing of what the stages do.
"""

import errno
import hashlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from rich.progress import Progress

from isrf.contract.errors import DataError, StageError
from isrf.runtime.files import sync_folder
from offline.config import RunConfig
from offline.context import WORK_DIR, StageContext
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.preconditions import check_settings, check_shop
from offline.runtime.ingest_report import ingest_report
from offline.runtime.left_out import parts_left_out
from offline.runtime.locks import lock_or_refuse
from offline.sizes import fit_to_shop

KEPT_OUTPUTS = 6
"""Finished outputs to keep per stage, the last used ones: enough for a few configurations, without filling the disk."""


OPERATIONAL: dict[str, set[str]] = {
    "reason": {
        "base_url", "concurrency", "timeout_s", "max_attempts", "back_off_s", "max_server_failures", "ledger", "client",
    },
    "embed": {"batch_size"},
    "train": {"checkpoint_every_s"},
}  # fmt: skip
"""Settings that change a stage's speed or its servers but not its output. They are not part of a stage's key."""


class Stage(NamedTuple):
    """A stage: its `module` has `VERSION` (raised when the output changes meaning) and `run(ctx)`.

    `sections` names the parts of the configuration that it reads: a section, or `section.key`.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("ingest", "offline.stages.ingest.stage", (), ("events", "ingest", "fit")),
        Stage("reason", "offline.stages.reason.stage", ("ingest",), ("reason",)),
        Stage("embed", "offline.stages.embed.stage", ("ingest", "reason"), ("embed", "seed")),
        Stage("graph", "offline.stages.graph.stage", ("ingest", "embed"), ("graph", "model.interest_length", "seed")),
        Stage(
            "semantic-ids", "offline.stages.semantic_ids.stage", ("ingest", "embed", "graph"), ("semantic_ids", "seed")
        ),
        Stage(
            "train",
            "offline.stages.train.stage",
            ("ingest", "embed", "graph", "semantic-ids"),
            ("graph", "semantic_ids", "model", "train", "seed"),
        ),
        Stage(
            "compile",
            "offline.stages.export_onnx.stage",
            ("ingest", "embed", "graph", "semantic-ids", "train"),
            ("graph", "semantic_ids", "model", "search", "seed"),
        ),
        Stage(
            "evaluate",
            "offline.stages.evaluate.stage",
            ("ingest", "embed", "graph", "semantic-ids", "compile"),
            (
                "graph",
                "semantic_ids",
                "model",
                "search",
                "evidence",
                "evaluate",
                "seed",
                "fusion",
                "ranker",
                "evaluated_release_id",
            ),
        ),
        Stage(
            "export",
            "offline.stages.publish.stage",
            ("ingest", "reason", "embed", "graph", "semantic-ids", "train", "compile", "evaluate"),
            tuple(RunConfig.model_fields),
        ),
    )
}


class StageModule(Protocol):
    VERSION: int
    run: Callable[[StageContext], None]


def run_until(
    last: str,
    *,
    data: Path,
    releases: Path,
    config: RunConfig,
    progress: Progress,
    report: Callable[[str], None] = lambda _: None,
    kept_outputs: int = KEPT_OUTPUTS,
    engine: StageEngine = LOCAL,
) -> dict[str, Path]:
    """Runs `last` and every stage that it needs, except finished ones; returns the output folders by stage.

    Settings that depend on the shop's size are adjusted once `ingest` has counted (`offline.sizes`). The `kept_outputs`
    last used outputs of each stage stay; older ones are removed. `engine` runs the stages' pieces.

    Raises:
        StageError: `stage.locked`, another run uses the folder; `stage.disk_full`.
        DataError: the shop is too small for a release.
        ConfigError: a setting of a later stage cannot work with the counts of `ingest`.
    """
    work = releases / WORK_DIR
    work.mkdir(parents=True, exist_ok=True)
    refusal = StageError(
        "stage.locked",
        f"another run is using {work}.",
        fix="Wait until it ends, or use another --releases folder.",
    )
    with lock_or_refuse(work / "lock", refusal):
        outputs: dict[str, Path] = {}
        keys: dict[str, str] = {}
        stages = list(_in_order(last))
        for stage in stages:
            module = cast(StageModule, importlib.import_module(stage.module))
            keys[stage.name] = _key(stage, module.VERSION, keys, config, data)
            out = work / stage.name / keys[stage.name]
            if out.exists():
                report(f"{stage.name}: unchanged, reusing the output of an earlier run")
            else:
                started = time.monotonic()
                _run(stage, module, out=out, data=data, inputs=outputs, config=config, progress=progress, engine=engine)
                report(f"{stage.name}: {time.monotonic() - started:.1f} s")
            outputs[stage.name] = out
            os.utime(out)  # records when it was last used
            _remove_old(out, kept_outputs)
            if stage.name == "ingest":
                config = _fitted(config, out, {needed.name for needed in stages}, report)
        return outputs


def _fitted(config: RunConfig, ingest: Path, stages: set[str], report: Callable[[str], None]) -> RunConfig:
    """The configuration for the stages after `ingest`; raises where the shop or a setting cannot work."""
    ingested = ingest_report(ingest)
    check_shop(ingested)
    fitted, changes = fit_to_shop(config, ingested["counts"], num_targets=ingested["learning"]["targets"])
    for change in changes if len(stages) > 1 else ():
        report(f"adjusted to the shop's size: {change}")
    for part, reason in parts_left_out(ingested, config).items() if "evaluate" in stages else ():
        report(f"left out: {part} ({reason})")
    check_settings(fitted, ingested["counts"]["items"], stages)
    return fitted


def _in_order(last: str) -> Iterator[Stage]:
    """`last` and all stages that it needs, in the order of `STAGES`."""
    needed: set[str] = set()

    def add(name: str) -> None:
        needed.add(name)
        for need in STAGES[name].needs:
            add(need)

    add(last)
    return (stage for stage in STAGES.values() if stage.name in needed)


def _key(stage: Stage, version: int, keys: Mapping[str, str], config: RunConfig, data: Path) -> str:
    everything = config.model_dump(mode="json", exclude=OPERATIONAL)
    settings = {path: reduce(getitem, path.split("."), everything) for path in stage.sections}
    parts = {
        "stage": stage.name,
        "version": version,
        "needs": {need: keys[need] for need in stage.needs},
        "settings": settings,
        "data": "" if stage.needs else hash_folder(data),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def hash_folder(data: Path) -> str:
    """SHA-256 over the names and bytes of the interactions and items files in the shop's folder, and of their parts."""
    if not data.is_dir():
        raise DataError("data.missing_folder", f"{data} is not a folder.", fix="Name the folder of your shop's files.")
    digest = hashlib.sha256()
    for path in sorted([*data.glob("*"), *data.glob("interactions/*"), *data.glob("items/*")]):
        stem = path.relative_to(data).parts[0].partition(".")[0]
        if path.is_file() and stem in ("interactions", "items"):
            digest.update(path.relative_to(data).as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _run(
    stage: Stage,
    module: StageModule,
    *,
    out: Path,
    data: Path,
    inputs: Mapping[str, Path],
    config: RunConfig,
    progress: Progress,
    engine: StageEngine,
) -> None:
    part, scratch = out.with_suffix(".part"), out.with_suffix(".scratch")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    needed = {need: inputs[need] for need in stage.needs}
    ctx = StageContext(
        data=data, inputs=needed, out=part, scratch=scratch, config=config, progress=progress, engine=engine
    )
    task = progress.add_task(stage.name, total=None, visible=False)  # no bar; it only gives a line in a log
    try:
        module.run(ctx)
        sync_folder(part)
        part.rename(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StageError(
                "stage.disk_full",
                f"the disk is full while {stage.name} writes to {part}.",
                fix="Free some space and run the same command again; it reuses the finished stages.",
            ) from error
        raise
    finally:
        progress.remove_task(task)
    shutil.rmtree(scratch, ignore_errors=True)


def _remove_old(used: Path, kept_outputs: int) -> None:
    """Removes a stage's old output folders, unfinished ones too, except the last used; files (the ledger) stay."""
    others = sorted(
        (path for path in used.parent.iterdir() if path.is_dir() and path != used and path.suffix != ".runs"),
        key=lambda path: -path.stat().st_mtime,
    )
    for path in others[kept_outputs - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
