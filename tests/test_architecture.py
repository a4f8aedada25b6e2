"""The house rules that a reader would otherwise have to watch: floors, sizes, the front door, SQL in files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "piecework"
STORE = PACKAGE / "store"

FILE_LINES, FILE_LINES_HARD = 300, 400
FUNCTION_LINES = 40
PARAMETERS = 7

# What is over a limit, by name, with its size of today. An entry may only shrink, and goes when it is not needed.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
WIDE_FUNCTIONS: dict[str, int] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions() -> Iterator[tuple[str, Function]]:
    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    for path in modules():
        yield from walk(ast.parse(path.read_text()), f"{name_of(path)}:")


def lines(function: Function) -> int:
    """From `def` to the end, less the docstring: saying what is promised costs nothing."""
    count = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        count -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return count


def parameters(function: Function) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return sum(1 for each in named if each is not None and each.arg not in ("self", "cls"))


def is_overload(function: Function) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "overload" for each in function.decorator_list)


def over(sizes: dict[str, int], limit: int) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size > limit}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_arrow_between_the_floors_points_down() -> None:
    lint = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_a_process_that_only_spawns_imports_no_loop() -> None:
    names = "import piecework, sys; print(*sorted(n for n in sys.modules if n.startswith('piecework.')))"
    imported = run(sys.executable, "-c", names).stdout.split()
    assert "piecework.jobs" in imported
    assert [name for name in imported if name.split(".")[1] in ("engine", "cli", "testing")] == []


def test_a_file_stays_near_300_lines() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in modules()}
    assert over(sizes, FILE_LINES) == LONG_FILES
    assert over(sizes, FILE_LINES_HARD) == {}


def test_a_function_stays_near_40_lines() -> None:
    sizes = {name: lines(function) for name, function in functions()}
    assert over(sizes, FUNCTION_LINES) == LONG_FUNCTIONS


def test_a_signature_stays_near_7_parameters() -> None:
    sizes = {name: parameters(function) for name, function in functions() if not is_overload(function)}
    assert over(sizes, PARAMETERS) == WIDE_FUNCTIONS


def test_the_front_door_re_exports_sorted_names_and_nothing_else() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    exported: list[str] = []
    listed: list[str] = []
    for node in tree.body:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.ImportFrom(module="__future__"):
                pass
            case ast.ImportFrom(names=names):
                exported += [each.asname or each.name for each in names]
                assert all(each.asname == each.name for each in names), f"line {node.lineno}: write `import X as X`"
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=elements)):
                listed = [ast.literal_eval(each) for each in elements]
            case _:
                pytest.fail(f"line {node.lineno} of piecework/__init__.py does something: {ast.unparse(node)}")
    assert listed, "piecework/__init__.py has no __all__"
    assert listed == sorted(listed)
    assert listed == sorted(exported)


# SQL ----------------------------------------------------------------------------------------------------------------


CREATE_FUNCTION = r"CREATE OR REPLACE FUNCTION /\*schema\.\*/"


def sql_files(folder: str) -> list[Path]:
    found = sorted((STORE / folder).glob("*.sql"))
    assert found, f"no SQL files in store/{folder}"
    return found


def header(path: Path) -> str:
    """The comment lines at the top of the file, without the dashes."""
    comment = re.match(r"(--[^\n]*\n)*", path.read_text())
    assert comment is not None
    return "\n".join(line.removeprefix("--").strip() for line in comment.group().splitlines())


def body(path: Path) -> str:
    """The file without its comments; schema tokens stay."""
    return re.sub(r"--[^\n]*", "", path.read_text())


def declared_parameters(path: Path) -> list[tuple[str, str]]:
    """(name, type) of each parameter of the header, in order."""
    section = re.search(r"^params:(.*?)(^returns:|\Z)", header(path), re.DOTALL | re.MULTILINE)
    if section is None:
        return []
    found = re.findall(r"\$(\d+)\s+(\w+)\s+([\w \[\]]*[\w\]])", section.group(1))
    assert [int(number) for number, _, _ in found] == list(range(1, len(found) + 1)), path.name
    return [(name, kind) for _, name, kind in found]


def test_every_sql_statement_says_what_it_does_and_what_it_returns() -> None:
    for path in [*sql_files("sql"), *sql_files("functions")]:
        assert re.match(r"[A-Z]\w*[ ,]", header(path)), f"{path.name}: its first line says what it does"
        if re.match(r"\s*(SELECT|WITH)\b|.*\bRETURN(S|ING)\b", body(path), re.DOTALL):
            assert re.search(r"^returns: ", header(path), re.MULTILINE), f"{path.name}: needs a line `-- returns:`"


def test_the_parameters_in_a_header_are_those_of_the_statement() -> None:
    for path in sql_files("sql"):
        used = {int(number) for number in re.findall(r"\$(\d+)", body(path))}
        assert used == set(range(1, len(declared_parameters(path)) + 1)), path.name


def test_the_parameters_in_a_header_are_those_of_the_function() -> None:
    for path in sql_files("functions"):
        signature = re.search(rf"{CREATE_FUNCTION}(\w+)\((.*?)\)\s*RETURNS", body(path), re.DOTALL)
        assert signature is not None, f"{path.name}: not a CREATE OR REPLACE FUNCTION /*schema.*/…"
        assert signature.group(1) == path.stem
        arguments = re.findall(r"p_(\w+) ([\w \[\]]+)", signature.group(2))
        assert arguments == declared_parameters(path), path.name


def test_an_sql_file_holds_one_statement() -> None:
    for path in [*sql_files("sql"), *sql_files("functions")]:
        bare = re.sub(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", "''", body(path), flags=re.DOTALL)
        assert len([each for each in bare.split(";") if each.strip()]) == 1, path.name


def test_every_sql_statement_is_called_and_every_call_has_its_statement() -> None:
    called: set[str] = set()
    for path in STORE.glob("*.py"):
        called.update(re.findall(r"\b(?:sql|value|rows|_run|printed|Request)\(\s*\"(\w+)\"", path.read_text()))
    assert called == {path.stem for path in sql_files("sql")}


def test_every_sql_function_is_called() -> None:
    texts = [body(path) for folder in ("sql", "functions", "migrations") for path in sql_files(folder)]
    calls = "\n".join(re.sub(rf"{CREATE_FUNCTION}\w+", "", text) for text in texts)
    for path in sql_files("functions"):
        if re.search(r"_\d+$", path.stem):  # without a version it is for users
            assert re.search(rf"\b{path.stem}\(", calls), f"{path.name} has no caller"


def test_no_sql_is_written_in_python() -> None:
    verbs = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|WITH|CALL|SET|BEGIN|COMMIT)\b")
    for path in modules():
        if path.is_relative_to(STORE / "embedded"):
            continue  # it speaks to a server that has no schema yet
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not verbs.match(node.value), f"{name_of(path)}:{node.lineno}"
