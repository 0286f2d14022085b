"""How the documentation is built: `nox -s docs`."""

import ast
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import TypeAliasForwardRef

import opencode_trio

project = "opencode-trio"
author = "The opencode-trio authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx wants this name
release = version = opencode_trio.__version__

extensions = [
    "myst_parser",  # pages in Markdown, as the README and the changelog are
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",  # Google docstrings
    "sphinxcontrib_trio",  # marks what must be awaited, entered or iterated over
]
exclude_patterns = ["_build"]

# `name` in a docstring is a name of Python's: a link where there is one to link to.
default_role = "py:obj"

html_theme = "furo"
html_title = f"{project} {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# sphinxcontrib-trio finds out what is a context manager in the documenters of Sphinx 8, which
# Sphinx 9 still has.
autodoc_use_legacy_class_based = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
# Types that have a name are shown by it, and link to what it stands for.
autodoc_type_aliases = {
    name: f"opencode_trio.{name}"
    for name in (
        *("AgentStatus", "PermissionAnswer", "PermissionCallback", "PermissionMap"),
        *("QuestionAnswer", "QuestionCallback", "SpanKind", "StopReason"),
    )
} | {
    name: f"opencode_trio.testing.{name}"
    for name in ("Action", "FinishReason", "ReplyLike", "Script", "ScriptFunction")
}
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
TypeAliasForwardRef.__repr__ = lambda self: self.name  # Sphinx prints that of `Alias | None`
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Links into other projects' docs come from inventories on the network, and a build without one
# must not fail for it: such links may miss, and so may a private class in a signature.  A
# missing link to something public of our own is an error.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
        "attrs": ("https://www.attrs.org/en/stable", None),
    }
    if "READTHEDOCS" in os.environ
    else {}
)
nitpick_ignore_regex = [
    (r"py:.*", r"(?!opencode_trio\.[a-z]).*"),
    (r"py:.*", r"opencode_trio\.results\.\w+T(_co)?"),  # type variables
    (r"py:.*", r"opencode_trio\.server\.ServerOpener"),  # a client, as a type
]


def setup(app: Sphinx) -> None:
    """Fix what autodoc and napoleon make of our docstrings and signatures."""
    app.add_directive("alias", Alias)
    # Sphinx looks for the overloads of a method in the module of the class that inherits it.
    heir, heritage = map(
        ModuleAnalyzer.for_module, ("opencode_trio.swarm", "opencode_trio._swarm.combinators")
    )
    heir.analyze()
    heritage.analyze()
    for name, overloads in heritage.overloads.items():
        heir.overloads[name.replace("Together.", "Swarm.")] = overloads
    app.connect("autodoc-process-docstring", process_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", process_signature)
    app.connect("doctree-read", process_types)


def process_docstring(*event: Any) -> None:
    _app, what, _name, _obj, _options, lines = event
    if what in {"attribute", "data", "property"}:
        # An empty comment: napoleon takes what is before a colon of the first line for a type.
        lines[:0] = ["..", ""]


def process_signature(*event: Any) -> tuple[str, str] | None:
    _app, what, _name, obj, options, signature, returns = event
    if what == "class" and "__init__" in (options.exclude_members or ()):
        return "", ""  # nobody but the library makes one
    if signature is None:
        return None
    if attrs.has(obj):
        for field in attrs.fields(obj):  # a converter takes anything, which says nothing
            anything = rf"\b{field.alias}: (?:~typing\.)?Any\b"
            signature = re.sub(anything, f"{field.alias}: {field.type}", signature)
    # Of a context manager, what its block gets.
    returns = re.sub(
        r"^(?:~?collections\.abc\.)?(?:Async)?Generator\[(.*)\]$", r"\1", returns or ""
    )
    return signature.replace("NOTHING", "..."), returns


def process_types(_app: Sphinx, doctree: nodes.document) -> None:
    for link in doctree.findall(pending_xref):
        if link["reftarget"] == "type":  # the class, not a field that has this name
            link["reftarget"] = "builtins.type"


class Alias(SphinxDirective):
    """Document a type alias as its source has it: autodoc would print what it is made of."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        [name] = self.arguments
        for module in sorted(Path(opencode_trio.__file__).parent.rglob("*.py")):
            body = ast.parse(module.read_text("utf-8")).body
            for node, doc in pairwise(body):
                match node, doc:
                    case (
                        ast.AnnAssign(target=ast.Name(id), value=ast.expr() as value)
                        | ast.Assign(targets=[ast.Name(id)], value=value),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ) if id == name:
                        lines = [f".. py:type:: {name}", f"   :canonical: {ast.unparse(value)}", ""]
                        lines += [f"   {line}" for line in text.splitlines()]
                        return self.parse_text_to_nodes("\n".join(lines))
        raise self.error(f"no documented alias {name}")
