"""Every call against the server's own description of itself, and every shape of its failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opencode_trio._protocol.calls import Call, UnexpectedAnswerError, failure_text
from opencode_trio._protocol.v1 import routes as endpoints
from opencode_trio._protocol.values import Attachment, Command, Prompt
from opencode_trio.errors import OpenCodeConfigError

SES, MSG, PRT, PER, QUE = "ses_1", "msg_1", "prt_1", "per_1", "que_1"
RULE = {"permission": "bash", "pattern": "*", "action": "deny"}
HI = Prompt(session_id=SES, message_id=MSG, text="hi")

CALLS: dict[str, tuple[Call[Any], str]] = {
    "version": (endpoints.version(), "GET /global/health"),
    "agents": (endpoints.agents(), "GET /agent"),
    "config": (endpoints.config(), "GET /config"),
    "providers": (endpoints.providers(), "GET /config/providers"),
    "working": (endpoints.working(), "GET /session/status"),
    "create": (endpoints.create_session(title="t", rules=[RULE]), "POST /session"),
    "list": (endpoints.list_sessions(), "GET /session"),
    "get": (endpoints.get_session(SES), "GET /session/{sessionID}"),
    "rules": (endpoints.add_rules(SES, [RULE]), "PATCH /session/{sessionID}"),
    "delete": (endpoints.delete_session(SES), "DELETE /session/{sessionID}"),
    "fork": (endpoints.fork_session(SES, MSG), "POST /session/{sessionID}/fork"),
    "children": (endpoints.children(SES), "GET /session/{sessionID}/children"),
    "abort": (endpoints.abort(SES), "POST /session/{sessionID}/abort"),
    "todo": (endpoints.todo(SES), "GET /session/{sessionID}/todo"),
    "diff": (endpoints.diff(SES, MSG), "GET /session/{sessionID}/diff"),
    "messages": (endpoints.messages(SES, 5), "GET /session/{sessionID}/message"),
    "message": (endpoints.message(SES, MSG), "GET /session/{sessionID}/message/{messageID}"),
    "forget": (
        endpoints.delete_message(SES, MSG),
        "DELETE /session/{sessionID}/message/{messageID}",
    ),
    "revert": (endpoints.revert(SES, MSG, PRT), "POST /session/{sessionID}/revert"),
    "unrevert": (endpoints.unrevert(SES), "POST /session/{sessionID}/unrevert"),
    "prompt": (
        endpoints.prompt(
            Prompt(
                session_id=SES,
                message_id=MSG,
                text="hi",
                files=[Attachment(b"x", "text/plain", "x.txt")],
                model="p/m/x",
                agent="a",
                variant="v",
                system="s",
                schema={"type": "object"},
            )
        ),
        "POST /session/{sessionID}/message",
    ),
    "command": (
        endpoints.command(
            Command(session_id=SES, message_id=MSG, name="c", arguments="a", model="p/m")
        ),
        "POST /session/{sessionID}/command",
    ),
    "note": (
        endpoints.note(SES, message_id=MSG, text="hi", model="p/m"),
        "POST /session/{sessionID}/message",
    ),
    "shell": (
        endpoints.shell(SES, command="ls", agent="build", model="p/m"),
        "POST /session/{sessionID}/shell",
    ),
    "summarize": (
        endpoints.summarize(SES, model="p/m"),
        "POST /session/{sessionID}/summarize",
    ),
    "permissions": (endpoints.open_asks()[0], "GET /permission"),
    "reply": (
        endpoints.reply_permission(SES, PER, "reject", "no"),
        "POST /permission/{requestID}/reply",
    ),
    "questions": (endpoints.open_asks()[1], "GET /question"),
    "answer": (endpoints.reply_question(SES, QUE, [["a"]]), "POST /question/{requestID}/reply"),
    "dismiss": (endpoints.reject_question(SES, QUE), "POST /question/{requestID}/reject"),
}


# The routes of opencode 1.18.34 and the fields of their bodies, from its ``GET /doc``.
ROUTES: dict[str, Any] = json.loads((Path(__file__).parent / "routes-1.18.34.json").read_text())


@pytest.mark.parametrize("name", CALLS)
def test_the_server_knows_the_call(name: str):
    call, route = CALLS[name]
    known = ROUTES[route]
    path = route.split(" ")[1]
    request = "".join(call.path.split("/")[2:3])
    for placeholder, value in {"sessionID": SES, "messageID": MSG, "requestID": request}.items():
        path = path.replace(f"{{{placeholder}}}", value)
    assert f"{call.method} {call.path}" == f"{route.split(' ')[0]} {path}"
    assert set(call.query) <= set(known["query"])
    body = set(call.body or {})
    assert body <= set(known["body"])
    assert set(known["required"]) <= body


def test_bodies():
    text = {"type": "text", "text": "hi"}
    assert endpoints.prompt(HI).body == {"messageID": MSG, "parts": [text]}
    body = CALLS["prompt"][0].body
    assert body is not None
    assert body["model"] == {"providerID": "p", "modelID": "m/x"}
    assert body["parts"][1:] == [
        {
            "type": "file",
            "mime": "text/plain",
            "url": "data:text/plain;base64,eA==",
            "filename": "x.txt",
        }
    ]
    assert "tools" not in body
    assert endpoints.create_session().body == {}
    assert endpoints.reply_permission(SES, PER, "once").body == {"reply": "once"}
    assert endpoints.messages(SES).query == {}
    assert endpoints.version().inside("/a b").query == {"directory": "/a b"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: endpoints.get_session("abc"),
        lambda: endpoints.fork_session(SES, "ses_1"),
        lambda: endpoints.abort("ses_1/../x"),
        lambda: endpoints.reply_permission(SES, "que_1", "once"),
        lambda: endpoints.reply_question(SES, "per_1", []),
        lambda: endpoints.revert(SES, MSG, "msg_1"),
    ],
)
def test_a_wrong_id_is_refused_before_it_is_sent(make: Any):
    with pytest.raises(OpenCodeConfigError):
        make()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (endpoints.version(), []),
        (endpoints.children(SES), {}),
        (endpoints.children(SES), [1]),
        (endpoints.abort(SES), "true"),
    ],
)
def test_an_answer_of_another_shape(call: Call[Any], answer: object):
    with pytest.raises(UnexpectedAnswerError):
        call.read(answer)


@pytest.mark.parametrize(
    ("status", "answer", "text"),
    [
        (
            500,
            {"name": "UnknownError", "data": {"message": "m", "ref": "e"}},
            "UnknownError: m (log",
        ),
        (409, {"_tag": "SessionBusyError", "message": "busy"}, "SessionBusyError: busy"),
        (401, None, "password"),
        (502, None, "no explanation"),
        (400, {"data": []}, "error: no explanation"),
        (
            400,
            {"name": "ConfigInvalidError", "data": {"issues": [{"path": ["x"]}], "path": "/w"}},
            'ConfigInvalidError: {"issues": [{"path": ["x"]}], "path": "/w"}',
        ),
    ],
)
def test_failures_have_three_shapes(status: int, answer: object, text: str):
    assert failure_text(status, answer).startswith(text) or text in failure_text(status, answer)
