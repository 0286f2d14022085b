"""Programs that pass for opencode: they note what they were given, then do as a test says."""

from __future__ import annotations

from pathlib import Path

import attrs

from wire import FOLDER

# `starts` grows by a line with each run.  $HERE is the folder of the notes.
PROLOGUE = r"""#!/bin/sh
HERE='{folder}'
if [ "$1" = --version ]; then echo '{version}'; exit; fi
echo $$ >> "$HERE/starts"
printf '%s\0' "$@" > "$HERE/argv"
cat /proc/$$/environ > "$HERE/env" # `env` would show what the shell has made of it
pwd > "$HERE/pwd"
"""
READ_STDIN = 'cat > "$HERE/stdin"\n'


def play(trace: str) -> str:
    """Print a recorded trace."""
    return f"cat '{FOLDER / trace}.jsonl'\n"


@attrs.frozen
class FakeOpencode:
    """A fake that was made, and what it noted."""

    path: str
    folder: Path

    @property
    def starts(self) -> int:
        """How often it was run; asking for its version does not count."""
        file = self.folder / "starts"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def argv(self) -> list[str]:
        return self._strings("argv")

    @property
    def env(self) -> dict[str, str]:
        pairs = (entry.partition("=") for entry in self._strings("env"))
        return {name: value for name, _, value in pairs}

    @property
    def stdin(self) -> bytes:
        return (self.folder / "stdin").read_bytes()

    @property
    def scratch(self) -> Path:
        """The scratch directory that the last run had."""
        return Path(self.env["XDG_CONFIG_HOME"]).parent

    def _strings(self, name: str) -> list[str]:
        return (self.folder / name).read_text().removesuffix("\0").split("\0")


def fake_opencode(
    folder: Path, then: str = "", *, version: str = "1.18.33", reads_stdin: bool = True
) -> FakeOpencode:
    """Make a fake in a folder.

    Args:
        folder: made if it is missing.
        then: what it does, in the shell's language, once it has read its stdin.
        version: what it answers to ``--version``.
        reads_stdin: whether it does that.
    """
    folder.mkdir(exist_ok=True)
    path = folder / "opencode"
    prologue = PROLOGUE.format(folder=folder, version=version)
    path.write_text(prologue + (READ_STDIN if reads_stdin else "") + then)
    path.chmod(0o755)
    return FakeOpencode(str(path), folder)
