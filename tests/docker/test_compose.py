"""The compose files, without an engine: they are what the specification allows, and what this service needs."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml

from service.__main__ import GRACE_S
from service.settings import SECRETS, Settings
from tests.docker.dockerfile import environment, last, read_stages
from tests.service.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
OURS = {"keys", "service", "demo", "train"}
FORM = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As compose lays one file over another, for what these two hold."""
    found = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = merged(found[name], value) if both else value
    return found


PLAIN = read("docker-compose.yml")
GPU = merged(PLAIN, read("docker-compose.gpu.yaml"))
SERVICES: dict[str, dict[str, Any]] = PLAIN["services"]
EVERY = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.parametrize("content", [PLAIN, read("docker-compose.gpu.yaml"), GPU], ids=["plain", "overlay", "both"])
def test_it_is_a_compose_file(content: dict[str, Any]) -> None:
    jsonschema.validate(content, FORM)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(content, {"services": {"service": {"read_olny": True}}}), FORM)


@EVERY
def test_everything_runs_with_as_little_as_it_can(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in one["security_opt"]
    assert one["init"] is True
    assert one.get("privileged", False) is False
    if name == "llm":
        return  # the vendor's image writes where it likes
    assert one["read_only"] is True
    if name not in OURS:
        uid = one["user"].split(":")[0]
        assert uid.isdigit()
        assert uid != "0"


@EVERY
def test_nothing_is_open_to_other_machines(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.match(r"127\.0\.0\.1:", port), port
    if name == "redis":
        assert "ports" not in SERVICES[name]
        assert PLAIN["networks"][SERVICES[name]["networks"][0]] == {"internal": True}


@EVERY
def test_images_are_pinned(name: str) -> None:
    for services in (SERVICES, GPU["services"]):
        tag, _, digest = _default(services[name]["image"]).split(":", 1)[1].partition("@")
        assert re.search(r"\d+\.\d+\.\d+", tag), tag
        # Ours are built here, of a base with a digest.
        assert bool(re.fullmatch(r"sha256:[0-9a-f]{64}", digest)) == (name not in OURS), services[name]["image"]
    if name in OURS:
        build = SERVICES[name]["build"]
        arguments = {
            rest.split("=")[0] for rest in re.findall(r"^ARG (.*)$", (ROOT / build["dockerfile"]).read_text(), re.M)
        }
        assert set(GPU["services"][name]["build"]["args"]) <= arguments
        assert (ROOT / build["dockerfile"]).is_file()


@EVERY
def test_what_it_mounts_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
        elif not source.startswith("${"):
            assert source in PLAIN["volumes"], source


@EVERY
def test_what_stays_up_is_watched_and_given_time(name: str) -> None:
    one = SERVICES[name]
    if one.get("restart") == "unless-stopped":
        assert one["healthcheck"]["test"][0] == "CMD"
        assert "stop_grace_period" in one


def test_the_service_has_time_to_drain() -> None:
    assert int(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > GRACE_S + 5
    assert "/readyz" in SERVICES["service"]["healthcheck"]["test"][-1]


def test_the_services_settings_are_settings() -> None:
    image = environment(read_stages(ROOT / "docker/service.Dockerfile")[-1])
    told = image | SERVICES["service"]["environment"]
    known = {f"ISRF_{name}".upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS}
    assert {name for name in told if name.startswith("ISRF_")} <= known
    values = {
        name.removeprefix("ISRF_").lower(): _default(value)
        for name, value in told.items()
        if (name.startswith("ISRF") and not name.endswith("_FILE")) or name == "ISRF_API_KEYS_FILE"
    }
    settings = Settings.model_validate(values)
    assert settings.bind_port == int(SERVICES["service"]["ports"][0].split(":")[-1])
    targets = read("docker/prometheus/prometheus.yaml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"service:{settings.metrics_port}"]
    mounted = [volume.split(":")[1] for volume in SERVICES["service"]["volumes"]]
    assert str(settings.releases_dir) in mounted
    assert str(settings.api_keys_file.parent) in mounted if settings.api_keys_file else False


def _default(value: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_profiles_leave_the_shop_with_what_it_needs() -> None:
    always = {name for name, one in SERVICES.items() if "profiles" not in one}
    assert always == {"redis", "keys", "demo", "service"}
    assert {one["profiles"][0] for one in SERVICES.values() if "profiles" in one} == {"train", "llm", "observability"}
    for one in SERVICES.values():
        for other in one.get("depends_on", []):
            assert set(SERVICES[other].get("profiles", [])) <= set(one.get("profiles", []))


def make_secrets(home: Path) -> None:
    """What the one-shot `keys` runs, by a shell, in a home of the test's."""
    keys = SERVICES["keys"]
    assert keys["entrypoint"] == ["sh", "-euc"]
    file = environment(read_stages(ROOT / "docker/service.Dockerfile")[-1])["ISRF_API_KEYS_FILE"]
    for mount in keys["volumes"]:
        (home / Path(mount.split(":")[1]).name).mkdir(exist_ok=True)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "ISRF_API_KEYS_FILE": file.replace("/var/lib/isrf", str(home)),
    }
    (script,) = keys["command"]
    ended = subprocess.run(
        [*keys["entrypoint"], script.replace("$$", "$")],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    made = [(home / "secrets" / name).read_text().strip() for name in ("erasure.key", "redis.url")]
    assert not any(one and one in ended.stdout + ended.stderr for one in made), "no secret is in the log"


def test_secrets_are_made_once_where_they_are_looked_for(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    first = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    make_secrets(tmp_path)
    assert {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == first
    names = {str(name) for name in first}
    assert names == {
        "keys/keys.json",
        "keys/shop.key",
        "secrets/erasure.key",
        "secrets/redis.conf",
        "secrets/redis.url",
        "secrets/shopify.secret",
        "secrets/woocommerce.secret",
    }
    assert first[Path("secrets/shopify.secret")] == first[Path("secrets/woocommerce.secret")] == "", "webhooks are off"
    assert first[Path("keys/shop.key")].startswith("isrf_")
    assert len(json.loads(first[Path("keys/keys.json")])["keys"]) == 1
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in names}
    # Redis reads its own as one of the group; the erasure key is none of its business.
    assert modes.pop("secrets/redis.conf") == 0o640
    assert set(modes.values()) == {0o600}
    group = read_stages(ROOT / "docker/service.Dockerfile")[-1]
    assert SERVICES["redis"]["group_add"] == [last(group, "USER").split(":")[1]]


def test_an_erasure_key_that_was_left_empty_stays_empty(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "secrets" / "erasure.key").write_text("")
    make_secrets(tmp_path)
    assert (tmp_path / "secrets" / "erasure.key").read_text() == ""


@pytest.mark.parametrize("name", ["service", "train"])
def test_secrets_stand_in_files_that_are_mounted(name: str, tmp_path: Path) -> None:
    one = SERVICES[name]
    files = {variable: value for variable, value in one["environment"].items() if variable.endswith("_FILE")}
    needed = SECRETS if name == "service" else {"REDIS_URL", "ISRF_ERASURE_KEY"}
    assert set(files) == {f"{variable}_FILE" for variable in needed}
    make_secrets(tmp_path)
    assert all((tmp_path / value.removeprefix("/var/lib/isrf/")).is_file() for value in files.values())
    assert "secrets:/var/lib/isrf/secrets:ro" in one["volumes"]
    for other in SERVICES.values():
        assert not set(SECRETS) & set(other.get("environment", {})), "no secret in `docker inspect`"


def test_redis_asks_for_its_password(tmp_path: Path) -> None:
    """A real server with the command of compose, its files where the test has them."""
    make_secrets(tmp_path)
    one = SERVICES["redis"]
    assert one["depends_on"]["keys"] == {"condition": "service_completed_successfully"}
    port = free_port()
    places = {"/etc/redis/redis.conf": str(ROOT / "docker/redis.conf"), "/run/isrf": str(tmp_path / "secrets")}

    def here(text: str) -> str:
        for there, place in places.items():
            text = text.replace(there, place)
        return text.replace("$$", "$").replace("redis-cli", f"redis-cli -p {port}")

    server = subprocess.Popen(
        [*map(here, one["command"]), "--port", str(port), "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    try:
        check = [here(part) for part in one["healthcheck"]["test"][1:]]
        wait_until(
            lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0,
            what="the health check",
            alive=lambda: server.poll() is None,
        )
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        url = (tmp_path / "secrets" / "redis.url").read_text().strip().replace("@redis:6379", f"@127.0.0.1:{port}")
        with redis.Redis.from_url(url) as ours:
            assert ours.ping()
            most = int(ours.config_get("maxmemory")["maxmemory"])
        assert 0 < most <= 0.6 * _bytes(one["mem_limit"]), "a rewrite of the append-only file needs the rest"
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode()
        assert url.split(":")[2].split("@")[0] not in command
    finally:
        server.kill()
        server.wait()


@EVERY
def test_memory_and_processes_are_bounded(name: str) -> None:
    one = SERVICES[name]
    assert _bytes(_default(one["mem_limit"])) >= 256 * 1024**2
    assert 0 < one["pids_limit"] <= 4096


def _bytes(text: str) -> int:
    return int(text[:-1]) * {"m": 1024**2, "g": 1024**3}[text[-1]]


@EVERY
def test_logs_are_bounded(name: str) -> None:
    logging = SERVICES[name]["logging"]
    assert logging["driver"] == "local"
    assert logging["options"] == {"max-size": "20m", "max-file": "5"}


def test_redis_has_the_fixes_of_its_scripting_engine() -> None:
    """CVE-2025-49844 and what was found with it: 7.4.6, 8.0.4, 8.2.2."""
    version = re.search(r":(\d+)\.(\d+)\.(\d+)-", SERVICES["redis"]["image"])
    assert version is not None
    major, minor, patch = (int(part) for part in version.groups())
    assert patch >= {(7, 4): 6, (8, 0): 4, (8, 2): 2}.get((major, minor), 0)
    assert (major, minor) >= (7, 4)


def test_redis_keeps_what_was_accepted() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["redis"]["volumes"])
    assert mounts["./docker/redis.conf"] == SERVICES["redis"]["command"][1]
    assert mounts["redis"] == "/data"
    told = dict(
        line.split(maxsplit=1) for line in (ROOT / "docker/redis.conf").read_text().splitlines() if line[:1].isalpha()
    )
    assert "include" not in told, "the password is compose's"
    assert (told["appendonly"], told["appendfsync"], told["maxmemory-policy"]) == ("yes", "always", "noeviction")
    assert "save" in told


def test_gpus_are_reserved_where_they_are_used() -> None:
    for name in ("service", "demo", "train", "llm"):
        (device,) = GPU["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
