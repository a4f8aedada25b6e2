"""From `MODULE:JOBS` to the `Jobs` that it names."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from piecework.base.errors import ConfigurationError
from piecework.base.texts import shown
from piecework.jobs import Jobs


def find_jobs(target: str, also: Sequence[str] = ()) -> Jobs:
    """Import what `target` names, and the modules `also`, with the working directory on the path.

    Args:
        target: `MODULE:JOBS`, or `MODULE` alone where the module holds exactly one `Jobs`.
        also: modules whose import registers further jobs.

    Raises:
        ConfigurationError: there is no such module, or no such `Jobs` in it; says what was found.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module_name, colon, attribute = target.partition(":")
    module = _module(module_name, target)
    jobs = _attribute(module, attribute) if colon else _only_one(module)
    for name in also:
        _module(name, name)
    return jobs


def _module(name: str, given: str) -> ModuleType:
    if name.endswith(".py") or "/" in name:
        wanted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(f"{shown(given)} names a file: write it as a module, as in {wanted}:jobs")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{shown(given)} is not of the form MODULE:JOBS, as in myapp.tasks:jobs")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _broken(name, error) from error
        raise ConfigurationError(
            f"there is no module {shown(error.name)}: it was looked for in the working directory and among the "
            "installed packages. Run this in the directory that holds it"
        ) from None
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> ConfigurationError:
    """Say what went wrong in the user's module, with its own part of the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = {__file__, *(f.filename for f in frames if "importlib" in f.filename)}
    lines = traceback.format_list([frame for frame in frames if frame.filename not in ours])
    what = "".join([*lines, *traceback.format_exception_only(error)]).rstrip()
    return ConfigurationError(f"importing the module {shown(name)} failed:\n{what}")


def _attribute(module: ModuleType, path: str) -> Jobs:
    value: object = module
    for part in path.split("."):
        if not hasattr(value, part):
            raise ConfigurationError(f"the module {module.__name__!r} has no {shown(path)}: {_what_there_is(module)}")
        value = getattr(value, part)
    if not isinstance(value, Jobs):
        raise ConfigurationError(
            f"{module.__name__}:{path[:200]} is not a Jobs but of the type {type(value).__name__}: "
            f"{_what_there_is(module)}"
        )
    return value


def _only_one(module: ModuleType) -> Jobs:
    found = _all_jobs(module)
    if len({id(jobs) for jobs in found.values()}) != 1:
        raise ConfigurationError(f"say which Jobs of the module {module.__name__!r}: {_what_there_is(module)}")
    return next(iter(found.values()))


def _all_jobs(module: ModuleType) -> dict[str, Jobs]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Jobs)}


def _what_there_is(module: ModuleType) -> str:
    names = [f"{module.__name__}:{name}" for name in _all_jobs(module)]
    if names:
        return f"it holds {' and '.join(names)}"
    return "it holds no Jobs; make one with `jobs = Jobs()` at its top level"
