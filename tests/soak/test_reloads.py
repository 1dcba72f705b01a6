"""Fifty switches under load: nothing dropped, nothing mixed, and every old release's memory given back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.releases import two_releases
from tests.service.servers import ServiceProcess
from tests.service.sync.test_reload import check_unmixed, switch_under_load

pytestmark = pytest.mark.soak

SWITCHES = 50
SETTLED = 10
"""Switches after which the process has the memory of one that switches."""


@pytest.fixture
def service(demo_release: Path, tmp_path: Path) -> Iterator[ServiceProcess]:
    releases = two_releases(demo_release / "current", tmp_path / "releases")
    process = ServiceProcess(releases, tmp_path / "service", ISRF_WATCH_RELEASES_S="0")
    yield process.start()
    process.kill()


def memory(service: ServiceProcess) -> int:
    """Resident kilobytes."""
    assert service.process is not None
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_fifty_reloads_under_load(service: ServiceProcess, tmp_path: Path) -> None:
    resident: list[int] = []
    load = switch_under_load(service, tmp_path / "releases", SWITCHES, lambda: resident.append(memory(service)))
    check_unmixed(load, tmp_path / "releases")
    settled, last = max(resident[: SETTLED + 1]), max(resident[-SETTLED:])
    assert last < 1.25 * settled, resident
