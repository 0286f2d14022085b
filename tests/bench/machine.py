"""What was measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import opencode_trio

GIB = 2**30


def facts(binary: str) -> dict[str, Any]:
    """Describe the machine, what is installed, and how busy it is just now."""
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _found(r"model name\s*: (.*)", "/proc/cpuinfo"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "opencode": version.stdout.strip(),
        "opencode_trio": opencode_trio.__version__,
        "load": load(),
    }


def load() -> float:
    """Return how many processes wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)


def described(found: dict[str, Any]) -> str:
    """Say the facts in a line."""
    return (
        f"{found['date']}: opencode {found['opencode']}, opencode-trio {found['opencode_trio']},"
        f" Python {found['python']}, {found['cores']} cores ({found['processor']}),"
        f" {found['memory_gib']} GiB, {found['system']}, load {found['load']}"
    )


def _found(pattern: str, path: str) -> str:
    match = re.search(pattern, Path(path).read_text("utf-8"))
    return match[1] if match else platform.machine()
