"""The JSON schema of a Python type, for structured answers."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
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


JSON_VALUES = str | int | float | bool | None
"""What an enumeration or a `Literal` may hold."""


SUPPORTED = (
    "use str, int, float, bool, None, list[X], tuple[X, ...], dict[str, X], X | Y, Literal,"
    " an Enum of such values, Any, an attrs class, a dataclass or a TypedDict"
)


DISTINCT = (
    "each class needs a required field that the others lack, or a Literal field with a value of its"
    " own; of lists and dicts there can be one, and an Enum cannot stand beside the type of its"
    " values"
)
"""How the parts of a union are told apart."""


@attrs.frozen
class Field:
    """A field of a class that is made of JSON."""

    name: str
    kind: Any
    """Its annotation, resolved."""
    is_required: bool


def is_class(value: object) -> TypeGuard[type[Any]]:
    """Whether it is a class; a type checker learns nothing of what is in it."""
    return isinstance(value, type)


def is_pydantic(kind: object) -> bool:
    """Whether it is a pydantic model, or a dataclass of pydantic's."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def is_typed_dict(kind: object) -> bool:
    """Whether it is a TypedDict, of `typing` or of `typing_extensions`."""
    return is_class(kind) and hasattr(kind, "__total__") and issubclass(kind, dict)


def has_fields(kind: object) -> bool:
    """Whether it is an attrs class or a dataclass."""
    return isinstance(kind, type) and (attrs.has(kind) or dataclasses.is_dataclass(kind))


def fields_of(kind: type[Any]) -> list[Field]:
    """Return the fields that an instance is made of.

    Raises:
        OpenCodeConfigError: an annotation cannot be resolved, or is no field of the instance.
    """
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception as error:  # whatever stands in an annotation
        raise OpenCodeConfigError(
            f"output: the annotations of {kind.__name__} cannot be resolved: {error}; names in them"
            " are looked up in the module, so define those classes at its top level"
        ) from error
    fields = [
        Field(name, hints.get(name, Any), is_required)
        for name, is_required in _names(kind, hints).items()
    ]
    return [attrs.evolve(field, kind=_bare(field.kind)) for field in fields]


def _names(kind: type[Any], hints: Mapping[str, Any]) -> Mapping[str, bool]:
    """Return the names of the fields, and whether each is required."""
    if is_typed_dict(kind):
        # Python does not see `NotRequired` in an annotation that is a string; in a hint we do.
        marks = {Required: True, NotRequired: False}
        required = kind.__required_keys__
        return {n: marks.get(get_origin(hint), n in required) for n, hint in hints.items()}
    if attrs.has(kind):
        return {f.name: f.default is attrs.NOTHING for f in attrs.fields(kind) if f.init}
    missing = dataclasses.MISSING
    return {
        field.name: field.default is missing and field.default_factory is missing
        for field in dataclasses.fields(kind)
        if field.init
    } | {name: True for name, hint in hints.items() if isinstance(hint, dataclasses.InitVar)}


def _bare(hint: Any) -> Any:
    """Take off what says whether a key is required."""
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def schema_of(kind: Any, can_tell: Callable[[Any], bool]) -> Json:
    """Write the JSON schema of a type.

    Args:
        kind: the type.
        can_tell: whether the parts of a union can be told apart in an answer.

    Raises:
        OpenCodeConfigError: JSON has no such thing; the text says where it is, and what to do.
    """
    builder = _Builder(can_tell)
    schema = builder.schema(kind)
    return {**schema, "$defs": builder.definitions} if builder.definitions else schema


@attrs.define
class _Builder:
    _can_tell: Callable[[Any], bool]
    definitions: dict[str, Json] = attrs.field(factory=dict[str, Json])
    _inside: list[type] = attrs.field(factory=list[type])
    _names: dict[type, str] = attrs.field(factory=dict[type, str])
    """Of the classes that contain themselves; two may be called the same."""
    _where: list[str] = attrs.field(factory=list[str])

    def schema(self, kind: Any) -> Json:
        if is_pydantic(kind):
            raise self._refusal(
                f"{_name(kind)} is a pydantic model, so what contains it should be one, too"
            )
        if has_fields(kind) or is_typed_dict(kind):
            return self._class(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self._values(kind)
        if (generic := self._generic(kind)) is not None:
            return generic
        try:
            return dict(SCALARS[kind])
        except (KeyError, TypeError):
            problem = f"{_name(kind)} cannot be written as JSON; {SUPPORTED}"
            raise self._refusal(problem) from None

    def _generic(self, kind: Any) -> Json | None:
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.schema(args[0])
        if origin is Literal:
            return self._values(args)
        if origin in (Union, types.UnionType):
            return self._union(args)
        if origin in (list, Sequence) or (origin is tuple and args[1:] == (...,)):
            return {"type": "array", "items": self.schema(args[0])}
        if origin in (dict, Mapping) and args[0] is str:
            return {"type": "object", "additionalProperties": self.schema(args[1])}
        return None

    def _values(self, members: Iterable[Any]) -> Json:
        values = [m.value if isinstance(m, enum.Enum) else m for m in members]
        for value in values:
            if not isinstance(value, JSON_VALUES):
                raise self._refusal(f"the value {value!r} cannot be written as JSON; {SUPPORTED}")
        return {"enum": values}

    def _union(self, args: tuple[Any, ...]) -> Json:
        plain = {arg for arg in args if isinstance(arg, type) and arg in SCALARS}
        others = tuple(arg for arg in args if arg not in plain)
        enums = [arg for arg in others if isinstance(arg, type) and issubclass(arg, enum.Enum)]
        schema: Json = {"anyOf": [self.schema(arg) for arg in args]}
        if any(type(member.value) in plain for kind in enums for member in kind) or (
            len(others) > 1 and not self._can_tell(Union[others])  # noqa: UP007 - of as many as there are
        ):
            names = " | ".join(map(_name, args))
            raise self._refusal(f"{names} is ambiguous; {DISTINCT}")
        return schema

    def _class(self, kind: type[Any]) -> Json:
        """Describe a class in place; one that contains itself, by reference."""
        if kind in self._inside:
            return {"$ref": f"#/$defs/{self._define(kind)}"}
        self._inside.append(kind)
        fields = fields_of(kind)
        properties: dict[str, Json] = {}
        for field in fields:
            with self._at(f"{kind.__name__}.{field.name}"):
                properties[field.name] = self.schema(field.kind)
        schema: Json = {
            "type": "object",
            "properties": properties,
            "required": [field.name for field in fields if field.is_required],
            "additionalProperties": False,
        }
        self._inside.pop()
        if kind in self._names:
            self.definitions[self._names[kind]] = schema
        return schema

    def _define(self, kind: type[Any]) -> str:
        if kind not in self._names:
            taken = sum(other.__name__ == kind.__name__ for other in self._names)
            self._names[kind] = f"{kind.__name__}{taken + 1 if taken else ''}"
        return self._names[kind]

    @contextmanager
    def _at(self, where: str) -> Generator[None]:
        self._where.append(where)
        yield
        self._where.pop()

    def _refusal(self, problem: str) -> OpenCodeConfigError:
        return OpenCodeConfigError(": ".join(["output", *self._where[-1:], problem]))


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
