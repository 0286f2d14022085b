"""The type variables of generic classes and functions.

Each has the default `Any`, so that a bare ``RunResult`` is a result of any kind.  The language
knows defaults from 3.13 on; type checkers, which are all who ask, know them for any version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar, TypeVarTuple

    AnswerT = TypeVar("AnswerT", default=Any)
    StructuredT_co = TypeVar("StructuredT_co", covariant=True, default=Any)
    ValueT = TypeVar("ValueT")
    ValueT_co = TypeVar("ValueT_co", covariant=True, default=Any)
    VerdictT = TypeVar("VerdictT", default=Any)
else:
    from typing import TypeVar, TypeVarTuple

    AnswerT = TypeVar("AnswerT")
    StructuredT_co = TypeVar("StructuredT_co", covariant=True)
    ValueT = TypeVar("ValueT")
    ValueT_co = TypeVar("ValueT_co", covariant=True)
    VerdictT = TypeVar("VerdictT")

ArgsT = TypeVarTuple("ArgsT")
"""What an async function gets beside its session."""
