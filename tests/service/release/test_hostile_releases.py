"""Whatever lies in a release's place: it is refused soon, with its code; what was served goes on; an end is an end."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.releases import change_manifest, endless, id_of, named_copy, point, seal, two_releases
from tests.service.servers import ServiceProcess, wait_until
from tests.service.told import counted, reload, served

pytestmark = pytest.mark.slow

DEADLINE_S = 4.0
SOON_S = 30.0
"""In which anything is answered: above the deadline, far below for ever."""


@pytest.fixture
def releases(tiny_release: Path, tmp_path: Path) -> Path:
    return two_releases(tiny_release / "current", tmp_path / "releases")


@pytest.fixture
def service(releases: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess(
        releases, tmp_path / "service", ISRF_WATCH_RELEASES_S="0", ISRF_OPEN_DEADLINE_S=str(DEADLINE_S)
    )
    yield process
    process.kill()


def in_place_of(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        put(path)

    return plant


def bind_socket(path: Path) -> None:
    """At a path of any length: a socket's own must be short."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def sparse_and_listed(folder: Path) -> None:
    """A terabyte of nothing that the manifest owns up to."""
    sparse(folder / "item_vectors.npy", 1 << 40)
    change_manifest(folder, lambda manifest: manifest["files"]["item_vectors.npy"].update(bytes=1 << 40))


def sparse_and_not_read(folder: Path) -> None:
    """Of a file that serving has no use for, and that would fit into memory: it would only be hashed, and that long."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 9 // 10
    sparse(folder / "recommender.fp16.onnx", size)
    change_manifest(folder, lambda manifest: manifest["files"]["recommender.fp16.onnx"].update(bytes=size))


def claims_a_huge_shape(folder: Path) -> None:
    head = (
        np.lib.format.magic(1, 0)
        + b"\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 64), }"
    )
    (folder / "item_vectors.npy").write_bytes(head.ljust(127) + b"\n")
    seal(folder)


def bomb(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b'{"schema_version": 3, "config": ' + b'{"a":' * 900 + b"1" + b"}" * 901)


def deep_bomb(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"[" * 1_000_000)


def many_files(folder: Path) -> None:
    for number in range(200):
        (folder / f"more-{number}").touch()


def no_permission(folder: Path) -> None:
    (folder / "items.jsonl").chmod(0)


PLANTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("fifo-manifest", in_place_of("manifest.json", os.mkfifo), "bundle.not_a_file"),
    ("fifo-items", in_place_of("items.jsonl", os.mkfifo), "bundle.not_a_file"),
    ("fifo-array", in_place_of("item_vectors.npy", os.mkfifo), "bundle.not_a_file"),
    ("fifo-graph", in_place_of("recommender.onnx", os.mkfifo), "bundle.not_a_file"),
    ("fifo-beside", lambda folder: os.mkfifo(folder / "evidence" / "more"), "bundle.not_a_file"),
    ("fifo-folder", in_place_of("evidence", os.mkfifo), "bundle.not_a_file"),
    ("socket", in_place_of("users.parquet", bind_socket), "bundle.not_a_file"),
    ("zero", in_place_of("items.jsonl", lambda path: path.symlink_to("/dev/zero")), "bundle.not_a_file"),
    ("zero-manifest", in_place_of("manifest.json", lambda path: path.symlink_to("/dev/zero")), "bundle.not_a_file"),
    ("link-out", in_place_of("popularity.npy", lambda path: path.symlink_to("/etc/hostname")), "bundle.not_a_file"),
    ("link-in", in_place_of("popularity.npy", lambda path: path.symlink_to("semantic_ids.npy")), "bundle.not_a_file"),
    ("link-loop", in_place_of("popularity.npy", lambda path: path.symlink_to(path.name)), "bundle.not_a_file"),
    ("folder-link", in_place_of("evidence", lambda path: path.symlink_to("/proc")), "bundle.not_a_file"),
    ("folder-loop", lambda folder: (folder / "evidence" / "again").symlink_to(".."), "bundle.not_a_file"),
    ("folder", in_place_of("items.jsonl", Path.mkdir), "bundle.not_a_file"),
    ("sparse", lambda folder: sparse(folder / "item_vectors.npy", 1 << 40), "bundle.hash_mismatch"),
    ("sparse-listed", sparse_and_listed, "bundle.too_large"),
    ("sparse-not-read", sparse_and_not_read, "bundle.deadline"),
    ("sparse-manifest", lambda folder: sparse(folder / "manifest.json", 2 << 30), "bundle.too_large"),
    ("huge-shape", claims_a_huge_shape, "bundle.array_mismatch"),
    ("bomb", bomb, "bundle.manifest"),
    ("deep-bomb", deep_bomb, "bundle.manifest"),
    ("unlisted", lambda folder: (folder / "notes.txt").touch(), "bundle.unlisted_file"),
    ("unlisted-hidden", lambda folder: (folder / "evidence" / ".swp").touch(), "bundle.unlisted_file"),
    ("many", many_files, "bundle.unlisted_file"),
    ("permission", no_permission, "bundle.unreadable"),
    ("endless", endless, "bundle.graph_endless"),
    ("endless-batch", lambda folder: endless(folder, from_batch=2), "bundle.graph_endless"),
]


def refused(service: ServiceProcess, code: str, what: str) -> None:
    began = time.monotonic()
    answer = reload(service)
    assert time.monotonic() - began < SOON_S, what
    assert (answer.status_code, answer.json()["code"]) == (409, code), f"{what}: {answer.text}"
    assert answer.json()["fix"], what


def test_no_release_hangs_a_reload_or_takes_the_place_of_the_one_that_is_served(
    service: ServiceProcess, releases: Path
) -> None:
    service.start()
    before = id_of(releases / "r-a")
    for name, plant, code in PLANTS:
        if name == "permission" and os.geteuid() == 0:
            continue  # who may do anything is refused nothing
        plant(named_copy(releases / "r-a", releases, name))
        point(releases, name)
        refused(service, code, name)
        assert served(service) == before, name
        shutil.rmtree(releases / name)
    point(releases, "r-b")
    assert reload(service).json()["status"] == "switched"
    assert service.stop() == 0


def make_loop(current: Path) -> None:
    current.with_name("x").symlink_to("current")
    current.symlink_to("x")


def link_to_pipe(current: Path) -> None:
    os.mkfifo(current.with_name("pipe"))
    current.symlink_to("pipe")


CURRENTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("itself", lambda current: current.symlink_to("current"), "bundle.no_release"),
    ("a-loop", make_loop, "bundle.no_release"),
    ("a-pipe", os.mkfifo, "bundle.no_release"),
    ("a-link-to-a-pipe", link_to_pipe, "bundle.no_release"),
    ("a-device", lambda current: current.symlink_to("/dev/zero"), "bundle.no_release"),
    ("a-file", lambda current: current.write_text("r-a"), "bundle.no_release"),
    ("nothing", lambda current: current.symlink_to("r-none"), "bundle.no_release"),
    ("the-root", lambda current: current.symlink_to("/"), "bundle.outside"),
    ("up", lambda current: current.symlink_to(".."), "bundle.outside"),
    ("a-long-name", lambda current: current.symlink_to("x" * 300), "bundle.no_release"),
]


def test_current_may_be_anything_and_is_served_only_where_it_leads_to_a_release_of_this_folder(
    service: ServiceProcess, releases: Path, tiny_release: Path
) -> None:
    service.start()
    before, current = id_of(releases / "r-a"), releases / "current"
    outside = (
        "a-release-elsewhere",
        lambda link: link.symlink_to((tiny_release / "current").resolve()),
        "bundle.outside",
    )
    for name, put, code in [*CURRENTS, outside]:
        current.unlink()
        put(current)
        refused(service, code, name)
        assert served(service) == before, name
    current.unlink()
    point(releases, "r-a")
    assert reload(service).json()["status"] == "unchanged"
    assert service.stop() == 0


def test_an_end_is_an_end_while_a_release_is_being_opened_that_never_opens(releases: Path, tmp_path: Path) -> None:
    """The watch has begun it; the limit of a run is 20 s, and nobody waits for it."""
    service = ServiceProcess(releases, tmp_path / "service", ISRF_WATCH_RELEASES_S="0.2").start()
    try:
        endless(named_copy(releases / "r-a", releases, "r-endless"))
        point(releases, "r-endless")
        time.sleep(4)
        assert served(service) == id_of(releases / "r-a")
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < SOON_S
    finally:
        service.kill()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_end_is_an_end_while_the_first_release_is_being_opened(
    releases: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    endless(named_copy(releases / "r-a", releases, "r-endless"))
    point(releases, "r-endless")
    service = ServiceProcess(releases, tmp_path / "service")
    service.launch()
    try:
        assert service.process is not None
        # The store is opened before the release, which then takes 20 s to be given up.
        wait_until(lambda: (tmp_path / "service" / "state").exists(), what="the store")
        time.sleep(2)
        assert service.exit_code() is None
        began = time.monotonic()
        service.process.send_signal(sent)
        assert service.process.wait(timeout=SOON_S) == 0
        assert time.monotonic() - began < SOON_S
    finally:
        service.kill()


def test_a_release_that_never_opens_is_no_start(releases: Path, tmp_path: Path) -> None:
    endless(named_copy(releases / "r-a", releases, "r-endless"))
    point(releases, "r-endless")
    code, error = ServiceProcess(releases, tmp_path / "service", ISRF_OPEN_DEADLINE_S="3").refused()
    assert code == 3
    assert "error: bundle.graph_endless" in error.splitlines()[-1]


def test_many_who_reload_a_broken_release_open_it_twice_at_most(service: ServiceProcess, releases: Path) -> None:
    service.start()
    endless(named_copy(releases / "r-a", releases, "r-endless"))
    point(releases, "r-endless")
    codes: list[str] = []
    callers = [threading.Thread(target=lambda: codes.append(reload(service).json()["code"])) for _ in range(20)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert codes == ["bundle.graph_endless"] * 20
    assert time.monotonic() - began < 2 * SOON_S
    assert counted(service, 'isrf_reloads_total{code="bundle.graph_endless",result="refused"}') <= 2
    assert served(service) == id_of(releases / "r-a")
    assert httpx.get(f"{service.url}/popular").status_code == 200


@pytest.mark.parametrize("name", ["out", "pipe"])
def test_the_experiments_release_is_held_to_the_same(
    releases: Path, tmp_path: Path, tiny_release: Path, name: str
) -> None:
    (releases / "out").symlink_to((tiny_release / "current").resolve())
    in_place_of("items.jsonl", os.mkfifo)(named_copy(releases / "r-a", releases, "pipe"))
    code, error = ServiceProcess(releases, tmp_path / "service", ISRF_EXPERIMENT=f"{name}:10%").refused()
    assert code == 3
    wanted = {"out": "bundle.outside", "pipe": "bundle.not_a_file"}[name]
    assert f"error: {wanted}" in error.splitlines()[-1]
