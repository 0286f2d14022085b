"""The shape of the package: which module may know which.

Face, swarm, session, server, processes, pure core: each layer uses those below it, never one
above, and the pure core does nothing but compute.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import opencode_trio

# From the bottom up: a layer, then modules of it; a layer may take several lines.  A package
# (`testing`) counts as one module.  A new module needs a place here.
TABLE = """
core       _activity _budget asks config errors events results _structured
core       _asked _bus_wire _deltas _json _lines _parts _run_wire
core       _diffs _fold _guard _live _reconcile _run_end _tree _tree_guard _turn _verdict
core       _history _lane _span _span_titles
core       _checks _child_env _command _endpoints _host_config _ids _rules _schema _scopes
core       _redact _typevars _untrusted
processes  _background _binary _claims _eventlog _files _group _isolation _keeper _known_secrets _output
processes  _process _project_files _run _scratch
processes  _surroundings _timeout _trio_run _warden _warden_host _workspace _worktree
server     _bus _http _link _serve
session    _answering _ask_desk _course _exchange _floor _mailbox _opener _options _rulebook
session    _stored _turns _work server session
swarm      _agent _pool _runner _task _together _turnstile _updates swarm
swarm      _agent_report _report_page _report_style _report_text _timeline report
face       __init__ _own_session client testing
face       _forecast _human _lines_view _table_view _wording progress
face       __main__ _batch _doctor _result_file _stop _task_file
"""
LAYERS: dict[str, set[str]] = {}
for layer, *row in map(str.split, TABLE.strip().splitlines()):
    LAYERS.setdefault(layer, set()).update(row)

# What the pure core does without: the event loop, the network, the environment and the clock.
IMPURE = {"trio", "httpx", "httpx_sse", "time", "subprocess", "socket"}
IMPURE_NAMES = {"os.environ", "os.environb", "os.getenv"}

# The one module that may import these.
SOLE_USERS = {"httpx": "_http", "httpx_sse": "_http"}

ROOT = Path(opencode_trio.__file__).parent
HEIGHT = {module: height for height, row in enumerate(LAYERS.values()) for module in row}


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(ROOT.rglob("*.py"))
MODULES = sorted({module_of(path) for path in FILES})


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
        parts = name.split(".")
        if parts[0] == ROOT.name:
            # `from opencode_trio import RunConfig` is the face, `... import config` is not.
            known = len(parts) > 1 and parts[1] in MODULES
            found.add(parts[1] if known else "__init__")
    return found - {module_of(path)}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_table_has_every_module_and_no_other() -> None:
    assert sorted(HEIGHT) == MODULES


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_module_imports_upward(path: Path) -> None:
    height = HEIGHT[module_of(path)]
    assert {name for name in own_imports(path) if HEIGHT[name] > height} == set()


def test_no_cycle_of_imports() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for path in FILES:
        graph[module_of(path)] |= own_imports(path, typing_too=False)
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "path", [path for path in FILES if module_of(path) in LAYERS["core"]], ids=ids
)
def test_the_pure_core_only_computes(path: Path) -> None:
    imported = set(imports(path))
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    assert {name for name in imported if name.split(".")[0] in IMPURE} == set()
    assert (imported | used) & IMPURE_NAMES == set()


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_httpx_has_one_user(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)}
    users = {SOLE_USERS[name] for name in outside & set(SOLE_USERS)}
    assert users <= {module_of(path)}


def test_the_warden_needs_only_the_standard_library() -> None:
    """It is started without site-packages."""
    warden = ROOT / "_warden.py"
    outside = {name.split(".")[0] for name in imports(warden)}
    assert outside <= sys.stdlib_module_names
