"""Starts a service of one release for one run, and ends it with the run, however that ends.

It listens on a free port of this machine, needs a key that nobody else has, and keeps its state in a folder of the run:
empty, or a copy of a shop's embedded store. Settings that change answers (`PASSED`) come from the environment, as for
any service.
"""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path

from isrf.contract.errors import ConfigError, DataError, StageError, StoreError
from isrf.contract.event_log import JOURNAL_FILE
from isrf.contract.shown import printable

PASSED = frozenset(
    {
        "ISRF_VARIANT",
        "ISRF_DEVICE",
        "ISRF_INFERENCE_THREADS",
        "ISRF_EXCLUDE_EVENTS",
        "ISRF_LIVE_EVIDENCE_MB",
        "ISRF_CROWD_EPOCH_S",
        "ISRF_MAX_ADDED_ITEMS",
        "ISRF_OPEN_DEADLINE_S",
        "ISRF_ERASURE_KEY",
        "ISRF_ERASURE_KEY_FILE",
    }
)
"""Settings of the environment that a private service takes: those that change answers, and how the machine is used.

All others stay out, as they name what it must not touch: a Redis, a topic of events, ports, keys.
"""
_NOT_OF_ANSWERS = frozenset(
    {"ISRF_INFERENCE_THREADS", "ISRF_OPEN_DEADLINE_S", "ISRF_ERASURE_KEY", "ISRF_ERASURE_KEY_FILE"}
)
"""Those of `PASSED` that leave the answers as they are: how the machine is used, and a secret."""
SETTINGS = {
    "ISRF_LOG_LEVEL": "INFO",  # the log says which port it took
    "ISRF_RATE_LIMIT": "",
    "ISRF_STUDIO": "false",
    "ISRF_METRICS_PORT": "0",
    "ISRF_WATCH_RELEASES_S": "0",
    # Nobody else calls: lists wait for each other and share the model's runs, and no list is asked for twice.
    "ISRF_MAX_BATCH": "16",
    "ISRF_MAX_WAITING": "10000",
    "ISRF_DEADLINE_S": "60",
    "ISRF_ANSWER_CACHE_MB": "0",
    "ISRF_RECOMMENDATION_TTL_S": "60",
}
START_S = 600.0
"""How long a service may take to open a release; one of a million items takes 40 s."""
_POLL_S = 0.05
_LISTENING = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
_SHOWN_CHARACTERS = 600


class PrivateService:
    """A running private service.

    Attributes:
        url: its address.
        api_key: the only key that it knows.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, api_key: str) -> None:
        self.url, self.api_key = "", api_key
        self._process, self._log = process, log

    async def wait_until_it_listens(self) -> None:
        """Waits for its port; raises `StageError` where it ends instead, or takes longer than `START_S`."""
        until = time.monotonic() + START_S
        while (found := _LISTENING.search(self._log.read_text("utf-8", "replace"))) is None:
            self.check()
            if time.monotonic() > until:
                raise self._ended(f"the private service did not start within {START_S:g} s")
            await asyncio.sleep(_POLL_S)
        self.url = found[1]

    def check(self) -> None:
        """Raises `StageError` (`recommend.service_ended`) where the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise self._ended(f"the private service ended with status {status}")

    def end(self) -> None:
        """Ends the process; its state is the run's own, so that there is nothing to wait for."""
        self._process.kill()
        self._process.wait()

    def _ended(self, what: str) -> StageError:
        lines = self._log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if line.startswith("error:") or '"level": "error"' in line]
        last = printable((errors or lines or ["nothing"])[-1], _SHOWN_CHARACTERS)
        return StageError(
            "recommend.service_ended",
            f"{what}; the last that it said: {last}",
            fix="Mend what it says and run the same command again: it goes on after the users that are done.",
        )


@asynccontextmanager
async def private_service(
    release: Path, folder: Path, *, state_dir: Path | None, placements: Path | None
) -> AsyncIterator[PrivateService]:
    """Serves a release while the context is open.

    Args:
        release: the folder of one release.
        folder: for the service's state, keys and log; emptied before and removed after.
        state_dir: an embedded store, whose state is copied; a service may use it meanwhile. None: no state.
        placements: TOML file of placements; None for none.

    Raises:
        ConfigError: `config.no_service_package`.
        DataError, StoreError: as `copy_state`.
        StageError: `recommend.service_ended`.
    """
    if find_spec("service") is None:
        raise ConfigError(
            "config.no_service_package",
            "the package `service` is not installed here, and without --service the command starts one.",
            fix="Name a running service with --service URL, or run this where both halves are installed.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        if state_dir is not None:
            copy_state(state_dir, folder / "state")
        api_key = _new_key(folder / "keys.json")
        log = folder / "log"
        service = PrivateService(_start(release, folder, log, placements), log, api_key)
        try:
            await service.wait_until_it_listens()
            yield service
        finally:
            service.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answer_settings() -> str | None:
    """The settings of the environment that change a private service's answers, as text; None where none is set."""
    names = sorted(name for name in PASSED - _NOT_OF_ANSWERS if name in os.environ)
    return " ".join(f"{name}={os.environ[name]}" for name in names) or None


def copy_state(state_dir: Path, target: Path) -> None:
    """Copies an embedded store as it is at one moment; a service may write to it meanwhile.

    Raises:
        DataError: `data.no_store`, the folder holds no store.
        StoreError: `store.journal_unusable`.
    """
    path = state_dir / JOURNAL_FILE
    if not path.is_file():
        raise DataError(
            "data.no_store", f"{state_dir} has no {JOURNAL_FILE}.", fix="Name the folder of the service's state."
        )
    target.mkdir(mode=0o700)
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target / JOURNAL_FILE)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(
            "store.journal_unusable",
            f"the journal {path} cannot be copied: {error}.",
            fix="Check the file's permissions and the free disk space.",
        ) from error


def _start(release: Path, folder: Path, log: Path, placements: Path | None) -> "subprocess.Popen[bytes]":
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or not name.startswith(("ISRF_", "REDIS_", "OTEL_"))
    } | SETTINGS
    if placements is not None:
        environment["ISRF_PLACEMENTS_FILE"] = str(placements)
    wrapper = [sys.executable, str(Path(__file__).with_name("end_with_parent.py")), str(os.getpid())]
    options = {
        "--releases": release,
        "--host": "127.0.0.1",
        "--port": "0",
        "--workers": "1",
        "--state-dir": folder / "state",
        "--api-keys-file": folder / "keys.json",
    }
    command = [*wrapper, "-m", "service", *(str(part) for option in options.items() for part in option)]
    with log.open("wb") as out:
        # Not in this process's group: Ctrl-C ends this process, which then ends the service.
        return subprocess.Popen(  # noqa: S603 - our own service
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _new_key(file: Path) -> str:
    command = [sys.executable, "-m", "service", "keys", "add", "--file", str(file), "--role", "admin"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own service
    if made.returncode:
        raise StageError(
            "recommend.service_ended",
            f"the private service could not make a key: {printable(made.stderr.strip(), _SHOWN_CHARACTERS)}",
            fix="Mend what it says and run the same command again.",
        )
    return made.stdout.strip()
