"""Structured answers: what is asked of the model, and whether it gave that.

opencode passes a schema on to the model but checks nothing, so the answer is checked here.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import lru_cache, partial
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs

from opencode_trio._json import Json, is_mapping, object_of
from opencode_trio._session.turn import Turn
from opencode_trio._tasks import time_limit
from opencode_trio.errors import OpenCodeConfigError, OpenCodeTurnError
from opencode_trio.events import ErrorInfo
from opencode_trio.results import AnswerT, RunResult

OutputKind: TypeAlias = type[AnswerT] | Mapping[str, Any]
"""What an answer must match: an attrs class, a dataclass, a TypedDict, a pydantic model, or a JSON
schema."""


NO_ANSWER = "StructuredOutputError"
"""opencode's name for a model that answered in words instead, and ours for a wrong answer."""


ASK_AGAIN = (
    "Your structured output was not accepted: {problem}\n"
    "Call the StructuredOutput tool again, with an answer that matches the schema."
)


MAX_REASONS = 5
"""So much of what is wrong with an answer is told."""


class WrongAnswerError(Exception):
    """The answer is not what was asked for; the text says why."""


@attrs.frozen
class Output:
    """A kind of answer."""

    schema: Json
    """What the model is told."""
    read: Callable[[Any], Any]
    """Checks an answer, and makes it what the caller wants; raises `WrongAnswerError`."""


def output_of(kind: Any) -> Output:
    """Prepare to ask for answers of a kind; all that can be wrong with it is found here.

    Args:
        kind: a JSON schema, an attrs class, a dataclass, a TypedDict, or a pydantic model.

    Raises:
        OpenCodeConfigError: it is none of these, or cannot be used; the text says what to do.
        ImportError: the extra `structured` is not installed.
    """
    if is_mapping(kind):
        return _of_schema(_json_text(kind))
    if is_pydantic(kind):
        return _of_pydantic(kind)
    if has_fields(kind) or is_typed_dict(kind):
        return _of_class(kind)
    raise OpenCodeConfigError(
        "output: expected a JSON schema or a class (attrs, dataclass, TypedDict, pydantic model),"
        f" got {kind!r}; make anything else a field of such a class"
    )


def _json_text(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(schema), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OpenCodeConfigError(f"output: the schema is not JSON: {error}") from error


# A swarm asks for the same kind again and again, and each is looked at more than once.
@lru_cache(maxsize=128)
def _of_schema(text: str) -> Output:
    schema = object_of(json.loads(text))
    return Output(schema, _checker(schema))


@lru_cache(maxsize=128)
def _of_class(kind: type[Any]) -> Output:
    try:
        # Of the extra `structured`, which is needed only from here on.
        import cattrs.preconf.json  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    converter = cattrs.preconf.json.make_converter()
    # cattrs resolves no name inside of `list["Name"]`, and takes `NotRequired` in an annotation
    # that is a string for required; our fields know better.
    converter.register_structure_hook_factory(has_fields, partial(_class_hook, converter))
    converter.register_structure_hook_factory(is_typed_dict, partial(_typed_dict_hook, converter))

    def can_tell(union: Any) -> bool:
        try:
            converter.get_structure_hook(union)
        except (cattrs.StructureHandlerNotFoundError, TypeError):
            return False
        return True

    schema = schema_of(kind, can_tell)
    check = _checker(schema)

    def read(answer: Any) -> Any:
        check(answer)
        try:
            return converter.structure(answer, kind)
        except Exception as error:  # whatever a validator of the class raises
            reasons = cattrs.transform_error(error)
            raise WrongAnswerError("; ".join(reasons)) from error

    return Output(schema, read)


def _class_hook(converter: Any, kind: type[Any]) -> Any:
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415 - as above

    hooks: dict[str, Any] = {
        field.name: override(struct_hook=_hook(converter, field.kind)) for field in fields_of(kind)
    }
    return make_dict_structure_fn(kind, converter, **hooks)


def _typed_dict_hook(converter: Any, kind: type[Any]) -> Any:
    hooks = {field.name: _hook(converter, field.kind) for field in fields_of(kind)}

    def read(value: Json, _: Any) -> Json:
        return {name: hooks[name](part, None) for name, part in value.items()}

    return read


def _hook(converter: Any, kind: Any) -> Callable[[Any, Any], Any]:
    return lambda value, _: converter.structure(value, kind)


@lru_cache(maxsize=128)
def _of_pydantic(kind: type[Any]) -> Output:
    import pydantic  # noqa: PLC0415 - whoever has such a class has it

    try:
        adapter = pydantic.TypeAdapter(kind)
        schema = adapter.json_schema()
    except (pydantic.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        raise OpenCodeConfigError(f"output: {kind.__name__}: {error.message}") from error
    if root := schema.pop("$ref", ""):  # providers ask for an object at the top
        schema = {**schema["$defs"][root.removeprefix("#/$defs/")], **schema}

    def read(answer: Any) -> Any:
        try:
            return adapter.validate_json(json.dumps(answer))
        except pydantic.ValidationError as error:
            reasons = [f"{_path(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)]
            raise WrongAnswerError("; ".join(reasons[:MAX_REASONS])) from error
        except Exception as error:  # whatever a validator of the class raises
            raise WrongAnswerError(str(error)) from error

    return Output(schema, read)


def _path(parts: tuple[int | str, ...]) -> str:
    """Write a place in an answer as jsonschema does."""
    return "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)


def _checker(schema: Json) -> Callable[[Any], Any]:
    try:
        import jsonschema.validators  # noqa: PLC0415 - of the extra, too
        import referencing.exceptions  # noqa: PLC0415
        from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise OpenCodeConfigError(f"output: no valid JSON schema: {error.message}") from error
    # With a registry of its own, a `$ref` never makes it reach for the network.
    validator = kind(schema, registry=EMPTY_REGISTRY)
    try:
        _try_out(validator)
    except referencing.exceptions.Unresolvable as error:
        raise OpenCodeConfigError(
            f"output: the schema refers to {error.ref!r}, which is not in it; nothing is fetched,"
            " so put it under $defs"
        ) from error
    except RecursionError as error:
        raise OpenCodeConfigError(
            "output: the schema refers to itself for ever; let it do so inside of properties or"
            " items"
        ) from error

    def check(answer: Any) -> Any:
        problems = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(answer)]
        if problems:
            raise WrongAnswerError("; ".join(problems[:MAX_REASONS]))
        return answer

    return check


ONE_OF_EACH: tuple[Any, ...] = (None, True, 0, "", [], {})
"""The kinds of JSON value."""


def _try_out(validator: Any) -> None:
    """Try every part of a schema on a value of each kind: what is wrong with it, raises."""
    from referencing.jsonschema import (  # noqa: PLC0415 - as above
        DRAFT202012,
        EMPTY_REGISTRY,
        specification_with,
    )

    dialect = validator.META_SCHEMA.get("$schema", "")
    root = specification_with(dialect, default=DRAFT202012).create_resource(validator.schema)
    left = [(root, EMPTY_REGISTRY.resolver_with_root(root))]
    while left:
        part, resolver = left.pop()
        for value in ONE_OF_EACH:
            list(validator.descend(value, part.contents, resolver=resolver))
        left += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]


def _missing(error: ImportError) -> ImportError:
    return ImportError(
        "structured answers need packages that are not installed:"
        " pip install 'opencode-trio[structured]'",
        name=error.name,
    )


def wrong_answer(problem: str, result: RunResult) -> OpenCodeTurnError:
    """Say that the model did not manage; ``error.data["answer"]`` is what it gave."""
    error = ErrorInfo(
        name=NO_ANSWER, message=problem, data={"answer": result.structured, "text": result.text}
    )
    text = f"the model's answer does not match the schema: {problem}"
    return OpenCodeTurnError(text, error=error, partial=result)


def together(first: RunResult, second: RunResult) -> RunResult:
    """Add up two turns that the caller sees as one; what was said last is the answer."""
    costs = dict(first.cost_by_session)
    for session, cost in second.cost_by_session.items():
        costs[session] = costs.get(session, 0.0) + cost
    return attrs.evolve(
        second,
        text="\n".join(filter(None, [first.text, second.text])),
        turns=first.turns + second.turns,
        tool_calls=[*first.tool_calls, *second.tool_calls],
        tool_parts=first.tool_parts + second.tool_parts,
        token_usage=first.token_usage + second.token_usage,
        total_cost=first.total_cost + second.total_cost,
        cost_by_session=costs,
        duration_s=(first.duration_s or 0.0) + (second.duration_s or 0.0),
        events=[*first.events, *second.events],
    )


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


Prompting = Callable[[str], AbstractAsyncContextManager[Turn]]
"""Opens a turn with a prompt."""


async def structured_answer(
    prompt: str, output: Output, prompting: Prompting, *, timeout_s: float | None
) -> RunResult:
    """Prompt until the answer is of a kind; return the result, of two turns if it took two.

    Args:
        prompt: what to do.
        output: the kind of answer.
        prompting: opens a turn that asks for it.
        timeout_s: seconds for everything.

    Raises:
        OpenCodeTurnError: the second answer was wrong, too; or the model failed.
        OpenCodeError: as a turn does.

    **Cancellation**: as that of a turn.
    """
    former: RunResult | None = None
    with time_limit(timeout_s, partial=lambda: former):
        while True:
            result, problem = await _answer(prompting(prompt), output)
            result = result if former is None else together(former, result)
            if problem is None:
                return result
            if former is not None:
                raise wrong_answer(problem, result)
            former, prompt = result, ASK_AGAIN.format(problem=problem)


async def _answer(
    opening: AbstractAsyncContextManager[Turn], output: Output
) -> tuple[RunResult, str | None]:
    """Return a turn's result, with the instance in it, or with what is wrong."""
    try:
        async with opening as turn:
            result = await turn.wait()
    except OpenCodeTurnError as error:
        if error.name != NO_ANSWER or error.partial is None:
            raise
        return error.partial, error.error.message
    try:
        return attrs.evolve(result, structured=output.read(result.structured)), None
    except WrongAnswerError as error:
        return result, str(error)
