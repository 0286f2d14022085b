"""`OpenCodeServer`: one server, many sessions."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, runtime_checkable
from urllib.parse import unquote, urlsplit

import attrs
import trio

from opencode_trio._checks import StrPath, checked_workspace, sent_name
from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call, anything
from opencode_trio._protocol.dialect import SessionRules
from opencode_trio._protocol.v1 import V1
from opencode_trio._protocol.values import SessionRecord
from opencode_trio._server.connection import Connection
from opencode_trio._server.start import USER, ServePlan, check_health, start_server
from opencode_trio._session.pending_asks import AskHandlers
from opencode_trio._session.settings import check_scope
from opencode_trio._session.turn_queue import SessionPlan, TurnListeners
from opencode_trio._tasks import open_background, require_trio
from opencode_trio._turn.redaction import Redactor, password_forms
from opencode_trio.asks import PermissionCallback, QuestionCallback
from opencode_trio.config import RunConfig, layered
from opencode_trio.errors import OpenCodeConfigError, OpenCodeServerError
from opencode_trio.events import Event
from opencode_trio.results import RunResult
from opencode_trio.session import ServerSession, Session

T = TypeVar("T")

TITLE = "opencode-trio"
"""With a title opencode does not ask a model to invent one, a request that nobody would see."""


CONNECT_S = 15.0
"""For a server that somebody else runs to answer and to send its first event."""


DELETE_S = 5.0
"""For deleting a session when its block is left; a server that is gone has none."""


@attrs.frozen
class ServerStatistics:
    """What a server has done for us so far."""

    uptime_s: float
    """Seconds since we opened it."""
    sessions: int
    """Sessions opened."""
    open_sessions: int
    """Those that are open now."""
    turns: int
    """Turns that have ended, well or not."""
    steps: int
    """Requests to the model that were finished."""
    cost_usd: float
    """US dollars of those turns."""
    events: int
    """Events that came."""
    reconnections: int
    """How often the event stream had to be opened again."""
    directories: int
    """Directories that sessions worked in; each costs the server memory for as long as it runs."""


@attrs.define
class _Counts:
    sessions: int = 0
    open_sessions: int = 0
    turns: int = 0
    steps: int = 0
    cost_usd: float = 0.0
    directories: set[str] = attrs.field(factory=set[str])

    def add(self, result: RunResult) -> None:
        self.turns += 1
        self.steps += result.turns
        self.cost_usd += result.total_cost


class OpenCodeServer:
    """A server that is open.

    It is ours (`AsyncOpenCodeClient.open_server`) or somebody else's (`connect_server`).

    What belongs to the whole server: its environment, providers, MCP servers, instructions, and the
    rest of `RunConfig.config_overrides`.  What each session, and each turn, can have of its own:
    model, agent, variant, permission and tools.
    """

    def __init__(self, connection: Connection, *, workspace: str | None, version: str) -> None:
        self.version = version
        """opencode's version."""
        self._connection = connection
        self._requests = connection.dialect.requests
        self._rules = connection.dialect.rules
        self._workspace = workspace
        self._is_ours = connection.cfg is not None
        self._counts = _Counts()
        self._opened = trio.current_time()

    def __repr__(self) -> str:
        whose = "ours" if self._is_ours else "remote"
        state = "ended" if self._connection.failure else f"{self._counts.open_sessions} sessions"
        return f"<OpenCodeServer {self.version} at {self.url} ({whose}), {state}>"

    @property
    def url(self) -> str:
        """Where it is."""
        return self._connection.url

    @property
    def password(self) -> str | None:
        """The password it wants, for other clients; ``None`` if it wants none.

        The user name of a server that this library has started is ``opencode``.
        """
        return self._connection.password

    @property
    def pid(self) -> int | None:
        """Its process; ``None`` if somebody else runs it."""
        return self._connection.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended, or its block was left."""
        return self._connection.failure is not None

    def statistics(self) -> ServerStatistics:
        """Count what it has done for us."""
        return ServerStatistics(
            uptime_s=trio.current_time() - self._opened,
            sessions=self._counts.sessions,
            open_sessions=self._counts.open_sessions,
            turns=self._counts.turns,
            steps=self._counts.steps,
            cost_usd=self._counts.cost_usd,
            events=self._connection.event_stream.counts.events,
            reconnections=max(0, self._connection.event_stream.counts.connections - 1),
            directories=len(self._counts.directories),
        )

    async def request(
        self,
        method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
        path: str,
        *,
        json: Any = None,
        query: Mapping[str, str] | None = None,
        waits_for_agent: bool = False,
    ) -> Any:
        """Send any request; ``GET /doc`` lists what there is.

        Args:
            method: the HTTP method.
            path: the route, from ``/`` on.
            json: the body.
            query: the query; many routes want a ``directory``.
            waits_for_agent: whether the answer may take as long as an agent works; others are
                given up after a minute.

        Returns:
            The answer's JSON.

        Raises:
            OpenCodeServerError: no answer, an error, or an answer that is not JSON.

        **Cancellation**: drops the connection; what the server began, it goes on with.
        """
        call = Call(
            method,
            path,
            anything,
            query=query or {},
            body=json,
            waits_for_agent=waits_for_agent,
        )
        return await self._connection.call(call)

    @asynccontextmanager
    async def open_session(
        self,
        workspace: StrPath | None = None,
        *,
        run_cfg: RunConfig | None = None,
        title: str | None = TITLE,
        session_id: str | None = None,
        fork: bool | str = False,
        delete_on_exit: bool = False,
        on_permission: PermissionCallback | None = None,
        on_question: QuestionCallback | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_result: Callable[[RunResult], None] | None = None,
    ) -> AsyncGenerator[Session]:
        """Open a conversation: a new one, or an old one again.

        Args:
            workspace: the directory the agent works in; by default the server's.  On a server that
                runs elsewhere, a path there.
            run_cfg: model, agent, variant, permission, tools and max_steps of its turns; by default
                the server's.
            title: its title; ``None`` lets opencode ask a model for one.
            session_id: resume this session.
            fork: with `session_id`, go on in a copy of it; a message id copies what is before
                that message.
            delete_on_exit: delete the session when the block is left.
            on_permission: answers requests for permission, in the whole session tree; without it
                they are refused at once.
            on_question: answers the model's questions, likewise.
            on_event: told each event of its turns, subagents' included, as it comes; must not
                wait.  If it raises, the turn fails.
            on_result: told the result of each turn, however it ended; must not wait, nor raise.

        Raises:
            OpenCodeConfigError: the workspace is not there, or `run_cfg` changes what belongs to
                the server.
            OpenCodeServerError: the server failed; 404 if there is no such session.

        **Cancellation**: turns are aborted by the calls that began them; here only the session is
        deleted, if asked for.
        """
        cfg = run_cfg or RunConfig()
        check_scope(cfg, self._connection.cfg, what="run_cfg of a session")
        if fork and session_id is None:
            raise OpenCodeConfigError("fork: needs the session_id of the session to copy")
        effective = layered(self._connection.cfg, cfg)
        changes_rules = cfg.is_set("permission") or cfg.is_set("tools")
        rules = (
            self._rules.rules_of(effective)
            if changes_rules and effective != self._connection.cfg
            else []
        )
        if session_id is None:
            record = await self._create(await self._directory(workspace), title, rules)
        else:
            record = await self._resume(session_id, fork, rules)
        try:
            self._rules.check_taken(record, rules)
        except OpenCodeServerError:
            if session_id is None:
                await self._delete(record)
            raise
        plan = SessionPlan(
            connection=self._connection,
            record=record,
            cfg=effective,
            rules=self._session_rules(record, rules),
            listeners=TurnListeners(
                handlers=AskHandlers(on_permission, on_question),
                on_result=_in_turn(self._counts.add, on_result),
                on_event=on_event,
            ),
        )
        session = ServerSession(plan)
        self._counts.sessions += 1
        self._counts.open_sessions += 1
        self._counts.directories.add(session.directory)
        try:
            if session_id is not None:
                await session.remember()
            yield session
        finally:
            self._counts.open_sessions -= 1
            if delete_on_exit:
                await self._delete(record)
            else:
                with _a_last_word():  # a turn's rules are not for the next user of the session
                    await plan.rules.apply((), plan.cfg.agent)
            self._connection.event_stream.tree.forget(session.session_id)

    async def sessions(self, workspace: StrPath | None = None) -> list[Json]:
        """Read the records of a directory's sessions, the newest first.

        Args:
            workspace: the directory; by default the server's.
        """
        directory = await self._directory(workspace)
        return await self._connection.call(self._requests.list_sessions(), directory)

    async def warm(self, workspace: StrPath | None = None) -> None:
        """Have the server read a directory's configuration now, rather than in its first turn.

        Args:
            workspace: the directory; by default the server's.
        """
        directory = await self._directory(workspace)
        await self._connection.warm(directory)
        record = await self._create(directory, TITLE, [])
        call = self._requests.note(
            record.session_id,
            message_id=self._connection.event_stream.new_message_id(),
            text="ready?",
            model=self._connection.cfg.model if self._connection.cfg else None,
        )
        try:
            await self._connection.call(call, directory)
        finally:
            await self._delete(record)

    def _session_rules(self, record: SessionRecord, own: list[Json]) -> SessionRules:
        async def send(call: Call[T], /) -> T:
            return await self._connection.call(call, record.directory)

        cfg = self._connection.cfg
        server = self._rules.rules_of(cfg) if cfg else []
        return self._rules.session_rules(send, record.session_id, own=own, server=server)

    async def _directory(self, workspace: StrPath | None) -> str:
        place = self._workspace if workspace is None else workspace
        if place is None:
            raise OpenCodeConfigError("workspace: missing; name a path on the server's machine")
        directory = sent_name(checked_workspace(place)) if self._is_ours else str(place)
        await self._connection.check(directory)
        return directory

    async def _create(self, directory: str, title: str | None, rules: list[Json]) -> SessionRecord:
        call = self._requests.create_session(title=title, rules=rules)
        return await self._connection.call(call, directory)

    async def _resume(self, session_id: str, fork: bool | str, rules: list[Json]) -> SessionRecord:
        record = await self._connection.call(self._requests.get_session(session_id))
        directory = record.directory
        await self._connection.check(directory)
        if fork:
            call = self._requests.fork_session(session_id, fork if isinstance(fork, str) else None)
            record = await self._connection.call(call, directory)
        if rules:
            call = self._requests.add_rules(record.session_id, rules)
            record = await self._connection.call(call, directory)
        return record

    async def _delete(self, record: SessionRecord) -> None:
        with _a_last_word():
            call = self._requests.delete_session(record.session_id)
            await self._connection.call(call, record.directory)


@contextmanager
def _a_last_word() -> Generator[None]:
    """Say something to a session that is left: gone with its server, maybe, or deleted by others."""
    with trio.move_on_after(DELETE_S, shield=True), suppress(OpenCodeServerError):
        yield


def _in_turn(
    first: Callable[[RunResult], None], second: Callable[[RunResult], None] | None
) -> Callable[[RunResult], None]:
    def both(result: RunResult) -> None:
        first(result)
        if second is not None:
            second(result)

    return both


@asynccontextmanager
async def open_server(plan: ServePlan, *, warm: bool = False) -> AsyncGenerator[OpenCodeServer]:
    """Start a server of our own; when the block is left, it and its whole family have ended.

    Raises and **Cancellation**: see `AsyncOpenCodeClient.open_server`.
    """
    async with start_server(plan) as connection:
        version = await check_health(connection)
        server = OpenCodeServer(connection, workspace=str(plan.workspace), version=version)
        if warm:
            await server.warm()
        yield server


def _split_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return an address without its user, and who that is, with the password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at only now
    except ValueError:
        raise OpenCodeConfigError(
            "url: expected http://host:port, got an invalid address"
        ) from None
    if parts.scheme not in {"http", "https"}:
        given = "" if "@" in url else f", got {url!r}"  # what is before an @ is told to nobody
        raise OpenCodeConfigError(f"url: expected http://... or https://...{given}")
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = map(unquote, user.partition(":"))
    return parts._replace(netloc=host).geturl(), (name or USER, password) if at else None


@asynccontextmanager
async def connect_server(
    url: str,
    *,
    password: str | None = None,
    username: str = USER,
    workspace: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[OpenCodeServer]:
    """Use a server that somebody else runs; it is never ended by us.

    Args:
        url: where it is: ``http`` or ``https``, with a path if it is behind one.
        password: its ``OPENCODE_SERVER_PASSWORD``, if it has one.  It may stand in the address,
            too (``https://user:password@host``), and is told to nobody from there.
        username: its ``OPENCODE_SERVER_USERNAME``.
        workspace: the default directory of sessions, a path on its machine.
        tls: how to check its certificate; by default against the well-known authorities.

    Raises:
        OpenCodeConfigError: the address is invalid.
        OpenCodeServerError: nobody answers there, or not as opencode does.
        OpenCodeVersionError: it is an opencode that this library cannot drive.

    **Cancellation**: ends the connections.
    """
    require_trio()
    # Imported here, because to import httpx costs as much as to import trio.
    from opencode_trio._server.http import open_api  # noqa: PLC0415

    url, in_url = _split_user(url)
    if in_url is not None:
        if password is not None:
            raise OpenCodeConfigError("password: the url already has one")
        username, password = in_url
    redactor = Redactor.of(password_forms(username, password or ""))
    async with (
        open_api(
            url, password=password, username=username, tls=tls or True, redactor=redactor
        ) as api,
        open_background() as tasks,
    ):
        connection = Connection(api, V1, url=url, password=password, tasks=tasks)
        version = None
        with trio.move_on_after(CONNECT_S) as limit:
            version = await check_health(connection)
            tasks.start_soon(connection.event_stream.run)
            await connection.event_stream.wait_connected()
        if limit.cancelled_caught or version is None:
            raise OpenCodeServerError(f"{url}: no event arrived within {CONNECT_S:g} s")
        with connection.in_use():
            yield OpenCodeServer(connection, workspace=workspace, version=version)


class OpenCodeSession(Session):
    """A conversation that owns its server; use it as an async context manager.

    Entering it starts ``opencode serve`` and creates a session in the workspace; leaving it deletes
    the session and ends the server with all that it started.  For several conversations, open one
    server and its `OpenCodeServer.open_session`: a server takes two seconds and half a gigabyte.

    Args:
        client: opens the server.
        workspace: the directory the agent works in.
        run_cfg: the settings.
        title: the session's title; ``None`` lets opencode ask a model for one.
        on_permission: answers requests for permission; without it they are refused at once.
        on_question: answers the model's questions; without it they are dismissed at once.

    **Cancellation**: aborts the turn that runs, and ends the server.
    """

    def __init__(
        self,
        client: ServerOpener,
        workspace: StrPath,
        *,
        run_cfg: RunConfig | None = None,
        title: str | None = TITLE,
        on_permission: PermissionCallback | None = None,
        on_question: QuestionCallback | None = None,
    ) -> None:
        self._client = client
        self._workspace = workspace
        self._run_cfg = run_cfg
        self._options: dict[str, Any] = {
            "title": title,
            "on_permission": on_permission,
            "on_question": on_question,
        }
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return (
            super().__repr__() if "_id" in vars(self) else f"<{type(self).__name__}, not entered>"
        )

    def __getattr__(self, name: str) -> Any:
        # Called for what is missing: all that `Session` sets on entering.
        if "_id" in vars(self):
            raise AttributeError(name)
        raise RuntimeError(
            f"{name}: enter the session first: `async with {type(self).__name__}(...)`"
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                self._client.open_server(self._workspace, run_cfg=self._run_cfg)
            )
            session = await stack.enter_async_context(
                server.open_session(self._workspace, delete_on_exit=True, **self._options)
            )
            self._attach(session._plan)  # noqa: SLF001 - of the same class
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, value, traceback)


@runtime_checkable
class ServerOpener(Protocol):
    """What is asked of a client."""

    def open_server(
        self, workspace: StrPath, *, run_cfg: RunConfig | None = None
    ) -> AbstractAsyncContextManager[OpenCodeServer]:
        """Open a server."""
        ...
