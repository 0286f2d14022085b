"""How a turn ended, and what that means to its caller: a result with a reason, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from opencode_trio._json import object_of, text_of
from opencode_trio.errors import OpenCodeCancelledError, OpenCodeError, OpenCodeTurnError
from opencode_trio.events import (
    ErrorInfo,
    ErrorReported,
    Event,
    MessageUpdated,
    StepFinished,
    StepStarted,
    TextPart,
)
from opencode_trio.results import StopReason

ENDS_OF_A_STEP: Mapping[str, StopReason] = {
    "stop": "completed",
    "length": "length",
    "content-filter": "content_filter",
    # After tool calls another step follows, unless a refused permission ended the loop.
    "tool-calls": "blocked",
}
"""By the finish reason of the last step.  Any other reason (``unknown`` is a stream that broke
off) makes opencode ask the model again."""


FAILURES: Mapping[str, StopReason] = {
    "MessageAbortedError": "cancelled",
    "ContentFilterError": "content_filter",
    "MessageOutputLengthError": "length",
}
"""By the name of the last error, when no step was finished after it."""


ANSWERED: frozenset[StopReason] = frozenset({"completed", "length", "content_filter"})
"""Ends that stand whatever becomes of the process."""


OVER: frozenset[StopReason] = frozenset({*ANSWERED, "empty"})
"""Ends after which opencode has nothing left to do."""


RETURNED: frozenset[StopReason] = frozenset({*ANSWERED, "empty", "blocked"})
"""Ends that are a result; the others are errors."""


def end_if_nothing_follows(event: Event) -> StopReason | None:
    """Name the turn's end, should this event be its last; ``None`` if it changes nothing."""
    match event:
        # The second: what had ended was a compaction's summary; the model is asked again.
        case StepStarted() | TextPart(is_synthetic=True, metadata={"compaction_continue": _}):
            return "incomplete"
        case StepFinished(reason=reason):
            return ENDS_OF_A_STEP.get(reason, "incomplete")
        case MessageUpdated(structured=answer) if answer is not None:
            return "completed"
        case ErrorReported(error=error) | MessageUpdated(error=error) if error is not None:
            return FAILURES.get(error.name, "error")
        case MessageUpdated(role="assistant", is_complete=True, finish=None):
            # Over without an end: aborted while it waited for its provider to recover.  opencode
            # (seen in 1.14 to 1.18) says it in no other way.
            return "cancelled"
        case _:
            return None


UNKNOWN_MODEL = re.compile(r"Model not found: ([^\s/]+)/(\S+?)\. Did you mean: (.*)\?")
"""What opencode says of a model that it cannot use, with names of models that are like it."""


PROVIDER_FAILED = (
    "a request to the provider %s failed, and opencode may repeat it up to five times, for more "
    "than a minute: %s"
)
"""A warning, for it is silent meanwhile."""


CREDENTIALS = {
    "amazon-bedrock": "AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "azure": "AZURE_RESOURCE_NAME and AZURE_API_KEY",
    "cerebras": "CEREBRAS_API_KEY",
    "cohere": "COHERE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "fireworks-ai": "FIREWORKS_API_KEY",
    "github-copilot": "GITHUB_TOKEN",
    "google": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "huggingface": "HF_TOKEN",
    "mistral": "MISTRAL_API_KEY",
    "moonshotai": "MOONSHOT_API_KEY",
    "nvidia": "NVIDIA_API_KEY",
    "openai": "OPENAI_API_KEY",
    "opencode": "OPENCODE_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "togetherai": "TOGETHER_API_KEY",
    "vercel": "AI_GATEWAY_API_KEY",
    "xai": "XAI_API_KEY",
    "zai": "ZHIPU_API_KEY",
}
"""Environment variables that hold the keys of well-known providers: from opencode 1.18's catalogue,
which knows two hundred more."""


def error_of_end(
    stop: StopReason,
    last_error: ErrorInfo | None,
    *,
    broken_off: OpenCodeError,
    provider: str = "",
) -> OpenCodeError | None:
    """Return the error that this end is; ``None`` if it is a result.

    Args:
        stop: what the end is called.
        last_error: the last failure that was reported.
        broken_off: the error of an end in the middle of the turn.
        provider: whose model was asked, if that is known.
    """
    if stop in RETURNED:
        return None
    if stop == "cancelled":
        return OpenCodeCancelledError("the turn was aborted, by opencode or by another client")
    if stop == "error" and last_error is not None:
        return turn_error(last_error, provider=provider)
    return broken_off


def turn_error(error: ErrorInfo, *, provider: str = "") -> OpenCodeTurnError:
    """Put a reported failure into an error, with what opencode's words leave out."""
    found = UNKNOWN_MODEL.search(error.message)
    if found and found[2] in found[3].split(", "):  # it knows the model, but may not use it
        return OpenCodeTurnError(_no_credentials(found[1], found[2]), error=error)
    status = f" (HTTP {error.status_code})" if error.status_code else ""
    text = f"{error.name}{status}: {error.message}{_asked(error, provider)}"
    return OpenCodeTurnError(text, error=error)


def _no_credentials(provider: str, model: str) -> str:
    variables = CREDENTIALS.get(provider, "the environment variable of its API key")
    return (
        f"the provider {provider!r} of the model {model!r} has no credentials: set {variables}, "
        "or run `opencode auth login`. If it has, see whether `enabled_providers` or "
        "`disabled_providers` switches it off"
    )


def _asked(error: ErrorInfo, provider: str) -> str:
    """Say who was asked, and where: opencode does not."""
    url = urlsplit(text_of(object_of(error.data.get("metadata")), "url"))
    # A key can stand before the host, or in the query.
    place = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}" if url.netloc else ""
    if error.name != "APIError" or not (provider or place):
        return ""
    return f" ({', '.join(filter(None, [provider and f'provider {provider!r}', place]))})"
