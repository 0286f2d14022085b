"""The shape of the package: which folder may know which, and who may name what.

A folder's ``__init__.py`` says in its docstring what the folder may import.
"""

from __future__ import annotations

import ast
import graphlib
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import opencode_trio

ROOT = Path(opencode_trio.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FOLDERS = sorted(path for path in ROOT.iterdir() if path.name.startswith("_") and path.is_dir())
FOLDERS = [path for path in FOLDERS if (path / "__init__.py").exists()]

# What computes does without: the event loop, the network, the environment and the clock.
PURE = ["_protocol", "_turn", "events.py", "results.py", "errors.py", "config.py", "asks.py"]
IMPURE = {"trio", "httpx", "httpx_sse", "time", "subprocess", "socket"}
IMPURE_NAMES = {"os.environ", "os.environb", "os.getenv"}

# The one module that may import these.
SOLE_USERS = {"httpx": "_server/http.py", "httpx_sse": "_server/http.py"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path, *, typing_too: bool = True) -> Iterator[str]:
    """Yield the full name of everything that a file imports, wherever in it."""
    inside = [ROOT.name, *path.relative_to(ROOT).parts[:-1]]
    tree = ast.parse(path.read_text("utf-8"))
    if not typing_too:
        tree = WithoutTyping().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


class WithoutTyping(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        test = ast.unparse(node.test)
        return None if test.endswith("TYPE_CHECKING") else self.generic_visit(node)


def own_imports(path: Path, *, typing_too: bool = True) -> set[str]:
    """Return the modules of the package that a file imports."""
    found = set()
    for name in imports(path, typing_too=typing_too):
        if name == ROOT.name or not name.startswith(f"{ROOT.name}."):
            continue
        parts = name.split(".")[1:]
        candidates = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        found.add(next((module for module in candidates if module in MODULES), "__init__"))
    return found - {module_of(path)}


def allowed(folder: Path) -> set[str]:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    found = re.search(r"May import: (.*?)\.(?:\n|$)", text, re.DOTALL)
    assert found is not None, f"{folder.name} does not say what it may import"
    return set(re.split(r",\s*", " ".join(found[1].split())))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_imports_what_it_says(folder: Path) -> None:
    may = allowed(folder)
    for path in folder.rglob("*.py"):
        tops = {name.split(".")[0] for name in own_imports(path)} - {folder.name}
        if may != {"everything"}:
            assert tops <= may, f"{name_of(path)} imports {sorted(tops - may)}"


def test_nobody_imports_more_than_it_says_in_vain() -> None:
    for folder in FOLDERS:
        used = {name.split(".")[0] for path in folder.rglob("*.py") for name in own_imports(path)}
        may = allowed(folder)
        if may != {"everything"}:
            assert may <= used, f"{folder.name} needs no {sorted(may - used)}"


def test_no_cycle_of_imports() -> None:
    graph = {module: own_imports(path, typing_too=False) for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_top_holds_what_programs_import() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 16


@pytest.mark.parametrize(
    "path", [path for path in FILES if name_of(path).split("/")[0] in PURE], ids=name_of
)
def test_what_computes_does_nothing_else(path: Path) -> None:
    imported = set(imports(path))
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    assert {name for name in imported if name.split(".")[0] in IMPURE} == set()
    assert (imported | used) & IMPURE_NAMES == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_httpx_has_one_user(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)}
    users = {SOLE_USERS[name] for name in outside & set(SOLE_USERS)}
    assert users <= {name_of(path)}


def test_the_warden_needs_only_the_standard_library() -> None:
    """It is started without site-packages."""
    outside = {name.split(".")[0] for name in imports(ROOT / "_process" / "warden.py")}
    assert outside <= sys.stdlib_module_names


# --- what is of one line of opencode ------------------------------------------------------------

ROUTES = re.compile(r"/(session|global|event|permission|question|config|agent|api)\b")
WIRE_TYPES = re.compile(r"(session|message|permission|question|server|todo|global)\.[a-z.]+")
AGENTS_AND_TOOLS = {"build", "plan", "bash", "task", "question", "todowrite", "StructuredOutput"}
# The environment, the settings file and the names of tools in settings are still of 1.x outside
# of `_protocol/`, in these.
STILL_OF_1X = {"_checks.py"}


def strings(path: Path) -> Iterator[str]:
    """Yield the strings of a file, but for docstrings."""
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        is_statement = previous in {tokenize.NEWLINE, tokenize.INDENT, tokenize.NL}
        if token.type == tokenize.STRING and not is_statement:
            yield token.string.strip("rbfRBF\"'")
        if token.type != tokenize.COMMENT:
            previous = token.type


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in FILES
        if not name_of(path).startswith(("_protocol/", "testing/"))
        and name_of(path) not in STILL_OF_1X
    ],
    ids=name_of,
)
def test_nobody_else_names_what_is_of_one_line(path: Path) -> None:
    named = {
        text
        for text in strings(path)
        if ROUTES.fullmatch(text.split("{")[0].rstrip("/"))
        or WIRE_TYPES.fullmatch(text)
        or text in AGENTS_AND_TOOLS
    }
    assert named == set()


def test_private_names_in_backticks_exist() -> None:
    code = {path: path.read_text("utf-8") for path in FILES}
    known = {part for name in MODULES for part in name.split(".")}
    for text in code.values():
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        known |= {token.string for token in tokens if token.type == tokenize.NAME}
    named = {
        (name_of(path), name)
        for path, text in code.items()
        for name in re.findall(r"(?<!`)`((?:[a-z]+\.)?_[a-z_.]+)`(?!`)", text)
    }
    assert {
        (where, name) for where, name in named if not known.issuperset(name.split("."))
    } == set()


def test_no_two_modules_say_that_they_are_the_same() -> None:
    said = Counter(
        (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]
        for path in FILES
    )
    assert [line for line, times in said.items() if times > 1] == []


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    every = function.args
    named = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
    return {argument.arg for argument in named if argument}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_docstrings_name_arguments_that_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        functions = [node] if not isinstance(node, ast.ClassDef) else node.body
        known = {
            name
            for function in functions
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            and (function is node or function.name == "__init__")
            for name in arguments_of(function)
        }
        if isinstance(node, ast.ClassDef):
            known |= {
                line.target.id
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            }
        section = re.search(
            r"^Args:\n((?: {4}.*\n?|\n)+)", ast.get_docstring(node) or "", re.MULTILINE
        )
        told = re.findall(r"^ {4}([\w, ]+):", section[1], re.MULTILINE) if section else []
        assert {name.strip() for names in told for name in names.split(",")} <= known, node.name
