"""`open_scripted_model`: a model that says what a test tells it to, for the real opencode."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from opencode_trio._tasks import require_trio
from opencode_trio.config import RunConfig, deep_merge, split_model
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.testing._asgi import ScriptedApp, logger
from opencode_trio.testing._requests import Ledger, ModelRequest
from opencode_trio.testing._script import Script, compile_script
from opencode_trio.testing._usage import Prices, Usage, sum_usage

PROVIDER_ID = "scripted"


# Titles get a model id of their own, so that no wording of opencode's has to be recognised.
TITLE_MODEL_ID = "scripted-title"


# Any key will do; opencode's provider package insists that there is one.
_API_KEY = "no-key-needed"


@attrs.frozen(eq=False)
class ScriptedModel:
    """A running scripted model: where it is, what it was asked, and what it has charged."""

    base_url: str
    """The address of its API, ending in `/v1`."""
    model_id: str
    other_models: tuple[str, ...]
    """Further models of the same script, limits and prices."""
    prices: Prices
    """What it charges."""
    context_limit: int
    """The context window that opencode is told of, in tokens."""
    output_limit: int
    """The longest answer that opencode is told of, in tokens."""
    _ledger: Ledger = attrs.field(repr=False, alias="ledger")

    @property
    def requests(self) -> Sequence[ModelRequest]:
        """All requests so far, oldest first, session titles left out."""
        return self._ledger.requests

    @property
    def title_requests(self) -> Sequence[ModelRequest]:
        """The requests for a session title, which the model answers by itself."""
        return self._ledger.title_requests

    @property
    def unanswered(self) -> Sequence[ModelRequest]:
        """The requests for which a list script had no reply left; they got an error 400."""
        return self._ledger.unanswered

    @property
    def open_requests(self) -> int:
        """How many requests, titles included, wait for more of their answer.

        A request whose client has left is no longer open.
        """
        return len(self._ledger.open)

    @property
    def script_error(self) -> Exception | None:
        """The first error that the script raised; it leaves the model's block when that ends."""
        return self._ledger.failure

    @property
    def spent_tokens(self) -> Usage:
        """The tokens of all replies that were sent to their end, titles not counted."""
        return sum_usage(self._ledger.charged.values())

    @property
    def spent_usd(self) -> float:
        """What those replies cost, in US dollars."""
        charged = self._ledger.charged.values()
        return sum((self.prices.cost_usd(usage) for usage in charged), 0.0)

    @property
    def opencode_config(self) -> dict[str, Any]:
        """The part of an `opencode.json` that makes this model known, and no other provider."""
        models = {
            name: self._model_config(f"Scripted {name}", self.prices)
            for name in (self.model_id, *self.other_models)
        }
        models[TITLE_MODEL_ID] = self._model_config("Scripted titles", Prices(0.0, 0.0, 0.0))
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Scripted",
            "options": {"baseURL": self.base_url, "apiKey": _API_KEY},
            "models": models,
        }
        return {"provider": {PROVIDER_ID: provider}, "enabled_providers": [PROVIDER_ID]}

    def run_config(self, **overrides: Any) -> RunConfig:
        """Return the configuration of a run that talks to this model.

        Args:
            **overrides: Any other fields of `RunConfig`. `config_overrides` is merged into the
                model's own; the rest is taken as it is.

        Raises:
            TypeError: A field is unknown.
            OpenCodeConfigError: A field is wrong.
        """
        extra: Mapping[str, Any] = overrides.pop("config_overrides", None) or {}
        fields: dict[str, Any] = {
            "model": f"{PROVIDER_ID}/{self.model_id}",
            "small_model": f"{PROVIDER_ID}/{TITLE_MODEL_ID}",
            "config_overrides": deep_merge(self.opencode_config, extra),
        }
        return RunConfig(**{**fields, **overrides})

    async def wait_for_requests(self, count: int) -> None:
        """Wait until at least so many requests have come, titles not counted.

        **Cancellation:** safe; the wait can be repeated.
        """
        await self._ledger.wait_until(lambda: len(self._ledger.requests) >= count)

    async def wait_until_quiet(self) -> None:
        """Wait until no request is open.

        **Cancellation:** safe; the wait can be repeated.
        """
        await self._ledger.wait_until(lambda: not self._ledger.open)

    def _model_config(self, name: str, prices: Prices) -> dict[str, Any]:
        return {
            "name": name,
            "cost": attrs.asdict(prices),
            "limit": {"context": self.context_limit, "output": self.output_limit},
            "tool_call": True,
            "reasoning": True,
            "temperature": True,
        }


@asynccontextmanager
async def open_scripted_model(
    script: Script = "ok",
    *,
    model_id: str = "scripted",
    other_models: Sequence[str] = (),
    prices: Prices | None = None,
    context_limit: int = 200_000,
    output_limit: int = 8_192,
    title: str = "Scripted session",
) -> AsyncGenerator[ScriptedModel]:
    """Serve a scripted model on loopback for the length of the block.

    It speaks the streaming chat-completions protocol, which opencode uses through its
    `@ai-sdk/openai-compatible` provider, so the real opencode runs against it without a key, a
    network or a cost.

    Args:
        script: What it answers. A function takes the `ModelRequest` and returns a reply, and may be
            async; an iterable gives its replies out in the order in which requests arrive; a single
            reply or string answers every request. A request that finds an iterable exhausted gets a
            clear error 400, which opencode does not retry, and is kept in `unanswered`.
        model_id: The name of the model, below the provider `scripted`.
        other_models: The names of further ones, for programs that use several. The script tells
            them apart by `ModelRequest.model`.
        prices: What it charges.
        context_limit: Its context window, in tokens. opencode compacts the conversation when the
            tokens of a reply come near it.
        output_limit: Its longest answer, in tokens.
        title: What it answers when opencode asks for the title of a new session. Such requests do
            not consume the script.

    Yields:
        The running model.

    Raises:
        ImportError: The extra `testing` is not installed.
        TypeError: The script is not a script.
        Exception: Whatever the script raised, or the `TypeError` about what it returned. The
            request gets an error 400 at once; the exception leaves the block when it ends, bare, in
            place of an error of the body (which becomes its context, being most likely its effect).

    **Cancellation:** the block is left at once, and every connection is dropped, stalled ones
    included. (Where a frozen client leaves megabytes of an answer unread it takes two seconds more,
    on Linux; elsewhere, until that client goes on or goes.) The model goes on answering until the
    block is left, so that programs in it can say goodbye.
    """
    require_trio()
    ledger = Ledger(TITLE_MODEL_ID)
    models = (model_id, *other_models)
    app = ScriptedApp(ledger, compile_script(script), title, (*models, TITLE_MODEL_ID))
    serve = _load_server()
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        server_scope = trio.CancelScope()

        async def run_server(*, task_status: trio.TaskStatus[str]) -> None:
            with server_scope:
                try:
                    await serve(app, task_status=task_status)
                except Exception as error:  # noqa: BLE001 - recorded, and raised at the end
                    # It must not raise here: the nursery would put the body's error in a group.
                    logger.exception("the server of the scripted model failed")
                    ledger.record_failure(error)

        try:
            url = await nursery.start(run_server)
            server_scope.shield = True
            yield ScriptedModel(
                base_url=f"{url}/v1",
                model_id=model_id,
                other_models=tuple(other_models),
                prices=prices or Prices(),
                context_limit=context_limit,
                output_limit=output_limit,
                ledger=ledger,
            )
        except BaseException as error:  # noqa: BLE001 - raised again below, outside the nursery
            failure = error
        server_scope.cancel()
    _raise_outcome(failure, ledger.failure)


def _raise_outcome(body_error: BaseException | None, script_error: Exception | None) -> None:
    """Raise what the block ends with, bare: the nursery would have wrapped it in a group."""
    replaceable = body_error is None or isinstance(body_error, Exception | trio.Cancelled)
    if script_error is not None and replaceable:
        if script_error.__context__ is None and body_error is not script_error:
            script_error.__context__ = body_error
        raise script_error
    if script_error is not None:
        logger.error("the script of the model failed", exc_info=script_error)
    if body_error is not None:
        raise body_error


def _load_server() -> Any:
    try:
        from ._web_server import serve  # noqa: PLC0415 - its extra is needed only from here on
    except ImportError as error:
        raise ImportError(
            "the scripted model needs a web server that is not installed:"
            " pip install 'opencode-trio[testing]'",
            name=error.name,
        ) from error
    return serve


@asynccontextmanager
async def open_run_config(
    model: str, *other_models: str, script: Script, **fields: Any
) -> AsyncGenerator[RunConfig]:
    """Give a program the settings for its model, which may be a stand-in that plays a script.

    So one program runs on a real model, and, without a key, on ``scripted/anything``: a scripted
    model, which is served for the length of the block.

    Args:
        model: As ``provider/model``; those of the provider ``scripted`` play the script.
        *other_models: Further ones that the program will use, all scripted or all real.
        script: What scripted models answer, as in `open_scripted_model`.
        **fields: The other fields of `RunConfig`.

    Raises:
        OpenCodeConfigError: A field is wrong, or only some of the models are scripted.

    **Cancellation:** as of `open_scripted_model`.
    """
    names = [split_model(name) for name in (model, *other_models)]
    kinds = {name["providerID"] == PROVIDER_ID for name in names}
    if len(kinds) > 1:
        raise OpenCodeConfigError("model: scripted ones and real ones cannot be mixed")
    if kinds == {False}:
        yield RunConfig(model=model, **fields)
        return
    first, *others = (name["modelID"] for name in names)
    async with open_scripted_model(script, model_id=first, other_models=others) as scripted:
        yield scripted.run_config(**fields)
