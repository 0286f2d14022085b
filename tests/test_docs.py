"""Every Python block of the README and the docs is a program, and runs.

It runs as the reader would run it: a file of its own, in a project directory, on the real opencode,
on a host whose opencode config has one provider, named ``provider``, with one model, named
``model``.  So an example says ``RunConfig(model="provider/model")`` and nothing in it is patched;
that the model is a scripted one is the host's affair.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import opencode_trio.testing
from doc_blocks import BLOCKS, PAGES, ROOT, Block, quotations_of
from opencode_trio.testing import ModelRequest, open_scripted_model


def answer(request: ModelRequest) -> str:
    """Say something that any example can show."""
    return "All good."


async def run_as_reader(
    command: list[str | Path], opencode_binary: str, tmp_path: Path, stdin: str = ""
) -> subprocess.CompletedProcess[bytes]:
    project, home, path = (tmp_path / name for name in ("project", "home", "bin"))
    for directory in (project, home / ".config/opencode", path):
        directory.mkdir(parents=True)
    (path / "opencode").symlink_to(opencode_binary)
    async with open_scripted_model(answer, model_id="model") as model:
        (provider,) = model.opencode_config["provider"].values()
        config = {"provider": {"provider": provider}, "enabled_providers": ["provider"]}
        (home / ".config/opencode/opencode.json").write_text(json.dumps(config))
        return await trio.run_process(
            [sys.executable, "-W", "error", *command],
            stdin=stdin.encode(),
            cwd=project,
            env=os.environ | {"HOME": str(home), "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@pytest.mark.opencode
@pytest.mark.parametrize("block", BLOCKS, ids=str)
async def test_block_runs(block: Block, opencode_binary: str, tmp_path: Path) -> None:
    done = await run_as_reader([block.write(tmp_path)], opencode_binary, tmp_path)
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{output}"


@pytest.mark.opencode
async def test_what_is_typed_into_the_repl_works(opencode_binary: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/repl.md").read_text("utf-8")
    (shown,) = re.findall(r"^```pycon\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = shown.splitlines()
    typed = [line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")]
    answers = [line for line in lines if not line.startswith(">>> ")]
    done = await run_as_reader(["-m", "trio"], opencode_binary, tmp_path, "\n".join(typed) + "\n")
    said = [line for line in done.stdout.decode().replace(">>> ", "").splitlines() if line]
    assert (said, len(answers)) == (answers, 2), done.stderr.decode()


def test_blocks_are_found() -> None:
    """A misspelt pattern would make all of the above pass, by having nothing to run."""
    assert {block.page for block in BLOCKS} >= {"README.md"}
    fences = sum(page.read_text("utf-8").count("```python") for page in PAGES)
    fences += sum(page.read_text("utf-8").count("```{code-block} python") for page in PAGES)
    assert len(BLOCKS) == fences


def test_programs_that_are_shown_are_those_that_are_tested() -> None:
    """GitHub includes no files: a page holds its programs, which `tests/doc_blocks.py` copies."""
    shown = [quotation for page in PAGES for quotation in quotations_of(page)]
    for page, file, is_part, code in shown:
        program = file.read_text("utf-8")
        assert code in program if is_part else code == program, f"{file} on {page}"
    examples = (ROOT / "docs/examples").rglob("*.py")
    assert {quotation.file for quotation in shown if not quotation.is_part} == set(examples)
    assert not any("literalinclude" in page.read_text("utf-8") for page in PAGES)


GENERATED = re.compile(r"<!-- measured -->.*?<!-- until here -->", re.DOTALL)
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def test_lines_of_prose_are_short() -> None:
    """So that a diff shows what has changed.  What programs print is as long as it is."""
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        prose = FENCED.sub("", GENERATED.sub("", page.read_text("utf-8")))
        assert [line for line in prose.splitlines() if len(line) > 100] == [], page.name


RELATIVE_LINK = re.compile(r"\]\((?!https?:|#)([^)#]*)(#[^)]+)?\)")


def test_links_of_the_readme_lead_somewhere() -> None:
    for target, _ in RELATIVE_LINK.findall((ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / target).exists(), target


NAMED_TEST = re.compile(r"`(tests/\w+\.py)::(\w+)`")


def test_tests_that_are_named_exist() -> None:
    named = {found for page in PAGES for found in NAMED_TEST.findall(page.read_text("utf-8"))}
    assert len(named) > 40
    for file in sorted({file for file, _ in named}):
        nodes = ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        there = {node.name for node in nodes if isinstance(node, functions)}
        assert {name for other, name in named if other == file} <= there, file


def test_all_that_is_public_is_in_the_reference_once() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES if page.parent.name == "reference")
    documented = re.findall(r"^\.\. (?:auto\w+|alias):: (\w+)$", pages, re.MULTILINE)
    public = [*opencode_trio.__all__, *opencode_trio.testing.__all__]
    assert sorted(set(public) - set(documented)) == []
    assert len(documented) == len(set(documented))


@pytest.mark.opencode
def test_tests_of_agents_that_are_shown_pass(opencode_binary: str, tmp_path: Path) -> None:
    (tmp_path / "opencode").symlink_to(opencode_binary)
    shown = ROOT / "docs/examples/test_my_agents.py"
    plugin = ["-p", "opencode_trio.testing.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, shown],
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
