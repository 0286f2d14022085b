"""The scripted model: its vocabulary, its protocol, its lifetime, and the real opencode on it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.testing import (
    Cut,
    Delay,
    Disconnect,
    ErrorFrame,
    HttpError,
    ModelRequest,
    Prices,
    Raw,
    Reasoning,
    Reply,
    Script,
    ScriptedModel,
    Stall,
    Text,
    ToolCall,
    Usage,
    open_run_config,
    open_scripted_model,
)
from opencode_trio.testing._asgi import ScriptedApp
from opencode_trio.testing._chunks import Envelope, completion, pieces, stream_steps
from opencode_trio.testing._requests import Ledger
from opencode_trio.testing._script import as_reply, compile_script
from opencode_trio.testing._usage import wire_usage

# ---- the vocabulary: values and pure functions ----------------------------------------------


@given(st.text(), st.none() | st.integers(1, 100))
def test_pieces_join_to_the_text(text: str, count: int | None) -> None:
    parts = pieces(text, count)
    assert "".join(parts) == text
    assert len(parts) <= (64 if count is None else count)
    assert all(parts)


def test_text_is_cut_at_words_unless_told_otherwise() -> None:
    assert pieces("one two  three", None) == ["one ", "two  ", "three"]
    assert pieces("abcd", 2) == ["ab", "cd"]
    assert pieces("ab", 5) == ["a", "b"]
    assert pieces("", 3) == []


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (Reply("hi"), "stop"),
        (Reply(), "stop"),
        (Reply("hi", ToolCall("bash")), "tool_calls"),
        (Reply("hi", finish="length"), "length"),
        (Reply("hi", finish=None), None),
    ],
)
def test_finish_reason(reply: Reply, finish: str | None) -> None:
    assert reply.finish == finish


@pytest.mark.parametrize("value", ["hi", Text("hi"), ["hi"], (Text("hi"),), Reply("hi")])
def test_whatever_stands_for_a_reply(value: Any) -> None:
    assert as_reply(value) == Reply(Text("hi"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reply(Cut(), "more"), "nothing can follow"),
        (lambda: Reply("text", HttpError(500)), "only a Delay can come before"),
        (lambda: Reply(finish="tired"), "finish must be one of"),  # type: ignore[arg-type]
        (lambda: Delay(-1), "seconds"),
        (lambda: Text("x", chunks=0), "chunks"),
        (lambda: Stall(0), "comment_every_s"),
        (lambda: HttpError(200), "status"),
    ],
)
def test_impossible_replies_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_arguments_that_no_call_can_have_are_refused() -> None:
    arguments: Any = ["not", "named"]
    with pytest.raises(TypeError, match="arguments must be"):
        ToolCall("bash", arguments)


@pytest.mark.parametrize("value", [7, None, b"bytes", ["ok", 7]])
def test_what_is_no_reply_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="strings and of the actions"):
        as_reply(value)


def test_usage_on_the_wire_counts_cached_and_reasoning_tokens_in() -> None:
    wire = wire_usage(Usage(input=1000, output=200, reasoning=30, cache_read=400))
    assert wire["prompt_tokens"] == 1400
    assert wire["completion_tokens"] == 230
    assert wire["total_tokens"] == 1630
    assert wire["prompt_tokens_details"] == {"cached_tokens": 400}
    assert wire["completion_tokens_details"] == {"reasoning_tokens": 30}


def test_cost_is_reckoned_per_million_with_reasoning_as_output() -> None:
    usage = Usage(input=1000, output=200, reasoning=30, cache_read=400)
    assert Prices(1.0, 2.0, 0.1).cost_usd(usage) == 0.0015
    assert usage.total == 1630


def test_parallel_tool_calls_have_their_own_index_and_id() -> None:
    reply = Reply(ToolCall("bash", {"a": 1}), ToolCall("read", '{"broken', call_id="mine"))
    steps = [s for s in stream_steps(reply, Envelope("r", "m")) if isinstance(s, bytes)]
    calls = [c for d in _deltas(b"".join(steps)) for c in d.get("tool_calls", [])]
    assert [(c["index"], c["id"]) for c in calls if "id" in c] == [(0, "call_r_0"), (1, "mine")]
    arguments = [
        "".join(c["function"]["arguments"] for c in calls if c["index"] == i) for i in (0, 1)
    ]
    assert arguments == ['{"a": 1}', '{"broken']


def test_whole_completion_of_a_reply() -> None:
    reply = Reply(Reasoning("hm"), Text("hi"), ToolCall("bash", {"a": 1}), usage=None)
    body = completion(reply, Envelope("r", "m"))
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "hi"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "bash"
    assert "usage" not in body


def test_what_a_request_tells() -> None:
    request = ModelRequest(
        number=0,
        received_at=0.0,
        headers={"x-session-id": "ses_1"},
        body={
            "model": "m",
            "stream": True,
            "messages": [
                {"role": "system", "content": "be good"},
                {"role": "user", "content": "first"},
                {"role": "tool", "content": "old"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": " a\u2028"}, {"type": "image_url"}],
                },
                {"role": "assistant", "content": None, "tool_calls": []},
                {"role": "tool", "content": "new"},
            ],
            "tools": [{"type": "function", "function": {"name": "bash"}}],
        },
    )
    assert (request.model, request.session_id, request.is_streaming) == ("m", "ses_1", True)
    assert (request.system, request.prompt) == ("be good", " a\u2028")
    assert (request.tools, request.tool_results) == (("bash",), ("new",))


def test_an_empty_request_tells_nothing() -> None:
    request = ModelRequest(number=0, received_at=0.0, headers={}, body={})
    assert (request.model, request.prompt, request.system, request.tools) == ("", "", "", ())


# ---- playing a reply, in virtual time --------------------------------------------------------


async def test_waits_are_in_trio_time(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    sent = await _play(Reply(Delay(100), Text("a b c", delay_s=10)))
    assert trio.current_time() - start == pytest.approx(120)
    assert [d["content"] for d in _deltas(sent) if "content" in d] == ["a ", "b ", "c"]


async def test_a_whole_completion_takes_as_long_as_its_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()
    sent = await _play(Reply(Delay(100), Text("a b c", delay_s=10)), stream=False)
    assert trio.current_time() - start == pytest.approx(120)
    assert json.loads(sent)["choices"][0]["message"]["content"] == "a b c"


async def test_a_stall_can_send_comments(autojump_clock: trio.testing.MockClock) -> None:
    sent = await _play(Reply("a", Stall(comment_every_s=30)), leave_after_s=100)
    assert sent.count(b": still here\n\n") == 3


async def test_a_stall_sends_nothing_at_all(autojump_clock: trio.testing.MockClock) -> None:
    assert await _play(Reply(Stall()), leave_after_s=1000) == b""


async def _play(reply: Reply, *, stream: bool = True, leave_after_s: float = 10**6) -> bytes:
    """Have the application answer one request in memory, and return the body that it sent."""
    app = ScriptedApp(Ledger("t"), compile_script(reply), "title", ("m",))
    requests, messages = trio.open_memory_channel[dict[str, Any]](2)
    body = json.dumps({"model": "m", "stream": stream, "messages": []}).encode()
    await requests.send({"type": "http.request", "body": body, "more_body": False})
    sent = bytearray()

    async def leave() -> None:
        await trio.sleep(leave_after_s)
        await requests.send({"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.extend(message.get("body", b""))

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await app(scope, messages.receive, send)
        nursery.cancel_scope.cancel()
    return bytes(sent)


# ---- the protocol, over a socket --------------------------------------------------------------


async def test_text_is_streamed_and_paid_for() -> None:
    usage = Usage(input=50, output=5, reasoning=2, cache_read=3)
    async with _open([Reply(Reasoning("hm hm"), "one two three", usage=usage)]) as (model, client):
        response = await _ask(client, "hello")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        events = _events(response.content)
        deltas = _deltas(response.content)
        assert deltas[0] == {"role": "assistant", "reasoning_content": "hm "}
        assert [d["content"] for d in deltas if "content" in d] == ["one ", "two ", "three"]
        assert events[-2]["choices"][0]["finish_reason"] == "stop"
        assert events[-1]["choices"] == []
        assert events[-1]["usage"] == wire_usage(usage)
        assert response.content.endswith(b"data: [DONE]\n\n")
        assert model.spent_tokens == usage
        assert model.spent_usd == model.prices.cost_usd(usage)


async def test_requests_are_recorded_as_they_came() -> None:
    prompt = '--help "me" $HOME\n\u2028\u0085 \U0001f600 \''
    async with _open("ok") as (model, client):
        before = trio.current_time()
        await _ask(client, prompt, headers={"X-Session-ID": "ses_1"})
        (request,) = model.requests
        assert request.prompt == prompt
        assert request.session_id == "ses_1"
        assert before <= request.received_at <= trio.current_time()
        assert (request.number, request.is_title) == (0, False)


async def test_two_megabytes_arrive_and_return() -> None:
    text = "0123456789abcde\n" * (2**21 // 16)
    async with _open(lambda request: request.prompt) as (model, client):
        response = await _ask(client, text)
        assert model.requests[0].prompt == text
        assert "".join(d.get("content", "") for d in _deltas(response.content)) == text


async def test_a_list_is_given_out_in_order_and_then_refuses() -> None:
    async with _open(["one", Reply("two")]) as (model, client):
        for expected in ("one", "two"):
            response = await _ask(client, expected)
            assert _deltas(response.content)[0]["content"] == expected
        refused = await _ask(client, "three")
        assert refused.status_code == 400
        assert "no reply left for request 3, whose prompt is 'three'" in refused.text
        assert [request.prompt for request in model.unanswered] == ["three"]
        assert len(model.requests) == 3


async def test_a_function_may_be_async_and_sees_the_request() -> None:
    async def script(request: ModelRequest) -> str:
        await trio.lowlevel.checkpoint()
        return f"{request.number}:{request.prompt}"

    async with _open(script) as (_, client):
        first, second = await _ask(client, "a"), await _ask(client, "b")
        assert _deltas(first.content)[0]["content"] == "0:a"
        assert _deltas(second.content)[0]["content"] == "1:b"


async def test_titles_do_not_consume_the_script() -> None:
    async with _open(["one"], title="My title") as (model, client):
        by_model = await _ask(client, "t", model="scripted-title")
        by_words = await _ask(client, "t", system="You are a title generator. Be brief.")
        turn = await _ask(client, "t")
        for response in (by_model, by_words):
            assert "".join(d.get("content", "") for d in _deltas(response.content)) == "My title"
        assert _deltas(turn.content)[0]["content"] == "one"
        assert [r.is_title for r in model.title_requests] == [True, True]
        assert [r.is_title for r in model.requests] == [False]
        assert model.spent_tokens == turn_usage()


def turn_usage() -> Usage:
    """Return the tokens that a reply reports when it is not told."""
    usage = Reply().usage
    assert usage is not None
    return usage


@pytest.mark.parametrize("reply", ["ok", HttpError(500), Reply("a", Cut())], ids=repr)
async def test_the_connection_is_closed_after_each_answer(reply: Any) -> None:
    """As its headers promise: opencode would send its next request on it, to nobody."""
    body = b'{"stream": true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    async with open_scripted_model(reply) as model:
        url = httpx.URL(model.base_url)
        async with await trio.open_tcp_stream(url.host, url.port or 0) as stream:
            await stream.send_all(head % len(body) + body)
            with trio.fail_after(2):
                answer = b"".join([bytes(chunk) async for chunk in stream])
    assert b"connection: close" in answer


async def test_an_http_error_with_headers() -> None:
    error = HttpError(429, "slow down", code="rate_limit", headers={"Retry-After": "7"})
    async with _open(error) as (model, client):
        response = await _ask(client, "x")
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert response.json()["error"]["message"] == "slow down"
        assert response.json()["error"]["code"] == "rate_limit"
        assert model.spent_tokens == Usage()
        assert model.unanswered == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_disconnect_drops_the_connection(stream: bool) -> None:
    async with _open(["partial", ["partial", Disconnect()]]) as (model, client):
        await _ask(client, "x")
        with pytest.raises(httpx.RemoteProtocolError):
            await _ask(client, "x", stream=stream)
        await model.wait_until_quiet()
        assert model.spent_tokens == turn_usage()


async def test_a_cut_ends_the_stream_without_a_reason() -> None:
    async with _open([["partial", Cut()]]) as (model, client):
        response = await _ask(client, "x")
        (event,) = _events(response.content)
        assert event["choices"][0]["delta"]["content"] == "partial"
        assert event["choices"][0]["finish_reason"] is None
        assert b"[DONE]" not in response.content
        assert model.spent_tokens == Usage()


async def test_an_error_frame_and_raw_bytes() -> None:
    async with _open([["a", Raw(b"data: {garbage\n\n"), ErrorFrame("boom", code="x")]]) as (
        _,
        client,
    ):
        response = await _ask(client, "x")
        assert response.status_code == 200
        assert b"data: {garbage\n\n" in response.content
        last = response.content.split(b"\n\n")[-2].removeprefix(b"data: ")
        assert json.loads(last)["error"]["message"] == "boom"
        assert b"[DONE]" not in response.content


async def test_an_empty_answer_and_a_missing_finish_reason() -> None:
    async with _open([Reply(), Reply("a", finish=None), Reply("a", usage=None)]) as (_, client):
        empty = _events((await _ask(client, "x")).content)
        assert [e["choices"] and e["choices"][0]["finish_reason"] for e in empty] == ["stop", []]
        endless = _events((await _ask(client, "x")).content)
        assert {e["choices"][0]["finish_reason"] for e in endless if e["choices"]} == {None}
        unpriced = _events((await _ask(client, "x")).content)
        assert not any("usage" in e for e in unpriced)


async def test_without_streaming_the_answer_is_one_object() -> None:
    async with _open(Reply("hi", ToolCall("bash"))) as (model, client):
        response = await _ask(client, "x", stream=False)
        assert response.headers["content-type"] == "application/json"
        (choice,) = response.json()["choices"]
        assert choice["message"]["content"] == "hi"
        assert response.json()["usage"] == wire_usage(turn_usage())
        assert model.spent_tokens == turn_usage()


async def test_other_routes_and_bad_requests() -> None:
    async with _open("ok") as (model, client):
        models = (await client.get("/models")).json()
        assert [m["id"] for m in models["data"]] == ["scripted", "scripted-title"]
        assert (await client.get("/embeddings")).status_code == 404
        for body in (b"not json", b"[1]"):
            assert (await client.post("/chat/completions", content=body)).status_code == 400
        assert model.requests == []


async def test_the_configuration_of_a_run_points_at_the_model() -> None:
    async with open_scripted_model("ok", model_id="m", prices=Prices(3, 4, 0.5)) as model:
        extra = {"provider": {"scripted": {"options": {"timeout": 5}}}, "share": "disabled"}
        settings = model.run_config(permission={"bash": "deny"}, config_overrides=extra)
        config = settings.build_opencode_config_dict()
        assert (settings.model, settings.small_model) == ("scripted/m", "scripted/scripted-title")
        assert config["enabled_providers"] == ["scripted"]
        assert config["share"] == "disabled"
        assert config["permission"] == {"bash": "deny"}
        provider = config["provider"]["scripted"]
        assert provider["npm"] == "@ai-sdk/openai-compatible"
        assert provider["options"]["baseURL"] == model.base_url
        assert provider["options"]["timeout"] == 5
        assert provider["models"]["m"]["cost"] == {"input": 3, "output": 4, "cache_read": 0.5}
        assert provider["models"]["m"]["limit"] == {"context": 200_000, "output": 8_192}


async def test_a_program_has_a_scripted_model_or_a_real_one() -> None:
    def script(request: ModelRequest) -> str:
        return f"a {request.model}"

    names = ("scripted/hare", "scripted/tortoise")
    async with open_run_config(*names, script=script, permission="deny") as settings:
        assert (settings.model, settings.permission) == ("scripted/hare", "deny")
        provider = settings.build_opencode_config_dict()["provider"]["scripted"]
        assert list(provider["models"]) == ["hare", "tortoise", "scripted-title"]
        async with httpx.AsyncClient(base_url=provider["options"]["baseURL"]) as client:
            listed = (await client.get("/models")).json()["data"]
            assert [model["id"] for model in listed] == ["hare", "tortoise", "scripted-title"]
            body = {"model": "tortoise", "messages": []}
            answer = (await client.post("/chat/completions", json=body)).json()
            assert answer["choices"][0]["message"]["content"] == "a tortoise"
    async with open_run_config("provider/a", "other/b", script="", max_steps=3) as settings:
        assert settings == RunConfig(model="provider/a", max_steps=3)
    with pytest.raises(OpenCodeConfigError, match="cannot be mixed"):
        async with open_run_config("scripted/hare", "provider/a", script=""):
            pass


# ---- who is still connected -------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [Stall(), [Raw(b""), Stall()], ["partial", Stall()], Text("a b", delay_s=1000), Delay(1000)],
    ids=["before headers", "after headers", "after text", "between deltas", "before text"],
)
async def test_a_client_that_leaves_is_noticed(reply: Any) -> None:
    async with _open(reply) as (model, client), trio.open_nursery() as nursery:
        nursery.start_soon(_ask, client, "x")
        await model.wait_for_requests(1)
        assert model.open_requests == 1
        nursery.cancel_scope.cancel()
        # The books are read after the client has gone, so they are read outside its scope.
        with trio.CancelScope(shield=True), trio.fail_after(1):
            await model.wait_until_quiet()
    assert model.open_requests == 0


async def test_each_open_request_is_counted() -> None:
    async with _open(Stall()) as (model, client), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_ask, client, "x")
        await model.wait_for_requests(3)
        assert model.open_requests == 3
        nursery.cancel_scope.cancel()


async def test_waiting_is_a_checkpoint_and_returns_at_once_when_quiet() -> None:
    async with _open("ok") as (model, _):
        with trio.testing.assert_checkpoints():
            await model.wait_until_quiet()
        with trio.testing.assert_checkpoints():
            await model.wait_for_requests(0)


# ---- how the block ends -----------------------------------------------------------------------


async def test_the_block_ends_at_once_while_clients_wait() -> None:
    failures: list[Exception] = []

    async def ask(model: ScriptedModel) -> None:
        async with _client(model) as client:
            try:
                await _ask(client, "x")
            except httpx.TransportError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        with trio.fail_after(5):
            async with open_scripted_model([["a", Stall()], Stall()]) as model:
                nursery.start_soon(ask, model)
                nursery.start_soon(ask, model)
                await model.wait_for_requests(2)
    assert len(failures) == 2
    assert model.open_requests == 0


async def test_the_block_ends_although_a_client_is_frozen() -> None:
    flood = Raw(b"x" * 2**26)
    with trio.fail_after(10):
        async with open_scripted_model(flood) as model:
            url = httpx.URL(model.base_url)
            stream = await trio.open_tcp_stream(url.host, url.port or 0)
            body = b'{"stream": true}'
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            await stream.send_all(head % len(body) + body)
            await model.wait_for_requests(1)
            # So much has come that the rest is waiting for us.
            received = 0
            while received < 10**5:
                received += len(await stream.receive_some())
    await stream.aclose()


async def test_an_error_of_the_body_leaves_bare() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, trio.fail_after(5):
        async with open_scripted_model("ok"):
            raise error
    assert caught.value is error
    assert caught.value.__context__ is None


async def test_a_cancelled_block_is_left_at_once_and_bare() -> None:
    seen: list[BaseException] = []
    with trio.fail_after(5), trio.CancelScope() as scope:
        try:
            async with open_scripted_model(Stall()):
                scope.cancel()
                await trio.sleep_forever()
        except BaseException as error:
            seen.append(error)
            raise
    assert scope.cancelled_caught
    assert isinstance(seen[0], trio.Cancelled)


async def test_the_model_answers_while_a_cancelled_body_says_goodbye() -> None:
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with open_scripted_model("ok") as model, _client(model) as client:
            scope.cancel()
            with trio.CancelScope(shield=True):
                assert (await _ask(client, "bye")).status_code == 200


async def test_an_error_of_the_script_is_not_lost() -> None:
    error = AssertionError("the prompt was wrong")

    def script(_request: ModelRequest) -> str:
        raise error

    with pytest.raises(AssertionError) as caught:
        async with _open(script) as (model, client):
            response = await _ask(client, "x")
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "script_failed"
            assert "the prompt was wrong" in response.text
            assert model.script_error is error
            assert model.open_requests == 0
    assert caught.value is error


async def test_the_error_of_the_script_explains_that_of_the_body() -> None:
    async with _raising_client() as (script, ask):
        with pytest.raises(ZeroDivisionError) as caught:
            async with open_scripted_model(script) as model:
                await ask(model)
                raise KeyError("because of it")
    assert isinstance(caught.value.__context__, KeyError)


async def test_the_error_of_the_script_replaces_a_cancellation() -> None:
    async with _raising_client() as (script, ask):
        with pytest.raises(ZeroDivisionError), trio.CancelScope() as scope:
            async with open_scripted_model(script) as model:
                await ask(model)
                scope.cancel()
                await trio.sleep_forever()


@asynccontextmanager
async def _raising_client() -> Any:
    def script(_request: ModelRequest) -> str:
        return str(1 // 0)

    async def ask(model: ScriptedModel) -> None:
        async with _client(model) as client:
            await _ask(client, "x")

    with trio.fail_after(5):
        yield script, ask


@pytest.mark.parametrize("answer", [7, ToolCall("bash", {"set": {1}})], ids=["type", "not JSON"])
async def test_a_function_that_answers_nonsense(answer: Any) -> None:
    with pytest.raises(TypeError):
        async with _open(lambda _request: answer) as (_, client):
            assert (await _ask(client, "x")).status_code == 400


@pytest.mark.parametrize("script", [7, None, ["ok", 7]])
async def test_a_bad_script_is_refused_before_anything_is_served(script: Any) -> None:
    with pytest.raises(TypeError):
        async with open_scripted_model(script):
            pytest.fail("the block must not be entered")


async def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn.config", None)
    monkeypatch.delitem(sys.modules, "opencode_trio.testing._web_server", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'opencode-trio\[testing\]'"):
        async with open_scripted_model("ok"):
            pytest.fail("the block must not be entered")


# ---- the real opencode ------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What one bare `opencode run` printed."""

    returncode: int
    events: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the parts (or the errors) of one type of event."""
        return [e.get("part") or e["error"] for e in self.events if e["type"] == kind]

    @property
    def cost(self) -> float:
        return float(sum(part["cost"] for part in self.of("step_finish")))


@pytest.mark.opencode
async def test_opencode_takes_a_text_a_thought_and_a_tool(
    opencode_binary: str, tmp_path: Path
) -> None:
    prompt = "say \"hi\" and 'bye' $HOME \\n\n\u2028"
    script: list[Any] = [
        Reply(
            Reasoning("I should look"),
            ToolCall("bash", {"command": "echo hi", "description": "Say hi"}),
            usage=Usage(input=1000, output=200, reasoning=30, cache_read=400),
        ),
        Reply("all done", usage=Usage(input=7, output=3)),
    ]
    async with open_scripted_model(script, model_id="made-up") as model:
        outcome = await _opencode(
            opencode_binary, model, tmp_path, prompt, "--thinking", small_model="scripted/made-up"
        )
        assert outcome.returncode == 0
        assert [part["text"] for part in outcome.of("reasoning")] == ["I should look"]
        assert [part["state"]["output"] for part in outcome.of("tool_use")] == ["hi\n"]
        assert [part["text"] for part in outcome.of("text")] == ["all done"]
        first = outcome.of("step_finish")[0]["tokens"]
        assert first["total"] == 1630
        assert (first["input"], first["output"], first["reasoning"]) == (1000, 200, 30)
        assert first["cache"]["read"] == 400
        assert outcome.cost == pytest.approx(model.spent_usd, rel=1e-9)
        assert [request.prompt for request in model.requests] == [prompt, prompt]
        assert [request.tool_results for request in model.requests] == [(), ("hi\n",)]
        assert "bash" in model.requests[0].tools
        assert len(model.title_requests) == 1
        assert model.open_requests == 0


@pytest.mark.opencode
@pytest.mark.parametrize(
    ("reply", "returncode", "reason", "error"),
    [
        (HttpError(401, "bad key", code="invalid_api_key"), 1, None, "APIError"),
        (Reply("cut of", finish="length"), 0, "length", None),
        (Reply("part", finish="content_filter"), 1, "content-filter", "ContentFilterError"),
        (Reply(), 0, "stop", None),
    ],
    ids=["401", "length", "content filter", "empty"],
)
async def test_opencode_reports_how_the_model_ended(
    *,
    opencode_binary: str,
    tmp_path: Path,
    reply: Any,
    returncode: int,
    reason: str | None,
    error: str | None,
) -> None:
    async with open_scripted_model([reply]) as model:
        outcome = await _opencode(opencode_binary, model, tmp_path, "go")
        assert outcome.returncode == returncode
        assert [part["reason"] for part in outcome.of("step_finish")] == (
            [reason] if reason else []
        )
        assert [problem["name"] for problem in outcome.of("error")] == ([error] if error else [])
        assert len(model.requests) == 1
        assert outcome.cost == model.spent_usd


@pytest.mark.opencode
async def test_opencode_shows_that_the_script_is_exhausted(
    opencode_binary: str, tmp_path: Path
) -> None:
    async with open_scripted_model([]) as model:
        outcome = await _opencode(opencode_binary, model, tmp_path, "go")
        (error,) = outcome.of("error")
        assert "no reply left for request 1" in error["data"]["message"]
        assert [request.prompt for request in model.unanswered] == ["go"]


@pytest.mark.opencode
async def test_opencode_takes_a_cut_stream_for_an_unknown_finish(
    opencode_binary: str, tmp_path: Path
) -> None:
    # It asks again without end: the last reply stops it.
    async with open_scripted_model([["a ", Cut()], Reply("b", finish=None), "whole"]) as model:
        outcome = await _opencode(opencode_binary, model, tmp_path, "go")
        assert [part["reason"] for part in outcome.of("step_finish")] == [
            "unknown",
            "unknown",
            "stop",
        ]
        assert len(model.requests) == 3
        assert outcome.cost == pytest.approx(model.spent_usd, rel=1e-9)


@pytest.mark.opencode
async def test_opencode_repeats_a_request_when_the_connection_breaks(
    opencode_binary: str, tmp_path: Path
) -> None:
    async with open_scripted_model([["partial ", Disconnect()], "whole"]) as model:
        outcome = await _opencode(opencode_binary, model, tmp_path, "go")
        assert [part["reason"] for part in outcome.of("step_finish")] == ["stop"]
        assert outcome.of("text")[-1]["text"] == "whole"
        assert len(model.requests) == 2


@pytest.mark.opencode
async def test_opencode_killed_in_a_stall_leaves_no_open_request(
    opencode_binary: str, tmp_path: Path
) -> None:
    async with (
        open_scripted_model([["partial ", Stall()]]) as model,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_opencode, opencode_binary, model, tmp_path, "go")
        with trio.fail_after(60):
            await model.wait_for_requests(1)
        assert model.open_requests >= 1
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await model.wait_until_quiet()
    assert len(model.requests) == 1


async def _opencode(
    binary: str, model: ScriptedModel, scratch: Path, prompt: str, *flags: str, **fields: Any
) -> Outcome:
    """Run the bare binary in a home of its own, with nothing but the model's configuration."""
    workspace = scratch / "workspace"
    workspace.mkdir()
    settings = model.run_config(**fields)
    config = {**settings.build_opencode_config_dict(), "model": settings.model}
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PWD": str(workspace),
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
        **dict.fromkeys(_OFFLINE, "1"),
    }
    with trio.fail_after(60):
        done = await trio.run_process(
            [binary, "run", "--format", "json", *flags],
            stdin=prompt.encode(),
            capture_stdout=True,
            capture_stderr=True,
            cwd=workspace,
            env=environment,
            check=False,
            deliver_cancel=_kill,
        )
    lines = [line for line in done.stdout.split(b"\n") if line]
    return Outcome(done.returncode, [json.loads(line) for line in lines])


_OFFLINE = (
    "OPENCODE_DISABLE_AUTOUPDATE",
    "OPENCODE_DISABLE_LSP_DOWNLOAD",
    "OPENCODE_DISABLE_MODELS_FETCH",
    "OPENCODE_PURE",
)


async def _kill(process: trio.Process) -> None:
    process.send_signal(signal.SIGKILL)


# ---- helpers ----------------------------------------------------------------------------------


@asynccontextmanager
async def _open(script: Script, **options: Any) -> Any:
    """Open a model and a client for it, for at most ten seconds."""
    with trio.fail_after(10):
        async with open_scripted_model(script, **options) as model, _client(model) as client:
            yield model, client


def _client(model: ScriptedModel) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=model.base_url, trust_env=False, timeout=None)  # noqa: S113


async def _ask(
    client: httpx.AsyncClient,
    prompt: str,
    *,
    model: str = "scripted",
    system: str = "be good",
    stream: bool = True,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    body = {"model": model, "stream": stream, "messages": messages}
    return await client.post("/chat/completions", json=body, headers=headers)


def _events(content: bytes) -> list[dict[str, Any]]:
    frames = [frame.removeprefix(b"data: ") for frame in content.split(b"\n\n") if frame]
    return [json.loads(frame) for frame in frames if frame != b"[DONE]"]


def _deltas(content: bytes) -> list[dict[str, Any]]:
    return [c["delta"] for e in _events(content) for c in e.get("choices", ())]
