"""Training on Ray, and a cluster whose head dies: each starts processes for many seconds."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isrf.contract.errors import StageError
from offline.engine.choose import open_engine
from offline.engine.engine import StageEngine
from offline.stages.train import stage as train
from offline.stages.train.build import WEIGHTS_FILE
from offline.stages.train.loop import CHECKPOINT_FILE
from tests.offline.stages.train_inputs import context, small_config, write_inputs
from tests.service.servers import free_port

pytestmark = [
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
WITHOUT_CHANCE = ("model.dropout=0", "model.item_id_dropout=0", "train.alignment_weight=0", "train.direct_share=0")
"""What each process would draw for its own share."""


@pytest.fixture(scope="module")
def engine() -> Iterator[StageEngine]:
    with open_engine("ray") as opened:
        yield opened


def processes(told: Callable[[str], bool]) -> list[int]:
    """Processes whose command line is meant."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if told(line):
            found.append(int(place.parent.name))
    return found


def test_one_process_trains_to_the_same_bytes(tmp_path: Path, engine: StageEngine) -> None:
    inputs = write_inputs(tmp_path)
    here, there = (context(tmp_path, inputs, name, small_config()) for name in ("here", "there"))
    train.run(here)
    train.run(replace(there, engine=engine))
    assert (there.out / WEIGHTS_FILE).read_bytes() == (here.out / WEIGHTS_FILE).read_bytes()


def test_two_processes_take_the_steps_that_one_would(tmp_path: Path, engine: StageEngine) -> None:
    inputs = write_inputs(tmp_path)
    settings = (*WITHOUT_CHANCE, "train.batch_size=31", "train.learning_rate=0.001")
    here = context(tmp_path, inputs, "here", small_config(*settings))
    there = context(tmp_path, inputs, "there", small_config(*settings, "train.processes=2"))
    train.run(here)
    train.run(replace(there, engine=engine))
    ours, theirs = (load_file(ctx.out / WEIGHTS_FILE) for ctx in (here, there))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=2e-4)


def test_a_process_lost_in_training_resumes_at_its_checkpoint(tmp_path: Path, engine: StageEngine) -> None:
    inputs = write_inputs(tmp_path)
    settings = ("train.epochs=40", "train.patience=0", "train.checkpoint_every_s=0")
    here, there = (context(tmp_path, inputs, name, small_config(*settings)) for name in ("here", "there"))
    train.run(here)
    killed: list[int] = []

    def kill_one() -> None:
        while not (there.scratch / CHECKPOINT_FILE).exists():
            time.sleep(0.05)
        killed.extend(processes(lambda line: line.startswith("ray::") and "TrainWorker" in line)[:1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    train.run(replace(there, engine=engine))
    killer.join()
    assert killed
    assert (there.out / WEIGHTS_FILE).read_bytes() == (here.out / WEIGHTS_FILE).read_bytes()


def test_what_cannot_be_trained_ends_with_its_own_error(tmp_path: Path, engine: StageEngine) -> None:
    ctx = context(tmp_path, write_inputs(tmp_path), "there", small_config("train.learning_rate=1e30"))
    with pytest.raises(StageError) as refused:
        train.run(replace(ctx, engine=engine))
    assert refused.value.code == "train.nan_loss"


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path, in which a socket of Ray has a name that is not too long."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


DRIVER = """
import sys
from offline.engine import on_ray
from offline.engine.choose import open_engine
from isrf.contract.errors import StageError
from tests.offline.engine import pieces
on_ray.LOST_S = 5.0
try:
    with open_engine("ray", sys.argv[1]) as engine:
        for number in engine.map(pieces.slowly, (), range(1000)):
            print(number, file=sys.__stdout__, flush=True)
except StageError as error:
    print(error.code, flush=True)
"""


@pytest.mark.parametrize("lost", ["gcs_server", "raylet"])
def test_a_head_that_dies_ends_the_run_with_a_code(lost: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        f"--port={port}",
        f"--temp-dir={home}",
    ]
    options = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=150000000"]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=120)
    try:
        command = [sys.executable, "-c", DRIVER, f"127.0.0.1:{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "0\n"
            for process in processes(lambda line: line.split(" ")[0].endswith(f"/{lost}") and str(home) in line):
                os.kill(process, signal.SIGKILL)
            said = driver.stdout.read().splitlines()
            assert said[-1] == "engine.lost"
            assert driver.wait(60) == 0
    finally:
        for process in processes(lambda line: str(home) in line or f":{port}" in line):
            if process != os.getpid():
                os.kill(process, signal.SIGKILL)
