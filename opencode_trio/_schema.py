"""JSON schemas of Python types: what a model is told about a class.

Covers what JSON can say: attrs classes, dataclasses, ``TypedDict``, ``str``, ``int``, ``float``,
``bool``, ``None``, ``list``, ``tuple[X, ...]``, ``dict[str, X]``, ``X | Y``, ``Literal``,
enumerations, and ``Any``.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import attrs

from opencode_trio._json import Json
from opencode_trio.errors import OpenCodeConfigError

SCALARS: Mapping[object, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
    dict: {"type": "object"},
    list: {"type": "array"},
}


def is_described(kind: object) -> bool:
    """Whether a type is a class whose fields can be told: attrs, a dataclass or a TypedDict."""
    is_class = isinstance(kind, type) and (attrs.has(kind) or dataclasses.is_dataclass(kind))
    return is_class or is_typeddict(kind)


def schema_of(kind: Any) -> tuple[Json, list[Any]]:
    """Write the JSON schema of a type; return it with the classes and unions in it.

    Raises:
        OpenCodeConfigError: JSON has no such thing; the text names the field.
    """
    builder = _Builder()
    schema = builder.schema(kind)
    if builder.definitions:
        schema = {**schema, "$defs": builder.definitions}
    return schema, builder.kinds


@attrs.define
class _Builder:
    definitions: dict[str, Json] = attrs.field(factory=dict[str, Json])
    kinds: list[Any] = attrs.field(factory=list[Any])
    _inside: list[type] = attrs.field(factory=list[type])
    _where: list[str] = attrs.field(factory=list[str])

    def schema(self, kind: Any) -> Json:
        if is_described(kind):
            self.kinds.append(kind)
            return self._class(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"enum": [member.value for member in kind]}
        if (generic := self._generic(kind)) is not None:
            return generic
        try:
            return dict(SCALARS[kind])
        except (KeyError, TypeError):
            at = "".join(f"{name}: " for name in self._where[-1:])
            raise OpenCodeConfigError(f"output: {at}{kind!r} has no JSON schema") from None

    def _generic(self, kind: Any) -> Json | None:
        origin, args = get_origin(kind), get_args(kind)
        if origin in (Annotated, Required, NotRequired):
            return self.schema(args[0])
        if origin is Literal:
            return {"enum": list(args)}
        if origin in (Union, types.UnionType):
            self.kinds.append(kind)
            return {"anyOf": [self.schema(arg) for arg in args]}
        if origin in (list, Sequence) or (origin is tuple and args[1:] == (...,)):
            return {"type": "array", "items": self.schema(args[0])}
        if origin in (dict, Mapping) and args[0] is str:
            return {"type": "object", "additionalProperties": self.schema(args[1])}
        return None

    def _class(self, kind: type) -> Json:
        """Describe a class in place; one that contains itself, by reference."""
        if kind in self._inside:
            self.definitions.setdefault(kind.__name__, {})
            return {"$ref": f"#/$defs/{kind.__name__}"}
        self._inside.append(kind)
        hints = _hints_of(kind)
        required = _fields_of(kind)
        schema: Json = {
            "type": "object",
            "properties": {name: self._field(kind, name, hints) for name in required},
            "required": [name for name, is_required in required.items() if is_required],
            "additionalProperties": False,
        }
        self._inside.pop()
        if kind.__name__ in self.definitions:
            self.definitions[kind.__name__] = schema
        return schema

    def _field(self, kind: type, name: str, hints: Mapping[str, Any]) -> Json:
        self._where.append(f"{kind.__name__}.{name}")
        schema = self.schema(hints.get(name, Any))
        self._where.pop()
        return schema


def _hints_of(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise OpenCodeConfigError(
            f"output: {kind.__name__}: the name {error.name!r} in its annotations cannot be found; "
            "define the classes at the top of a module"
        ) from error


def _fields_of(kind: type) -> dict[str, bool]:
    """Return the fields that an answer can have, each with whether it must."""
    if is_typeddict(kind):
        keys: frozenset[str] = kind.__required_keys__  # type: ignore[attr-defined]
        # It does not see `NotRequired` in annotations that are text.
        marks = {name: get_origin(hint) for name, hint in _hints_of(kind).items()}
        return {
            name: mark is Required or (mark is not NotRequired and name in keys)
            for name, mark in marks.items()
        }
    if attrs.has(kind):
        return {f.name: f.default is attrs.NOTHING for f in attrs.fields(kind) if f.init}
    missing = dataclasses.MISSING
    return {
        f.name: f.default is missing and f.default_factory is missing
        for f in dataclasses.fields(kind)
        if f.init
    }
