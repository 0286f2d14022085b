"""Read JSON without trusting it: a field of a wrong type reads as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

from opencode_trio.events import ErrorInfo, TokenUsage

Json: TypeAlias = dict[str, Any]
"""A JSON object."""

MAX_NUMBER = 1e18
"""Far above any count or clock; Python also reads NaN, Infinity and integers of any size."""


# `isinstance` tells a type checker what a value is, and nothing of what is in it; these do.


def is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def text_of(source: Json, key: str) -> str:
    value = source.get(key)
    return value if isinstance(value, str) else ""


def text_or_none_of(source: Json, key: str) -> str | None:
    value = source.get(key)
    return value if isinstance(value, str) else None


def flag_of(source: Json, key: str, default: bool = False) -> bool:
    value = source.get(key)
    return value if isinstance(value, bool) else default


def number_of(source: Json, key: str) -> float:
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if -MAX_NUMBER < value < MAX_NUMBER else 0.0


def object_of(value: object) -> Json:
    return value if is_object(value) else {}


def list_of(value: object) -> list[object]:
    return value if is_list(value) else []


def objects_of(value: object) -> list[Json]:
    return [item for item in list_of(value) if is_object(item)]


def texts_of(value: object) -> tuple[str, ...]:
    return tuple(v for v in list_of(value) if isinstance(v, str))


def joined_text_of(value: object) -> str:
    """Read text that stands there whole, or as a list of pieces."""
    if isinstance(value, str):
        return value
    pieces = list_of(value)
    return "".join(p if isinstance(p, str) else _piece_of(object_of(p)) for p in pieces)


def _piece_of(piece: Json) -> str:
    return text_of(piece, "text") or text_of(piece, "content")


def session_id_of(*sources: Json) -> str | None:
    """Return the first session id that one of the sources names."""
    for source in sources:
        if found := text_of(source, "sessionID"):
            return found
    return None


def tokens_of(value: object) -> TokenUsage:
    tokens = object_of(value)
    cache = object_of(tokens.get("cache"))
    counts = {key: int(number_of(tokens, key)) for key in ("input", "output", "reasoning")}
    read, write = int(number_of(cache, "read")), int(number_of(cache, "write"))
    # While a message is being written opencode gives no total; it is the sum.
    total = int(number_of(tokens, "total")) or sum(counts.values()) + read + write
    return TokenUsage(total=total, cache_read=read, cache_write=write, **counts)


def error_info_of(value: object) -> ErrorInfo:
    """Read opencode's ``{"name", "data"}``; 2.x says ``{"type", "message"}``."""
    error = object_of(value)
    data = object_of(error.get("data"))
    status = data.get("statusCode")
    retryable = data.get("isRetryable")
    return ErrorInfo(
        name=text_of(error, "name") or text_of(error, "type") or "UnknownError",
        message=text_of(data, "message") or text_of(error, "message"),
        status_code=status if isinstance(status, int) and not isinstance(status, bool) else None,
        is_retryable=retryable if isinstance(retryable, bool) else None,
        data=data,
    )
