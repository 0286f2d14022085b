"""The books: who asked the model for what, by marker, and what was charged for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import attrs
import trio

from chaos.check import Entry
from chaos.markers import reader
from chaos.plots import Line, Plot
from opencode_trio.testing import ModelRequest, Reply, ScriptedModel
from opencode_trio.testing._requests import Ledger


@attrs.define(eq=False)
class Account:
    """Everything that was asked under one marker."""

    plot: Plot
    requests: list[tuple[str, ModelRequest]] = attrs.field(factory=list)
    """With the role of who asked."""
    steps: Counter[str] = attrs.field(factory=Counter)
    """How often each session asked."""
    is_closed: bool = False
    """Whether its turn is over, so that nobody may ask any more."""
    asked: trio.Event = attrs.field(factory=trio.Event)
    """Set with the first request."""

    def next_line(self, role: str, session: str) -> Line:
        """Find what the script has for the session's next request."""
        script = self.plot.root if role == "root" else self.plot.child
        step = self.steps[session]
        self.steps[session] += 1
        return script[min(step, len(script) - 1)]


class Books:
    """The script of a model, and what came of it.

    Args:
        complain: told what must not be.
        note: told what is asked.
    """

    def __init__(self, complain: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._complain = complain
        self._note = note
        self._accounts: dict[str, Account] = {}
        self._askers: dict[str | None, tuple[str, str]] = {}  # by session
        self._model: ScriptedModel | None = None

    def keep_for(self, model: ScriptedModel) -> None:
        """Know the model, whose own ledger says what was charged and what is open."""
        self._model = model

    def open(self, mark: str, plot: Plot) -> Account:
        """Expect the requests of a turn."""
        account = self._accounts[mark] = Account(plot)
        return account

    def account(self, mark: str) -> Account:
        """Return what was asked under a marker."""
        return self._accounts[mark]

    def close(self, mark: str) -> None:
        """Expect none any more."""
        self._accounts[mark].is_closed = True

    def entries(self, mark: str) -> list[Entry]:
        """Return what was asked and charged."""
        charged = self._ledger.charged
        return [
            Entry(request.session_id or "", role, charged.get(request))
            for role, request in self._accounts[mark].requests
        ]

    def is_quiet(self, mark: str) -> bool:
        """Whether no request of a turn is open."""
        return not any(r in self._ledger.open for _, r in self._accounts[mark].requests)

    def __call__(self, request: ModelRequest) -> Reply:
        """Find the reply to a request, and enter it."""
        # opencode has prompts of its own (to compact, say), and so has the library: those go on
        # with what the session was at.
        found = reader(request.prompt) or self._askers.get(request.session_id)
        if found is None or found[0] not in self._accounts:
            self._complain(f"a request of nobody's: {request.prompt[:200]!r}")
            return Reply("nobody asked")
        mark, role = self._askers[request.session_id] = found
        account = self._accounts[mark]
        if account.is_closed:
            self._complain(f"{mark}: the {role} asked the model after the turn's end")
        account.requests.append((role, request))
        self._note(f"{mark} asks as {role} {request.session_id}, {len(account.requests)}.")
        account.asked.set()
        line = account.next_line(role, request.session_id or "")
        reply = line(request) if callable(line) else line
        _forget(request, ("messages", "tools"))
        return reply

    @property
    def _ledger(self) -> Ledger:
        assert self._model is not None
        return self._model._ledger


def _forget(request: ModelRequest, names: Iterable[str]) -> None:
    """Drop what was asked in full: the model keeps its requests, and conversations are long."""
    body = request.body
    assert isinstance(body, dict)
    for name in names:
        body.pop(name, None)
