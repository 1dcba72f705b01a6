"""A stage runs once for equal inputs, again for others; a killed or second run loses and breaks nothing."""

import fcntl
import json
from pathlib import Path

import pytest
from rich.progress import Progress

from isrf.contract.errors import DataError, StageError
from offline.config import build_config
from offline.context import WORK_DIR
from offline.pipeline import KEPT_OUTPUTS, STAGES, _key, hash_folder, run_until


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [f"u{user},i{(user + step) % 7},{step * 10}" for user in range(6) for step in range(4)]
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    items = [{"item_id": f"i{item}", "title": f"Kettle {item}", "categories": ["Kitchen"]} for item in range(7)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def ingest(shop: Path, releases: Path, *assignments: str) -> tuple[Path, list[str]]:
    lines: list[str] = []
    with Progress(disable=True) as progress:
        outputs = run_until(
            "ingest",
            data=shop,
            releases=releases,
            config=build_config("demo", None, assignments),
            progress=progress,
            report=lines.append,
        )
    return outputs["ingest"], lines


def test_an_unchanged_stage_is_not_run_again(shop: Path, tmp_path: Path) -> None:
    first, _ = ingest(shop, tmp_path / "releases")
    written = (first / "report.json").stat().st_mtime_ns
    again, lines = ingest(shop, tmp_path / "releases")
    assert again == first
    assert (again / "report.json").stat().st_mtime_ns == written
    assert lines == ["ingest: unchanged, reusing the output of an earlier run"]


def test_settings_of_other_stages_do_not_touch_a_stage(shop: Path, tmp_path: Path) -> None:
    first, _ = ingest(shop, tmp_path / "releases")
    again, _ = ingest(shop, tmp_path / "releases", "train.epochs=1")
    assert again == first


def test_speed_settings_do_not_make_a_stage_run_again(shop: Path, tmp_path: Path) -> None:
    keys = set()
    for assignments in ((), ("train.checkpoint_every_s=5", "reason.concurrency=3", "embed.batch_size=7")):
        config = build_config("demo", None, assignments)
        keys.add(_key(STAGES["train"], 1, dict.fromkeys(STAGES, "k"), config, shop))
        keys.add(_key(STAGES["reason"], 1, dict.fromkeys(STAGES, "k"), config, shop))
    assert len(keys) == 2


def test_a_stage_depends_on_single_keys_of_another_section() -> None:
    keys = [
        _key(STAGES["graph"], 1, dict.fromkeys(STAGES, "k"), build_config("demo", None, assignments), Path())
        for assignments in ((), ("model.width=32",), ("model.interest_length=9",))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_own_settings_and_data_do(shop: Path, tmp_path: Path) -> None:
    first, _ = ingest(shop, tmp_path / "releases")
    shuffled, _ = ingest(shop, tmp_path / "releases", "ingest.shuffle_ties=1")
    with (shop / "interactions.csv").open("a") as file:
        file.write("u0,i6,99\n")
    grown, _ = ingest(shop, tmp_path / "releases")
    assert len({first, shuffled, grown}) == 3


def test_what_a_killed_run_left_half_written_is_thrown_away(shop: Path, tmp_path: Path) -> None:
    finished, _ = ingest(shop, tmp_path / "whole")
    part = tmp_path / "killed" / WORK_DIR / "ingest" / f"{finished.name}.part"
    part.mkdir(parents=True)
    (part / "train.parquet").write_bytes(b"half a fi")
    (part / "leftover").write_bytes(b"")
    resumed, _ = ingest(shop, tmp_path / "killed")
    assert {p.name: p.read_bytes() for p in resumed.iterdir()} == {p.name: p.read_bytes() for p in finished.iterdir()}


def test_a_second_run_in_the_same_folder_is_refused(shop: Path, tmp_path: Path) -> None:
    work = tmp_path / "releases" / WORK_DIR
    work.mkdir(parents=True)
    with (work / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StageError) as error:
            ingest(shop, tmp_path / "releases")
    assert error.value.code == "stage.locked"
    ingest(shop, tmp_path / "releases")


def test_outputs_of_long_ago_are_removed_and_the_one_in_use_stays(shop: Path, tmp_path: Path) -> None:
    used = [ingest(shop, tmp_path / "releases", f"ingest.shuffle_ties={seed}")[0] for seed in range(KEPT_OUTPUTS + 2)]
    ingest(shop, tmp_path / "releases", f"ingest.shuffle_ties={KEPT_OUTPUTS}")
    assert [path.exists() for path in used] == [False, False] + [True] * KEPT_OUTPUTS


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere") as error:
        hash_folder(tmp_path / "nowhere")
    assert error.value.code == "data.missing_folder"


def test_every_stage_needs_only_stages_before_it() -> None:
    seen: set[str] = set()
    for stage in STAGES.values():
        assert set(stage.needs) <= seen
        seen.add(stage.name)
