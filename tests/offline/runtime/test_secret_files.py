"""The offline job takes its secrets where the service takes them: from the environment, or from files."""

from pathlib import Path

import pytest

from isrf.contract.errors import ConfigError
from offline.runtime.secret_files import secret, store_url


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "REDIS_URL_FILE", "ISRF_ERASURE_KEY", "ISRF_ERASURE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_secret_stands_in_the_environment_or_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert secret("ISRF_ERASURE_KEY") is None
    file = tmp_path / "key"
    file.write_text("from a file\n")
    monkeypatch.setenv("ISRF_ERASURE_KEY_FILE", str(file))
    assert secret("ISRF_ERASURE_KEY") == "from a file"
    file.write_text("\n")
    assert secret("ISRF_ERASURE_KEY") is None, "an empty file is none"
    monkeypatch.setenv("ISRF_ERASURE_KEY", "from the environment")
    with pytest.raises(ConfigError) as twice:
        secret("ISRF_ERASURE_KEY")
    assert twice.value.code == "config.secret_twice"
    monkeypatch.delenv("ISRF_ERASURE_KEY_FILE")
    assert secret("ISRF_ERASURE_KEY") == "from the environment"


def test_a_file_that_cannot_be_read_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError) as missing:
        store_url("env")
    assert missing.value.code == "config.secret_file"


def test_a_store_is_named_or_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store_url("redis://shop:6379/0") == "redis://shop:6379/0"
    with pytest.raises(ConfigError) as unset:
        store_url("env")
    assert unset.value.code == "config.no_store"
    (tmp_path / "url").write_text("redis://:secret@redis:6379/0\n")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    assert store_url("env") == "redis://:secret@redis:6379/0"
