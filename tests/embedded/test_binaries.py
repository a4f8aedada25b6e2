"""Where PostgreSQL's programs are looked for, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from piecework.base.errors import EmbeddedError
from piecework.store.embedded import acquire, binaries


def programs(folder: Path, version: str = "18.1") -> Path:
    """Programs that know nothing but their version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def wheel(site: Path, name: str) -> Path:
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("raise AssertionError('a wheel is looked for, not imported')\n")
    return programs(site / name / "pginstall" / "bin")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, no wheel, no PostgreSQL of the system."""
    monkeypatch.delenv("PIECEWORK_POSTGRES_BIN", raising=False)
    monkeypatch.setattr(binaries, "WHEELS", ("some_pg_wheel", "other_pg_wheel"))
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", (f"{tmp_path}/system/*/bin",))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def test_a_machine_without_postgresql_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r'no PostgreSQL 15 or newer .*`pip install "piecework\[quickstart\]"`'):
        acquire(tmp_path / "home")


def test_the_argument_wins_over_the_environment_and_that_over_a_wheel_and_that_over_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = programs(tmp_path / "system" / "18" / "bin")
    assert binaries.find() == system
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    second = wheel(tmp_path / "site", "other_pg_wheel")
    assert binaries.find() == second
    first = wheel(tmp_path / "site", "some_pg_wheel")
    assert binaries.find() == first
    environment = programs(tmp_path / "environment")
    monkeypatch.setenv("PIECEWORK_POSTGRES_BIN", str(environment))
    assert binaries.find() == environment
    argument = programs(tmp_path / "argument")
    assert binaries.find(argument) == argument


def test_the_newest_of_the_system_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    programs(tmp_path / "system" / "14" / "bin", "14.9")
    with pytest.raises(EmbeddedError, match="no PostgreSQL 15 or newer"):
        binaries.find()
    programs(tmp_path / "system" / "9" / "bin", "9.6.1")
    programs(tmp_path / "system" / "16" / "bin", "16.3 (Debian 16.3-1)")
    newest = programs(tmp_path / "system" / "17" / "bin", "17.0")
    assert binaries.find() == newest


def test_an_installation_that_pg_config_knows_is_found(tmp_path: Path) -> None:
    found = programs(tmp_path / "elsewhere")
    (tmp_path / "path").mkdir()
    config = tmp_path / "path" / "pg_config"
    config.write_text(f"#!/bin/sh\necho {found}\n")
    config.chmod(0o755)
    assert binaries.find() == found


def test_a_setting_that_names_no_programs_is_refused_even_if_others_are_found(tmp_path: Path) -> None:
    programs(tmp_path / "system" / "18" / "bin")
    with pytest.raises(EmbeddedError, match=r"nowhere that was set .* does not hold `postgres` and `initdb`"):
        binaries.find(tmp_path / "nowhere")


def test_programs_that_are_too_old_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="is PostgreSQL 14; piecework needs 15 or newer"):
        binaries.version(programs(tmp_path / "old", "14.9"))


def test_programs_that_do_not_run_are_refused(tmp_path: Path) -> None:
    broken = programs(tmp_path / "broken")
    (broken / "postgres").write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    with pytest.raises(EmbeddedError, match="does not run: no such library"):
        binaries.version(broken)
