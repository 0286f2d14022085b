"""`Session`: a conversation with an agent, turn by turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar, Unpack

import attrs
import trio

from opencode_trio._checks import checked_prompt
from opencode_trio._json import Json, object_of, text_of
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.values import Answer, Command, Prompt
from opencode_trio._session.abortable_request import SHELL_BUSY_S
from opencode_trio._session.attachments import read_attachments
from opencode_trio._session.remote_turn import POLL_S, RemoteTurn
from opencode_trio._session.settings import TurnOptions, TurnSettings, turn_settings
from opencode_trio._session.structured import OutputKind, output_of, structured_answer
from opencode_trio._session.turn import Turn
from opencode_trio._session.turn_queue import SessionPlan, TurnQueue
from opencode_trio._tasks import time_limit
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.results import AnswerT, RunResult

T = TypeVar("T")


DIFF_S = 2.0
"""How long the diff of a turn that has changed files may lag behind it: a tenth of a second, unless
it has taken the changes back itself, and there is none."""


class Session:
    """A conversation.  One turn at a time: who prompts meanwhile waits, in order.

    Every call sends to the server and may raise `OpenCodeServerError`.
    """

    def __init__(self, plan: SessionPlan) -> None:
        self._attach(plan)

    def _attach(self, plan: SessionPlan) -> None:
        self._plan = plan
        self._connection = plan.connection
        self._requests = plan.connection.dialect.requests
        self._id = plan.record.session_id
        self._directory = plan.record.directory
        self._remote = RemoteTurn(plan.connection, self._id, self._directory)
        self._turn_queue = TurnQueue(self._remote, plan.rules, plan.listeners)

    def __repr__(self) -> str:
        state = "busy" if self._turn_queue.is_taken else "idle"
        return f"<{type(self).__name__} {self._id} in {self._directory!r}, {state}>"

    @property
    def session_id(self) -> str:
        """Its id."""
        return self._id

    @property
    def directory(self) -> str:
        """The directory that the agent works in."""
        return self._directory

    # --- turns ------------------------------------------------------------------------------

    async def send(
        self,
        prompt: str,
        *,
        output: OutputKind[AnswerT] | None = None,
        timeout_s: float | None = None,
        **options: Unpack[TurnOptions],
    ) -> RunResult[AnswerT]:
        """Prompt, and wait for the answer.

        Args:
            prompt: what to do or to say; the model receives it as it is.
            output: an attrs class, a dataclass, a `TypedDict`, a pydantic model or a JSON schema
                that the answer must match.  It is then in
                ``result.structured``: an instance, or JSON.  A wrong answer is asked for again,
                once; the result is then of both turns together.
            timeout_s: seconds for everything, waiting for former turns included.
            **options: see `TurnOptions`.

        Raises:
            OpenCodeConfigError: an option is invalid; nothing was sent.
            OpenCodeTurnError: the model or its provider failed.
            OpenCodeLimitError: a guard ended the turn.
            OpenCodeTimeoutError: `timeout_s` was up; the turn has been aborted.
            OpenCodeServerError: the server failed, or went away.
            OpenCodeCancelledError: somebody else aborted the turn.
            Exception: whatever a handler raised.

        **Cancellation**: aborts the turn and its subagents on the server before it lets go:
        shielded, and bounded by 10 s, after which a server of ours is ended.
        """
        if output is not None:
            kind = output_of(output)
            ask = partial(self._prompting, options=options, listen=False, schema=kind.schema)
            return await structured_answer(prompt, kind, ask, timeout_s=timeout_s)
        async with self._timed(timeout_s, self._prompting(prompt, options, listen=False)) as turn:
            return await turn.wait()

    @asynccontextmanager
    async def stream(
        self, prompt: str, *, timeout_s: float | None = None, **options: Unpack[TurnOptions]
    ) -> AsyncGenerator[Turn]:
        """Prompt, and read the events as they come.

        Arguments, errors and cancellation are those of `send`; errors of the turn come out of the
        iteration.  The block may be left at any time, which aborts the turn.

        Yields:
            A `trio.abc.ReceiveChannel` of `Event`, with the ``result`` so far; after the block, the
            final one.
        """
        async with self._timed(timeout_s, self._prompting(prompt, options, listen=True)) as turn:
            yield turn

    async def command(
        self,
        name: str,
        arguments: str = "",
        *,
        timeout_s: float | None = None,
        **options: Unpack[TurnOptions],
    ) -> RunResult:
        """Run one of opencode's slash commands, as a turn.

        Args:
            name: the command, without its slash.
            arguments: what would stand behind it.
            timeout_s: as in `send`.
            **options: see `TurnOptions`; ``system`` and ``files`` do not apply.

        Raises:
            OpenCodeError: as `send` does.

        **Cancellation**: as in `send`.
        """
        if refused := sorted(options.keys() & {"system", "files"}):
            raise OpenCodeConfigError(f"{refused[0]}: does not apply to a command")
        async with self._timed(timeout_s, self._commanding(name, arguments, options)) as turn:
            return await turn.wait()

    async def abort(self) -> None:
        """Abort what the session is doing, no matter who began it; its turn raises.

        Raises:
            OpenCodeServerError: the server did not answer.

        **Cancellation**: leaves open whether it has been aborted.
        """
        await self._turn_queue.abort()

    # --- what it holds ------------------------------------------------------------------------

    async def messages(self, limit: int | None = None) -> list[Json]:
        """Read the stored messages, as ``{"info", "parts"}``.

        Of a session that was asked for a structured answer, opencode 1.15 and later cannot tell the
        first message; the others it can.

        Args:
            limit: only so many, the newest.
        """
        stored = self._connection.dialect.stored
        return await stored.newest_messages(self._remote.call, self._id, limit)

    async def children(self) -> list[Json]:
        """Read the records of its subagents' sessions."""
        children = await self._call(self._requests.children(self._id))
        return [child.raw for child in children]

    async def todo(self) -> list[Json]:
        """Read the agent's to-do list."""
        return await self._call(self._requests.todo(self._id))

    async def diff(self, message_id: str | None = None) -> list[Json]:
        """Read what was changed in files, in the order of their names; needs opencode's snapshots.

        Without `message_id` each file is told once, as it was before the first turn that changed it
        and after the last; what came in between from somebody else is in it.

        Args:
            message_id: by the turn of this user message only.

        Returns:
            For each file ``file``, ``status`` (added, deleted, modified), ``additions`` and
            ``deletions`` in lines, and ``patch`` (in older releases ``before`` and ``after``).
        """
        if message_id is not None:
            return await self._call(self._requests.diff(self._id, message_id))
        joining = self._connection.dialect.diffs
        turns = joining.turns_with_changes(await self.messages())
        diffs = [await self._diff_of(turn) for turn in turns]
        return await trio.to_thread.run_sync(joining.joined_diffs, diffs)

    async def _diff_of(self, turn: str) -> list[Json]:
        # opencode works it out behind the turn's back, and may not have done so yet.
        diff: list[Json] = []
        with trio.move_on_after(DIFF_S):
            while not (diff := await self.diff(turn)):  # noqa: ASYNC110 - the server's, not ours
                await trio.sleep(POLL_S)
        return diff

    # --- what it can be made to do ------------------------------------------------------------

    async def revert(self, message_id: str, part_id: str | None = None) -> Json:
        """Take back a message and all that followed, file changes included.

        Args:
            message_id: the message.
            part_id: from this part of it on.

        **Cancellation**: of no effect on what the server has begun.
        """
        async with self._turn_queue.exclusive():
            return await self._call(self._requests.revert(self._id, message_id, part_id))

    async def unrevert(self) -> Json:
        """Undo `revert`; possible until the next prompt."""
        async with self._turn_queue.exclusive():
            return await self._call(self._requests.unrevert(self._id))

    async def summarize(self, *, model: str | None = None) -> None:
        """Compact the conversation: a model writes a summary that takes its place.

        Args:
            model: the model that does; by default the session's.

        Raises:
            OpenCodeConfigError: neither is known.

        **Cancellation**: aborts it.
        """
        model = model or self._plan.cfg.model
        if model is None:
            raise OpenCodeConfigError("model: missing; the session has none of its own")
        await self._turn_queue.run_to_answer(self._requests.summarize(self._id, model=model))

    async def shell(self, command: str, *, agent: str | None = None) -> Json:
        """Run a command in a shell, as the user would; the model sees it with the next prompt.

        Args:
            command: the command line.
            agent: in whose name; by default the session's.

        Returns:
            The message that holds the output.

        **Cancellation**: aborts it.
        """
        agent = agent or self._plan.cfg.agent
        model = self._plan.cfg.model
        call = self._requests.shell(self._id, command=command, agent=agent, model=model)
        return await self._turn_queue.run_to_answer(call, busy_s=SHELL_BUSY_S)

    # --- how -----------------------------------------------------------------------------------

    async def _call(self, call: Call[T]) -> T:
        return await self._connection.call(call, self._directory)

    @asynccontextmanager
    async def _timed(
        self, timeout_s: float | None, opening: AbstractAsyncContextManager[Turn]
    ) -> AsyncGenerator[Turn]:
        turn: Turn | None = None
        with time_limit(timeout_s, partial=lambda: turn.result if turn else None):
            async with opening as turn:
                yield turn

    @asynccontextmanager
    async def _prompting(
        self, prompt: str, options: TurnOptions, *, listen: bool, schema: Json | None = None
    ) -> AsyncGenerator[Turn]:
        settings = self._settings(options)
        if schema is not None:
            settings = attrs.evolve(
                settings, rules=self._plan.rules.with_answer_tool(settings.rules)
            )
        text = checked_prompt(prompt)
        files = await read_attachments(settings.files)

        def call(message_id: str) -> Call[Answer]:
            prompt = Prompt(
                session_id=self._id,
                message_id=message_id,
                text=text,
                files=files,
                model=settings.cfg.model,
                agent=settings.cfg.agent,
                variant=settings.cfg.variant,
                system=settings.system,
                schema=schema,
            )
            return self._requests.prompt(prompt)

        async with self._turn_queue.turn(call, settings, files=files, listen=listen) as turn:
            yield turn

    @asynccontextmanager
    async def _commanding(
        self, name: str, arguments: str, options: TurnOptions
    ) -> AsyncGenerator[Turn]:
        settings = self._settings(options)

        def call(message_id: str) -> Call[Answer]:
            command = Command(
                session_id=self._id,
                message_id=message_id,
                name=name,
                arguments=arguments,
                model=settings.cfg.model,
                agent=settings.cfg.agent,
                variant=settings.cfg.variant,
            )
            return self._requests.command(command)

        async with self._turn_queue.turn(call, settings, listen=False) as turn:
            yield turn

    def _settings(self, options: TurnOptions) -> TurnSettings:
        rules_of = self._connection.dialect.rules.rules_of
        return turn_settings(self._plan.cfg, self._connection.cfg, options, rules_of)


class ServerSession(Session):
    """A session as its server opens it."""

    async def remember(self) -> None:
        """Learn what a session of old has: its newest message, and its subagents."""
        for message in await self.messages(limit=1):
            self._turn_queue.latest = text_of(object_of(message.get("info")), "id") or None
        await self._remote.find_subagents()
