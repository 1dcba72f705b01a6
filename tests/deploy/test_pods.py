"""The service's pod as the chart renders it, run as a process: its command, its variables, its files, its probes."""

import base64
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.deploy.chart import ROOT, Values, case, one, over, render
from tests.docker.dockerfile import environment, read_stages
from tests.service.releases import id_of, named_copy
from tests.service.servers import PATIENCE_S, RedisServer, free_port, wait_until

PATIENT: Values = {
    "settings": {"ISRF_REDIS_READ_TIMEOUT_S": 10, "ISRF_REDIS_WRITE_TIMEOUT_S": 60, "ISRF_DEADLINE_S": 60}
}
"""It is not the claim how soon something is given up."""


class Pod(NamedTuple):
    """A container of the chart, with its files under `root` and its ports on free ones."""

    root: Path
    container: dict[str, Any]
    ports: dict[str, int]
    process: "subprocess.Popen[bytes]"
    shop_key: str

    def probe(self, name: str) -> httpx.Response:
        """The call of one of its probes, as the kubelet makes it."""
        call = self.container[name]["httpGet"]
        return httpx.get(f"http://127.0.0.1:{self.ports[call['port']]}{call['path']}", timeout=PATIENCE_S)

    def get(self, path: str, port: str = "http") -> httpx.Response:
        return httpx.get(
            f"http://127.0.0.1:{self.ports[port]}{path}", headers={"X-API-Key": self.shop_key}, timeout=PATIENCE_S
        )

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def is_ready(self) -> bool:
        try:
            return self.probe("startupProbe").status_code == 200
        except httpx.TransportError:
            return False


def mounted(volume: dict[str, Any], objects: dict[tuple[str, str], dict[str, str]]) -> dict[str, str]:
    """The files of a volume, out of Secrets and ConfigMaps."""
    if "projected" in volume:
        sources = [source["secret"] for source in volume["projected"]["sources"]]
    else:
        sources = [volume["secret"] | {"name": volume["secret"]["secretName"]}] if "secret" in volume else []
    found: dict[str, str] = {}
    for source in sources:
        held = objects["Secret", source["name"]]
        found |= {item["path"]: held[item["key"]] for item in source["items"]}
    if "configMap" in volume:
        found |= objects["ConfigMap", volume["configMap"]["name"]]
    return found


@contextmanager
def running(values: Values, root: Path, redis: RedisServer, releases: Path) -> Iterator[Pod]:
    rendered = render(over(values, PATIENT))
    objects = {("Secret", "shop-redis"): {"redis.url": redis.url}}
    for each in rendered:
        if each["kind"] == "Secret":
            texts = {name: base64.b64decode(value).decode() for name, value in each["data"].items()}
            objects["Secret", each["metadata"]["name"]] = texts
        elif each["kind"] == "ConfigMap":
            objects["ConfigMap", each["metadata"]["name"]] = each["data"]
    spec = one(rendered, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        place = root / mount["mountPath"].lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if mount["name"] == "releases":
            place.symlink_to(releases)
            continue
        place.mkdir()
        for name, text in mounted(volumes[mount["name"]], objects).items():
            (place / name).write_text(text)
    ports = {port["name"]: free_port() for port in container["ports"]}
    numbers = {str(port["containerPort"]): str(ports[port["name"]]) for port in container["ports"]}
    image = environment(read_stages(ROOT / "docker/service.Dockerfile")[-1])
    variables = image | {variable["name"]: variable["value"] for variable in container["env"]}
    variables = {name: re.sub(r"^/(?=var|etc|tmp)", f"{root}/", value) for name, value in variables.items()}
    variables |= {name: numbers[value] for name, value in variables.items() if name.endswith("_PORT")}
    variables |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": f"{root}/tmp", "OMP_NUM_THREADS": "1"}
    assert container["command"][0] == "python"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *container["command"][1:]],
            cwd=root,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (made,) = [texts for texts in objects.values() if "shop.key" in texts]
    pod = Pod(root, container, ports, process, made["shop.key"])
    try:
        wait_until(pod.is_ready, what="the service", alive=lambda: process.poll() is None)
        yield pod
    except AssertionError as error:
        raise AssertionError(f"{error}\n{pod.log}") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.mark.redis
def test_the_pod_starts_answers_its_probes_and_drains(tmp_path: Path, redis: RedisServer, tiny_release: Path) -> None:
    values = over(case("claim"), {"placements": '[home]\nkind = "popular"\nlength = 2\n'})
    root = tmp_path / "pod"
    root.mkdir()
    with running(values, root, redis, tiny_release) as pod:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert pod.probe(probe).status_code == 200
        wait_until(lambda: pod.probe("readinessProbe").json()["store"] == "ok", what="Redis")
        assert pod.get("/popular?n=1").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{pod.ports['http']}/popular?n=1").status_code == 401
        assert len(pod.get("/placements/home/items").json()["items"]) == 2
        metrics = httpx.get(f"http://127.0.0.1:{pod.ports['metrics']}/metrics", timeout=PATIENCE_S)
        autoscaler = one(render(case("everything")), "HorizontalPodAutoscaler")
        names = [one["pods"]["metric"]["name"] for one in autoscaler["spec"]["metrics"] if one["type"] == "Pods"]
        assert all(re.search(rf"^{name} [\d.]+$", metrics.text, re.MULTILINE) for name in names)
        written = [path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(tiny_release)]
        pod.process.send_signal(signal.SIGTERM)
        assert pod.process.wait(timeout=PATIENCE_S) == 0
        mounts = [root / mount["mountPath"].lstrip("/") for mount in pod.container["volumeMounts"]]
        assert [path for path in written if path != root / "log" and path.parent not in mounts] == []


@pytest.mark.redis
def test_a_pod_that_is_evicted_while_releases_change_ends_as_any_other(
    tmp_path: Path, redis: RedisServer, tiny_release: Path
) -> None:
    releases = tmp_path / "releases"
    folders = [named_copy(tiny_release / "current", releases, name) for name in ("first", "second")]
    point(releases, "first")
    root = tmp_path / "pod"
    root.mkdir()
    values = over(case("claim"), {"settings": {"ISRF_WATCH_RELEASES_S": 0.01}})
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            for name in ("second", "first"):
                point(releases, name)
                ended.wait(0.3)

    changing = threading.Thread(target=change)
    with running(values, root, redis, releases) as pod:
        changing.start()
        try:
            other = id_of(folders[1])
            wait_until(lambda: pod.probe("readinessProbe").json()["release_id"] == other, what="another release")
            for _ in range(20):
                assert pod.probe("readinessProbe").status_code == 200, "a pod that opens a release stays ready"
                assert pod.get("/popular?n=1").status_code == 200
            pod.process.send_signal(signal.SIGTERM)
            assert pod.process.wait(timeout=PATIENCE_S) == 0
        finally:
            ended.set()
            changing.join()


def point(releases: Path, name: str) -> None:
    """Switches `current` as the offline job does."""
    link = releases / "next"
    link.symlink_to(name)
    link.replace(releases / "current")
