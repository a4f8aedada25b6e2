"""The release before, as a wheel in an environment of its own, and this one, as a copy with migrations more.

The release before is the commit that `previous.txt` names. `fixture/` is what the copy has besides: whatever migrations
this tree has are applied as well, so that a real one needs no change here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FIXTURE = ("tables", "index")


@dataclass(frozen=True)
class Release:
    """A release, and how its programs are run."""

    name: str
    python: str
    package: Path
    environment: Mapping[str, str] = field(repr=False)

    def migrate(self, dsn: str) -> str:
        """Run `piecework migrate`; returns what it said on stderr."""
        ran = subprocess.run(
            [self.python, "-m", "piecework", "migrate", "--database-url", dsn],
            cwd=HERE, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{self.name}: {ran.stdout}\n{ran.stderr}"
        return ran.stderr

    def migrations(self) -> dict[str, str]:
        """The texts of its migrations by their names."""
        return self._texts("migrations")

    def checksums(self) -> dict[str, str]:
        """Of its functions, by their names."""
        return {
            name: hashlib.sha256(text.encode()).hexdigest()[:32] for name, text in self._texts("functions").items()
        }

    def _texts(self, folder: str) -> dict[str, str]:
        return {path.stem: path.read_text() for path in sorted((self.package / "store" / folder).glob("*.sql"))}


def previous() -> Release:
    """Return the release before, built once for each commit."""
    commit = (HERE / "previous.txt").read_text().strip()
    home = ROOT / ".cache" / "upgrade" / commit
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="piecework-previous-") as folder:
            _install(_wheel(commit, Path(folder)), home)
        (home / "done").touch()
    [package] = home.glob("lib/python*/site-packages/piecework")
    return Release(f"N-1 ({commit[:7]})", str(home / "bin" / "python"), package, _environment())


def this(previous: Release, folder: Path) -> Release:
    """Return this release: a copy in the folder, with the fixture behind its migrations, and each function changed."""
    source = folder / "src"
    shutil.copytree(ROOT / "src" / "piecework", source / "piecework", ignore=shutil.ignore_patterns("__pycache__"))
    release = Release("N", sys.executable, source / "piecework", _environment() | {"PYTHONPATH": str(source)})
    _check(previous.migrations(), release.migrations())
    store = source / "piecework" / "store"
    number = len(release.migrations())
    for name in FIXTURE:
        number += 1
        text = (HERE / "fixture" / f"{name}.sql").read_text()
        text = text.replace("SUPPORTS", str(len(previous.migrations())))
        (store / "migrations" / f"{number:04}_{name}.sql").write_text(text)
    for path in (store / "functions").glob("*.sql"):
        path.write_text(path.read_text() + "-- Of the fixture.\n")
    return release


def _check(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name, text in before.items():
        assert now.get(name) == text, (
            f"the migration {name} is not what it was in the commit of tests/upgrade/previous.txt: one that was "
            "released stays as it is; before the first release, name a commit from after the change"
        )
    for name, text in now.items():
        supports = re.search(r"^-- supports: (\d+)$", text, re.MULTILINE)
        assert supports is not None, name
        assert int(supports.group(1)) <= len(before), f"{name} does not support the release before"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _wheel(commit: str, folder: Path) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    if subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True).returncode:
        raise FileNotFoundError(
            f"the release before is the commit {commit} (tests/upgrade/previous.txt), which is not in this clone: its "
            "history is needed, `git fetch --unshallow` brings it"
        )
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=archive, check=True)
    _pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(tree))
    [wheel] = folder.glob("piecework-*.whl")
    return wheel


def _install(wheel: Path, home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    _pip(str(home / "bin" / "python"), "install", f"{wheel}[binary]")


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    ran = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout}\n{ran.stderr}"
