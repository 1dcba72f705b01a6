"""The Secret that the chart makes: once, with keys that the service takes, and kept by every upgrade."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helm_python import Config

from service.auth.keys import KeyRing
from service.settings import load_settings
from tests.deploy.chart import NAMESPACE, RELEASE, KubernetesObject, Values, case, chart, objects_in, one, over, render

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets/"


class ApiServer(ThreadingHTTPServer):
    """What Helm's `lookup` asks of a cluster: which resources there are, and Secrets by their name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ApiCalls)
        self.secrets: dict[str, KubernetesObject] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class ApiCalls(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found: dict[str, Any] | None = None
        if path == "/api/v1":
            resource = {"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
            found = {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]}
        elif path.startswith(SECRETS):
            found = self.server.secrets.get(path.removeprefix(SECRETS))
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(found or missing).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No log."""


@pytest.fixture
def cluster() -> Iterator[ApiServer]:
    server = ApiServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def upgrade(cluster: ApiServer, values: Values) -> KubernetesObject:
    """The Secret of an upgrade, stored in the cluster."""
    with Config(kube_apiserver=cluster.url, namespace=NAMESPACE) as config:
        files = config.render(chart(), values, name=RELEASE, namespace=NAMESPACE, is_upgrade=True)
    secret = one(list(objects_in(files)), "Secret")
    cluster.secrets[secret["metadata"]["name"]] = secret
    return secret


def decoded(secret: KubernetesObject) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def test_the_service_takes_the_made_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = decoded(one(render(case("object-store")), "Secret"))
    assert set(made) == {"erasure.key", "keys.json", "shop.key"}
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    entry = KeyRing(tmp_path / "keys.json").find(made["shop.key"].encode())
    assert entry is not None
    assert (entry.role, entry.name) == ("write", "shop")
    assert made["shop.key"].startswith(f"isrf_{entry.id}_")
    monkeypatch.setenv("ISRF_ERASURE_KEY_FILE", str(tmp_path / "erasure.key"))
    settings = load_settings()
    assert settings.erasure_key is not None
    assert settings.erasure_key.get_secret_value() == made["erasure.key"]


def test_no_two_installations_share_a_secret() -> None:
    first, second = (decoded(one(render(case("object-store")), "Secret")) for _ in range(2))
    assert not set(first.values()) & set(second.values())
    assert all(len(made["erasure.key"]) >= 43 for made in (first, second))


def test_an_upgrade_keeps_what_was_made(cluster: ApiServer) -> None:
    first = upgrade(cluster, case("object-store"))
    assert upgrade(cluster, over(case("object-store"), {"replicas": 5}))["data"] == first["data"]


def test_an_upgrade_keeps_what_an_operator_changed(cluster: ApiServer) -> None:
    name = upgrade(cluster, case("object-store"))["metadata"]["name"]
    changed = base64.b64encode(b'{"keys": []}').decode()
    cluster.secrets[name]["data"] |= {"keys.json": changed, "admin.key": changed}
    kept = upgrade(cluster, case("object-store"))["data"]
    assert kept == cluster.secrets[name]["data"]
    assert kept["admin.key"] == changed


def test_a_key_of_the_shops_own_leaves_the_other_as_it_was(cluster: ApiServer) -> None:
    first = decoded(upgrade(cluster, case("object-store")))
    after = decoded(upgrade(cluster, over(case("object-store"), {"apiKeys": {"existingSecret": "shop-keys"}})))
    assert after["erasure.key"] == first["erasure.key"]


def test_nothing_is_made_where_both_are_brought() -> None:
    assert [each["kind"] for each in render(case("everything")) if each["kind"] == "Secret"] == []


def test_the_made_secret_outlives_the_release() -> None:
    for kind, name in (("Secret", "object-store"), ("PersistentVolumeClaim", "ray-job")):
        kept = one(render(case(name)), kind)["metadata"]["annotations"]
        assert kept["helm.sh/resource-policy"] == "keep"
