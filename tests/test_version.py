"""The version stands once for the packages and once for the client, and everything else has it from there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import isrf_client
import pytest
import yaml

import isrf
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[1]
METADATA = "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('.'))"


@pytest.mark.parametrize(
    ("folder", "files", "version"),
    [
        (".", ("pyproject.toml", "README.md", "LICENSE", "isrf/__init__.py"), isrf.__version__),
        (
            "clients/python",
            ("pyproject.toml", "README.md", "LICENSE", "isrf_client/version.py"),
            isrf_client.__version__,
        ),
    ],
)
def test_a_package_is_built_with_its_version(folder: str, files: tuple[str, ...], version: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / folder / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", METADATA], cwd=tmp_path, capture_output=True, text=True, check=True, env={}
    )
    metadata = (tmp_path / done.stdout.splitlines()[-1] / "METADATA").read_text(encoding="utf-8")
    assert re.findall(r"^Version: (.*)$", metadata, re.MULTILINE) == [version]


def test_the_api_says_the_version() -> None:
    assert create_app(Settings()).openapi()["info"]["version"] == isrf.__version__


def test_our_images_are_tagged_with_the_version() -> None:
    tags = set()
    for name in ("docker-compose.yml", "docker-compose.gpu.yaml"):
        for service in yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["services"].values():
            image, _, tag = service.get("image", "").partition(":")
            if image.startswith("isrf-"):
                tags.add(tag.removesuffix("-gpu"))
    assert tags == {isrf.__version__}
