"""Which stage runs when: content-addressed outputs, resumed after a kill, one run at a time, published at the end.

A stage's output folder is `<releases>/.work/<stage>/<key>/`, where the key hashes everything the stage may depend on.
It is filled beside its place and renamed when the stage returns, so a folder that exists is finished and equal keys
never run twice. It knows nothing of what the stages do.
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
from offline.preconditions import check_settings, check_shop
from offline.runtime.locks import lock_or_refuse
from offline.sizes import fit_to_shop

KEPT_OUTPUTS = 6
"""Finished outputs kept per stage, the last used ones: enough for a few configurations side by side, not a leak."""


OPERATIONAL: dict[str, set[str]] = {
    "reason": {
        "base_url", "concurrency", "timeout_s", "max_attempts", "back_off_s", "max_server_failures", "ledger", "client",
    },
    "embed": {"batch_size"},
    "train": {"checkpoint_every_s"},
}  # fmt: skip
"""Settings that change how long a stage takes and where it asks, not what comes out: no reason to run it again."""


class Stage(NamedTuple):
    """One row of the table: `module` has `VERSION` (raised when its output changes meaning) and `run(ctx)`.

    `sections` names what of the configuration it reads: a section, or `section.key`.
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
            ("graph", "semantic_ids", "model", "search"),
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
) -> dict[str, Path]:
    """Runs every stage that `last` needs and has not run yet, then `last`; returns the output folders by stage.

    What the size of the shop decides is decided once `ingest` has counted (`offline.sizes`). Of each stage the
    `kept_outputs` last used outputs stay; older ones are removed.

    Raises:
        StageError: `stage.locked` where another run holds the folder, `stage.disk_full` where the disk is.
        DataError: the shop is too small for a release.
        ConfigError: a setting of a later stage that cannot work with what `ingest` has counted.
    """
    work = releases / WORK_DIR
    work.mkdir(parents=True, exist_ok=True)
    refusal = StageError(
        "stage.locked",
        f"another run is at work in {work}.",
        fix="Wait for it to end, or name another --releases folder.",
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
                report(f"{stage.name}: unchanged, taken from the earlier run")
            else:
                started = time.monotonic()
                _run(stage, module, out=out, data=data, inputs=outputs, config=config, progress=progress)
                report(f"{stage.name}: {time.monotonic() - started:.1f} s")
            outputs[stage.name] = out
            os.utime(out)  # when it was last used
            _forget_old(out, kept_outputs)
            if stage.name == "ingest":
                config = _fitted(config, out, {one.name for one in stages}, report)
        return outputs


def _fitted(config: RunConfig, ingest: Path, stages: set[str], report: Callable[[str], None]) -> RunConfig:
    """The configuration as the stages behind `ingest` get it; refuses what cannot work."""
    counted = json.loads((ingest / "report.json").read_text())
    check_shop(counted)
    fitted, changes = fit_to_shop(config, counted["counts"])
    for change in changes if len(stages) > 1 else ():
        report(f"set to the shop's size: {change}")
    check_settings(fitted, counted["counts"]["items"], stages)
    return fitted


def _in_order(last: str) -> Iterator[Stage]:
    wanted: set[str] = set()

    def add(name: str) -> None:
        wanted.add(name)
        for need in STAGES[name].needs:
            add(need)

    add(last)
    return (stage for stage in STAGES.values() if stage.name in wanted)


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
    """SHA-256 over the names and bytes of the contract's files in the shop's folder."""
    if not data.is_dir():
        raise DataError("data.missing_folder", f"{data} is no folder.", fix="Name the folder of your shop's files.")
    digest = hashlib.sha256()
    for path in sorted(data.glob("*")):
        if path.is_file() and path.stem in ("interactions", "items"):
            digest.update(path.name.encode())
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
) -> None:
    part, scratch = out.with_suffix(".part"), out.with_suffix(".scratch")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    needed = {need: inputs[need] for need in stage.needs}
    ctx = StageContext(data=data, inputs=needed, out=part, scratch=scratch, config=config, progress=progress)
    at_work = progress.add_task(stage.name, total=None, visible=False)  # no bar; a line, where no task has one
    try:
        module.run(ctx)
        sync_folder(part)
        part.rename(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StageError(
                "stage.disk_full",
                f"the disk is full while {stage.name} writes to {part}.",
                fix="Free some space and run the same command again: finished stages are kept.",
            ) from error
        raise
    finally:
        progress.remove_task(at_work)
    shutil.rmtree(scratch, ignore_errors=True)


def _forget_old(used: Path, kept_outputs: int) -> None:
    """Removes the folders that runs of long ago left of a stage, half-finished or not; files (the ledger) stay."""
    others = sorted(
        (path for path in used.parent.iterdir() if path.is_dir() and path != used and path.suffix != ".runs"),
        key=lambda path: -path.stat().st_mtime,
    )
    for path in others[kept_outputs - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
