"""How the documentation is built: `nox -s docs`."""

import os

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
autodoc_typehints = "description"
autodoc_class_signature = "separated"
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
nitpick_ignore_regex = [(r"py:.*", r"(?!opencode_trio\.[a-z]).*")]
# Only a server makes a session, and only `open_scripted_model` a model; what they are made of is
# nobody else's business.
nitpick_ignore = [
    ("py:class", "opencode_trio.session.SessionPlan"),
    ("py:class", "opencode_trio.testing._ledger.Ledger"),
]
