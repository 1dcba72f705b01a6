"""The compose files, without an engine: they are what the specification allows, and what this service needs."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.__main__ import GRACE_S
from service.doors.command import main as keys_command
from service.settings import SECRETS, Settings
from tests.docker.dockerfile import environment, read_stages

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
        tag = services[name]["image"].split(":", 1)[1]
        assert re.search(r"\d+\.\d+\.\d+", tag), tag
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
    known = {f"ISRF_{name}".upper() for name in Settings.model_fields} | set(SECRETS)
    assert {name for name in told if name.startswith("ISRF_")} <= known
    values = {
        name.removeprefix("ISRF_").lower(): _default(value) for name, value in told.items() if name.startswith("ISRF")
    }
    settings = Settings(**values, redis_url=told["REDIS_URL"])
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


def test_the_key_is_made_once_where_the_service_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = environment(read_stages(ROOT / "docker/service.Dockerfile")[-1])["ISRF_API_KEYS_FILE"]
    monkeypatch.setenv("ISRF_API_KEYS_FILE", file.replace("/var/lib/isrf", str(tmp_path)))
    assert SERVICES["keys"]["entrypoint"][-1] == "keys"
    command = [part.replace("/var/lib/isrf", str(tmp_path)) for part in SERVICES["keys"]["command"]]
    for _ in range(2):
        assert keys_command(command) == 0
    shown = (tmp_path / "keys" / "shop.key").read_text()
    assert shown.startswith("isrf_")
    assert len(json.loads((tmp_path / "keys" / "keys.json").read_text())["keys"]) == 1


def test_redis_keeps_what_was_accepted() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["redis"]["volumes"])
    assert mounts["./docker/redis.conf"] == SERVICES["redis"]["command"][1]
    assert mounts["redis"] == "/data"
    told = dict(
        line.split(maxsplit=1) for line in (ROOT / "docker/redis.conf").read_text().splitlines() if line[:1].isalpha()
    )
    assert (told["appendonly"], told["appendfsync"], told["maxmemory-policy"]) == ("yes", "always", "noeviction")
    assert "save" in told


def test_gpus_are_reserved_where_they_are_used() -> None:
    for name in ("service", "demo", "train", "llm"):
        (device,) = GPU["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
