"""Settings: by option and environment, and what cannot work is refused before anything is opened."""

from pathlib import Path

import pytest

from isrf.contract.errors import ConfigError
from service.__main__ import main
from service.settings import is_loopback, load_settings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ISRF_RELEASES_DIR", "ISRF_API_KEYS_FILE", "ISRF_WORKERS", "REDIS_URL", "ISRF_BIND_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_every_option_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ISRF_RELEASES_DIR": "/r",
        "ISRF_BIND_HOST": "::1",
        "ISRF_BIND_PORT": "9000",
        "ISRF_WORKERS": "3",
        "REDIS_URL": "redis://:secret@localhost/0",
        "ISRF_STATE_DIR": "/s",
        "ISRF_EXCLUDE_EVENTS": "cart, Rental ,",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.releases_dir, settings.state_dir) == (Path("/r"), Path("/s"))
    assert (settings.bind_host, settings.bind_port, settings.workers) == ("::1", 9000, 3)
    assert settings.exclude_events == {"cart", "rental"}
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:secret@localhost/0"
    assert ":secret@" not in repr(settings)


def test_an_option_stands_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISRF_BIND_PORT", "9000")
    assert load_settings(bind_port="9001").bind_port == 9001


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ({"bind_host": "0.0.0.0"}, "config.bind_without_keys"),
        ({"bind_host": "example.org"}, "config.bind_without_keys"),
        ({"bind_host": "::"}, "config.bind_without_keys"),
        ({"rate_limit": "often"}, "config.invalid"),
        ({"rate_limit": "0/second"}, "config.invalid"),
        ({"cors_origins": "*"}, "config.invalid"),
        ({"cors_origins": "https://shop.example/page"}, "config.invalid"),
        ({"workers": 2}, "config.embedded_workers"),
        ({"workers": 0}, "config.invalid"),
        ({"bind_port": "70000"}, "config.invalid"),
        ({"bind_port": "x"}, "config.invalid"),
        ({"log_level": "LOUD"}, "config.invalid"),
        ({"exclude_events": "cart,nan"}, "config.invalid"),
        ({"exclude_events": "x" * 65}, "config.invalid"),
        ({"exclude_events": "Remove"}, "config.invalid"),
        ({"exclude_events": "dislike"}, "config.invalid"),
        ({"exclude_events": "history"}, "config.invalid"),
    ],
)
def test_what_cannot_work_is_refused(setting: dict[str, object], code: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(**setting)
    assert refused.value.code == code
    assert refused.value.fix


def test_a_refused_setting_ends_the_command_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "0.0.0.0"]) == 2
    assert "config.bind_without_keys" in capsys.readouterr().err


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", ""]))
