"""Small real environments, installed by pip from wheels in a folder; nothing asks the network."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.flows.environments import Environment, build_environment, environment_key
from pipeline.flows.requirements import Requirements
from pipeline.manifest import digest_folder


def wheel(folder: Path, name: str, version: str, *, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}/__init__.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, content)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    wheel(folder, "first", "1.0", requires="second<2")
    wheel(folder, "second", "1.5")
    wheel(folder, "second", "2.0")
    return folder


def wanted(*packages: str) -> Requirements:
    return Requirements(python="", packages=packages)


def digest(environment: Environment) -> object:
    return digest_folder(environment.site_packages)


def test_it_holds_what_was_asked_for_and_nothing_of_ours(index: Path, tmp_path: Path) -> None:
    made = build_environment(wanted("first"), folder=tmp_path / "one")
    assert made.packages == ("first==1.0", "second==1.5")
    code = "import first, second, sys\ntry: import numpy\nexcept ImportError: print(first.__file__)"
    asked = subprocess.run(
        [made.python, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == str(made.site_packages / "first" / "__init__.py")
    again = build_environment(wanted("first"), folder=tmp_path / "two")
    assert again.key == made.key
    assert digest(again) == digest(made), "the same packages have the same bytes in any folder"
    assert list(made.site_packages.rglob("*.pyc"))

    (index / "first-1.0-py3-none-any.whl").unlink()
    assert build_environment(wanted("first"), folder=tmp_path / "one") == made, "made once"


@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        (("first", "second==2.0"), "second<2"),
        (("third",), "third"),
        (("source",), "source"),
    ],
    ids=["conflict", "unknown", "no wheel"],
)
def test_what_cannot_be_installed_leaves_nothing_and_says_why(
    index: Path, tmp_path: Path, packages: tuple[str, ...], reason: str
) -> None:
    (index / "source-1.0.tar.gz").write_bytes(b"whose setup code would run")
    with pytest.raises(ModelError) as raised:
        build_environment(wanted(*packages), folder=tmp_path / "made")
    assert reason in raised.value.message
    assert [path.suffix for path in (tmp_path / "made").iterdir()] == [".lock"]


def test_it_is_bounded_in_size_and_time(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"take 0\.0 GiB"):
        build_environment(wanted("second"), folder=tmp_path / "made", most_bytes=10)
    begun = time.monotonic()
    with pytest.raises(ModelError, match="longer than allowed"):
        build_environment(wanted("first"), folder=tmp_path / "made", seconds=-10)
    assert time.monotonic() - begun < 20
    assert [path.suffix for path in (tmp_path / "made").iterdir()] == [".lock"] * 2


def test_a_python_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Python 3\.2, and there is no python3\.2"):
        build_environment(Requirements(python="3.2", packages=()), folder=tmp_path)


def test_the_key_names_everything_that_is_asked_for() -> None:
    python = Path(sys.executable)
    key = environment_key(wanted("first"), python)
    bounded = Requirements(python="", packages=("first",), constraints=("second<2",))
    assert key == environment_key(wanted("first"), python)
    assert key not in {environment_key(other, python) for other in (wanted("second"), bounded)}
