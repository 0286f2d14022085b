"""The version is told in one place, and the changelog knows it."""

from __future__ import annotations

import datetime as dt
import re
import runpy
import sys
import types
from pathlib import Path

import pytest

import opencode_trio

ROOT = Path(__file__).resolve().parent.parent

HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\S+))?$", re.MULTILINE)


def key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_changelog_has_this_version() -> None:
    headings = HEADING.findall((ROOT / "CHANGELOG.md").read_text("utf-8"))
    released = [(version, date) for version, date in headings if version != "Unreleased"]
    assert headings[0][0] == "Unreleased" or headings == released
    assert len(headings) - len(released) <= 1
    assert [key(version) for version, _ in released] == sorted(
        (key(version) for version, _ in released), reverse=True
    )
    dates = [dt.date.fromisoformat(date) for _, date in released]
    assert dates == sorted(dates, reverse=True)

    base, is_dev, _ = opencode_trio.__version__.partition(".dev")
    if is_dev:  # on the way to a version that the changelog cannot have yet
        assert headings[0] == ("Unreleased", "")
        assert all(key(version) < key(base) for version, _ in released)
    else:
        assert released[0][0] == base


def test_the_version_is_written_once() -> None:
    """Wheel and documentation read it in the package; elsewhere it would be forgotten.

    What was measured says which version it measured, and goes on saying so in the next one.
    """
    version = re.escape(opencode_trio.__version__)
    files = [ROOT / "pyproject.toml", ROOT / "noxfile.py", *ROOT.glob("opencode_trio/**/*.py")]
    measured = ROOT / "docs/benchmarks.md"
    pages = [page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts]
    files += [page for page in pages if page != measured]
    files += [ROOT / "README.md", ROOT / "docs/conf.py"]
    found = {
        str(path.relative_to(ROOT)): line
        for path in files
        for line in path.read_text("utf-8").splitlines()
        if re.search(rf"(?<![\d.]){version}(?![\d.])", line)
    }
    assert list(found) == ["opencode_trio/__init__.py"], found
    assert "opencode_trio.__version__" in (ROOT / "docs/conf.py").read_text("utf-8")


def test_pypi_shows_a_readme_whose_links_work() -> None:
    """PyPI knows no repository: a relative link is made absolute, or is its text alone."""
    hatchling = types.ModuleType("hatchling.metadata.plugin.interface")
    hatchling.MetadataHookInterface = object  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, hatchling.__name__, hatchling)
        for_pypi = runpy.run_path(str(ROOT / "hatch_build.py"))["for_pypi"]
    text = "![A\npicture](a.svg), [guide](docs/x.md#y), [site](https://z), [below](#there)."
    assert for_pypi(text, None) == ", guide, [site](https://z), [below](#there)."
    assert for_pypi(text, "https://h/p") == (
        "![A\npicture](https://h/p/raw/main/a.svg), [guide](https://h/p/blob/main/docs/x.md#y), "
        "[site](https://z), [below](#there)."
    )
    published = for_pypi((ROOT / "README.md").read_text("utf-8"), None)
    assert "](docs/" not in published
    assert "pictures/" not in published
