"""Makes the peers' environments in .cache/peers, each by the package client of its language, as pins.toml says."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.child import ROOT

HERE = Path(__file__).parent
HOME = ROOT / ".cache" / "peers"
PINS: Mapping[str, Mapping[str, Any]] = tomllib.loads((HERE / "pins.toml").read_text())
STAMP, LOG, REASON = "built", "build.log", "reason"
LIMIT = 1800  # seconds for one environment
STABLE_PYTHON = "3.11"


class BuildError(Exception):
    """An environment that cannot be made, in one sentence."""


def build(names: Iterable[str] = PINS, *, again: bool = True) -> dict[str, str]:
    """Make the environments that are missing or out of date; return why some could not be made.

    One that failed before is tried again only if `again` says so or its pins have changed.
    """
    failed: dict[str, str] = {}
    for name in names:
        home = HOME / name
        wanted = _wanted(name)
        if _read(home / STAMP) == wanted:
            continue
        if not again and _read(home / f"{STAMP}-failed") == wanted:
            failed[name] = _read(home / REASON)
            continue
        print(f"building {name} …", flush=True)
        _empty(home)
        try:
            _make(name, home)
        except BuildError as error:
            failed[name] = str(error)
            (home / REASON).write_text(str(error))
            (home / f"{STAMP}-failed").write_text(wanted)
            print(f"  not built: {error}", flush=True)
        else:
            (home / STAMP).write_text(wanted)
    return failed


def _empty(home: Path) -> None:
    """An empty folder, but for what cargo has compiled: it knows what of that it can use again."""
    home.mkdir(parents=True, exist_ok=True)
    for path in home.iterdir():
        if path.is_dir() and path.name != "target":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def _wanted(name: str) -> str:
    """What an environment is made from: its pins, and the source of a driver that is compiled."""
    pins = PINS[name]
    source = (HERE / "drivers" / name / pins["source"]).read_text() if "source" in pins else ""
    return f"{dict(pins)}\n{source}"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _make(name: str, home: Path) -> None:
    pins = PINS[name]
    if "pip" in pins:
        python = _python(pins.get("python", STABLE_PYTHON))
        _run(home, [python, "-m", "venv", "env"])
        _run(home, ["env/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "-q", *pins["pip"]])
    elif "npm" in pins:
        _need("npm")
        _run(home, ["npm", "init", "--yes"])
        packages = [f"{package}@{version}" for package, version in pins["npm"].items()]
        _run(home, ["npm", "install", "--no-audit", "--no-fund", "--save-exact", *packages])
    elif "go" in pins:
        _need("go")
        shutil.copy(HERE / "drivers" / name / pins["source"], home)
        _run(home, ["go", "mod", "init", f"bench/{name}"])
        _run(home, ["go", "get", *pins["go"]])
        _run(home, ["go", "build", "-o", "driver", "."])
    else:
        _need("cargo")
        _run(home, ["cargo", "init", "--quiet", "--vcs", "none", "--name", "driver", "."])
        for crate in pins["cargo"]:
            _run(home, ["cargo", "add", "--quiet", *crate.split()])
        shutil.copy(HERE / "drivers" / name / pins["source"], home / "src")
        _run(home, ["cargo", "build", "--quiet", "--release"])


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise BuildError(f"it needs `{program}`, which is not on this machine")


def _python(least: str) -> str:
    """A Python that is at least of this minor version: on the path, or among those that pyenv keeps."""
    minor = int(least.partition(".")[2])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        *(f"python3.{each}" for each in range(minor, minor + 4)),
        *(str(path) for each in range(minor, minor + 4) for path in sorted(pyenv.glob(f"3.{each}.*/bin/python3"))),
    ]
    for program in found:
        # A shim may be there without the Python that it stands for.
        if shutil.which(program) and subprocess.run([program, "-c", ""], capture_output=True).returncode == 0:
            return program
    raise BuildError(f"it needs Python {least} or later, which is not on this machine")


def _run(home: Path, command: list[str]) -> None:
    with open(home / LOG, "a") as log:
        print("$", *command, file=log, flush=True)
        try:
            done = subprocess.run(command, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise BuildError(f"`{' '.join(command[:4])}` took more than {LIMIT // 60} minutes") from None
    if done.returncode:
        lines = [line for line in (home / LOG).read_text().splitlines() if line.strip()]
        raise BuildError(f"`{' '.join(command[:4])}` failed: {lines[-1][:200]}")
