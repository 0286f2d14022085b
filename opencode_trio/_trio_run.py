"""Which `trio.run` the caller is in; plain errors for a caller that is in another one, or in none.

Events, locks and nurseries of trio belong to one `trio.run`.  Used from another thread, they fail
inside of trio, or leave a task waiting for ever.
"""

from __future__ import annotations

import sys

import trio


def require_trio() -> None:
    """Check that a task of trio is calling.

    Raises:
        RuntimeError: something else is.
    """
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(_what_to_do()) from None


def _what_to_do() -> str:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 - public
        return (
            "opencode-trio needs trio, and this is asyncio: start the program with "
            "`trio.run(main)` instead of `asyncio.run(main())`. In IPython, enter `%autoawait "
            "trio` first. For programs that stay with asyncio, see the documentation: 'REPLs and "
            "asyncio'"
        )
    return (
        "opencode-trio needs trio, and trio is not running: call this from an async function "
        "that `trio.run(main)` runs. For a REPL, start `python -m trio`"
    )


class TrioRun:
    """The `trio.run` that something was opened in, and has to be used in.

    Args:
        of: what was opened, for the error's text.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self._token = trio.lowlevel.current_trio_token()

    def check(self) -> None:
        """Check that the caller is in it.

        Raises:
            RuntimeError: the caller is in another one, or in none.
        """
        if current_run() is not self._token:
            raise RuntimeError(
                f"{self._of} belongs to another trio.run(): use it only in the thread that opened "
                "it. Other threads can call into that one with trio.from_thread.run()"
            )


def current_run() -> trio.lowlevel.TrioToken | None:
    """Return the `trio.run` of the calling thread, if it is in one."""
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
