"""What errors carry, and that it survives a trip to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from opencode_trio import errors
from opencode_trio._turn.ending import turn_error
from opencode_trio.errors import (
    STDERR_IN_A_MESSAGE,
    OpenCodeBinaryNotFoundError,
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeError,
    OpenCodeLimitError,
    OpenCodeProcessError,
    OpenCodeServerError,
    OpenCodeTurnError,
    OpenCodeVersionError,
)
from opencode_trio.events import ErrorInfo
from opencode_trio.results import RunResult

PARTIAL = RunResult(final_text="half", events=[{"type": "text"}], cost_by_session={"ses": 0.5})
RATE_LIMIT = ErrorInfo("APIError", "slow down", 429, is_retryable=True, data={"ref": "x"})
COMMON: dict[str, Any] = {"partial": PARTIAL, "stderr": "boom", "argv": ["opencode", "run"]}
CARRIED = {"partial": PARTIAL, "stderr": "boom", "argv": ("opencode", "run")}
NOTHING = {"partial": None, "stderr": "", "argv": ()}

TREE: list[tuple[type[OpenCodeError], tuple[type, ...], dict[str, Any], dict[str, Any]]] = [
    (OpenCodeError, (Exception,), COMMON, CARRIED),
    (OpenCodeConfigError, (OpenCodeError, ValueError), COMMON, CARRIED),
    (OpenCodeBinaryNotFoundError, (OpenCodeError,), COMMON, CARRIED),
    (OpenCodeCancelledError, (OpenCodeError,), COMMON, CARRIED),
    (OpenCodeVersionError, (OpenCodeError,), {"version": "2.0"}, {"version": "2.0"} | NOTHING),
    (OpenCodeProcessError, (OpenCodeError,), {"exit_code": -9} | COMMON, {"exit_code": -9}),
    (OpenCodeServerError, (OpenCodeError,), {"status_code": 500} | COMMON, {"status_code": 500}),
    (
        OpenCodeTurnError,
        (OpenCodeError,),
        {"error": RATE_LIMIT} | COMMON,
        {"error": RATE_LIMIT, "name": "APIError", "status_code": 429, "is_retryable": True},
    ),
    (
        OpenCodeLimitError,
        (OpenCodeError,),
        {"limit": "max_steps", "allowed": 3} | COMMON,
        {"limit": "max_steps", "allowed": 3},
    ),
]
KINDS = [row[0] for row in TREE]

DEFAULTS: dict[type[OpenCodeError], dict[str, Any]] = {
    OpenCodeVersionError: {"version": ""},
    OpenCodeProcessError: {"exit_code": None},
    OpenCodeServerError: {"status_code": None},
    OpenCodeTurnError: {
        "error": ErrorInfo("UnknownError"),
        "name": "UnknownError",
        "status_code": None,
        "is_retryable": None,
    },
    OpenCodeLimitError: {"limit": "", "allowed": None},
}


def test_the_table_has_every_error() -> None:
    defined = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    assert {kind for kind in defined if issubclass(kind, Exception)} == set(KINDS)


@pytest.mark.parametrize(("kind", "bases", "given", "carried"), TREE)
def test_what_an_error_carries(kind: Any, bases: Any, given: Any, carried: Any) -> None:
    error = kind("what happened", **given)
    assert kind.__bases__ == bases
    assert error.args == ("what happened",)
    expected = (CARRIED if "partial" in given else {}) | carried
    assert {name: getattr(error, name) for name in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_error_carries_by_default(kind: Any) -> None:
    expected = NOTHING | DEFAULTS.get(kind, {})
    error = kind()
    assert {name: getattr(error, name) for name in expected} == expected
    assert str(error) == ""


@pytest.mark.parametrize(
    "trip",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy],  # noqa: S301 - our own bytes
    ids=["pickle", "copy"],
)
@pytest.mark.parametrize(("kind", "bases", "given", "carried"), TREE)
def test_a_copy_carries_the_same(
    trip: Any, kind: Any, bases: Any, given: Any, carried: Any
) -> None:
    error = kind("what happened", **given)
    there = trip(error)
    assert type(there) is kind
    assert there.args == error.args
    assert vars(there) == vars(error)
    assert str(there) == str(error)


UNKNOWN = "ProviderModelNotFoundError: Model not found: {}. Did you mean: {}?"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (UNKNOWN.format("anthropic/opus", "opus, opus-2"), "'anthropic' .* set ANTHROPIC_API_KEY,"),
        (
            UNKNOWN.format("openrouter/z-ai/glm-5", "z-ai/glm-5"),
            "'z-ai/glm-5' .* OPENROUTER_API_KEY",
        ),
        (UNKNOWN.format("google/x", "y, x"), "GEMINI_API_KEY, or run `opencode auth login`"),
        (UNKNOWN.format("corp/x", "x"), "set the environment variable of its API key"),
        (UNKNOWN.format("anthropic/opsu", "opus"), "^UnknownError: Provider.*Did you mean: opus"),
        ("Model not found: nope/x.", "^UnknownError: Model not found"),
    ],
)
def test_a_model_of_a_provider_without_credentials_is_not_called_misspelt(
    said: str, words: str
) -> None:
    error = turn_error(ErrorInfo("UnknownError", said))
    assert re.search(words, str(error))
    assert error.error.message == said


@pytest.mark.parametrize(
    ("info", "provider", "text"),
    [
        (ErrorInfo("APIError", "no", 401), "", "APIError (HTTP 401): no"),
        (ErrorInfo("APIError", "no", 401), "corp", "APIError (HTTP 401): no (provider 'corp')"),
        (
            ErrorInfo("APIError", "no", data={"metadata": {"url": "https://u:k@h:8/v1?key=k"}}),
            "corp",
            "APIError: no (provider 'corp', https://h:8/v1)",
        ),
        (ErrorInfo("APIError", "no", data={"metadata": {"url": "http://h/"}}), "", "(http://h/)"),
        (ErrorInfo("ContextOverflowError", "long"), "corp", "ContextOverflowError: long"),
    ],
)
def test_a_failed_request_names_who_was_asked(info: ErrorInfo, provider: str, text: str) -> None:
    assert str(turn_error(info, provider=provider)).endswith(text)


@pytest.mark.parametrize(
    ("said", "stderr", "text"),
    [
        ('no "x"', 'level=ERROR error="no \\"x\\"" cause="at 1:2"', "APIError: why"),
        ('no "x"', "something else", "APIError: why\nstderr (its end):\nsomething else"),
        ("", "something else", "APIError: why\nstderr (its end):\nsomething else"),
    ],
)
def test_a_log_that_only_repeats_the_providers_words_is_not_in_the_text(
    said: str, stderr: str, text: str
) -> None:
    error = OpenCodeTurnError("APIError: why", error=ErrorInfo("APIError", said), stderr=stderr)
    assert str(error) == text
    assert error.stderr == stderr


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        ("", "it broke"),
        (" \n\t", "it broke"),
        ("  why\n", "it broke\nstderr (its end):\nwhy"),
        ("a\nb", "it broke\nstderr (its end):\na\nb"),
    ],
)
def test_the_text_ends_with_the_end_of_stderr(stderr: str, text: str) -> None:
    assert str(OpenCodeError("it broke", stderr=stderr)) == text


@pytest.mark.parametrize("more", [0, 1, 100_000])
def test_the_text_is_bounded(more: int) -> None:
    stderr = "a" * more + "b" * STDERR_IN_A_MESSAGE
    error = OpenCodeError("it broke", stderr=stderr)
    assert str(error) == "it broke\nstderr (its end):\n" + "b" * STDERR_IN_A_MESSAGE
    assert error.stderr == stderr


def test_the_command_line_is_not_in_the_text() -> None:
    assert "secret" not in str(OpenCodeError("it broke", argv=["opencode", "secret"]))
