"""JSON schemas of Python types: what a model is told about an attrs class.

Covers what JSON can say: attrs classes, ``str``, ``int``, ``float``, ``bool``, ``None``, ``list``,
``tuple[X, ...]``, ``dict[str, X]``, ``X | Y``, ``Literal``, enumerations, and ``Any``.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

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


def schema_of(kind: Any) -> Json:
    """Write the JSON schema of a type.

    Raises:
        OpenCodeConfigError: JSON has no such thing.
    """
    builder = _Builder()
    schema = builder.schema(kind)
    return {**schema, "$defs": builder.definitions} if builder.definitions else schema


@attrs.define
class _Builder:
    definitions: dict[str, Json] = attrs.field(factory=dict[str, Json])
    _inside: list[type] = attrs.field(factory=list[type])

    def schema(self, kind: Any) -> Json:
        if isinstance(kind, type) and attrs.has(kind):
            return self._class(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"enum": [member.value for member in kind]}
        if (generic := self._generic(kind)) is not None:
            return generic
        try:
            return dict(SCALARS[kind])
        except (KeyError, TypeError):
            raise OpenCodeConfigError(f"output: {kind!r} has no JSON schema") from None

    def _generic(self, kind: Any) -> Json | None:
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.schema(args[0])
        if origin is Literal:
            return {"enum": list(args)}
        if origin in (Union, types.UnionType):
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
        hints = get_type_hints(kind, include_extras=True)
        fields = [field for field in attrs.fields(kind) if field.init]
        schema: Json = {
            "type": "object",
            "properties": {f.name: self.schema(hints.get(f.name, Any)) for f in fields},
            "required": [f.name for f in fields if f.default is attrs.NOTHING],
            "additionalProperties": False,
        }
        self._inside.pop()
        if kind.__name__ in self.definitions:
            self.definitions[kind.__name__] = schema
        return schema
