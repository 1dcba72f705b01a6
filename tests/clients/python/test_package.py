"""The client as an index gets it: an sdist, and the wheel that is built from it, by setuptools without a network."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import isrf_client
import pytest
from packaging.metadata import Metadata

SOURCE = Path(isrf_client.__file__).parents[1]
MODULES = {f"isrf_client/{path.name}" for path in SOURCE.glob("isrf_client/*.py")}
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def built(kind: str, source: Path, target: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel, which `python -m build` makes in the same order."""
    folder = tmp_path_factory.mktemp("client")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(SOURCE, folder / "source", ignore=ignored)
    sdist = built("sdist", folder / "source", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (root,) = (folder / "unpacked").iterdir()
    return sdist, built("wheel", root, folder)


def test_the_names_are_those_of_an_index(distributions: tuple[Path, Path]) -> None:
    version = isrf_client.__version__
    assert [path.name for path in distributions] == [
        f"isrf_client-{version}.tar.gz",
        f"isrf_client-{version}-py3-none-any.whl",
    ]


def test_both_hold_the_modules_their_types_and_the_license(distributions: tuple[Path, Path]) -> None:
    sdist, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert files == {*MODULES, "isrf_client/py.typed"}
        (license_name,) = (name for name in archive.namelist() if name.endswith("LICENSE"))
        assert archive.read(license_name) == (SOURCE.parents[1] / "LICENSE").read_bytes()
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {*MODULES, "isrf_client/py.typed", "README.md", "LICENSE", "pyproject.toml", "PKG-INFO"} <= held


def test_the_metadata_is_valid_and_names_httpx_alone(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Metadata.from_email(archive.read(name), validate=True)
    assert (metadata.name, str(metadata.version)) == ("isrf-client", isrf_client.__version__)
    assert metadata.license_expression == "Apache-2.0"
    assert str(metadata.requires_python) == ">=3.11"
    assert [str(one) for one in metadata.requires_dist or []] == ["httpx<1,>=0.28"]
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (SOURCE / "README.md").read_text(encoding="utf-8")
    assert "Typing :: Typed" in (metadata.classifiers or [])


def test_the_wheel_works_where_nothing_else_of_ours_is(distributions: tuple[Path, Path]) -> None:
    code = (
        "import isrf_client, sys; isrf_client.Client('http://127.0.0.1:1'); print(isrf_client.__file__, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=distributions[1].parent,
        env={"PYTHONPATH": str(distributions[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    where, *loaded = done.stdout.split()
    assert where.startswith(str(distributions[1]))
    assert not {name.partition(".")[0] for name in loaded} & {"isrf", "service", "offline", "numpy", "pydantic"}
