"""The fixture `no_leaks`, for pytest.

It is not loaded by itself, since every test run in the environment would then import trio.  Say
so in the outermost ``conftest.py``::

    pytest_plugins = ["opencode_trio.testing.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opencode_trio.testing._leaks import assert_no_leaks


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves something behind: see `opencode_trio.testing.assert_no_leaks`."""
    with assert_no_leaks():
        yield
