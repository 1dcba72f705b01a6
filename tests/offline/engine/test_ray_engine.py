"""The engine `ray` gives what the engine `local` gives; who is lost costs a piece, and what cannot work is said."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from isrf.contract.errors import ConfigError, DataError, StageError
from offline.commands.evaluate_release import evaluate_release
from offline.commands.publish import publish
from offline.commands.replay.cut import Cut, cut
from offline.commands.replay.run import replay
from offline.config import build_config
from offline.engine.choose import open_engine
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.pipeline import run_until
from offline.stages.reason import stage as reason
from offline.stages.train.samples import read_sequences, training_samples
from offline.stages.train.stage import load_interests
from tests.offline.engine import pieces
from tests.offline.stages.reason.llm_server import LlmServer
from tests.offline.stages.reason.reason_shop import shop_items, stage_context, write_ingest
from tests.offline.stages.train_inputs import context, small_config, write_inputs
from tests.shops import TINY, write_shop

DAY = 86_400
EVENTS = [
    (f"u{user:02}", f"i{(user * 5 + step * 7 + user * step) % 40}", DAY * step + 60 * user)
    for user in range(60)
    for step in range(9)
]
ITEMS = [{"item_id": f"i{row}", "title": f"Cup {row % 4} of colour {row % 3}"} for row in range(40)]
CONFIG = build_config("demo", None, (*TINY, "train.patience=1", "train.validation_users=20"))


@pytest.fixture(scope="module")
def engine() -> Iterator[StageEngine]:
    """A cluster of two workers on this machine."""
    pytest.importorskip("ray")
    from offline.engine.cluster import import_ray
    from offline.engine.on_ray import RayEngine

    ray = import_ray()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=120 << 20,
        log_to_driver=False,
        configure_logging=False,
        logging_level="ERROR",
    )
    yield RayEngine(ray)
    ray.shutdown()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies before the stream."""
    return tmp_path_factory.mktemp("ray") / "shop"


@pytest.fixture(scope="module")
def stream(shop: Path) -> Cut:
    return cut(write_shop(shop.parent / "all", EVENTS, ITEMS), shop, CONFIG, since=7.0 * DAY, share=None)


def run(last: str, data: Path, releases: Path, engine: StageEngine) -> dict[str, Path]:
    with Progress(disable=True) as progress:
        return run_until(last, data=data, releases=releases, config=CONFIG, progress=progress, engine=engine)


@pytest.fixture(scope="module")
def here(shop: Path, stream: Cut) -> dict[str, Path]:
    """The outputs of all stages, by the engine local."""
    return run("export", shop, shop.parent / "here", LOCAL)


@pytest.fixture(scope="module")
def release(here: dict[str, Path], shop: Path) -> Path:
    return publish(here["export"], shop.parent / "here")


@pytest.fixture(scope="module")
def there(shop: Path, here: dict[str, Path], engine: StageEngine) -> dict[str, Path]:
    """The same by the engine ray, with the model that was trained here: `tests/soak/test_ray.py` trains on Ray."""
    trained = here["train"].relative_to(shop.parent / "here")
    shutil.copytree(here["train"], shop.parent / "there" / trained)
    return run("evaluate", shop, shop.parent / "there", engine)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", ["embed", "graph", "semantic-ids", "compile", "evaluate"])
def test_every_stage_writes_the_same_bytes(stage: str, here: dict[str, Path], there: dict[str, Path]) -> None:
    ours, theirs = files(here[stage]), files(there[stage])
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_samples_of_a_training_are_the_same(tmp_path: Path, engine: StageEngine) -> None:
    inputs = write_inputs(tmp_path)
    ctx = context(tmp_path, inputs, "train", small_config())
    interests = load_interests(ctx)
    sequences = read_sequences(inputs["ingest"], len(interests.group_layers))
    ours, theirs = (
        training_samples(sequences, interests, history_length=5, interest_length=8, engine=one)
        for one in (LOCAL, engine)
    )
    for name, column in ours._asdict().items():
        np.testing.assert_array_equal(column, getattr(theirs, name), err_msg=name)


def test_a_release_is_measured_to_the_same_figures(release: Path, shop: Path, engine: StageEngine) -> None:

    def measured(engine: StageEngine, predictions: Path) -> str:
        with Progress(disable=True) as progress:
            figures = evaluate_release(
                release,
                shop,
                split="test",
                include_seen=True,
                whole=True,
                predictions=predictions,
                progress=progress,
                engine=engine,
            )
        return json.dumps(figures) + predictions.read_text()

    assert measured(LOCAL, shop.parent / "here.jsonl") == measured(engine, shop.parent / "there.jsonl")


def test_the_variants_of_a_replay_are_the_same(release: Path, stream: Cut, engine: StageEngine) -> None:
    def played(engine: StageEngine) -> object:
        with Progress(disable=True) as progress:
            result = replay(
                release,
                stream,
                config=CONFIG,
                frozen=("history",),
                epoch_s=DAY,
                progress=progress,
                engine=engine,
            )
        return result["variants"]

    assert played(engine) == played(LOCAL)


def test_what_all_pieces_read_is_opened_once_in_a_process(engine: StageEngine, tmp_path: Path) -> None:
    table = pieces.Table(np.arange(2_000_000), tmp_path)
    ran = [*engine.map(pieces.add_up, (table,), range(20)), *engine.map(pieces.add_up, (table,), range(20, 40))]
    assert [one.value for one in ran] == [int(table.rows[row:].sum()) for row in range(40)]
    processes = {one.process for one in ran}
    assert os.getpid() not in processes
    assert len(list(tmp_path.iterdir())) == len(processes)


def test_a_killed_worker_costs_its_piece_only(engine: StageEngine, tmp_path: Path) -> None:
    assert list(engine.map(pieces.double, (tmp_path,), range(12))) == [2 * number for number in range(12)]
    assert (tmp_path / "3-first").exists()
    ended = sorted(int(path.name.split("-")[0]) for path in tmp_path.iterdir() if not path.name.endswith("first"))
    # A piece that ran beside the lost one, in another process, is not run again.
    assert ended == list(range(12))


def test_a_piece_that_kills_every_process_ends_the_run(engine: StageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline.engine.on_ray.RETRIES", 1)
    with pytest.raises(StageError) as refused:
        list(engine.map(pieces.die, (), [0]))
    assert refused.value.code == "engine.worker_lost"


def test_an_error_comes_back_as_it_was_raised(engine: StageEngine) -> None:
    with pytest.raises(DataError) as refused:
        list(engine.map(pieces.refuse, (), [7, 8]))
    assert (refused.value.code, refused.value.message, refused.value.fix) == (
        "data.refused",
        "row 7 is bad.",
        "Mend it.",
    )
    with pytest.raises(ZeroDivisionError, match="by zero"):
        list(engine.map(pieces.fail, (), [0]))


def test_a_caller_may_stop_early(engine: StageEngine, tmp_path: Path) -> None:
    numbers = iter(range(1000))
    results = engine.map(pieces.double, (tmp_path,), (4 + number for number in numbers))
    assert next(results) == 8
    results.close()  # type: ignore[attr-defined]
    assert next(numbers) < 20  # the others were never asked for


def test_an_llm_is_asked_under_one_ledger_and_budget(engine: StageEngine, tmp_path: Path) -> None:
    inputs = {"ingest": write_ingest(tmp_path / "ingest", shop_items(4), [[0, 1], [2, 3]])}
    with LlmServer() as server:

        def ask(name: str, engine: StageEngine, *, ledger: str, budget: str = "none") -> dict[str, bytes]:
            settings = (f"reason.base_url={server.base_url}", "reason.reasoner=llm", f"reason.budget_calls={budget}")
            ctx = stage_context(tmp_path / ledger, inputs, *settings, name=name)
            reason.run(replace(ctx, engine=engine))
            return {path.name: path.read_bytes() for path in ctx.out.glob("*.parquet")}

        few = ask("few", engine, ledger="there", budget="7")
        assert len(server.requests) == 6  # two chains of three calls
        ours = ask("here", LOCAL, ledger="here")
        assert len(server.requests) == 6 + 18
        assert ask("all", engine, ledger="there") == ours != few
        assert len(server.requests) == 6 + 18 + 12  # the ledger answers for the other six


def test_local_knows_no_ray(shop: Path) -> None:
    code = (
        "import sys; sys.argv = ['offline', 'ingest', '--data', sys.argv[1], '--releases', sys.argv[2]]\n"
        "import offline.__main__\n"
        "try: offline.__main__.app()\n"
        "finally: print([name for name in sys.modules if name.split('.')[0] in ('ray', 'grpc')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, shop, shop.parent / "here"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("name", "address", "code"),
    [
        ("spark", None, "config.engine"),
        ("local", "auto", "config.ray_address"),
        ("ray", "nowhere", "config.ray_address"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(name: str, address: str | None, code: str) -> None:
    with pytest.raises(ConfigError) as refused, open_engine(name, address):
        pass
    assert refused.value.code == code


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("silent", [False, True])
def test_an_address_that_does_not_answer_is_named_soon(
    scheme: str, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline.engine.cluster.ANSWER_S", 1.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if silent:  # takes connections, and says nothing
            taken.listen()
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(StageError) as refused, open_engine("ray", address):
            pass
    assert refused.value.code == "engine.unreachable"
    assert address in str(refused.value)
    assert time.monotonic() - began < 20.0
